//! A store whose files can be cut off, as a crash would.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use latitude_storage::{Batch, Column, Engine, Scan, conformance};
use latitude_types::StoreId;

use crate::{Options, RocksEngine};

/// The id of stores made by tests.
pub(super) const STORE: StoreId = StoreId([7; 16]);

/// Opens a store with little memory, made if need be.
pub(super) fn open(path: &Path) -> RocksEngine {
    let options = Options {
        block_cache_bytes: 1 << 20,
        write_buffer_bytes: 1 << 20,
        staged_file_bytes: 256 << 10,
        ..Options::default()
    };
    RocksEngine::open_or_create(path, STORE, &options).unwrap()
}

/// The log file written to at present.
pub(super) fn live_log(store: &Path) -> PathBuf {
    let files = fs::read_dir(store.join("db")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "log")).max().unwrap()
}

/// A file's length, in bytes.
pub(super) fn length(file: &Path) -> u64 {
    fs::metadata(file).unwrap().len()
}

/// Cuts a file off.
pub(super) fn truncate(file: &Path, length: u64) {
    OpenOptions::new().write(true).open(file).unwrap().set_len(length).unwrap();
}

/// Writes one row, without syncing.
pub(super) fn put(engine: &dyn Engine, key: &str) {
    let mut batch = Batch::new();
    batch.put(Column::Base, key.to_string(), "value");
    batch.put(Column::Log, key.to_string(), "entry");
    engine.write(batch).unwrap();
}

/// The keys there are, after checking that both columns of [`put`] agree.
pub(super) fn keys(engine: &dyn Engine) -> Vec<String> {
    let of = |column| -> Vec<String> {
        let rows = conformance::rows(engine, column, Scan::all());
        rows.into_iter().map(|(key, _)| key.escape_ascii().to_string()).collect()
    };
    assert_eq!(of(Column::Base), of(Column::Log), "a batch is atomic across columns");
    of(Column::Base)
}

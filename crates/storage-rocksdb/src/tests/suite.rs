//! RocksDB as an engine: the suite of all engines, and what is peculiar to a store on disk.

use std::cell::Cell;
use std::fs;

use latitude_storage::{Column, Engine, Kind, Scan, View, conformance};
use latitude_types::StoreId;

use super::files;
use crate::{Options, RocksEngine};

#[test]
fn it_is_an_engine() {
    let directory = tempfile::tempdir().unwrap();
    let stores = Cell::new(0);
    conformance::check(|| {
        stores.set(stores.get() + 1);
        files::open(&directory.path().join(stores.get().to_string()))
    });
}

#[test]
fn it_reopens_as_an_engine_does() {
    let directory = tempfile::tempdir().unwrap();
    conformance::check_reopening(|| files::open(directory.path()));
    let directory = tempfile::tempdir().unwrap();
    conformance::check_staging_reopened(|| files::open(directory.path()));
}

#[test]
fn a_store_keeps_its_id_and_is_held_by_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let engine = files::open(directory.path());
    assert_eq!(engine.store_id(), files::STORE);
    let second = RocksEngine::open(directory.path(), &Options::default()).err().unwrap();
    assert_eq!(second.kind, Kind::InUse);
    drop(engine);
    let other = StoreId([8; 16]);
    let engine = RocksEngine::open_or_create(directory.path(), other, &Options::default()).unwrap();
    assert_eq!(engine.store_id(), files::STORE);
}

#[test]
fn opening_what_is_no_store_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    for path in [directory.path(), &missing] {
        let error = RocksEngine::open(path, &Options::default()).err().unwrap();
        assert_eq!(error.kind, Kind::Format);
        assert!(error.message.contains("is not a Latitude store"), "{error}");
    }
    assert!(!missing.exists());
}

#[test]
fn a_store_whose_tables_rot_is_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let engine = files::open(directory.path());
    files::put(&engine, "a");
    engine.sync().unwrap();
    drop(engine);
    drop(files::open(directory.path())); // Recovery writes the log's rows into tables.

    let tables = fs::read_dir(directory.path().join("db")).unwrap().map(|e| e.unwrap().path());
    for table in tables.filter(|path| path.extension().is_some_and(|e| e == "sst")) {
        let mut bytes = fs::read(&table).unwrap();
        bytes[3] ^= 1; // In the first block of rows.
        fs::write(&table, bytes).unwrap();
    }
    let engine = files::open(directory.path());
    assert_eq!(engine.get(Column::Base, b"a").unwrap_err().kind, Kind::Corrupt);
    let mut rows = engine.scan(Column::Base, Scan::all());
    assert_eq!(rows.next().map(|row| row.unwrap_err().kind), Some(Kind::Corrupt));
    assert!(rows.next().is_none(), "after an error a scan ends");
}

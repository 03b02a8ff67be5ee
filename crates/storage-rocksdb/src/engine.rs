//! The engine.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use latitude_storage::key::Span;
use latitude_storage::{
    Batch, Column, Damage, Done, Engine, Error, Kind, Result, Rows, Scan, SetName, Staging, View,
    Write,
};
use latitude_types::StoreId;
use rocksdb::{
    ColumnFamily, DB, ErrorKind, IteratorMode, ReadOptions, Snapshot, WriteBatch, WriteOptions,
};

use crate::Options;
use crate::directory::Directory;
use crate::marker::Marker;
use crate::staging::StagingArea;

/// How long a sync may stay unnoted in the marker.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// A store on disk. See the crate's documentation.
///
/// Dropping it notes how far it is synced and closes RocksDB; it syncs nothing. A replacement under way
/// keeps RocksDB open until it ends.
pub struct RocksEngine {
    db: Arc<DB>,
    staging: StagingArea,
    options: Options,
    /// One sync at a time: the kernel reports a failed one once, and whoever syncs the same file just
    /// afterwards is told that all is well.
    syncing: Mutex<()>,
    noter: Noter,
    damage: Option<Damage>,
    /// Last, so that the lock is let go after RocksDB is closed.
    directory: Arc<Directory>,
}

impl RocksEngine {
    /// Opens the store at `path`. There must be one: [`Kind::Format`] if not.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self> {
        Self::open_in(Directory::open(path.as_ref())?, options)
    }

    /// Opens the store at `path`, or makes one with the id `new` in a directory that is missing or
    /// empty. [`Self::store_id`] tells which.
    pub fn open_or_create(path: impl AsRef<Path>, new: StoreId, options: &Options) -> Result<Self> {
        Self::open_in(Directory::open_or_create(path.as_ref(), new)?, options)
    }

    /// The store's id, drawn when it was made.
    pub fn store_id(&self) -> StoreId {
        self.directory.store()
    }

    /// How many writes the store has ever taken, in RocksDB's count: one for each of a batch.
    pub fn sequence(&self) -> u64 {
        self.db.latest_sequence_number()
    }

    fn open_in(directory: Directory, options: &Options) -> Result<Self> {
        let db =
            DB::open_cf_descriptors(&options.database(), directory.database(), options.columns())
                .map_err(|error| convert(&error))?;
        let (marker, synced) = Marker::open(directory.path()).map_err(|error| {
            let path = directory.path().display();
            Error::new(Kind::Io, format!("{path}: the marker cannot be read: {error}"))
        })?;
        let recovered = db.latest_sequence_number();
        let damage = match synced {
            None => Some(Damage::MarkerUnreadable),
            Some(synced) if recovered < synced => Some(Damage::WritesMissing { recovered, synced }),
            Some(_) => None,
        };
        let noter = Noter::start(marker)?;
        let staging = StagingArea::new(directory.path());
        let (db, directory, options) = (Arc::new(db), Arc::new(directory), options.clone());
        Ok(Self { db, staging, options, syncing: Mutex::new(()), noter, damage, directory })
    }

    fn column(&self, column: Column) -> &ColumnFamily {
        self.db.cf_handle(column.name()).expect("every column was opened with the database")
    }
}

impl View for RocksEngine {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.db.get_pinned_cf(self.column(column), key);
        Ok(value.map_err(|error| convert(&error))?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, column: Column, scan: Scan) -> Rows<'_> {
        let Some((bounds, mode)) = bounds(scan) else { return Box::new(std::iter::empty()) };
        Box::new(self.db.iterator_cf_opt(self.column(column), bounds, mode).map(row))
    }
}

impl Engine for RocksEngine {
    fn write(&self, batch: Batch) -> Result<()> {
        self.noter.status.check()?;
        if batch.is_empty() {
            return Ok(());
        }
        let mut writes = WriteBatch::default();
        for write in &batch {
            match write {
                Write::Put { column, key, value } => {
                    writes.put_cf(self.column(*column), key, value);
                }
                Write::Delete { column, key } => writes.delete_cf(self.column(*column), key),
                Write::DeleteRange { column, start, end } => {
                    writes.delete_range_cf(self.column(*column), start, end);
                }
            }
        }
        // Into the log's buffer, without a system call: `sync` alone decides about durability.
        let mut options = WriteOptions::default();
        options.set_sync(false);
        self.db.write_opt(writes, &options).map_err(|error| {
            let error = convert(&error);
            if error.kind == Kind::Full { error } else { self.noter.status.fail(error) }
        })
    }

    fn sync(&self) -> Result<()> {
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.noter.status.check()?;
        // Read before: what is written from here on may miss this sync.
        let sequence = self.db.latest_sequence_number();
        self.db.flush_wal(true).map_err(|error| self.noter.status.fail(convert(&error)))?;
        self.noter.status.synced.fetch_max(sequence, Ordering::Release);
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn View + '_> {
        Box::new(RocksSnapshot { engine: self, snapshot: self.db.snapshot() })
    }

    fn stage(&self, set: SetName, column: Column, spans: Vec<Span>) -> Result<Box<dyn Staging>> {
        self.noter.status.check()?;
        let options = self.options.staged(column);
        self.staging.stage(set, column, spans, options, self.options.staged_file_bytes)
    }

    fn staged(&self) -> Result<Vec<SetName>> {
        self.staging.staged()
    }

    fn replace(&self, set: SetName, done: Done) {
        match self.noter.status.check() {
            Ok(()) => {
                let directory = Arc::clone(&self.directory);
                self.staging.replace(set, Arc::clone(&self.db), directory, done);
            }
            Err(error) => done(Err(error)),
        }
    }

    fn discard(&self, set: SetName) -> Result<()> {
        self.staging.discard(set)
    }

    fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    fn free_space(&self) -> Result<u64> {
        self.directory.free_space()
    }
}

struct RocksSnapshot<'a> {
    engine: &'a RocksEngine,
    snapshot: Snapshot<'a>,
}

impl View for RocksSnapshot<'_> {
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.snapshot.get_pinned_cf(self.engine.column(column), key);
        Ok(value.map_err(|error| convert(&error))?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, column: Column, scan: Scan) -> Rows<'_> {
        let Some((bounds, mode)) = bounds(scan) else { return Box::new(std::iter::empty()) };
        Box::new(self.snapshot.iterator_cf_opt(self.engine.column(column), bounds, mode).map(row))
    }
}

/// A scan as RocksDB takes it; `None` if it is empty. The bounds go to RocksDB so that it need not step
/// over deleted rows beyond them.
fn bounds(scan: Scan) -> Option<(ReadOptions, IteratorMode<'static>)> {
    if scan.is_empty() {
        return None;
    }
    let mut options = ReadOptions::default();
    if !scan.start.is_empty() {
        options.set_iterate_lower_bound(scan.start);
    }
    if let Some(end) = scan.end {
        options.set_iterate_upper_bound(end);
    }
    Some((options, if scan.reverse { IteratorMode::End } else { IteratorMode::Start }))
}

/// A row as RocksDB hands it over.
type RocksRow = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>;

fn row(row: RocksRow) -> Result<(Bytes, Bytes)> {
    row.map(|(key, value)| (key.into(), value.into())).map_err(|error| convert(&error))
}

pub(crate) fn convert(error: &rocksdb::Error) -> Error {
    Error::new(kind_of(error.kind(), error.as_ref()), format!("RocksDB: {error}"))
}

fn kind_of(kind: ErrorKind, message: &str) -> Kind {
    // RocksDB's C interface passes no subcode, only words: those of its own (`Status::NoSpace`).
    if message.contains("No space left on device") {
        return Kind::Full;
    }
    match kind {
        ErrorKind::Corruption => Kind::Corrupt,
        _ => Kind::Io,
    }
}

/// How the store fares since it was opened; shared with the thread that notes it.
#[derive(Default)]
struct Status {
    /// Everything up to here is durable; 0 before the first sync.
    synced: AtomicU64,
    /// The failure after which nothing is written or synced any more.
    failure: OnceLock<Error>,
}

impl Status {
    fn check(&self) -> Result<()> {
        match self.failure.get() {
            None => Ok(()),
            Some(first) => {
                let message = format!("the store has failed and must be opened anew ({first})");
                Err(Error::new(Kind::Fatal, message))
            }
        }
    }

    /// Stops the store because of `error`, which it returns.
    fn fail(&self, error: Error) -> Error {
        // Only the first failure counts.
        let _ = self.failure.set(error.clone());
        error
    }
}

/// A thread that notes in the marker, once a second, how far the store is synced: also after the last
/// sync before a quiet time, which no later sync would note.
struct Noter {
    status: Arc<Status>,
    /// Dropped to end the thread.
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Noter {
    fn start(marker: Marker) -> Result<Self> {
        let status = Arc::new(Status::default());
        let (end, ended) = mpsc::channel();
        let shared = status.clone();
        // A tick each second, and a last one at the end.
        let mut over = false;
        let ticks = std::iter::from_fn(move || {
            if over {
                return None;
            }
            over = ended.recv_timeout(NOTE_INTERVAL) != Err(RecvTimeoutError::Timeout);
            Some(())
        });
        let run = move || note_at(ticks, &shared, marker);
        let thread = Builder::new().name("storage-marker".into()).spawn(run).map_err(|error| {
            Error::new(Kind::Io, format!("the marker's thread does not start: {error}"))
        })?;
        Ok(Self { status, end: Some(end), thread: Some(thread) })
    }
}

/// Notes at each tick what has been synced since the one before.
fn note_at(ticks: impl Iterator<Item = ()>, status: &Status, mut marker: Marker) {
    let mut noted = 0;
    for () in ticks {
        let synced = status.synced.load(Ordering::Acquire);
        if synced <= noted || status.check().is_err() {
            continue;
        }
        noted = synced;
        if let Err(error) = marker.note(synced) {
            status.fail(Error::new(Kind::Io, format!("the marker cannot be written: {error}")));
        }
    }
}

impl Drop for Noter {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // Its panic has been reported where it happened, and there is nothing left to note.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let full = "IO error: No space left on device: While appending to file: 000004.log";
        assert_eq!(kind_of(ErrorKind::IOError, full), Kind::Full);
        let broken = "IO error: While fdatasync: 000004.log: Input/output error";
        assert_eq!(kind_of(ErrorKind::IOError, broken), Kind::Io);
        assert_eq!(kind_of(ErrorKind::Corruption, "Corruption: block checksum"), Kind::Corrupt);
    }

    #[test]
    fn each_tick_notes_what_was_synced_before_it() {
        let directory = tempfile::tempdir().unwrap();
        Marker::create(directory.path()).unwrap();
        let noted = || Marker::open(directory.path()).unwrap().1;
        let status = Status::default();
        let mut tick = 0;
        let ticks = std::iter::from_fn(|| {
            assert_eq!(noted(), Some([0, 0, 5, 5][tick]));
            status.synced.store([0, 5, 5, 9][tick], Ordering::Release);
            tick += 1;
            (tick <= 3).then_some(())
        });
        note_at(ticks, &status, Marker::open(directory.path()).unwrap().0);
        assert_eq!(noted(), Some(5), "synced after the last tick");
    }

    #[test]
    fn a_marker_that_cannot_be_written_stops_the_store() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", directory.path().join(Marker::NAME)).unwrap();
        let (marker, synced) = Marker::open(directory.path()).unwrap();
        assert_eq!(synced, None);
        let status = Status::default();
        status.synced.store(5, Ordering::Release);
        note_at([()].into_iter(), &status, marker);
        assert_eq!(status.check().unwrap_err().kind, Kind::Fatal);
    }

    #[test]
    fn after_a_failure_the_store_refuses_writes_and_syncs_and_names_the_first_one() {
        let directory = tempfile::tempdir().unwrap();
        let engine =
            RocksEngine::open_or_create(directory.path(), StoreId([1; 16]), &Options::default())
                .unwrap();
        engine.noter.status.fail(Error::new(Kind::Io, "first"));
        engine.noter.status.fail(Error::new(Kind::Io, "second"));
        let mut batch = Batch::new();
        batch.put(Column::Base, "a", "1");
        for error in [engine.write(batch).unwrap_err(), engine.sync().unwrap_err()] {
            assert_eq!(error.kind, Kind::Fatal);
            assert!(error.message.contains("first"), "{error}");
        }
        assert_eq!(engine.get(Column::Base, b"a"), Ok(None), "reads go on");
    }
}

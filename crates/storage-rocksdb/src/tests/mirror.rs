//! The same operations on both engines: RocksDB must do what the engine in memory does, crashes
//! included, for the simulation trusts the latter.

use std::collections::BTreeMap;
use std::path::PathBuf;

use latitude_storage::key::Span;
use latitude_storage::memory::{MemoryDisk, MemoryEngine};
use latitude_storage::{Batch, Column, Engine, Scan, SetName, View, Write, conformance};
use proptest::prelude::*;

use super::files;
use crate::RocksEngine;

const SET: SetName = SetName(1);

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<Write>),
    Sync,
    Get(Column, Vec<u8>),
    Scan(Column, Scan),
    /// Takes a snapshot, writes, and reads the snapshot.
    Snapshot(Vec<Write>),
    /// Stages rows for a span, and replaces what is there; synced before, as whoever means it does.
    Replace(Vec<u8>, Vec<u8>, Vec<Vec<u8>>),
    /// Closes and opens again.
    Reopen,
    /// Cuts the log off this far (of 256) between what is synced and what is written.
    Crash(u8),
}

/// A RocksDB engine and one in memory that have been told the same.
struct Mirror {
    directory: tempfile::TempDir,
    disk: MemoryDisk,
    /// `None` only while being reopened.
    engines: Option<(RocksEngine, MemoryEngine)>,
    /// RocksDB's count of writes after each batch since the last sync, the count at the sync first.
    sequences: Vec<u64>,
    /// The log as it was at the last sync.
    synced: (PathBuf, u64),
}

impl Mirror {
    fn new() -> Self {
        let (directory, disk) = (tempfile::tempdir().unwrap(), MemoryDisk::new());
        let synced = (PathBuf::new(), 0);
        let mut mirror = Self { directory, disk, engines: None, sequences: Vec::new(), synced };
        mirror.open();
        mirror
    }

    fn open(&mut self) {
        let rocks = files::open(self.directory.path());
        let memory = MemoryEngine::open(&self.disk).unwrap();
        assert_eq!((rocks.damage(), memory.damage()), (None, None));
        self.engines = Some((rocks, memory));
        self.mark_synced();
    }

    fn mark_synced(&mut self) {
        let log = files::live_log(self.directory.path());
        let length = files::length(&log);
        self.sequences = vec![self.engines().0.sequence()];
        self.synced = (log, length);
    }

    fn engines(&self) -> (&RocksEngine, &MemoryEngine) {
        let (rocks, memory) = self.engines.as_ref().unwrap();
        (rocks, memory)
    }

    fn write(&mut self, writes: &[Write]) {
        let batch = batch(writes);
        let (rocks, memory) = self.engines();
        rocks.write(batch.clone()).unwrap();
        memory.write(batch).unwrap();
        let sequence = rocks.sequence();
        if self.sequences.last() != Some(&sequence) {
            self.sequences.push(sequence);
        }
    }

    fn crash(&mut self, part: u8) {
        self.engines = None;
        let (log, synced) = &self.synced;
        let written = files::length(log);
        files::truncate(log, synced + (written - synced) * u64::from(part) / 255);

        // How many batches RocksDB has saved decides how many the disk in memory saves.
        let sequence = files::open(self.directory.path()).sequence();
        let kept = self.sequences.iter().position(|s| *s == sequence);
        let kept = kept.expect("a log ends between two batches, never inside one");
        let sequences = self.sequences.len() - 1;
        self.disk.crash(|unsynced| {
            assert_eq!(unsynced, sequences);
            kept
        });
        self.open();
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Write(writes) => self.write(writes),
            Op::Sync => {
                let (rocks, memory) = self.engines();
                rocks.sync().unwrap();
                memory.sync().unwrap();
                self.mark_synced();
            }
            Op::Get(column, key) => {
                let (rocks, memory) = self.engines();
                assert_eq!(rocks.get(*column, key), memory.get(*column, key));
            }
            Op::Scan(column, scan) => {
                let (rocks, memory) = self.engines();
                assert_same(rocks, memory, *column, scan);
            }
            Op::Snapshot(writes) => {
                let (rocks, memory) = self.engines();
                let (old_rocks, old_memory) = (rocks.snapshot(), memory.snapshot());
                rocks.write(batch(writes)).unwrap();
                memory.write(batch(writes)).unwrap();
                for column in Column::ALL {
                    assert_same(&*old_rocks, &*old_memory, column, &Scan::all());
                }
                drop((old_rocks, old_memory));
                let sequence = self.engines().0.sequence();
                if self.sequences.last() != Some(&sequence) {
                    self.sequences.push(sequence);
                }
            }
            Op::Replace(start, end, keys) => {
                let span = Span { start: start.clone(), end: end.clone() };
                let row = |key: &Vec<u8>| (key.clone(), b"staged".to_vec());
                let rows: BTreeMap<_, _> =
                    keys.iter().filter(|key| span.contains(key)).map(row).collect();
                let (rocks, memory) = self.engines();
                for engine in [rocks as &dyn Engine, memory] {
                    engine.sync().unwrap();
                    engine.discard(SET).unwrap();
                    conformance::stage_rows(engine, SET, vec![span.clone()], &rows).unwrap();
                    conformance::replace(engine, SET).unwrap();
                }
                self.mark_synced();
            }
            Op::Reopen => {
                self.engines = None;
                self.open();
            }
            Op::Crash(part) => self.crash(*part),
        }
    }

    fn assert_equal(&self) {
        let (rocks, memory) = self.engines();
        for column in Column::ALL {
            assert_same(rocks, memory, column, &Scan::all());
            assert_same(rocks, memory, column, &Scan::all().reversed());
        }
    }
}

fn batch(writes: &[Write]) -> Batch {
    let mut batch = Batch::new();
    for write in writes.iter().cloned() {
        match write {
            Write::Put { column, key, value } => batch.put(column, key, value),
            Write::Delete { column, key } => batch.delete(column, key),
            Write::DeleteRange { column, start, end } => batch.delete_range(column, start, end),
        }
    }
    batch
}

fn assert_same(a: &dyn View, b: &dyn View, column: Column, scan: &Scan) {
    let rows = conformance::rows(a, column, scan.clone());
    assert_eq!(rows, conformance::rows(b, column, scan.clone()), "{column}, {scan:?}");
}

fn column() -> impl Strategy<Value = Column> {
    // Mostly one, so that operations meet.
    prop_oneof![4 => Just(Column::Base), 1 => prop::sample::select(Column::ALL.to_vec())]
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, 1, 0x61, 0xff]), 0..3)
}

fn write() -> impl Strategy<Value = Write> {
    let value = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        4 => (column(), key(), value).prop_map(|(column, key, value)| Write::Put {
            column,
            key: key.into(),
            value: value.into(),
        }),
        1 => (column(), key()).prop_map(|(column, key)| Write::Delete { column, key: key.into() }),
        1 => (column(), key(), key()).prop_map(|(column, start, end)| Write::DeleteRange {
            column,
            start: start.into(),
            end: end.into(),
        }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let writes = || prop::collection::vec(write(), 0..6);
    let scan = (key(), prop::option::of(key()), any::<bool>())
        .prop_map(|(start, end, reverse)| Scan { start, end, reverse });
    prop_oneof![
        16 => writes().prop_map(Op::Write),
        4 => Just(Op::Sync),
        4 => (column(), key()).prop_map(|(column, key)| Op::Get(column, key)),
        6 => (column(), scan).prop_map(|(column, scan)| Op::Scan(column, scan)),
        2 => writes().prop_map(Op::Snapshot),
        2 => (key(), key(), prop::collection::vec(key(), 0..6)).prop_filter_map(
            "a span is not empty",
            |(start, end, keys)| (start < end).then_some(Op::Replace(start, end, keys)),
        ),
        1 => Just(Op::Reopen),
        2 => any::<u8>().prop_map(Op::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_engines_do_the_same(ops in prop::collection::vec(op(), 1..60)) {
        let mut mirror = Mirror::new();
        for op in &ops {
            mirror.apply(op);
        }
        mirror.assert_equal();
    }
}

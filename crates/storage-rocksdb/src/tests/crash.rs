//! What survives a crash, and what is noticed when the disk loses more than that.
//!
//! Closing RocksDB writes what it has buffered, so a crash is played by noting how long the log was at
//! some moment, closing, and cutting the log off there.

use std::fs;
use std::path::Path;

use latitude_storage::{Batch, Column, Damage, Engine, Scan, SetName, conformance};

use super::files::{keys, length, live_log, open, put, truncate};

#[test]
fn a_crash_spares_what_was_synced_and_a_prefix_of_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    put(&engine, "a");
    put(&engine, "b");
    engine.sync().unwrap();
    let log = live_log(directory.path());
    let synced = length(&log);
    for key in ["c", "d", "e"] {
        put(&engine, key);
    }
    assert_eq!(length(&log), synced, "a write makes no system call");
    drop(engine);

    // From the whole log down to what was synced: fewer and fewer batches, each whole or absent.
    let all = ["a", "b", "c", "d", "e"];
    let mut counts = Vec::new();
    for cut in (synced..=length(&log)).rev().step_by(7).chain([synced]) {
        let copy = copied(directory.path());
        truncate(&live_log(copy.path()), cut);
        let engine = open(copy.path());
        let survivors = keys(&engine);
        assert_eq!(survivors, all[..survivors.len()]);
        assert_eq!(engine.damage(), None, "what was not synced may be lost");
        counts.push(survivors.len());
    }
    counts.dedup();
    assert_eq!(counts, [5, 4, 3, 2]);
}

#[test]
fn a_process_killed_without_closing_has_every_synced_write() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    put(&engine, "a");
    engine.sync().unwrap();
    put(&engine, "b");
    // What another process would find now: the buffer in memory is not among it.
    let copy = copied(directory.path());
    let found = open(copy.path());
    assert_eq!(keys(&found), ["a"]);
    assert_eq!(found.damage(), None);
}

#[test]
fn a_log_cut_off_before_what_was_synced_is_noticed_until_the_next_sync() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    put(&engine, "a");
    engine.sync().unwrap();
    let log = live_log(directory.path());
    let first = length(&log);
    put(&engine, "b");
    engine.sync().unwrap();
    drop(engine);
    truncate(&log, first);

    for _ in 0..2 {
        let engine = open(directory.path());
        assert_eq!(keys(&engine), ["a"]);
        assert_eq!(
            engine.damage(),
            Some(&Damage::WritesMissing { recovered: 2, synced: 4 }),
            "two rows to a batch"
        );
    }
    let engine = open(directory.path());
    put(&engine, "rebuilt");
    engine.sync().unwrap();
    drop(engine);
    assert_eq!(open(directory.path()).damage(), None);
}

#[test]
fn a_bit_flipped_in_the_synced_log_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    put(&engine, "a");
    engine.sync().unwrap();
    let log = live_log(directory.path());
    let first = length(&log) as usize;
    // Longer than the blocks in which the log is read, so that what follows could be found again.
    let mut batch = Batch::new();
    for column in [Column::Base, Column::Log] {
        batch.put(column, "b", vec![0; 100_000]);
    }
    engine.write(batch).unwrap();
    put(&engine, "c");
    engine.sync().unwrap();
    drop(engine);
    let mut bytes = fs::read(&log).unwrap();
    bytes[first + 10] ^= 1;
    fs::write(&log, bytes).unwrap();

    let engine = open(directory.path());
    assert_eq!(keys(&engine), ["a"], "recovery ends where the log does not check");
    assert_eq!(engine.damage(), Some(&Damage::WritesMissing { recovered: 2, synced: 6 }));
}

#[test]
fn a_log_that_is_gone_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    put(&engine, "a");
    engine.sync().unwrap();
    drop(engine);
    fs::remove_file(live_log(directory.path())).unwrap();
    let engine = open(directory.path());
    assert_eq!(engine.damage(), Some(&Damage::WritesMissing { recovered: 0, synced: 2 }));
}

#[test]
fn a_database_that_is_gone_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    put(&engine, "a");
    engine.sync().unwrap();
    drop(engine);
    fs::remove_dir_all(directory.path().join("db")).unwrap();
    let engine = open(directory.path());
    assert_eq!(engine.damage(), Some(&Damage::WritesMissing { recovered: 0, synced: 2 }));
}

#[test]
fn a_marker_that_is_gone_is_damage_too() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    fs::remove_file(directory.path().join("SYNCED")).unwrap();
    assert_eq!(open(directory.path()).damage(), Some(&Damage::MarkerUnreadable));
    let engine = open(directory.path());
    assert_eq!(engine.damage(), Some(&Damage::MarkerUnreadable));
    put(&engine, "rebuilt");
    engine.sync().unwrap();
    drop(engine);
    assert_eq!(open(directory.path()).damage(), None);
}

/// A copy of a store as its files are now.
fn copied(store: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir(&to).unwrap();
                copy(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let directory = tempfile::tempdir().unwrap();
    copy(store, directory.path());
    directory
}

#[test]
fn a_replacement_outlives_a_crash_that_loses_writes_of_other_columns_made_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path());
    put(&engine, "a");
    put(&engine, "b");
    engine.sync().unwrap();
    let log = live_log(directory.path());
    let synced = length(&log);
    let mut batch = Batch::new();
    batch.put(Column::Log, "lost", "entry");
    engine.write(batch).unwrap();
    let rows = [("b", "new")];
    conformance::stage(&engine, SetName(3), &[("b", "c")], &rows).unwrap();
    conformance::replace(&engine, SetName(3)).unwrap();
    // The power goes: of the log there is what was synced, or what RocksDB made durable since.
    let left = copied(directory.path());
    let log = left.path().join("db").join(log.file_name().unwrap());
    if log.exists() && live_log(left.path()) == log {
        truncate(&log, synced);
    }
    let engine = open(left.path());
    let base = conformance::rows(&engine, Column::Base, Scan::all());
    assert_eq!(base, [("a".into(), "value".into()), ("b".into(), "new".into())]);
    assert_eq!(engine.damage(), None);
    assert_eq!(engine.staged(), Ok(vec![SetName(3)]));
    conformance::replace(&engine, SetName(3)).expect("it can be repeated");
    assert_eq!(conformance::rows(&engine, Column::Base, Scan::all()), base);
}

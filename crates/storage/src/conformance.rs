//! What every engine must do, as tests: [`check`] and [`check_reopening`] panic where one does not.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Batch, Column, Engine, Scan, View};

/// Checks everything that can be checked without closing the engine. `open` makes an empty one.
pub fn check<E: Engine>(open: impl Fn() -> E) {
    an_empty_store_has_no_rows(&open());
    the_last_write_of_a_batch_wins(&open());
    columns_do_not_share_keys(&open());
    a_scan_walks_its_span_in_its_direction(&open());
    deleting_a_range_spares_its_end(&open());
    writes_of_a_batch_take_effect_in_order(&open());
    a_snapshot_stands_still(&open());
    a_scan_shows_the_moment_it_began(&open());
    any_bytes_are_a_key_and_a_value(&open());
    syncing_changes_nothing_visible(&open());
    a_whole_store_has_space_and_no_damage(&open());
}

/// Checks that a store outlives its engine: `open` opens the same store each time, empty at first.
pub fn check_reopening<E: Engine>(open: impl Fn() -> E) {
    {
        let engine = open();
        for column in Column::ALL {
            put(&engine, column, b"kept", column.name().as_bytes());
            put(&engine, column, b"deleted", b"1");
        }
        engine.sync().expect("a sync");
        let mut batch = Batch::new();
        for column in Column::ALL {
            batch.delete_range(column, &b"d"[..], &b"e"[..]);
        }
        engine.write(batch).expect("a write");
        engine.sync().expect("a sync");
    }
    for _ in 0..2 {
        let engine = open();
        for column in Column::ALL {
            let expected = [(Bytes::from("kept"), Bytes::from(column.name()))];
            assert_eq!(rows(&engine, column, Scan::all()), expected, "{column} after reopening");
        }
        assert_eq!(engine.damage(), None, "a store closed in order is whole");
    }
}

/// All rows of a scan, which must not fail.
pub fn rows(view: &dyn View, column: Column, scan: Scan) -> Vec<(Bytes, Bytes)> {
    view.scan(column, scan).collect::<Result<_, _>>().expect("a scan without errors")
}

fn put(engine: &dyn Engine, column: Column, key: &[u8], value: &[u8]) {
    let mut batch = Batch::new();
    batch.put(column, key.to_vec(), value.to_vec());
    engine.write(batch).expect("a write");
}

fn get(view: &dyn View, key: &[u8]) -> Option<Bytes> {
    view.get(Column::Base, key).expect("a read")
}

fn keys(view: &dyn View, scan: Scan) -> Vec<Bytes> {
    rows(view, Column::Base, scan).into_iter().map(|(key, _)| key).collect()
}

fn an_empty_store_has_no_rows(engine: &dyn Engine) {
    for column in Column::ALL {
        assert_eq!(engine.get(column, b"").expect("a read"), None);
        assert_eq!(rows(engine, column, Scan::all()), []);
        assert_eq!(rows(engine, column, Scan::all().reversed()), []);
    }
    engine.write(Batch::new()).expect("an empty batch is written");
    engine.sync().expect("a sync of nothing");
}

fn the_last_write_of_a_batch_wins(engine: &dyn Engine) {
    let mut batch = Batch::new();
    batch.put(Column::Base, &b"a"[..], &b"1"[..]);
    batch.put(Column::Base, &b"a"[..], &b"2"[..]);
    batch.put(Column::Base, &b"b"[..], &b"1"[..]);
    batch.delete(Column::Base, &b"b"[..]);
    batch.delete(Column::Base, &b"c"[..]);
    batch.put(Column::Base, &b"c"[..], &b"1"[..]);
    batch.delete(Column::Base, &b"never there"[..]);
    engine.write(batch).expect("a write");
    assert_eq!(get(engine, b"a").as_deref(), Some(&b"2"[..]));
    assert_eq!(get(engine, b"b"), None);
    assert_eq!(get(engine, b"c").as_deref(), Some(&b"1"[..]));
}

fn columns_do_not_share_keys(engine: &dyn Engine) {
    let mut batch = Batch::new();
    for column in Column::ALL {
        batch.put(column, &b"key"[..], column.name());
    }
    engine.write(batch).expect("a write");
    let mut batch = Batch::new();
    batch.delete(Column::Log, &b"key"[..]);
    batch.delete_range(Column::Stream, &b"a"[..], &b"z"[..]);
    engine.write(batch).expect("a write");
    for column in Column::ALL {
        let gone = matches!(column, Column::Log | Column::Stream);
        let expected = (!gone).then(|| Bytes::from(column.name()));
        assert_eq!(engine.get(column, b"key").expect("a read"), expected, "{column}");
    }
}

fn a_scan_walks_its_span_in_its_direction(engine: &dyn Engine) {
    let all: Vec<&[u8]> = vec![b"", b"\0", b"a", b"a\0", b"b", b"\xff", b"\xff\xff"];
    let model: BTreeMap<&[u8], ()> = all.iter().map(|key| (*key, ())).collect();
    for key in &all {
        put(engine, Column::Base, key, b"");
    }
    for start in &all {
        for end in all.iter().copied().map(Some).chain([None]) {
            let inside = |key: &&[u8]| *key >= *start && end.is_none_or(|end| *key < end);
            let expected: Vec<_> = model.keys().copied().filter(inside).collect();
            let scan = Scan { start: start.to_vec(), end: end.map(<[u8]>::to_vec), reverse: false };
            assert_eq!(keys(engine, scan.clone()), expected, "{scan:?}");
            let expected: Vec<_> = expected.into_iter().rev().collect();
            assert_eq!(keys(engine, scan.clone().reversed()), expected, "{scan:?} reversed");
            assert_eq!(keys(&*engine.snapshot(), scan.reversed()), expected, "from a snapshot");
        }
    }
}

fn deleting_a_range_spares_its_end(engine: &dyn Engine) {
    for key in [&b"a"[..], b"b", b"b\0", b"c", b"d"] {
        put(engine, Column::Base, key, b"");
    }
    let mut batch = Batch::new();
    batch.delete_range(Column::Base, &b"b"[..], &b"c"[..]);
    batch.delete_range(Column::Base, &b"x"[..], &b"z"[..]);
    engine.write(batch).expect("a write");
    assert_eq!(keys(engine, Scan::all()), [&b"a"[..], b"c", b"d"]);
    assert_eq!(keys(engine, Scan::all().reversed()), [&b"d"[..], b"c", b"a"]);
    assert_eq!(get(engine, b"b\0"), None);
}

fn writes_of_a_batch_take_effect_in_order(engine: &dyn Engine) {
    put(engine, Column::Base, b"old", b"1");
    let mut batch = Batch::new();
    batch.put(Column::Base, &b"before"[..], &b"1"[..]);
    batch.delete_range(Column::Base, &b"a"[..], &b"z"[..]);
    batch.put(Column::Base, &b"later"[..], &b"1"[..]);
    engine.write(batch).expect("a write");
    assert_eq!(keys(engine, Scan::all()), [&b"later"[..]]);
    put(engine, Column::Base, b"old", b"2");
    assert_eq!(get(engine, b"old").as_deref(), Some(&b"2"[..]), "a deleted range can be refilled");
}

fn a_snapshot_stands_still(engine: &dyn Engine) {
    put(engine, Column::Base, b"a", b"1");
    put(engine, Column::Base, b"b", b"1");
    let snapshot = engine.snapshot();
    put(engine, Column::Base, b"a", b"2");
    put(engine, Column::Base, b"c", b"2");
    let mut batch = Batch::new();
    batch.delete_range(Column::Base, &b"b"[..], &b"c"[..]);
    engine.write(batch).expect("a write");

    assert_eq!(keys(&*snapshot, Scan::all()), [&b"a"[..], b"b"]);
    assert_eq!(get(&*snapshot, b"a").as_deref(), Some(&b"1"[..]));
    assert_eq!(get(&*snapshot, b"c"), None);
    assert_eq!(keys(engine, Scan::all()), [&b"a"[..], b"c"]);
    assert_eq!(keys(&*engine.snapshot(), Scan::all()), [&b"a"[..], b"c"]);
}

fn a_scan_shows_the_moment_it_began(engine: &dyn Engine) {
    for key in [b"a", b"b", b"c"] {
        put(engine, Column::Base, key, b"1");
    }
    let mut scan = engine.scan(Column::Base, Scan::all());
    let first = scan.next().expect("a row").expect("a read");
    assert_eq!(first.0, &b"a"[..]);
    put(engine, Column::Base, b"bb", b"2");
    put(engine, Column::Base, b"c", b"2");
    let rest: Vec<_> = scan.collect::<Result<_, _>>().expect("a scan without errors");
    let expected: [(&[u8], &[u8]); 2] = [(b"b", b"1"), (b"c", b"1")];
    assert_eq!(rest, expected.map(|(k, v)| (Bytes::from(k), Bytes::from(v))));
}

fn any_bytes_are_a_key_and_a_value(engine: &dyn Engine) {
    let bytes: Vec<u8> = (0..=255).collect();
    put(engine, Column::Base, b"", &bytes);
    put(engine, Column::Base, &bytes, b"");
    put(engine, Column::Base, &[0xff; 5000], &vec![7; 1 << 20]);
    assert_eq!(get(engine, b"").as_deref(), Some(&bytes[..]));
    assert_eq!(get(engine, &bytes).as_deref(), Some(&b""[..]), "an empty value is a value");
    assert_eq!(get(engine, &[0xff; 5000]).map(|value| value.len()), Some(1 << 20));
}

fn syncing_changes_nothing_visible(engine: &dyn Engine) {
    put(engine, Column::Base, b"a", b"1");
    assert_eq!(get(engine, b"a").as_deref(), Some(&b"1"[..]), "visible before it is durable");
    engine.sync().expect("a sync");
    engine.sync().expect("a sync of nothing new");
    assert_eq!(keys(engine, Scan::all()), [&b"a"[..]]);
}

fn a_whole_store_has_space_and_no_damage(engine: &dyn Engine) {
    assert_eq!(engine.damage(), None);
    assert!(engine.free_space().expect("the free space") > 0);
}

//! What every engine must do, as tests: [`check`] and [`check_reopening`] panic where one does not.

use std::collections::BTreeMap;
use std::sync::mpsc;

use bytes::Bytes;

use crate::key::Span;
use crate::{Batch, Column, Done, Engine, Kind, Result, Scan, SetName, View};

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
    staged_rows_replace_what_their_spans_held_and_nothing_else(&open());
    an_empty_set_clears_its_spans(&open());
    a_replacement_can_be_repeated_and_written_over(&open());
    a_snapshot_does_not_see_a_replacement(&open());
    a_set_that_is_not_whole_replaces_nothing(&open());
    staged_rows_keep_their_order_and_their_spans(&open());
    a_discarded_set_is_gone(&open());
    many_staged_rows_arrive_whole(&open());
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

/// Checks that staged rows outlive their engine: `open` opens the same store each time, empty at first.
pub fn check_staging_reopened<E: Engine>(open: impl Fn() -> E) {
    {
        let engine = open();
        put(&engine, Column::Base, b"b", b"old");
        put(&engine, Column::Base, b"x", b"kept");
        engine.sync().expect("a sync");
        stage(&engine, SetName(1), &[("a", "m")], &[("c", "new")]).expect("it is staged");
        // Left behind unfinished.
        let span = Span { start: b"n".to_vec(), end: b"p".to_vec() };
        drop(engine.stage(SetName(2), Column::Base, vec![span]).expect("it begins"));
    }
    {
        let engine = open();
        assert_eq!(keys(&engine, Scan::all()), [&b"b"[..], b"x"], "staged is not yet replaced");
        assert_eq!(engine.staged().expect("the sets"), [SetName(1), SetName(2)]);
        assert_eq!(replace(&engine, SetName(2)).map_err(|e| e.kind), Err(Kind::Corrupt));
        engine.discard(SetName(2)).expect("it goes");
        replace(&engine, SetName(1)).expect("the set is whole");
        assert_eq!(keys(&engine, Scan::all()), [&b"c"[..], b"x"]);
    }
    let engine = open();
    assert_eq!(keys(&engine, Scan::all()), [&b"c"[..], b"x"], "without a sync");
    assert_eq!(engine.damage(), None);
    assert_eq!(engine.staged().expect("the sets"), [SetName(1)]);
    engine.discard(SetName(1)).expect("it goes");
    assert_eq!(get(&engine, b"c").as_deref(), Some(&b"new"[..]), "the rows are the store's own");
}

/// Calls with something that waits to be told how it ended, and waits for that.
fn wait(call: impl FnOnce(Done)) -> Result<()> {
    let (sender, receiver) = mpsc::channel();
    call(Box::new(move |result| sender.send(result).expect("the caller waits")));
    receiver.recv().expect("whoever is told to call back does")
}

/// Stages rows of `Base` as a whole set, each in a call of its own.
pub fn stage(
    engine: &dyn Engine,
    set: SetName,
    spans: &[(&str, &str)],
    rows: &[(&str, &str)],
) -> Result<()> {
    let spans =
        spans.iter().map(|(start, end)| Span { start: (*start).into(), end: (*end).into() });
    stage_rows(engine, set, spans.collect(), rows.iter().copied())
}

/// The same for any bytes.
pub fn stage_rows<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    engine: &dyn Engine,
    set: SetName,
    spans: Vec<Span>,
    rows: impl IntoIterator<Item = (K, V)>,
) -> Result<()> {
    let mut staging = engine.stage(set, Column::Base, spans)?;
    let copy = Bytes::copy_from_slice;
    for (key, value) in rows {
        wait(|done| staging.put(vec![(copy(key.as_ref()), copy(value.as_ref()))], done))?;
    }
    wait(|done| staging.finish(done))
}

/// Replaces rows by those of a set, and waits until it is done.
pub fn replace(engine: &dyn Engine, set: SetName) -> Result<()> {
    wait(|done| engine.replace(set, done))
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

fn staged_rows_replace_what_their_spans_held_and_nothing_else(engine: &dyn Engine) {
    for key in [&b"a"[..], b"b", b"c", b"d", b"m", b"p", b"q", b"r"] {
        put(engine, Column::Base, key, b"old");
        put(engine, Column::Log, key, b"old");
    }
    let spans = [("b", "d"), ("p", "r")];
    stage(engine, SetName(7), &spans, &[("b", "new"), ("bb", "new"), ("q", "new")]).expect("rows");
    assert_eq!(get(engine, b"bb"), None, "not before it is replaced");
    replace(engine, SetName(7)).expect("the set is whole");
    let expected: [(&[u8], &[u8]); 8] = [
        (b"a", b"old"),
        (b"b", b"new"),
        (b"bb", b"new"),
        (b"d", b"old"),
        (b"m", b"old"),
        (b"q", b"new"),
        (b"r", b"old"),
        (b"z", b"old"),
    ];
    put(engine, Column::Base, b"z", b"old");
    let found = rows(engine, Column::Base, Scan::all());
    assert_eq!(found, expected.map(|(k, v)| (Bytes::from(k), Bytes::from(v))));
    assert_eq!(rows(engine, Column::Log, Scan::all()).len(), 8, "other columns keep their rows");
}

fn an_empty_set_clears_its_spans(engine: &dyn Engine) {
    for key in [b"a", b"b", b"c"] {
        put(engine, Column::Base, key, b"old");
    }
    stage(engine, SetName(7), &[("a", "c")], &[]).expect("no rows");
    replace(engine, SetName(7)).expect("the set is whole");
    assert_eq!(keys(engine, Scan::all()), [&b"c"[..]]);
}

fn a_replacement_can_be_repeated_and_written_over(engine: &dyn Engine) {
    put(engine, Column::Base, b"a", b"old");
    stage(engine, SetName(7), &[("a", "c")], &[("b", "staged")]).expect("a row");
    replace(engine, SetName(7)).expect("the set is whole");
    put(engine, Column::Base, b"a", b"later");
    put(engine, Column::Base, b"b", b"later");
    assert_eq!(get(engine, b"b").as_deref(), Some(&b"later"[..]));
    replace(engine, SetName(7)).expect("again");
    assert_eq!(get(engine, b"a"), None);
    assert_eq!(get(engine, b"b").as_deref(), Some(&b"staged"[..]));
}

fn a_snapshot_does_not_see_a_replacement(engine: &dyn Engine) {
    put(engine, Column::Base, b"a", b"old");
    put(engine, Column::Base, b"b", b"old");
    let before = engine.snapshot();
    let mut scan = engine.scan(Column::Base, Scan::all());
    let first = scan.next().expect("a row").expect("a read");
    stage(engine, SetName(7), &[("a", "c")], &[("b", "new"), ("bb", "new")]).expect("rows");
    replace(engine, SetName(7)).expect("the set is whole");
    assert_eq!(keys(&*before, Scan::all()), [&b"a"[..], b"b"]);
    assert_eq!(get(&*before, b"b").as_deref(), Some(&b"old"[..]));
    let rest: Vec<_> = scan.map(|row| row.expect("a read").0).collect();
    assert_eq!((&first.0[..], rest), (&b"a"[..], vec![Bytes::from("b")]), "nor does a scan");
    assert_eq!(keys(&*engine.snapshot(), Scan::all()), [&b"b"[..], b"bb"]);
}

fn a_set_that_is_not_whole_replaces_nothing(engine: &dyn Engine) {
    put(engine, Column::Base, b"a", b"old");
    assert_eq!(replace(engine, SetName(7)).map_err(|e| e.kind), Err(Kind::Corrupt), "not there");
    let span = Span { start: b"a".to_vec(), end: b"c".to_vec() };
    let mut staging = engine.stage(SetName(7), Column::Base, vec![span]).expect("it begins");
    wait(|done| staging.put(vec![("a".into(), "new".into())], done)).expect("a row");
    drop(staging);
    assert_eq!(replace(engine, SetName(7)).map_err(|e| e.kind), Err(Kind::Corrupt), "unfinished");
    assert_eq!(get(engine, b"a").as_deref(), Some(&b"old"[..]));
    put(engine, Column::Base, b"b", b"written");
    engine.sync().expect("the store goes on");
}

fn staged_rows_keep_their_order_and_their_spans(engine: &dyn Engine) {
    for (name, rows) in [(1, ["b", "a"]), (2, ["b", "b"]), (3, ["b", "d"]), (4, ["A", "b"])] {
        let rows = rows.map(|key| (key, ""));
        let staged = stage(engine, SetName(name), &[("a", "c")], &rows);
        assert_eq!(staged.map_err(|e| e.kind), Err(Kind::Corrupt), "{rows:?}");
        assert!(replace(engine, SetName(name)).is_err());
    }
    engine.sync().expect("the store goes on");
}

fn a_discarded_set_is_gone(engine: &dyn Engine) {
    stage(engine, SetName(9), &[("a", "c")], &[("b", "new")]).expect("a row");
    stage(engine, SetName(7), &[("a", "c")], &[("b", "new")]).expect("a row");
    assert_eq!(engine.staged().expect("the sets"), [SetName(7), SetName(9)]);
    assert!(stage(engine, SetName(7), &[("a", "c")], &[]).is_err(), "it is there already");
    engine.discard(SetName(7)).expect("it goes");
    engine.discard(SetName(7)).expect("it is gone already");
    assert_eq!(engine.staged().expect("the sets"), [SetName(9)]);
    assert!(replace(engine, SetName(7)).is_err());
    stage(engine, SetName(7), &[("a", "c")], &[("a", "second")]).expect("its name is free");
    replace(engine, SetName(7)).expect("the set is whole");
    engine.discard(SetName(7)).expect("it goes");
    assert_eq!(get(engine, b"a").as_deref(), Some(&b"second"[..]), "the rows stay");
}

fn many_staged_rows_arrive_whole(engine: &dyn Engine) {
    let key = |i: u32| Bytes::from(format!("k{i:06}"));
    for i in 0..100 {
        put(engine, Column::Base, &key(i * 7), b"old");
    }
    let spans = vec![
        Span { start: b"a".to_vec(), end: b"b".to_vec() },
        Span { start: b"k".to_vec(), end: b"l".to_vec() },
    ];
    let mut staging = engine.stage(SetName(7), Column::Base, spans).expect("it begins");
    let value = Bytes::from(vec![7; 4 << 10]);
    let all: Vec<_> = (0..1_000).map(|i| (key(2 * i), value.clone())).collect();
    for rows in all.chunks(100) {
        wait(|done| staging.put(rows.to_vec(), done)).expect("rows");
    }
    wait(|done| staging.finish(done)).expect("the set is whole");
    replace(engine, SetName(7)).expect("it is whole");
    assert!(rows(engine, Column::Base, Scan::all()) == all, "all of them, and nothing of before");
    assert!(get(engine, &key(7)).is_none() && get(engine, &key(14)).is_some());
}

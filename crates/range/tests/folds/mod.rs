//! Folding: whatever stretches leaders propose, every delta enters the base once, in one place.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use latitude_range::{
    Body, Carried, Content, Delta, Entry, FoldCursor, Op, Operation, Overlay, RangeMeta, Refusal,
    ScanRequest, Segment, ValueRow, ValueType, Write,
};
use latitude_types::{
    ClientId, Epoch, Key, KeySpan, KeyspaceId, Level, NodeId, OperationId, OperationKind, Past,
    Positions, RangeId, Stamp, Timestamp, WriteTime,
};
use proptest::prelude::*;

use crate::replica::Replica;

const RANGE: RangeId = RangeId(4);
const KEYSPACE: KeyspaceId = KeyspaceId(16);

fn key(name: &str) -> Key {
    Key::new(name.as_bytes()).expect("the tests' keys are keys")
}

fn ms(ms: u64) -> Timestamp {
    Timestamp::from_ms(ms)
}

fn stamp(at: u64) -> Stamp {
    Stamp { time: ms(at), node: NodeId(1) }
}

fn entry(at: u64, body: Body) -> Entry {
    Entry { stamp: stamp(at), range: RANGE, epoch: Epoch(1), keyspace: KEYSPACE, body }
}

fn fold(at: u64, segments: Vec<Segment>) -> Entry {
    entry(at, Body::Write(Write { segments, operations: vec![] }))
}

fn id(kind: OperationKind, birth: u64, sequence: u64) -> OperationId {
    OperationId { birth: ms(birth), client: ClientId([1; 16]), sequence, kind }
}

fn delta(origin: u32, position: u64, birth: u64, name: &str, op: Op) -> Delta {
    Delta {
        origin: NodeId(origin),
        position: ms(position),
        range: RANGE,
        admitted: stamp(2),
        keyspace: KEYSPACE,
        key: key(name),
        op,
        id: id(OperationKind::Local, birth, position),
        level: Level::Causal,
        named: vec![],
        extensions: vec![],
        past: Past::default(),
    }
}

fn put(value: u64) -> Op {
    Op::Put { value: Bytes::from(value.to_be_bytes().to_vec()) }
}

fn segment(origin: u32, from: u64, to: u64, deltas: &[Delta]) -> Segment {
    let within = |delta: &&Delta| {
        delta.origin == NodeId(origin) && delta.position > ms(from) && delta.position <= ms(to)
    };
    Segment {
        origin: NodeId(origin),
        from: ms(from),
        to: ms(to),
        span: KeySpan::all(),
        deltas: deltas.iter().filter(within).map(|d| Carried::Whole(d.encode())).collect(),
    }
}

fn log_write(need: &[(u32, u64)], sequence: u64, birth: u64, op: Op) -> Operation {
    let mut positions = Positions::default();
    need.iter().for_each(|(node, at)| positions.raise(NodeId(*node), ms(*at)));
    Operation {
        id: id(OperationKind::Log, birth, sequence),
        answered_below: 1,
        level: Level::Strict,
        key: key("a"),
        op,
        named: vec![],
        need: positions,
        past: Past::default(),
        extensions: vec![],
    }
}

/// A replica that has admitted two origins.
fn replica() -> Replica {
    admitted(&RangeMeta::new(RANGE, KEYSPACE, KeySpan::all(), 1024, false))
}

fn admitted(meta: &RangeMeta) -> Replica {
    let mut replica = Replica::create(meta, &[]).expect("a store in memory does not fail");
    for (at, node) in [(1, 1), (2, 2)] {
        replica
            .apply(&[entry(at, Body::Admit(NodeId(node)))])
            .expect("a store in memory does not fail");
    }
    replica
}

fn row(replica: &Replica, name: &str) -> Option<ValueRow> {
    replica
        .reader()
        .expect("a store in memory does not fail")
        .get(&key(name))
        .expect("a store in memory does not fail")
}

fn folded(replica: &Replica) -> BTreeMap<NodeId, Timestamp> {
    replica.range().meta().origins.iter().map(|origin| (origin.node, origin.folded)).collect()
}

proptest! {
    /// INV-8 and pitfall 3: stretches of any length from anywhere, repeated, overlapping, behind gaps, in any
    /// number of entries. What is in the base is exactly what is at or below F, and the largest birth wins.
    #[test]
    fn whatever_stretches_are_proposed_the_base_holds_what_f_says(
        births in prop::collection::vec((1u32..3, 0u64..10, 0usize..2, any::<bool>()), 1..30),
        stretches in prop::collection::vec((1u32..3, 0u64..45, 0u64..25), 1..25),
    ) {
        let names = ["a", "b"];
        let deltas: Vec<_> = births.iter().enumerate().map(|(i, (origin, before, name, deletes))| {
            let position = 10 + i as u64;
            let op = if *deletes { Op::Delete } else { put(position) };
            delta(*origin, position, position - before.min(&(position - 1)), names[*name], op)
        }).collect();
        let mut replica = replica();
        let mut f = BTreeMap::from([(1, 1), (2, 2)]);
        for (i, (origin, from, len)) in stretches.iter().enumerate() {
            let (to, at) = (from + len, 100 + i as u64);
            replica.apply(&[fold(at, vec![segment(*origin, *from, to, &deltas)])]).unwrap();
            let reached = f.get_mut(origin).unwrap();
            if *from <= *reached {
                *reached = to.max(*reached);
            }
            let expected = f.iter().map(|(node, at)| (NodeId(*node), ms(*at))).collect();
            prop_assert_eq!(folded(&replica), expected);
        }
        for name in names {
            let winner = deltas.iter()
                .filter(|d| d.position <= ms(f[&d.origin.0]) && d.key.as_bytes() == name.as_bytes())
                .max_by_key(|d| d.time());
            let row = row(&replica, name);
            prop_assert_eq!(row.as_ref().map(|row| row.version), winner.map(Delta::time));
            let value = row.as_ref().and_then(|row| row.value().cloned());
            let written = winner.and_then(|winner| match &winner.op {
                Op::Put { value } => Some(value.clone()),
                _ => None,
            });
            prop_assert_eq!(value, written);
        }
    }

    /// What a local read sees does not change by folding, wherever the fold stands: base and deltas merged before
    /// are the base after. Counters, whose adds are retried at the other origin, and registers.
    #[test]
    fn folding_changes_nothing_for_a_local_read(
        is_counter in any::<bool>(),
        writes in prop::collection::vec((1u32..3, 0usize..3, -5i64..6, any::<bool>()), 1..25),
        cuts in prop::collection::vec((1u32..3, 10u64..70), 0..6),
    ) {
        let names = ["a", "b", "c"];
        let mut deltas: Vec<Delta> = Vec::new();
        for (i, (origin, name, amount, retry)) in writes.iter().enumerate() {
            let position = 10 + 2 * i as u64;
            let op = if is_counter { Op::Add { amount: *amount } } else { put(position) };
            let first = delta(*origin, position, position - 1, names[*name], op);
            if *retry {
                deltas.push(Delta { origin: NodeId(3 - origin), position: ms(position + 1), ..first.clone() });
            }
            deltas.push(first);
        }
        let mut meta = RangeMeta::new(RANGE, KEYSPACE, KeySpan::all(), 1024, false);
        if is_counter {
            meta.value_type = ValueType::Counter;
        }
        let mut replica = admitted(&meta);
        let mut overlay = Overlay::default();
        for delta in &deltas {
            overlay.insert(Arc::new(delta.clone()));
        }
        let seen = |replica: &Replica, overlay: &Overlay| -> Vec<_> {
            let shown = overlay.shown(&KeySpan::all(), |_| ms(1_000));
            let reader = replica.reader().unwrap().with_deltas(shown);
            names.map(|name| reader.get(&key(name)).unwrap().map(|row| (row.version, row.content))).into()
        };
        let before = seen(&replica, &overlay);
        if is_counter {
            for (name, found) in names.iter().zip(&before) {
                let adds = writes.iter().filter(|(_, of, ..)| names[*of] == *name);
                let sum: i64 = adds.clone().map(|(_, _, amount, _)| amount).sum();
                let expected = (adds.count() > 0).then_some(Content::Counter(sum.into()));
                prop_assert_eq!(found.as_ref().map(|(_, content)| content.clone()), expected);
            }
        }
        let ends = [(1, 200), (2, 200)];
        for (i, (origin, to)) in cuts.iter().chain(&ends).enumerate() {
            let from = folded(&replica)[&NodeId(*origin)].ms();
            replica.apply(&[fold(300 + i as u64, vec![segment(*origin, from, *to, &deltas)])]).unwrap();
            // Before and after the overlay drops what is folded: a reader may come at either moment.
            prop_assert_eq!(&seen(&replica, &overlay), &before);
            overlay.prune(&replica.range().meta().origins);
            prop_assert_eq!(&seen(&replica, &overlay), &before);
        }
        prop_assert!(overlay.is_empty());
        // A scan finds the same keys, in order.
        let request = ScanRequest {
            span: KeySpan::all(), reverse: false, limit: 10, bytes_max: 1_000, keys_only: true,
        };
        if !is_counter {
            let page = replica.reader().unwrap().scan(&request).unwrap();
            let found: Vec<_> = page.rows.iter().map(|row| row.key.clone()).collect();
            let there: Vec<_> = names.iter().zip(&before).filter(|(_, row)| row.is_some()).map(|(n, _)| *n).collect();
            prop_assert_eq!(found, there);
        }
    }

    /// A scan over base and deltas goes through the keys of both, in either direction, once each.
    #[test]
    fn a_scan_walks_base_and_deltas_in_order(
        in_base in prop::collection::btree_set("[a-h]", 0..6),
        in_overlay in prop::collection::btree_set("[a-h]", 0..6),
        reverse in any::<bool>(),
    ) {
        let mut replica = replica();
        for (i, name) in in_base.iter().enumerate() {
            let mut write = log_write(&[], i as u64 + 1, 5, put(1));
            write.key = key(name);
            let body = Body::Write(Write { segments: vec![], operations: vec![write] });
            replica.apply(&[entry(10 + i as u64, body)]).unwrap();
        }
        let mut overlay = Overlay::default();
        for (i, name) in in_overlay.iter().enumerate() {
            let at = 50 + i as u64;
            overlay.insert(Arc::new(delta(1, at, at - 1, name, put(2))));
        }
        let span = KeySpan::new(b"b", Some(b"h")).unwrap();
        let shown = overlay.shown(&span, |_| ms(1_000));
        let reader = replica.reader().unwrap().with_deltas(shown);
        let request = ScanRequest { span, reverse, limit: 100, bytes_max: 10_000, keys_only: false };
        let page = reader.scan(&request).unwrap();
        let found: Vec<_> = page.rows.iter().map(|row| String::from_utf8_lossy(&row.key).into_owned()).collect();
        let mut expected: Vec<_> =
            in_base.union(&in_overlay).filter(|name| ("b".."h").contains(&name.as_str())).cloned().collect();
        if reverse {
            expected.reverse();
        }
        prop_assert_eq!(found, expected);
    }

    /// A cursor over an overlay proposes each delta once per leadership, without a gap, in stretches that apply.
    #[test]
    fn a_cursor_folds_everything_once(
        positions in prop::collection::btree_set(10u64..80, 0..40),
        bytes_max in 1usize..2_000,
    ) {
        let deltas: Vec<_> =
            positions.iter().map(|at| delta(1 + *at as u32 % 2, *at, *at - 1, "a", put(*at))).collect();
        let mut overlay = Overlay::default();
        for delta in &deltas {
            prop_assert!(overlay.insert(delta.clone().into()));
            prop_assert!(!overlay.insert(delta.clone().into()));
        }
        let (mut replica, mut cursor) = (replica(), FoldCursor::default());
        let mut entries = 0;
        loop {
            let origins = replica.range().meta().origins.clone();
            let need = Positions::default();
            let marks = |_| Some(ms(90));
            let segments =
                cursor.next(&origins, &KeySpan::all(), &overlay, marks, &need, bytes_max);
            if segments.is_empty() {
                break;
            }
            // What is under way is not proposed again before it is applied.
            let again = cursor.clone().next(&origins, &KeySpan::all(), &overlay, marks, &need, usize::MAX);
            let twice = again.iter().any(|next| segments.iter().any(|s| s.origin == next.origin && next.from < s.to));
            prop_assert!(!twice);
            replica.apply(&[fold(100 + entries, segments)]).unwrap();
            overlay.prune(&replica.range().meta().origins);
            entries += 1;
        }
        prop_assert!(overlay.is_empty() && overlay.bytes() == 0);
        let last = deltas.iter().max_by_key(|delta| delta.time()).map(Delta::time);
        prop_assert_eq!(row(&replica, "a").map(|row| row.version), last);
    }
}

/// Pitfall 3, both executions: a leader that folds from what it has applied while an entry of the one before it
/// is under way, and one whose first entry of two came to nothing.
#[test]
fn p3_overlapping_folds_count_once_and_a_gap_folds_nothing() {
    let deltas = [delta(1, 110, 109, "a", put(1)), delta(1, 155, 154, "b", put(2))];
    let mut replica = replica();
    let first = [fold(200, vec![segment(1, 1, 150, &deltas)])];
    replica.apply(&first).unwrap();
    let stamped = row(&replica, "a").unwrap().stamp;
    replica.apply(&[fold(201, vec![segment(1, 1, 160, &deltas)])]).unwrap();
    assert_eq!(row(&replica, "a").unwrap().stamp, stamped, "folded once, by the first");
    assert_eq!(folded(&replica)[&NodeId(1)], ms(160));
    replica.apply(&[fold(202, vec![segment(1, 170, 180, &deltas)])]).unwrap();
    assert_eq!(folded(&replica)[&NodeId(1)], ms(160), "(160, 170] would be lost");
}

/// Pitfall 19: an operation that needs local writes in the base has them, or says so; never silently without.
#[test]
fn p19_an_operation_is_refused_unless_what_it_needs_is_folded() {
    let deltas = [delta(2, 110, 109, "a", put(1))];
    let mut replica = replica();
    let operation = log_write(&[(2, 110)], 1, 111, Op::Delete);
    let alone =
        entry(200, Body::Write(Write { segments: vec![], operations: vec![operation.clone()] }));
    let refused = replica.apply(&[alone]).unwrap().remove(0);
    assert_eq!(refused.replies[0].result, Err(Refusal::NotFolded));
    // The id is not spent by that: with the segment ahead of it, in one entry, the same operation is done.
    let segments = vec![segment(2, 2, 110, &deltas)];
    let together = entry(201, Body::Write(Write { segments, operations: vec![operation] }));
    let done = replica.apply(&[together]).unwrap().remove(0);
    assert!(done.replies[0].result.is_ok() && !done.replies[0].duplicate);
    assert!(row(&replica, "a").unwrap().value().is_none());
    // Of an origin that this range does not have there is nothing to wait for.
    let elsewhere = log_write(&[(7, 500)], 2, 111, Op::Delete);
    let body = Body::Write(Write { segments: vec![], operations: vec![elsewhere] });
    assert!(replica.apply(&[entry(202, body)]).unwrap()[0].replies[0].result.is_ok());
}

/// A log write between local ones: its stamp counts, their births do.
#[test]
fn a_local_write_born_before_a_log_write_loses_to_it_wherever_it_is_folded() {
    let deltas = [delta(1, 110, 109, "a", put(1)), delta(2, 160, 159, "a", put(2))];
    let mut replica = replica();
    let write = log_write(&[], 1, 120, put(9));
    let body = Body::Write(Write { segments: vec![], operations: vec![write] });
    replica.apply(&[entry(150, body)]).unwrap();
    replica.apply(&[fold(200, vec![segment(1, 1, 120, &deltas)])]).unwrap();
    let kept = row(&replica, "a").unwrap();
    assert_eq!(kept.version, WriteTime::of_log_write(stamp(150), 0));
    assert_eq!(kept.stamp, stamp(200), "the row has changed: what its value follows grew");
    replica.apply(&[fold(201, vec![segment(2, 2, 170, &deltas)])]).unwrap();
    assert_eq!(row(&replica, "a").unwrap().version, deltas[1].time());
}

/// A reader's snapshot is older than the overlay it looks at: what was folded between the two is in neither, and
/// the overlay must not pass that for "there is none" (own check).
#[test]
fn an_overlay_does_not_vouch_for_what_it_has_dropped() {
    let mut overlay = Overlay::default();
    overlay.insert(Arc::new(delta(1, 80, 79, "a", put(1))));
    let none = |overlay: &Overlay, from, to| overlay.has_none(NodeId(1), ms(from), ms(to));
    assert!(none(&overlay, 50, 79) && !none(&overlay, 50, 80));
    let mut replica = replica();
    let mut origins = replica.range().meta().origins.clone();
    overlay.prune(&origins);
    assert!(!none(&overlay, 50, 80), "it is not folded");
    let held = [delta(1, 80, 79, "a", put(1))];
    replica.apply(&[fold(200, vec![segment(1, 1, 100, &held)])]).unwrap();
    origins.clone_from(&replica.range().meta().origins);
    overlay.prune(&origins);
    assert!(overlay.is_empty());
    assert!(!none(&overlay, 50, 80), "the snapshot with 50 lacks it, and it is dropped here");
    assert!(none(&overlay, 100, 120));
}

/// Large deltas of several origins do not meet in one entry, and no origin waits for ever behind another.
#[test]
fn a_fold_stays_small_and_takes_turns() {
    let large = |origin, at| {
        let op = Op::Put { value: Bytes::from(vec![0; 1 << 20]) };
        Arc::new(delta(origin, at, at - 1, "a", op))
    };
    let mut overlay = Overlay::default();
    let origins = replica().range().meta().origins.clone();
    let mut cursor = FoldCursor::default();
    let mut folded = BTreeMap::from([(1, 0), (2, 0)]);
    for at in 10..20 {
        overlay.insert(large(1, 2 * at));
        overlay.insert(large(2, 2 * at + 1));
        let (need, marks) = (Positions::default(), |_| Some(ms(90)));
        let segments = cursor.next(&origins, &KeySpan::all(), &overlay, marks, &need, 256 << 10);
        assert!(segments.iter().map(Segment::size).sum::<usize>() < 2 << 20);
        for segment in segments {
            *folded.get_mut(&segment.origin.0).unwrap() += segment.deltas.len();
        }
        // As if nothing of it were applied: the next leader begins anew.
        if at % 4 == 3 {
            cursor.reset();
        }
    }
    assert!(folded.values().all(|count| *count >= 3), "{folded:?}");
}

/// What an origin is admitted above, no delta of it is below; and a range that takes no local writes admits nobody.
#[test]
fn an_origin_begins_at_the_stamp_of_its_admission() {
    let mut replica = replica();
    assert_eq!(folded(&replica)[&NodeId(2)], ms(2));
    replica.apply(&[entry(50, Body::Admit(NodeId(2)))]).unwrap();
    assert_eq!(folded(&replica)[&NodeId(2)], ms(2), "it is one already");
    let meta = RangeMeta::new(RANGE, KEYSPACE, KeySpan::all(), 1024, true);
    let mut log_only = Replica::create(&meta, &[]).unwrap();
    log_only.apply(&[entry(1, Body::Admit(NodeId(1)))]).unwrap();
    assert!(log_only.range().meta().origins.is_empty());
}

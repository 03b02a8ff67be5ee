//! What holds for every log: the invariants of the state machine, each against something dumber.

mod folds;
#[allow(dead_code, reason = "each test binary uses its part of it")]
mod replica;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use latitude_crdt::LogPlace;
use latitude_range::{
    Applied, Body, Carried, Content, DecodeError, Done, Element, Entry, Expected, Extension, Op,
    Operation, Origin, OriginState, RangeMeta, Refusal, ScanRequest, ScanRow, Segment, Value,
    ValueRow, Write,
};
use latitude_types::{
    ClientId, Epoch, Key, KeySpan, KeyspaceId, Level, NodeId, OperationId, OperationKind, Past,
    Positions, RangeId, Stamp, Timestamp, WriteTime, Writer,
};
use proptest::prelude::*;

use crate::replica::Replica;

const RANGE: RangeId = RangeId(4);
const KEYSPACE: KeyspaceId = KeyspaceId(16);

fn meta(span: KeySpan) -> RangeMeta {
    RangeMeta::new(RANGE, KEYSPACE, span, 1024, false)
}

fn key(name: &str) -> Key {
    Key::new(name.as_bytes()).expect("the tests' keys are keys")
}

// ── Logs ────────────────────────────────────────────────────────────────────────────────────────────

/// Minutes, so that ids of ten minutes come and go within a short log.
fn minute(minute: u64) -> Timestamp {
    Timestamp::from_ms(minute * 60_000)
}

/// Few clients and sequences, so that copies are frequent. An id's birth follows from its sequence:
/// the same id always has the same one. Later sequences are born later, but not much.
fn log_id() -> impl Strategy<Value = OperationId> {
    (1u8..4, 1u64..12).prop_map(|(client, sequence)| OperationId {
        birth: minute(sequence * 2 + u64::from(client)),
        client: ClientId([client; 16]),
        sequence,
        kind: OperationKind::Log,
    })
}

fn expected() -> impl Strategy<Value = Expected> {
    prop_oneof![
        Just(Expected::Absent),
        (0u8..4).prop_map(|value| Expected::Value(Bytes::from(vec![value]))),
        (0u64..30, 0u32..3).prop_map(|(at, ordinal)| {
            Expected::Version(WriteTime::of_log_write(
                Stamp { time: minute(at), node: NodeId(1) },
                ordinal,
            ))
        }),
    ]
}

fn log_op() -> impl Strategy<Value = Op> {
    let value = || (0u8..4).prop_map(|value| Bytes::from(vec![value]));
    prop_oneof![
        value().prop_map(|value| Op::Put { value }),
        Just(Op::Delete),
        (expected(), prop::option::of(value()))
            .prop_map(|(expected, new_value)| Op::CompareAndSet { expected, new_value }),
    ]
}

fn log_operation() -> impl Strategy<Value = Operation> {
    let key = prop::sample::select(vec!["a", "b", "c", "x"]).prop_map(key);
    (log_id(), prop_oneof![4 => Just(0), 1 => 0u64..14], key, log_op()).prop_map(
        |(id, answered_below, key, op)| Operation {
            id,
            answered_below,
            level: Level::Strict,
            key,
            op,
            named: Vec::new(),
            need: Positions::default(),
            past: Past::default(),
            extensions: Vec::new(),
        },
    )
}

/// A log whose stamps mostly rise, over an hour. Some of its entries are refused as a whole.
fn log() -> impl Strategy<Value = Vec<Entry>> {
    let keyspace = prop_oneof![9 => Just(KEYSPACE), 1 => Just(KeyspaceId(17))];
    let step = prop_oneof![8 => 0u64..4, 1 => Just(15)];
    let back = prop_oneof![9 => Just(0u64), 1 => 0u64..5];
    let operations = prop::collection::vec(log_operation(), 0..5);
    let entry = (step, back, 1u32..3, keyspace, operations);
    prop::collection::vec(entry, 0..20).prop_map(|entries| {
        let mut now = 5;
        entries
            .into_iter()
            .map(|(step, back, node, keyspace, operations)| {
                now += step;
                Entry {
                    stamp: Stamp { time: minute(now - back), node: NodeId(node) },
                    range: RANGE,
                    epoch: Epoch(1),
                    keyspace,
                    body: Body::Write(Write { segments: Vec::new(), operations }),
                }
            })
            .collect()
    })
}

/// Gives every put of a log a value of its own, so that a value tells which copy wrote it.
fn with_unique_values(mut log: Vec<Entry>) -> Vec<Entry> {
    let mut counter = 0u64;
    for entry in &mut log {
        let Body::Write(write) = &mut entry.body else { continue };
        for operation in &mut write.operations {
            counter += 1;
            let value = Bytes::from(counter.to_be_bytes().to_vec());
            operation.op = match counter % 5 {
                0 => Op::Delete,
                1 => Op::CompareAndSet { expected: Expected::Absent, new_value: Some(value) },
                _ => Op::Put { value },
            };
        }
    }
    log
}

fn operations(entry: &Entry) -> &[Operation] {
    let Body::Write(write) = &entry.body else { panic!("these logs hold writes alone") };
    &write.operations
}

proptest! {
    /// INV-9.
    #[test]
    fn the_base_is_the_same_however_a_log_is_batched(
        log in log(), batch_len in 1usize..8, reopen in any::<bool>(),
    ) {
        let meta = meta(KeySpan::new(b"a", Some(b"m")).unwrap());
        let (one, replies) = Replica::replay(&meta, &[], &log, 1, false).unwrap();
        let (other, other_replies) = Replica::replay(&meta, &[], &log, batch_len, reopen).unwrap();
        prop_assert_eq!(one.base().unwrap(), other.base().unwrap());
        prop_assert_eq!(replies, other_replies);
        prop_assert_eq!(one.range(), other.range());
        prop_assert_eq!(&one.reopened().unwrap(), one.range());
    }

    /// INV-3.
    #[test]
    fn a_range_taken_elsewhere_by_its_rows_goes_on_as_if_it_had_applied_the_log(
        log in log(), cut in 0usize..20, other in log(),
    ) {
        let meta = meta(KeySpan::all());
        let (before, after) = log.split_at(cut.min(log.len()));
        let neighbours = [(KeyspaceId(15), key("k1")), (KeyspaceId(17), key("k1"))];
        let (mut one, _) = Replica::replay(&meta, &neighbours, before, 3, false).unwrap();
        // Wherever it was: behind, or anywhere else.
        let (mut two, _) = Replica::replay(&meta, &neighbours, &other, 3, false).unwrap();
        two.take(&one).unwrap();
        prop_assert_eq!(two.base().unwrap(), one.base().unwrap());
        prop_assert_eq!(two.range(), one.range());
        prop_assert_eq!(two.apply(after).unwrap(), one.apply(after).unwrap());
        prop_assert_eq!(two.base().unwrap(), one.base().unwrap());
    }

    #[test]
    fn an_entry_whose_stamp_does_not_rise_changes_nothing_and_any_other_moves_the_range(log in log()) {
        let mut replica = Replica::create(&meta(KeySpan::all()), &[]).unwrap();
        for entry in &log {
            let (last, base) = (replica.range().last_stamp(), replica.base().unwrap());
            let Applied { replies } = replica.apply(std::slice::from_ref(entry)).unwrap().remove(0);
            prop_assert_eq!(replies.len(), operations(entry).len());
            if entry.stamp <= last {
                prop_assert!(replies.iter().all(|reply| reply.result == Err(Refusal::Restamp)));
                prop_assert_eq!(base, replica.base().unwrap());
            } else {
                prop_assert_eq!(replica.range().last_stamp(), entry.stamp);
            }
        }
    }

    /// INV-8. The model never forgets an effect and knows nothing of windows.
    #[test]
    fn an_id_takes_effect_once_and_its_copies_are_answered_alike(log in log()) {
        let log = with_unique_values(log);
        let mut replica = Replica::create(&meta(KeySpan::all()), &[]).unwrap();
        let mut effects: BTreeMap<OperationId, Done> = BTreeMap::new();
        let mut answered_below: BTreeMap<ClientId, u64> = BTreeMap::new();
        let mut values: BTreeMap<Key, (Option<Bytes>, WriteTime)> = BTreeMap::new();
        for entry in &log {
            let (now, last) = (entry.stamp.time, replica.range().last_stamp());
            let Applied { replies } = replica.apply(std::slice::from_ref(entry)).unwrap().remove(0);
            for (operation, reply) in operations(entry).iter().zip(replies) {
                let id = operation.id;
                let answered = answered_below.entry(id.client).or_default();
                match reply.result {
                    Err(Refusal::Restamp) => prop_assert!(now <= last.time),
                    Err(Refusal::KeyspaceChanged) => prop_assert!(entry.keyspace != KEYSPACE),
                    Err(Refusal::IdRetired) => prop_assert!(id.sequence < *answered),
                    Err(Refusal::IdFromFuture) => prop_assert!(now < id.birth),
                    Err(Refusal::IdExpired) => prop_assert!(now > id.expires_at()),
                    Err(Refusal::Moved) => prop_assert!(false, "the range holds every key"),
                    Err(Refusal::Frozen) => prop_assert!(false, "nobody froze the range"),
                    Err(Refusal::NotFolded) => prop_assert!(false, "nothing needs to be folded"),
                    Err(Refusal::Misfit) => prop_assert!(false, "these are operations of registers"),
                    Err(Refusal::Full) => prop_assert!(false, "a register is never full"),
                    Ok(done) if reply.duplicate => prop_assert_eq!(Some(&done), effects.get(&id)),
                    Ok(done) => {
                        prop_assert!(id.birth <= now && now <= id.expires_at());
                        *answered = (*answered).max(operation.answered_below.min(id.sequence));
                        if let Done::Written { version } = done {
                            let value = match &operation.op {
                                Op::Put { value } => Some(value.clone()),
                                Op::Delete => None,
                                Op::CompareAndSet { new_value, .. } => new_value.clone(),
                                other => panic!("{other:?} is none of a register's"),
                            };
                            values.insert(operation.key.clone(), (value, version));
                        }
                        prop_assert_eq!(effects.insert(id, done), None, "{:?} took effect twice", id);
                    }
                }
            }
        }
        for (key, (value, version)) in values {
            let row = replica.reader().unwrap().get(&key).unwrap().unwrap();
            prop_assert_eq!((row.value().cloned(), row.version), (value, version));
            prop_assert_eq!(WriteTime::of_log_write(row.stamp, row.ordinal), version);
        }
    }

    #[test]
    fn what_is_remembered_of_ids_is_young_or_of_a_client_with_young_ones(log in log()) {
        let mut replica = Replica::create(&meta(KeySpan::all()), &[]).unwrap();
        let births: BTreeMap<_, _> = log.iter().flat_map(operations)
            .map(|operation| ((operation.id.client, operation.id.sequence), operation.id))
            .collect();
        for entry in &log {
            replica.apply(std::slice::from_ref(entry)).unwrap();
            let last = replica.range().last_stamp().time;
            for (client, answered_below, sequences) in replica.range().ids().kept() {
                let ids: BTreeSet<_> = sequences.map(|sequence| births[&(client, sequence)]).collect();
                prop_assert!(ids.iter().all(|id| id.sequence >= answered_below));
                prop_assert!(ids.iter().any(|id| last <= id.expires_at()));
            }
        }
    }
}

// ── Scans ───────────────────────────────────────────────────────────────────────────────────────────

/// Few distinct bytes, those that the encoding of keys treats specially among them.
fn short_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, 1, 0x61, 0xff]), 0..4)
}

fn any_key() -> impl Strategy<Value = Key> {
    short_bytes().prop_filter_map("an empty key", |bytes| Key::new(&bytes).ok())
}

fn any_span() -> impl Strategy<Value = KeySpan> {
    (short_bytes(), prop::option::of(short_bytes()))
        .prop_filter_map("an empty span", |(start, end)| KeySpan::new(&start, end.as_deref()))
}

/// A replica that has put (`Some`) or deleted these keys, one entry each; those outside its span belong
/// to neighbours. With it, what a scan may find.
fn filled(span: &KeySpan, writes: &[(Key, Option<Bytes>)]) -> (Replica, BTreeMap<Vec<u8>, Bytes>) {
    let inside = |key: &Key| span.contains(key.as_bytes());
    let mut neighbours: Vec<_> =
        writes.iter().map(|(key, _)| (KeyspaceId(17), key.clone())).collect();
    let outside = writes.iter().filter(|(key, _)| !inside(key));
    neighbours.extend(outside.map(|(key, _)| (KEYSPACE, key.clone())));
    let mut model = BTreeMap::new();
    let mut log = Vec::new();
    for (sequence, (key, value)) in (1..).zip(writes.iter().filter(|(key, _)| inside(key))) {
        let time = Timestamp::from_ms(sequence);
        let id = OperationId {
            birth: time,
            client: ClientId([1; 16]),
            sequence,
            kind: OperationKind::Log,
        };
        let op = match value {
            Some(value) => Op::Put { value: value.clone() },
            None => Op::Delete,
        };
        let operation = Operation {
            id,
            answered_below: sequence,
            level: Level::Sequential,
            key: key.clone(),
            op,
            named: Vec::new(),
            need: Positions::default(),
            past: Past::default(),
            extensions: Vec::new(),
        };
        log.push(Entry {
            stamp: Stamp { time, node: NodeId(1) },
            range: RANGE,
            epoch: Epoch(1),
            keyspace: KEYSPACE,
            body: Body::Write(Write { segments: Vec::new(), operations: vec![operation] }),
        });
        match value {
            Some(value) => model.insert(key.as_bytes().to_vec(), value.clone()),
            None => model.remove(key.as_bytes()),
        };
    }
    let (replica, _) =
        Replica::replay(&meta(span.clone()), &neighbours, &log, 5, false).expect("all is well");
    (replica, model)
}

fn writes() -> impl Strategy<Value = Vec<(Key, Option<Bytes>)>> {
    let value = prop::collection::vec(any::<u8>(), 0..4).prop_map(Bytes::from);
    prop::collection::vec((any_key(), prop::option::weighted(0.7, value)), 0..20)
}

fn everything(span: &KeySpan, reverse: bool) -> ScanRequest {
    let (limit, bytes_max) = (usize::MAX, usize::MAX);
    ScanRequest { span: span.clone(), reverse, limit, bytes_max, keys_only: false }
}

fn pairs(rows: &[ScanRow]) -> Vec<(Vec<u8>, Bytes)> {
    let bytes = |row: &ScanRow| match &row.value {
        Some(Value::Register(Some(value))) => value.clone(),
        other => panic!("{other:?} is no value of a register"),
    };
    rows.iter().map(|row| (row.key.to_vec(), bytes(row))).collect()
}

proptest! {
    #[test]
    fn a_scan_gives_what_a_sorted_map_gives_and_reversed_the_same_backwards(
        range in any_span(), wanted in any_span(), writes in writes(),
    ) {
        let (replica, model) = filled(&range, &writes);
        let reader = replica.reader().unwrap();
        let forward = reader.scan(&everything(&wanted, false)).unwrap();
        let bounds = (
            Bound::Included(wanted.start().to_vec()),
            wanted.end().map_or(Bound::Unbounded, |end| Bound::Excluded(end.to_vec())),
        );
        let found: Vec<_> =
            model.range(bounds).map(|(key, value)| (key.clone(), value.clone())).collect();
        prop_assert_eq!(pairs(&forward.rows), found);
        prop_assert!(!forward.more);
        let mut reverse = reader.scan(&everything(&wanted, true)).unwrap();
        reverse.rows.reverse();
        let lowest = forward.rows.first().map(|row| &row.key[..]);
        let reached = reverse.reached.take();
        prop_assert!(lowest.is_none() || reached.is_some_and(|key| Some(key.as_bytes()) <= lowest));
        reverse.reached.clone_from(&forward.reached);
        prop_assert_eq!(reverse, forward);
    }

    #[test]
    fn pages_one_behind_the_other_give_the_whole_scan(
        range in any_span(), writes in writes(), reverse in any::<bool>(),
        limit in 0usize..5, bytes_max in 0usize..12,
    ) {
        let (replica, _) = filled(&range, &writes);
        let reader = replica.reader().unwrap();
        let whole = reader.scan(&everything(&KeySpan::all(), reverse)).unwrap();
        let mut request = ScanRequest { limit, bytes_max, ..everything(&KeySpan::all(), reverse) };
        let mut rows = Vec::new();
        loop {
            let page = reader.scan(&request).unwrap();
            prop_assert!(page.rows.len() <= limit.max(1));
            let last = page.reached.map(|key| key.as_bytes().to_vec());
            rows.extend(page.rows);
            if !page.more {
                break;
            }
            let last = last.expect("a page that is not the last has looked at a key");
            request.span = if reverse {
                KeySpan::new(b"", Some(&last)).unwrap()
            } else {
                KeySpan::new(&[&last[..], &[0]].concat(), None).unwrap()
            };
        }
        prop_assert_eq!(rows, whole.rows);
    }
}

// ── Bytes ───────────────────────────────────────────────────────────────────────────────────────────

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp)
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<u32>().prop_map(NodeId)
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (timestamp(), node()).prop_map(|(time, node)| Stamp { time, node })
}

fn client() -> impl Strategy<Value = ClientId> {
    any::<[u8; 16]>().prop_map(ClientId)
}

fn operation_id() -> impl Strategy<Value = OperationId> {
    let kind = prop::sample::select(vec![OperationKind::Log, OperationKind::Local]);
    (timestamp(), client(), any::<u64>(), kind)
        .prop_map(|(birth, client, sequence, kind)| OperationId { birth, client, sequence, kind })
}

fn write_time() -> impl Strategy<Value = WriteTime> {
    let writer = prop_oneof![client().prop_map(Writer::Client), node().prop_map(Writer::Node)];
    (timestamp(), writer, any::<u64>()).prop_map(|(time, writer, sequence)| WriteTime {
        time,
        writer,
        sequence,
    })
}

fn positions() -> impl Strategy<Value = Positions> {
    (prop::collection::vec((node(), timestamp()), 0..3), timestamp())
        .prop_map(|(by_node, floor)| Positions { by_node, floor })
}

fn past() -> impl Strategy<Value = Past> {
    let exact = (any::<u64>().prop_map(RangeId), any::<u32>().prop_map(Epoch), stamp());
    (positions(), prop::collection::vec(exact, 0..3), stamp())
        .prop_map(|(seen, log, log_floor)| Past { seen, log, log_floor })
}

fn extensions() -> impl Strategy<Value = Vec<Extension>> {
    let extension = (any::<u16>(), bytes()).prop_map(|(kind, body)| Extension { kind, body });
    prop::collection::vec(extension, 0..2)
}

fn op() -> impl Strategy<Value = Op> {
    let expected = prop_oneof![
        Just(Expected::Absent),
        bytes().prop_map(Expected::Value),
        write_time().prop_map(Expected::Version),
    ];
    prop_oneof![
        bytes().prop_map(|value| Op::Put { value }),
        Just(Op::Delete),
        (expected, prop::option::of(bytes()))
            .prop_map(|(expected, new_value)| Op::CompareAndSet { expected, new_value }),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let level = prop::sample::select(Level::ALL.to_vec());
    let named = prop::collection::vec(operation_id(), 0..2);
    let head = (operation_id(), any::<u64>(), level, any_key(), op());
    (head, named, positions(), past(), extensions()).prop_map(
        |((id, answered_below, level, key, op), named, need, past, extensions)| Operation {
            id,
            answered_below,
            level,
            key,
            op,
            named,
            need,
            past,
            extensions,
        },
    )
}

fn segment() -> impl Strategy<Value = Segment> {
    let delta = prop_oneof![
        bytes().prop_map(Carried::Whole),
        (timestamp(), any::<u64>()).prop_map(|(position, hash)| Carried::Stripped(position, hash)),
    ];
    (node(), timestamp(), timestamp(), any_span(), prop::collection::vec(delta, 0..3))
        .prop_map(|(origin, from, to, span, deltas)| Segment { origin, from, to, span, deltas })
}

fn entry() -> impl Strategy<Value = Entry> {
    let segments = prop::collection::vec(segment(), 0..3);
    let operations = prop::collection::vec(operation(), 0..3);
    (stamp(), any::<u64>(), any::<u32>(), any::<u32>(), segments, operations).prop_map(
        |(stamp, range, epoch, keyspace, segments, operations)| Entry {
            stamp,
            range: RangeId(range),
            epoch: Epoch(epoch),
            keyspace: KeyspaceId(keyspace),
            body: Body::Write(Write { segments, operations }),
        },
    )
}

fn value_row() -> impl Strategy<Value = ValueRow> {
    let element = (operation_id(), prop::option::of((stamp(), any::<u32>())), bytes(), bytes())
        .prop_map(|(id, logged, name, value)| Element {
            id,
            logged: logged.map(|(stamp, ordinal)| LogPlace { stamp, ordinal }),
            name,
            value,
        });
    let content = prop_oneof![
        Just(Content::Deleted),
        bytes().prop_map(Content::Plain),
        prop::collection::vec(element, 0..3).prop_map(Content::Live),
    ];
    (stamp(), any::<u32>(), write_time(), content, past()).prop_map(
        |(stamp, ordinal, version, content, past)| ValueRow {
            stamp,
            ordinal,
            version,
            content,
            extensions: Vec::new(),
            past,
        },
    )
}

fn range_meta() -> impl Strategy<Value = RangeMeta> {
    let state = prop::sample::select(vec![
        OriginState::Active,
        OriginState::Sealing,
        OriginState::Sealed,
        OriginState::Lost,
    ]);
    let origin = (node(), state, stamp(), timestamp(), prop::option::of(timestamp())).prop_map(
        |(node, state, admitted, folded, last)| Origin { node, state, admitted, folded, last },
    );
    let origins = prop::collection::vec(origin, 0..3);
    let numbers = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let stamps = (stamp(), stamp(), stamp(), prop::option::of(timestamp()));
    (numbers, any_span(), any::<bool>(), stamps, origins, past()).prop_map(
        |(numbers, span, log_only, (last_stamp, floor, gc_stamp, freeze), origins, gc_past)| {
            let (id, epoch, keyspace, value_len_max, feature_level) = numbers;
            let (id, keyspace) = (RangeId(id), KeyspaceId(keyspace));
            RangeMeta {
                epoch: Epoch(epoch),
                last_stamp,
                floor,
                freeze,
                origins,
                gc_stamp,
                gc_past,
                feature_level,
                ..RangeMeta::new(id, keyspace, span, value_len_max, log_only)
            }
        },
    )
}

/// Decodes as everything there is. Nothing is expected of the result but that there is one.
fn decode_all(bytes: &[u8]) {
    let _ = Entry::decode(bytes);
    let _ = Entry::stamp_of(bytes);
    let _ = RangeMeta::decode(bytes);
    let _ = ValueRow::decode(bytes);
}

proptest! {
    #[test]
    fn an_entry_decodes_to_what_was_encoded(entry in entry()) {
        let bytes = entry.encode();
        prop_assert_eq!(Entry::stamp_of(&bytes), Some(entry.stamp));
        prop_assert_eq!(Entry::decode(&bytes), Ok(entry));
    }

    #[test]
    fn a_value_row_decodes_to_what_was_encoded_unless_it_is_extended(
        row in value_row(), extensions in extensions(),
    ) {
        let expected = match extensions.first() {
            None => Ok(row.clone()),
            Some(Extension { kind, .. }) => {
                Err(DecodeError::Extension { what: "value row", kind: *kind })
            }
        };
        prop_assert_eq!(ValueRow::decode(&ValueRow { extensions, ..row }.encode()), expected);
    }

    #[test]
    fn a_range_s_metadata_decodes_to_what_was_encoded(meta in range_meta()) {
        prop_assert_eq!(RangeMeta::decode(&meta.encode()), Ok(meta));
    }

    #[test]
    fn arbitrary_bytes_never_panic_a_decoder(
        version in 0u8..3, kind in 0u8..3, rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        decode_all(&rest);
        decode_all(&[&[version], &rest[..]].concat());
        decode_all(&[&[version, kind], &rest[..]].concat());
    }

    #[test]
    fn damaged_bytes_never_panic_a_decoder_and_cut_ones_are_errors(
        entry in entry(), row in value_row(), meta in range_meta(),
        at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        for whole in [entry.encode().to_vec(), row.encode(), meta.encode()] {
            let mut damaged = whole.clone();
            damaged[at.index(whole.len())] = byte;
            decode_all(&damaged);
        }
        let cut = |bytes: &[u8]| bytes[..at.index(bytes.len())].to_vec();
        prop_assert!(Entry::decode(&cut(&entry.encode())).is_err());
        prop_assert!(ValueRow::decode(&cut(&row.encode())).is_err());
        prop_assert!(RangeMeta::decode(&cut(&meta.encode())).is_err());
    }
}

use bytes::Bytes;
use latitude_range::{Expected, Value};
use latitude_rpc::ToWire;
use latitude_types::{ClusterId, Timestamp, Writer};
use v1::command::Operation as Wire;

use super::*;
use crate::catalog::meta_keyspace;
use crate::typed;

fn keyspace(value_type: ValueType) -> KeyspaceRecord {
    KeyspaceRecord {
        name: "things".into(),
        value_type,
        default_level: Level::Sequential,
        log_only: false,
        value_len_max: 5000,
        ..KeyspaceRecord::clone(&meta_keyspace())
    }
}

fn parse(value_type: ValueType, level: Option<Level>, operation: Wire) -> Result<Request, Reason> {
    let id = v1::OperationId {
        birth: 1,
        client: Bytes::from_static(&[7; 16]),
        sequence: 1,
        answered_below: 1,
    };
    let command = v1::Command {
        level: level.map_or(0, |level| level.to_wire()),
        id: Some(id),
        operation: Some(operation),
        ..v1::Command::default()
    };
    let cluster = ClusterIdentity { id: ClusterId([1; 16]), incarnation: 1 };
    let (now, timeout) = (Instant::now(), Duration::from_secs(1));
    Request::parse(command, &keyspace(value_type), cluster, now, timeout)
        .map_err(|error| error.reason)
}

fn op_of(request: Request) -> Op {
    match request.operation {
        Operation::Write { op, .. } => op,
        other => panic!("{other:?} is no write"),
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(value: &str, context: &str) -> Wire {
    Wire::Put(v1::Put { key: bytes("k"), value: bytes(value), context: bytes(context) })
}

fn delete() -> Wire {
    Wire::Delete(v1::Delete { key: bytes("k"), ..v1::Delete::default() })
}

fn add(least: Option<i64>, most: Option<i64>) -> Wire {
    Wire::CounterAdd(v1::CounterAdd { key: bytes("k"), amount: 3, least, most })
}

fn set_add(element: &str) -> Wire {
    Wire::SetAdd(v1::SetAdd { key: bytes("k"), element: bytes(element) })
}

fn map_put(field: &str, value: &str) -> Wire {
    Wire::MapPut(v1::MapPut { key: bytes("k"), field: bytes(field), value: bytes(value) })
}

fn cas() -> Wire {
    swap(v1::compare_and_set::Expected::Absent(true))
}

fn swap(expected: v1::compare_and_set::Expected) -> Wire {
    let expected = Some(expected);
    let new_value = Some(bytes("v"));
    Wire::CompareAndSet(v1::CompareAndSet { key: bytes("k"), expected, new_value })
}

/// Every write, the operation it is, the types that have it and those where it is judged in the log.
fn writes() -> Vec<(Wire, Op, &'static [ValueType], &'static [ValueType])> {
    use ValueType::{Counter, Flag, Map, Register, Set, Siblings};
    let key = bytes("k");
    let (element, field, value) = (bytes("e"), bytes("f"), bytes("v"));
    let bounded = Op::AddWithin { amount: 3, least: Some(0), most: None };
    let absent = Op::CompareAndSet { expected: Expected::Absent, new_value: Some(value.clone()) };
    let set_remove = v1::SetRemove { key: key.clone(), element: element.clone() };
    let map_remove = v1::MapRemove { key: key.clone(), field: field.clone() };
    let reset = v1::CounterReset { key: key.clone() };
    let enable = v1::FlagEnable { key: key.clone() };
    let disable = v1::FlagDisable { key };
    vec![
        (put("v", ""), Op::Put { value: value.clone() }, &[Register, Siblings], &[]),
        (delete(), Op::Delete, &[Register, Siblings, Counter, Set, Map], &[Counter]),
        (cas(), absent, &[Register], &[Register]),
        (add(None, None), Op::Add { amount: 3 }, &[Counter], &[]),
        (add(Some(0), None), bounded, &[Counter], &[Counter]),
        (Wire::CounterReset(reset), Op::Reset, &[Counter], &[Counter]),
        (set_add("e"), Op::SetAdd { element: element.clone() }, &[Set], &[]),
        (Wire::SetRemove(set_remove), Op::SetRemove { element }, &[Set], &[]),
        (map_put("f", "v"), Op::MapPut { field: field.clone(), value }, &[Map], &[]),
        (Wire::MapRemove(map_remove), Op::MapRemove { field }, &[Map], &[]),
        (Wire::FlagEnable(enable), Op::Enable, &[Flag], &[]),
        (Wire::FlagDisable(disable), Op::Disable, &[Flag], &[]),
    ]
}

#[test]
fn a_write_fits_the_types_that_have_it_and_no_other() {
    for (wire, op, types, _) in writes() {
        for value_type in ValueType::ALL {
            let parsed = parse(value_type, Some(Level::Strict), wire.clone()).map(op_of);
            let expected = types.contains(&value_type).then(|| op.clone());
            assert_eq!(parsed, expected.ok_or(Reason::TypeMismatch), "{wire:?} {value_type}");
        }
    }
}

#[test]
fn what_is_judged_in_the_log_is_strict_unless_it_names_a_level_of_the_log() {
    for (wire, _, types, conditional) in writes() {
        for value_type in types {
            let parsed =
                |level| parse(*value_type, level, wire.clone()).map(|request| request.plan.level);
            let conditional = conditional.contains(value_type);
            let default = if conditional { Level::Strict } else { Level::Sequential };
            assert_eq!(parsed(None), Ok(default), "{wire:?} {value_type}");
            assert_eq!(parsed(Some(Level::Sequential)), Ok(Level::Sequential));
            let refused = parsed(Some(Level::Causal)) == Err(Reason::LevelNotForCondition);
            assert_eq!(refused, conditional, "{wire:?} {value_type}");
        }
    }
}

#[test]
fn the_kind_of_an_id_follows_the_level() {
    for level in Level::ALL {
        let Ok(request) = parse(ValueType::Register, Some(level), put("v", "")) else {
            continue;
        };
        let kind = request.id.unwrap().id.kind;
        assert_eq!(kind == OperationKind::Log, level.writes_through_log(), "{level}");
    }
}

/// A conditional write that names no level is strict, whatever the default is.
#[test]
fn what_is_accepted_instead_is_weaker_than_the_level_it_is_served_at() {
    let accepting = |operation: Wire, accept: &[i32]| {
        let causal =
            KeyspaceRecord { default_level: Level::Causal, ..keyspace(ValueType::Register) };
        let command = v1::Command {
            accept: accept.to_vec(),
            operation: Some(operation),
            ..v1::Command::default()
        };
        let cluster = ClusterIdentity { id: ClusterId([1; 16]), incarnation: 1 };
        let levels = |parsed: Request| {
            let instead: Vec<_> = parsed.accept.iter().map(|plan| plan.level).collect();
            (parsed.plan.level, instead)
        };
        Request::parse(command, &causal, cluster, Instant::now(), Duration::from_secs(1))
            .map(levels)
            .map_err(|error| error.reason)
    };
    let (sequential, eventual) = (Level::Sequential.to_wire(), Level::Eventual.to_wire());
    assert_eq!(accepting(cas(), &[sequential]), Ok((Level::Strict, vec![Level::Sequential])));
    assert_eq!(accepting(cas(), &[1]), Err(Reason::ArgumentInvalid));
    let write = || put("v", "");
    assert_eq!(accepting(write(), &[eventual]), Ok((Level::Causal, vec![Level::Eventual])));
    assert_eq!(accepting(write(), &[sequential]), Err(Reason::ArgumentInvalid));
    // No more than there are.
    assert_eq!(accepting(write(), &[eventual; 5]), Err(Reason::ArgumentInvalid));
}

#[test]
fn sizes_are_checked_before_anything_is_asked() {
    use ValueType::{Counter, Map, Register, Set};
    let long = "x".repeat(5001);
    let (longest_name, too_long) = ("x".repeat(4096), "x".repeat(4097));
    let expecting = |value: &str| swap(v1::compare_and_set::Expected::Value(bytes(value)));
    for (value_type, wire, reason) in [
        (Register, put(&long, ""), Some(Reason::ValueTooLarge)),
        (Register, put(&long[1..], ""), None),
        (Register, expecting(&long), Some(Reason::ValueTooLarge)),
        (Register, expecting(&long[1..]), None),
        (Map, map_put("f", &long), Some(Reason::ValueTooLarge)),
        (Map, map_put("", "v"), Some(Reason::ArgumentInvalid)),
        (Map, map_put(&too_long, "v"), Some(Reason::ArgumentInvalid)),
        (Map, map_put(&longest_name, ""), None),
        (Set, set_add(""), Some(Reason::ArgumentInvalid)),
        (Set, set_add(&longest_name), None),
        (Counter, add(Some(2), Some(1)), Some(Reason::ArgumentInvalid)),
        (Counter, add(Some(2), Some(2)), None),
    ] {
        let parsed = parse(value_type, Some(Level::Strict), wire.clone());
        assert_eq!(parsed.err(), reason, "{wire:?}");
    }
}

#[test]
fn only_siblings_take_a_context_and_only_one_that_a_read_gave() {
    let strict = Some(Level::Strict);
    let read = {
        let (birth, client) = (Timestamp(5), latitude_types::ClientId([7; 16]));
        let id = OperationId { birth, client, sequence: 2, kind: OperationKind::Log };
        let time =
            latitude_types::WriteTime { time: birth, writer: Writer::Client(client), sequence: 2 };
        latitude_range::Sibling { id, time, value: bytes("v") }
    };
    let id = read.id;
    let got = typed::get_result(Value::Siblings(vec![read]), None);
    let Some(v1::typed_value::Value::Siblings(siblings)) = got.typed.unwrap().value else {
        panic!("they are siblings")
    };
    let with = |context: &Bytes| {
        Wire::Put(v1::Put { key: bytes("k"), value: bytes("w"), context: context.clone() })
    };
    let parsed = parse(ValueType::Siblings, strict, with(&siblings.context)).unwrap();
    let Operation::Write { context, .. } = parsed.operation else { panic!("it is a write") };
    assert_eq!(context, [id]);
    let mismatch = parse(ValueType::Register, strict, with(&siblings.context));
    assert_eq!(mismatch.err(), Some(Reason::TypeMismatch));
    let made_up = parse(ValueType::Siblings, strict, put("w", "made up"));
    assert_eq!(made_up.err(), Some(Reason::ArgumentInvalid));
}

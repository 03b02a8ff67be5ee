//! Log writes at their place in the log, and what merging refuses.

use std::collections::BTreeMap;

use bytes::Bytes;
use latitude_crdt::{
    Content, Expected, Fate, Ids, LogPlace, MergeError, Misfit, Op, Outcome, State, Value,
    ValueType, Write,
};
use latitude_types::{
    ClientId, Error, NodeId, OperationId, OperationKind, Reason, Stamp, Timestamp, WriteTime,
};

const APPLIED: Outcome = Outcome::Applied { superseded: false };

fn id(birth_ms: u64, kind: OperationKind) -> OperationId {
    let birth = Timestamp::from_ms(birth_ms);
    OperationId { birth, client: ClientId([7; 16]), sequence: birth_ms, kind }
}

fn local_id(birth_ms: u64) -> OperationId {
    id(birth_ms, OperationKind::Local)
}

fn at(ms: u64) -> LogPlace {
    LogPlace { stamp: Stamp { time: Timestamp::from_ms(ms), node: NodeId(1) }, ordinal: 0 }
}

/// The base of one key.
struct Base {
    value_type: ValueType,
    state: State,
    ids: BTreeMap<OperationId, Fate>,
}

impl Base {
    fn new(value_type: ValueType) -> Self {
        Self { value_type, state: State::default(), ids: BTreeMap::new() }
    }

    /// A log write in an entry stamped then.
    fn log(&mut self, ms: u64, op: &Op, named: &[OperationId]) -> Outcome {
        let id = id(ms, OperationKind::Log);
        let write = Write::log(&id, at(ms), op, named);
        self.state
            .merge(self.value_type, &write, &mut self.ids)
            .expect("it fits, and the table cannot fail")
    }

    /// A delta that is folded.
    fn fold(&mut self, birth_ms: u64, op: &Op, named: &[OperationId]) -> Outcome {
        let id = local_id(birth_ms);
        self.state
            .merge(self.value_type, &Write::local(&id, op, named), &mut self.ids)
            .expect("it fits, and the table cannot fail")
    }

    fn value(&self) -> Value {
        self.state.value(self.value_type)
    }
}

fn bytes(value: &'static str) -> Bytes {
    Bytes::from_static(value.as_bytes())
}

fn put(value: &'static str) -> Op {
    Op::Put { value: bytes(value) }
}

fn add(element: &'static str) -> Op {
    Op::SetAdd { element: bytes(element) }
}

fn set(elements: &[&'static str]) -> Value {
    Value::Set(elements.iter().map(|element| bytes(element)).collect())
}

#[test]
fn a_log_write_counts_with_its_stamp_and_a_local_one_with_its_birth() {
    let mut base = Base::new(ValueType::Register);
    assert_eq!(base.log(100, &put("log"), &[]), APPLIED);
    assert_eq!(base.fold(90, &put("late"), &[]), Outcome::Applied { superseded: true });
    assert_eq!(base.value(), Value::Register(Some(bytes("log"))));
    assert_eq!(base.fold(110, &Op::Delete, &[]), APPLIED);
    assert_eq!(base.value(), Value::Register(None));
    assert_eq!(base.fold(110, &Op::Delete, &[]), Outcome::Duplicate);
    // The deletion is remembered: what is older than it does not come back.
    assert_eq!(base.fold(105, &put("older"), &[]), Outcome::Applied { superseded: true });
    assert!(!base.state.exists());
    assert_eq!(base.state.version, Some(WriteTime::of_local_write(&local_id(110))));
}

#[test]
fn a_compare_and_set_is_judged_by_what_the_base_holds() {
    let swap = |expected, new_value: Option<&'static str>| Op::CompareAndSet {
        expected,
        new_value: new_value.map(bytes),
    };
    let mut base = Base::new(ValueType::Register);
    assert_eq!(
        base.log(10, &swap(Expected::Value(bytes("a")), Some("b")), &[]),
        Outcome::Mismatch { found: None }
    );
    assert_eq!(base.state, State::default(), "a condition that does not hold changes nothing");
    assert_eq!(base.log(20, &swap(Expected::Absent, Some("a")), &[]), APPLIED);
    let version = Some(at(20).time());
    assert_eq!(
        base.log(30, &swap(Expected::Absent, Some("b")), &[]),
        Outcome::Mismatch { found: version }
    );
    assert_eq!(base.log(40, &swap(Expected::Version(at(20).time()), Some("b")), &[]), APPLIED);
    assert_eq!(
        base.log(50, &swap(Expected::Version(at(20).time()), None), &[]),
        Outcome::Mismatch { found: Some(at(40).time()) }
    );
    assert_eq!(base.log(60, &swap(Expected::Value(bytes("b")), None), &[]), APPLIED);
    // Absent again, and so it says though the deletion has a version.
    assert_eq!(
        base.log(70, &swap(Expected::Version(at(60).time()), Some("c")), &[]),
        Outcome::Mismatch { found: None }
    );
    assert_eq!(base.log(80, &swap(Expected::Absent, Some("c")), &[]), APPLIED);
    assert_eq!(base.value(), Value::Register(Some(bytes("c"))));
}

#[test]
fn an_add_within_bounds_is_judged_at_its_place_and_says_what_it_found() {
    let within = |amount| Op::AddWithin { amount, least: Some(0), most: Some(10) };
    let mut base = Base::new(ValueType::Counter);
    assert_eq!(base.log(10, &within(-1), &[]), Outcome::OutOfBounds { found: 0 });
    assert_eq!(base.state, State::default());
    assert_eq!(base.log(20, &within(10), &[]), APPLIED);
    assert_eq!(base.log(30, &within(1), &[]), Outcome::OutOfBounds { found: 10 });
    assert_eq!(base.state.version, Some(at(20).time()));
    // A local add knows no bounds.
    assert_eq!(base.fold(25, &Op::Add { amount: 5 }, &[]), APPLIED);
    assert_eq!(base.log(40, &within(-4), &[]), Outcome::OutOfBounds { found: 15 });
    assert_eq!(base.log(50, &within(-5), &[]), APPLIED);
    assert_eq!(base.value(), Value::Counter(Some(10)));
}

#[test]
fn a_counter_beyond_64_bits_reads_as_the_end_of_them_and_counts_on() {
    let mut base = Base::new(ValueType::Counter);
    for birth in 1..=3 {
        base.fold(birth, &Op::Add { amount: i64::MAX }, &[]);
    }
    assert_eq!(base.value(), Value::Counter(Some(i64::MAX)));
    for birth in 4..=6 {
        base.fold(birth, &Op::Add { amount: -i64::MAX }, &[]);
    }
    assert_eq!(base.value(), Value::Counter(Some(0)));
    base.fold(7, &Op::Add { amount: i64::MIN }, &[]);
    base.fold(8, &Op::Add { amount: i64::MIN }, &[]);
    assert_eq!(base.value(), Value::Counter(Some(i64::MIN)));
}

/// Pitfall 6: a reset ends what is in the base at its place in the log; an add that it has not seen counts after it.
#[test]
fn a_reset_ends_what_was_folded_before_it_and_an_add_folded_later_counts() {
    let mut base = Base::new(ValueType::Counter);
    base.fold(10, &Op::Add { amount: 100 }, &[]);
    assert_eq!(base.log(20, &Op::Reset, &[]), APPLIED);
    assert_eq!(base.value(), Value::Counter(Some(0)));
    assert_eq!(base.fold(10, &Op::Add { amount: 100 }, &[]), Outcome::Duplicate);
    assert_eq!(base.fold(15, &Op::Add { amount: 7 }, &[]), APPLIED);
    assert_eq!(base.value(), Value::Counter(Some(7)));
    assert_eq!(base.log(30, &Op::Delete, &[]), APPLIED);
    assert_eq!(base.value(), Value::Counter(None));
    assert_eq!(base.fold(16, &Op::Add { amount: 1 }, &[]), APPLIED);
    assert_eq!(base.value(), Value::Counter(Some(1)));
}

/// Pitfall B9, where the add that the resetting session saw is named rather than folded first.
#[test]
fn an_add_that_a_reset_names_never_counts() {
    let mut base = Base::new(ValueType::Counter);
    base.log(20, &Op::Reset, &[local_id(10)]);
    assert_eq!(base.fold(10, &Op::Add { amount: 5 }, &[]), Outcome::Duplicate);
    assert_eq!(base.value(), Value::Counter(Some(0)));
}

#[test]
fn a_log_remove_ends_all_the_base_holds_of_the_element_and_nothing_else() {
    let mut base = Base::new(ValueType::Set);
    base.fold(1, &add("milk"), &[]);
    base.fold(2, &add("milk"), &[]);
    base.fold(3, &add("bread"), &[]);
    assert_eq!(base.log(20, &Op::SetRemove { element: bytes("milk") }, &[]), APPLIED);
    assert_eq!(base.value(), set(&["bread"]));
    assert_eq!(base.fold(1, &add("milk"), &[]), Outcome::Duplicate, "a copy, folded later");
    assert_eq!(base.value(), set(&["bread"]));
    assert_eq!(base.fold(4, &add("milk"), &[]), APPLIED, "unseen: it was folded later");
    assert_eq!(base.value(), set(&["bread", "milk"]));
    assert_eq!(base.log(30, &Op::Delete, &[local_id(5)]), APPLIED);
    assert_eq!(base.fold(5, &add("milk"), &[]), Outcome::Duplicate, "named by the delete");
    assert!(!base.state.exists());
}

#[test]
fn a_log_add_takes_the_place_of_what_the_base_holds_and_can_be_removed_by_its_id() {
    let mut base = Base::new(ValueType::Set);
    base.fold(1, &add("e"), &[]);
    base.log(20, &add("e"), &[]);
    let made: Vec<_> = base.state.elements().iter().map(|element| element.id).collect();
    assert_eq!(made, [id(20, OperationKind::Log)]);
    assert_eq!(base.state.elements()[0].time(), at(20).time());
    let remove = Op::SetRemove { element: bytes("e") };
    let named = base.state.named_by(&local_id(30), &remove);
    assert_eq!(named, made);
    assert_eq!(base.fold(30, &remove, &named), APPLIED);
    assert_eq!(base.value(), set(&[]));
}

#[test]
fn a_field_put_through_the_log_wins_until_it_is_removed() {
    let field = |value| Op::MapPut { field: bytes("f"), value: bytes(value) };
    let mut base = Base::new(ValueType::Map);
    base.log(20, &field("log"), &[]);
    base.fold(10, &field("late"), &[]);
    assert_eq!(base.value(), Value::Map(vec![(bytes("f"), bytes("log"))]));
    base.fold(30, &Op::MapRemove { field: bytes("f") }, &[id(20, OperationKind::Log)]);
    assert_eq!(base.value(), Value::Map(vec![(bytes("f"), bytes("late"))]), "unseen, hence alive");
    base.log(40, &Op::MapRemove { field: bytes("f") }, &[]);
    assert_eq!(base.value(), Value::Map(vec![]));
}

#[test]
fn a_log_put_of_siblings_with_a_context_that_is_behind_leaves_a_sibling() {
    let mut base = Base::new(ValueType::Siblings);
    base.fold(1, &put("a"), &[]);
    base.fold(2, &put("b"), &[]);
    base.log(20, &put("c"), &[local_id(1)]);
    let Value::Siblings(siblings) = base.value() else { panic!() };
    let values: Vec<_> = siblings.into_iter().map(|sibling| sibling.value).collect();
    assert_eq!(values, [bytes("b"), bytes("c")]);
}

#[test]
fn a_log_delete_of_siblings_ends_its_context_or_without_one_all_there_is() {
    let mut base = Base::new(ValueType::Siblings);
    base.fold(1, &put("a"), &[]);
    base.fold(2, &put("b"), &[]);
    base.log(20, &Op::Delete, &[local_id(1)]);
    let Value::Siblings(siblings) = base.value() else { panic!() };
    let values: Vec<_> = siblings.into_iter().map(|sibling| sibling.value).collect();
    assert_eq!(values, [bytes("b")], "what was not read stays");
    base.log(30, &Op::Delete, &[]);
    assert!(!base.state.exists());
}

#[test]
fn a_flag_disabled_through_the_log_is_on_again_by_an_enable_it_did_not_see() {
    let mut base = Base::new(ValueType::Flag);
    base.log(10, &Op::Enable, &[]);
    base.log(20, &Op::Disable, &[]);
    assert_eq!(base.value(), Value::Flag(false));
    base.fold(15, &Op::Enable, &[]);
    assert_eq!(base.value(), Value::Flag(true));
}

#[test]
fn each_operation_fits_its_types_and_ways_and_no_others() {
    use OperationKind::{Local, Log};
    use ValueType::{Counter, Flag, Map, Register, Set, Siblings};
    let element = Bytes::new;
    let within = Op::AddWithin { amount: 1, least: None, most: None };
    let swap = Op::CompareAndSet { expected: Expected::Absent, new_value: None };
    let map_put = Op::MapPut { field: element(), value: element() };
    // Operation, types at any level, types through the log only.
    let table: [(Op, &[ValueType], &[ValueType]); 12] = [
        (put("v"), &[Register, Siblings], &[]),
        (Op::Delete, &[Register, Siblings, Set, Map], &[Counter]),
        (swap, &[], &[Register]),
        (Op::Add { amount: 1 }, &[Counter], &[]),
        (within, &[], &[Counter]),
        (Op::Reset, &[], &[Counter]),
        (add("e"), &[Set], &[]),
        (Op::SetRemove { element: element() }, &[Set], &[]),
        (map_put, &[Map], &[]),
        (Op::MapRemove { field: element() }, &[Map], &[]),
        (Op::Enable, &[Flag], &[]),
        (Op::Disable, &[Flag], &[]),
    ];
    for (op, any, log_only) in table {
        for value_type in ValueType::ALL {
            let (any, log_only) = (any.contains(&value_type), log_only.contains(&value_type));
            let no_such = Err(Misfit::Type { op: op.name(), value_type });
            let log = if any || log_only { Ok(()) } else { no_such };
            assert_eq!(op.check(value_type, Log), log, "{op:?}");
            let only_log = Err(Misfit::LogOnly { op: op.name(), value_type });
            assert_eq!(
                op.check(value_type, Local),
                if log_only { only_log } else { log },
                "{op:?}"
            );
        }
    }
}

#[test]
fn a_misfit_says_what_does_not_fit() {
    let error = Error::from(Op::Enable.check(ValueType::Set, OperationKind::Local).unwrap_err());
    assert_eq!(error.to_string(), "TYPE_MISMATCH: a set has no operation \"enable\"");
    let error = Error::from(Op::Reset.check(ValueType::Counter, OperationKind::Local).unwrap_err());
    assert_eq!(error.reason, Reason::LevelNotForCondition);
    assert!(!error.may_have_applied());
}

/// A table of ids on a disk that fails.
struct Failing;

impl Ids for Failing {
    type Error = &'static str;

    fn fate(&self, _: &OperationId) -> Result<Option<Fate>, &'static str> {
        Err("disk")
    }

    fn record(&mut self, _: &OperationId, _: Fate) -> Result<(), &'static str> {
        Err("disk")
    }
}

#[test]
fn what_the_table_of_ids_fails_with_comes_through() {
    for (value_type, op) in
        [(ValueType::Counter, Op::Add { amount: 1 }), (ValueType::Set, add("e"))]
    {
        let (id, mut state) = (local_id(1), State::default());
        let write = Write::local(&id, &op, &[]);
        let merged = state.merge(value_type, &write, &mut Failing);
        assert_eq!(merged, Err(MergeError::Ids("disk")));
        let view = State::default().with_deltas(value_type, &Failing, [write]);
        assert_eq!(view, Err(MergeError::Ids("disk")));
    }
}

#[test]
fn content_of_another_type_is_damage_and_no_panic() {
    let contents = [
        (Content::Plain(Bytes::new()), ValueType::Register),
        (Content::Counter(1), ValueType::Counter),
        (Content::Live(vec![]), ValueType::Set),
    ];
    for (content, of) in contents {
        for (value_type, op) in [
            (ValueType::Register, put("v")),
            (ValueType::Counter, Op::Add { amount: 1 }),
            (ValueType::Set, add("e")),
        ] {
            let mut state = State { version: None, content: content.clone() };
            let id = local_id(1);
            let merged =
                state.merge(value_type, &Write::local(&id, &op, &[]), &mut BTreeMap::new());
            let expected =
                if of == value_type { Ok(APPLIED) } else { Err(MergeError::Content(value_type)) };
            assert_eq!(merged, expected);
        }
    }
}

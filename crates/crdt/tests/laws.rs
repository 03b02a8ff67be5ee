//! The laws of merging, as properties of local writes that meet in any order, in copies, and before what
//! they end. What log writes add to it is in `log_writes.rs`; both together in `histories`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use crdts::{CmRDT, GSet, Orswot, PNCounter};
use latitude_crdt::{Fate, Op, State, Value, ValueType, Write};
use latitude_types::{ClientId, OperationId, OperationKind, Timestamp, WriteTime};
use proptest::prelude::*;

type Table = BTreeMap<OperationId, Fate>;

/// A local write, owned.
#[derive(Clone, Debug)]
struct Local {
    id: OperationId,
    op: Op,
    named: Vec<OperationId>,
}

impl Local {
    fn write(&self) -> Write<'_> {
        Write::local(&self.id, &self.op, &self.named)
    }
}

/// The nth of a few ids. Births are not in the order of the numbers.
fn id(n: u8) -> OperationId {
    OperationId {
        birth: Timestamp::from_ms(1_000 + u64::from(n) * 7 % 10),
        client: ClientId([n % 3; 16]),
        sequence: u64::from(n),
        kind: OperationKind::Local,
    }
}

/// What the write of an id does: the same in all its copies.
fn op(value_type: ValueType, n: u8) -> Op {
    let name = Bytes::from(vec![b'a' + n % 2]);
    let value = Bytes::from(vec![b'0' + n]);
    match (value_type, n % 5) {
        (ValueType::Counter, _) => Op::Add { amount: i64::from(n) - 4 },
        (ValueType::Flag, 0..=2) => Op::Enable,
        (ValueType::Flag, _) => Op::Disable,
        (ValueType::Register | ValueType::Siblings, 0..=3) => Op::Put { value },
        (ValueType::Set, 0..=2) => Op::SetAdd { element: name },
        (ValueType::Set, 3) => Op::SetRemove { element: name },
        (ValueType::Map, 0..=2) => Op::MapPut { field: name, value },
        (ValueType::Map, 3) => Op::MapRemove { field: name },
        (_, _) => Op::Delete,
    }
}

fn types() -> impl Strategy<Value = ValueType> {
    prop::sample::select(ValueType::ALL.to_vec())
}

/// Writes of one key, copies among them, each copy naming what it pleases, in two orders.
fn two_orders() -> impl Strategy<Value = (ValueType, Vec<Local>, Vec<Local>)> {
    let one = (0u8..10, prop::collection::vec(0u8..10, 0..3));
    (types(), prop::collection::vec(one, 0..14))
        .prop_map(|(value_type, writes)| {
            let local = |(n, named): (u8, Vec<u8>)| Local {
                id: id(n),
                op: op(value_type, n),
                named: named.into_iter().map(id).collect(),
            };
            (value_type, writes.into_iter().map(local).collect::<Vec<_>>())
        })
        .prop_flat_map(|(value_type, writes)| {
            let shuffled = Just(writes.clone()).prop_shuffle();
            (Just(value_type), Just(writes), shuffled)
        })
}

fn merge_all(value_type: ValueType, state: &mut State, ids: &mut Table, writes: &[Local]) {
    for write in writes {
        state.merge(value_type, &write.write(), ids).expect("it fits, and the table cannot fail");
    }
}

fn merged(value_type: ValueType, writes: &[Local]) -> (State, Table) {
    let (mut state, mut ids) = Default::default();
    merge_all(value_type, &mut state, &mut ids, writes);
    (state, ids)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn local_writes_commute((value_type, writes, shuffled) in two_orders()) {
        let (one, one_ids) = merged(value_type, &writes);
        let (other, other_ids) = merged(value_type, &shuffled);
        prop_assert_eq!(&one, &other);
        // Replicas compare bytes.
        prop_assert_eq!(postcard::to_stdvec(&one.content), postcard::to_stdvec(&other.content));
        // An id may have taken effect and been ended, or the other way round; known it is either way.
        prop_assert!(one_ids.keys().eq(other_ids.keys()));
    }

    #[test]
    fn merging_any_write_again_changes_nothing((value_type, writes, again) in two_orders()) {
        let (mut state, mut ids) = merged(value_type, &writes);
        let before = (state.clone(), ids.clone());
        merge_all(value_type, &mut state, &mut ids, &again);
        prop_assert_eq!((state, ids), before);
    }

    #[test]
    fn base_and_deltas_read_as_the_base_after_the_fold(
        (value_type, writes, shuffled) in two_orders(), folded in 0usize..14
    ) {
        let (base, rest) = writes.split_at(folded.min(writes.len()));
        let (mut state, mut ids) = merged(value_type, base);
        let before = (state.clone(), ids.clone());
        // Deltas that are folded may still be in the overlay: their ids are known.
        let view = state.with_deltas(value_type, &ids, shuffled.iter().map(Local::write)).unwrap();
        prop_assert_eq!(&(state.clone(), ids.clone()), &before);
        merge_all(value_type, &mut state, &mut ids, rest);
        prop_assert_eq!(view, state);
    }

    #[test]
    fn a_version_is_the_largest_time_before_and_after_the_fold((value_type, writes, _) in two_orders()) {
        let largest = writes.iter().map(|write| WriteTime::of_local_write(&write.id)).max();
        let view = State::default().with_deltas(
            value_type, &Table::new(), writes.iter().map(Local::write)
        );
        prop_assert_eq!(view.unwrap().version, largest);
        prop_assert_eq!(merged(value_type, &writes).0.version, largest);
    }

    #[test]
    fn what_was_named_never_comes_back((value_type, writes, _) in two_orders()) {
        let named: BTreeSet<_> = writes.iter().flat_map(|write| &write.named).collect();
        let (state, _) = merged(value_type, &writes);
        prop_assert!(state.elements().iter().all(|element| !named.contains(&element.id)));
    }

    #[test]
    fn what_was_added_and_not_named_is_there((value_type, writes, _) in two_orders()) {
        let named: BTreeSet<_> = writes.iter().flat_map(|write| &write.named).collect();
        let (state, _) = merged(value_type, &writes);
        let live: BTreeSet<_> = state.elements().iter().map(|element| element.id).collect();
        for write in writes.iter().filter(|_| value_type.has_elements()) {
            let adds = !matches!(
                write.op,
                Op::Delete | Op::Disable | Op::SetRemove { .. } | Op::MapRemove { .. }
            );
            prop_assert_eq!(live.contains(&write.id), adds && !named.contains(&write.id));
        }
    }

    #[test]
    fn the_largest_time_wins_a_register((_, writes, _) in two_orders()) {
        let writes: Vec<_> = writes
            .into_iter()
            .map(|write| Local { op: op(ValueType::Register, write.id.sequence as u8), ..write })
            .collect();
        let last = writes.iter().max_by_key(|write| WriteTime::of_local_write(&write.id));
        let expected = match last.map(|write| &write.op) {
            Some(Op::Put { value }) => Some(value.clone()),
            _ => None,
        };
        let (state, ids) = merged(ValueType::Register, &writes);
        prop_assert_eq!(state.value(ValueType::Register), Value::Register(expected));
        prop_assert_eq!(ids, Table::new(), "a register keeps no ids");
    }

    /// The oracle: a counter in which every operation is an actor of its own.
    #[test]
    fn a_counter_counts_each_add_exactly_once(
        adds in prop::collection::vec((0u8..10, any::<bool>()), 0..20)
    ) {
        let (mut oracle, mut state, mut ids) = (PNCounter::new(), State::default(), Table::new());
        for (n, _) in &adds {
            let amount = i64::from(*n) * 1_000_003 - 5_000_000;
            let steps = amount.unsigned_abs();
            let fresh = PNCounter::new();
            let counted =
                if amount < 0 { fresh.dec_many(*n, steps) } else { fresh.inc_many(*n, steps) };
            oracle.apply(counted);
            let write = Local { id: id(*n), op: Op::Add { amount }, named: vec![] };
            state.merge(ValueType::Counter, &write.write(), &mut ids).unwrap();
        }
        let expected = oracle.read().to_string().parse().ok().filter(|_| !adds.is_empty());
        prop_assert_eq!(state.value(ValueType::Counter), Value::Counter(expected));
    }

    #[test]
    fn a_set_to_which_is_only_added_is_a_set_that_only_grows(
        adds in prop::collection::vec((0u8..20, 0u8..5), 0..20)
    ) {
        let (mut oracle, mut state, mut ids) = (GSet::new(), State::default(), Table::new());
        for (n, element) in adds {
            let element = Bytes::from(vec![element]);
            // A copy adds the same: the element belongs to the id.
            if ids.contains_key(&id(n)) { continue }
            oracle.insert(element.clone());
            let op = Op::SetAdd { element };
            let named = state.named_by(&id(n), &op);
            state.merge(ValueType::Set, &Write::local(&id(n), &op, &named), &mut ids).unwrap();
        }
        let expected: Vec<_> = oracle.read().into_iter().collect();
        prop_assert_eq!(state.value(ValueType::Set), Value::Set(expected));
    }

    /// The oracle: three replicas of an `Orswot` that get each other's operations in order of their makers.
    #[test]
    fn a_set_adds_and_removes_as_an_observed_remove_set_does(
        steps in prop::collection::vec((0usize..3, 0usize..3, 0u8..6, 0u8..3), 0..60)
    ) {
        let mut oracles: [Orswot<Bytes, usize>; 3] = Default::default();
        let mut ours: [(State, Table); 3] = Default::default();
        let mut made: [Vec<_>; 3] = Default::default();
        let mut met = [[0; 3]; 3];
        let mut deliver = |at: usize, theirs: crdts::orswot::Op<_, _>, write: &Local| {
            oracles[at].apply(theirs);
            let (state, ids) = &mut ours[at];
            state.merge(ValueType::Set, &write.write(), ids).unwrap();
            let mut expected: Vec<_> = oracles[at].read().val.into_iter().collect();
            expected.sort();
            assert_eq!(state.value(ValueType::Set), Value::Set(expected));
            (oracles[at].clone(), state.clone())
        };
        let mut seen: [(Orswot<Bytes, usize>, State); 3] = Default::default();
        for (n, (at, from, what, name)) in (0u64..).zip(steps) {
            if what >= 4 {
                if let Some((theirs, write)) = made[from].get(met[at][from]).cloned() {
                    seen[at] = deliver(at, theirs, &write);
                    met[at][from] += 1;
                }
                continue;
            }
            let element = Bytes::from(vec![name]);
            let (oracle, state) = &seen[at];
            let (theirs, op) = if what < 2 {
                let context = oracle.read().derive_add_ctx(at);
                (oracle.add(element.clone(), context), Op::SetAdd { element })
            } else {
                let context = oracle.contains(&element).derive_rm_ctx();
                (oracle.rm(element.clone(), context), Op::SetRemove { element })
            };
            let id = OperationId {
                birth: Timestamp::from_ms(1_000 + n),
                client: ClientId([at as u8; 16]),
                sequence: n,
                kind: OperationKind::Local,
            };
            let write = Local { id, named: state.named_by(&id, &op), op };
            seen[at] = deliver(at, theirs.clone(), &write);
            made[at].push((theirs, write));
            met[at][at] += 1;
        }
    }
}

/// Pitfall B7. The first copy of the remove named *a*; then *b* was added, and the second copy named both.
#[test]
fn of_a_retried_remove_what_every_copy_named_is_gone() {
    let element = Bytes::from_static(b"e");
    let (add, remove) = (Op::SetAdd { element: element.clone() }, Op::SetRemove { element });
    let of = |n, op: &Op, named: &[u8]| Local {
        id: id(n),
        op: op.clone(),
        named: named.iter().copied().map(id).collect(),
    };
    let writes =
        [of(1, &add, &[]), of(9, &remove, &[1]), of(2, &add, &[]), of(9, &remove, &[1, 2])];
    let (state, _) = merged(ValueType::Set, &writes);
    assert_eq!(state.value(ValueType::Set), Value::Set(vec![]));
    assert!(!state.exists());
}

/// Finding 5. An add that the remover did not see survives, though the element was removed.
#[test]
fn an_add_wins_over_a_remove_that_did_not_see_it_in_either_order() {
    let element = Bytes::from_static(b"e");
    let (add, remove) =
        (Op::SetAdd { element: element.clone() }, Op::SetRemove { element: element.clone() });
    let first = Local { id: id(1), op: add.clone(), named: vec![] };
    let unseen = Local { id: id(2), op: add, named: vec![] };
    let remove = Local { id: id(3), op: remove, named: vec![id(1)] };
    for writes in
        [[&first, &remove, &unseen], [&unseen, &remove, &first], [&remove, &first, &unseen]]
    {
        let (state, _) = merged(ValueType::Set, &writes.map(Clone::clone));
        assert_eq!(state.value(ValueType::Set), Value::Set(vec![element.clone()]));
    }
}

#[test]
fn an_unseen_put_survives_the_removal_of_its_field_though_it_is_older() {
    let put =
        |value| Op::MapPut { field: Bytes::from_static(b"f"), value: Bytes::from_static(value) };
    // Births: of id 2, 1004; of id 1, 1007.
    let older = Local { id: id(2), op: put(b"older"), named: vec![] };
    let newer = Local { id: id(1), op: put(b"newer"), named: vec![] };
    let (both, _) = merged(ValueType::Map, &[newer.clone(), older.clone()]);
    let fields = |value| Value::Map(vec![(Bytes::from_static(b"f"), Bytes::from_static(value))]);
    assert_eq!(both.value(ValueType::Map), fields(b"newer"));
    let op = Op::MapRemove { field: Bytes::from_static(b"f") };
    let remove = Local { id: id(9), op, named: vec![id(1)] };
    let (left, _) = merged(ValueType::Map, &[newer, older, remove]);
    assert_eq!(left.value(ValueType::Map), fields(b"older"));
}

#[test]
fn a_put_of_siblings_takes_the_place_of_its_context_and_of_nothing_else() {
    let put = |n, named: &[u8]| Local {
        id: id(n),
        op: Op::Put { value: Bytes::from(vec![n]) },
        named: named.iter().copied().map(id).collect(),
    };
    let (state, _) = merged(ValueType::Siblings, &[put(1, &[]), put(2, &[]), put(3, &[1])]);
    let Value::Siblings(siblings) = state.value(ValueType::Siblings) else { panic!() };
    let values: BTreeSet<_> = siblings.iter().map(|sibling| sibling.value.clone()).collect();
    assert_eq!(values, BTreeSet::from([Bytes::from(vec![2]), Bytes::from(vec![3])]));
}

/// Live ids stay few, and a remover names all of them.
#[test]
fn an_element_added_over_and_over_keeps_its_newest_ids() {
    let (mut state, mut ids) = (State::default(), Table::new());
    let newest = |n: u64| OperationId { birth: Timestamp::from_ms(n), sequence: n, ..id(0) };
    for n in 1..=100 {
        let named = state.named_by(&newest(n), &Op::Enable);
        state
            .merge(ValueType::Flag, &Write::local(&newest(n), &Op::Enable, &named), &mut ids)
            .unwrap();
    }
    let live: Vec<_> = state.elements().iter().map(|element| element.id).collect();
    assert_eq!(live, (93..=100).map(newest).collect::<Vec<_>>());
    assert_eq!(state.named_by(&newest(101), &Op::Disable), live);
    // One that was made before all of them takes the place of none.
    assert_eq!(state.named_by(&newest(1), &Op::Enable), []);
}

//! The judges of counters and lists against every permutation, and against stores that are right or wrong.

use std::collections::BTreeMap;

use super::definition::*;
use super::*;
use crate::history::{Extras, MicroOp, Outcome, Value};
use crate::numbers::Numbers;

/// A verdict of the search alone, and what the judges before it found.
fn judged(operations: &[Operation], empty: &Held) -> (Found, Option<Violation>) {
    let references: Vec<_> = operations.iter().collect();
    match empty {
        Held::Sum(_) => {
            let counter = Counter::new("k", &references).unwrap();
            (search::judge(&counter, Budget::default()), bounds::judge(&counter))
        }
        Held::List(_) => {
            let list = List::new("k", &references).unwrap();
            (search::judge(&Beginnings::new(&list), Budget::default()), list::evident::judge(&list))
        }
    }
}

/// Runs the judges on small histories, right and wrong, and compares each with the definition. Of each
/// fault, and without any, as many as `least` must be illegal; and as many legal ones without.
fn judges_agree(shape: &Shape, faults: &[Fault], least: usize) {
    let (mut legal, mut quick) = (0, 0);
    let mut illegal: BTreeMap<Option<Fault>, usize> = BTreeMap::new();
    let kinds = faults.iter().copied().map(Some).chain([None]);
    for (at, fault) in kinds.cycle().take(1_500 * (faults.len() + 1)).enumerate() {
        let mut numbers = Numbers(at as u64);
        let shape = Shape {
            clients: 2 + numbers.below(3),
            operations: 2 + numbers.below(7),
            fault: fault.map(|fault| (fault, 0, 60, 2)),
            ..shape.clone()
        };
        let (mut operations, faulty) = simulate(numbers.next(), &shape);
        let right = some_order_is_legal(&operations, &shape.empty);
        assert!(right || faulty, "{at}: what is right is linearizable\n{operations:#?}");
        for operation in &mut operations {
            // Every other line stays free, for a corruption to put a return on.
            operation.invoke_line *= 2;
            operation.return_line = operation.return_line.map(|line| line * 2);
        }
        if fault.is_none() {
            (0..numbers.below(3)).for_each(|_| corrupt(&mut operations, &mut numbers));
        }
        let expected = some_order_is_legal(&operations, &shape.empty);
        if !expected {
            *illegal.entry(fault).or_default() += 1;
        } else if fault.is_none() {
            legal += 1;
        }

        let (found, violation) = judged(&operations, &shape.empty);
        assert_eq!(matches!(found, Found::Order), expected, "{at}: {found:?}\n{operations:#?}");
        if let Some(violation) = violation {
            assert!(!expected, "{at}: {violation}\n{operations:#?}");
            quick += 1;
        }
        let verdict = check_operations(&operations, Budget::default()).verdict;
        // What is only read, and found to be nothing or a number, is a register.
        let is_kind = operations.iter().flat_map(|op| &op.micro_ops).any(|op| {
            !matches!(op, MicroOp::Read { value: Value::Absent | Value::Integer(_), .. })
        });
        assert!(!is_kind || (verdict == Verdict::Linearizable) == expected, "{at}: {verdict}");
    }
    let enough = illegal.len() == faults.len() + 1 && illegal.values().all(|&count| count >= least);
    assert!(
        enough && legal >= least && quick >= least,
        "{legal} legal, {illegal:?}, {quick} quickly"
    );
}

fn shape(empty: Held, mix: &'static [&'static str], values: Option<usize>) -> Shape {
    Shape { clients: 8, operations: 0, empty, mix, values, trouble_percent: 20, fault: None }
}

fn nothing() -> Held {
    Held::List(Vec::new())
}

#[test]
fn judges_agree_with_every_permutation_on_counters() {
    use Fault::{Doubled, Lost, OutOfBounds, Phantom, StaleRead};
    let faults = [StaleRead, Lost, Doubled, Phantom, OutOfBounds];
    judges_agree(&shape(Held::Sum(0), COUNTER, Some(4)), &faults, 150);
}

#[test]
fn judges_agree_with_every_permutation_on_lists_of_elements_appended_once() {
    use Fault::{Doubled, Lost, Phantom, Reordered, StaleRead};
    let faults = [StaleRead, Lost, Doubled, Reordered, Phantom];
    judges_agree(&shape(nothing(), LIST, None), &faults, 150);
}

#[test]
fn judges_agree_with_every_permutation_on_lists_of_few_elements() {
    use Fault::{Doubled, Lost, Phantom, Reordered, StaleRead};
    let faults = [StaleRead, Lost, Doubled, Reordered, Phantom];
    judges_agree(&shape(nothing(), LIST, Some(3)), &faults, 150);
}

#[test]
fn a_long_run_of_a_real_counter_or_list_is_linearizable() {
    for seed in 0..4 {
        for (empty, mix, values, trouble_percent) in [
            (Held::Sum(0), COUNTER, Some(4), 0),
            (Held::Sum(0), ADDITIONS, Some(9), 1),
            (Held::Sum(0), ADDITIONS, None, 2),
            (nothing(), LIST, None, 2),
            (nothing(), LIST, Some(5), 0),
        ] {
            let shape = Shape { operations: 1_500, trouble_percent, ..shape(empty, mix, values) };
            let (operations, _) = simulate(seed, &shape);
            let verdict = check_operations(&operations, Budget::default()).verdict;
            assert_eq!(verdict, Verdict::Linearizable, "{seed}: {mix:?}");
        }
    }
}

#[test]
fn one_fault_in_a_long_run_is_a_violation() {
    use Fault::{Doubled, Lost, Phantom, Reordered, StaleRead};
    for fault in [StaleRead, Lost, Doubled, Reordered, Phantom] {
        for seed in 0..20 {
            // Sums and lists that only grow, so that none comes back.
            for (empty, mix) in [(Held::Sum(0), ADDITIONS), (nothing(), APPENDS)] {
                if fault == Reordered && empty != nothing() {
                    continue;
                }
                let shape = Shape {
                    operations: 300,
                    trouble_percent: 0,
                    fault: Some((fault, 150, 100, 1)),
                    ..shape(empty, mix, None)
                };
                let (operations, faulty) = simulate(seed, &shape);
                let verdict = check_operations(&operations, Budget::default()).verdict;
                assert!(
                    faulty && matches!(verdict, Verdict::Violation(_)),
                    "{fault:?}, {seed}: {verdict}"
                );
            }
        }
    }
}

/// An operation on key `k`; without a return of unknown outcome.
fn operation(call: usize, ret: Option<usize>, micro_ops: &[MicroOp]) -> Operation {
    Operation {
        process: call as u64,
        invoke_line: call,
        return_line: ret,
        micro_ops: micro_ops.to_vec(),
        outcome: if ret.is_some() { Outcome::Ok } else { Outcome::Info },
        extras: Extras::default(),
    }
}

fn add(amount: i64) -> MicroOp {
    MicroOp::Add { key: "k".to_owned(), amount }
}

fn append(value: i64) -> MicroOp {
    MicroOp::Append { key: "k".to_owned(), value }
}

fn read(value: Value) -> MicroOp {
    MicroOp::Read { key: "k".to_owned(), value }
}

fn sum(sum: i64) -> MicroOp {
    read(Value::Integer(sum))
}

fn list(list: &[i64]) -> MicroOp {
    read(Value::List(list.to_vec()))
}

fn is_legal(operations: &[Operation]) -> bool {
    match check_operations(operations, Budget::default()).verdict {
        Verdict::Linearizable => true,
        Verdict::Violation(_) => false,
        unknown => panic!("{unknown}"),
    }
}

#[test]
fn micro_operations_of_one_operation_happen_at_one_moment() {
    let both = |one: &[MicroOp], other: &[MicroOp]| {
        is_legal(&[operation(1, Some(3), one), operation(2, Some(4), other)])
    };
    assert!(both(&[add(1), sum(1)], &[add(1), sum(2)]));
    assert!(both(&[add(1), sum(2)], &[add(1), sum(1)]));
    assert!(!both(&[add(1), sum(1)], &[add(1), sum(1)]), "an addition was lost");
    assert!(!both(&[add(1), sum(2)], &[add(1), sum(2)]), "nobody was first");
    assert!(both(&[add(1), add(-1), sum(0)], &[sum(0)]));
    assert!(!both(&[add(1), add(-1), sum(0)], &[sum(1)]), "half of it was seen");
    assert!(!both(&[sum(0), sum(1)], &[add(1)]), "two sums in one operation");

    assert!(both(&[append(1), list(&[1])], &[append(2), list(&[1, 2])]));
    assert!(!both(&[append(1), list(&[1])], &[append(2), list(&[2])]), "an append was lost");
    assert!(!both(&[append(1), append(2)], &[list(&[1])]), "half of it was seen");
    assert!(!both(&[append(1), append(2)], &[append(3), list(&[1, 3, 2])]));
    assert!(!both(&[append(1), list(&[2])], &[append(2)]), "its own append is missing");
    assert!(!both(&[list(&[]), list(&[1])], &[append(1)]), "two lists in one operation");
}

#[test]
fn an_addition_is_out_of_bounds_only_if_it_is() {
    let bounded = |amount| MicroOp::BoundedAdd { key: "k".to_owned(), amount, low: 0, high: 5 };
    let tried = |held: i64, amount: i64, outcome| {
        let before = operation(1, Some(2), &[add(held)]);
        let mut tried = operation(3, Some(4), &[bounded(amount)]);
        tried.outcome = outcome;
        let left = if outcome == Outcome::Ok { held + amount } else { held };
        is_legal(&[before, tried, operation(5, Some(6), &[sum(left)])])
    };
    for (held, amount) in [(3, 2), (3, -3), (5, 0), (7, -3)] {
        assert!(tried(held, amount, Outcome::Ok) && !tried(held, amount, Outcome::Mismatch));
    }
    for (held, amount) in [(3, 3), (3, -4), (9, -2), (-3, 1)] {
        assert!(!tried(held, amount, Outcome::Ok) && tried(held, amount, Outcome::Mismatch));
    }
    assert!(tried(3, 2, Outcome::Fail) && tried(3, 3, Outcome::Fail), "it may fail for any reason");
}

#[test]
fn an_absent_counter_is_0_and_an_absent_list_is_empty() {
    let absent = operation(1, Some(2), &[read(Value::Absent)]);
    assert!(is_legal(&[absent.clone(), operation(3, Some(4), &[add(1)])]));
    assert!(is_legal(&[absent.clone(), operation(3, Some(4), &[append(1)])]));
    assert!(!is_legal(&[
        operation(0, Some(1), &[add(1)]),
        operation(2, Some(3), &absent.micro_ops)
    ]));
    assert!(!is_legal(&[
        operation(0, Some(1), &[append(1)]),
        operation(2, Some(3), &absent.micro_ops)
    ]));
}

/// So many operations at once, and one more beside them.
fn beside(
    count: usize,
    certain: bool,
    one: impl Fn(usize) -> MicroOp,
    more: &[MicroOp],
) -> Vec<Operation> {
    let end = |at| certain.then_some(count + 2 + at);
    let mut operations: Vec<_> = (1..=count).map(|at| operation(at, end(at), &[one(at)])).collect();
    operations.push(operation(count + 1, Some(count + 2), more));
    operations
}

#[test]
fn orders_that_come_to_the_same_are_tried_once() {
    let budget = Budget { configurations: 1 << 12 };
    let verdict = |operations: &[Operation]| check_operations(operations, budget).verdict;
    // Ten additions have 3,628,800 orders, and 1,024 subsets.
    let odd = verdict(&beside(10, true, |_| add(2), &[sum(7)]));
    assert!(matches!(odd, Verdict::Violation(_)), "{odd}");
    // Sixty of unknown outcome have 2^60 subsets; but they are all alike.
    let odd = verdict(&beside(60, false, |_| add(2), &[sum(7)]));
    assert!(matches!(odd, Verdict::Violation(_)), "{odd}");
    let even = verdict(&beside(60, false, |_| add(2), &[sum(8)]));
    assert_eq!(even, Verdict::Linearizable);
    // Of appended lists all are one that nobody found.
    let mut appends = beside(10, true, |at| append(at as i64), &[list(&[])]);
    appends
        .extend([operation(90, Some(91), &[append(11)]), operation(92, Some(93), &[append(12)])]);
    let order = |end: &[i64]| {
        operation(94, Some(95), &[list(&[&[7, 1, 2, 3, 4, 5, 6, 8, 9, 10], end].concat())])
    };
    let right = verdict(&[appends.as_slice(), &[order(&[11, 12])]].concat());
    assert_eq!(right, Verdict::Linearizable);
    let wrong = verdict(&[appends.as_slice(), &[order(&[12, 11])]].concat());
    assert!(matches!(wrong, Verdict::Violation(_)), "{wrong}");
}

#[test]
fn a_search_among_too_many_unknown_additions_says_that_it_does_not_know() {
    let operations = beside(40, false, |at| add(1 << at), &[sum(7)]);
    let report = check_operations(&operations, Budget { configurations: 10_000 });
    assert_eq!(report.verdict, Verdict::Unknown { key: "k".to_owned(), doubt: Doubt::OutOfBudget });
}

#[test]
fn a_key_of_several_objects_is_doubted_where_it_becomes_so() {
    let key = || "k".to_owned();
    let write = MicroOp::Write { key: key(), value: 1 };
    let remove = MicroOp::Remove { key: key(), element: 1 };
    let elsewhere = MicroOp::Add { key: "l".to_owned(), amount: 1 };
    let doubts = |micro_ops: &[&[MicroOp]]| {
        let at = |(at, ops): (usize, &&[MicroOp])| operation(2 * at + 1, Some(2 * at + 2), ops);
        let operations: Vec<_> = micro_ops.iter().enumerate().map(at).collect();
        match check_operations(&operations, Budget::default()).verdict {
            Verdict::Unknown { doubt: Doubt::NoObject { line, text }, .. } => Some((line, text)),
            _ => None,
        }
    };
    let told = |line, text: &str| Some((line, text.to_owned()));
    assert_eq!(doubts(&[&[sum(0)], &[add(1)], std::slice::from_ref(&write)]), told(5, "write 1"));
    assert_eq!(doubts(&[&[list(&[])], &[append(1)], &[add(1)]]), told(5, "add 1"));
    assert_eq!(doubts(&[&[add(1)], &[list(&[1])]]), told(3, "read [1]"), "a set");
    assert_eq!(doubts(&[&[add(1)], &[remove]]), told(3, "remove 1"), "a set");
    assert_eq!(doubts(&[&[write, sum(1)]]), told(1, "write 1, read 1"));
    assert_eq!(doubts(&[&[add(1), elsewhere]]), told(1, "k: add 1, l: add 1"));
    assert_eq!(doubts(&[&[sum(0)], &[add(1)], &[sum(0)]]), None);
}

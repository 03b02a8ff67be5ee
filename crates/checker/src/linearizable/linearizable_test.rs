//! The judges against a deliberately dumb one, and against a register that cannot be wrong.

use std::cell::Cell;
use std::io;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::register::State;
use super::*;
use crate::Recorder;
use crate::history::{Extras, MicroOp, Outcome, Value};
use crate::numbers::Numbers;

/// What a simulated run is like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    clients: usize,
    operations: usize,
    /// The micro-operations to draw from.
    mix: &'static [&'static str],
    /// Values are drawn from this many; `None`: each is written once.
    values: Option<usize>,
    /// How many in a hundred operations end unknown, and as many fail before they took effect.
    trouble_percent: usize,
}

const PLAIN: &[&str] = &["r", "w"];
const SWAPS: &[&str] = &["cas"];
const CONDITIONAL: &[&str] = &["r", "r", "w", "cas", "cas"];
const EVERYTHING: &[&str] = &["r", "r", "w", "cas", "cas", "pia", "d"];

enum Client {
    Idle,
    Called(MicroOp),
    /// Took effect: what to answer, `None` for a mismatch.
    Applied(Option<MicroOp>),
}

/// A register and its concurrent clients: each operation takes effect at one moment between its call
/// and its return; an unknown one before or after its `info`, or never.
fn simulate(seed: u64, shape: Shape) -> Vec<Operation> {
    let mut numbers = Numbers(seed);
    let recorder = Recorder::new(io::sink());
    let mut clients: Vec<_> =
        (0..shape.clients).map(|_| (recorder.process(), Client::Idle)).collect();
    let (mut state, mut invoked, mut time, mut fresh) = (None, 0, 0, 0);
    let mut late: Vec<MicroOp> = Vec::new();
    while invoked < shape.operations || clients.iter().any(|(_, c)| !matches!(c, Client::Idle)) {
        time += 1;
        if !late.is_empty() && numbers.percent(10) {
            let op = late.swap_remove(numbers.below(late.len()));
            apply(&op, &mut state);
        }
        let chosen = numbers.below(shape.clients);
        let (process, client) = &mut clients[chosen];
        *client = match std::mem::replace(client, Client::Idle) {
            Client::Idle if invoked == shape.operations => Client::Idle,
            Client::Idle => {
                invoked += 1;
                let op = draw(&mut numbers, shape, state, &mut fresh);
                recorder.invoke(*process, time, vec![op.clone()], Extras::default()).unwrap();
                Client::Called(op)
            }
            Client::Called(op) if numbers.percent(shape.trouble_percent) => {
                if numbers.percent(50) {
                    recorder.fail(*process, time, Extras::default()).unwrap();
                } else {
                    *process = recorder.info(*process, time, Extras::default()).unwrap();
                    late.push(op);
                }
                Client::Idle
            }
            Client::Called(op) => Client::Applied(apply(&op, &mut state)),
            Client::Applied(answer) => {
                if numbers.percent(shape.trouble_percent / 2) {
                    *process = recorder.info(*process, time, Extras::default()).unwrap();
                } else if let Some(op) = answer {
                    recorder.ok(*process, time, vec![op], Extras::default()).unwrap();
                } else {
                    recorder.mismatch(*process, time, Extras::default()).unwrap();
                }
                Client::Idle
            }
        };
    }
    recorder.history().operations()
}

fn draw(numbers: &mut Numbers, shape: Shape, state: State, fresh: &mut i64) -> MicroOp {
    let key = "k".to_owned();
    let mut value = || match shape.values {
        Some(count) => numbers.below(count) as i64 + 1,
        None => {
            *fresh += 1;
            *fresh
        }
    };
    let (value, other) = (value(), shape.values.map(|_| value()));
    match shape.mix[numbers.below(shape.mix.len())] {
        "r" => MicroOp::Read { key, value: Value::Absent },
        "w" => MicroOp::Write { key, value },
        "pia" => MicroOp::PutIfAbsent { key, value },
        "d" => MicroOp::Delete { key },
        _ if numbers.percent(80) => MicroOp::CompareAndSet { key, from: state, to: value },
        _ => MicroOp::CompareAndSet { key, from: other, to: value },
    }
}

/// What a register does, for the simulator and the dumb judge: the answer, or `None` for a mismatch.
fn apply(op: &MicroOp, state: &mut State) -> Option<MicroOp> {
    match op {
        MicroOp::Read { key, .. } => {
            let value = state.map_or(Value::Absent, Value::Integer);
            return Some(MicroOp::Read { key: key.clone(), value });
        }
        MicroOp::Write { value, .. } => *state = Some(*value),
        MicroOp::CompareAndSet { from, to, .. } if from == state => *state = Some(*to),
        MicroOp::PutIfAbsent { value, .. } if state.is_none() => *state = Some(*value),
        MicroOp::Delete { .. } => *state = None,
        _ => return None,
    }
    Some(op.clone())
}

/// Tries every order that real time allows, with and without each unknown operation.
fn some_order_is_legal(operations: &[Operation]) -> bool {
    fn extend(left: &[&Operation], state: State) -> bool {
        let certain = |op: &&&Operation| op.return_line.is_some();
        let deadline = left.iter().filter(certain).filter_map(|op| op.return_line).min();
        let Some(deadline) = deadline else { return true };
        left.iter().enumerate().any(|(at, op)| {
            let mut after = state;
            let answer = apply(&op.micro_ops[0], &mut after);
            let legal = match op.outcome {
                Outcome::Ok => answer.as_ref() == Some(&op.micro_ops[0]),
                Outcome::Mismatch => answer.is_none(),
                _ => true,
            };
            let mut rest = left.to_vec();
            rest.remove(at);
            op.invoke_line < deadline && legal && extend(&rest, after)
        })
    }
    let counts: Vec<_> = operations.iter().filter(|op| op.outcome != Outcome::Fail).collect();
    extend(&counts, None)
}

/// Changes what some operation saw or what became of it.
fn corrupt(operations: &mut [Operation], numbers: &mut Numbers) {
    let other = operations[numbers.below(operations.len())].micro_ops[0].clone();
    let operation = &mut operations[numbers.below(operations.len())];
    let (invoke_line, outcome) = (operation.invoke_line, operation.outcome);
    match (&mut operation.micro_ops[0], outcome) {
        (MicroOp::Read { value, .. }, Outcome::Ok) => {
            *value = match other {
                MicroOp::Read { value, .. } => value,
                MicroOp::Write { value, .. }
                | MicroOp::PutIfAbsent { value, .. }
                | MicroOp::CompareAndSet { to: value, .. } => Value::Integer(value),
                _ => Value::Absent,
            }
        }
        (_, Outcome::Ok) if numbers.percent(50) => operation.outcome = Outcome::Fail,
        (MicroOp::CompareAndSet { .. }, Outcome::Ok) => operation.outcome = Outcome::Mismatch,
        (_, Outcome::Ok) => operation.return_line = Some(invoke_line + 1),
        (_, Outcome::Fail | Outcome::Mismatch) => operation.outcome = Outcome::Ok,
        (_, Outcome::Info | Outcome::Pending) => {
            operation.outcome = Outcome::Ok;
            operation.return_line = Some(invoke_line + 1);
        }
    }
}

/// Runs every judge on small histories, right and wrong, and compares each with the dumb one.
fn judges_agree(mix: &'static [&'static str], values: Option<usize>) {
    let (legal, illegal, by_zones) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let config = Config { cases: 6_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let strategy = (any::<u64>(), 2..5usize, 2..9usize, 0..4usize);
    let outcome = runner.run(&strategy, |(seed, clients, count, corruptions)| {
        let shape = Shape { clients, operations: count, mix, values, trouble_percent: 20 };
        let mut operations = simulate(seed, shape);
        let mut numbers = Numbers(!seed);
        prop_assert!(some_order_is_legal(&operations), "a simulated register is linearizable");
        for operation in &mut operations {
            // Every other line stays free, for a corruption to put a return on.
            operation.invoke_line *= 2;
            operation.return_line = operation.return_line.map(|line| line * 2);
        }
        for _ in 0..corruptions {
            corrupt(&mut operations, &mut numbers);
        }
        let expected = some_order_is_legal(&operations);
        let tally = if expected { &legal } else { &illegal };
        tally.set(tally.get() + 1);

        let references: Vec<_> = operations.iter().collect();
        let register = Register::new("k", &references).unwrap();
        let found = search::judge(&Numbered::new(&register), Budget::default());
        prop_assert_eq!(matches!(found, Found::Order), expected, "search: {:?}", found);
        let quick = evident::judge(&register).or_else(|| zones::judge(&register));
        if zones::is_complete(&register) {
            by_zones.set(by_zones.get() + 1);
            prop_assert_eq!(quick.is_none(), expected, "zones: {:?}", quick);
        } else if let Some(violation) = quick {
            prop_assert!(!expected, "zones: {}", violation);
        }
        let report = check_operations(&operations, Budget::default());
        prop_assert_eq!(report.verdict == Verdict::Linearizable, expected);
        Ok(())
    });
    outcome.unwrap();
    // A comparison that saw one kind only would prove little.
    assert!(legal.get() > 500 && illegal.get() > 500, "{legal:?} legal, {illegal:?} illegal");
    if mix == PLAIN && values.is_none() {
        assert!(by_zones.get() > 3_500, "{by_zones:?} by zones");
    }
}

#[test]
fn judges_agree_with_every_permutation_on_reads_and_writes_of_values_written_once() {
    judges_agree(PLAIN, None);
}

#[test]
fn judges_agree_with_every_permutation_on_reads_and_writes_of_few_values() {
    judges_agree(PLAIN, Some(3));
}

#[test]
fn judges_agree_with_every_permutation_on_cas_of_values_written_once() {
    judges_agree(CONDITIONAL, None);
}

#[test]
fn judges_agree_with_every_permutation_on_every_operation_of_few_values() {
    judges_agree(EVERYTHING, Some(3));
}

#[test]
fn judges_agree_with_every_permutation_on_every_operation_of_values_written_once() {
    judges_agree(EVERYTHING, None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_long_run_of_a_real_register_is_linearizable(seed: u64) {
        let shapes = [
            (PLAIN, None, 2),
            (CONDITIONAL, None, 2),
            (CONDITIONAL, Some(5), 0),
            (EVERYTHING, None, 0),
            (EVERYTHING, Some(20), 0),
            (SWAPS, None, 1),
        ];
        for (mix, values, trouble_percent) in shapes {
            let shape = Shape { clients: 8, operations: 3_000, mix, values, trouble_percent };
            let report = check_operations(&simulate(seed, shape), Budget::default());
            prop_assert_eq!(report.verdict, Verdict::Linearizable, "{:?}", shape);
        }
    }
}

#[test]
fn a_hundred_thousand_operations_on_one_hot_key_are_judged() {
    let shape =
        Shape { clients: 50, operations: 100_000, mix: PLAIN, values: None, trouble_percent: 1 };
    let report = check_operations(&simulate(1, shape), Budget::default());
    assert_eq!(report.verdict, Verdict::Linearizable);
    assert!(report.counts.ok > 97_000 && report.counts.unknown > 400, "{}", report.counts);
}

#[test]
fn twenty_thousand_cas_at_concurrency_eight_are_judged() {
    for values in [None, Some(8)] {
        let shape =
            Shape { clients: 8, operations: 20_000, mix: SWAPS, values, trouble_percent: 0 };
        let report = check_operations(&simulate(2, shape), Budget::default());
        assert_eq!(report.verdict, Verdict::Linearizable, "{shape:?}");
        assert!(report.counts.ok > 2_000 && report.counts.failed > 2_000, "{}", report.counts);
    }
}

#[test]
fn a_search_without_budget_says_that_it_does_not_know() {
    let shape =
        Shape { clients: 4, operations: 50, mix: SWAPS, values: Some(3), trouble_percent: 0 };
    let report = check_operations(&simulate(3, shape), Budget { configurations: 5 });
    assert_eq!(report.verdict, Verdict::Unknown { key: "k".to_owned(), doubt: Doubt::OutOfBudget });
}

fn operation(lines: (usize, usize), key: &str, micro_op: impl Fn(String) -> MicroOp) -> Operation {
    Operation {
        process: lines.0 as u64,
        invoke_line: lines.0,
        return_line: Some(lines.1),
        micro_ops: vec![micro_op(key.to_owned())],
        outcome: Outcome::Ok,
        extras: Extras::default(),
    }
}

#[test]
fn what_is_no_object_is_unknown_and_does_not_hide_a_violation_elsewhere() {
    let enable = operation((1, 2), "a", |key| MicroOp::Enable { key });
    let thin_air = operation((3, 4), "b", |key| MicroOp::Read { key, value: Value::Integer(9) });
    let report = check_operations(std::slice::from_ref(&enable), Budget::default());
    let doubt = Doubt::NoObject { line: 1, text: "enable".to_owned() };
    assert_eq!(report.verdict, Verdict::Unknown { key: "a".to_owned(), doubt });
    let report = check_operations(&[enable, thin_air], Budget::default());
    assert!(matches!(report.verdict, Verdict::Violation(violation) if violation.key == "b"));
}

#[test]
fn a_transaction_is_unknown_for_every_key_it_touches() {
    let mut both = operation((1, 2), "a", |key| MicroOp::Write { key, value: 1 });
    both.micro_ops.push(MicroOp::Write { key: "b".to_owned(), value: 1 });
    let report = check_operations(&[both], Budget::default());
    assert!(matches!(report.verdict, Verdict::Unknown { .. }));
    assert_eq!(report.counts.keys, 2);
}

#[test]
fn an_empty_history_is_linearizable() {
    let report = check(&History::default());
    assert_eq!(report, Report { verdict: Verdict::Linearizable, counts: Counts::default() });
}

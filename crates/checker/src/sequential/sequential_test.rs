//! The judges against the definition, and against a store that cannot be wrong.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::definition::{some_order_exists, some_order_has_the_versions};
use super::litmus::{ALL, Litmus, Outcomes, Step};
use super::*;
use crate::Recorder;
use crate::history::{Extras, MicroOp, Outcome, Value, Version};
use crate::linearizable::register::State;
use crate::numbers::Numbers;

/// What a simulated run is like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    clients: usize,
    operations: usize,
    keys: usize,
    /// The micro-operations to draw from.
    mix: &'static [&'static str],
    /// Values are drawn from this many; `None`: each is written once.
    values: Option<usize>,
    /// How many in a hundred operations end unknown, and as many fail.
    trouble_percent: usize,
    /// How many in a hundred operations come with another client's token.
    token_percent: usize,
    /// How many in a hundred operations forget what their session has seen.
    weak_percent: usize,
    /// How many in a hundred mismatches do not show the version they found.
    silent_percent: usize,
}

const PLAIN: &[&str] = &["r", "r", "w"];
const CONDITIONAL: &[&str] = &["r", "r", "w", "cas", "pia"];
const EVERYTHING: &[&str] = &["r", "r", "r", "w", "w", "cas", "pia", "d"];

/// A log of all writes, as the database would have it.
#[derive(Default)]
struct Log(Vec<(String, State, Version)>);

impl Log {
    /// What a key held, and since which version, once the first `place` writes were applied.
    fn at(&self, key: &str, place: usize) -> (State, Option<Version>) {
        let last = self.0[..place].iter().rev().find(|(of, ..)| of == key);
        last.map_or((None, None), |(_, state, version)| (*state, Some(version.clone())))
    }

    /// Appends what an operation writes; `None`: its condition does not hold.
    fn append(&mut self, op: &MicroOp, numbers: &mut Numbers) -> Option<Version> {
        let (found, _) = self.at(op.key(), self.0.len());
        let state = match op {
            MicroOp::Write { value, .. } => Some(*value),
            MicroOp::Delete { .. } => None,
            MicroOp::CompareAndSet { from, to, .. } if *from == found => Some(*to),
            MicroOp::PutIfAbsent { value, .. } if found.is_none() => Some(*value),
            _ => return None,
        };
        // A stamp is a time and a node; entries of one time differ by the node.
        let (time, node) = self.0.last().map_or((0, 0), |(.., last)| (last.0[0], last.0[1]));
        let stamp = if numbers.percent(30) { vec![time, node + 1] } else { vec![time + 3, 1] };
        self.0.push((op.key().to_owned(), state, Version(stamp.clone())));
        Some(Version(stamp))
    }
}

struct Client {
    process: u64,
    /// How much of the log its session has seen.
    place: usize,
    open: Option<MicroOp>,
}

/// A sequentially consistent store: writes go through one log, and a read is answered from any prefix
/// of it that its session has not gone beyond. An unknown write comes later, or never. With
/// `weak_percent` it is a store that breaks the promise.
fn simulate(seed: u64, shape: Shape) -> Vec<Operation> {
    let mut numbers = Numbers(seed);
    let recorder = Recorder::new(io::sink());
    let client = || Client { process: recorder.process(), place: 0, open: None };
    let mut clients: Vec<_> = (0..shape.clients).map(|_| client()).collect();
    let (mut log, mut late) = (Log::default(), Vec::new());
    let (mut invoked, mut time, mut fresh) = (0, 0, 0);
    while invoked < shape.operations || clients.iter().any(|client| client.open.is_some()) {
        time += 1;
        if !late.is_empty() && numbers.percent(15) {
            let op: MicroOp = late.swap_remove(numbers.below(late.len()));
            log.append(&op, &mut numbers);
        }
        let chosen = numbers.below(shape.clients);
        let other = &clients[numbers.below(shape.clients)];
        let (token, place) = (other.process, other.place);
        let client = &mut clients[chosen];
        let process = client.process;
        let Some(op) = client.open.take() else {
            if invoked < shape.operations {
                invoked += 1;
                let mut extras = Extras::default();
                if numbers.percent(shape.token_percent) && token != process {
                    extras.token_from = Some(token);
                    client.place = client.place.max(place);
                }
                let op = draw(&mut numbers, shape, &log, &mut fresh);
                recorder.invoke(process, time, vec![op.clone()], extras).unwrap();
                client.open = Some(op);
            }
            continue;
        };
        let read = matches!(op, MicroOp::Read { .. });
        if numbers.percent(shape.trouble_percent) {
            if numbers.percent(50) {
                recorder.fail(process, time, Extras::default()).unwrap();
                continue;
            }
            if !read && numbers.percent(50) {
                log.append(&op, &mut numbers);
            } else if !read {
                late.push(op);
            }
            client.process = recorder.info(process, time, Extras::default()).unwrap();
            // Its token is lost with it.
            client.place = 0;
            continue;
        }
        if let MicroOp::Read { key, .. } = op {
            if numbers.percent(shape.weak_percent) {
                client.place = 0;
            }
            client.place += numbers.below(log.0.len() - client.place + 1);
            let (state, version) = log.at(&key, client.place);
            // The version of a delete is shown at times, as a database might.
            let version = version.filter(|_| state.is_some() || numbers.percent(20));
            let value = state.map_or(Value::Absent, Value::Integer);
            let extras = Extras { version, ..Extras::default() };
            recorder.ok(process, time, vec![MicroOp::Read { key, value }], extras).unwrap();
            continue;
        }
        let (_, found) = log.at(op.key(), log.0.len());
        let version = log.append(&op, &mut numbers);
        client.place = log.0.len();
        if version.is_some() {
            let extras = Extras { version, ..Extras::default() };
            recorder.ok(process, time, vec![op], extras).unwrap();
        } else {
            let version = found.filter(|_| !numbers.percent(shape.silent_percent));
            let extras = Extras { version, ..Extras::default() };
            recorder.mismatch(process, time, extras).unwrap();
        }
    }
    recorder.history().operations()
}

fn draw(numbers: &mut Numbers, shape: Shape, log: &Log, fresh: &mut i64) -> MicroOp {
    let key = format!("k{}", numbers.below(shape.keys));
    let mut value = || match shape.values {
        Some(count) => numbers.below(count) as i64 + 1,
        None => {
            *fresh += 1;
            *fresh
        }
    };
    let value = value();
    match shape.mix[numbers.below(shape.mix.len())] {
        "r" => MicroOp::Read { key, value: Value::Absent },
        "w" => MicroOp::Write { key, value },
        "pia" => MicroOp::PutIfAbsent { key, value },
        "d" => MicroOp::Delete { key },
        _ => {
            let place = log.0.len() - numbers.below(2).min(log.0.len());
            let from = log.at(&key, place).0;
            MicroOp::CompareAndSet { key, from, to: value }
        }
    }
}

/// Changes what some operation saw, where it stands or what became of it.
fn corrupt(operations: &mut [Operation], numbers: &mut Numbers) {
    let other = operations[numbers.below(operations.len())].clone();
    let at = numbers.below(operations.len());
    let process = operations[at].process;
    let is_last = !operations[at + 1..].iter().any(|later| later.process == process);
    let operation = &mut operations[at];
    match (numbers.below(6), &mut operation.micro_ops[0], operation.outcome) {
        (0 | 1, MicroOp::Read { key, value }, Outcome::Ok) => {
            *value = match &other.micro_ops[0] {
                MicroOp::Read { value, .. } => value.clone(),
                MicroOp::Write { value, .. }
                | MicroOp::PutIfAbsent { value, .. }
                | MicroOp::CompareAndSet { to: value, .. } => Value::Integer(*value),
                _ => Value::Absent,
            };
            let absent = *value == Value::Absent;
            if other.micro_ops[0].key() == key && numbers.percent(90) {
                operation.extras.version = other.extras.version.filter(|_| !absent);
            }
        }
        (2, MicroOp::Read { value, .. }, Outcome::Ok) => {
            *value = Value::Absent;
            operation.extras.version = None;
        }
        (3, _, _) => operation.extras.version = other.extras.version,
        (4, _, Outcome::Ok) if is_last => {
            operation.outcome = Outcome::Info;
            operation.return_line = None;
            operation.extras.version = None;
        }
        (4, MicroOp::CompareAndSet { .. }, Outcome::Ok) => operation.outcome = Outcome::Mismatch,
        (4, _, Outcome::Mismatch) => operation.outcome = Outcome::Ok,
        (_, _, Outcome::Ok) if numbers.percent(40) => operation.outcome = Outcome::Fail,
        _ => operation.extras.token_from = Some(other.process),
    }
}

#[derive(Default, Debug)]
struct Tally {
    legal: Cell<usize>,
    illegal: Cell<usize>,
    /// Judged by versions, and found to have an order, or none.
    ordered: Cell<usize>,
    disordered: Cell<usize>,
    unclear: Cell<usize>,
}

fn count(cell: &Cell<usize>) {
    cell.set(cell.get() + 1);
}

fn agree(operations: &[Operation], tally: &Tally) -> Result<(), TestCaseError> {
    let expected = some_order_exists(operations);
    count(if expected { &tally.legal } else { &tally.illegal });
    let program = Program::new(operations).unwrap();
    let found = search::judge(&program, Budget::default());
    prop_assert_eq!(matches!(found, search::Found::Order), expected, "search: {:?}", found);
    let values = check_values(operations, Budget::default()).verdict;
    prop_assert_eq!(values == Verdict::Sequential, expected, "{:?}", values);

    if !ordered::is_possible(&program) {
        return Ok(());
    }
    let with_versions = some_order_has_the_versions(operations);
    let found = ordered::judge(&program);
    match &found {
        ordered::Found::Order => {
            count(&tally.ordered);
            prop_assert!(with_versions && expected, "ordered found an order that is none");
        }
        ordered::Found::Violation(violation) => {
            count(&tally.disordered);
            prop_assert!(!with_versions, "ordered: {}", violation);
            prop_assert!(!violation.operations.is_empty());
        }
        ordered::Found::Unclear => {
            count(&tally.unclear);
            let unknown = operations.iter().any(|op| op.outcome.is_unknown());
            prop_assert!(unknown, "only unknown operations leave anything open");
        }
    }
    Ok(())
}

/// Runs all judges on small histories, right and wrong, and compares each with the definition.
fn judges_agree(mix: &'static [&'static str], values: Option<usize>) {
    let tally = Tally::default();
    let config = Config { cases: 10_000, failure_persistence: None, ..Config::default() };
    let strategy = (any::<u64>(), 2..4usize, 2..4usize, 4..8usize, 0..5usize);
    let outcome =
        TestRunner::new(config).run(&strategy, |(seed, clients, keys, count, corruptions)| {
            let weak_percent = if seed % 3 == 0 { 0 } else { 50 };
            let shape = Shape {
                clients,
                operations: count,
                keys,
                mix,
                values,
                trouble_percent: 15,
                token_percent: 20,
                weak_percent,
                silent_percent: 50,
            };
            let mut operations = simulate(seed, shape);
            if weak_percent == 0 {
                prop_assert!(some_order_has_the_versions(&operations), "the store is right");
            }
            let mut numbers = Numbers(!seed);
            for _ in 0..corruptions {
                corrupt(&mut operations, &mut numbers);
            }
            agree(&operations, &tally)
        });
    outcome.unwrap();
    // A comparison that saw one kind only would prove little.
    let Tally { legal, illegal, ordered, disordered, unclear } = &tally;
    assert!(legal.get() > 1_000 && illegal.get() > 500, "{tally:?}");
    assert!(ordered.get() > 1_000 && disordered.get() > 1_000, "{tally:?}");
    assert!(unclear.get() < 300, "{tally:?}");
}

#[test]
fn judges_agree_with_the_definition_on_reads_and_writes_of_values_written_once() {
    judges_agree(PLAIN, None);
}

#[test]
fn judges_agree_with_the_definition_on_reads_and_writes_of_few_values() {
    judges_agree(PLAIN, Some(2));
}

#[test]
fn judges_agree_with_the_definition_on_every_operation_of_values_written_once() {
    judges_agree(EVERYTHING, None);
}

#[test]
fn judges_agree_with_the_definition_on_every_operation_of_few_values() {
    judges_agree(EVERYTHING, Some(3));
}

/// The outcomes of all interleavings of a program.
fn interleavings(litmus: &Litmus) -> Vec<Outcomes> {
    type Memory = BTreeMap<&'static str, i64>;
    fn run(
        litmus: &Litmus,
        next: &[usize],
        memory: &Memory,
        seen: &Outcomes,
        all: &mut Vec<Outcomes>,
    ) {
        let mut ended = true;
        for (session, steps) in litmus.sessions.iter().enumerate() {
            let Some(step) = steps.get(next[session]) else { continue };
            ended = false;
            let (mut next, mut memory, mut seen) = (next.to_vec(), memory.clone(), seen.clone());
            next[session] += 1;
            match *step {
                Step::Write(key, value) => drop(memory.insert(key, value)),
                Step::Read(key) => seen[session].push(memory.get(key).copied()),
            }
            run(litmus, &next, &memory, &seen, all);
        }
        if ended {
            all.push(seen.clone());
        }
    }
    let count = litmus.sessions.len();
    let mut all = Vec::new();
    run(litmus, &vec![0; count], &Memory::new(), &vec![Vec::new(); count], &mut all);
    all
}

#[test]
fn every_outcome_of_every_litmus_program_is_judged_as_its_interleavings_say() {
    for litmus in ALL {
        let possible = interleavings(litmus);
        let outcomes = litmus.outcomes();
        let mut forbidden = Vec::new();
        for outcome in &outcomes {
            let operations = litmus.operations(outcome).unwrap();
            let expected = possible.contains(outcome);
            assert_eq!(some_order_exists(&operations), expected, "{}: {outcome:?}", litmus.name);
            let report = litmus.judge(outcome).unwrap();
            assert_eq!(
                report.verdict == Verdict::Sequential,
                expected,
                "{}: {report}",
                litmus.name
            );
            if !expected {
                forbidden.push(outcome.clone());
            }
        }
        assert!(possible.iter().all(|outcome| outcomes.contains(outcome)));
        assert!(!litmus.forbidden.is_empty(), "{}", litmus.name);
        for listed in litmus.forbidden {
            let listed: Outcomes = listed.iter().map(|seen| seen.to_vec()).collect();
            assert!(forbidden.contains(&listed), "{}: {listed:?} is allowed", litmus.name);
        }
    }
}

#[test]
fn an_outcome_of_another_program_is_not_judged() {
    assert_eq!(ALL[0].judge(&[vec![None]]), None);
    assert_eq!(ALL[0].judge(&[vec![None], vec![]]), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_long_run_of_a_sequential_store_fits_by_versions(seed: u64) {
        // Unknown deletes, and unknown cas that only a cas found, leave it to the search.
        let shapes = [
            (PLAIN, None, 4),
            (CONDITIONAL, Some(20), 0),
            (EVERYTHING, None, 0),
            (EVERYTHING, Some(20), 0),
        ];
        for (mix, values, trouble_percent) in shapes {
            let shape = Shape { mix, values, trouble_percent, ..LONG };
            let report = check_operations(&simulate(seed, shape), SMALL);
            prop_assert_eq!(&report.verdict, &Verdict::Sequential, "{:?}", shape);
            prop_assert_eq!(report.method, Some(Method::Versions), "{:?}", shape);
        }
    }

    #[test]
    fn a_long_run_of_a_store_that_forgets_sessions_is_rejected(seed: u64) {
        for (mix, values) in [(PLAIN, None), (CONDITIONAL, None), (EVERYTHING, Some(20))] {
            let shape = Shape { mix, values, weak_percent: 5, ..LONG };
            let report = check_operations(&simulate(seed, shape), SMALL);
            prop_assert!(matches!(report.verdict, Verdict::Violation(_)), "{:?}", shape);
            prop_assert_eq!(report.method, Some(Method::Versions), "{:?}", shape);
        }
    }

    #[test]
    fn a_run_without_versions_is_judged_by_search(seed: u64) {
        let shape = Shape { clients: 3, operations: 300, ..LONG };
        let mut operations = simulate(seed, shape);
        for operation in &mut operations {
            operation.extras.version = None;
        }
        let report = check_operations(&operations, SMALL);
        prop_assert_eq!(report.method, Some(Method::Search));
        prop_assert_eq!(report.verdict, Verdict::Sequential);
    }
}

/// A judge that needs more is not the one that is tested.
const SMALL: Budget = Budget { configurations: 20_000 };

const LONG: Shape = Shape {
    clients: 8,
    operations: 3_000,
    keys: 12,
    mix: PLAIN,
    values: None,
    trouble_percent: 0,
    token_percent: 5,
    weak_percent: 0,
    silent_percent: 0,
};

#[test]
fn a_hundred_thousand_operations_are_judged_by_versions() {
    let shape = Shape { operations: 100_000, clients: 20, keys: 50, trouble_percent: 1, ..LONG };
    let report = check_operations(&simulate(1, shape), SMALL);
    assert_eq!(report.verdict, Verdict::Sequential);
    assert_eq!(report.method, Some(Method::Versions));
    assert!(report.counts.ok > 95_000 && report.counts.unknown > 300, "{}", report.counts);
}

#[test]
fn an_unknown_write_may_be_found_by_a_cas_alone_and_by_one_only() {
    let on = |line: usize, version: Option<u64>, micro_op: MicroOp| {
        let mut operation = operation(line, None, &[micro_op]);
        operation.extras.version = version.map(Version::from);
        operation
    };
    let key = || "x".to_owned();
    let cas = |to| MicroOp::CompareAndSet { key: key(), from: Some(5), to };
    let mut unknown = on(3, None, MicroOp::Write { key: key(), value: 5 });
    (unknown.outcome, unknown.return_line) = (Outcome::Info, None);
    let first = on(1, Some(10), MicroOp::Write { key: key(), value: 1 });
    let mut operations = vec![first, unknown, on(5, Some(20), cas(6))];
    let report = check_operations(&operations, Budget::default());
    assert_eq!(report.method, Some(Method::Versions));
    assert_eq!(report.verdict, Verdict::Sequential);
    operations.push(on(7, Some(30), cas(7)));
    let report = check_operations(&operations, Budget::default());
    assert!(matches!(report.verdict, Verdict::Violation(_)), "{report}");
    // Its process had been further than the cas.
    let mut past = on(2, Some(40), MicroOp::Write { key: "y".to_owned(), value: 1 });
    past.process = operations[1].process;
    (past.invoke_line, past.return_line) = (1, Some(2));
    operations.truncate(3);
    operations.insert(0, past);
    operations[1].invoke_line = 2;
    let report = check_operations(&operations, Budget::default());
    assert_eq!(report.method, Some(Method::Search), "what the versions leave open is searched");
    assert!(!some_order_has_the_versions(&operations));
}

#[test]
fn a_search_without_budget_says_that_it_does_not_know() {
    let operations = simulate(1, Shape { operations: 60, ..LONG });
    let report = check_values(&operations, Budget { configurations: 5 });
    assert_eq!(report.verdict, Verdict::Unknown(Doubt::OutOfBudget));
    assert_eq!(report.method, Some(Method::Search));
}

/// An operation that is alone in its session.
fn operation(line: usize, level: Option<&str>, micro_ops: &[MicroOp]) -> Operation {
    Operation {
        process: line as u64,
        invoke_line: line,
        return_line: Some(line + 1),
        micro_ops: micro_ops.to_vec(),
        outcome: Outcome::Ok,
        extras: Extras { level: level.map(str::to_owned), ..Extras::default() },
    }
}

#[test]
fn what_no_order_of_registers_holds_is_unknown() {
    let write = |key: &str| MicroOp::Write { key: key.to_owned(), value: 1 };
    let verdict = |operation: Operation| check_operations(&[operation], Budget::default());
    let both = verdict(operation(3, None, &[write("x"), write("y")]));
    let doubt = Doubt::NotARegister { line: 3, text: "x: write 1, y: write 1".to_owned() };
    assert_eq!(both.verdict, Verdict::Unknown(doubt));
    assert_eq!(both.method, None);
    let append = MicroOp::Append { key: "x".to_owned(), value: 1 };
    let append = verdict(operation(1, None, &[append]));
    assert!(matches!(append.verdict, Verdict::Unknown(Doubt::NotARegister { line: 1, .. })));
    for level in ["causal", "eventual", "Strict"] {
        let local = verdict(operation(1, Some(level), &[write("x")]));
        let doubt = Doubt::Level { line: 1, level: level.to_owned() };
        assert_eq!(local.verdict, Verdict::Unknown(doubt));
    }
    for level in ["strict", "sequential"] {
        let logged = verdict(operation(1, Some(level), &[write("x")]));
        assert_eq!(logged.verdict, Verdict::Sequential);
    }
}

#[test]
fn an_empty_history_is_sequentially_consistent() {
    assert_eq!(check(&History::default()).verdict, Verdict::Sequential);
}

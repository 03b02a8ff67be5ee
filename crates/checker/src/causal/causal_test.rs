//! The judge against the definition, and against a store that cannot be wrong.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::definition::some_order_exists;
use super::*;
use crate::Level;
use crate::history::{Extras, MicroOp, Outcome, Value, Version};
use crate::numbers::Numbers;
use crate::replicas::{CAUSAL, MIXED, Shape, simulate};
use crate::sequential::litmus;

const PLAIN: &[&str] = &["r", "r", "w"];
const CONDITIONAL: &[&str] = &["r", "r", "w", "cas", "pia"];
const DELETES: &[&str] = &["r", "r", "w", "d"];
const EVERYTHING: &[&str] = &["r", "r", "r", "w", "w", "cas", "pia", "d", "d"];

const LONG: Shape = Shape {
    clients: 12,
    operations: 3_000,
    keys: 6,
    replicas: 3,
    mix: PLAIN,
    levels: MIXED,
    trouble_percent: 2,
    token_percent: 5,
    weak_percent: 0,
    version_percent: 0,
    final_reads: true,
};

/// Changes what some operation saw, where it stands or what became of it.
fn corrupt(operations: &mut [Operation], numbers: &mut Numbers) {
    let other = operations[numbers.below(operations.len())].clone();
    let at = numbers.below(operations.len());
    let process = operations[at].process;
    let is_last = !operations[at + 1..].iter().any(|later| later.process == process);
    let operation = &mut operations[at];
    match (numbers.below(8), &mut operation.micro_ops[0], operation.outcome) {
        (0..=2, MicroOp::Read { value, .. }, Outcome::Ok) => {
            *value = match &other.micro_ops[0] {
                MicroOp::Read { value, .. } => value.clone(),
                MicroOp::Write { value, .. }
                | MicroOp::PutIfAbsent { value, .. }
                | MicroOp::CompareAndSet { to: value, .. } => Value::Integer(*value),
                _ => Value::Absent,
            };
        }
        (3, MicroOp::Read { value, .. }, Outcome::Ok) => *value = Value::Absent,
        (3, _, _) => operation.extras.version = other.extras.version,
        (4, _, Outcome::Ok) if is_last => {
            operation.outcome = Outcome::Info;
            operation.return_line = None;
        }
        (4, MicroOp::CompareAndSet { .. }, Outcome::Ok) => operation.outcome = Outcome::Mismatch,
        (5, _, _) => operation.extras.level = other.extras.level,
        (6, _, Outcome::Ok) if numbers.percent(20) => operation.outcome = Outcome::Fail,
        _ => operation.extras.token_from = Some(other.process),
    }
}

#[derive(Default, Debug)]
struct Tally {
    legal: Cell<usize>,
    /// By pattern.
    illegal: RefCell<BTreeMap<Pattern, usize>>,
    /// With absent keys that a delete may explain.
    open: Cell<usize>,
}

fn agree(operations: &[Operation], tally: &Tally) -> Result<(), TestCaseError> {
    let expected = some_order_exists(operations);
    let program = Program::new(operations).unwrap();
    if program.line_open().is_some() {
        tally.open.set(tally.open.get() + 1);
    }
    let report = check_operations(operations, Budget::default());
    match &report.verdict {
        Verdict::Causal => {
            tally.legal.set(tally.legal.get() + 1);
            prop_assert!(expected, "there is no order: {operations:#?}");
        }
        Verdict::Violation(pattern, violation) => {
            *tally.illegal.borrow_mut().entry(*pattern).or_default() += 1;
            prop_assert!(!expected, "{violation}\n{operations:#?}");
            prop_assert!(!violation.operations.is_empty() && !violation.why.is_empty());
        }
        Verdict::Unknown(doubt) => prop_assert!(false, "{doubt}"),
    }
    Ok(())
}

/// Runs the judge on small histories, right and wrong, and compares it with the definition.
fn judge_agrees(mix: &'static [&'static str], levels: &'static [Level]) -> Tally {
    let tally = Tally::default();
    let config = Config {
        cases: 5_000,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    };
    let strategy = (any::<u64>(), 2..5usize, 1..4usize, 5..10usize, 0..4usize);
    let outcome =
        TestRunner::new(config).run(&strategy, |(seed, clients, keys, operations, corruptions)| {
            let weak_percent = if seed % 3 == 0 { 0 } else { 60 };
            let shape = Shape {
                clients,
                operations,
                keys,
                mix,
                levels,
                replicas: 2,
                trouble_percent: 15,
                token_percent: 20,
                weak_percent,
                version_percent: 30,
                final_reads: false,
            };
            let mut operations = simulate(seed, shape);
            if weak_percent == 0 {
                prop_assert!(some_order_exists(&operations), "the store is right: {operations:#?}");
            }
            let mut numbers = Numbers(!seed);
            for _ in 0..corruptions {
                corrupt(&mut operations, &mut numbers);
            }
            agree(&operations, &tally)
        });
    outcome.unwrap();
    // A comparison that saw one kind only would prove little.
    let illegal = tally.illegal.borrow();
    let count = |pattern| illegal.get(&pattern).copied().unwrap_or_default();
    assert!(tally.legal.get() > 1_000, "{tally:?}");
    for (pattern, least) in [
        (Pattern::ThinAirRead, 50),
        (Pattern::CyclicCO, 10),
        (Pattern::WriteCOInitRead, 50),
        (Pattern::WriteCORead, 10),
        (Pattern::CyclicCF, 2),
    ] {
        assert!(count(pattern) >= least, "{pattern}: {tally:?}");
    }
    drop(illegal);
    tally
}

#[test]
fn the_judge_agrees_with_the_definition_on_causal_reads_and_writes() {
    judge_agrees(PLAIN, CAUSAL);
}

#[test]
fn the_judge_agrees_with_the_definition_on_reads_and_writes_of_all_levels() {
    judge_agrees(PLAIN, MIXED);
}

#[test]
fn the_judge_agrees_with_the_definition_on_every_causal_operation() {
    let tally = judge_agrees(EVERYTHING, CAUSAL);
    assert!(tally.open.get() > 1_000, "{tally:?}");
}

#[test]
fn the_judge_agrees_with_the_definition_on_every_operation_of_all_levels() {
    let tally = judge_agrees(EVERYTHING, MIXED);
    assert!(tally.open.get() > 1_000, "{tally:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_long_run_of_a_causal_store_fits(seed: u64) {
        for (mix, levels) in [(PLAIN, CAUSAL), (PLAIN, MIXED), (CONDITIONAL, CAUSAL), (CONDITIONAL, MIXED)] {
            let shape = Shape { mix, levels, ..LONG };
            let report = check_operations(&simulate(seed, shape), Budget::default());
            prop_assert_eq!(&report.verdict, &Verdict::Causal, "{:?}", shape);
        }
        // Versions tell deletes apart; but that of an unknown one nobody knows, nor that which a
        // conditional write found.
        for levels in [CAUSAL, MIXED] {
            let shape = Shape { mix: DELETES, levels, version_percent: 100, trouble_percent: 0, ..LONG };
            let report = check_operations(&simulate(seed, shape), Budget::default());
            prop_assert_eq!(&report.verdict, &Verdict::Causal, "{:?}", shape);
        }
    }

    #[test]
    fn a_long_run_of_a_store_that_forgets_is_rejected(seed: u64) {
        for (mix, levels) in [(PLAIN, CAUSAL), (PLAIN, MIXED), (DELETES, CAUSAL), (CONDITIONAL, MIXED)] {
            let shape = Shape { mix, levels, weak_percent: 25, version_percent: 100, ..LONG };
            let report = check_operations(&simulate(seed, shape), Budget::default());
            let rejected = matches!(report.verdict, Verdict::Violation(..));
            prop_assert!(rejected, "{:?}: {}", shape, report.verdict);
        }
    }
}

fn key() -> String {
    "x".to_owned()
}

/// An operation of a session, on lines of its own.
fn at(line: usize, process: u64, micro_op: MicroOp) -> Operation {
    Operation {
        process,
        invoke_line: line,
        return_line: Some(line + 1),
        micro_ops: vec![micro_op],
        outcome: Outcome::Ok,
        extras: Extras::default(),
    }
}

fn write(key: &str, value: i64) -> MicroOp {
    MicroOp::Write { key: key.to_owned(), value }
}

fn read(key: &str, value: Option<i64>) -> MicroOp {
    let value = value.map_or(Value::Absent, Value::Integer);
    MicroOp::Read { key: key.to_owned(), value }
}

fn delete(key: &str) -> MicroOp {
    MicroOp::Delete { key: key.to_owned() }
}

/// Gives each operation, in the order of their invocations, its level.
fn with_levels(mut operations: Vec<Operation>, levels: &[Level]) -> Vec<Operation> {
    for (operation, level) in operations.iter_mut().zip(levels) {
        operation.extras.level = Some(level.to_string());
    }
    operations
}

/// One operation after the other: process, what it does.
fn run(steps: &[(u64, MicroOp)]) -> Vec<Operation> {
    let steps = steps.iter().enumerate();
    steps.map(|(index, (process, op))| at(2 * index + 1, *process, op.clone())).collect()
}

fn verdict(operations: &[Operation]) -> Verdict {
    let verdict = check_operations(operations, Budget::default()).verdict;
    assert_eq!(verdict == Verdict::Causal, some_order_exists(operations), "{verdict}");
    verdict
}

fn pattern(operations: &[Operation]) -> Option<Pattern> {
    match verdict(operations) {
        Verdict::Causal => None,
        Verdict::Violation(pattern, _) => Some(pattern),
        Verdict::Unknown(doubt) => panic!("{doubt}"),
    }
}

#[test]
fn the_litmus_programs_tell_causal_from_sequential() {
    let forbidden = |name: &str, outcome: &litmus::Outcomes| {
        let litmus = litmus::ALL.iter().find(|litmus| litmus.name.starts_with(name)).unwrap();
        pattern(&litmus.operations(outcome).unwrap())
    };
    let none = Vec::<Option<i64>>::new;
    // What sequential consistency forbids and this allows.
    assert_eq!(forbidden("SB", &vec![vec![None], vec![None]]), None);
    let long_fork = vec![none(), none(), vec![Some(1), None], vec![Some(1), None]];
    assert_eq!(forbidden("IRIW", &long_fork), None);
    // What both forbid.
    let message = vec![none(), vec![Some(1), None]];
    assert_eq!(forbidden("MP", &message), Some(Pattern::WriteCOInitRead));
    assert_eq!(forbidden("CoRR (", &message), Some(Pattern::WriteCOInitRead));
    let load = vec![vec![Some(1)], vec![Some(1)]];
    assert_eq!(forbidden("LB", &load), Some(Pattern::CyclicCO));
    let causes = vec![none(), vec![Some(1)], vec![Some(1), None]];
    assert_eq!(forbidden("WRC", &causes), Some(Pattern::WriteCOInitRead));
    // Convergence: two observers agree on which of two writes wins.
    let opposite = vec![none(), none(), vec![Some(1), Some(2)], vec![Some(2), Some(1)]];
    assert_eq!(forbidden("CoRR2", &opposite), Some(Pattern::CyclicCF));
    let crossed = vec![vec![Some(2)], vec![Some(1)]];
    assert_eq!(forbidden("CoWR", &crossed), Some(Pattern::CyclicCF));
}

#[test]
fn a_verdict_says_how_the_cause_came_to_be_known() {
    let steps = [
        (0, write("x", 1)),
        (0, write("x", 2)),
        (1, read("x", Some(2))),
        (1, write("y", 1)),
        (2, read("y", Some(1))),
        (2, read("x", Some(1))),
    ];
    let Verdict::Violation(pattern, violation) = verdict(&run(&steps)) else {
        panic!("it is wrong")
    };
    assert_eq!(pattern, Pattern::WriteCORead);
    assert_eq!(
        violation.to_string(),
        "key x: a value that the past had replaced
  lines 1-2, process 0: x: write 1
  lines 3-4, process 0: x: write 2
  lines 5-6, process 1: x: read 2
  lines 7-8, process 1: y: write 1
  lines 9-10, process 2: y: read 1
  lines 11-12, process 2: x: read 1
  line 12 found x = 1 of line 2, though x = 2 of line 4 had replaced it in its past: line 2 comes before \
         line 4 in process 0; line 6 found x = 2 of line 4; line 6 comes before line 8 in process 1; line 10 \
         found y = 1 of line 8; line 10 comes before line 12 in process 2"
    );
}

#[test]
fn a_token_carries_what_had_completed_when_it_was_taken_over_and_no_more() {
    let mut steps = run(&[(0, write("x", 1)), (1, read("x", None)), (0, write("y", 1))]);
    assert_eq!(pattern(&steps), None);
    steps[1].extras.token_from = Some(0);
    assert_eq!(pattern(&steps), Some(Pattern::WriteCOInitRead));
    // The write had not returned.
    steps[0].return_line = Some(4);
    steps[1].return_line = Some(5);
    steps[2].invoke_line = 6;
    assert_eq!(pattern(&steps), None);
}

#[test]
fn an_eventual_write_is_in_its_own_session_s_past_and_carries_none() {
    use Level::{Causal, Eventual};
    let carries =
        [(0, write("x", 1)), (0, write("y", 1)), (1, read("y", Some(1))), (1, read("x", None))];
    let carried = with_levels(run(&carries), &[Causal, Causal, Causal, Causal]);
    assert_eq!(pattern(&carried), Some(Pattern::WriteCOInitRead));
    let eventual = with_levels(run(&carries), &[Causal, Eventual, Causal, Causal]);
    assert_eq!(pattern(&eventual), None);
    // The session itself has both in its past.
    for key in ["x", "y"] {
        let own = [(0, write("x", 1)), (0, write("y", 1)), (0, read(key, None))];
        let own = with_levels(run(&own), &[Causal, Eventual, Causal]);
        assert_eq!(pattern(&own), Some(Pattern::WriteCOInitRead), "{key}");
    }
    // It replaces what its session wrote before.
    let own = [(0, write("x", 1)), (0, write("x", 2)), (0, read("x", Some(1)))];
    let own = with_levels(run(&own), &[Causal, Eventual, Causal]);
    assert_eq!(pattern(&own), Some(Pattern::CyclicCF));
    // What follows it has it in its past.
    let follows =
        [(0, write("x", 1)), (0, write("y", 1)), (1, read("y", Some(1))), (1, read("x", None))];
    let follows = with_levels(run(&follows), &[Eventual, Causal, Causal, Causal]);
    assert_eq!(pattern(&follows), Some(Pattern::WriteCOInitRead));
}

#[test]
fn an_eventual_read_promises_nothing_but_no_thin_air() {
    use Level::{Causal, Eventual};
    let steps =
        [(0, write("x", 1)), (0, read("x", None)), (1, read("x", Some(1))), (1, read("x", None))];
    let steps = with_levels(run(&steps), &[Causal, Eventual, Eventual, Causal]);
    assert_eq!(pattern(&steps), None);
    let thin = with_levels(run(&[(0, read("x", Some(9)))]), &[Eventual]);
    assert_eq!(pattern(&thin), Some(Pattern::ThinAirRead));
}

#[test]
fn a_strict_read_need_not_show_a_local_write_that_its_session_only_saw() {
    use Level::{Causal, Strict};
    let steps = [(0, write("x", 1)), (1, read("x", Some(1))), (1, read("x", None))];
    assert_eq!(pattern(&with_levels(run(&steps), &[Causal, Causal, Strict])), None);
    let levels = [Strict, Causal, Strict];
    assert_eq!(pattern(&with_levels(run(&steps), &levels)), Some(Pattern::WriteCOInitRead));
    let levels = [Causal, Causal, Causal];
    assert_eq!(pattern(&with_levels(run(&steps), &levels)), Some(Pattern::WriteCOInitRead));
    // Its own it shows, and those that came with a token.
    let own = [(0, write("x", 1)), (0, read("x", None))];
    let own = with_levels(run(&own), &[Causal, Strict]);
    assert_eq!(pattern(&own), Some(Pattern::WriteCOInitRead));
    let mut handed =
        with_levels(run(&[(0, write("x", 1)), (1, read("x", None))]), &[Causal, Strict]);
    assert_eq!(pattern(&handed), None);
    handed[1].extras.token_from = Some(0);
    assert_eq!(pattern(&handed), Some(Pattern::WriteCOInitRead));
}

#[test]
fn a_failed_write_is_never_seen_and_an_unknown_one_brings_its_past() {
    let mut steps = run(&[
        (0, write("x", 1)),
        (0, write("y", 1)),
        (1, read("y", Some(1))),
        (1, read("x", None)),
    ]);
    steps[1].outcome = Outcome::Fail;
    assert_eq!(pattern(&steps), Some(Pattern::ThinAirRead));
    (steps[1].outcome, steps[1].return_line) = (Outcome::Info, None);
    assert_eq!(pattern(&steps), Some(Pattern::WriteCOInitRead));
    steps[3].micro_ops[0] = read("x", Some(1));
    assert_eq!(pattern(&steps), None);
    // Nobody saw it: it may never have happened.
    let mut unseen = run(&[(0, write("x", 1)), (1, read("x", None))]);
    (unseen[0].outcome, unseen[0].return_line) = (Outcome::Info, None);
    assert_eq!(pattern(&unseen), None);
}

#[test]
fn an_unknown_cas_that_was_seen_found_what_it_asked_for() {
    let cas = MicroOp::CompareAndSet { key: key(), from: Some(1), to: 2 };
    let mut steps =
        run(&[(0, write("x", 1)), (1, cas), (2, read("x", Some(2))), (2, read("x", Some(1)))]);
    (steps[1].outcome, steps[1].return_line) = (Outcome::Info, None);
    assert_eq!(pattern(&steps), Some(Pattern::WriteCORead));
    steps[0].outcome = Outcome::Fail;
    steps.pop();
    assert_eq!(pattern(&steps), Some(Pattern::ThinAirRead));
}

#[test]
fn absence_is_explained_by_any_delete_that_can_be_or_by_the_one_of_its_version() {
    let steps = [
        (0, write("x", 1)),
        (0, delete("x")),
        (0, write("x", 2)),
        (1, delete("x")),
        (2, read("x", Some(2))),
        (2, read("x", None)),
    ];
    let mut steps = run(&steps);
    assert_eq!(pattern(&steps), None, "the delete of process 1 came later");
    steps[1].extras.version = Some(Version::from(7));
    steps[5].extras.version = Some(Version::from(7));
    assert_eq!(pattern(&steps), Some(Pattern::WriteCORead), "it was the older delete");
    steps[5].extras.version = None;
    steps.remove(3);
    assert_eq!(pattern(&steps), Some(Pattern::WriteCOInitRead), "no delete came later");
    let report = check_operations(&steps, Budget::default()).verdict.to_string();
    assert!(report.contains("every delete of it that could have been seen is older"), "{report}");
}

#[test]
fn what_cannot_be_judged_is_unknown_and_says_why() {
    let doubt =
        |operations: &[Operation]| match check_operations(operations, Budget::default()).verdict {
            Verdict::Unknown(doubt) => doubt.to_string(),
            other => panic!("{other}"),
        };
    let twice = run(&[(0, write("x", 1)), (1, write("x", 1))]);
    assert_eq!(
        doubt(&twice),
        "key x: lines 1 and 3 left the same value, and nobody knows which was seen"
    );
    let append = run(&[(0, MicroOp::Append { key: key(), value: 1 })]);
    assert_eq!(doubt(&append), "line 1: `x: append 1` is no single operation of a register");
    let mut level = run(&[(0, write("x", 1))]);
    level[0].extras.level = Some("linear".to_owned());
    assert_eq!(doubt(&level), "line 1: there is no level linear");
    // Many deletes, and too little time to find out which one was seen.
    let shape = Shape { mix: EVERYTHING, levels: CAUSAL, weak_percent: 1, ..LONG };
    let unclear = (0..200).any(|seed| {
        let shape = Shape { operations: 40, keys: 1, clients: 6, ..shape };
        let report = check_operations(&simulate(seed, shape), Budget { operations: 0 });
        matches!(report.verdict, Verdict::Unknown(Doubt::Absent { .. }))
    });
    assert!(unclear);
}

#[test]
fn an_empty_history_is_causal() {
    assert_eq!(check(&History::default()).verdict, Verdict::Causal);
}

/// How often a right run with deletes is left open.
#[test]
#[ignore = "measures, and says nothing of right and wrong"]
fn runs_with_deletes_are_measured() {
    for (version_percent, trouble_percent) in [(100, 0), (100, 2), (0, 0), (0, 2)] {
        for (operations, keys) in [(300, 6), (1_000, 20), (3_000, 60)] {
            for levels in [CAUSAL, MIXED] {
                let shape = Shape {
                    mix: EVERYTHING,
                    levels,
                    operations,
                    keys,
                    version_percent,
                    trouble_percent,
                    ..LONG
                };
                let judged = |seed| check_operations(&simulate(seed, shape), Budget::default());
                let decided =
                    (0..30).filter(|&seed| judged(seed).verdict == Verdict::Causal).count();
                println!(
                    "{operations} operations, versions {version_percent} %, trouble {trouble_percent} %, \
                     {} levels: {decided} of 30 decided",
                    levels.len()
                );
            }
        }
    }
}

/// `cargo test --release -p latitude-checker -- --ignored --nocapture measured`
#[test]
#[ignore = "measures, and says nothing of right and wrong"]
fn causal_is_measured() {
    for (mix, levels) in [(PLAIN, CAUSAL), (PLAIN, MIXED), (DELETES, MIXED)] {
        let version_percent = 100;
        let shape = Shape {
            operations: 100_000,
            clients: 50,
            keys: 200,
            mix,
            levels,
            version_percent,
            ..LONG
        };
        crate::measure::report(
            &format!("causal, {mix:?}, {} levels", levels.len()),
            &simulate(1, shape),
            |operations| check_operations(operations, Budget::default()).verdict.to_string(),
        );
    }
}

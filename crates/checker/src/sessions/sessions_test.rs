use super::definition::all_are_kept;
use super::*;
use crate::history::{Extras, MicroOp, Value};
use crate::numbers::Numbers;
use crate::promise::Verdict;
use crate::replicas::{CAUSAL, MIXED, Shape, simulate};

const SMALL: Shape = Shape {
    clients: 3,
    operations: 12,
    keys: 2,
    replicas: 2,
    mix: &["r", "r", "r", "w", "w", "d", "cas"],
    levels: CAUSAL,
    trouble_percent: 10,
    token_percent: 20,
    weak_percent: 0,
    version_percent: 0,
    final_reads: false,
};

#[test]
fn the_judge_agrees_with_the_definition() {
    let mut rules = BTreeMap::<&str, usize>::new();
    for (levels, version_percent) in [(CAUSAL, 0), (CAUSAL, 70), (MIXED, 0), (MIXED, 70)] {
        let (mut kept, mut broken) = (0, 0);
        for seed in 0..3_000 {
            let mut numbers = Numbers(!seed);
            let weak_percent = [0, 50, 0, 90][seed as usize % 4];
            let mut operations =
                simulate(seed, Shape { levels, version_percent, weak_percent, ..SMALL });
            if weak_percent == 0 {
                assert!(all_are_kept(&operations), "the store is right: {operations:#?}");
            }
            for _ in 0..seed % 7 {
                let other = operations[numbers.below(operations.len())].clone();
                let at = numbers.below(operations.len());
                let operation = &mut operations[at];
                match &mut operation.micro_ops[0] {
                    MicroOp::Read { value, .. } if operation.outcome == Outcome::Ok => {
                        *value = match other.micro_ops[0] {
                            MicroOp::Write { value, .. } => Value::Integer(value),
                            _ => Value::Absent,
                        };
                        operation.extras.version =
                            other.extras.version.filter(|_| numbers.percent(50));
                    }
                    _ => operation.extras.level = other.extras.level,
                }
            }
            let verdict = check_operations(&operations, Level::Causal).verdict;
            let expected = all_are_kept(&operations);
            assert_eq!(verdict == Verdict::Kept, expected, "{seed}: {verdict}\n{operations:#?}");
            if let Verdict::Violation(violation) = verdict {
                *rules.entry(violation.rule).or_default() += 1;
            }
            *(if expected { &mut kept } else { &mut broken }) += 1;
        }
        assert!(kept > 1_000 && broken > 100, "{kept} {broken}");
    }
    assert!(rules.len() == 4 && rules.values().all(|&count| count >= 3), "{rules:?}");
}

#[test]
fn a_long_run_of_a_causal_store_keeps_all_guarantees() {
    for levels in [CAUSAL, MIXED] {
        let shape =
            Shape { clients: 12, operations: 3_000, keys: 6, version_percent: 80, levels, ..SMALL };
        for seed in 0..4 {
            let verdict = check_operations(&simulate(seed, shape), Level::Causal).verdict;
            assert_eq!(verdict, Verdict::Kept);
            let forgets = Shape { weak_percent: 25, ..shape };
            let verdict = check_operations(&simulate(seed, forgets), Level::Causal).verdict;
            assert!(matches!(verdict, Verdict::Violation(_)));
        }
    }
}

fn run(steps: &[(u64, MicroOp)]) -> Vec<Operation> {
    let at = |(at, (process, op)): (usize, &(u64, MicroOp))| Operation {
        process: *process,
        invoke_line: 2 * at + 1,
        return_line: Some(2 * at + 2),
        micro_ops: vec![op.clone()],
        outcome: Outcome::Ok,
        extras: Extras::default(),
    };
    steps.iter().enumerate().map(at).collect()
}

fn write(key: &str, value: i64) -> MicroOp {
    MicroOp::Write { key: key.to_owned(), value }
}

fn read(key: &str, value: Option<i64>) -> MicroOp {
    let value = value.map_or(Value::Absent, Value::Integer);
    MicroOp::Read { key: key.to_owned(), value }
}

/// The rule that is broken, if one is.
fn rule(operations: &[Operation]) -> Option<&'static str> {
    match check_operations(operations, Level::Causal).verdict {
        Verdict::Kept => None,
        Verdict::Violation(violation) => Some(violation.rule),
        Verdict::Unknown(doubt) => panic!("{doubt}"),
    }
}

#[test]
fn each_guarantee_is_told_by_its_name() {
    let own = [(0, write("x", 1)), (0, write("x", 2)), (0, read("x", Some(1)))];
    assert_eq!(rule(&run(&own)), Some(Guarantee::ReadYourWrites.broken()));
    let absent = [(0, write("x", 1)), (0, read("x", None))];
    assert_eq!(rule(&run(&absent)), Some(Guarantee::ReadYourWrites.broken()));
    let back =
        [(0, write("x", 1)), (0, write("x", 2)), (1, read("x", Some(2))), (1, read("x", Some(1)))];
    assert_eq!(rule(&run(&back)), Some(Guarantee::MonotonicReads.broken()));
    // Message passing.
    let message =
        [(0, write("x", 1)), (0, write("y", 1)), (1, read("y", Some(1))), (1, read("x", None))];
    assert_eq!(rule(&run(&message)), Some(Guarantee::MonotonicWrites.broken()));
    // Write-to-read causality.
    let follows = [
        (0, write("x", 1)),
        (1, read("x", Some(1))),
        (1, write("y", 1)),
        (2, read("y", Some(1))),
        (2, read("x", None)),
    ];
    assert_eq!(rule(&run(&follows)), Some(Guarantee::WritesFollowReads.broken()));
    // Long fork, and two writers that each see the other's write last: no session is let down.
    let fork = [
        (0, write("x", 1)),
        (1, write("y", 1)),
        (2, read("x", Some(1))),
        (2, read("y", None)),
        (3, read("y", Some(1))),
        (3, read("x", None)),
    ];
    assert_eq!(rule(&run(&fork)), None);
    let crossed =
        [(0, write("x", 1)), (1, write("x", 2)), (0, read("x", Some(2))), (1, read("x", Some(1)))];
    assert_eq!(rule(&run(&crossed)), None);
}

#[test]
fn versions_tell_what_values_do_not() {
    let with = |steps: &[(u64, MicroOp)], versions: &[u64]| {
        let mut operations = run(steps);
        for (operation, &version) in operations.iter_mut().zip(versions) {
            operation.extras.version = (version > 0).then(|| version.into());
        }
        operations
    };
    let concurrent = [(0, write("x", 1)), (1, write("x", 2)), (1, read("x", Some(1)))];
    assert_eq!(rule(&with(&concurrent, &[2, 1, 2])), None);
    let stale = with(&concurrent, &[1, 2, 1]);
    assert_eq!(rule(&stale), Some(Guarantee::ReadYourWrites.broken()));
    let falls = with(&[(0, write("x", 1)), (0, write("x", 2))], &[5, 4]);
    assert_eq!(rule(&falls), Some(Guarantee::MonotonicWrites.broken()));
    let below = [(0, write("x", 1)), (1, read("x", Some(1))), (1, write("x", 2))];
    assert_eq!(rule(&with(&below, &[5, 5, 4])), Some(Guarantee::WritesFollowReads.broken()));
    assert_eq!(
        check_operations(&stale, Level::Causal).verdict.to_string(),
        "broken
key x: read your writes is broken
  lines 1-2, process 0: x: write 1
  lines 3-4, process 1: x: write 2
  lines 5-6, process 1: x: read 1
  line 6 found 1 at version 1, which is older than 2 at version 2 of line 4; line 4 wrote it in the same session"
    );
}

/// `cargo test --release -p latitude-checker -- --ignored --nocapture measured`
#[test]
#[ignore = "measures, and says nothing of right and wrong"]
fn sessions_are_measured() {
    for levels in [CAUSAL, MIXED] {
        let shape = Shape {
            clients: 50,
            operations: 100_000,
            keys: 200,
            trouble_percent: 2,
            version_percent: 100,
            replicas: 3,
            levels,
            ..SMALL
        };
        crate::measure::report(
            &format!("sessions, {} levels", levels.len()),
            &simulate(1, shape),
            |operations| check_operations(operations, Level::Causal).verdict.to_string(),
        );
    }
}

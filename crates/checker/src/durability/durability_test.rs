use super::*;
use crate::history::{MicroOp, Value};
use crate::numbers::Numbers;
use crate::promise::Verdict;
use crate::replicas::{MIXED, Shape, simulate};
use crate::steps::run;

const SMALL: Shape = Shape {
    clients: 3,
    operations: 8,
    keys: 2,
    replicas: 2,
    mix: &["r", "w", "w", "d", "cas"],
    levels: MIXED,
    trouble_percent: 15,
    token_percent: 20,
    weak_percent: 0,
    version_percent: 0,
    final_reads: true,
};

/// From the definition: every final read saw something that no acknowledged write is certainly after.
fn nothing_is_lost(operations: &[Operation]) -> bool {
    let count = operations.len();
    let level = |op: &Operation| Level::of(op, Level::Strict).unwrap();
    let key = |op: &Operation| op.micro_ops[0].key().to_owned();
    let mut session = vec![vec![false; count]; count];
    for (a, one) in operations.iter().enumerate() {
        for (b, other) in operations.iter().enumerate() {
            let mine = one.process == other.process || other.extras.token_from == Some(one.process);
            session[a][b] = mine && one.return_line.is_some_and(|line| line < other.invoke_line);
        }
    }
    for middle in 0..count {
        for a in 0..count {
            for b in 0..count {
                session[a][b] |= session[a][middle] && session[middle][b];
            }
        }
    }
    let leaves = |at: usize| {
        let failed = matches!(operations[at].outcome, Outcome::Fail | Outcome::Mismatch);
        action(&operations[at]).unwrap().leaves().filter(|_| !failed)
    };
    let finds = |at: usize| {
        action(&operations[at]).unwrap().finds().filter(|_| operations[at].outcome == Outcome::Ok)
    };
    (0..count).filter(|&read| operations[read].extras.is_final).all(|read| {
        let Some(state) = finds(read) else { return true };
        let of_key: Vec<usize> = (0..count)
            .filter(|&at| leaves(at).is_some() && key(&operations[at]) == key(&operations[read]))
            .collect();
        let suspects: Vec<usize> =
            of_key.iter().copied().filter(|&at| leaves(at) == Some(state)).collect();
        let acknowledged: Vec<usize> = of_key
            .iter()
            .copied()
            .filter(|&at| {
                let write = &operations[at];
                let line = write.return_line.filter(|_| write.outcome == Outcome::Ok);
                line.is_some_and(|line| line < operations[read].invoke_line)
            })
            .collect();
        let before = |one: usize, other: usize| {
            let (a, b) = (&operations[one], &operations[other]);
            let log = level(a).is_log() && level(b).is_log() && a.outcome == Outcome::Ok;
            let by_log = log && a.return_line.is_some_and(|line| line < b.invoke_line);
            let unique = suspects.len() == 1 && state.is_some();
            let saw = |at: usize| {
                finds(at) == Some(state)
                    && key(&operations[at]) == key(b)
                    && level(&operations[at]) != Level::Eventual
                    && session[at][other]
            };
            let by_sight = unique && level(b) != Level::Eventual && (0..count).any(saw);
            one != other && (by_log || session[one][other] || by_sight)
        };
        let initial = state.is_none() && acknowledged.is_empty();
        initial || suspects.iter().any(|&one| !acknowledged.iter().any(|&other| before(one, other)))
    })
}

#[test]
fn the_judge_agrees_with_the_definition() {
    let (mut kept, mut broken) = (0, 0);
    for seed in 0..8_000 {
        let mut numbers = Numbers(!seed);
        let mut operations = simulate(seed, SMALL);
        if seed % 3 == 0 {
            assert!(nothing_is_lost(&operations), "the store is right: {operations:#?}");
        }
        for _ in 0..seed % 3 {
            let other = operations[numbers.below(operations.len())].clone();
            let at = numbers.below(operations.len());
            let operation = &mut operations[at];
            match &mut operation.micro_ops[0] {
                MicroOp::Read { value, .. } => {
                    *value = match other.micro_ops[0] {
                        MicroOp::Write { value, .. } => Value::Integer(value),
                        _ if numbers.percent(30) => Value::Absent,
                        _ => continue,
                    };
                }
                _ => operation.extras.level = other.extras.level,
            }
        }
        let verdict = check_operations(&operations, Level::Strict).verdict;
        let expected = nothing_is_lost(&operations);
        assert_eq!(
            !matches!(verdict, Verdict::Violation(_)),
            expected,
            "{seed}: {verdict}\n{operations:#?}"
        );
        *(if expected { &mut kept } else { &mut broken }) += 1;
    }
    assert!(kept > 1_000 && broken > 500, "{kept} {broken}");
}

fn write(value: i64) -> MicroOp {
    MicroOp::Write { key: "x".to_owned(), value }
}

fn read(value: Option<i64>) -> MicroOp {
    let value = value.map_or(Value::Absent, Value::Integer);
    MicroOp::Read { key: "x".to_owned(), value }
}

#[test]
fn a_missing_write_is_told_with_the_one_that_is_there_instead() {
    let steps = [(0, "strict", write(1)), (1, "strict", write(2)), (9, "strict", read(Some(1)))];
    let verdict = check_operations(&run(&steps), Level::Strict).verdict;
    assert_eq!(
        verdict.to_string(),
        "broken
key x: an acknowledged write is missing at the end
  lines 1-2, process 0: write 1
  lines 3-4, process 1: write 2
  lines 5-6, process 9: read 1 (final)
  1 is there at the end (of line 2, which line 4 came after), and the later write was acknowledged and nothing \
         replaced it"
    );
}

#[test]
fn a_local_write_of_another_session_may_lose_though_it_came_later() {
    let judge = |levels: [&str; 2], processes: [u64; 2], found: Option<i64>| {
        let steps = [
            (processes[0], levels[0], write(1)),
            (processes[1], levels[1], write(2)),
            (9, "strict", read(found)),
        ];
        matches!(check_operations(&run(&steps), Level::Strict).verdict, Verdict::Kept)
    };
    assert!(judge(["causal", "causal"], [0, 1], Some(1)));
    assert!(!judge(["causal", "causal"], [0, 0], Some(1)));
    assert!(!judge(["eventual", "eventual"], [0, 0], Some(1)));
    assert!(judge(["strict", "causal"], [0, 1], Some(1)));
    assert!(!judge(["strict", "strict"], [0, 1], Some(1)));
    assert!(!judge(["causal", "causal"], [0, 1], None));
    assert!(judge(["causal", "causal"], [0, 1], Some(2)));
}

#[test]
fn a_session_that_saw_a_write_replaces_it() {
    let steps = |level| {
        run(&[
            (0, "causal", write(1)),
            (1, level, read(Some(1))),
            (1, "causal", write(2)),
            (9, "strict", read(Some(1))),
        ])
    };
    let verdict = |level| check_operations(&steps(level), Level::Strict).verdict;
    assert!(matches!(verdict("causal"), Verdict::Violation(_)));
    assert_eq!(verdict("eventual"), Verdict::Kept);
}

#[test]
fn a_history_without_final_reads_is_unknown() {
    let verdict = |steps: &[(u64, &str, MicroOp)]| {
        check_operations(&run(steps), Level::Strict).verdict.to_string()
    };
    assert_eq!(verdict(&[(0, "strict", write(1))]), "unknown\nthere are no final reads");
    let other = MicroOp::Write { key: "y".to_owned(), value: 1 };
    let steps = [(0, "strict", other), (9, "strict", read(None))];
    assert_eq!(verdict(&steps), "unknown\nkey y has no final read");
}

/// `cargo test --release -p latitude-checker -- --ignored --nocapture measured`
#[test]
#[ignore = "measures, and says nothing of right and wrong"]
fn durability_and_convergence_are_measured() {
    let shape = Shape { clients: 50, operations: 100_000, keys: 200, trouble_percent: 2, ..SMALL };
    let operations = simulate(1, shape);
    crate::measure::report("durability", &operations, |operations| {
        check_operations(operations, Level::Strict).verdict.to_string()
    });
    crate::measure::report("convergence", &operations, |operations| {
        crate::convergence::check_operations(operations).verdict.to_string()
    });
}

use super::*;
use crate::history::Extras;
use crate::numbers::Numbers;
use crate::promise::Verdict;
use crate::steps::run;

/// A history in which reads saw what they had to and some of the rest, or something a little beside it.
fn history(
    seed: u64,
    count: usize,
    keys: usize,
    clients: usize,
    wrong_percent: usize,
) -> Vec<Operation> {
    let mut numbers = Numbers(seed);
    let mut operations: Vec<Operation> = Vec::new();
    let mut processes: Vec<u64> = (0..clients as u64).collect();
    let mut open: Vec<Option<usize>> = vec![None; clients];
    let (mut line, mut fresh) = (0, clients as u64);
    let levels = ["strict", "sequential", "causal", "eventual"];
    while operations.len() < count || open.iter().any(Option::is_some) {
        let client = numbers.below(clients);
        if let Some(at) = open[client].take() {
            line += 1;
            let operation = &mut operations[at];
            match numbers.below(10) {
                0 => {
                    processes[client] = fresh;
                    fresh += 1;
                    operation.outcome = Outcome::Info;
                }
                1 => (operation.outcome, operation.return_line) = (Outcome::Fail, Some(line)),
                _ => (operation.outcome, operation.return_line) = (Outcome::Ok, Some(line)),
            }
        } else if operations.len() < count {
            line += 1;
            let key = format!("c{}", numbers.below(keys));
            let amount = numbers.below(9) as i64 - 4;
            let bounds = (i64::MIN, i64::MAX);
            let read = MicroOp::Read { key: key.clone(), value: Value::Absent };
            let micro_ops = match numbers.below(7) {
                0..=2 => vec![read],
                3 => vec![MicroOp::BoundedAdd { key, amount, low: bounds.0, high: bounds.1 }],
                4 => vec![MicroOp::Add { key, amount }, read],
                _ => vec![MicroOp::Add { key, amount }],
            };
            let token = numbers.percent(10).then(|| processes[numbers.below(clients)]);
            let level = levels[numbers.below(4)];
            let extras = Extras {
                level: Some(level.to_owned()),
                token_from: token,
                is_final: matches!(micro_ops[0], MicroOp::Read { .. }) && numbers.percent(20),
                ..Extras::default()
            };
            open[client] = Some(operations.len());
            operations.push(Operation {
                process: processes[client],
                invoke_line: line,
                return_line: None,
                micro_ops,
                outcome: Outcome::Pending,
                extras,
            });
        }
    }
    let known = Known::new(&operations, Level::Strict).unwrap();
    let mut values = vec![None; operations.len()];
    known.order.walk(|at, own| {
        if matches!(operations[at].micro_ops.last(), Some(MicroOp::Read { .. })) {
            // Further away than this, nothing is under way any more.
            let recent = at.saturating_sub(40)..(at + 40).min(operations.len());
            let shown = |&write: &usize| {
                let same =
                    operations[write].micro_ops[0].key() == operations[at].micro_ops[0].key();
                let certain = at == write || known.shows(at, own, write).is_some();
                let old = !recent.contains(&write);
                same && known.may_show(at, write) && (certain || (!old && numbers.percent(50)))
            };
            let sum: i64 = (0..operations.len())
                .filter(shown)
                .filter_map(|write| amount(&operations[write]).unwrap())
                .sum();
            let wrong =
                if numbers.percent(wrong_percent) { numbers.below(21) as i64 - 10 } else { 0 };
            values[at] = Some(sum + wrong);
        }
    });
    for (operation, value) in operations.iter_mut().zip(values) {
        if let (Some(MicroOp::Read { value, .. }), Some(seen)) =
            (operation.micro_ops.last_mut(), value)
        {
            *value = if seen == 0 { Value::Absent } else { Value::Integer(seen) };
        }
    }
    operations
}

/// From the definition, by every choice of the additions that are possible.
fn every_read_has_a_choice(operations: &[Operation]) -> bool {
    let known = Known::new(operations, Level::Strict).unwrap();
    let mut right = true;
    known.order.walk(|at, own| {
        let operation = &operations[at];
        let Some(MicroOp::Read { key, value }) = operation.micro_ops.last() else { return };
        if operation.outcome != Outcome::Ok {
            return;
        }
        let value = if let Value::Integer(value) = value { *value } else { 0 };
        let of_key =
            (0..operations.len()).filter(|&write| operations[write].micro_ops[0].key() == key);
        let (mut certain, mut open) = (0, Vec::new());
        for write in of_key.filter(|&write| known.may_show(at, write)) {
            let Some(amount) = amount(&operations[write]).unwrap() else { continue };
            if at == write || known.shows(at, own, write).is_some() {
                certain += amount;
            } else {
                open.push(amount);
            }
        }
        let choices = (0..1u32 << open.len()).map(|choice| {
            let chosen = open.iter().enumerate().filter(|(bit, _)| choice >> bit & 1 == 1);
            certain + chosen.map(|(_, amount)| amount).sum::<i64>()
        });
        let sums: Vec<i64> = choices.collect();
        right &= if operation.extras.is_final {
            sums.contains(&value)
        } else {
            sums.iter().any(|&sum| sum <= value) && sums.iter().any(|&sum| sum >= value)
        };
    });
    right
}

#[test]
fn the_judge_agrees_with_every_choice_of_what_is_possible() {
    let (mut kept, mut broken) = (0, 0);
    for seed in 0..6_000 {
        let wrong_percent = if seed % 2 == 0 { 0 } else { 30 };
        let operations = history(seed, 10, 2, 3, wrong_percent);
        let verdict = check_operations(&operations, Level::Strict).verdict;
        let expected = every_read_has_a_choice(&operations);
        assert!(expected || wrong_percent > 0, "{seed}");
        assert_eq!(verdict == Verdict::Kept, expected, "{seed}: {verdict}\n{operations:#?}");
        assert_eq!(matches!(verdict, Verdict::Violation(_)), !expected);
        *(if expected { &mut kept } else { &mut broken }) += 1;
    }
    assert!(kept > 1_000 && broken > 500, "{kept} {broken}");
}

fn add(amount: i64) -> MicroOp {
    MicroOp::Add { key: "c".to_owned(), amount }
}

fn read(value: i64) -> MicroOp {
    MicroOp::Read { key: "c".to_owned(), value: Value::Integer(value) }
}

fn is_kept(operations: &[Operation]) -> bool {
    check_operations(operations, Level::Strict).verdict == Verdict::Kept
}

#[test]
fn a_causal_read_shows_what_its_session_added_and_a_strict_one_what_the_log_acknowledged() {
    let adds = |level| (0, level, add(5));
    assert!(is_kept(&run(&[adds("causal"), (1, "causal", read(0))])));
    assert!(!is_kept(&run(&[adds("causal"), (0, "causal", read(0))])));
    assert!(is_kept(&run(&[adds("causal"), (0, "eventual", read(0))])));
    assert!(!is_kept(&run(&[adds("eventual"), (0, "strict", read(0))])));
    assert!(is_kept(&run(&[adds("causal"), (1, "strict", read(0))])));
    assert!(!is_kept(&run(&[adds("strict"), (1, "strict", read(0))])));
    assert!(is_kept(&run(&[adds("strict"), (1, "sequential", read(0))])));
    let mut handed = run(&[adds("causal"), (1, "causal", read(0))]);
    handed[1].extras.token_from = Some(0);
    assert!(!is_kept(&handed));
}

#[test]
fn a_final_read_is_exact_up_to_what_nobody_knows() {
    let end = |value, unknown: bool| {
        let mut steps =
            run(&[(0, "causal", add(5)), (1, "causal", add(3)), (2, "eventual", read(value))]);
        steps[2].extras.is_final = true;
        if unknown {
            (steps[1].outcome, steps[1].return_line) = (Outcome::Info, None);
        }
        is_kept(&steps)
    };
    let fits = |unknown| (0..=10).filter(|&value| end(value, unknown)).collect::<Vec<_>>();
    assert_eq!(fits(false), [8]);
    assert_eq!(fits(true), [5, 8], "once, or not at all");
}

#[test]
fn an_addition_that_counted_twice_is_told() {
    let mut steps = run(&[(0, "strict", add(5)), (1, "strict", read(10))]);
    let verdict = check_operations(&steps, Level::Strict).verdict;
    assert_eq!(
        verdict.to_string(),
        "broken
key c: a counter above what was ever added
  lines 1-2, process 0: add 5
  lines 3-4, process 1: read 10
  line 4 read 10, but what is certain adds up to 5, and what is possible beside it leaves 5 to 5"
    );
    steps[0].outcome = Outcome::Fail;
    steps[1].micro_ops[0] = read(5);
    assert!(!is_kept(&steps), "a failed addition counts never");
}

#[test]
fn an_addition_that_answers_its_sum_shows_itself() {
    let answered = |sum| {
        let mut steps = run(&[(0, "causal", add(5)), (1, "eventual", add(3))]);
        steps[1].micro_ops.push(read(sum));
        is_kept(&steps)
    };
    assert_eq!((0..=10).filter(|&sum| answered(sum)).collect::<Vec<_>>(), [3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_deleted_counter_is_not_judged() {
    let steps = run(&[(0, "strict", MicroOp::Delete { key: "c".to_owned() })]);
    let verdict = check_operations(&steps, Level::Strict).verdict;
    let doubt = Doubt::NotOfType { line: 1, text: "c: delete".to_owned() };
    assert_eq!(verdict, Verdict::Unknown(doubt));
}

/// `cargo test --release -p latitude-checker -- --ignored --nocapture measured`
#[test]
#[ignore = "measures, and says nothing of right and wrong"]
fn counters_are_measured() {
    let mut numbers = Numbers(1);
    let mut sums = [0; 200];
    let mut steps = Vec::new();
    let levels = ["strict", "sequential", "causal", "eventual"];
    for _ in 0..100_000 {
        let (process, level) = (numbers.below(50) as u64, levels[numbers.below(4)]);
        let at = numbers.below(sums.len());
        let amount = numbers.below(9) as i64 - 4;
        let key = format!("c{at}");
        if numbers.percent(50) {
            steps.push((process, level, MicroOp::Read { key, value: Value::Integer(sums[at]) }));
        } else {
            sums[at] += amount;
            steps.push((process, level, MicroOp::Add { key, amount }));
        }
    }
    crate::measure::report("counter", &run(&steps), |operations| {
        check_operations(operations, Level::Strict).verdict.to_string()
    });
}

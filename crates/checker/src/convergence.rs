//! Do all replicas hold the same, once all is healed?
//!
//! ```text
//!   n1   r k 5 (final)         final reads of a key, each from a node's own state, are equal: in value (of
//!   n2   r k 5 (final)         a set: in any order) and, where replies show it, in version
//!   n3   r k 4 (final) !
//! ```
//!
//! The harness marks as final what it reads after every fault was healed, nothing is under way any more and
//! the time that the database promises for convergence has passed. A write of unknown outcome has had
//! its time then: it has taken effect everywhere, or nowhere. If a write begins after the final reads do, or a
//! node that appears in some did not read every key that was used, the verdict is unknown.

use std::collections::{BTreeMap, BTreeSet};

use crate::History;
use crate::history::{MicroOp, Operation, Outcome, Value};
use crate::promise::{Broken, Doubt, Report, violation};

/// Judges every final read of a history.
pub fn check(history: &History) -> Report {
    check_operations(&history.operations())
}

/// As [`check`], for the operations of one history in the order of their invocations. O(n log n).
pub fn check_operations(operations: &[Operation]) -> Report {
    Report::new(operations, judge(operations))
}

fn judge(operations: &[Operation]) -> Result<(), Broken> {
    let reads = |op: &&Operation| op.extras.is_final && op.outcome == Outcome::Ok;
    let finals: Vec<&Operation> = operations.iter().filter(reads).collect();
    let Some(began) = finals.iter().map(|op| op.invoke_line).min() else {
        return Err(Doubt::NoFinalReads.into());
    };
    let mut of_key: BTreeMap<&str, Vec<(&Operation, Value)>> = BTreeMap::new();
    for &operation in &finals {
        let [MicroOp::Read { key, value }] = operation.micro_ops.as_slice() else {
            return Err(Doubt::of_type(operation).into());
        };
        let value = match value.clone() {
            Value::List(mut list) => {
                list.sort_unstable();
                Value::List(list)
            }
            value => value,
        };
        of_key.entry(key).or_default().push((operation, value));
    }
    for reads in of_key.values() {
        let (first, value) = &reads[0];
        let mut versioned: Option<&Operation> = None;
        for &(read, ref seen) in reads {
            if seen != value {
                return Err(violation(RULE, &[first, read], differ(first, read)).into());
            }
            let Some(version) = &read.extras.version else { continue };
            let other = *versioned.get_or_insert(read);
            if let Some(known) = other.extras.version.as_ref().filter(|known| *known != version) {
                let why = format!(
                    "{}: one holds it as version {known}, the other as {version}",
                    differ(other, read)
                );
                return Err(violation(RULE, &[other, read], why).into());
            }
        }
    }
    is_complete(operations, began, &of_key)
}

const RULE: &str = "replicas differ at the end";

/// Whether the final reads are enough to say that nothing differs.
fn is_complete(
    operations: &[Operation],
    began: usize,
    of_key: &BTreeMap<&str, Vec<(&Operation, Value)>>,
) -> Result<(), Broken> {
    let nodes: BTreeSet<&str> =
        of_key.values().flatten().filter_map(|(op, _)| op.extras.node.as_deref()).collect();
    for operation in operations {
        let writes = |op: &MicroOp| !matches!(op, MicroOp::Read { .. });
        let failed = matches!(operation.outcome, Outcome::Fail | Outcome::Mismatch);
        if !failed && operation.invoke_line > began && operation.micro_ops.iter().any(writes) {
            return Err(Doubt::NotQuiet { line: operation.invoke_line }.into());
        }
        for key in operation.micro_ops.iter().map(MicroOp::key) {
            let Some(reads) = of_key.get(key) else {
                return Err(Doubt::NotReadAtTheEnd { key: key.to_owned(), node: None }.into());
            };
            if reads.len() >= nodes.len() && operation.extras.is_final {
                continue;
            }
            let read = |node: &&&str| {
                !reads.iter().any(|(op, _)| op.extras.node.as_deref() == Some(**node))
            };
            if operation.extras.is_final
                && let Some(node) = nodes.iter().find(read)
            {
                let (key, node) = (key.to_owned(), Some((*node).to_owned()));
                return Err(Doubt::NotReadAtTheEnd { key, node }.into());
            }
        }
    }
    Ok(())
}

fn differ(one: &Operation, other: &Operation) -> String {
    let at = |op: &Operation| {
        let line = op.return_line.unwrap_or(op.invoke_line);
        op.extras
            .node
            .as_ref()
            .map_or(format!("line {line}"), |node| format!("{node} (line {line})"))
    };
    format!(
        "{} and {} were asked after all was healed, and did not answer the same",
        at(one),
        at(other)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Extras;
    use crate::numbers::Numbers;
    use crate::promise::Verdict;
    use crate::replicas::{MIXED, Shape, simulate};

    fn run(operations: &[(&str, &str, Value)]) -> Vec<Operation> {
        let steps = operations.iter().enumerate();
        let at = |(at, (node, key, value)): (usize, &(&str, &str, Value))| Operation {
            process: at as u64,
            invoke_line: 2 * at + 1,
            return_line: Some(2 * at + 2),
            micro_ops: vec![MicroOp::Read { key: (*key).to_owned(), value: value.clone() }],
            outcome: Outcome::Ok,
            extras: Extras { node: Some((*node).to_owned()), is_final: true, ..Extras::default() },
        };
        steps.map(at).collect()
    }

    /// From the definition: every pair of final reads of a key is equal.
    fn all_pairs_are_equal(operations: &[Operation]) -> bool {
        let set = |op: &Operation| match &op.micro_ops[0] {
            MicroOp::Read { value: Value::List(list), .. } => {
                let mut sorted: Vec<String> = list.iter().map(i64::to_string).collect();
                sorted.sort();
                format!("{sorted:?}")
            }
            other => other.to_string(),
        };
        operations.iter().all(|one| {
            operations.iter().all(|other| {
                let of_one = one.micro_ops[0].key() == other.micro_ops[0].key();
                let (a, b) = (&one.extras.version, &other.extras.version);
                !of_one || (set(one) == set(other) && (a.is_none() || b.is_none() || a == b))
            })
        })
    }

    #[test]
    fn the_judge_agrees_with_every_pair() {
        let (mut kept, mut broken) = (0, 0);
        for seed in 0..5_000 {
            let mut numbers = Numbers(seed);
            let (mut reads, same) = (Vec::new(), numbers.percent(50));
            for key in ["a", "b"] {
                for node in ["n1", "n2", "n3"] {
                    let odd = !same && numbers.percent(20);
                    let value = match key {
                        "a" => Value::Integer(i64::from(odd)),
                        _ if numbers.percent(50) => Value::List(vec![1, 2, 2 + i64::from(odd)]),
                        _ => Value::List(vec![2 + i64::from(odd), 2, 1]),
                    };
                    reads.push((node, key, value));
                }
            }
            let mut operations = run(&reads);
            for operation in &mut operations {
                let odd = !same && numbers.percent(5);
                let shown = numbers.percent(80);
                operation.extras.version = shown.then(|| (7 + u64::from(odd)).into());
            }
            let verdict = check_operations(&operations).verdict;
            let expected = all_pairs_are_equal(&operations);
            assert_eq!(verdict == Verdict::Kept, expected, "{verdict}");
            assert_eq!(matches!(verdict, Verdict::Violation(_)), !expected);
            *(if expected { &mut kept } else { &mut broken }) += 1;
        }
        assert!(kept > 1_000 && broken > 1_000, "{kept} {broken}");
    }

    #[test]
    fn what_the_final_reads_leave_out_is_unknown() {
        let doubt = |operations: &[Operation]| match check_operations(operations).verdict {
            Verdict::Unknown(doubt) => doubt.to_string(),
            other => panic!("{other}"),
        };
        let one = Value::Integer(1);
        let both = [("n1", "a", one.clone()), ("n2", "a", one.clone()), ("n1", "b", one.clone())];
        assert_eq!(doubt(&run(&both)), "key b has no final read of n2");
        let mut early = run(&both[..2]);
        early[0].extras.is_final = false;
        early[0].micro_ops = vec![MicroOp::Write { key: "c".to_owned(), value: 1 }];
        assert_eq!(doubt(&early), "key c has no final read");
        let mut late = run(&both[..2]);
        late.extend(run(&both).pop());
        late[2].extras.is_final = false;
        late[2].micro_ops = vec![MicroOp::Write { key: "a".to_owned(), value: 2 }];
        assert_eq!(doubt(&late), "line 5: a write began after the final reads did");
        assert_eq!(doubt(&[]), "there are no final reads");
    }

    #[test]
    fn the_replicas_of_a_right_store_converge() {
        let shape = Shape {
            clients: 8,
            operations: 2_000,
            keys: 6,
            replicas: 3,
            mix: &["r", "w", "d", "cas"],
            levels: MIXED,
            trouble_percent: 2,
            token_percent: 5,
            weak_percent: 0,
            version_percent: 100,
            final_reads: true,
        };
        for seed in 0..4 {
            let operations = simulate(seed, shape);
            // The store's final reads come at once; what it has of late writes stays undone.
            assert_eq!(check_operations(&operations).verdict, Verdict::Kept);
        }
    }
}

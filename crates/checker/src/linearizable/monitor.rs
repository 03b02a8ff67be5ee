//! The versions in replies, which must not go down: cheap enough to run beside every test.
//!
//! A linearizable key shows each operation a version at least as new as whatever any operation
//! showed that returned before this one was invoked. This catches most stale reads of an old leader
//! without knowing the values, but it trusts the replies: it is no proof.
//!
//! HAZARD: it holds only for versions of one order per key. Where the position of a log begins anew,
//! as after a split, the recorder must put the epoch or the range before it.

use std::collections::HashMap;

use crate::history::{Operation, Outcome, Version};
use crate::{Cited, Violation};

/// Finds the first reply whose version is below one that returned before its operation was invoked.
/// O(n log n), for the order of the lines.
pub fn check(operations: &[Operation]) -> Option<Violation> {
    let mut moments: Vec<(usize, &Operation)> = Vec::new();
    for operation in operations.iter().filter(|op| op.outcome == Outcome::Ok) {
        moments.push((operation.invoke_line, operation));
        moments.extend(operation.return_line.map(|line| (line, operation)));
    }
    moments.sort_unstable_by_key(|(line, _)| *line);

    let mut newest: HashMap<&str, (&Version, &Operation)> = HashMap::new();
    for (line, operation) in moments {
        let Some(version) = &operation.extras.version else { continue };
        for micro_op in &operation.micro_ops {
            let key = micro_op.key();
            let known = newest.get(key).copied().filter(|(known, _)| *known > version);
            if line == operation.invoke_line {
                if let Some((newer, source)) = known {
                    return Some(went_down(key, newer, source, version, operation));
                }
            } else if known.is_none() {
                newest.insert(key, (version, operation));
            }
        }
    }
    None
}

fn went_down(
    key: &str,
    newer: &Version,
    source: &Operation,
    version: &Version,
    operation: &Operation,
) -> Violation {
    Violation {
        key: key.to_owned(),
        rule: "the version went down",
        operations: vec![Cited::new(key, source), Cited::new(key, operation)],
        why: format!(
            "line {} was invoked after an operation on the key had returned version {newer}, and was \
             answered from version {version}",
            operation.invoke_line
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Extras, MicroOp, Value};

    fn read(invoke_line: usize, return_line: usize, key: &str, version: &[u64]) -> Operation {
        Operation {
            process: invoke_line as u64,
            invoke_line,
            return_line: Some(return_line),
            micro_ops: vec![MicroOp::Read { key: key.to_owned(), value: Value::Absent }],
            outcome: Outcome::Ok,
            extras: Extras { version: Some(Version(version.to_vec())), ..Extras::default() },
        }
    }

    #[test]
    fn a_version_below_one_that_had_returned_is_a_violation() {
        let violation = check(&[read(1, 2, "k", &[4]), read(3, 4, "k", &[3])]).unwrap();
        assert_eq!(
            violation.to_string(),
            "key k: the version went down\n  lines 1-2, process 1: read null\n  lines 3-4, process 3: \
             read null\n  line 3 was invoked after an operation on the key had returned version 4, and \
             was answered from version 3"
        );
    }

    #[test]
    fn operations_that_overlap_may_show_versions_in_any_order() {
        assert_eq!(check(&[read(1, 3, "k", &[4]), read(2, 4, "k", &[3])]), None);
    }

    #[test]
    fn a_long_operation_in_between_does_not_hide_the_newest_version() {
        let ops = [read(1, 5, "k", &[2]), read(2, 3, "k", &[4]), read(6, 7, "k", &[3])];
        assert_eq!(check(&ops).unwrap().operations[0].invoke_line, 2);
    }

    #[test]
    fn keys_have_versions_of_their_own() {
        assert_eq!(check(&[read(1, 2, "a", &[4]), read(3, 4, "b", &[3])]), None);
    }

    #[test]
    fn a_stamp_compares_by_its_time_first() {
        assert_eq!(check(&[read(1, 2, "k", &[4, 9]), read(3, 4, "k", &[5, 1])]), None);
        assert!(check(&[read(1, 2, "k", &[5, 2]), read(3, 4, "k", &[5, 1])]).is_some());
    }

    #[test]
    fn a_reply_without_a_version_says_nothing() {
        let mut silent = read(3, 4, "k", &[]);
        silent.extras.version = None;
        assert_eq!(check(&[read(1, 2, "k", &[4]), silent, read(5, 6, "k", &[4])]), None);
    }
}

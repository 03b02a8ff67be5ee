//! What the judges say of a history.
//!
//! Of strict and sequential operations on registers:
//! - The strict reads, with all writes, are linearizable.
//! - The whole is sequentially consistent: one order of all operations, over all keys, that holds every
//!   session. It is decided by the versions.
//!
//! A delete of unknown outcome leaves no version by which it could be found. Where the whole cannot be
//! decided because of some, their keys are left out of the second question, and only of it.
//!
//! Of all four levels on the same registers:
//! - It is causally convergent, and sessions keep their guarantees.
//! - What the log answers strictly is linearizable, a local write taking effect any time between its sending and the first
//!   such answer that shows it. (That strict and sequential answers are in one order needs to know where the log took
//!   each local write in; the simulation knows, and judges it.)
//! - In the end all replicas hold the same, and every acknowledged write is there or was replaced.
//!
//! Of counters every acknowledged add is there once; of sets none is lost, none back, none from nowhere. And all replicas
//! hold the same.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use latitude_checker::History;
use latitude_checker::history::{MicroOp, Operation, Outcome};
use latitude_checker::linearizable::{self, Budget, monitor};
use latitude_checker::sequential::{self, Method, Report};
use latitude_checker::{causal, convergence, counter, durability, mixed, promise, sessions, set};
use latitude_client::Level;

use super::Subject;

/// Sequential reads a history must have that a replica answered by what it knew.
const BY_CLOSED_TIME_MIN: u64 = 200;
/// Operations it must have that took over a token.
const HANDED_ON_MIN: usize = 20;
/// Local writes that strict and sequential operations must have been answered with.
const SHOWN_MIN: usize = 100;

/// Whether the history is valid and right.
pub(super) fn judge(history: &History, subject: Subject, by_closed_time: u64) -> Result<()> {
    let operations = history.operations();
    let ok = operations.iter().filter(|op| op.outcome == Outcome::Ok).count();
    ensure!(ok as u64 >= subject.ok_min(), "only {ok} operations succeeded");
    let handed_on = operations.iter().filter(|op| op.extras.token_from.is_some()).count();
    let wanted = match subject {
        Subject::Log | Subject::AllLevels => HANDED_ON_MIN,
        Subject::Counters | Subject::Sets => HANDED_ON_MIN / 4,
    };
    ensure!(handed_on >= wanted, "only {handed_on} of {wanted} tokens were handed on");
    let unnamed = latitude_checker::Level::Strict;
    match subject {
        Subject::Log => {
            ensure!(
                by_closed_time >= BY_CLOSED_TIME_MIN,
                "only {by_closed_time} reads were answered by closed time"
            );
            return judge_log(operations);
        }
        Subject::AllLevels => judge_all_levels(&operations)?,
        Subject::Counters => kept("counters", counter::check_operations(&operations, unnamed))?,
        Subject::Sets => kept("sets", set::check_operations(&operations, unnamed))?,
    }
    kept("convergence", convergence::check_operations(&operations))
}

/// Operations of the log alone.
fn judge_log(operations: Vec<Operation>) -> Result<()> {
    let strict: Vec<_> = operations.iter().filter(|op| !is_sequential_read(op)).cloned().collect();
    judge_strict(&strict)?;
    let report = judge_whole(operations)?;
    let decided = report.verdict == sequential::Verdict::Sequential;
    ensure!(decided && report.method == Some(Method::Versions), "{report}\n{}", report.counts);
    Ok(())
}

/// What must be linearizable.
fn judge_strict(strict: &[Operation]) -> Result<()> {
    let report = linearizable::check_operations(strict, Budget::default());
    let verdict = report.verdict;
    ensure!(verdict == linearizable::Verdict::Linearizable, "{verdict}\n{}", report.counts);
    if let Some(violation) = monitor::check(strict) {
        bail!("{violation}");
    }
    Ok(())
}

/// Operations of all levels on the same registers.
fn judge_all_levels(operations: &[Operation]) -> Result<()> {
    let report = causal::check_operations(operations, causal::Budget::default());
    let verdict = report.verdict;
    ensure!(verdict == causal::Verdict::Causal, "{verdict}\n{}", report.counts);
    let unnamed = latitude_checker::Level::Strict;
    kept("sessions", sessions::check_operations(operations, unnamed))?;
    kept("durability", durability::check_operations(operations, unnamed))?;
    let shown = mixed::shown(operations);
    ensure!(shown.len() >= SHOWN_MIN, "the log answered with only {} local writes", shown.len());
    judge_strict(&mixed::strict(operations, &shown))
}

fn kept(what: &str, report: promise::Report) -> Result<()> {
    let promise::Report { verdict, counts } = report;
    ensure!(verdict == promise::Verdict::Kept, "{what}: {verdict}\n{counts}");
    Ok(())
}

fn is_sequential_read(operation: &Operation) -> bool {
    let reads = operation.micro_ops.iter().all(|op| matches!(op, MicroOp::Read { .. }));
    reads && operation.extras.level.as_deref() == Some(Level::Sequential.name())
}

/// Whether all fits into one order.
fn judge_whole(mut operations: Vec<Operation>) -> Result<Report> {
    // The search that follows where versions do not decide has no chance with so many operations.
    let budget = Budget { configurations: 1 };
    let report = sequential::check_operations(&operations, budget);
    let undecided = sequential::Verdict::Unknown(sequential::Doubt::OutOfBudget);
    if report.verdict != undecided {
        return Ok(report);
    }
    let left_out: BTreeSet<String> = operations
        .iter()
        .filter(|op| op.outcome.is_unknown())
        .flat_map(|op| &op.micro_ops)
        .filter(|op| matches!(op, MicroOp::Delete { .. }))
        .map(|op| op.key().to_owned())
        .collect();
    let keys = Subject::Log.keys();
    let left = keys - left_out.len();
    ensure!(left * 2 >= keys, "deletes of unknown outcome leave only {left} keys to judge");
    for operation in &mut operations {
        if left_out.contains(operation.micro_ops[0].key()) {
            // It keeps its place in its session, and says nothing of its key.
            operation.outcome = Outcome::Fail;
        }
    }
    Ok(sequential::check_operations(&operations, budget))
}

#[cfg(test)]
mod tests {
    use latitude_checker::Recorder;
    use latitude_checker::history::{Extras, Value, Version};

    use super::*;

    fn read(key: &str, value: Value) -> MicroOp {
        MicroOp::Read { key: key.to_owned(), value }
    }

    /// An operation that ended well, at a time of its own.
    fn ok(recorder: &Recorder<std::io::Sink>, process: u64, op: MicroOp, version: Option<u64>) {
        let asked = match &op {
            MicroOp::Read { key, .. } => read(key, Value::Absent),
            other => other.clone(),
        };
        recorder.invoke(process, 0, vec![asked], Extras::default()).unwrap();
        let extras = Extras { version: version.map(Version::from), ..Extras::default() };
        recorder.ok(process, 0, vec![op], extras).unwrap();
    }

    /// A write, an unknown delete, and one who finds the key first absent, then as written.
    fn deleted_and_back() -> Recorder<std::io::Sink> {
        let recorder = Recorder::new(std::io::sink());
        let key = || "k".to_owned();
        ok(&recorder, 0, MicroOp::Write { key: key(), value: 1 }, Some(1));
        ok(&recorder, 1, read("k", Value::Integer(1)), Some(1));
        let delete = vec![MicroOp::Delete { key: key() }];
        recorder.invoke(0, 0, delete, Extras::default()).unwrap();
        recorder.info(0, 0, Extras::default()).unwrap();
        ok(&recorder, 1, read("k", Value::Absent), None);
        recorder
    }

    fn verdict(recorder: &Recorder<std::io::Sink>) -> sequential::Verdict {
        judge_whole(recorder.history().operations()).unwrap().verdict
    }

    #[test]
    fn the_key_of_an_unknown_delete_is_left_out_and_no_other() {
        let recorder = deleted_and_back();
        assert_eq!(verdict(&recorder), sequential::Verdict::Sequential);
        // Another key goes back: an observer sees the second value, then the first.
        for (value, version) in [(2, 2), (3, 3)] {
            ok(&recorder, 5, MicroOp::Write { key: "l".to_owned(), value }, Some(version));
        }
        for (value, version) in [(3, 3), (2, 2)] {
            ok(&recorder, 6, read("l", Value::Integer(value)), Some(version));
        }
        assert!(matches!(verdict(&recorder), sequential::Verdict::Violation(_)));
    }
}

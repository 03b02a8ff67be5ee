//! Histories for tests: operations one after another, all acknowledged.

use crate::history::{Extras, MicroOp, Operation, Outcome};

/// The process whose reads are final.
pub(crate) const LAST: u64 = 9;

/// What each process does at which level, in turn.
pub(crate) fn run(steps: &[(u64, &str, MicroOp)]) -> Vec<Operation> {
    let at = |(at, (process, level, op)): (usize, &(u64, &str, MicroOp))| Operation {
        process: *process,
        invoke_line: 2 * at + 1,
        return_line: Some(2 * at + 2),
        micro_ops: vec![op.clone()],
        outcome: Outcome::Ok,
        extras: Extras {
            level: Some((*level).to_owned()),
            is_final: *process == LAST && matches!(op, MicroOp::Read { .. }),
            ..Extras::default()
        },
    };
    steps.iter().enumerate().map(at).collect()
}

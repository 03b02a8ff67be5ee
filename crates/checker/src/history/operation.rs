//! An invocation and its completion, put together.

use std::collections::BTreeMap;

use super::{Body, CAS_MISMATCH, Event, Extras, MicroOp, Phase};

/// What a client asked and was told. Lines count from 1 and are the clock.
#[derive(Clone, PartialEq, Debug)]
pub struct Operation {
    /// The session.
    pub process: u64,
    /// The line of its invocation.
    pub invoke_line: usize,
    /// The line by which it certainly took effect, or certainly never will. `None`: there is none.
    pub return_line: Option<usize>,
    /// What it does, in order, with what its reads saw if it is [`Outcome::Ok`]. Never empty.
    pub micro_ops: Vec<MicroOp>,
    /// What became of it.
    pub outcome: Outcome,
    /// What else is known of it.
    pub extras: Extras,
}

/// What became of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Took effect.
    Ok,
    /// Had no effect and never will.
    Fail,
    /// Failed, and certainly because its conditional write found another value than it asked for, or its bounded
    /// addition a sum that would have left the bounds.
    Mismatch,
    /// The client gave up on it: it may have taken effect, may do so later, or never.
    Info,
    /// The history ends before its completion. To a judge the same as [`Outcome::Info`].
    Pending,
}

impl Outcome {
    /// Whether it is for ever open if and when the operation took effect.
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::Info | Self::Pending)
    }
}

/// Pairs the events of a valid history; in the order of the invocations.
pub(super) fn pair(events: &[Event]) -> Vec<Operation> {
    let mut operations: Vec<Operation> = Vec::with_capacity(events.len() / 2);
    let mut open = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        let Body::Client { process, phase, micro_ops, extras } = &event.body else { continue };
        let outcome = match phase {
            Phase::Invoke => {
                open.insert(*process, operations.len());
                operations.push(Operation {
                    process: *process,
                    invoke_line: at + 1,
                    return_line: None,
                    micro_ops: micro_ops.clone(),
                    outcome: Outcome::Pending,
                    extras: extras.clone(),
                });
                continue;
            }
            Phase::Ok => Outcome::Ok,
            Phase::Fail if event.f == CAS_MISMATCH => Outcome::Mismatch,
            Phase::Fail => Outcome::Fail,
            Phase::Info => Outcome::Info,
        };
        let index = open.remove(process).expect("a valid history completes only what is open");
        let operation = &mut operations[index];
        operation.outcome = outcome;
        operation.extras = operation.extras.overlaid(extras);
        if !outcome.is_unknown() {
            operation.return_line = Some(at + 1);
        }
        if outcome == Outcome::Ok {
            operation.micro_ops.clone_from(micro_ops);
        }
    }
    operations
}

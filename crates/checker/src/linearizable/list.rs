//! One key as a list: what its operations found there, and what they appended.
//!
//! ```text
//!   read [1, 2]               the list is [1, 2]
//!   append 3                  leaves it 3 longer, whatever it is
//!   append 3, read [1, 3]     the list is [1], and [1, 3] afterwards; at one moment
//! ```
//!
//! An absent list is empty. What an operation of unknown outcome would have read demands nothing.

mod beginnings;
pub(super) mod evident;

use std::collections::{HashMap, HashSet};

use super::Doubt;
use super::kind::doubt;
use super::object::{Step, cite};
use crate::Violation;
use crate::history::{MicroOp, Operation, Outcome, Value};
pub(super) use beginnings::Beginnings;

/// What an operation does to the list.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Action<'a> {
    found: Found<'a>,
    /// What it appended, in order.
    appends: Vec<i64>,
}

/// What an operation demands of the list before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Found<'a> {
    Anything,
    /// This list.
    List(&'a [i64]),
    /// No list fits what the operation saw: this, and its own appends or what it saw besides.
    Contradiction(&'a [i64]),
}

impl<'a> Action<'a> {
    fn of(operation: &'a Operation) -> Self {
        let mut action = Self { found: Found::Anything, appends: Vec::new() };
        for micro_op in &operation.micro_ops {
            match micro_op {
                MicroOp::Append { value, .. } => action.appends.push(*value),
                MicroOp::Read { value, .. } if operation.outcome == Outcome::Ok => {
                    action.find(if let Value::List(list) = value { list } else { &[] });
                }
                _ => {}
            }
        }
        action
    }

    /// Takes what a read saw behind what was appended so far.
    fn find(&mut self, seen: &'a [i64]) {
        self.found = match (self.found, seen.strip_suffix(self.appends.as_slice())) {
            (Found::Contradiction(one), _) => Found::Contradiction(one),
            (Found::Anything, Some(before)) => Found::List(before),
            (Found::List(one), Some(before)) if one == before => Found::List(one),
            _ => Found::Contradiction(seen),
        };
    }

    /// The list before it, if that is known.
    fn before(&self) -> Option<&'a [i64]> {
        if let Found::List(list) = self.found { Some(list) } else { None }
    }
}

/// The operations of one key that bear on its order.
#[derive(Debug)]
pub(super) struct List<'a> {
    key: &'a str,
    /// In the order of their calls. Unknown reads are left out, and unknown appends that nobody saw.
    steps: Vec<Step<'a, Action<'a>>>,
    /// What failed operations would have appended.
    failed: HashMap<i64, &'a Operation>,
}

impl<'a> List<'a> {
    /// Takes the operations on `key`, in the order of their invocations.
    pub(super) fn new(key: &'a str, operations: &[&'a Operation]) -> Result<Self, Doubt> {
        let mut list = Self { key, steps: Vec::new(), failed: HashMap::new() };
        for &operation in operations {
            if !operation.micro_ops.iter().all(is_of_list) {
                return Err(doubt(key, operation));
            }
            let action = Action::of(operation);
            match operation.outcome {
                Outcome::Fail | Outcome::Mismatch => {
                    list.failed.extend(action.appends.iter().map(|&value| (value, operation)));
                }
                Outcome::Ok | Outcome::Info | Outcome::Pending => {
                    list.steps.push(Step::new(operation, action));
                }
            }
        }
        list.prune();
        Ok(list)
    }

    /// Drops the unknown appends that no read saw. In an order that has such a one, nobody reads after it,
    /// so the order is as legal without it.
    fn prune(&mut self) {
        let seen = self.steps.iter().filter_map(|step| step.action.before()).flatten();
        let seen: HashSet<i64> = seen.copied().collect();
        self.steps.retain(|step| {
            step.is_certain() || step.action.appends.iter().any(|value| seen.contains(value))
        });
    }

    /// The steps that certainly found a list, and that list.
    fn finders(&self) -> impl Iterator<Item = (&Step<'a, Action<'a>>, &'a [i64])> {
        self.steps.iter().filter_map(|step| Some((step, step.action.before()?)))
    }

    fn violation(&self, rule: &'static str, operations: &[&Operation], why: String) -> Violation {
        let operations = cite(self.key, operations);
        Violation { key: self.key.to_owned(), rule, operations, why }
    }
}

/// Whether a list has such an operation.
pub(super) fn is_of_list(micro_op: &MicroOp) -> bool {
    match micro_op {
        MicroOp::Read { value, .. } => !matches!(value, Value::Integer(_)),
        MicroOp::Append { .. } => true,
        _ => false,
    }
}

/// A list, for people: of a long one the end.
fn show(list: &[i64]) -> String {
    match list.len().checked_sub(ELEMENTS_SHOWN_MAX) {
        None | Some(0) => format!("{list:?}"),
        Some(more) => {
            let end: Vec<_> = list[more..].iter().map(ToString::to_string).collect();
            format!("[{more} more, {}]", end.join(", "))
        }
    }
}

/// Elements of a list an explanation names at most.
const ELEMENTS_SHOWN_MAX: usize = 8;

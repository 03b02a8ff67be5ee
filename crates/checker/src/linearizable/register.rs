//! One key as a register, and what its operations demand of a legal order.

mod numbered;

use std::collections::{HashMap, HashSet};

use super::Doubt;
use super::kind::doubt;
use super::object::{Step, cite};
use crate::Cited;
use crate::history::{MicroOp, Operation, Outcome, Value};
pub(super) use numbered::Numbered;

/// What a register holds: `None` if the key is absent, as at first.
pub(crate) type State = Option<i64>;

/// What an operation does to the register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Action {
    /// Saw this state.
    Read(State),
    /// Left this state, whatever was there: a write or a delete.
    Write(State),
    /// Found the first state and left the second: a cas or a put-if-absent.
    Swap(State, State),
    /// A conditional write that failed because this state was not there.
    Mismatch(State),
}

impl Action {
    /// The state it finds.
    pub(crate) fn finds(self) -> Option<State> {
        match self {
            Self::Read(state) | Self::Swap(state, _) => Some(state),
            Self::Write(_) | Self::Mismatch(_) => None,
        }
    }

    /// The state it leaves, if it writes.
    pub(crate) fn leaves(self) -> Option<State> {
        match self {
            Self::Write(state) | Self::Swap(_, state) => Some(state),
            Self::Read(_) | Self::Mismatch(_) => None,
        }
    }
}

/// The operations of one key that bear on its order.
#[derive(Debug)]
pub(crate) struct Register<'a> {
    pub(crate) key: &'a str,
    /// In the order of their calls. Unknown reads are left out, and unknown writes that nobody saw.
    pub(crate) steps: Vec<Step<'a, Action>>,
    /// The values that failed writes would have left, with their writes.
    pub(crate) failed: HashMap<State, &'a Operation>,
}

impl<'a> Register<'a> {
    /// Takes the operations on `key`, in the order of their invocations.
    pub(crate) fn new(key: &'a str, operations: &[&'a Operation]) -> Result<Self, Doubt> {
        let mut register = Self { key, steps: Vec::new(), failed: HashMap::new() };
        for &operation in operations {
            let action = action(operation).ok_or_else(|| doubt(key, operation))?;
            match (operation.outcome, action) {
                (Outcome::Ok, _) => register.steps.push(Step::new(operation, action)),
                (Outcome::Mismatch, Action::Swap(from, to)) => {
                    register.steps.push(Step::new(operation, Action::Mismatch(from)));
                    register.failed.insert(to, operation);
                }
                (Outcome::Fail | Outcome::Mismatch, _) => {
                    if let Some(state) = action.leaves() {
                        register.failed.insert(state, operation);
                    }
                }
                (Outcome::Info | Outcome::Pending, Action::Read(_)) => {}
                (Outcome::Info | Outcome::Pending, _) => {
                    register.steps.push(Step::new(operation, action));
                }
            }
        }
        register.prune();
        Ok(register)
    }

    /// Drops the unknown writes whose state nobody found. In an order that has such a write, the next
    /// step finds nothing or writes blindly, so the order is as legal without it. A mismatch is the
    /// one step that any other state explains; then all stay.
    fn prune(&mut self) {
        if self.steps.iter().any(|step| matches!(step.action, Action::Mismatch(_))) {
            return;
        }
        // Dropping an unknown cas may leave what it found unseen: again until nothing changes.
        loop {
            let found: HashSet<State> =
                self.steps.iter().filter_map(|step| step.action.finds()).collect();
            let before = self.steps.len();
            self.steps.retain(|step| {
                step.is_certain()
                    || step.action.leaves().is_some_and(|state| found.contains(&state))
            });
            if self.steps.len() == before {
                return;
            }
        }
    }

    /// Every state that may be written, with its writers; the initial state has none.
    pub(crate) fn writers(&self) -> HashMap<State, Vec<usize>> {
        let mut writers: HashMap<State, Vec<usize>> = HashMap::from([(None, Vec::new())]);
        for (at, step) in self.steps.iter().enumerate() {
            if let Some(state) = step.action.leaves() {
                writers.entry(state).or_default().push(at);
            }
        }
        writers
    }

    /// The operations, for a violation: in the order of their invocations, each once.
    pub(crate) fn cite(&self, operations: &[&Operation]) -> Vec<Cited> {
        cite(self.key, operations)
    }
}

/// A state, for people.
pub(crate) fn show(state: State) -> String {
    state.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

/// What a single step on a register does; `None` for anything else.
pub(crate) fn action(operation: &Operation) -> Option<Action> {
    let [micro_op] = operation.micro_ops.as_slice() else { return None };
    match micro_op {
        MicroOp::Read { value: Value::Absent, .. } => Some(Action::Read(None)),
        MicroOp::Read { value: Value::Integer(value), .. } => Some(Action::Read(Some(*value))),
        MicroOp::Write { value, .. } => Some(Action::Write(Some(*value))),
        MicroOp::CompareAndSet { from, to, .. } => Some(Action::Swap(*from, Some(*to))),
        MicroOp::PutIfAbsent { value, .. } => Some(Action::Swap(None, Some(*value))),
        MicroOp::Delete { .. } => Some(Action::Write(None)),
        MicroOp::Read { value: Value::List(_), .. }
        | MicroOp::Append { .. }
        | MicroOp::Add { .. }
        | MicroOp::BoundedAdd { .. }
        | MicroOp::MapPut { .. }
        | MicroOp::MapRemove { .. }
        | MicroOp::Enable { .. }
        | MicroOp::Disable { .. }
        | MicroOp::Remove { .. } => None,
    }
}

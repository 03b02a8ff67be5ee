//! Which object a key is, by the operations on it.

use super::{Doubt, counter, list, register};
use crate::Cited;
use crate::history::Operation;

/// The objects that can be judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Read, written, compared and set, put if absent, deleted; one at a time.
    Register,
    /// Read and added to, within bounds or not.
    Counter,
    /// Read and appended to.
    List,
}

impl Kind {
    /// The first object that has all these operations, so that what is only read and found absent is a
    /// register. Each operation counts, whatever became of it.
    pub(super) fn of(key: &str, operations: &[&Operation]) -> Result<Self, Doubt> {
        let mut kinds = vec![Self::Register, Self::Counter, Self::List];
        for operation in operations {
            kinds.retain(|kind| kind.has(key, operation));
            if kinds.is_empty() {
                return Err(doubt(key, operation));
            }
        }
        Ok(kinds[0])
    }

    fn has(self, key: &str, operation: &Operation) -> bool {
        operation.micro_ops.iter().all(|op| op.key() == key)
            && match self {
                Self::Register => register::action(operation).is_some(),
                Self::Counter => operation.micro_ops.iter().all(counter::is_of_counter),
                Self::List => operation.micro_ops.iter().all(list::is_of_list),
            }
    }
}

/// That nobody knows what the key is.
pub(super) fn doubt(key: &str, operation: &Operation) -> Doubt {
    let is_alone = operation.micro_ops.iter().all(|op| op.key() == key);
    let cited = if is_alone { Cited::new(key, operation) } else { Cited::across(operation) };
    Doubt::NoObject { line: operation.invoke_line, text: cited.text }
}

//! Values that cannot have been there at all, whatever the order.

use super::register::{Register, show};
use crate::Violation;

/// Finds a step that found a value which nobody wrote, or which only a failed write could have left.
pub(crate) fn judge(register: &Register<'_>) -> Option<Violation> {
    let writers = register.writers();
    let certain = register.steps.iter().filter(|step| step.is_certain());
    let (finder, state) = certain
        .filter_map(|step| step.action.finds().map(|state| (step, state)))
        .find(|(_, state)| !writers.contains_key(state))?;
    let value = show(state);
    let violation = match register.failed.get(&state) {
        Some(failed) => Violation {
            key: register.key.to_owned(),
            rule: "the value of a failed write was seen",
            operations: register.cite(&[failed, finder.source]),
            why: format!(
                "line {}: {value} was there, but its only write (line {}) failed, which promises that \
                 it had no effect and never will",
                finder.ret, failed.invoke_line
            ),
        },
        None => Violation {
            key: register.key.to_owned(),
            rule: "a value from thin air",
            operations: register.cite(&[finder.source]),
            why: format!("line {}: {value} was there, but nobody ever wrote it", finder.ret),
        },
    };
    Some(violation)
}

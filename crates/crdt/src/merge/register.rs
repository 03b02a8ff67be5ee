//! Registers: the larger time wins. Merging a write again changes nothing, so its id need not be kept.

use crdts::LWWReg;

use super::{MergeError, Outcome, State, Write};
use crate::{Content, Expected, Op, ValueType};

pub(super) fn merge<E>(state: &mut State, write: &Write<'_>) -> Result<Outcome, MergeError<E>> {
    if !matches!(state.content, Content::Deleted | Content::Plain(_)) {
        return Err(MergeError::Content(ValueType::Register));
    }
    let content = match write.op {
        Op::Put { value } => Content::Plain(value.clone()),
        Op::CompareAndSet { expected, new_value } => {
            if !holds(state, expected) {
                let found = state.version.filter(|_| state.exists());
                return Ok(Outcome::Mismatch { found });
            }
            new_value.clone().map_or(Content::Deleted, Content::Plain)
        }
        // The only other operation of a register.
        _ => Content::Deleted,
    };
    let time = Some(write.time());
    if state.version == time {
        return Ok(Outcome::Duplicate);
    }
    let mut register = LWWReg { val: std::mem::take(&mut state.content), marker: state.version };
    register.update(content, time);
    *state = State { version: register.marker, content: register.val };
    Ok(Outcome::Applied { superseded: state.version != time })
}

fn holds(state: &State, expected: &Expected) -> bool {
    match (expected, &state.content) {
        (Expected::Value(expected), Content::Plain(value)) => expected == value,
        (Expected::Version(expected), Content::Plain(_)) => Some(*expected) == state.version,
        (Expected::Absent, content) => *content == Content::Deleted,
        (Expected::Value(_) | Expected::Version(_), _) => false,
    }
}

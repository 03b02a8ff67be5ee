//! Counters: every add counts, once. What is folded is one number; only the ids of late adds are kept, for
//! as long as copies of them can come.

use super::{MergeError, Outcome, State, Write, spend, takes_effect};
use crate::value::saturated;
use crate::{Content, Ids, Op, ValueType};

pub(super) fn merge<I: Ids>(
    state: &mut State,
    write: &Write<'_>,
    ids: &mut I,
) -> Result<Outcome, MergeError<I::Error>> {
    let sum = match state.content {
        Content::Deleted => 0,
        Content::Counter(sum) => sum,
        Content::Plain(_) | Content::Live(_) => {
            return Err(MergeError::Content(ValueType::Counter));
        }
    };
    if let Op::AddWithin { amount, least, most } = write.op {
        let after = sum.wrapping_add(i128::from(*amount));
        let too_little = least.is_some_and(|least| after < i128::from(least));
        if too_little || most.is_some_and(|most| after > i128::from(most)) {
            return Ok(Outcome::OutOfBounds { found: saturated(sum) });
        }
    }
    // An add ends nothing: what was counted before it could not be taken back, so adds would no longer
    // commute. A reset or delete has its place in the log; what it names and is not folded yet never counts.
    if matches!(write.op, Op::Reset | Op::Delete) {
        write.named.iter().try_for_each(|id| spend(id, ids))?;
    }
    state.raise_version(write.time());
    if !takes_effect(write, ids)? {
        return Ok(Outcome::Duplicate);
    }
    state.content = match write.op {
        // Wraps only after 2^64 adds of the largest amount; unlike saturation it commutes even then.
        Op::Add { amount } | Op::AddWithin { amount, .. } => {
            Content::Counter(sum.wrapping_add(i128::from(*amount)))
        }
        Op::Reset => Content::Counter(0),
        // The only other operation of a counter.
        _ => Content::Deleted,
    };
    Ok(Outcome::Applied { superseded: false })
}

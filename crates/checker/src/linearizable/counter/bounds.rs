//! Sums that a counter cannot have had, whatever the order. O(n log n).
//!
//! ```text
//!   add 5 ├───┤                         what had returned:     5
//!   add -2        ├────────────┤        what was open beside:  -2 and 3
//!   add 3 (unknown)  ├───────           so the read found 3 to 8
//!   read             ├────┤
//! ```
//!
//! The search finds all that is found here, and more; but beside many additions of unknown outcome it may not
//! come to an end.

use super::{Action, Counter};
use crate::Violation;
use crate::counter::Sums;
use crate::history::Operation;
use crate::linearizable::object::{Step, cite};

/// Finds a step that demands a sum below or above all that were possible.
pub(in crate::linearizable) fn judge(counter: &Counter<'_>) -> Option<Violation> {
    let (mut begun, mut returned) = (Sums::default(), Sums::default());
    for step in &counter.steps {
        begun.push(step.call as u64, step.action.amount);
    }
    let mut certain: Vec<_> = counter.steps.iter().filter(|step| step.is_certain()).collect();
    certain.sort_unstable_by_key(|step| step.ret);
    for step in &certain {
        returned.push(step.ret as u64, step.action.amount);
    }
    certain.into_iter().filter(|step| step.action.within).find_map(|step| {
        let Action { low, high, amount, .. } = step.action;
        let before = returned.below(step.call as u64);
        // All that had begun, but not the step itself.
        let all = begun.below(step.ret as u64);
        let least = before.up + all.down - amount.min(0);
        let most = before.down + all.up - amount.max(0);
        let impossible = low > most || high < least || low > high;
        impossible.then(|| violation(counter, step, before.net(), (least, most)))
    })
}

fn violation(
    counter: &Counter<'_>,
    step: &Step<'_, Action>,
    before: i128,
    (least, most): (i128, i128),
) -> Violation {
    let too_much = step.action.low > most;
    let rule = match () {
        () if too_much => "a counter above what was ever added",
        () if step.action.high < least => "a counter below what it certainly had",
        () => "one operation found two sums",
    };
    let counts = |other: &&Step<'_, Action>| {
        let in_time = if too_much { other.call < step.ret } else { other.ret < step.call };
        let adds = if too_much { other.action.amount > 0 } else { other.action.amount != 0 };
        adds && in_time && other.call != step.call
    };
    let additions = counter.steps.iter().rev().filter(counts).take(ADDITIONS_SHOWN_MAX);
    let sources: Vec<&Operation> = additions.chain([step]).map(|step| step.source).collect();
    let why = format!(
        "line {} {}; but what had returned before line {} adds up to {before}, and what was open beside it \
         leaves {least} to {most}",
        step.ret, step.action, step.call
    );
    Violation { key: counter.key.to_owned(), rule, operations: cite(counter.key, &sources), why }
}

/// Additions that an explanation cites at most.
const ADDITIONS_SHOWN_MAX: usize = 5;

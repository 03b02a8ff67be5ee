//! INV-2 (`consistency.md`): a request's clock is merged before the request has any effect, and a reply's clock is read
//! after all it tells.
//!
//! Seen from outside, where both ends of it can be:
//!
//! | who | merged before | read after |
//! | --- | --- | --- |
//! | clients | what is written is stamped above all that its session had seen | |
//! | nodes | a stretch's frame has a clock no less than that of the pull it answers | and no less than the frontier it tells |

use std::collections::BTreeMap;

use latitude_types::Timestamp;

use crate::net::Wire;
use crate::violation::{Check, Violation};

/// The clocks of questions that are not answered yet.
#[derive(Default)]
pub(crate) struct Merged {
    asked: BTreeMap<(Wire, u64), Timestamp>,
}

impl Merged {
    /// A node asks another one, in a frame with this clock.
    pub(crate) fn asked(&mut self, (wire, call): (&Wire, u64), clock: Timestamp) {
        self.asked.insert((wire.clone(), call), clock);
    }

    /// It is answered, in a frame with this clock, and told of a frontier.
    pub(crate) fn answered(
        &mut self,
        (wire, call): (&Wire, u64),
        clock: Timestamp,
        frontier: Timestamp,
    ) -> Option<Violation> {
        let asked = self.asked.remove(&(wire.clone(), call));
        if let Some(asked) = asked.filter(|asked| *asked > clock) {
            let what = format!("a frame has the clock {clock}, and answers one that had {asked}");
            return Some(Check::Merged.found(what));
        }
        (frontier > clock).then(|| {
            Check::Merged.found(format!("a frame has the clock {clock}, and tells of {frontier}"))
        })
    }
}

/// A write whose session had seen nothing above `seen` was acknowledged with this time.
pub(crate) fn wrote(seen: Timestamp, written: Timestamp) -> Option<Violation> {
    (written <= seen).then(|| {
        let what = format!("a write is stamped {written}, and its session had seen {seen} before");
        Check::Merged.found(what)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    #[test]
    fn an_answer_is_not_below_its_question_and_tells_of_nothing_above_itself() {
        let wire = (Arc::from("node-1"), 7);
        let answer = |clock, frontier| {
            let mut merged = Merged::default();
            merged.asked((&wire, 1), at(10));
            merged.asked((&wire, 2), at(90));
            merged.answered((&wire, 1), at(clock), at(frontier)).map(|found| found.check)
        };
        assert_eq!(answer(10, 10), None, "a frame's clock is read, and nothing is stamped with it");
        assert_eq!(answer(9, 5), Some(Check::Merged), "its clock was not merged");
        assert_eq!(answer(20, 21), Some(Check::Merged), "the clock was read before");
    }

    #[test]
    fn a_write_is_above_what_its_session_had_seen() {
        assert_eq!(wrote(at(10), at(11)), None);
        assert_eq!(wrote(at(10), at(10)).map(|found| found.check), Some(Check::Merged));
    }
}

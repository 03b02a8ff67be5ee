//! As of when this node knows the streams of others, on its own monotonic clock.
//!
//! ```text
//!   nudge n sent ────────▶ origin: D                                  all it has acknowledged when n came
//!        │                        │                                   is at or below D
//!        └── age counts from here ┴─▶ stretch (.., D], answers n ──▶ held, shown
//! ```
//!
//! No clock but this node's own is in the argument, as with closed times.

use std::collections::BTreeMap;

use latitude_types::{NodeId, RangeId, Timestamp};
use tokio::time::Instant;

use super::Local;

/// Nudges on their way, and what the last answer said.
pub(super) struct Fresh {
    /// Of the last nudge. They begin at the clock, which no earlier life of this node has reached: an origin that
    /// remembers a nudge of that life answers none of these.
    number: u64,
    sent: BTreeMap<NodeId, BTreeMap<u64, Instant>>,
    answers: BTreeMap<NodeId, Answered>,
}

/// All that an origin had acknowledged by then is positioned up to there.
#[derive(Clone, Copy)]
struct Answered {
    as_of: Instant,
    up_to: Timestamp,
}

/// Unanswered nudges to one origin that are remembered.
const UNANSWERED_MAX: usize = 64;

impl Fresh {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { number: now.0, sent: BTreeMap::new(), answers: BTreeMap::new() }
    }
}

impl Local {
    /// Numbers a nudge that is about to be sent.
    pub(crate) fn begin_nudge(&self, origin: NodeId) -> u64 {
        let mut state = self.state();
        let fresh = &mut state.fresh;
        fresh.number += 1;
        let sent = fresh.sent.entry(origin).or_default();
        sent.insert(fresh.number, Instant::now());
        if sent.len() > UNANSWERED_MAX {
            sent.pop_first();
        }
        fresh.number
    }

    /// A stretch that was taken in without a gap answers every nudge up to this number.
    pub(super) fn answered(&self, origin: NodeId, number: u64, up_to: Timestamp) {
        let mut state = self.state();
        let fresh = &mut state.fresh;
        let Some(sent) = fresh.sent.get_mut(&origin) else { return };
        let later = sent.split_off(&(number + 1));
        if let Some((_, as_of)) = std::mem::replace(sent, later).pop_last() {
            fresh.answers.insert(origin, Answered { as_of, up_to });
        }
    }

    /// As of when a read of the range misses nothing that another origin of it has acknowledged: of what is shown
    /// if `shown`, else of what is held. The origin that is the oldest, and `None` for one that never answered, or
    /// whose answer is not met here yet.
    pub(crate) fn as_of(&self, range: RangeId, shown: bool) -> Option<(NodeId, Option<Instant>)> {
        let state = self.state();
        let others = state.marks.taking_in(range).filter(|(origin, _)| *origin != self.inner.node);
        others
            .map(|(origin, held)| {
                let known = if shown { held.min(state.visible.of(origin)) } else { held };
                let answer = state.fresh.answers.get(&origin);
                (origin, answer.filter(|answer| answer.up_to <= known).map(|answer| answer.as_of))
            })
            .min_by_key(|(_, as_of)| *as_of)
    }
}

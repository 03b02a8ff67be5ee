//! Whether a replica may answer a read from its base as it is.
//!
//! ```text
//!   a: last applied stamp        closed
//!   ───●───────────────────────────●──────▶ the one order of all log entries
//!      └── the snapshot's place ───┘   s here or below: the answer stands at max(s, a)
//!                                      s above: something below s may be missing
//! ```
//!
//! Why the answers of all sessions fit into one order: the snapshot holds every entry stamped up to
//! max(a, closed), for ever, and none above a. So the read may be put anywhere from a to max(a, closed); it
//! is put at max(s, a), which is in there exactly if s is not above. What the session does next is put
//! above that. Places in different ranges compare, because stamps do.

use std::time::Duration;

use latitude_types::{Stamp, Timestamp};

use crate::closed::{Closed, closed_up_to};

/// What a replica knows at the moment of a snapshot of its base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// a: the stamp of the last entry in the snapshot.
    pub last_stamp: Stamp,
    /// The closed time that what was applied *before* the snapshot was taken had reached.
    pub closed: Option<Closed>,
    /// How stale the snapshot may be, as far as that is proved without trust in clocks ([`Closed::age`]).
    pub staleness: Option<Duration>,
}

/// What becomes of a sequential read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SequentialRead {
    /// It is answered, and its session then stands here.
    Answer {
        /// max(s, a).
        stands_at: Stamp,
    },
    /// The session stands above what the replica knows.
    Behind {
        /// The replica knows everything up to here.
        up_to: Stamp,
    },
    /// The answer may be staler than the read allows.
    Stale,
}

impl Known {
    /// What becomes of a sequential read of a session that stands at `stood`, and that must be no staler than
    /// `staleness_max`, if it says so.
    pub fn sequential_read(&self, stood: Stamp, staleness_max: Option<Duration>) -> SequentialRead {
        let up_to = closed_up_to(self.last_stamp, self.closed);
        if stood > up_to {
            return SequentialRead::Behind { up_to };
        }
        let fresh = |most| self.staleness.is_some_and(|staleness| staleness <= most);
        if !staleness_max.is_none_or(fresh) {
            return SequentialRead::Stale;
        }
        SequentialRead::Answer { stands_at: stood.max(self.last_stamp) }
    }
}

/// Whether a range answers strict reads: not once its replica has applied that it is frozen for a merge,
/// because its left neighbour may have taken it in and taken writes since (pitfall B10).
pub fn answers_strict_reads(freeze: Option<Timestamp>) -> bool {
    freeze.is_none()
}

#[cfg(test)]
mod tests {
    use latitude_types::NodeId;
    use proptest::prelude::*;

    use super::*;
    use crate::closed::{ClosedTimes, LogPlace};

    fn stamp(time: u64) -> Stamp {
        Stamp { time: Timestamp(time), node: NodeId(1) }
    }

    /// A log of one range, and what was closed of it: at each place, a time that no later entry reaches.
    fn logs() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((1u64..6, 0u64..6), 1..8)
    }

    proptest! {
        /// Against the definition, over two ranges: a session reads here and there, at replicas that have
        /// applied some prefix each and heard some of what was closed. Each answer holds exactly the entries
        /// stamped at or below some place; those places never go down.
        #[test]
        fn the_answers_of_a_session_are_states_of_one_order(
            ranges in prop::collection::vec(logs(), 2),
            reads in prop::collection::vec((0usize..2, 0usize..9, any::<u16>()), 1..12),
        ) {
            // Stamps rise by the first number of each pair; the second is how far it was closed beyond.
            let logs: Vec<Vec<(u64, u64)>> = ranges.iter().map(|steps| {
                let mut at = 0;
                steps.iter().map(|(rise, beyond)| {
                    let entry = at + rise;
                    at = entry + beyond;
                    (entry, at)
                }).collect()
            }).collect();
            let mut stood = Stamp::ZERO;
            for (range, applied, heard) in reads {
                let log = &logs[range];
                let applied = applied.min(log.len());
                let mut times = ClosedTimes::default();
                for (i, (_, closed)) in log.iter().enumerate() {
                    if heard >> i & 1 == 1 {
                        times.learn(Closed {
                            at: LogPlace { term: 1, index: i as u64 + 1 },
                            time: Timestamp(*closed),
                            asked: Duration::ZERO,
                        });
                    }
                }
                let last = applied.checked_sub(1).map_or(0, |at| log[at].0);
                let known = Known {
                    last_stamp: if last == 0 { Stamp::ZERO } else { stamp(last) },
                    closed: times.reached(LogPlace { term: 1, index: applied as u64 }),
                    staleness: None,
                };
                if let SequentialRead::Answer { stands_at } = known.sequential_read(stood, None) {
                    prop_assert!(stands_at >= stood);
                    stood = stands_at;
                    // The state at the place is the prefix that was read: nothing more is stamped up to it.
                    let next = log.get(applied).map_or(u64::MAX, |(entry, _)| *entry);
                    prop_assert!(last <= stood.time.0 && stood.time.0 < next);
                }
            }
        }
    }

    #[test]
    fn a_bound_that_cannot_be_proved_is_not_kept() {
        let ms = Duration::from_millis;
        let known = |staleness| Known { last_stamp: stamp(5), closed: None, staleness };
        let answer = SequentialRead::Answer { stands_at: stamp(5) };
        assert_eq!(known(None).sequential_read(stamp(3), None), answer);
        assert_eq!(known(None).sequential_read(stamp(3), Some(ms(10))), SequentialRead::Stale);
        assert_eq!(
            known(Some(ms(11))).sequential_read(stamp(3), Some(ms(10))),
            SequentialRead::Stale
        );
        assert_eq!(known(Some(ms(10))).sequential_read(stamp(3), Some(ms(10))), answer);
    }

    /// Pitfall B10.
    #[test]
    fn b10_a_frozen_range_answers_no_strict_read() {
        assert!(answers_strict_reads(None));
        assert!(!answers_strict_reads(Some(Timestamp(9))));
    }
}

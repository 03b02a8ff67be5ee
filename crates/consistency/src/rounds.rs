//! Reads of one range share rounds of questions: strict ones to a quorum, for the commit index; sequential
//! ones to the leader, for a closed time.

use std::collections::BTreeMap;
use std::fmt;

use latitude_probe::{Mark, Plant};

/// Rounds of one range under way at once.
///
/// One would make a read wait for up to a whole wide-area round trip before its own begins; without a
/// limit there is no batching. With four, a read waits for at most a quarter of a round trip when
/// rounds start evenly.
pub const ROUNDS_IN_FLIGHT_MAX: usize = 4;

/// The number of a round: rises in the order in which rounds start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RoundId(u64);

impl fmt::Display for RoundId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}", self.0)
    }
}

/// Which reads wait for which round of a range.
///
/// ```text
///   join ──▶ waiting ──next_round──▶ in flight (≤ 4) ──completed──▶ answered once the index is applied
/// ```
///
/// A round asks what is true now: a quorum for the commit index, or the leader for a closed time. A read may
/// use the answer of any round that *started* after the read arrived: everything acknowledged before the
/// arrival was then committed, and is below the time closed. Hence:
///
/// - A read that arrives while rounds are in flight takes part in none of them.
/// - A round that succeeds answers also the reads of earlier rounds still in flight: it started after
///   they did, so it started after those reads arrived. A slow or lost message delays nobody twice.
/// - A round that fails fails its own reads only.
#[derive(Debug)]
pub struct Rounds<W> {
    waiting: Vec<W>,
    /// A round whose reads were answered by a later one stays, empty, until it ends: its messages are
    /// still on their way and count against the limit.
    in_flight: BTreeMap<RoundId, Vec<W>>,
    next: RoundId,
    in_flight_max: usize,
}

/// The reads that a round's end concerns.
#[derive(Debug, PartialEq, Eq)]
pub struct Completed<W, T, E> {
    /// In the order in which they joined.
    pub waiters: Vec<W>,
    /// `Ok`: what the round found, which all of them may use. `Err`: why it failed; the reads may join
    /// again.
    pub outcome: Result<T, E>,
}

impl<W> Default for Rounds<W> {
    fn default() -> Self {
        Self::new(ROUNDS_IN_FLIGHT_MAX)
    }
}

impl<W> Rounds<W> {
    /// No reads, no rounds; at most `in_flight_max` rounds at once.
    ///
    /// # Panics
    ///
    /// If `in_flight_max` is zero: no read would ever be answered.
    pub fn new(in_flight_max: usize) -> Self {
        assert!(in_flight_max > 0, "without rounds no read is answered");
        Self { waiting: Vec::new(), in_flight: BTreeMap::new(), next: RoundId(1), in_flight_max }
    }

    /// A read arrives. It takes part in the next round to start.
    pub fn join(&mut self, waiter: W) {
        if Plant::JoinsRoundUnderWay.is_on()
            && let Some(mut round) = self.in_flight.last_entry()
        {
            round.get_mut().push(waiter);
            return;
        }
        self.waiting.push(waiter);
    }

    /// Starts a round with all reads that wait, if there are any and a round may start. The caller sends
    /// its question *after* this call; ask again after each [`Self::join`] and [`Self::completed`].
    pub fn next_round(&mut self) -> Option<RoundId> {
        if self.waiting.is_empty() {
            return None;
        }
        if self.in_flight.len() >= self.in_flight_max {
            Mark::RoundsFull.hit();
            return None;
        }
        let round = self.next;
        self.next = RoundId(round.0 + 1);
        self.in_flight.insert(round, std::mem::take(&mut self.waiting));
        Some(round)
    }

    /// A round ended: with what was true when it started or later (a commit index, a closed time), or with
    /// the reason why it failed. A round that is not in flight concerns nobody.
    pub fn completed<T, E>(&mut self, round: RoundId, outcome: Result<T, E>) -> Completed<W, T, E> {
        let Some(own) = self.in_flight.remove(&round) else {
            return Completed { waiters: Vec::new(), outcome };
        };
        let mut waiters = Vec::new();
        if outcome.is_ok() {
            for (_, earlier) in self.in_flight.range_mut(..round) {
                if !earlier.is_empty() {
                    Mark::RoundOvertaken.hit();
                }
                waiters.append(earlier);
            }
        }
        waiters.extend(own);
        Completed { waiters, outcome }
    }

    /// Drops the reads that nobody waits for any more, so that no round starts for them alone.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(&W) -> bool) {
        self.waiting.retain(&mut is_wanted);
    }

    /// Reads that wait for a round to start.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Rounds that have started and not ended.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes every read, waiting or in flight, for example because the replica goes away.
    pub fn drain(&mut self) -> Vec<W> {
        let mut all: Vec<W> = std::mem::take(&mut self.in_flight).into_values().flatten().collect();
        all.append(&mut self.waiting);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unknown_round_concerns_nobody() {
        let mut rounds = Rounds::default();
        rounds.join("a");
        let round = rounds.next_round().unwrap();
        assert_eq!(rounds.completed::<_, ()>(round, Ok(1)).waiters, ["a"]);
        rounds.join("b");
        assert!(rounds.completed::<_, ()>(round, Ok(2)).waiters.is_empty());
        assert_eq!(rounds.waiting(), 1);
    }

    #[test]
    fn draining_hands_back_every_read_once() {
        let mut rounds = Rounds::new(1);
        rounds.join(1);
        let round = rounds.next_round().unwrap();
        rounds.join(2);
        assert_eq!(rounds.drain(), [1, 2]);
        assert!(rounds.completed::<_, ()>(round, Ok(1)).waiters.is_empty());
        assert_eq!(rounds.next_round(), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join,
        Start,
        End { pick: usize, succeeds: bool },
        GiveUp { every: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Join),
            3 => Just(Step::Start),
            3 => (0usize..4, any::<bool>()).prop_map(|(pick, succeeds)| Step::End { pick, succeeds }),
            1 => (2u64..5).prop_map(|every| Step::GiveUp { every }),
        ]
    }

    proptest! {
        /// Against a model that stamps every event with a step number: an answered read arrived before
        /// the round that answered it started, and no read is lost or answered twice.
        #[test]
        fn a_round_answers_only_reads_that_arrived_before_it_started(
            steps in prop::collection::vec(step(), 1..200),
            max in 1usize..5,
        ) {
            let mut rounds = Rounds::new(max);
            // A read is known by the step of its arrival, a round by the step of its start.
            let mut started: Vec<(RoundId, u64)> = Vec::new();
            let mut open: BTreeSet<u64> = BTreeSet::new();
            let mut waiting: BTreeSet<u64> = BTreeSet::new();
            for (now, step) in steps.into_iter().enumerate() {
                let now = now as u64;
                match step {
                    Step::Join => {
                        rounds.join(now);
                        open.insert(now);
                        waiting.insert(now);
                    }
                    Step::Start => {
                        let may_start = !waiting.is_empty() && started.len() < max;
                        let round = rounds.next_round();
                        prop_assert_eq!(round.is_some(), may_start);
                        if let Some(round) = round {
                            prop_assert!(started.iter().all(|(earlier, _)| *earlier < round));
                            started.push((round, now));
                            waiting.clear();
                        }
                    }
                    Step::End { pick, succeeds } => {
                        if started.is_empty() { continue }
                        let (round, start) = started.remove(pick % started.len());
                        let outcome = if succeeds { Ok(now) } else { Err("lost") };
                        let completed = rounds.completed(round, outcome);
                        prop_assert!(completed.waiters.is_sorted());
                        for arrival in completed.waiters {
                            prop_assert!(arrival < start);
                            prop_assert!(open.remove(&arrival));
                        }
                        // A success leaves nobody behind who may use it.
                        if succeeds {
                            prop_assert!(open.range(..start).next().is_none());
                        }
                    }
                    Step::GiveUp { every } => {
                        rounds.retain(|arrival| arrival % every != 0);
                        waiting.retain(|arrival| {
                            let stays = arrival % every != 0;
                            if !stays { open.remove(arrival); }
                            stays
                        });
                    }
                }
                prop_assert!(rounds.in_flight() <= max);
                prop_assert_eq!(rounds.in_flight(), started.len());
                prop_assert_eq!(rounds.waiting(), waiting.len());
            }
            for (round, _) in started {
                for arrival in rounds.completed::<u64, ()>(round, Err(())).waiters {
                    prop_assert!(open.remove(&arrival));
                }
            }
            prop_assert_eq!(open, waiting);
        }
    }
}

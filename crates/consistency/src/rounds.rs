//! Reads of one range share rounds of questions: strict ones to a quorum, for the commit index; sequential
//! ones to the leader, for a closed time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use latitude_probe::{Mark, Plant};

/// Rounds of one range under way at once.
///
/// One would make a read wait for up to a whole wide-area round trip before its own begins; without a
/// limit there is no batching. With four, evenly spaced, a read waits for at most a quarter of a round trip.
pub const ROUNDS_IN_FLIGHT_MAX: usize = 4;
/// Rounds of one range do not start sooner after each other than this while one is under way: where a round
/// trip takes less, one at a time is enough, and more of them cost more than the wait they save.
pub const ROUNDS_APART_MIN: Duration = Duration::from_millis(1);

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
/// - Rounds start evenly: while some are in flight, the next one waits for its share of the time that the last
///   successful one took. Started all at once, they would leave whoever comes next waiting for a whole one.
#[derive(Debug)]
pub struct Rounds<W> {
    waiting: Vec<W>,
    /// A round whose reads were answered by a later one stays, empty, until it ends: its messages are
    /// still on their way and count against the limit.
    in_flight: BTreeMap<RoundId, Flight<W>>,
    next: RoundId,
    in_flight_max: usize,
    apart_min: Duration,
    /// How long rounds start apart while some are in flight.
    apart: Duration,
    last_start: Duration,
}

#[derive(Debug)]
struct Flight<W> {
    waiters: Vec<W>,
    started: Duration,
}

/// Whether a round starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextRound {
    /// This one does.
    Starts(RoundId),
    /// Not before this time.
    NotBefore(Duration),
    /// Not before a read joins or a round ends.
    No,
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
        Self::new(ROUNDS_IN_FLIGHT_MAX, ROUNDS_APART_MIN)
    }
}

impl<W> Rounds<W> {
    /// No reads, no rounds; at most `in_flight_max` rounds at once, started at least `apart_min` apart.
    ///
    /// # Panics
    ///
    /// If `in_flight_max` is zero: no read would ever be answered.
    pub fn new(in_flight_max: usize, apart_min: Duration) -> Self {
        assert!(in_flight_max > 0, "without rounds no read is answered");
        Self {
            waiting: Vec::new(),
            in_flight: BTreeMap::new(),
            next: RoundId(1),
            in_flight_max,
            apart_min,
            apart: apart_min,
            last_start: Duration::ZERO,
        }
    }

    /// A read arrives. It takes part in the next round to start.
    pub fn join(&mut self, waiter: W) {
        if Plant::JoinsRoundUnderWay.is_on()
            && let Some(mut round) = self.in_flight.last_entry()
        {
            round.get_mut().waiters.push(waiter);
            return;
        }
        self.waiting.push(waiter);
    }

    /// Starts a round with all reads that wait, if there are any and a round may start. The caller sends
    /// its question *after* this call; ask again after each [`Self::join`] and [`Self::completed`], and at the
    /// time that is named. `now` never goes back.
    pub fn next_round(&mut self, now: Duration) -> NextRound {
        if self.waiting.is_empty() {
            return NextRound::No;
        }
        if self.in_flight.len() >= self.in_flight_max {
            Mark::RoundsFull.hit();
            return NextRound::No;
        }
        let due = self.last_start + self.apart;
        if !self.in_flight.is_empty() && now < due {
            return NextRound::NotBefore(due);
        }
        let round = self.next;
        self.next = RoundId(round.0 + 1);
        self.last_start = now;
        let waiters = std::mem::take(&mut self.waiting);
        self.in_flight.insert(round, Flight { waiters, started: now });
        NextRound::Starts(round)
    }

    /// A round ended: with what was true when it started or later (a commit index, a closed time), or with
    /// the reason why it failed. A round that is not in flight concerns nobody.
    pub fn completed<T, E>(
        &mut self,
        round: RoundId,
        outcome: Result<T, E>,
        now: Duration,
    ) -> Completed<W, T, E> {
        let Some(own) = self.in_flight.remove(&round) else {
            return Completed { waiters: Vec::new(), outcome };
        };
        let mut waiters = Vec::new();
        if outcome.is_ok() {
            let took = now.saturating_sub(own.started);
            self.apart = (took / self.in_flight_max as u32).max(self.apart_min);
            for (_, earlier) in self.in_flight.range_mut(..round) {
                if !earlier.waiters.is_empty() {
                    Mark::RoundOvertaken.hit();
                }
                waiters.append(&mut earlier.waiters);
            }
        }
        waiters.extend(own.waiters);
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
        let in_flight = std::mem::take(&mut self.in_flight).into_values();
        let mut all: Vec<W> = in_flight.flat_map(|flight| flight.waiters).collect();
        all.append(&mut self.waiting);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Rounds that may start at any time.
    fn unspaced<W>(in_flight_max: usize) -> Rounds<W> {
        Rounds::new(in_flight_max, Duration::ZERO)
    }

    fn start<W>(rounds: &mut Rounds<W>, now: Duration) -> RoundId {
        match rounds.next_round(now) {
            NextRound::Starts(round) => round,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_unknown_round_concerns_nobody() {
        let mut rounds = unspaced(4);
        rounds.join("a");
        let round = start(&mut rounds, MS);
        assert_eq!(rounds.completed::<_, ()>(round, Ok(1), MS).waiters, ["a"]);
        rounds.join("b");
        assert!(rounds.completed::<_, ()>(round, Ok(2), MS).waiters.is_empty());
        assert_eq!(rounds.waiting(), 1);
    }

    #[test]
    fn draining_hands_back_every_read_once() {
        let mut rounds = unspaced(1);
        rounds.join(1);
        let round = start(&mut rounds, MS);
        rounds.join(2);
        assert_eq!(rounds.drain(), [1, 2]);
        assert!(rounds.completed::<_, ()>(round, Ok(1), MS).waiters.is_empty());
        assert_eq!(rounds.next_round(MS), NextRound::No);
    }

    #[test]
    fn rounds_start_evenly_over_the_time_that_one_takes() {
        let mut rounds = Rounds::new(4, MS);
        rounds.join(1);
        let first = start(&mut rounds, 100 * MS);
        rounds.join(2);
        assert_eq!(
            rounds.next_round(100 * MS),
            NextRound::NotBefore(101 * MS),
            "nothing is known yet"
        );
        // A failure says nothing of how long one takes.
        rounds.completed::<(), _>(first, Err(()), 900 * MS);
        let second = start(&mut rounds, 900 * MS);
        rounds.completed::<_, ()>(second, Ok(()), 1_100 * MS);
        for quarter in 0..4 {
            let due = (2_000 + 50 * quarter) * MS;
            rounds.join(3);
            if quarter > 0 {
                assert_eq!(rounds.next_round(due - MS), NextRound::NotBefore(due));
            }
            start(&mut rounds, due);
        }
        rounds.join(4);
        assert_eq!(rounds.next_round(3_000 * MS), NextRound::No, "four are in flight");
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
            let mut rounds = unspaced(max);
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
                        let next = rounds.next_round(Duration::from_millis(now));
                        prop_assert_eq!(next != NextRound::No, may_start);
                        if let NextRound::Starts(round) = next {
                            prop_assert!(started.iter().all(|(earlier, _)| *earlier < round));
                            started.push((round, now));
                            waiting.clear();
                        }
                    }
                    Step::End { pick, succeeds } => {
                        if started.is_empty() { continue }
                        let (round, start) = started.remove(pick % started.len());
                        let outcome = if succeeds { Ok(now) } else { Err("lost") };
                        let completed = rounds.completed(round, outcome, Duration::from_millis(now));
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
                for arrival in rounds.completed::<u64, ()>(round, Err(()), MS).waiters {
                    prop_assert!(open.remove(&arrival));
                }
            }
            prop_assert_eq!(open, waiting);
        }
    }
}

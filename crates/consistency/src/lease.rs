//! Leases: strict reads without a message, where every voter keeps its promises over restarts.
//!
//! ```text
//!   leader:  sent t ──────────── lease read at τ ────┤ t + L(1−2ρ)
//!   voter:         heard ≥ t ───── votes for nobody else ────────────┤ heard + L, on its own clock
//!   voter, restarted:     start ─── silent: no vote, no campaign, no transfer ───┤ start + L(1+ρ)
//! ```
//!
//! L is the longest election timeout, ρ = 10 %. A read that arrived before τ may be answered from a state
//! that has everything committed at τ, if at τ nobody else can have committed anything: then τ is where the
//! read takes effect, however long the process is stopped between τ and its answer. At τ nobody can, because
//! a quorum heard the leader at t or later, and of those no one has voted since:
//!
//! - One that still runs keeps what it heard for L on its own clock. That is at least L(1−ρ), if clocks run
//!   at most ρ apart, and the leader uses L(1−2ρ).
//! - One that restarted has forgotten its promise, and is silent for L(1+ρ) on its own clock, which is L or
//!   more. The leader counts only on voters that have said so in the life they are in, of messages it sent
//!   after they said so; and a node that stops keeping leases is silent once more at its next start. So
//!   whichever life of the voter answered, the one after it begins with a silence.
//! - The other ρ is for a leader whose monotonic clock stood still, as it may while a virtual machine is
//!   paused: [`LeaseRule::observe`] notices that wall and monotonic clock have parted by more than L·ρ. What
//!   was acknowledged before counts no more. Looked at before *and after* the question whether a lease holds
//!   ([`LeaseRule::grant`], [`LeaseRule::still_holds`]), so that no pause falls between the look and τ.
//!
//! A session that stands at a time s needs more: no later leader may stamp an entry at or below s, or the
//! session would stand above what it has not seen. Stamps of one range rise (INV-3), so it is enough that
//! the range has applied a stamp of s or above; or that the quorum answered a message sent when the leader's
//! clock was at s already: then every later leader's clock is (INV-4). An older acknowledgement is a lease
//! for a read without a session and none for this one.
//!
//! HAZARD: a machine whose wall clock stood still with its monotonic one, and is not set right when it goes
//! on, is not noticed. Hence leases are opt-in.
//!
//! Sources: Ongaro, *Consensus: Bridging Theory and Practice*, 6.4.1; Gray and Cheriton, *Leases* (SOSP 1989).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use latitude_probe::Mark;
use latitude_types::{NodeId, Timestamp};

/// How long an acknowledgement of a lease of this length may be used: L(1−2ρ).
pub fn lease_usable(lease: Duration) -> Duration {
    lease - 2 * tolerance(lease)
}

/// How long a node is silent after its start if it, or its life before, keeps leases of this length: L(1+ρ).
pub fn silence_after_start(lease: Duration) -> Duration {
    lease + tolerance(lease)
}

/// ρL: how far clocks may run apart in one lease.
fn tolerance(lease: Duration) -> Duration {
    lease / 10
}

/// One look at a node's clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockLook {
    /// The time of day.
    pub wall_us: u64,
    /// Never goes back, and knows nothing of the time of day.
    pub monotonic_us: u64,
    /// The hybrid logical clock.
    pub hybrid: Timestamp,
}

impl ClockLook {
    /// How much further one clock has gone than the other since an earlier look.
    fn parted_us(&self, since: &Self) -> u64 {
        let wall = self.wall_us as i128 - since.wall_us as i128;
        let monotonic = self.monotonic_us as i128 - since.monotonic_us as i128;
        u64::try_from((wall - monotonic).unsigned_abs()).unwrap_or(u64::MAX)
    }
}

/// What a voter's node says of its present life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Promise {
    /// The life: how often its store has been started.
    starts: u32,
    /// How long it keeps what it has heard, also over its next restart; zero: it does not.
    lease: Duration,
    /// When this node was told, on its monotonic clock.
    told_us: u64,
}

/// Leave to answer by lease, if the group then finds the acknowledgements young enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Only acknowledgements of messages sent less than this ago count.
    pub age_max: Duration,
    /// The state of the rule it was given in.
    turn: u64,
}

/// Decides, for one node that leads ranges, whether it may answer by lease.
#[derive(Clone, Debug)]
pub struct LeaseRule {
    lease: Duration,
    promises: BTreeMap<NodeId, Promise>,
    /// No message sent before counts.
    trusted_from_us: u64,
    /// Two earlier looks, the first at least one lease old once there has been time for it: what counts was
    /// sent after it.
    looks: (ClockLook, ClockLook),
    /// How far the hybrid clock was at moments within the last lease; both rise.
    reached: VecDeque<(u64, Timestamp)>,
    /// Rises whenever what was granted before may no longer be relied on.
    turn: u64,
}

impl LeaseRule {
    /// The rule of a node that has just started, in a cluster with leases of this length.
    pub fn new(lease: Duration, now: ClockLook) -> Self {
        Self {
            lease,
            promises: BTreeMap::new(),
            trusted_from_us: now.monotonic_us,
            looks: (now, now),
            reached: VecDeque::from([(now.monotonic_us, now.hybrid)]),
            turn: 0,
        }
    }

    /// Takes in what a node says when a connection to it is made.
    pub fn promised(&mut self, node: NodeId, starts: u32, lease: Duration, now: ClockLook) {
        self.observe(now);
        let promise = Promise { starts, lease, told_us: now.monotonic_us };
        match self.promises.get(&node) {
            // A connection to an earlier life that is heard of late, or the same again.
            Some(known) if known.starts > starts => {}
            Some(known) if (known.starts, known.lease) == (starts, lease) => {}
            known => {
                if known.is_some_and(|known| known.starts < starts) {
                    Mark::VoterRestarted.hit();
                }
                self.promises.insert(node, promise);
                self.turn += 1;
            }
        }
    }

    /// Whether a node may be in the silence of its start, and would refuse a transfer: it was first heard of in
    /// this life less than a silence ago.
    pub fn may_be_silent(&self, node: NodeId, now: ClockLook) -> bool {
        self.promises.get(&node).is_some_and(|promise| {
            let since = now.monotonic_us.saturating_sub(promise.told_us);
            !promise.lease.is_zero() && since < micros(silence_after_start(promise.lease))
        })
    }

    /// Looks at the clocks: if they have parted, nothing acknowledged so far counts any more.
    pub fn observe(&mut self, now: ClockLook) {
        let limit = micros(tolerance(self.lease));
        let (older, newer) = self.looks;
        if now.parted_us(&older) > limit || now.parted_us(&newer) > limit {
            Mark::ClocksParted.hit();
            self.trusted_from_us = now.monotonic_us;
            self.looks = (now, now);
            self.turn += 1;
        } else if now.monotonic_us.saturating_sub(newer.monotonic_us) >= micros(self.lease) {
            self.looks = (newer, now);
        }
        self.note_reached(now);
    }

    fn note_reached(&mut self, now: ClockLook) {
        let step = micros(self.lease) / 64;
        if self.reached.back().is_none_or(|(at, _)| now.monotonic_us >= at + step) {
            self.reached.push_back((now.monotonic_us, now.hybrid));
        }
        let keep_from = now.monotonic_us.saturating_sub(micros(self.lease));
        while self.reached.front().is_some_and(|(at, _)| *at < keep_from) {
            self.reached.pop_front();
        }
    }

    /// Whether this node may answer by lease for a range with these other voters, and how old the quorum's
    /// acknowledgements may be. `stands`: the time of a session that no applied stamp of the range covers.
    pub fn grant(
        &mut self,
        others: impl IntoIterator<Item = NodeId>,
        stands: Option<Timestamp>,
        now: ClockLook,
    ) -> Option<Grant> {
        self.observe(now);
        let mut sent_from_us = self.trusted_from_us;
        for node in others {
            let promise = self.promises.get(&node).filter(|promise| promise.lease >= self.lease)?;
            sent_from_us = sent_from_us.max(promise.told_us);
        }
        if let Some(time) = stands {
            let (at, _) = self.reached.iter().find(|(_, clock)| *clock >= time)?;
            sent_from_us = sent_from_us.max(*at);
        }
        let since = Duration::from_micros(now.monotonic_us.saturating_sub(sent_from_us));
        let age_max = since.min(lease_usable(self.lease));
        (!age_max.is_zero()).then_some(Grant { age_max, turn: self.turn })
    }

    /// Whether a grant could be relied on until now. To be asked after the group has found the
    /// acknowledgements young enough.
    pub fn still_holds(&mut self, grant: Grant, now: ClockLook) -> bool {
        self.observe(now);
        grant.turn == self.turn
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_millis(1000);
    const MS: u64 = 1000;
    const VOTER: NodeId = NodeId(2);

    /// Both clocks in step, at so many milliseconds.
    fn at(ms: u64) -> ClockLook {
        look(ms, ms)
    }

    fn look(wall_ms: u64, monotonic_ms: u64) -> ClockLook {
        let hybrid = Timestamp::from_ms(wall_ms);
        ClockLook { wall_us: 1 << 50 | (wall_ms * MS), monotonic_us: monotonic_ms * MS, hybrid }
    }

    fn granted(rule: &mut LeaseRule, now: ClockLook) -> Option<u64> {
        rule.grant([VOTER], None, now).map(|grant| grant.age_max.as_millis() as u64)
    }

    /// A rule that was told of the voter's promise at 0.
    fn rule() -> LeaseRule {
        let mut rule = LeaseRule::new(LEASE, at(0));
        rule.promised(VOTER, 1, LEASE, at(0));
        rule
    }

    #[test]
    fn margins_are_those_of_the_contract() {
        assert_eq!(lease_usable(LEASE), Duration::from_millis(800));
        assert_eq!(silence_after_start(LEASE), Duration::from_millis(1100));
    }

    #[test]
    fn a_voter_that_promises_nothing_or_too_little_gives_no_lease() {
        let mut rule = LeaseRule::new(LEASE, at(0));
        assert_eq!(granted(&mut rule, at(5_000)), None);
        rule.promised(VOTER, 1, Duration::ZERO, at(5_000));
        assert_eq!(granted(&mut rule, at(6_000)), None);
        rule.promised(VOTER, 2, LEASE - Duration::from_millis(1), at(6_000));
        assert_eq!(granted(&mut rule, at(7_000)), None);
        rule.promised(VOTER, 3, LEASE, at(7_000));
        assert_eq!(granted(&mut rule, at(7_500)), Some(500));
        assert!(
            rule.grant([VOTER, NodeId(3)], None, at(7_500)).is_none(),
            "every other voter must"
        );
    }

    #[test]
    fn what_was_sent_before_a_voter_spoke_counts_for_nothing() {
        let mut rule = rule();
        assert_eq!(granted(&mut rule, at(0)), None);
        assert_eq!(granted(&mut rule, at(300)), Some(300));
        assert_eq!(granted(&mut rule, at(3_000)), Some(800));
        rule.promised(VOTER, 2, LEASE, at(3_000));
        assert_eq!(granted(&mut rule, at(3_100)), Some(100), "a new life");
        rule.promised(VOTER, 2, LEASE, at(3_200));
        assert_eq!(granted(&mut rule, at(3_200)), Some(200), "another connection of the same life");
        rule.promised(VOTER, 1, Duration::ZERO, at(3_300));
        assert_eq!(granted(&mut rule, at(3_300)), Some(300), "an earlier life is over");
    }

    #[test]
    fn a_node_may_be_silent_for_as_long_as_a_silence_after_it_was_first_heard_of() {
        let mut rule = rule();
        assert!(rule.may_be_silent(VOTER, at(1_099)));
        assert!(!rule.may_be_silent(VOTER, at(1_100)));
        rule.promised(VOTER, 2, LEASE, at(5_000));
        assert!(rule.may_be_silent(VOTER, at(6_000)));
        rule.promised(VOTER, 3, Duration::ZERO, at(7_000));
        assert!(!rule.may_be_silent(VOTER, at(7_000)), "it keeps none");
        assert!(!rule.may_be_silent(NodeId(9), at(7_000)), "nobody has heard of it");
    }

    #[test]
    fn clocks_that_part_end_a_lease_until_it_is_earned_anew() {
        let mut rule = rule();
        assert_eq!(granted(&mut rule, at(5_000)), Some(800));
        // The monotonic clock stood still for a second.
        assert_eq!(granted(&mut rule, look(6_100, 5_100)), None);
        assert_eq!(granted(&mut rule, look(6_200, 5_200)), Some(100));
        // Somebody set the time of day back.
        assert_eq!(granted(&mut rule, look(4_000, 5_300)), None);
    }

    #[test]
    fn a_pause_between_the_look_and_the_question_is_seen_after_it() {
        let mut rule = rule();
        let grant = rule.grant([VOTER], None, at(5_000)).expect("the voter has promised");
        assert!(rule.clone().still_holds(grant, at(5_010)));
        assert!(!rule.still_holds(grant, look(6_010, 5_010)));
        let grant = rule.grant([VOTER], None, look(7_010, 6_010)).expect("earned anew");
        rule.promised(VOTER, 2, Duration::ZERO, look(7_020, 6_020));
        assert!(!rule.still_holds(grant, look(7_030, 6_030)), "the voter takes its promise back");
    }

    #[test]
    fn a_session_needs_a_quorum_that_has_heard_of_its_time() {
        let mut rule = rule();
        rule.observe(at(4_500));
        rule.observe(at(4_900));
        let age = |rule: &mut LeaseRule, stands_ms| {
            let grant = rule.grant([VOTER], Some(Timestamp::from_ms(stands_ms)), at(5_000));
            grant.map(|grant| grant.age_max.as_millis())
        };
        assert_eq!(age(&mut rule, 4_400), Some(500), "the clock was there at 4500");
        assert_eq!(age(&mut rule, 4_900), Some(100));
        assert_eq!(age(&mut rule, 4_950), None, "it was there only now");
        assert_eq!(age(&mut rule, 5_001), None);
    }

    proptest! {
        /// Many small pauses, each too small to be noticed by itself, do not add up: of what is granted the
        /// real age is never above L(1−ρ).
        #[test]
        fn unnoticed_pauses_never_use_up_the_margin(
            steps in prop::collection::vec((1u64..200, prop_oneof![3 => Just(0u64), 1 => 0u64..120]), 1..60)
        ) {
            let mut rule = rule();
            let (mut real, mut monotonic) = (0, 0);
            // The real time of every moment of the monotonic clock, as it was left.
            let mut history = vec![(0, 0)];
            for (runs, pause) in steps {
                (real, monotonic) = (real + runs, monotonic + runs);
                history.push((monotonic, real));
                real += pause;
                if let Some(age) = granted(&mut rule, look(real, monotonic)) {
                    let sent = monotonic - age;
                    // Sent at the latest moment of that reading: the pause after it counts from there.
                    let (at, then) = history.iter().rev().find(|(at, _)| *at <= sent).expect("0 is there");
                    let sent_real = then + (sent - at);
                    prop_assert!(real - sent_real <= 900, "{real} − {sent_real}");
                }
                history.push((monotonic, real));
            }
        }

        /// The age never reaches back before the last word of any voter, nor beyond L(1−2ρ).
        #[test]
        fn a_grant_reaches_back_no_further_than_every_promise(
            told in prop::collection::vec(0u64..5_000, 1..5), now in 5_000u64..9_000,
        ) {
            let mut rule = LeaseRule::new(LEASE, at(0));
            let mut order = told.clone();
            order.sort_unstable();
            for (node, ms) in (2..).zip(&order) {
                rule.promised(NodeId(node), 1, LEASE, at(*ms));
            }
            let last = *order.last().expect("one at least");
            let others = (2..).take(order.len()).map(NodeId);
            let age = rule.grant(others, None, at(now)).map_or(0, |grant| grant.age_max.as_millis() as u64);
            prop_assert_eq!(age, (now - last).min(800));
        }
    }
}

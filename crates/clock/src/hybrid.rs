//! The hybrid logical clock of a node.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hlc_gen::source::ManualClock as Input;
use hlc_gen::{HlcGenerator, HlcTimestamp};
use latitude_probe::{Mark, Plant};
use latitude_types::Timestamp;

use crate::PhysicalClock;
use crate::slew::Slew;

/// ε unless configured: how far two good clocks may be apart.
pub const MAX_CLOCK_OFFSET_DEFAULT: Duration = Duration::from_millis(500);

/// How far ahead of the clock a bound is asked for: a disk may stall this long before the clock stops.
pub const BOUND_RESERVE: Duration = Duration::from_secs(3);

/// A higher bound is asked for when less than this is left.
pub const BOUND_REFILL: Duration = Duration::from_millis(1500);

/// The last time the clock can give: `hlc-gen` compares *Unix* milliseconds with 42 bits, which ends
/// in 2109.
pub const HORIZON: Timestamp =
    Timestamp(Timestamp::from_unix_ms((1 << 42) - 1).0 + COUNTER_MAX as u64);

/// Above this count the millisecond is moved on instead. `hlc-gen` counts to 2²² − 1 and then gives
/// nothing until real time has passed, which after a long step back of the wall clock would be an
/// outage.
const COUNTER_MAX: u32 = 1 << 21;

/// The clock of a node, shared by all its ranges and connections.
///
/// ```text
///   physical ≲ clock ≤ bound (on disk) ≤ clock + reserve
/// ```
///
/// Life of a bound: [`HybridClock::bound_to_persist`] → write it, sync → [`HybridClock::raise_bound`];
/// about every [`BOUND_REFILL`], and whenever [`ClockError::BeyondBound`] says so. A clock that has
/// just been started has no reserve: nothing is given before the first raise.
pub struct HybridClock {
    physical: Arc<dyn PhysicalClock>,
    max_offset: Duration,
    state: Mutex<State>,
}

struct State {
    /// Keeps the clock's value; fed by hand before each call, never by the host.
    generator: HlcGenerator<Input>,
    slew: Slew,
    bound: Timestamp,
}

/// What a message says of its sender's clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The sender's physical clock: microseconds since the Unix epoch.
    pub physical_us: u64,
    /// The sender's hybrid clock: at least every timestamp the message or what led to it contains.
    pub clock: Timestamp,
}

/// Why the clock gave or merged nothing. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClockError {
    /// The result would be above the durable bound: persist one of at least `needed`, for example
    /// [`HybridClock::bound_covering`] it, raise, and ask again.
    #[error("the clock would be at {needed}, above its durable bound")]
    BeyondBound {
        /// The least bound with which the call succeeds.
        needed: Timestamp,
    },
    /// The result would be above [`HORIZON`]. No good clock is there before 2109.
    #[error("the clock would be beyond the last time it can tell")]
    BeyondHorizon,
}

/// Why a peer's message is refused. It must have no effect at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The peer's physical clock is more than ε/2 ahead of ours: one of the two is wrong.
    #[error("the peer's clock is {ahead:?} ahead of ours, more than the {limit:?} allowed")]
    PhysicalAhead {
        /// By how much.
        ahead: Duration,
        /// ε/2.
        limit: Duration,
    },
    /// The peer's hybrid clock is more than 2ε ahead of our physical clock, which no chain of good
    /// clocks explains: tell an operator.
    #[error("ALARM: the peer's logical clock is {ahead:?} ahead of ours, more than {limit:?}")]
    Alarm {
        /// By how much.
        ahead: Duration,
        /// 2ε.
        limit: Duration,
    },
}

/// Why a peer's reading was not merged. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The message must be dropped.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The message can be taken once the bound is raised.
    #[error(transparent)]
    Clock(#[from] ClockError),
}

/// What to do with a time that a client brought: a token's clock, or a birth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Merge it and go on.
    Merge,
    /// Ask again after this long: it is further ahead than good clocks are, but will soon not be.
    Wait(Duration),
    /// Refuse the request: no good clock gave that time.
    Refuse,
}

impl HybridClock {
    /// Starts the clock of a node whose last durable bound was `durable_bound`
    /// ([`Timestamp::ZERO`] for a new store). It stands at that bound, so everything it gives is above
    /// all it gave in earlier lives.
    ///
    /// `max_offset` is ε.
    pub fn start(
        physical: Arc<dyn PhysicalClock>,
        durable_bound: Timestamp,
        max_offset: Duration,
    ) -> Self {
        let mut state = State {
            generator: HlcGenerator::manual(0),
            slew: Slew::new(physical.wall_us(), physical.monotonic_us()),
            bound: durable_bound,
        };
        state.advance_to(durable_bound.min(HORIZON));
        Self { physical, max_offset, state: Mutex::new(state) }
    }

    /// A new timestamp, larger than all this node has given or merged.
    pub fn now(&self) -> Result<Timestamp, ClockError> {
        let mut state = self.lock();
        let next = without_overflow(state.clock().next());
        let physical = Timestamp::from_unix_ms(self.read(&mut state) / 1000);
        let to = state.check(next.max(physical))?;
        state.advance_to(to);
        Ok(to)
    }

    /// The largest timestamp given or merged. Does not tick.
    pub fn peek(&self) -> Timestamp {
        self.lock().clock()
    }

    /// Makes everything given from now on larger than `remote`. A remote time must have passed
    /// [`HybridClock::check_hlc`] or [`HybridClock::admit`] before.
    pub fn merge(&self, remote: Timestamp) -> Result<(), ClockError> {
        let mut state = self.lock();
        if remote > state.clock() {
            let to = state.check(without_overflow(remote))?;
            state.advance_to(to);
        }
        Ok(())
    }

    /// The largest bound known to be on disk: nothing above it has been given or merged.
    pub fn bound(&self) -> Timestamp {
        self.lock().bound
    }

    /// Tells the clock that `persisted` is on disk. A lower one than before changes nothing.
    pub fn raise_bound(&self, persisted: Timestamp) {
        let mut state = self.lock();
        state.bound = state.bound.max(persisted);
    }

    /// The bound to write next, when less than [`BOUND_REFILL`] is left.
    pub fn bound_to_persist(&self) -> Option<Timestamp> {
        let mut state = self.lock();
        let reference = self.reference(&mut state);
        (plus(reference, BOUND_REFILL) > state.bound && state.bound < HORIZON)
            .then(|| plus(reference, BOUND_RESERVE).min(HORIZON))
    }

    /// A bound to write that is enough for `needed` and leaves [`BOUND_RESERVE`].
    pub fn bound_covering(&self, needed: Timestamp) -> Timestamp {
        let mut state = self.lock();
        plus(self.reference(&mut state).max(needed), BOUND_RESERVE).min(HORIZON)
    }

    /// The physical reading: microseconds since the Unix epoch, never back. This is the one that
    /// messages carry and that checks compare with.
    pub fn physical_us(&self) -> u64 {
        self.read(&mut self.lock())
    }

    /// Both clocks, for a message about to be sent: taken after everything it contains.
    pub fn reading(&self) -> Reading {
        let mut state = self.lock();
        Reading { physical_us: self.read(&mut state), clock: state.clock() }
    }

    /// How long a node that has just been started waits before it persists a bound and serves.
    ///
    /// A clock starts at its bound, up to [`BOUND_RESERVE`] ahead of real time, where its peers would
    /// raise an alarm and refuse its clients' tokens. After this wait it is within ε/2. Waiting before
    /// the first bound is persisted keeps a node that restarts in a loop from running ever further
    /// ahead.
    pub fn settles_in(&self) -> Duration {
        let mut state = self.lock();
        let settles =
            ahead(state.clock(), self.read(&mut state)).saturating_sub(self.max_offset / 2);
        if !settles.is_zero() {
            Mark::ClockSettles.hit();
        }
        settles
    }

    /// Checks a peer's physical reading.
    pub fn check_peer(&self, physical_us: u64) -> Result<(), Refusal> {
        let limit = self.max_offset / 2;
        let ahead = Duration::from_micros(physical_us.saturating_sub(self.physical_us()));
        if ahead <= limit {
            return Ok(());
        }
        Mark::PeerRefused.hit();
        Err(Refusal::PhysicalAhead { ahead, limit })
    }

    /// Checks a peer's hybrid clock.
    pub fn check_hlc(&self, remote: Timestamp) -> Result<(), Refusal> {
        let limit = self.max_offset * 2;
        let ahead = ahead(remote, self.physical_us());
        if ahead > limit { Err(Refusal::Alarm { ahead, limit }) } else { Ok(()) }
    }

    /// Checks a peer's message and merges its clock; to be called before the message has any effect.
    pub fn receive(&self, reading: Reading) -> Result<(), ReceiveError> {
        self.check_peer(reading.physical_us)?;
        self.check_hlc(reading.clock)?;
        if Plant::PeerNotMerged.is_on() {
            return Ok(());
        }
        Ok(self.merge(reading.clock)?)
    }

    /// Judges a time that a client brought. Merges nothing.
    pub fn admit(&self, time: Timestamp) -> Admission {
        let ahead = ahead(time, self.physical_us());
        if ahead <= self.max_offset / 2 {
            Admission::Merge
        } else if ahead <= self.max_offset {
            Mark::ClientTimeWaitedFor.hit();
            Admission::Wait(ahead - self.max_offset / 2)
        } else {
            Mark::ClientTimeRefused.hit();
            Admission::Refuse
        }
    }

    /// ε.
    pub fn max_offset(&self) -> Duration {
        self.max_offset
    }

    /// The later of the clock and real time: where the next timestamp will be, about.
    fn reference(&self, state: &mut State) -> Timestamp {
        Timestamp::from_unix_ms(self.read(state) / 1000).max(state.clock())
    }

    fn read(&self, state: &mut State) -> u64 {
        state.slew.read(self.physical.wall_us(), self.physical.monotonic_us())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for HybridClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("HybridClock")
            .field("clock", &state.clock())
            .field("bound", &state.bound)
            .finish_non_exhaustive()
    }
}

impl State {
    fn clock(&self) -> Timestamp {
        Timestamp(self.generator.timestamp().as_u64())
    }

    fn check(&self, to: Timestamp) -> Result<Timestamp, ClockError> {
        if to > HORIZON {
            Err(ClockError::BeyondHorizon)
        } else if to > self.bound {
            Err(ClockError::BeyondBound { needed: to })
        } else {
            Ok(to)
        }
    }

    /// Moves the generator to exactly `to`, if that is ahead.
    fn advance_to(&mut self, to: Timestamp) {
        if to <= self.clock() {
            return;
        }
        let reached = if to.counter() == 0 {
            // A new millisecond: the generator takes it from its input.
            self.generator.set_current_timestamp(to.unix_ms() as i64);
            self.generator.next_timestamp()
        } else {
            // Within a millisecond the generator gives one more than what it is updated with.
            self.generator.set_current_timestamp(Timestamp::EPOCH_UNIX_MS as i64);
            HlcTimestamp::try_from(to.0 - 1).and_then(|before| self.generator.update(&before)).ok()
        };
        assert_eq!(
            reached.map(|reached| reached.as_u64()),
            Some(to.0),
            "the generator reaches everything up to the horizon"
        );
    }
}

/// The same time, or the next millisecond where its count is more than we let it grow.
fn without_overflow(time: Timestamp) -> Timestamp {
    if time.counter() > COUNTER_MAX { Timestamp::from_ms(time.ms() + 1).max(time) } else { time }
}

fn plus(time: Timestamp, by: Duration) -> Timestamp {
    time.plus_ms(by.as_millis() as u64)
}

/// How far a timestamp is ahead of a physical reading; zero if it is not.
fn ahead(time: Timestamp, physical_us: u64) -> Duration {
    Duration::from_micros((time.unix_ms() * 1000).saturating_sub(physical_us))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ManualClock;

    const START_MS: u64 = 100_000;

    fn clock_at(ms: u64) -> (Arc<ManualClock>, HybridClock) {
        let physical = Arc::new(ManualClock::new(Timestamp::from_ms(ms).unix_ms() * 1000));
        let clock = HybridClock::start(physical.clone(), Timestamp::ZERO, MAX_CLOCK_OFFSET_DEFAULT);
        (physical, clock)
    }

    #[test]
    fn a_saturated_counter_moves_the_millisecond_on() {
        let (_, clock) = clock_at(START_MS);
        clock.raise_bound(HORIZON);
        clock.merge(Timestamp(Timestamp::from_ms(START_MS + 1).0 - 1)).unwrap();
        assert_eq!(clock.peek(), Timestamp::from_ms(START_MS + 1));
        let full = Timestamp(Timestamp::from_ms(START_MS + 1).0 + u64::from(COUNTER_MAX));
        clock.merge(full).unwrap();
        assert_eq!(clock.peek(), full);
        assert_eq!(clock.now(), Ok(Timestamp::from_ms(START_MS + 2)));
    }

    #[test]
    fn the_clock_ends_at_its_horizon_without_harm() {
        let (_, clock) = clock_at(START_MS);
        clock.raise_bound(Timestamp::MAX);
        assert_eq!(clock.merge(Timestamp::MAX), Err(ClockError::BeyondHorizon));
        assert_eq!(clock.now(), Ok(Timestamp::from_ms(START_MS)));
        clock.merge(HORIZON).unwrap();
        assert_eq!(clock.now(), Err(ClockError::BeyondHorizon));
        assert_eq!(clock.bound_to_persist(), None);
    }

    #[test]
    fn a_wall_clock_before_2024_still_gives_rising_times() {
        let physical = Arc::new(ManualClock::new(0));
        let clock = HybridClock::start(physical, Timestamp::ZERO, MAX_CLOCK_OFFSET_DEFAULT);
        clock.raise_bound(clock.bound_to_persist().unwrap());
        assert_eq!(clock.now(), Ok(Timestamp(1)));
        assert_eq!(clock.now(), Ok(Timestamp(2)));
    }

    #[test]
    fn a_lower_bound_changes_nothing() {
        let (_, clock) = clock_at(START_MS);
        clock.raise_bound(Timestamp::from_ms(START_MS + 5));
        clock.raise_bound(Timestamp::from_ms(START_MS + 3));
        assert_eq!(clock.bound(), Timestamp::from_ms(START_MS + 5));
    }

    #[test]
    fn threads_never_share_a_timestamp() {
        let (_, clock) = clock_at(START_MS);
        clock.raise_bound(HORIZON);
        let mut given: Vec<Timestamp> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..1000).map(|_| clock.now().unwrap()).collect::<Vec<_>>())
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), 4000);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Now,
        Merge { ms: u64, counter: u32 },
        Pass { us: u64 },
        SetWall { ms: u64 },
        Persist,
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => Just(Step::Now),
            2 => (0u64..200_000, 0u32..(1 << 22)).prop_map(|(ms, counter)| Step::Merge { ms, counter }),
            2 => (0u64..5_000_000).prop_map(|us| Step::Pass { us }),
            1 => (0u64..200_000).prop_map(|ms| Step::SetWall { ms }),
            4 => Just(Step::Persist),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        /// Under any order of steps of the wall clock, merges and restarts: what is given rises, is
        /// above what was merged, and is never above what is on disk.
        #[test]
        fn hlc_never_regresses(steps in prop::collection::vec(step(), 1..200)) {
            let (physical, mut clock) = clock_at(START_MS);
            let (mut highest, mut disk) = (Timestamp::ZERO, Timestamp::ZERO);
            for step in steps {
                match step {
                    Step::Now => {
                        let before = clock.peek();
                        match clock.now() {
                            Ok(given) => {
                                prop_assert!(given > highest);
                                prop_assert!(given.counter() <= COUNTER_MAX);
                                highest = given;
                            }
                            Err(ClockError::BeyondBound { needed }) => {
                                prop_assert!(needed > disk);
                                prop_assert_eq!(clock.peek(), before);
                            }
                            Err(other) => prop_assert!(false, "{other}"),
                        }
                    }
                    Step::Merge { ms, counter } => {
                        let remote = Timestamp(Timestamp::from_ms(ms).0 + u64::from(counter));
                        let before = clock.peek();
                        match clock.merge(remote) {
                            Ok(()) => highest = highest.max(remote),
                            Err(_) => prop_assert_eq!(clock.peek(), before),
                        }
                    }
                    Step::Pass { us } => physical.advance(Duration::from_micros(us)),
                    Step::SetWall { ms } => {
                        physical.set_wall_us(Timestamp::from_ms(ms).unix_ms() * 1000);
                    }
                    Step::Persist => if let Some(bound) = clock.bound_to_persist() {
                        prop_assert!(bound > disk);
                        disk = bound;
                        clock.raise_bound(bound);
                        // With the reserve in place the clock gives.
                        prop_assert!(clock.now().is_ok_and(|given| given > highest));
                        highest = clock.peek();
                    },
                    Step::Restart => {
                        clock = HybridClock::start(physical.clone(), disk, MAX_CLOCK_OFFSET_DEFAULT);
                    }
                }
                prop_assert!(clock.peek() <= disk && clock.bound() == disk);
                prop_assert!(clock.peek() >= highest);
            }
        }
    }
}

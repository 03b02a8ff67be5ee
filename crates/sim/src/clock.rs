//! The hosts' clocks: simulated time, counted from a fixed date.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use latitude_clock::PhysicalClock;

/// When every simulation begins: 2026-01-01 00:00:00 UTC, in microseconds since 1970.
const BEGIN_US: u64 = 1_767_225_600_000_000;

/// Simulated time. Clones show the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimClock {
    /// What turmoil said at the end of the last step: for readers outside of any host.
    stepped_us: Arc<AtomicU64>,
}

impl SimClock {
    /// A step has ended this long after the beginning.
    pub(crate) fn stepped(&self, elapsed_us: u64) {
        self.stepped_us.store(elapsed_us, Ordering::Relaxed);
    }

    /// Microseconds since the simulation began.
    pub(crate) fn elapsed_us(&self) -> u64 {
        match turmoil::in_simulation().then(turmoil::sim_elapsed).flatten() {
            Some(elapsed) => elapsed.as_micros() as u64,
            None => self.stepped_us.load(Ordering::Relaxed),
        }
    }
}

impl PhysicalClock for SimClock {
    fn wall_us(&self) -> u64 {
        BEGIN_US + self.elapsed_us()
    }

    fn monotonic_us(&self) -> u64 {
        self.elapsed_us()
    }
}

/// The clocks of one node before they are skewed: simulated time, which can be made to stand still. Clones
/// show the same.
#[derive(Clone, Debug)]
pub(crate) struct NodeClock {
    sim: SimClock,
    /// The time at which it stands; [`RUNS`] while it runs.
    stands_at_us: Arc<AtomicU64>,
}

const RUNS: u64 = u64::MAX;

impl NodeClock {
    pub(crate) fn new(sim: SimClock) -> Self {
        Self { sim, stands_at_us: Arc::new(AtomicU64::new(RUNS)) }
    }

    /// From now on both clocks stand.
    pub(crate) fn stop(&self) {
        self.stands_at_us.store(self.sim.elapsed_us(), Ordering::Relaxed);
    }

    /// Both clocks leap to the present and go on.
    pub(crate) fn resume(&self) {
        self.stands_at_us.store(RUNS, Ordering::Relaxed);
    }

    fn elapsed_us(&self) -> u64 {
        match self.stands_at_us.load(Ordering::Relaxed) {
            RUNS => self.sim.elapsed_us(),
            stands_at => stands_at,
        }
    }
}

impl PhysicalClock for NodeClock {
    fn wall_us(&self) -> u64 {
        BEGIN_US + self.elapsed_us()
    }

    fn monotonic_us(&self) -> u64 {
        self.elapsed_us()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stood_leaps_to_the_present() {
        let sim = SimClock::default();
        let clock = NodeClock::new(sim.clone());
        sim.stepped(5);
        clock.stop();
        sim.stepped(9);
        assert_eq!((clock.monotonic_us(), clock.wall_us()), (5, BEGIN_US + 5));
        clock.resume();
        assert_eq!((clock.monotonic_us(), clock.wall_us()), (9, BEGIN_US + 9));
    }
}

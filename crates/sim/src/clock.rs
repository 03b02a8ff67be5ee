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

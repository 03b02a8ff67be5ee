//! The physical clock of a simulated host: virtual time, from a fixed date.

use std::time::Duration;

use latitude_clock::PhysicalClock;

/// 2026-01-01T00:00:00Z, in seconds of the Unix epoch.
const BEGINNING_S: u64 = 1_767_225_600;

/// Virtual time since the simulation began, the same on every host; skew comes from a
/// [`latitude_clock::SkewedClock`] around it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct VirtualClock;

pub(crate) fn virtual_now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

impl PhysicalClock for VirtualClock {
    fn wall_us(&self) -> u64 {
        BEGINNING_S * 1_000_000 + virtual_now().as_micros() as u64
    }

    fn monotonic_us(&self) -> u64 {
        virtual_now().as_micros() as u64
    }
}

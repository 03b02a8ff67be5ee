//! The port to the host's clocks, and two clocks for tests and simulations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The two clocks of a host.
pub trait PhysicalClock: Send + Sync + 'static {
    /// The time of day: microseconds since the Unix epoch. May jump either way.
    fn wall_us(&self) -> u64;

    /// Microseconds since some moment of this process's life. Never goes back and knows nothing of the
    /// time of day.
    fn monotonic_us(&self) -> u64;
}

impl<C: PhysicalClock + ?Sized> PhysicalClock for Arc<C> {
    fn wall_us(&self) -> u64 {
        (**self).wall_us()
    }

    fn monotonic_us(&self) -> u64 {
        (**self).monotonic_us()
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_us: AtomicU64,
    monotonic_us: AtomicU64,
}

impl ManualClock {
    /// A clock that shows this time of day, its monotonic side at zero.
    pub fn new(wall_us: u64) -> Self {
        Self { wall_us: AtomicU64::new(wall_us), monotonic_us: AtomicU64::new(0) }
    }

    /// Lets time pass: both sides move.
    pub fn advance(&self, by: Duration) {
        let us = by.as_micros() as u64;
        self.wall_us.fetch_add(us, Ordering::SeqCst);
        self.monotonic_us.fetch_add(us, Ordering::SeqCst);
    }

    /// Sets the time of day, as an administrator would; no time passes.
    pub fn set_wall_us(&self, wall_us: u64) {
        self.wall_us.store(wall_us, Ordering::SeqCst);
    }
}

impl PhysicalClock for ManualClock {
    fn wall_us(&self) -> u64 {
        self.wall_us.load(Ordering::SeqCst)
    }

    fn monotonic_us(&self) -> u64 {
        self.monotonic_us.load(Ordering::SeqCst)
    }
}

/// Another clock, shown wrongly: the wall side off by an offset, both sides running at a wrong rate.
///
/// Both can be changed while it runs. A change of the rate makes no jump.
#[derive(Debug)]
pub struct SkewedClock<C> {
    inner: C,
    skew: Mutex<Skew>,
}

#[derive(Debug, Clone, Copy)]
struct Skew {
    offset_us: i64,
    /// How much faster than the inner clock, in parts per million; zero is the right rate.
    rate_ppm: i64,
    /// The inner monotonic reading when the rate was last changed.
    since_us: u64,
    /// What earlier rates have added up to by then.
    gained_us: i64,
}

impl Skew {
    fn gained_us(&self, inner_monotonic_us: u64) -> i64 {
        let elapsed = i128::from(inner_monotonic_us.saturating_sub(self.since_us));
        let gained = elapsed * i128::from(self.rate_ppm) / 1_000_000;
        self.gained_us.saturating_add(gained as i64)
    }
}

impl<C: PhysicalClock> SkewedClock<C> {
    /// The inner clock, shown rightly until told otherwise.
    pub fn new(inner: C) -> Self {
        let skew = Skew { offset_us: 0, rate_ppm: 0, since_us: inner.monotonic_us(), gained_us: 0 };
        Self { inner, skew: Mutex::new(skew) }
    }

    /// Sets how far the wall side is ahead of the inner clock (below zero: behind); a step.
    pub fn set_offset_us(&self, offset_us: i64) {
        self.lock().offset_us = offset_us;
    }

    /// Sets how much faster than the inner clock both sides run, in parts per million (below zero:
    /// slower).
    ///
    /// # Panics
    ///
    /// At −1 000 000 or below: the clock would stand still or run back.
    pub fn set_rate_ppm(&self, rate_ppm: i64) {
        assert!(rate_ppm > -1_000_000, "a clock cannot run back");
        let now = self.inner.monotonic_us();
        let mut skew = self.lock();
        skew.gained_us = skew.gained_us(now);
        skew.since_us = now;
        skew.rate_ppm = rate_ppm;
    }

    /// The clock underneath.
    pub fn inner(&self) -> &C {
        &self.inner
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Skew> {
        self.skew.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: PhysicalClock> PhysicalClock for SkewedClock<C> {
    fn wall_us(&self) -> u64 {
        let skew = self.lock();
        let gained = skew.gained_us(self.inner.monotonic_us());
        self.inner.wall_us().saturating_add_signed(gained.saturating_add(skew.offset_us))
    }

    fn monotonic_us(&self) -> u64 {
        let skew = self.lock();
        let inner = self.inner.monotonic_us();
        inner.saturating_add_signed(skew.gained_us(inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_moves_the_wall_side_only() {
        let clock = SkewedClock::new(ManualClock::new(1_000_000));
        clock.set_offset_us(-300);
        assert_eq!((clock.wall_us(), clock.monotonic_us()), (999_700, 0));
    }

    #[test]
    fn a_rate_is_gained_over_time_and_its_change_makes_no_jump() {
        let clock = SkewedClock::new(ManualClock::new(0));
        clock.set_rate_ppm(100_000);
        clock.inner().advance(Duration::from_secs(10));
        assert_eq!((clock.wall_us(), clock.monotonic_us()), (11_000_000, 11_000_000));
        clock.set_rate_ppm(-500_000);
        assert_eq!((clock.wall_us(), clock.monotonic_us()), (11_000_000, 11_000_000));
        clock.inner().advance(Duration::from_secs(10));
        assert_eq!((clock.wall_us(), clock.monotonic_us()), (16_000_000, 16_000_000));
    }
}

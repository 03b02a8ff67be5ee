//! A physical reading that never goes back.

/// Turns steps back of the wall clock into slews.
///
/// ```text
///   wall   ──────╱│     ╱          forward: followed at once
///               ╱ │    ╱           back:    runs at half speed until the wall clock has caught up
///   reading ───╱──┴╌╌╱
/// ```
///
/// A step back of `x` is gone after `2x`: until then the reading is ahead of the wall clock, as the
/// timestamps given from it are anyway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slew {
    /// The last reading: microseconds since the Unix epoch.
    reading_us: u64,
    /// The monotonic clock at that reading.
    monotonic_us: u64,
}

impl Slew {
    pub(crate) fn new(wall_us: u64, monotonic_us: u64) -> Self {
        Self { reading_us: wall_us, monotonic_us }
    }

    /// The reading now. At least the one before, and at least the wall clock.
    pub(crate) fn read(&mut self, wall_us: u64, monotonic_us: u64) -> u64 {
        let elapsed = monotonic_us.saturating_sub(self.monotonic_us);
        let steady = self.reading_us.saturating_add(elapsed);
        let ahead = steady.saturating_sub(wall_us);
        // Rounded up, so that a reader that comes every microsecond still lets it slow down.
        self.reading_us = (steady - ahead.min(elapsed.div_ceil(2))).max(wall_us);
        self.monotonic_us = self.monotonic_us.max(monotonic_us);
        self.reading_us
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_step_back_is_gone_after_twice_its_size() {
        let mut slew = Slew::new(10_000, 0);
        assert_eq!(slew.read(4_000, 0), 10_000, "a step back by 6 000: the reading stands");
        assert_eq!(slew.read(10_000, 6_000), 13_000, "half speed");
        assert_eq!(slew.read(16_000, 12_000), 16_000, "caught up");
        assert_eq!(slew.read(17_000, 13_000), 17_000, "and at full speed again");
    }

    #[test]
    fn a_step_ahead_is_followed_at_once() {
        let mut slew = Slew::new(10_000, 0);
        assert_eq!(slew.read(50_000, 10), 50_000);
    }

    proptest! {
        #[test]
        fn the_reading_never_goes_back_nor_below_the_wall_clock(
            steps in prop::collection::vec((0u64..1_000_000, 0u64..10_000), 1..100)
        ) {
            let (mut slew, mut monotonic, mut last) = (Slew::new(500_000, 0), 0, 0);
            for (wall, elapsed) in steps {
                monotonic += elapsed;
                let reading = slew.read(wall, monotonic);
                prop_assert!(reading >= last && reading >= wall);
                last = reading;
            }
        }
    }
}

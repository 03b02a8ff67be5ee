//! Timestamps of the hybrid logical clock, and the place of an entry in the one total order.
//!
//! Source: Kulkarni, Demirbas, Madappa, Avva, Leone: *Logical Physical Clocks* (OPODIS 2014).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// A reading of a hybrid logical clock: 42 bits of milliseconds since 2024-01-01T00:00:00Z, then 22
/// bits of a counter. Compares as the number it is.
///
/// ```text
///   63                       22 21              0
///   ┌──────────────────────────┬─────────────────┐
///   │ milliseconds since 2024  │ counter         │   42 bits last until 2163
///   └──────────────────────────┴─────────────────┘
/// ```
///
/// The layout is the one of the crate `hlc-gen`, which makes them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Below every timestamp a clock gives.
    pub const ZERO: Self = Self(0);
    /// Above every timestamp a clock gives.
    pub const MAX: Self = Self(u64::MAX);
    /// 2024-01-01T00:00:00Z in milliseconds since the Unix epoch.
    pub const EPOCH_UNIX_MS: u64 = 1_704_067_200_000;
    const COUNTER_BITS: u32 = 22;

    /// The least timestamp of a millisecond, counted since 2024. The milliseconds are capped at 42 bits.
    pub const fn from_ms(ms: u64) -> Self {
        let max = (1 << (64 - Self::COUNTER_BITS)) - 1;
        Self((if ms > max { max } else { ms }) << Self::COUNTER_BITS)
    }

    /// The least timestamp of a millisecond of the Unix epoch; [`Timestamp::ZERO`] before 2024.
    pub const fn from_unix_ms(unix_ms: u64) -> Self {
        Self::from_ms(unix_ms.saturating_sub(Self::EPOCH_UNIX_MS))
    }

    /// Milliseconds since 2024.
    pub const fn ms(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.ms() + Self::EPOCH_UNIX_MS
    }

    /// The counter within the millisecond.
    pub const fn counter(self) -> u32 {
        (self.0 & ((1 << Self::COUNTER_BITS) - 1)) as u32
    }

    /// This timestamp moved `ms` milliseconds later, counter kept. Saturates.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        match ms.checked_mul(1 << Self::COUNTER_BITS) {
            Some(delta) => Self(self.0.saturating_add(delta)),
            None => Self::MAX,
        }
    }

    /// The next larger timestamp. Saturates.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.counter())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The place of a log entry in the one total order over all ranges: its time, then the node that gave
/// it. A node gives a time once over all its ranges, so no two entries share a stamp.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// The leader's clock when it stamped the entry.
    pub time: Timestamp,
    /// The leader's node.
    pub node: NodeId,
}

impl Stamp {
    /// Below every stamp.
    pub const ZERO: Self = Self { time: Timestamp::ZERO, node: NodeId(0) };
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.time, self.node)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn milliseconds_survive_the_layout(ms in 0u64..(1 << 42)) {
            prop_assert_eq!(Timestamp::from_ms(ms).ms(), ms);
            prop_assert_eq!(Timestamp::from_ms(ms).counter(), 0);
        }

        #[test]
        fn later_milliseconds_compare_larger_whatever_the_counter(ms in 0u64..(1 << 41), a in 0u64..(1 << 22)) {
            prop_assert!(Timestamp(Timestamp::from_ms(ms).0 + a) < Timestamp::from_ms(ms + 1));
        }
    }

    #[test]
    fn moving_past_the_end_saturates() {
        assert_eq!(Timestamp::MAX.plus_ms(1), Timestamp::MAX);
        assert_eq!(Timestamp::ZERO.plus_ms(u64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.next(), Timestamp::MAX);
    }
}

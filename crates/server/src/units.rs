//! Sizes and durations as people write them: `256MiB`, `500ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Visitor};

/// A number of bytes. Written as a number, or as one with KiB, MiB, GiB or TiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteCount(pub u64);

impl ByteCount {
    /// So many mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// Largest first, so that printing finds the largest that divides.
    const UNITS: [(&str, u64); 5] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
}

/// The largest unit that leaves no remainder, so that what is printed parses back to the same number.
impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, size): &&(&str, u64)| self.0 != 0 && self.0.is_multiple_of(*size);
        match Self::UNITS.iter().find(fits) {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A text was not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a size: write a number of bytes, or one with KiB, MiB, GiB or TiB, like 256MiB"
)]
pub struct ParseByteCountError(String);

impl FromStr for ByteCount {
    type Err = ParseByteCountError;

    fn from_str(text: &str) -> Result<Self, ParseByteCountError> {
        let (number, unit) = split(text);
        let size = match unit {
            "" => Some(1),
            unit => Self::UNITS.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size),
        };
        let count = size.zip(number.parse().ok()).and_then(|(size, n)| u64::checked_mul(size, n));
        count.map(Self).ok_or_else(|| ParseByteCountError(text.to_string()))
    }
}

/// A duration in whole milliseconds, at most a day. Written with ms, s, m or h; a bare number counts
/// milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Millis(pub Duration);

impl Millis {
    /// So many milliseconds.
    pub const fn new(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// Milliseconds.
    pub const fn ms(self) -> u64 {
        // A day of milliseconds fits many times over.
        self.0.as_millis() as u64
    }

    /// So many times as long.
    #[must_use]
    pub const fn times(self, factor: u64) -> Self {
        Self::new(self.ms() * factor)
    }

    const MAX: Self = Self::new(24 * 60 * 60 * 1000);
    const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.ms();
        let fits = |(_, size): &&(&str, u64)| ms != 0 && ms.is_multiple_of(*size);
        match Self::UNITS.iter().find(fits) {
            Some((unit, size)) => write!(f, "{}{unit}", ms / size),
            None => write!(f, "{ms}ms"),
        }
    }
}

/// A text was not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write a number with ms, s, m or h, like 500ms, of at most 24h")]
pub struct ParseDurationError(String);

impl FromStr for Millis {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, ParseDurationError> {
        let (number, unit) = split(text);
        let size = match unit {
            "" => Some(1),
            unit => Self::UNITS.iter().find(|(name, _)| *name == unit).map(|(_, size)| *size),
        };
        let ms = size.zip(number.parse().ok()).and_then(|(size, n)| u64::checked_mul(size, n));
        ms.map(Self::new)
            .filter(|duration| *duration <= Self::MAX)
            .ok_or_else(|| ParseDurationError(text.to_string()))
    }
}

/// A duration whose unit must be written: where a bare number could be taken for seconds.
pub fn duration(text: &str) -> Result<Duration, ParseDurationError> {
    let (_, unit) = split(text);
    if unit.is_empty() {
        return Err(ParseDurationError(text.to_string()));
    }
    text.parse::<Millis>().map(|millis| millis.0)
}

/// The digits at the front, and the rest without the spaces between.
fn split(text: &str) -> (&str, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

/// From a string as above, or a whole number.
macro_rules! deserialize_from_text_or_number {
    ($name:ident, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct TextOrNumber;

                impl Visitor<'_> for TextOrNumber {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$name, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_any(TextOrNumber)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

deserialize_from_text_or_number!(ByteCount, "a size such as \"256MiB\" or a number of bytes");
deserialize_from_text_or_number!(
    Millis,
    "a duration such as \"500ms\" or a number of milliseconds"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_with_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("7", 7),
            ("7B", 7),
            ("2KiB", 2048),
            ("256MiB", 256 << 20),
            ("1 GiB", 1 << 30),
        ] {
            assert_eq!(text.parse(), Ok(ByteCount(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "MiB", "-1", "1.5GiB", "256MB", "256mib", "99999999TiB", "1MiB1"] {
            assert_eq!(text.parse::<ByteCount>(), Err(ParseByteCountError(text.into())), "{text}");
        }
    }

    #[test]
    fn durations_are_read_with_their_unit_or_as_milliseconds() {
        for (text, ms) in
            [("500", 500), ("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("24h", 86_400_000)]
        {
            assert_eq!(text.parse(), Ok(Millis::new(ms)), "{text}");
        }
        for text in ["", "s", "-5ms", "1.5s", "25h", "10 years", "1s500ms"] {
            assert_eq!(text.parse::<Millis>(), Err(ParseDurationError(text.into())), "{text}");
        }
    }

    #[test]
    fn a_timeout_without_a_unit_is_refused() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("10"), Err(ParseDurationError("10".into())));
    }

    proptest! {
        #[test]
        fn a_printed_size_parses_back(bytes: u64) {
            prop_assert_eq!(ByteCount(bytes).to_string().parse(), Ok(ByteCount(bytes)));
        }

        #[test]
        fn a_printed_duration_parses_back(ms in 0u64..=86_400_000) {
            prop_assert_eq!(Millis::new(ms).to_string().parse(), Ok(Millis::new(ms)));
        }
    }
}

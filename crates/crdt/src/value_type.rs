//! The types of values.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The type of a keyspace's values; for ever, because it says how they merge.
///
/// The order of the variants is a format: a new one goes to the end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum ValueType {
    /// A value that is overwritten; the larger time wins.
    Register,
    /// A value that is overwritten by who has read it; what was written unseen of each other is all kept.
    Siblings,
    /// A number; every add counts, once.
    Counter,
    /// Elements; an add wins over a concurrent remove.
    Set,
    /// Fields, each a register; an unseen put survives a remove.
    Map,
    /// On or off; an enable wins over a concurrent disable.
    Flag,
}

impl ValueType {
    /// Every type there is.
    pub const ALL: [Self; 6] =
        [Self::Register, Self::Siblings, Self::Counter, Self::Set, Self::Map, Self::Flag];

    /// The type's name, as users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Siblings => "siblings",
            Self::Counter => "counter",
            Self::Set => "set",
            Self::Map => "map",
            Self::Flag => "flag",
        }
    }

    /// Whether its values are kept as elements with the ids that made them ([`Content::Live`]).
    ///
    /// [`Content::Live`]: crate::Content::Live
    pub fn has_elements(self) -> bool {
        matches!(self, Self::Siblings | Self::Set | Self::Map | Self::Flag)
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A type's name was none of the six.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no type of values: use register, siblings, counter, set, map or flag")]
pub struct ParseValueTypeError(String);

impl FromStr for ValueType {
    type Err = ParseValueTypeError;

    fn from_str(s: &str) -> Result<Self, ParseValueTypeError> {
        Self::ALL
            .into_iter()
            .find(|value_type| value_type.name() == s)
            .ok_or_else(|| ParseValueTypeError(s.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_parses_from_its_name() {
        for value_type in ValueType::ALL {
            assert_eq!(value_type.to_string().parse(), Ok(value_type));
        }
        assert_eq!("Set".parse::<ValueType>(), Err(ParseValueTypeError("Set".into())));
    }

    /// The numbers on disk.
    #[test]
    fn the_numbers_of_the_types_never_change() {
        for (number, value_type) in (0..).zip(ValueType::ALL) {
            assert_eq!(postcard::to_stdvec(&value_type), Ok(vec![number]));
        }
    }
}

//! What a write does, and to which type and by which way.

use bytes::Bytes;
use latitude_types::{Error, OperationKind, Reason, WriteTime};
use serde::{Deserialize, Serialize};

use crate::ValueType;

/// What a write does to one key.
///
/// Which ids of live elements it ends is not in here: it goes beside it ([`Write::named`]), because the
/// node that takes a write says it, not its client. Only the context of siblings comes from the client.
///
/// The order of the variants is a format: a new one goes to the end.
///
/// [`Write::named`]: crate::Write::named
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Register: the key has this value. Siblings: this value takes the place of those named.
    Put {
        /// The value.
        value: Bytes,
    },
    /// Register: the key has no value. Siblings, set, map: what is named goes; through the log, all the
    /// base holds, unless siblings are named: then only they go. Counter, through the log only: the key has no value, and the next add begins at zero.
    Delete,
    /// Register, through the log: the key gets a new value if it holds what is expected. Put-if-absent is
    /// the one that expects [`Expected::Absent`].
    CompareAndSet {
        /// What it must hold.
        expected: Expected,
        /// The new value; `None` removes the key.
        new_value: Option<Bytes>,
    },
    /// Counter: adds.
    Add {
        /// How much; may be negative.
        amount: i64,
    },
    /// Counter, through the log: adds if the sum lies within the bounds at this place in the log. Local
    /// adds folded later may carry it beyond them all the same.
    AddWithin {
        /// How much; may be negative.
        amount: i64,
        /// The sum must not be less.
        least: Option<i64>,
        /// The sum must not be more.
        most: Option<i64>,
    },
    /// Counter, through the log: the sum is zero; what is folded later counts after it.
    Reset,
    /// Set: the element is in it.
    SetAdd {
        /// The element.
        element: Bytes,
    },
    /// Set: what is named of the element goes; through the log, all the base holds of it.
    SetRemove {
        /// The element.
        element: Bytes,
    },
    /// Map: the field has this value.
    MapPut {
        /// The field.
        field: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Map: what is named of the field goes; through the log, all the base holds of it.
    MapRemove {
        /// The field.
        field: Bytes,
    },
    /// Flag: it is on.
    Enable,
    /// Flag: what is named goes; through the log, all the base holds. The flag is off if nothing is left.
    Disable,
}

/// What a conditional write expects.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Expected {
    /// The key does not exist.
    Absent,
    /// The key holds exactly these bytes.
    Value(Bytes),
    /// The key holds the value written then.
    Version(WriteTime),
}

/// An operation does not fit the keyspace or the way it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Misfit {
    /// The type has no such operation.
    #[error("a {value_type} has no operation {op:?}")]
    Type {
        /// The operation's name.
        op: &'static str,
        /// The keyspace's type.
        value_type: ValueType,
    },
    /// The operation is judged at its place in the log, and was sent at a level that does not go through it.
    #[error(
        "{op:?} on a {value_type} is judged at its place in the log: send it at level strict or sequential"
    )]
    LogOnly {
        /// The operation's name.
        op: &'static str,
        /// The keyspace's type.
        value_type: ValueType,
    },
}

impl From<Misfit> for Error {
    fn from(misfit: Misfit) -> Self {
        let reason = match misfit {
            Misfit::Type { .. } => Reason::TypeMismatch,
            Misfit::LogOnly { .. } => Reason::LevelNotForCondition,
        };
        Self::new(reason, misfit.to_string())
    }
}

impl Op {
    /// Whether the answer says something of what the key held before.
    pub fn tells_what_it_found(&self) -> bool {
        matches!(self, Self::CompareAndSet { .. } | Self::Add { .. } | Self::AddWithin { .. })
    }

    /// The operation's name, as an error says it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Put { .. } => "put",
            Self::Delete => "delete",
            Self::CompareAndSet { .. } => "compare and set",
            Self::Add { .. } => "add",
            Self::AddWithin { .. } => "add within bounds",
            Self::Reset => "reset",
            Self::SetAdd { .. } => "add element",
            Self::SetRemove { .. } => "remove element",
            Self::MapPut { .. } => "put field",
            Self::MapRemove { .. } => "remove field",
            Self::Enable => "enable",
            Self::Disable => "disable",
        }
    }

    /// Whether values of this type have the operation, and whether it may go this way.
    ///
    /// # Errors
    /// [`Misfit`], which becomes the error of the request.
    pub fn check(&self, value_type: ValueType, kind: OperationKind) -> Result<(), Misfit> {
        use ValueType::{Counter, Flag, Map, Register, Set, Siblings};
        let (fits, log_only) = match self {
            Self::Put { .. } => (matches!(value_type, Register | Siblings), false),
            Self::Delete => (value_type != Flag, value_type == Counter),
            Self::CompareAndSet { .. } => (value_type == Register, true),
            Self::Add { .. } => (value_type == Counter, false),
            Self::AddWithin { .. } | Self::Reset => (value_type == Counter, true),
            Self::SetAdd { .. } | Self::SetRemove { .. } => (value_type == Set, false),
            Self::MapPut { .. } | Self::MapRemove { .. } => (value_type == Map, false),
            Self::Enable | Self::Disable => (value_type == Flag, false),
        };
        let op = self.name();
        if !fits {
            Err(Misfit::Type { op, value_type })
        } else if log_only && kind == OperationKind::Local {
            Err(Misfit::LogOnly { op, value_type })
        } else {
            Ok(())
        }
    }

    /// The set element or map field it is about; empty for whatever is about the whole value.
    pub(crate) fn name_of_element(&self) -> &Bytes {
        static NONE: Bytes = Bytes::new();
        match self {
            Self::SetAdd { element } | Self::SetRemove { element } => element,
            Self::MapPut { field, .. } | Self::MapRemove { field } => field,
            _ => &NONE,
        }
    }
}

//! What can be asked of one key.

use bytes::Bytes;
use latitude_rpc::ToWire;
use latitude_rpc::pb::v1;
use latitude_types::{Key, Result, WriteTime};

/// What a key must hold for a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The key does not exist.
    Absent,
    /// Exactly this value.
    Value(Bytes),
    /// The value of exactly this version.
    Version(WriteTime),
}

/// One operation of a batch. Which types of keyspaces have it is said at each; in any other it fails with
/// [`Reason::TypeMismatch`].
///
/// [`Reason::TypeMismatch`]: crate::Reason::TypeMismatch
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Every type: reads a key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// Registers: writes a key, whatever it held. Siblings: writes one more, in the place of none.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Every type but flags: removes a key.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Registers: writes a key if it holds what is expected.
    CompareAndSet {
        /// The key.
        key: Bytes,
        /// What it must hold.
        expected: Expected,
        /// The new value; `None` removes the key.
        new_value: Option<Bytes>,
    },
    /// Siblings: writes a key in the place of those that were read.
    PutSibling {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The [`Siblings::context`](crate::Siblings::context) of what was read.
        context: Bytes,
    },
    /// Siblings: removes those that were read.
    DeleteSiblings {
        /// The key.
        key: Bytes,
        /// The [`Siblings::context`](crate::Siblings::context) of what was read.
        context: Bytes,
    },
    /// Counters: adds.
    Add {
        /// The key.
        key: Bytes,
        /// How much; may be negative.
        amount: i64,
    },
    /// Counters: adds if the sum is within bounds afterwards.
    AddWithin {
        /// The key.
        key: Bytes,
        /// How much; may be negative.
        amount: i64,
        /// The sum must not be less.
        least: Option<i64>,
        /// The sum must not be more.
        most: Option<i64>,
    },
    /// Counters: sets the sum to zero.
    Reset {
        /// The key.
        key: Bytes,
    },
    /// Sets: adds an element.
    SetAdd {
        /// The key.
        key: Bytes,
        /// The element, 1 to 4096 bytes.
        element: Bytes,
    },
    /// Sets: removes an element.
    SetRemove {
        /// The key.
        key: Bytes,
        /// The element.
        element: Bytes,
    },
    /// Maps: writes a field.
    MapPut {
        /// The key.
        key: Bytes,
        /// The field, 1 to 4096 bytes.
        field: Bytes,
        /// The field's value.
        value: Bytes,
    },
    /// Maps: removes a field.
    MapRemove {
        /// The key.
        key: Bytes,
        /// The field.
        field: Bytes,
    },
    /// Flags: turns one on.
    Enable {
        /// The key.
        key: Bytes,
    },
    /// Flags: turns one off.
    Disable {
        /// The key.
        key: Bytes,
    },
}

impl Operation {
    /// Reads a key.
    pub fn get(key: impl AsRef<[u8]>) -> Self {
        Self::Get { key: copied(key) }
    }

    /// Writes a key, whatever it held.
    pub fn put(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: copied(key), value: value.into() }
    }

    /// Removes a key, whether or not it exists.
    pub fn delete(key: impl AsRef<[u8]>) -> Self {
        Self::Delete { key: copied(key) }
    }

    /// Writes a key if it holds what is expected; `None` removes it.
    pub fn compare_and_set(
        key: impl AsRef<[u8]>,
        expected: Expected,
        new_value: Option<Bytes>,
    ) -> Self {
        Self::CompareAndSet { key: copied(key), expected, new_value }
    }

    /// Writes one sibling in the place of those that were read.
    pub fn put_sibling(key: impl AsRef<[u8]>, value: impl Into<Bytes>, context: Bytes) -> Self {
        Self::PutSibling { key: copied(key), value: value.into(), context }
    }

    /// Removes the siblings that were read.
    pub fn delete_siblings(key: impl AsRef<[u8]>, context: Bytes) -> Self {
        Self::DeleteSiblings { key: copied(key), context }
    }

    /// Adds to a counter.
    pub fn add(key: impl AsRef<[u8]>, amount: i64) -> Self {
        Self::Add { key: copied(key), amount }
    }

    /// Adds to a counter if the sum is within the bounds afterwards.
    pub fn add_within(
        key: impl AsRef<[u8]>,
        amount: i64,
        least: Option<i64>,
        most: Option<i64>,
    ) -> Self {
        Self::AddWithin { key: copied(key), amount, least, most }
    }

    /// Sets a counter to zero.
    pub fn reset(key: impl AsRef<[u8]>) -> Self {
        Self::Reset { key: copied(key) }
    }

    /// Adds an element to a set.
    pub fn set_add(key: impl AsRef<[u8]>, element: impl AsRef<[u8]>) -> Self {
        Self::SetAdd { key: copied(key), element: copied(element) }
    }

    /// Removes an element from a set.
    pub fn set_remove(key: impl AsRef<[u8]>, element: impl AsRef<[u8]>) -> Self {
        Self::SetRemove { key: copied(key), element: copied(element) }
    }

    /// Writes a field of a map.
    pub fn map_put(
        key: impl AsRef<[u8]>,
        field: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
    ) -> Self {
        Self::MapPut { key: copied(key), field: copied(field), value: value.into() }
    }

    /// Removes a field of a map.
    pub fn map_remove(key: impl AsRef<[u8]>, field: impl AsRef<[u8]>) -> Self {
        Self::MapRemove { key: copied(key), field: copied(field) }
    }

    /// Turns a flag on.
    pub fn enable(key: impl AsRef<[u8]>) -> Self {
        Self::Enable { key: copied(key) }
    }

    /// Turns a flag off.
    pub fn disable(key: impl AsRef<[u8]>) -> Self {
        Self::Disable { key: copied(key) }
    }

    /// The operation's key, checked: a key no server would take is refused here.
    pub(crate) fn key(&self) -> Result<&Bytes> {
        let (Self::Get { key }
        | Self::Put { key, .. }
        | Self::Delete { key }
        | Self::CompareAndSet { key, .. }
        | Self::PutSibling { key, .. }
        | Self::DeleteSiblings { key, .. }
        | Self::Add { key, .. }
        | Self::AddWithin { key, .. }
        | Self::Reset { key }
        | Self::SetAdd { key, .. }
        | Self::SetRemove { key, .. }
        | Self::MapPut { key, .. }
        | Self::MapRemove { key, .. }
        | Self::Enable { key }
        | Self::Disable { key }) = self;
        Key::new(key)?;
        Ok(key)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Get { .. } => "get",
            Self::Put { .. } | Self::PutSibling { .. } => "put",
            Self::Delete { .. } | Self::DeleteSiblings { .. } => "delete",
            Self::CompareAndSet { .. } => "compare_and_set",
            Self::Add { .. } => "add",
            Self::AddWithin { .. } => "add_within",
            Self::Reset { .. } => "reset",
            Self::SetAdd { .. } => "set_add",
            Self::SetRemove { .. } => "set_remove",
            Self::MapPut { .. } => "map_put",
            Self::MapRemove { .. } => "map_remove",
            Self::Enable { .. } => "enable",
            Self::Disable { .. } => "disable",
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        !matches!(self, Self::Get { .. })
    }

    /// Judged in the log, at every level. The removal of a counter is, too; but only the server knows that
    /// it is one, and sends the client to the leader.
    pub(crate) fn is_conditional(&self) -> bool {
        matches!(self, Self::CompareAndSet { .. } | Self::AddWithin { .. } | Self::Reset { .. })
    }

    pub(crate) fn to_wire(&self) -> v1::command::Operation {
        use v1::command::Operation as Wire;
        let no_context = Bytes::new();
        match self.clone() {
            Self::Get { key } => Wire::Get(v1::Get { key }),
            Self::Put { key, value } => Wire::Put(v1::Put { key, value, context: no_context }),
            Self::Delete { key } => Wire::Delete(v1::Delete { key, context: no_context }),
            Self::CompareAndSet { key, expected, new_value } => {
                use v1::compare_and_set::Expected as WireExpected;
                let expected = Some(match expected {
                    Expected::Absent => WireExpected::Absent(true),
                    Expected::Value(value) => WireExpected::Value(value),
                    Expected::Version(version) => WireExpected::Version(version.to_wire()),
                });
                Wire::CompareAndSet(v1::CompareAndSet { key, expected, new_value })
            }
            Self::PutSibling { key, value, context } => Wire::Put(v1::Put { key, value, context }),
            Self::DeleteSiblings { key, context } => Wire::Delete(v1::Delete { key, context }),
            Self::Add { key, amount } => {
                Wire::CounterAdd(v1::CounterAdd { key, amount, least: None, most: None })
            }
            Self::AddWithin { key, amount, least, most } => {
                Wire::CounterAdd(v1::CounterAdd { key, amount, least, most })
            }
            Self::Reset { key } => Wire::CounterReset(v1::CounterReset { key }),
            Self::SetAdd { key, element } => Wire::SetAdd(v1::SetAdd { key, element }),
            Self::SetRemove { key, element } => Wire::SetRemove(v1::SetRemove { key, element }),
            Self::MapPut { key, field, value } => Wire::MapPut(v1::MapPut { key, field, value }),
            Self::MapRemove { key, field } => Wire::MapRemove(v1::MapRemove { key, field }),
            Self::Enable { key } => Wire::FlagEnable(v1::FlagEnable { key }),
            Self::Disable { key } => Wire::FlagDisable(v1::FlagDisable { key }),
        }
    }
}

fn copied(bytes: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(bytes.as_ref())
}

//! What operations take and give.

use std::time::Duration;

use bytes::Bytes;
use latitude_rpc::pb::v1;
use latitude_rpc::{FromWire, ToWire};
use latitude_types::{Error, Key, Reason, Result, WriteTime};

use crate::receipt::Receipt;

/// An operation's result and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// The result.
    pub value: T,
    /// What was delivered; `None` if no receipt was asked for.
    pub receipt: Option<Receipt>,
    /// The token of the reply, as its bytes: opaque. Empty if neither a session nor a receipt was
    /// asked for. A [`Session`] takes it in by itself. For a scan: of its last part.
    ///
    /// [`Session`]: crate::Session
    pub token: Bytes,
    /// How many commands were sent until one was answered; for a scan, over all its ranges.
    pub attempts: u32,
    /// How long the caller waited, all attempts included.
    pub latency: Duration,
}

impl<T> Answer<T> {
    /// The same answer with another result.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            value: change(self.value),
            receipt: self.receipt,
            token: self.token,
            attempts: self.attempts,
            latency: self.latency,
        }
    }

    pub(crate) fn try_map<U>(self, change: impl FnOnce(T) -> Result<U>) -> Result<Answer<U>> {
        let Self { value, receipt, token, attempts, latency } = self;
        Ok(Answer { value: change(value)?, receipt, token, attempts, latency })
    }
}

/// A value read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Its bytes.
    pub bytes: Bytes,
    /// What identifies it, for [`Expected::Version`].
    pub version: WriteTime,
}

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

/// How a conditional write went. Both are successes: the condition was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CasOutcome {
    /// The key held what was expected; the new value has this version.
    Applied {
        /// The version written.
        version: WriteTime,
    },
    /// It held something else, and nothing was written.
    Mismatch {
        /// The version found; `None` if the key did not exist.
        found: Option<WriteTime>,
    },
}

impl CasOutcome {
    /// Whether the new value was written.
    pub fn is_applied(&self) -> bool {
        matches!(self, Self::Applied { .. })
    }
}

/// One operation of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Reads a key.
    Get {
        /// The key.
        key: Bytes,
    },
    /// Writes a key, whatever it held.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Writes a key if it holds what is expected.
    CompareAndSet {
        /// The key.
        key: Bytes,
        /// What it must hold.
        expected: Expected,
        /// The new value; `None` removes the key.
        new_value: Option<Bytes>,
    },
}

impl Operation {
    /// Reads a key.
    pub fn get(key: impl AsRef<[u8]>) -> Self {
        Self::Get { key: Bytes::copy_from_slice(key.as_ref()) }
    }

    /// Writes a key, whatever it held.
    pub fn put(key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Self {
        Self::Put { key: Bytes::copy_from_slice(key.as_ref()), value: value.into() }
    }

    /// Removes a key, whether or not it exists.
    pub fn delete(key: impl AsRef<[u8]>) -> Self {
        Self::Delete { key: Bytes::copy_from_slice(key.as_ref()) }
    }

    /// Writes a key if it holds what is expected; `None` removes it.
    pub fn compare_and_set(
        key: impl AsRef<[u8]>,
        expected: Expected,
        new_value: Option<Bytes>,
    ) -> Self {
        Self::CompareAndSet { key: Bytes::copy_from_slice(key.as_ref()), expected, new_value }
    }

    /// The operation's key, checked: a key no server would take is refused here.
    pub(crate) fn key(&self) -> Result<&Bytes> {
        let (Self::Get { key }
        | Self::Put { key, .. }
        | Self::Delete { key }
        | Self::CompareAndSet { key, .. }) = self;
        Key::new(key)?;
        Ok(key)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Get { .. } => "get",
            Self::Put { .. } => "put",
            Self::Delete { .. } => "delete",
            Self::CompareAndSet { .. } => "compare_and_set",
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        !matches!(self, Self::Get { .. })
    }

    /// Conditions are judged in the log, at every level.
    pub(crate) fn is_conditional(&self) -> bool {
        matches!(self, Self::CompareAndSet { .. })
    }

    pub(crate) fn to_wire(&self) -> v1::command::Operation {
        use v1::command::Operation as Wire;
        match self.clone() {
            Self::Get { key } => Wire::Get(v1::Get { key }),
            Self::Put { key, value } => Wire::Put(v1::Put { key, value, context: Bytes::new() }),
            Self::Delete { key } => Wire::Delete(v1::Delete { key, context: Bytes::new() }),
            Self::CompareAndSet { key, expected, new_value } => {
                use v1::compare_and_set::Expected as WireExpected;
                let expected = Some(match expected {
                    Expected::Absent => WireExpected::Absent(true),
                    Expected::Value(value) => WireExpected::Value(value),
                    Expected::Version(version) => WireExpected::Version(version.to_wire()),
                });
                Wire::CompareAndSet(v1::CompareAndSet { key, expected, new_value })
            }
        }
    }
}

/// The result of one operation of a batch: of the kind its operation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Of a get; `None`: the key does not exist.
    Got(Option<Value>),
    /// Of a put or a delete: the version written.
    Written(WriteTime),
    /// Of a compare_and_set.
    Compared(CasOutcome),
}

impl Outcome {
    /// Reads a reply. One that does not fit its operation is a fault of the server's, and a write that
    /// got it may have happened.
    pub(crate) fn from_wire(
        operation: &Operation,
        result: Option<v1::reply::Result>,
    ) -> Result<Self> {
        use v1::reply::Result as Wire;
        let parsed = match (operation, result) {
            (Operation::Get { .. }, Some(Wire::Get(v1::GetResult { value, version, .. }))) => {
                match (value, version) {
                    (Some(bytes), Some(version)) => WriteTime::from_wire(&version)
                        .ok()
                        .map(|version| Self::Got(Some(Value { bytes, version }))),
                    (None, _) => Some(Self::Got(None)),
                    (Some(_), None) => None,
                }
            }
            (
                Operation::Put { .. } | Operation::Delete { .. },
                Some(Wire::Write(v1::WriteResult { version: Some(version) })),
            ) => WriteTime::from_wire(&version).ok().map(Self::Written),
            (Operation::CompareAndSet { .. }, Some(Wire::CompareAndSet(result))) => {
                match result.version.as_ref().map(WriteTime::from_wire).transpose() {
                    Ok(Some(version)) if result.applied => {
                        Some(Self::Compared(CasOutcome::Applied { version }))
                    }
                    Ok(found) if !result.applied => {
                        Some(Self::Compared(CasOutcome::Mismatch { found }))
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        parsed.ok_or_else(|| unfitting(operation.name(), operation.is_write()))
    }
}

/// A reply that cannot be one to the operation.
pub(crate) fn unfitting(operation: &str, write: bool) -> Error {
    let message = format!("the server's reply is not one to a {operation}: report it");
    if write {
        Error::unknown(Reason::Internal, message)
    } else {
        Error::new(Reason::Internal, message)
    }
}

//! What operations give.

use std::time::Duration;

use bytes::Bytes;
use latitude_rpc::FromWire;
use latitude_rpc::pb::v1;
use latitude_types::{Error, Reason, Result, WriteTime};

use crate::operation::Operation;
use crate::receipt::Receipt;
use crate::typed::{AddOutcome, Held};

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
    /// What identifies it, for [`Expected::Version`](crate::Expected::Version).
    pub version: WriteTime,
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

/// The result of one operation of a batch: of the kind its operation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Of a get in a keyspace of registers; `None`: the key does not exist.
    Got(Option<Value>),
    /// Of a get in a keyspace of any other type.
    GotTyped(Held),
    /// Of a compare_and_set.
    Compared(CasOutcome),
    /// Of an add, with or without bounds.
    Added(AddOutcome),
    /// Of any other write: the version written.
    Written(WriteTime),
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
            (Operation::Get { .. }, Some(Wire::Get(result))) if result.typed.is_some() => {
                Held::from_wire(result).ok().map(Self::GotTyped)
            }
            (Operation::Get { .. }, Some(Wire::Get(v1::GetResult { value, version, .. }))) => {
                match (value, version) {
                    (Some(bytes), Some(version)) => WriteTime::from_wire(&version)
                        .ok()
                        .map(|version| Self::Got(Some(Value { bytes, version }))),
                    (None, _) => Some(Self::Got(None)),
                    (Some(_), None) => None,
                }
            }
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
            (
                Operation::Add { .. } | Operation::AddWithin { .. },
                Some(Wire::CounterAdd(result)),
            ) => AddOutcome::from_wire(result).ok().map(Self::Added),
            (
                Operation::Put { .. }
                | Operation::Delete { .. }
                | Operation::PutSibling { .. }
                | Operation::DeleteSiblings { .. }
                | Operation::Reset { .. }
                | Operation::SetAdd { .. }
                | Operation::SetRemove { .. }
                | Operation::MapPut { .. }
                | Operation::MapRemove { .. }
                | Operation::Enable { .. }
                | Operation::Disable { .. },
                Some(Wire::Write(v1::WriteResult { version: Some(version) })),
            ) => WriteTime::from_wire(&version).ok().map(Self::Written),
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

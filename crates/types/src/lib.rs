//! The words every crate of Latitude shares: ids, keys, spans of keys, timestamps, the error.
//!
//! ```text
//!   Timestamp ── Stamp (of a log entry)          Key ∈ KeySpan ── of a range
//!       └─────── OperationId (of a write)         NodeId, Generation ── ReplicaId
//!   Reason ──▶ Kind (what the caller does next)   Outcome (may a write have happened?)
//! ```
//!
//! Nothing here knows a component's messages, its configuration or how it works; nothing here does
//! I/O or reads a clock.

mod error;
mod id;
mod key;
mod level;
mod operation_id;
mod past;
mod time;

pub use error::{Error, Kind, LeaderHint, MissingQuorum, Outcome, Reason, Result};
pub use id::{
    ClientId, ClusterId, ClusterIdentity, Epoch, Generation, KeyspaceId, NodeId, ParseIdError,
    RangeId, ReplicaId, StoreId,
};
pub use key::{KEY_LEN_MAX, Key, KeySpan};
pub use level::{Level, ParseLevelError};
pub use operation_id::{OPERATION_ID_LIFETIME, OperationId, OperationKind, WriteTime, Writer};
pub use past::{PAST_RANGES_MAX, Past, Positions};
pub use time::{Stamp, Timestamp};

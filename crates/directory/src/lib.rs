//! What a cluster consists of: its nodes, keyspaces and ranges.
//!
//! ```text
//!   meta range, a register for each:          every node, in memory:
//!     node/‹id›        NodeRecord               Directory
//!     keyspace/‹name›  KeyspaceRecord   ──▶       name ─▶ keyspace ─▶ its ranges in key order ─▶ replicas
//!     range/‹id›       RangeRecord                node ─▶ address, region, zone
//!     next/‹what›      the next free number
//! ```
//!
//! The records are ordinary registers of the keyspace [`KeyspaceId::META`], written through the meta
//! range's log by conditional writes, one record at a time. What must happen together is made so by the
//! order of writes: a keyspace's ranges are written first, and exist for nobody until the keyspace's own
//! record, written last, names them by number.
//!
//! Pure: from rows to a [`Directory`], and questions to it. How rows are read and written, and who leads,
//! is not known here.

mod directory;
mod record;

pub use directory::{Directory, DirectoryError};
pub use record::{
    Address, Counter, KeyspaceRecord, KeyspaceState, NodeRecord, RangeRecord, RecordError,
    RegionReplicas, key,
};

#[cfg(doc)]
use latitude_types::KeyspaceId;

//! What a key holds: stored in the base, and made anew for every read that merges deltas into it.

use bytes::Bytes;
use latitude_types::{OperationId, Stamp, WriteTime};
use serde::{Deserialize, Serialize};

/// What a key holds.
///
/// Canonical: equal contents have equal bytes, so that replicas can compare checksums. Elements are in
/// order, and no elements at all is [`Content::Deleted`].
///
/// The order of the variants is a format: a new one goes to the end.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Content {
    /// Nothing: it was deleted, or never written.
    #[default]
    Deleted,
    /// A register's value.
    Plain(Bytes),
    /// Live elements with their ids (siblings, sets, maps, flags), by name and then id; at least one.
    Live(Vec<Element>),
    /// A counter's sum. Wider than any sum of 2^64 adds, so that adds commute.
    Counter(i128),
}

/// A live element.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Element {
    /// The operation that made it, by which it is ended.
    pub id: OperationId,
    /// Where in the log it was made, unless a local write made it.
    pub logged: Option<LogPlace>,
    /// The set element or the map field; empty for siblings and flags.
    pub name: Bytes,
    /// The sibling's or the field's value; empty for sets and flags.
    pub value: Bytes,
}

/// The place of a log write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct LogPlace {
    /// The stamp of its entry.
    pub stamp: Stamp,
    /// Which operation of that entry.
    pub ordinal: u32,
}

impl LogPlace {
    /// The time of a write there.
    pub fn time(self) -> WriteTime {
        WriteTime::of_log_write(self.stamp, self.ordinal)
    }
}

impl Element {
    /// The time of the write that made it.
    pub fn time(&self) -> WriteTime {
        self.logged.map_or_else(|| WriteTime::of_local_write(&self.id), LogPlace::time)
    }
}

//! The five columns: static, because a column per range would cost megabytes and a flush each.

use std::fmt;

/// A column of the store: its own ordered map, sharing the write-ahead log with the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Column {
    /// The Raft logs and votes of the replicas. Written once, read once or twice, deleted in spans.
    Log,
    /// What the logs decide: values, ids, range metadata. A function of the logs alone.
    Base,
    /// Deltas not yet part of `Base`, by key: what a local read adds to the base.
    Overlay,
    /// The same deltas by origin and position: what is sent to other nodes.
    Stream,
    /// What belongs to the node rather than to a replica: identity, clock bound, list of replicas.
    Node,
}

impl Column {
    /// Every column.
    pub const ALL: [Self; 5] = [Self::Log, Self::Base, Self::Overlay, Self::Stream, Self::Node];

    /// The column's name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Base => "base",
            Self::Overlay => "overlay",
            Self::Stream => "stream",
            Self::Node => "node",
        }
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

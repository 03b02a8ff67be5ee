//! The id of a write, and the time by which a register's writes compare.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ClientId, NodeId, Stamp, Timestamp};

/// How long after its birth a write may be retried: later it is refused, so that its id need not be
/// remembered for ever.
pub const OPERATION_ID_LIFETIME: Duration = Duration::from_secs(600);

/// Which of the two ways of taking a write an id belongs to. A retry keeps its kind, because the two
/// keep their ids in different places and could not recognise each other's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum OperationKind {
    /// Through the range's log: level strict or sequential.
    Log,
    /// Taken by an origin as a delta: level causal or eventual.
    Local,
}

/// The id of a write, chosen once by the client and kept through every retry: with it a write takes
/// effect at most once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId {
    /// When the client made the operation: the cluster's clock as the client last saw it, moved on by
    /// the client's own monotonic time. Never a host's wall clock.
    pub birth: Timestamp,
    /// The client's process.
    pub client: ClientId,
    /// Counts up in each client, from 1.
    pub sequence: u64,
    /// Log or local.
    pub kind: OperationKind,
}

impl OperationId {
    /// When the id stops being accepted.
    pub fn expires_at(&self) -> Timestamp {
        self.birth.plus_ms(OPERATION_ID_LIFETIME.as_millis() as u64)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            OperationKind::Log => "log",
            OperationKind::Local => "local",
        };
        write!(f, "{}:{}:{}:{kind}", self.client, self.sequence, self.birth)
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who wrote a value: breaks the tie between equal times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Writer {
    /// A local write, by its client.
    Client(ClientId),
    /// A log write, by the node that stamped it. Above every client: at equal times the log wins.
    Node(NodeId),
}

/// The time by which writes to a register compare, the larger one winning; also a value's *version*.
///
/// The order of fields is the order of comparison: time, log above local, node or client, sequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WriteTime {
    /// A log write's stamp, a local write's birth.
    pub time: Timestamp,
    /// Who wrote.
    pub writer: Writer,
    /// A log write's place inside its entry, a local write's sequence in its client.
    pub sequence: u64,
}

impl WriteTime {
    /// The time of a log write: the stamp of its entry and its place in it.
    pub fn of_log_write(stamp: Stamp, ordinal: u32) -> Self {
        Self { time: stamp.time, writer: Writer::Node(stamp.node), sequence: u64::from(ordinal) }
    }

    /// The time of a local write: its birth, then its client and its place in that client, so that all
    /// its copies have the same one wherever they were taken.
    pub fn of_local_write(id: &OperationId) -> Self {
        Self { time: id.birth, writer: Writer::Client(id.client), sequence: id.sequence }
    }
}

impl fmt::Display for WriteTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.writer {
            Writer::Node(node) => write!(f, "{}@{node}", self.time)?,
            Writer::Client(client) => write!(f, "{}@{client}", self.time)?,
        }
        write!(f, "#{}", self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_equal_times_the_log_wins_over_a_local_write() {
        let time = Timestamp::from_ms(7);
        let log = WriteTime::of_log_write(Stamp { time, node: NodeId(1) }, 0);
        let local =
            WriteTime { time, writer: Writer::Client(ClientId([0xff; 16])), sequence: u64::MAX };
        assert!(log > local);
    }

    #[test]
    fn a_later_place_in_the_same_entry_wins() {
        let stamp = Stamp { time: Timestamp::from_ms(7), node: NodeId(1) };
        assert!(WriteTime::of_log_write(stamp, 1) > WriteTime::of_log_write(stamp, 0));
    }
}

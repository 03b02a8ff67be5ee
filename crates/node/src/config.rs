//! What a node is told.

use std::time::Duration;

use latitude_consensus::{Settings, SnapshotSettings};
use latitude_directory::Address;
use latitude_types::StoreId;

/// What a node is told.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The store it runs on.
    pub store: StoreId,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
    /// Where it listens: `host:port`. Port 0: any free one.
    pub listen: String,
    /// Where others reach it; `None`: where it listens.
    pub advertise: Option<Address>,
    /// Where it finds others. Empty: it is a cluster of its own.
    pub join: Vec<String>,
    /// Raft's timing: the same on every node.
    pub settings: Settings,
    /// How strict reads are proved.
    pub read_mode: ReadMode,
    /// ε: how far clocks may differ.
    pub max_clock_offset: Duration,
    /// What it takes.
    pub limits: Limits,
    /// When logs are shortened, and how fast snapshots are sent.
    pub snapshots: SnapshotSettings,
}

/// How a leader proves a strict read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReadMode {
    /// By a round of messages to a quorum, for all reads that wait.
    #[default]
    ReadIndex,
    /// By its lease, once every voter of the range has this mode too; until then by read index. A node in
    /// this mode is silent for about one lease after its start: it neither votes, nor campaigns, nor takes
    /// over.
    Lease,
}

impl ReadMode {
    /// Its name, in configuration and status.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadIndex => "read-index",
            Self::Lease => "lease",
        }
    }
}

/// What a node takes before it refuses.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests in hand at once.
    pub requests_in_flight_max: usize,
    /// Writes are refused while the disk has less free than this, in bytes; 0: never.
    pub free_space_floor: u64,
    /// The deadline of a request that names none.
    pub default_timeout: Duration,
    /// Local writes of one range that are not in its log yet take about this much memory, in bytes, before
    /// further ones are refused.
    pub unfolded_bytes_max: usize,
    /// This node's own local writes that are folded are kept for those who lag behind while all of its own take less
    /// than this in its store, in bytes. Whoever lags behind further has them by the log.
    pub laggards_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_in_flight_max: 4096,
            free_space_floor: 512 << 20,
            default_timeout: Duration::from_secs(10),
            unfolded_bytes_max: 64 << 20,
            laggards_bytes_max: 256 << 20,
        }
    }
}

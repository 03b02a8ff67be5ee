//! A node of the cluster, in this process: what it is told, and its life from the first log line to
//! the last.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::address::{Address, PlaceName};
use crate::telemetry::{LogFilter, LogFormat};
use crate::units::{ByteCount, Millis};

/// Everything a node is told when it starts: complete, and found to make sense together.
///
/// Holds, because [`crate::settings::settle`] refuses everything else:
/// `2 × round_trip_max ≤ heartbeat_interval`,
/// `4 × heartbeat_interval ≤ election_timeout_min < election_timeout_max`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartOptions {
    /// The region the node is in.
    pub region: PlaceName,
    /// The zone in the region: what fails together.
    pub zone: PlaceName,
    /// The directory of the store; created if it does not exist.
    pub store: PathBuf,
    /// The address to listen on. Port 0: one the system chooses.
    pub listen: Address,
    /// The address by which others reach the node. `None`: the one it listens on, once bound.
    pub advertise: Option<Address>,
    /// The address by which nodes and clients of these regions reach it instead.
    pub advertise_from: BTreeMap<PlaceName, Address>,
    /// Nodes of the cluster to find the others by; may name this node too. Empty: the node is a cluster
    /// of its own, and makes it when its store is new. Otherwise it waits for `latitude init`.
    pub join: Vec<Address>,
    /// Memory for blocks of the store read from disk, at least 8 MiB.
    pub cache_size: ByteCount,
    /// Writes are refused while the store's disk has less free than this. Zero: never.
    pub free_space_floor: ByteCount,
    /// Requests taken at once before others are refused, at least 1.
    pub max_requests_in_flight: u32,
    /// How far clocks of nodes may differ: 1 ms to 60 s.
    pub max_clock_offset: Millis,
    /// The largest round trip between nodes the cluster is planned for: 1 ms to 10 s.
    pub round_trip_max: Millis,
    /// How often a leader is heard from, at least.
    pub heartbeat_interval: Millis,
    /// How long a follower waits for its leader before it stands for election, at least.
    pub election_timeout_min: Millis,
    /// The same, at most: each wait is drawn between the two.
    pub election_timeout_max: Millis,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_level: LogFilter,
    /// For tests: added to the physical clock, in milliseconds.
    pub clock_skew_ms: i64,
}

/// Runs the node until it is told to stop.
pub fn run(options: StartOptions) -> anyhow::Result<()> {
    crate::telemetry::init(options.log_format, &options.log_level)?;
    // REPLACED WHEN `latitude-node` IS PLUGGED IN: the call that runs a node with these options.
    anyhow::bail!("this build holds no node: the crate latitude-node is missing")
}

//! A node of the cluster, in this process: what it is told, and its life from the first log line to
//! the last.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use latitude_clock::SkewedClock;
use latitude_consensus::{Failpoints, NoFailpoints, Settings, SnapshotSettings, Step};
use latitude_directory as directory;
use latitude_node::adapters::{FlushThread, SystemClock};
use latitude_node::{Limits, Node, NodeConfig, Ports};
use latitude_rpc::net::Tcp;
use latitude_storage::Engine;
use latitude_storage_rocksdb::RocksEngine;
use latitude_types::{RangeId, StoreId};
use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};

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
    /// Local writes of a range that are not in its log yet take so much at most, at least 1 MiB.
    pub unfolded_bytes: ByteCount,
    /// A range's log is shortened once it holds so much, at least 1 MiB.
    pub snapshot_log_bytes: ByteCount,
    /// What the node sends of snapshots in a second, at least 64 KiB.
    pub snapshot_bytes_per_second: ByteCount,
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
    /// How strict reads are proved.
    pub read_mode: ReadMode,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_level: LogFilter,
    /// For tests: added to the physical clock, in milliseconds.
    pub clock_skew_ms: i64,
}

/// How a leader proves a strict read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadMode {
    /// By asking a quorum
    ReadIndex,
    /// By its lease
    Lease,
}

impl From<ReadMode> for latitude_node::ReadMode {
    fn from(mode: ReadMode) -> Self {
        match mode {
            ReadMode::ReadIndex => Self::ReadIndex,
            ReadMode::Lease => Self::Lease,
        }
    }
}

/// Runs the node until it is told to stop, by SIGTERM, by SIGINT, or by a fault it cannot go on with.
pub fn run(options: StartOptions) -> anyhow::Result<()> {
    crate::telemetry::init(options.log_format, &options.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(options));
    // What still runs hears nothing of the outside any more; waiting for it would only be late.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

async fn serve(options: StartOptions) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let (config, ports) = open(&options)?;
    let alone = config.join.is_empty();
    let node = Node::start(config, ports).await?;
    tracing::info!(
        address = node.listens_on(),
        region = options.region.as_str(),
        store = %options.store.display(),
        "listening{}",
        if alone { "" } else { "; if the cluster is new, run `latitude init` against one of its nodes" },
    );
    tokio::select! {
        biased;
        reason = node.failed() => anyhow::bail!("{reason}"),
        () = signals.told_to_stop() => {}
    }
    tracing::info!("stopping: other nodes take over; a second signal stops at once");
    tokio::select! {
        () = node.shut_down() => {}
        () = signals.told_to_stop() => anyhow::bail!("stopped at once, by a second signal"),
    }
    tracing::info!("stopped");
    Ok(())
}

/// Opens the store and the rest of the real world.
fn open(options: &StartOptions) -> anyhow::Result<(NodeConfig, Ports)> {
    let store_options = latitude_storage_rocksdb::Options {
        block_cache_bytes: options.cache_size.0 as usize,
        ..latitude_storage_rocksdb::Options::default()
    };
    let new_store = StoreId(rand::make_rng::<StdRng>().random());
    let engine = RocksEngine::open_or_create(&options.store, new_store, &store_options)?;
    let store = engine.store_id();
    let engine: Arc<dyn Engine> = Arc::new(engine);
    let clock = SkewedClock::new(SystemClock::new());
    clock.set_offset_us(options.clock_skew_ms * 1000);
    let settings = Settings {
        heartbeat_interval: options.heartbeat_interval.0,
        election_timeout_min: options.election_timeout_min.0,
        election_timeout_max: options.election_timeout_max.0,
    };
    let advertise = |address: &Address| directory::Address {
        default: address.to_string(),
        from_region: options
            .advertise_from
            .iter()
            .map(|(region, address)| (region.as_str().to_string(), address.to_string()))
            .collect(),
    };
    // Without an address of its own the node tells the one it listens on, which must be known here for
    // the others to be told with it.
    let advertised = match (&options.advertise, options.advertise_from.is_empty()) {
        (Some(address), _) => Some(advertise(address)),
        (None, false) => Some(advertise(&options.listen)),
        (None, true) => None,
    };
    let config = NodeConfig {
        store,
        region: options.region.as_str().to_string(),
        zone: options.zone.as_str().to_string(),
        listen: options.listen.to_string(),
        advertise: advertised,
        join: options.join.iter().map(ToString::to_string).collect(),
        settings: settings.validated(options.round_trip_max.0)?,
        read_mode: options.read_mode.into(),
        max_clock_offset: options.max_clock_offset.0,
        limits: Limits {
            requests_in_flight_max: options.max_requests_in_flight as usize,
            free_space_floor: options.free_space_floor.0,
            unfolded_bytes_max: usize::try_from(options.unfolded_bytes.0).unwrap_or(usize::MAX),
            ..Limits::default()
        },
        snapshots: SnapshotSettings {
            log_bytes_max: options.snapshot_log_bytes.0,
            bytes_per_second: options.snapshot_bytes_per_second.0,
        },
    };
    let ports = Ports {
        clock: Arc::new(clock),
        net: Arc::new(Tcp),
        flush: Box::new(FlushThread::start(Arc::clone(&engine))),
        engine,
        failpoints: failpoints()?,
        seed: rand::make_rng::<StdRng>().random(),
    };
    Ok((config, ports))
}

/// For tests: the environment variable `LATITUDE_ABORT_AT` names the step of a snapshot at which the
/// process is to end, as if it were killed there. Without it every step passes.
fn failpoints() -> anyhow::Result<Arc<dyn Failpoints>> {
    match std::env::var("LATITUDE_ABORT_AT") {
        Ok(step) => Ok(Arc::new(AbortAt(step.parse().map_err(anyhow::Error::msg)?))),
        Err(_) => Ok(Arc::new(NoFailpoints)),
    }
}

struct AbortAt(Step);

impl Failpoints for AbortAt {
    fn reached(&self, range: RangeId, step: Step) -> std::io::Result<()> {
        if step == self.0 {
            tracing::error!(%range, %step, "aborted, as LATITUDE_ABORT_AT says");
            std::process::abort();
        }
        Ok(())
    }
}

/// The signals that stop a node.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn told_to_stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

//! Simulated hosts that run the production node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use latitude_clock::{PhysicalClock, SkewedClock};
use latitude_consensus::{Settings, seed_thread_rng};
use latitude_node::{Limits, Node, NodeConfig, Ports};
use latitude_storage::Engine;
use latitude_storage::memory::{MemoryDisk, MemoryEngine};
use latitude_types::StoreId;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use turmoil::Sim;

use crate::clock::VirtualClock;
use crate::disk::SlowFlush;
use crate::net::SimNet;
use crate::trace::Trace;

/// The port every simulated node listens on.
const PORT: u16 = 7400;
const REGIONS: [&str; 3] = ["eu", "us", "ap"];

/// What a simulated cluster is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Everything follows from it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u32,
    /// A message takes between the first and the second, one way.
    pub latency: (Duration, Duration),
    /// Virtual time after which a run has failed.
    pub time_limit: Duration,
}

impl Setup {
    /// Three nodes, milliseconds apart.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            nodes: 3,
            latency: (Duration::from_millis(1), Duration::from_millis(8)),
            time_limit: Duration::from_secs(300),
        }
    }
}

/// The hosts of a run, and what outlives their crashes.
pub struct Cluster {
    hosts: BTreeMap<u32, Host>,
    random: SmallRng,
    trace: Trace,
}

struct Host {
    disk: MemoryDisk,
    clock: Arc<SkewedClock<VirtualClock>>,
}

/// The name of a node's host.
pub fn host_name(node: u32) -> String {
    format!("node-{node}")
}

/// The address of a node.
pub(crate) fn address(node: u32) -> String {
    format!("{}:{PORT}", host_name(node))
}

impl Cluster {
    /// The simulation of a setup, with its hosts started.
    pub fn start<'a>(setup: &Setup) -> (Sim<'a>, Self) {
        // openraft's draws, and turmoil's own, follow from the seed.
        seed_thread_rng(setup.seed);
        let mut sim = turmoil::Builder::new()
            .rng_seed(setup.seed)
            .simulation_duration(setup.time_limit)
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(setup.latency.0)
            .max_message_latency(setup.latency.1)
            .tcp_capacity(1 << 16)
            .build();
        let trace = Trace::default();
        let mut hosts = BTreeMap::new();
        for node in 1..=setup.nodes {
            let host =
                Host { disk: MemoryDisk::new(), clock: Arc::new(SkewedClock::new(VirtualClock)) };
            run_node(&mut sim, setup, node, &host, &trace);
            hosts.insert(node, host);
        }
        (sim, Self { hosts, random: SmallRng::seed_from_u64(setup.seed ^ 0x00c1_05e4), trace })
    }

    /// What happened so far.
    pub fn trace(&self) -> Trace {
        self.trace.clone()
    }

    /// Stops a node's process at once. With `power`, its disk also loses what was not synced, or any part
    /// of it.
    pub fn crash(&mut self, sim: &mut Sim<'_>, node: u32, power: bool) {
        sim.crash(host_name(node));
        if power {
            let random = &mut self.random;
            self.hosts[&node].disk.crash(|unsynced| random.random_range(0..=unsynced));
        }
    }

    /// Starts a stopped node again, on what its disk has kept.
    pub fn bounce(&mut self, sim: &mut Sim<'_>, node: u32) {
        sim.bounce(host_name(node));
    }

    /// Moves a node's wall clock away from the others'.
    pub fn skew(&self, node: u32, offset: i64) {
        self.hosts[&node].clock.set_offset_us(offset);
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = u32> {
        self.hosts.keys().copied()
    }
}

/// The network port of a simulated host that is no node.
pub(crate) fn client_net(name: &str, trace: &Trace) -> SimNet {
    SimNet { host: name.to_string(), trace: trace.clone() }
}

fn run_node(sim: &mut Sim<'_>, setup: &Setup, node: u32, host: &Host, trace: &Trace) {
    let join: Vec<_> = (1..=setup.nodes).map(address).collect();
    let settings = Settings::for_round_trip(2 * setup.latency.1);
    let (disk, clock) = (host.disk.clone(), Arc::clone(&host.clock));
    let net = SimNet { host: host_name(node), trace: trace.clone() };
    let seed = setup.seed;
    // A process that starts anew is another client with other ids: its seed must differ.
    let starts = Arc::new(AtomicU32::new(0));
    sim.host(host_name(node), move || {
        let start = starts.fetch_add(1, Ordering::Relaxed);
        let seed = seed ^ (u64::from(node) << 32) ^ (u64::from(start) << 48);
        let config = NodeConfig {
            store: StoreId([node as u8; 16]),
            region: REGIONS[node as usize % REGIONS.len()].to_string(),
            zone: "a".to_string(),
            listen: address(node),
            advertise: None,
            join: join.clone(),
            settings,
            max_clock_offset: Duration::from_millis(500),
            limits: Limits::default(),
        };
        let clock: Arc<dyn PhysicalClock> = Arc::clone(&clock) as Arc<dyn PhysicalClock>;
        let (disk, net) = (disk.clone(), net.clone());
        async move {
            let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::open(&disk)?);
            let flush = Box::new(SlowFlush::new(Arc::clone(&engine), seed));
            let running =
                Node::start(config, Ports { clock, net: Arc::new(net), engine, flush, seed })
                    .await?;
            Err(format!("{} stopped by itself: {}", host_name(node), running.failed().await).into())
        }
    });
}

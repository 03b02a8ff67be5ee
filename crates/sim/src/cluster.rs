//! Nodes and clients of one simulated cluster.
//!
//! What can be done to them is in `cluster/faults.rs`, what runs on a node's host in `cluster/program.rs`.

mod faults;
mod program;
mod rows;

pub use faults::RowPart;
pub use rows::RowCounts;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use latitude_client::{Client, wire};
use latitude_clock::{MAX_CLOCK_OFFSET_DEFAULT, PhysicalClock, SkewedClock};
use latitude_consensus::{Settings, SnapshotSettings, Step, seed_thread_rng};
use latitude_node::{Limits, NodeConfig, ReadMode};
use latitude_range::Content;
use latitude_rpc::error_from_status;
use latitude_rpc::net::{Net, channel};
use latitude_rpc::pb::v1::latitude_client::LatitudeClient;
use latitude_storage::View;
use latitude_storage::memory::MemoryDisk;
use latitude_types::{Error, Key, RangeId, Reason, Stamp, StoreId, Timestamp, WriteTime};
use program::{CrashPoint, Failure, NextReadMode, OpenEngine, Program, RunningNode};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use turmoil::Sim;

use crate::clock::{NodeClock, SimClock};
use crate::disk::Pace;
use crate::invariants::{self, Invariants};
use crate::links::Links;
use crate::net::SimNet;
use crate::seeds::{align_task_ids, derive};
use crate::trace::{Kind, Trace};
use crate::violation::Violation;

const PORT: u16 = 7400;
/// How long a connection of a client that sends single commands may take to come about.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Segments on the way in one direction of a connection.
const TCP_CAPACITY: usize = 65_536;

/// How a cluster is laid out.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Everything random follows from it.
    pub seed: u64,
    /// One step of simulated time: what is on its way arrives between steps, and hosts take turns of this length. A
    /// message is on its way for a step at least, so that nothing of what a node says in the step in which its power is
    /// lost has arrived.
    pub tick: Duration,
    /// How many nodes.
    pub nodes: u32,
    /// Their regions, in turn.
    pub regions: Vec<String>,
    /// How long a message within a region is on its way, from and to.
    pub near: (Duration, Duration),
    /// How long one between regions is, from and to.
    pub far: (Duration, Duration),
    /// When logs are shortened, and how fast snapshots are sent.
    pub snapshots: SnapshotSettings,
    /// How strict reads are proved.
    pub read_mode: ReadMode,
    /// What each node takes before it refuses.
    pub limits: Limits,
}

impl Layout {
    /// Three nodes in one region.
    pub fn small(seed: u64) -> Self {
        Self {
            seed,
            tick: Duration::from_millis(1),
            nodes: 3,
            regions: vec!["eu".into()],
            near: (Duration::from_millis(1), Duration::from_millis(5)),
            far: (Duration::from_millis(40), Duration::from_millis(40)),
            snapshots: SnapshotSettings::default(),
            read_mode: ReadMode::ReadIndex,
            limits: Limits::default(),
        }
    }

    /// Three nodes, each in a region of its own.
    pub fn three_regions(seed: u64) -> Self {
        Self { regions: vec!["ap".into(), "eu".into(), "us".into()], ..Self::small(seed) }
    }

    /// The same nodes, reading by leases.
    pub fn with_leases(self) -> Self {
        Self { read_mode: ReadMode::Lease, ..self }
    }

    pub(crate) fn region_of(&self, at: u32) -> String {
        let at = at as usize % self.regions.len().max(1);
        self.regions.get(at).cloned().unwrap_or_default()
    }

    /// How Raft is timed on its nodes.
    pub fn settings(&self) -> Settings {
        Settings::for_round_trip(self.round_trip_max())
    }

    fn round_trip_max(&self) -> Duration {
        let one_way =
            if self.regions.len() > 1 { self.far.1.max(self.near.1) } else { self.near.1 };
        2 * (one_way + self.tick)
    }
}

/// How a node goes down. Either way only a prefix of the writes that were not synced survives, drawn at random:
/// the real engine keeps its write-ahead log in the process until it syncs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process is killed: its connections close.
    Killed,
    /// The power is cut: nobody is told.
    PowerLost,
}

/// A cluster whose nodes are called 1, 2, …, in the order of their ids.
pub struct Cluster {
    sim: Sim<'static>,
    layout: Layout,
    clock: SimClock,
    trace: Trace,
    invariants: Invariants,
    links: Links,
    nodes: BTreeMap<u32, Site>,
    random: SmallRng,
    clients: u32,
    /// Hosts and their regions, in the order in which they came.
    hosts: Vec<(Arc<str>, String)>,
    /// At which step of a snapshot so many nodes are to lose their power.
    armed: Arc<Mutex<Option<(Step, u32)>>>,
}

/// A node's place: what survives its crashes.
struct Site {
    host: Arc<str>,
    disk: MemoryDisk,
    ports_clock: NodeClock,
    clock: Arc<SkewedClock<NodeClock>>,
    pace: Pace,
    /// How many faults have it paused.
    paused: u32,
    up: bool,
    failure: Failure,
    engine: OpenEngine,
    node: RunningNode,
    crash_point: Arc<CrashPoint>,
    read_mode: NextReadMode,
}

/// A running client's result to come.
pub struct Pending<T> {
    host: Arc<str>,
    result: Arc<Mutex<Option<T>>>,
}

impl<T> Pending<T> {
    /// The client's host.
    pub fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// The result, once, if it is there.
    pub fn take(&self) -> Option<T> {
        self.result.lock().expect(NO_PANIC).take()
    }

    /// Whether the result is there.
    pub fn is_ready(&self) -> bool {
        self.result.lock().expect(NO_PANIC).is_some()
    }
}

/// What a client's program is given.
pub struct ClientHost {
    /// The SDK, connected to nothing yet.
    pub client: Client,
    /// Randomness of its own.
    pub random: SmallRng,
    /// Where it is.
    pub region: String,
    build: Box<dyn Fn(u64, Option<u32>) -> Client>,
    net: Arc<dyn Net>,
    host: Arc<str>,
    clock: SimClock,
    trace: Trace,
    invariants: Invariants,
}

impl ClientHost {
    /// Notes what the receipt of a read says: everything below `time` in the range is among the entries up to
    /// `index`.
    pub fn told(&self, range: RangeId, index: u64, time: Timestamp) {
        self.invariants.told(&self.host, range, index, time);
    }

    /// Notes that a write was acknowledged.
    pub fn acknowledged(&self, version: &WriteTime) {
        self.invariants.acknowledged(&self.host, version);
    }

    /// Notes that a session which had seen nothing above `seen` was told that it wrote this.
    pub fn wrote(&self, seen: Timestamp, version: &WriteTime) {
        self.invariants.wrote(&self.host, seen, version);
    }

    /// Gives the program another SDK, which knows nothing yet but where that node is, counted from 0 and round
    /// all there are; `None`: where each is.
    pub fn begin_anew(&mut self, at: Option<u32>) {
        self.client = (self.build)(self.random.random(), at);
    }

    /// Sends a node one command as it is: nobody else is asked, and nothing is asked again.
    pub async fn send(
        &self,
        node: u32,
        command: wire::Command,
    ) -> latitude_client::Result<wire::Reply> {
        let channel = channel(Arc::clone(&self.net), &address_of(node), DIAL_TIMEOUT)
            .map_err(|error| Error::new(Reason::Internal, error.to_string()))?;
        let reply = LatitudeClient::new(channel).execute(command).await;
        reply.map(|reply| reply.into_inner()).map_err(|status| error_from_status(&status))
    }

    /// Says in the trace what the client does, or was told.
    pub fn say(&self, what: &str) {
        self.trace.say(Kind::Client, &self.host, &"cluster".into(), what);
    }

    /// Time since the simulation began.
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.clock.elapsed_us())
    }

    /// True time, in milliseconds since 1970.
    pub fn unix_ms(&self) -> u64 {
        self.clock.wall_us() / 1_000
    }
}

fn address_of(node: u32) -> String {
    format!("node-{node}:{PORT}")
}

pub(crate) const NO_PANIC: &str = "nothing panics while it holds this";

impl Cluster {
    /// Lays out a cluster; its nodes start with the first step and wait for [`Cluster::init`].
    pub fn new(layout: Layout) -> Self {
        // Everything that openraft draws on this thread, on all nodes, in the order of their steps.
        seed_thread_rng(derive(layout.seed, "openraft"));
        align_task_ids();
        let sim = turmoil::Builder::new()
            .rng_seed(derive(layout.seed, "turmoil"))
            .tick_duration(layout.tick)
            // Runs end by their own bounds.
            .simulation_duration(Duration::from_secs(86_400))
            .tcp_capacity(TCP_CAPACITY)
            .min_message_latency(layout.near.0)
            .max_message_latency(layout.near.1)
            .build();
        let clock = SimClock::default();
        let mut cluster = Self {
            sim,
            trace: Trace::new(clock.clone()),
            invariants: Invariants::new(clock.clone()),
            clock,
            links: Links::default(),
            nodes: BTreeMap::new(),
            random: SmallRng::seed_from_u64(derive(layout.seed, "cluster")),
            clients: 0,
            hosts: Vec::new(),
            armed: Arc::default(),
            layout,
        };
        for node in 1..=cluster.layout.nodes {
            cluster.add_node(node);
        }
        cluster
    }

    fn add_node(&mut self, node: u32) {
        let host: Arc<str> = format!("node-{node}").into();
        let disk = MemoryDisk::new();
        let ports_clock = NodeClock::new(self.clock.clone());
        let clock = Arc::new(SkewedClock::new(ports_clock.clone()));
        let pace = Pace::default();
        let failure = Failure::default();
        let engine: OpenEngine = Arc::new(Mutex::new(Weak::new()));
        let running: RunningNode = Arc::new(Mutex::new(Weak::new()));
        let crash_point = Arc::new(CrashPoint::new(disk.clone(), Arc::clone(&self.armed)));
        let read_mode = Arc::new(Mutex::new(self.layout.read_mode));
        let program = Program {
            config: NodeConfig {
                store: StoreId([node as u8; 16]),
                region: self.layout.region_of(node - 1),
                zone: "a".into(),
                listen: format!("{host}:{PORT}"),
                advertise: None,
                join: self.seeds(),
                settings: self.layout.settings(),
                read_mode: self.layout.read_mode,
                max_clock_offset: MAX_CLOCK_OFFSET_DEFAULT,
                limits: self.layout.limits,
                snapshots: self.layout.snapshots,
            },
            host: Arc::clone(&host),
            disk: disk.clone(),
            clock: Arc::clone(&clock),
            pace: pace.clone(),
            net: SimNet::new(Arc::clone(&host), self.links.clone(), self.trace.clone())
                .of_node(self.invariants.clone()),
            trace: self.trace.clone(),
            invariants: self.invariants.clone(),
            seed: derive(self.layout.seed, &host),
            starts: AtomicU64::new(0),
            failure: Arc::clone(&failure),
            engine: Arc::clone(&engine),
            node: Arc::clone(&running),
            crash_point: Arc::clone(&crash_point),
            read_mode: Arc::clone(&read_mode),
        };
        let program = Arc::new(program);
        self.sim.host(&*host, move || {
            let program = Arc::clone(&program);
            async move {
                program.run().await;
                std::future::pending().await
            }
        });
        let region = self.layout.region_of(node - 1);
        self.place(&host, region);
        let site = Site {
            host,
            disk,
            ports_clock,
            clock,
            pace,
            paused: 0,
            up: true,
            failure,
            engine,
            node: running,
            crash_point,
            read_mode,
        };
        self.nodes.insert(node, site);
    }

    /// Sets how far a new host is from the others, and hides from it those that are paused.
    fn place(&mut self, host: &Arc<str>, region: String) {
        let others = self.hosts.clone();
        self.hosts.push((Arc::clone(host), region));
        for (other, _) in &others {
            self.reset_latency(host, other);
        }
        let paused = self.nodes.values().filter(|site| site.paused > 0);
        for (node, times) in
            paused.map(|site| (Arc::clone(&site.host), site.paused)).collect::<Vec<_>>()
        {
            (0..times).for_each(|_| self.hold_hosts(host, &node));
        }
    }

    fn seeds(&self) -> Vec<String> {
        (1..=self.layout.nodes).map(address_of).collect()
    }

    /// How it was laid out.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The nodes.
    pub fn nodes(&self) -> Vec<u32> {
        self.nodes.keys().copied().collect()
    }

    /// Time since the simulation began.
    pub fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// What happened so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// How often the invariants were looked at: a run in which they never were shows nothing.
    pub fn invariants_looked_at(&self) -> u64 {
        self.invariants.looked_at()
    }

    /// How often a replica was seen to begin to lead, and how many receipts were held against what followed.
    pub fn elections_and_receipts(&self) -> (u64, u64) {
        self.invariants.elections_and_receipts()
    }

    /// How often a snapshot took the place of a replica's rows.
    pub fn snapshots_installed(&self) -> u64 {
        self.invariants.replacements()
    }

    /// Starts a client, in the regions of the nodes in turn; its result is there when its program ends.
    pub fn start_client<T, F>(
        &mut self,
        timeout: Duration,
        program: impl FnOnce(ClientHost) -> F,
    ) -> Pending<T>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        self.clients += 1;
        let host: Arc<str> = format!("client-{}", self.clients).into();
        let region = self.layout.region_of(self.clients - 1);
        let seed = derive(self.layout.seed, &host);
        let net = SimNet::new(Arc::clone(&host), self.links.clone(), self.trace.clone());
        let net: Arc<dyn Net> = Arc::new(net);
        let (dialled, seeds, here) = (Arc::clone(&net), self.seeds(), region.clone());
        let build = move |seed, at: Option<u32>| {
            let known = match at {
                Some(at) => vec![seeds[at as usize % seeds.len()].clone()],
                None => seeds.clone(),
            };
            let client = Client::builder().seeds(known).region(&here).timeout(timeout);
            client.net(Arc::clone(&dialled)).random_seed(seed).build()
        };
        let random = SmallRng::seed_from_u64(derive(seed, "program"));
        let program = program(ClientHost {
            client: build(seed, None),
            random,
            region: region.clone(),
            build: Box::new(build),
            net,
            host: Arc::clone(&host),
            clock: self.clock.clone(),
            trace: self.trace.clone(),
            invariants: self.invariants.clone(),
        });
        let result = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&result);
        self.sim.client(&*host, async move {
            let value = program.await;
            *slot.lock().expect(NO_PANIC) = Some(value);
            Ok(())
        });
        self.place(&host, region);
        Pending { host, result }
    }

    /// Runs a client's program to its end, which must come `within` this time.
    pub fn run_client<T, F>(
        &mut self,
        within: Duration,
        program: impl FnOnce(ClientHost) -> F,
    ) -> Result<T>
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        let pending = self.start_client(within, program);
        let deadline = self.now() + within + Duration::from_secs(5);
        while self.now() < deadline {
            self.step()?;
            if let Some(value) = pending.take() {
                return Ok(value);
            }
        }
        bail!("a client's program did not end within {within:?}")
    }

    /// Makes a cluster of the nodes, through the administration.
    pub fn init(&mut self) -> Result<()> {
        // Until a node listens, whoever asks it is turned away.
        self.run_for(Duration::from_millis(500))?;
        let within = Duration::from_secs(60);
        self.run_client(within, |host| async move { host.client.admin().init(Some(within)).await })?
            .map(drop)
            .map_err(|error| anyhow!("no cluster could be made: {error}"))
    }

    /// Lets one tick pass.
    pub fn step(&mut self) -> Result<()> {
        self.sim.step().map_err(|error| anyhow!("the simulation stopped: {error}"))?;
        self.clock.stepped(self.sim.elapsed().as_micros() as u64);
        for node in self.nodes() {
            let site = self.site(node);
            if site.crash_point.take_reached() {
                // Whatever it said when its disk was gone, it said to nobody.
                site.failure.lock().expect(NO_PANIC).take();
                self.crash(node, Crash::PowerLost);
            }
        }
        for site in self.nodes.values() {
            let node = site.node.lock().expect(NO_PANIC).upgrade();
            if let Some(marks) = node.and_then(|node| node.local_marks()) {
                self.invariants.marks(&site.host, &marks);
            }
        }
        match self.invariants.violation() {
            Some(found) => Err(anyhow!(found).context(format!("after {:?}", self.now()))),
            None => Ok(()),
        }
    }

    /// Lets this much time pass.
    pub fn run_for(&mut self, time: Duration) -> Result<()> {
        let until = self.now() + time;
        while self.now() < until {
            self.step()?;
        }
        Ok(())
    }

    /// Says that the keyspace of that range is dropped from here on: its replicas may go.
    pub fn range_dropped(&self, range: RangeId) {
        self.invariants.dropped(range);
    }

    /// The local writes that won a register when the log took them in: which, what they left, and the entry's stamp.
    pub(crate) fn folded(&self) -> Vec<(WriteTime, Key, Content, Stamp)> {
        self.invariants.winners()
    }

    /// A row in which replicas of one range differ, if any does. They do while one has applied less.
    pub fn replicas_differ(&self) -> Option<Violation> {
        let engines: Vec<_> = self
            .nodes
            .values()
            .filter_map(|site| {
                let engine = site.engine.lock().expect(NO_PANIC).upgrade()?;
                Some((Arc::clone(&site.host), engine))
            })
            .collect();
        let stores: Vec<_> = engines
            .iter()
            .map(|(host, engine)| (Arc::clone(host), &**engine as &dyn View))
            .collect();
        self.invariants.lost_replica(&stores).or_else(|| invariants::difference(&stores))
    }

    fn site(&self, node: u32) -> &Site {
        self.nodes.get(&node).expect("the node exists")
    }

    pub(crate) fn host(&self, node: u32) -> Arc<str> {
        Arc::clone(&self.site(node).host)
    }
}

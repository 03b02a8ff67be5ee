//! Nodes and clients of one simulated cluster, and what can be done to them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use latitude_client::Client;
use latitude_clock::{MAX_CLOCK_OFFSET_DEFAULT, PhysicalClock, SkewedClock};
use latitude_consensus::{Failpoints, Settings, SnapshotSettings, Step, seed_thread_rng};
use latitude_node::{Limits, Node, NodeConfig, Ports, ReadMode};
use latitude_storage::memory::{MemoryDisk, MemoryEngine};
use latitude_storage::{Column, Engine, View, key};
use latitude_types::{Generation, RangeId, StoreId};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use turmoil::Sim;

use crate::clock::SimClock;
use crate::disk::{SimEngine, SlowFlush};
use crate::invariants::{self, Invariants};
use crate::net::{Cuts, SimNet};
use crate::seeds::{align_task_ids, derive};
use crate::trace::{Kind, Trace};
use crate::violation::Violation;

/// One step of simulated time.
const TICK: Duration = Duration::from_millis(1);
const PORT: u16 = 7400;
/// Segments on the way in one direction of a connection.
const TCP_CAPACITY: usize = 65_536;

/// How a cluster is laid out.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Everything random follows from it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u32,
    /// Their regions, in turn.
    pub regions: Vec<String>,
    /// How long a message within a region is on its way, from and to.
    pub near: (Duration, Duration),
    /// How long one between regions is.
    pub far: Duration,
    /// When logs are shortened, and how fast snapshots are sent.
    pub snapshots: SnapshotSettings,
    /// How strict reads are proved.
    pub read_mode: ReadMode,
}

impl Layout {
    /// Three nodes in one region.
    pub fn small(seed: u64) -> Self {
        Self {
            seed,
            nodes: 3,
            regions: vec!["eu".into()],
            near: (Duration::from_millis(1), Duration::from_millis(5)),
            far: Duration::from_millis(40),
            snapshots: SnapshotSettings::default(),
            read_mode: ReadMode::ReadIndex,
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

    fn region_of(&self, at: u32) -> String {
        let at = at as usize % self.regions.len().max(1);
        self.regions.get(at).cloned().unwrap_or_default()
    }

    fn round_trip_max(&self) -> Duration {
        let one_way = if self.regions.len() > 1 { self.far.max(self.near.1) } else { self.near.1 };
        2 * (one_way + TICK)
    }
}

/// What becomes of writes that were not synced when a node goes down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process is killed: its connections close, the system keeps what was written.
    Killed,
    /// The power is cut: nobody is told, and of the writes not yet synced only a prefix survives, drawn at
    /// random.
    PowerLost,
}

/// A cluster whose nodes are called 1, 2, …, in the order of their ids.
pub struct Cluster {
    sim: Sim<'static>,
    layout: Layout,
    clock: SimClock,
    trace: Trace,
    invariants: Invariants,
    cuts: Cuts,
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
    clock: Arc<SkewedClock<SimClock>>,
    up: bool,
    failure: Failure,
    engine: OpenEngine,
    crash_point: Arc<CrashPoint>,
    read_mode: NextReadMode,
}

/// Where a node loses its power on the way of a snapshot.
struct CrashPoint {
    disk: MemoryDisk,
    /// The step, for whichever node reaches it first, and how many are still to.
    armed: Arc<Mutex<Option<(Step, u32)>>>,
    /// This node has.
    reached: AtomicBool,
}

impl Failpoints for CrashPoint {
    fn reached(&self, _: RangeId, step: Step) -> std::io::Result<()> {
        match &mut *self.armed.lock().expect(NO_PANIC) {
            Some((at, left)) if *at == step && *left > 0 => *left -= 1,
            _ => return Ok(()),
        }
        // The rest of it goes with the host, at the end of this tick.
        self.disk.crash(|unsynced| unsynced / 2);
        self.reached.store(true, Ordering::Relaxed);
        Err(std::io::Error::other(format!("the power is lost at {step}")))
    }
}

/// How a node reads from its next start on.
type NextReadMode = Arc<Mutex<ReadMode>>;
/// Why a node stopped by itself, if it did.
type Failure = Arc<Mutex<Option<String>>>;
/// The engine of a running node.
type OpenEngine = Arc<Mutex<Weak<SimEngine>>>;

/// A running client's result to come.
pub struct Pending<T>(Arc<Mutex<Option<T>>>);

impl<T> Pending<T> {
    /// The result, once, if it is there.
    pub fn take(&self) -> Option<T> {
        self.0.lock().expect(NO_PANIC).take()
    }

    /// Whether the result is there.
    pub fn is_ready(&self) -> bool {
        self.0.lock().expect(NO_PANIC).is_some()
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
    host: Arc<str>,
    clock: SimClock,
    trace: Trace,
}

impl ClientHost {
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

const NO_PANIC: &str = "nothing panics while it holds this";

impl Cluster {
    /// Lays out a cluster; its nodes start with the first step and wait for [`Cluster::init`].
    pub fn new(layout: Layout) -> Self {
        // Everything that openraft draws on this thread, on all nodes, in the order of their steps.
        seed_thread_rng(derive(layout.seed, "openraft"));
        align_task_ids();
        let sim = turmoil::Builder::new()
            .rng_seed(derive(layout.seed, "turmoil"))
            .tick_duration(TICK)
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
            cuts: Cuts::default(),
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
        let clock = Arc::new(SkewedClock::new(self.clock.clone()));
        let failure = Failure::default();
        let engine: OpenEngine = Arc::new(Mutex::new(Weak::new()));
        let crash_point = Arc::new(CrashPoint {
            disk: disk.clone(),
            armed: Arc::clone(&self.armed),
            reached: AtomicBool::new(false),
        });
        let read_mode = Arc::new(Mutex::new(self.layout.read_mode));
        let program = Program {
            config: NodeConfig {
                store: StoreId([node as u8; 16]),
                region: self.layout.region_of(node - 1),
                zone: "a".into(),
                listen: format!("{host}:{PORT}"),
                advertise: None,
                join: self.seeds(),
                settings: Settings::for_round_trip(self.layout.round_trip_max()),
                read_mode: self.layout.read_mode,
                max_clock_offset: MAX_CLOCK_OFFSET_DEFAULT,
                limits: Limits::default(),
                snapshots: self.layout.snapshots,
            },
            host: Arc::clone(&host),
            disk: disk.clone(),
            clock: Arc::clone(&clock),
            net: SimNet::new(Arc::clone(&host), self.cuts.clone(), self.trace.clone()),
            trace: self.trace.clone(),
            invariants: self.invariants.clone(),
            seed: derive(self.layout.seed, &host),
            starts: AtomicU64::new(0),
            failure: Arc::clone(&failure),
            engine: Arc::clone(&engine),
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
        let site = Site { host, disk, clock, up: true, failure, engine, crash_point, read_mode };
        self.nodes.insert(node, site);
    }

    /// Sets how far a new host is from the others.
    fn place(&mut self, host: &Arc<str>, region: String) {
        for (other, of_other) in &self.hosts {
            if *of_other != region {
                self.sim.set_link_latency(&**host, &**other, self.layout.far);
            }
        }
        self.hosts.push((Arc::clone(host), region));
    }

    fn seeds(&self) -> Vec<String> {
        (1..=self.layout.nodes).map(|node| format!("node-{node}:{PORT}")).collect()
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
        let net = SimNet::new(Arc::clone(&host), self.cuts.clone(), self.trace.clone());
        let client = Client::builder()
            .seeds(self.seeds())
            .region(&region)
            .timeout(timeout)
            .net(Arc::new(net))
            .random_seed(seed)
            .build();
        let random = SmallRng::seed_from_u64(derive(seed, "program"));
        let program = program(ClientHost {
            client,
            random,
            region: region.clone(),
            host: Arc::clone(&host),
            clock: self.clock.clone(),
            trace: self.trace.clone(),
        });
        let result = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&result);
        self.sim.client(&*host, async move {
            let value = program.await;
            *slot.lock().expect(NO_PANIC) = Some(value);
            Ok(())
        });
        self.place(&host, region);
        Pending(result)
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
            if site.crash_point.reached.swap(false, Ordering::Relaxed) {
                // Whatever it said when its disk was gone, it said to nobody.
                site.failure.lock().expect(NO_PANIC).take();
                self.crash(node, Crash::PowerLost);
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

    /// Nodes that have stopped by themselves, and why; each is told once and is down from then on.
    pub fn failures(&mut self) -> Vec<(u32, String)> {
        let mut failures = Vec::new();
        for (node, site) in &self.nodes {
            failures.extend(site.failure.lock().expect(NO_PANIC).take().map(|why| (*node, why)));
        }
        for (node, why) in &failures {
            tracing::info!(node, why, "stopped by itself");
            self.crash(*node, Crash::Killed);
        }
        failures
    }

    /// Whether a node runs.
    pub fn is_up(&self, node: u32) -> bool {
        self.site(node).up
    }

    /// Takes a node down, if it is up.
    pub fn crash(&mut self, node: u32, how: Crash) {
        if !self.is_up(node) {
            return;
        }
        let host = Arc::clone(&self.site(node).host);
        self.fault("crash", json!({ "node": node, "how": format!("{how:?}") }));
        if how == Crash::PowerLost {
            // Its connections do not close: what the dying sockets say is swallowed.
            self.each_way(&host, |sim, from, to| sim.partition_oneway(from, to));
        }
        self.sim.crash(&*host);
        if how == Crash::PowerLost {
            let cuts = self.cuts.clone();
            self.each_way(&host, |sim, from, to| {
                if !cuts.is_cut(from, to) {
                    sim.repair_oneway(from, to);
                }
            });
        }
        let random = &mut self.random;
        let site = self.nodes.get_mut(&node).expect("the node exists");
        site.up = false;
        site.disk.crash(|unsynced| match how {
            Crash::Killed => unsynced,
            Crash::PowerLost => random.random_range(0..=unsynced),
        });
    }

    /// Calls with every way from a host.
    fn each_way(&self, host: &Arc<str>, mut call: impl FnMut(&Sim<'static>, &str, &str)) {
        for (other, _) in &self.hosts {
            if other != host {
                call(&self.sim, host, other);
            }
        }
    }

    /// The next nodes to reach that step of a snapshot lose their power there, so many of them.
    pub fn crash_at(&mut self, step: Step, times: u32) {
        self.fault("crash_at", json!({ "step": step.name(), "times": times }));
        *self.armed.lock().expect(NO_PANIC) = Some((step, times));
    }

    /// Starts a node that is down.
    pub fn restart(&mut self, node: u32) {
        if self.is_up(node) {
            return;
        }
        let host = Arc::clone(&self.site(node).host);
        self.fault("restart", json!({ "node": node }));
        self.sim.bounce(&*host);
        self.nodes.get_mut(&node).expect("the node exists").up = true;
    }

    /// From its next start on a node reads like this.
    pub fn set_read_mode(&mut self, node: u32, read_mode: ReadMode) {
        *self.site(node).read_mode.lock().expect(NO_PANIC) = read_mode;
    }

    /// Cuts the way from one node to another; the way back stays.
    pub fn cut(&mut self, from: u32, to: u32) {
        let (from, to) = (self.host(from), self.host(to));
        self.fault("cut", json!({ "from": &*from, "to": &*to }));
        self.cuts.cut(&from, &to);
        self.sim.partition_oneway(&*from, &*to);
    }

    /// Cuts both ways between two nodes.
    pub fn partition(&mut self, a: u32, b: u32) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Cuts a node from all others; clients still reach it.
    pub fn isolate(&mut self, node: u32) {
        for other in self.nodes() {
            if other != node {
                self.partition(node, other);
            }
        }
    }

    /// Heals every cut.
    pub fn heal(&mut self) {
        if self.cuts.is_empty() {
            return;
        }
        self.fault("heal", json!({}));
        let hosts: Vec<_> = self.nodes.values().map(|site| Arc::clone(&site.host)).collect();
        for from in &hosts {
            for to in &hosts {
                if self.cuts.is_cut(from, to) {
                    self.cuts.heal(from, to);
                    self.sim.repair_oneway(&**from, &**to);
                }
            }
        }
    }

    /// Holds back everything between two nodes until [`Cluster::release`]: late, but not lost. Not to be
    /// mixed with cuts between the same nodes.
    pub fn hold(&mut self, a: u32, b: u32) {
        let (a, b) = (self.host(a), self.host(b));
        self.fault("hold", json!({ "a": &*a, "b": &*b }));
        self.sim.hold(&*a, &*b);
    }

    /// Delivers what was held back, all at once.
    pub fn release(&mut self, a: u32, b: u32) {
        let (a, b) = (self.host(a), self.host(b));
        self.fault("release", json!({ "a": &*a, "b": &*b }));
        self.sim.release(&*a, &*b);
    }

    /// Leaves this many bytes free on a node's disk.
    pub fn leave_free(&mut self, node: u32, bytes: u64) {
        self.fault("leave_free", json!({ "node": node, "bytes": bytes }));
        self.site(node).disk.set_free_space(bytes);
    }

    /// Turns a bit of a log entry on a node's disk; `false`: there is no such entry.
    pub fn damage_log(&mut self, node: u32, range: RangeId, index: u64) -> bool {
        self.fault("damage_log", json!({ "node": node, "range": range.0, "index": index }));
        let entry = key::log::entry(range, Generation(1), index);
        self.site(node).disk.flip_bit(Column::Log, &entry, 9)
    }

    /// Makes the next sync of a node's disk fail.
    pub fn fail_next_sync(&mut self, node: u32) {
        self.fault("fail_next_sync", json!({ "node": node }));
        self.site(node).disk.fail_next_sync();
    }

    /// Steps a node's wall clock to this far ahead of simulated time; below zero: behind.
    pub fn skew(&mut self, node: u32, ahead_ms: i64) {
        self.fault("skew", json!({ "node": node, "ahead_ms": ahead_ms }));
        self.site(node).clock.set_offset_us(ahead_ms * 1000);
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
        invariants::difference(&stores)
    }

    fn fault(&self, what: &str, about: serde_json::Value) {
        tracing::info!(at = ?self.now(), what, %about, "fault");
        self.trace.say(Kind::Fault, &what.into(), &"cluster".into(), &about.to_string());
    }

    fn site(&self, node: u32) -> &Site {
        self.nodes.get(&node).expect("the node exists")
    }

    fn host(&self, node: u32) -> Arc<str> {
        Arc::clone(&self.site(node).host)
    }
}

/// What runs on a node's host, from each start to the next crash.
struct Program {
    config: NodeConfig,
    host: Arc<str>,
    disk: MemoryDisk,
    clock: Arc<SkewedClock<SimClock>>,
    net: SimNet,
    trace: Trace,
    invariants: Invariants,
    seed: u64,
    starts: AtomicU64,
    failure: Failure,
    engine: OpenEngine,
    crash_point: Arc<CrashPoint>,
    read_mode: NextReadMode,
}

impl Program {
    /// Runs until the node stops by itself, and notes why.
    async fn run(&self) {
        let why = match self.start().await {
            Ok(node) => node.failed().await,
            Err(error) => format!("it did not start: {error:#}"),
        };
        *self.failure.lock().expect(NO_PANIC) = Some(why);
    }

    async fn start(&self) -> Result<Node> {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let seed = derive(self.seed, &format!("start {start}"));
        let memory = MemoryEngine::open(&self.disk)?;
        let (host, trace) = (Arc::clone(&self.host), self.trace.clone());
        let engine = Arc::new(SimEngine::new(memory, host, trace, self.invariants.clone()));
        *self.engine.lock().expect(NO_PANIC) = Arc::downgrade(&engine);
        let engine: Arc<dyn Engine> = engine;
        let ports = Ports {
            clock: Arc::clone(&self.clock) as Arc<dyn PhysicalClock>,
            net: Arc::new(self.net.clone()),
            flush: Box::new(SlowFlush::new(Arc::clone(&engine), derive(seed, "flush"))),
            engine,
            failpoints: Arc::clone(&self.crash_point) as Arc<dyn Failpoints>,
            seed,
        };
        let read_mode = *self.read_mode.lock().expect(NO_PANIC);
        Ok(Node::start(NodeConfig { read_mode, ..self.config.clone() }, ports).await?)
    }
}

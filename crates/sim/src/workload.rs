//! Clients that write, delete, read, scan and compare, and what the judges say of what they saw.
//!
//! Values are unique in a run, so what a read saw says which write it saw. Every operation's outcome is
//! ok, fail (it certainly had no effect) or info (nobody knows), as the client's error says.
//!
//! Operations of all levels are on the same keys, in sessions that go on over nodes and are handed from client to
//! client. What the log answers must fit into one order over all keys (sequential), and the strict
//! reads with all writes must be linearizable: with local writes where the log took them in, whenever
//! that was. Sessions are causal over all of it, and at the end every acknowledged write is there, at
//! every node the same.
//!
//! The operations themselves are in `workload/operations.rs`.

mod everywhere;
mod operations;
mod others;
mod types;

use std::collections::{BTreeMap, VecDeque};
use std::io::Sink;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use latitude_checker::history::{Extras, Operation, Outcome};
use latitude_checker::mixed::{self, Folded};
use latitude_checker::{
    History, Recorder, causal, durability, linearizable, promise, sequential, sessions,
};
use latitude_client::{Level, ReceiptDetail, Session, wire};
use latitude_types::Timestamp;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use self::others::Others;
use self::types::Typed;
use crate::cluster::{ClientHost, Cluster, Layout, Pending};
use crate::freshness::Freshness;
use crate::seeds::derive;
use crate::violation::Check;

/// The keyspace of the workload.
pub const KEYSPACE: &str = "sim";
/// How long an operation may take.
const TIMEOUT: Duration = Duration::from_secs(4);
/// What goes with a lock.
const NO_PANIC: &str = "no client panics";
/// How long after all is whole, and clocks agree, every local write is in the log.
const FOLDED_WITHIN: Duration = Duration::from_secs(10);
/// How many keys a session that others follow is known to have been about.
const TRAIL: usize = 3;
/// How long a client is idle, in milliseconds.
const IDLE_MS: std::ops::Range<u64> = 500..6_000;

/// What a workload touches, and how.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Clients, each with one operation at a time.
    pub clients: u32,
    /// Keys, spread over the ranges.
    pub keys: u32,
    /// Ranges of the keyspace; at most as many as keys.
    pub ranges: u32,
    /// Whether each range has a replica on every node; else on three.
    pub on_all_nodes: bool,
    /// Whether the nodes of a region that hold no voter of a range hold a replica of it without a vote.
    pub learners: bool,
    /// Of ten operations, how many are strict; the others are sequential ...
    pub strict: u32,
    /// ... but for so many of ten, which are causal or eventual, unless they are conditional.
    pub local: u32,
    /// Of ten operations, how many are on counters and sets.
    pub typed: u32,
    /// Of ten of those, how many are on maps, flags and siblings instead.
    pub others: u32,
    /// Sets are one set, and most of what happens to it is that one element is added and removed.
    pub one_element: bool,
    /// Of ten operations, how many are reads ...
    pub reads: u32,
    /// ... and how many conditional writes.
    pub compares: u32,
    /// Of ten other writes, how many delete the key.
    pub deletes: u32,
    /// Of ten reads, how many are scans of some keys.
    pub scans: u32,
    /// Of ten times between two operations, how many end at once when somebody has written, and then that key
    /// is read, and what the writer's session was about before.
    pub chases: u32,
    /// Before how many of ten operations a client begins anew, knowing neither ranges nor leaders.
    pub forgets: u32,
    /// Whether clients differ: some only read, some are often idle, some know one node to begin with, some always
    /// read what was just written.
    pub unlike: bool,
    /// How long a client waits between two operations, at least and at most, in milliseconds.
    pub pause_ms: (u64, u64),
    /// Bytes that a value has beside the number that says which it is.
    pub padding: usize,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            clients: 3,
            keys: 8,
            ranges: 4,
            on_all_nodes: false,
            learners: false,
            strict: 5,
            local: 0,
            typed: 0,
            others: 0,
            one_element: false,
            reads: 5,
            compares: 2,
            deletes: 0,
            scans: 0,
            chases: 0,
            forgets: 0,
            unlike: false,
            pause_ms: (20, 150),
            padding: 0,
        }
    }
}

/// A workload under way.
pub struct Running {
    shared: Arc<Shared>,
    clients: Vec<Pending<Result<()>>>,
}

struct Shared {
    workload: Workload,
    recorder: Recorder<Sink>,
    next_value: AtomicI64,
    stop: AtomicBool,
    /// How many writes were acknowledged, and the last of them.
    written: Mutex<(u64, Written)>,
    /// The value that was last sent to each key, by whomever.
    latest: Mutex<BTreeMap<u32, i64>>,
    by_lease: AtomicUsize,
    freshness: Freshness,
    typed: Typed,
    others: Others,
    /// What clients draw that have nothing of their own to draw from.
    random: Mutex<SmallRng>,
    /// Sessions that their clients have left: process and token. Whoever takes one over goes on with it.
    left: Mutex<Vec<(u64, Session)>>,
}

/// A write that was acknowledged.
#[derive(Clone, Debug, Default)]
struct Written {
    key: u32,
    /// The keys that its session was about before, the last one first.
    trail: Vec<u32>,
}

/// A session, and the process it is in the history.
struct Client {
    process: u64,
    session: Session,
    /// The keys that it was about lately, the last one first.
    trail: Vec<u32>,
    /// The process whose token the next operation takes over.
    token_from: Option<u64>,
    /// Above all that the session had seen when its last operation was sent.
    seen: Timestamp,
}

impl Client {
    /// What is known of an operation before it is sent.
    fn extras(&mut self, level: Level) -> Extras {
        self.seen = self.session.clock();
        let token_from = self.token_from.take();
        Extras { level: Some(level.to_string()), token_from, ..Extras::default() }
    }
}

/// How a client differs from what the workload says.
struct Character {
    workload: Workload,
    /// Of ten times between two operations, how many are long ones: what it knew is out of date after them.
    idles: u32,
    /// The node it asks when it knows nothing; else any.
    home: Option<u32>,
}

impl Character {
    /// The first client does as the workload says, so there is one that writes.
    fn draw(workload: Workload, client: u32, random: &mut SmallRng) -> Self {
        if !workload.unlike || client == 0 {
            return Self { workload, idles: 0, home: None };
        }
        let Workload { reads, strict, chases, forgets, .. } = workload;
        let mut of = |counts: [u32; 3]| *counts.choose(random).unwrap_or(&counts[0]);
        let (reads, strict) = (of([reads, 10, 10]), of([strict, strict, 10]));
        let (chases, forgets) = (of([chases, 8, 10]), of([forgets, 0, 2]));
        let idles = of([0, 0, 2]);
        let home = random.random::<bool>().then(|| random.random());
        Self { workload: Workload { reads, strict, chases, forgets, ..workload }, idles, home }
    }
}

/// How an operation went.
enum Went {
    Ok,
    /// Certainly without effect.
    Failed,
    /// Nobody knows.
    Unknown,
}

impl Workload {
    /// Creates the keyspace and waits until every node knows it.
    pub fn prepare(&self, cluster: &mut Cluster) -> Result<()> {
        let split_at =
            (1..self.ranges).map(|range| self.start_of(range).into_bytes().into()).collect();
        let place = if self.on_all_nodes { everywhere(cluster.layout()) } else { Vec::new() };
        let learners = if self.learners { beside_voters(cluster.layout()) } else { Vec::new() };
        let request = wire::CreateKeyspaceRequest {
            name: KEYSPACE.into(),
            split_at,
            place,
            learners,
            default_level: wire::Level::Strict as i32,
            ..wire::CreateKeyspaceRequest::default()
        };
        if self.typed > 0 {
            Self::prepare_typed(cluster, &request)?;
        }
        if self.typed > 0 && self.others > 0 {
            others::prepare(cluster, &request)?;
        }
        cluster
            .run_client(Duration::from_secs(30), |host| async move {
                host.client.admin().create_keyspace(request).await
            })?
            .map_err(|error| anyhow!("the keyspace was not created: {error}"))?;
        // Nodes hear of it one after another, and one that has not heard says that there is none.
        let key = self.key(0);
        cluster.run_client(Duration::from_secs(30), |host| async move {
            let keyspace = host.client.keyspace(KEYSPACE);
            while keyspace.get(&key).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    }

    fn key(&self, at: u32) -> String {
        format!("k{at:03}")
    }

    fn start_of(&self, range: u32) -> String {
        self.key(range * self.keys / self.ranges)
    }

    /// A key of a range that no client of the workload touches.
    pub fn key_beside(&self, range: u32) -> String {
        format!("{}-beside", self.start_of(range))
    }

    fn encode(&self, value: i64) -> String {
        format!("{value}{}", " ".repeat(self.padding))
    }

    /// Starts the clients.
    pub fn start(self, cluster: &mut Cluster) -> Running {
        let shared = Arc::new(Shared {
            workload: self,
            recorder: Recorder::new(std::io::sink()),
            next_value: AtomicI64::new(1),
            stop: AtomicBool::new(false),
            written: Mutex::default(),
            latest: Mutex::default(),
            by_lease: AtomicUsize::new(0),
            freshness: Freshness::default(),
            typed: Typed::default(),
            others: Others::default(),
            random: Mutex::new(SmallRng::seed_from_u64(derive(cluster.layout().seed, "bounds"))),
            left: Mutex::default(),
        });
        let clients = (0..self.clients)
            .map(|at| {
                let shared = Arc::clone(&shared);
                cluster.start_client(TIMEOUT, move |host| async move { shared.run(at, host).await })
            })
            .collect();
        Running { shared, clients }
    }
}

/// As many replicas in each region as it has nodes.
fn everywhere(layout: &Layout) -> Vec<wire::RegionReplicas> {
    let mut regions: BTreeMap<String, u32> = BTreeMap::new();
    for node in 1..=layout.nodes {
        *regions.entry(layout.region_of(node - 1)).or_default() += 1;
    }
    let replicas = |(region, replicas)| wire::RegionReplicas { region, replicas };
    regions.into_iter().map(replicas).collect()
}

/// As many replicas in each region as it has nodes beside the three voters, which are spread over the regions.
fn beside_voters(layout: &Layout) -> Vec<wire::RegionReplicas> {
    let mut regions = everywhere(layout);
    let voters = 3 / regions.len().max(1) as u32;
    regions.iter_mut().for_each(|region| region.replicas = region.replicas.saturating_sub(voters));
    regions.retain(|region| region.replicas > 0);
    regions
}

impl Running {
    /// The hosts of the clients.
    pub fn hosts(&self) -> Vec<Arc<str>> {
        self.clients.iter().map(|client| Arc::clone(client.host())).collect()
    }

    /// Lets the clients finish what they have under way, and reads every key once more.
    ///
    /// - `clocks_agree_within`: a node whose clock is far ahead is refused, and its local writes with it, until time
    ///   has caught up.
    pub fn finish(self, cluster: &mut Cluster, clocks_agree_within: Duration) -> Result<Seen> {
        let Self { shared, clients } = self;
        shared.stop.store(true, Ordering::Relaxed);
        // What it has under way: a set read and changed, then an operation on a register, then nothing for a while.
        let deadline = cluster.now() + 3 * TIMEOUT + Duration::from_millis(IDLE_MS.end);
        while !clients.iter().all(Pending::is_ready) {
            if cluster.now() > deadline {
                let late = clients.iter().filter(|client| !client.is_ready());
                let late: Vec<_> = late.map(|client| client.host().as_ref()).collect();
                let late = late.join(", ");
                bail!(
                    Check::Deadline
                        .found(format!("an operation of {late} did not end by its deadline"))
                );
            }
            cluster.step()?;
        }
        for client in clients {
            client.take().context("the client has ended")??;
        }
        if shared.workload.local > 0 {
            cluster.run_for(clocks_agree_within + FOLDED_WITHIN)?;
        }
        let last = Arc::clone(&shared);
        cluster.run_client(Duration::from_secs(30), |host| async move {
            last.read_all(host).await
        })??;
        if shared.workload.local > 0 {
            let (last, nodes) = (Arc::clone(&shared), cluster.layout().nodes);
            cluster.run_client(Duration::from_secs(60), |host| async move {
                last.read_everywhere(&host, nodes).await
            })??;
        }
        let by_lease = shared.by_lease.load(Ordering::Relaxed);
        let folded = operations::folded(cluster.folded());
        let (history, typed) = (shared.recorder.history(), shared.typed.history());
        Ok(Seen { history, typed, by_lease, folded })
    }
}

/// What the clients of a workload have seen.
pub struct Seen {
    /// All of it that is about registers.
    pub history: History,
    /// What is about counters and sets.
    typed: History,
    /// Reads that were answered by a lease.
    pub by_lease: usize,
    /// Where the log took local writes in.
    folded: Vec<Folded>,
}

/// What a workload did, once it was found right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Operations by outcome: ok, certainly without effect, unknown.
    pub outcomes: [usize; 3],
    /// Reads that were answered by a lease.
    pub by_lease: usize,
    /// The judge of causality could not say; all others could.
    pub causality_open: bool,
}

impl Seen {
    /// What the judges say of it.
    ///
    /// # Errors
    /// What no correct database could have answered.
    pub fn judge(&self) -> Result<Summary> {
        let operations = self.history.operations();
        self.judge_log(&operations)?;
        // Of runs without local operations this is weaker than what was judged already: what it rejects there it
        // would get wrong elsewhere.
        let report = causal::check_operations(&operations, causal::Budget::default());
        let causality_open = match &report.verdict {
            causal::Verdict::Violation(..) => {
                bail!(Check::Causal.found(report.verdict.to_string()))
            }
            // Which of many deletes an absent key shows: more choices than can be tried.
            causal::Verdict::Unknown(_) => true,
            causal::Verdict::Causal => false,
        };
        let report = sessions::check_operations(&operations, latitude_checker::Level::Causal);
        if report.verdict != promise::Verdict::Kept {
            bail!(Check::Sessions.found(report.verdict.to_string()));
        }
        let report = durability::check_operations(&operations, latitude_checker::Level::Strict);
        if report.verdict != promise::Verdict::Kept {
            bail!(Check::Durability.found(report.verdict.to_string()));
        }
        types::judge(&self.typed)?;
        let operations = [operations, self.typed.operations()].concat();
        let count = |outcome| operations.iter().filter(|op| op.outcome == outcome).count();
        let outcomes = [Outcome::Ok, Outcome::Fail, Outcome::Info].map(count);
        Ok(Summary { outcomes, by_lease: self.by_lease, causality_open })
    }

    /// What the log answered, with the local writes it took in: one order of all, and linearizable.
    fn judge_log(&self, operations: &[Operation]) -> Result<()> {
        let budget = sequential::Budget::default();
        let whole = sequential::check_mixed(operations, &self.folded, budget);
        if whole.verdict != sequential::Verdict::Sequential {
            bail!(Check::Sequential.found(whole.to_string()));
        }
        let strict = mixed::strict(operations, &self.folded);
        let report = linearizable::check_operations(&strict, linearizable::Budget::default());
        if report.verdict != linearizable::Verdict::Linearizable {
            bail!(Check::Linearizable.found(report.verdict.to_string()));
        }
        Ok(())
    }
}

impl Shared {
    async fn run(&self, at: u32, mut host: ClientHost) -> Result<()> {
        let Character { workload, idles, home } =
            Character::draw(self.workload, at, &mut host.random);
        if home.is_some() {
            host.begin_anew(home);
        }
        // Every other one is after the element that all want and nothing else: nothing else holds it up.
        let is_after_one = workload.one_element && at % 2 == 1;
        let mut client = self.new_client();
        let mut seen: BTreeMap<u32, Option<i64>> = BTreeMap::new();
        // Keys to be read next: one that was just written, then what its writer had been about before.
        let mut chased: VecDeque<u32> = VecDeque::new();
        let mut beside = self.typed.asker();
        while !self.stop.load(Ordering::Relaxed) {
            let drawn = host.random.random_range(0..workload.keys);
            let next = chased.pop_front();
            let at = next.unwrap_or(drawn);
            let is_strict = host.random.random_range(0..10) < workload.strict;
            let log_level = if is_strict { Level::Strict } else { Level::Sequential };
            let level = match host.random.random_range(0..10) < workload.local {
                true if host.random.random_ratio(1, 4) => Level::Eventual,
                true => Level::Causal,
                false => log_level,
            };
            if host.random.random_range(0..10) < workload.forgets {
                host.begin_anew(home);
            }
            // Beside the session that the history is about: in it they would be causes that no judge knows.
            if is_after_one || host.random.random_range(0..10) < workload.typed {
                if is_after_one {
                    beside = self.typed.asker();
                }
                if host.random.random_range(0..10) < workload.others {
                    self.others.operate(&mut host, &beside.session, level).await?;
                } else {
                    // What follows nothing is taken by a node that knows nothing of the others.
                    let level = match level {
                        Level::Causal if host.random.random_ratio(1, 3) => Level::Eventual,
                        level => level,
                    };
                    let one_element = workload.one_element;
                    self.typed.operate(&mut host, &mut beside, level, one_element).await?;
                }
            }
            if is_after_one {
                let (least, most) = workload.pause_ms;
                let pause = host.random.random_range(least..=most);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                continue;
            }
            let keyspace = host
                .client
                .keyspace(KEYSPACE)
                .with_timeout(TIMEOUT)
                .with_receipt(ReceiptDetail::Full)
                .with_level(level)
                .with_session(client.session.clone());
            let Workload { reads, compares, deletes, scans, .. } = workload;
            let went = match host.random.random_range(0..10) {
                draw if draw < reads && host.random.random_range(0..10) < scans => {
                    self.scan(&host, &keyspace, &mut client, at, level).await?;
                    Went::Ok
                }
                draw if draw < reads || next.is_some() => {
                    let read = self.read(&host, &keyspace, &mut client, at, level, false).await?;
                    if let Some(value) = read {
                        seen.insert(at, value);
                    }
                    Went::Ok
                }
                draw if draw < reads + compares => {
                    // Often what the client has heard of and not read: then the condition reads it.
                    let heard = host.random.random_ratio(1, 3).then(|| self.latest(at)).flatten();
                    let from = heard.or_else(|| seen.get(&at).copied().flatten());
                    let keyspace = keyspace.with_level(log_level);
                    self.compare(&host, &keyspace, &mut client, at, from, log_level).await?
                }
                _ if host.random.random_range(0..10) < deletes => {
                    self.delete(&host, &keyspace, &mut client, at, level).await?
                }
                _ => self.write(&host, &keyspace, &mut client, at, level).await?,
            };
            client.trail.insert(0, at);
            client.trail.truncate(TRAIL);
            if matches!(went, Went::Failed) && host.random.random_ratio(1, 4) {
                // As a person would: begin anew when something does not work.
                client = self.new_client();
            }
            if host.random.random_ratio(1, 20) {
                self.change_session(&mut client);
            }
            if !chased.is_empty() {
                continue;
            }
            if host.random.random_range(0..10) < idles {
                tokio::time::sleep(Duration::from_millis(host.random.random_range(IDLE_MS))).await;
            }
            let (least, most) = workload.pause_ms;
            let pause = Duration::from_millis(host.random.random_range(least..=most));
            let chases = host.random.random_range(0..10) < workload.chases;
            if chases {
                let written = self.next_written(pause).await;
                chased.extend(written.into_iter().flat_map(|of| [vec![of.key], of.trail].concat()));
            } else {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(())
    }

    /// Waits until somebody has written, but no longer than that. What it was.
    async fn next_written(&self, most: Duration) -> Option<Written> {
        let count = || self.written.lock().expect(NO_PANIC).0;
        let before = count();
        for _ in 0..most.as_millis() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if count() > before {
                return Some(self.written.lock().expect(NO_PANIC).1.clone());
            }
        }
        None
    }

    /// What somebody has sent to a key last.
    fn latest(&self, key: u32) -> Option<i64> {
        self.latest.lock().expect(NO_PANIC).get(&key).copied()
    }

    fn note_sent(&self, key: u32, value: i64) {
        self.latest.lock().expect(NO_PANIC).insert(key, value);
    }

    fn note_written(&self, key: u32, client: &Client) {
        let (count, last) = &mut *self.written.lock().expect(NO_PANIC);
        *count += 1;
        *last = Written { key, trail: client.trail.clone() };
    }

    fn new_client(&self) -> Client {
        let (process, session) = (self.recorder.process(), Session::new());
        Client { process, session, trail: Vec::new(), token_from: None, seen: Timestamp::ZERO }
    }

    /// Leaves the session to whoever wants it, and goes on with one that another client has left, if there
    /// is one, else with a new one.
    fn change_session(&self, client: &mut Client) {
        let mut left = self.left.lock().expect(NO_PANIC);
        // It may have an operation to its name only once the operation that took it over has been sent.
        if client.token_from.is_none() {
            left.push((client.process, client.session.clone()));
        }
        *client = self.new_client();
        if left.len() > 1 {
            let (process, session) = left.remove(0);
            // Through its text, as from process to process.
            if let Some(session) =
                session.token().and_then(|token| Session::from_token(&token).ok())
            {
                *client = Client { session, token_from: Some(process), ..self.new_client() };
            }
        }
    }

    /// Reads every key strictly, and must succeed.
    async fn read_all(&self, host: ClientHost) -> Result<()> {
        let mut client = self.new_client();
        let keyspace = host
            .client
            .keyspace(KEYSPACE)
            .with_timeout(Duration::from_secs(10))
            .with_level(Level::Strict)
            .with_session(client.session.clone());
        for at in 0..self.workload.keys {
            let read = self.read(&host, &keyspace, &mut client, at, Level::Strict, true).await?;
            if read.is_none() {
                bail!(Check::Served.found(format!("key {at} could not be read at the end")));
            }
        }
        Ok(())
    }
}

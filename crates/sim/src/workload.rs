//! Clients that write, read and compare, and what the judges say of what they saw.
//!
//! Values are unique in a run, so what a read saw says which write it saw. Every operation's outcome is
//! ok, fail (it certainly had no effect) or info (nobody knows), as the client's error says.
//!
//! Each operation is strict or sequential, on the same keys, in sessions that go on over nodes and are handed
//! from client to client. All of them must fit into one order over all keys (sequential), and the strict
//! reads with all writes must be linearizable.

use std::collections::BTreeMap;
use std::io::Sink;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use latitude_checker::history::{Extras, MicroOp, Operation, Outcome, Value, Version};
use latitude_checker::{History, Recorder, causal, linearizable, promise, sequential, sessions};
use latitude_client::{
    CasOutcome, Error, Expected, Keyspace, Level, Proof, Reason, ReceiptDetail, Session, WriteTime,
    wire,
};
use latitude_types::Writer;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::cluster::{ClientHost, Cluster, Layout, Pending};
use crate::freshness::Freshness;
use crate::seeds::derive;
use crate::violation::Check;

/// The keyspace of the workload.
pub const KEYSPACE: &str = "sim";
/// How long an operation may take.
const TIMEOUT: Duration = Duration::from_secs(4);

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
    /// Of ten operations, how many are strict; the others are sequential.
    pub strict: u32,
    /// Of ten operations, how many are reads ...
    pub reads: u32,
    /// ... and how many conditional writes.
    pub compares: u32,
    /// Of ten times between two operations, how many end at once when somebody has written, and then that key
    /// is read.
    pub chases: u32,
    /// Before how many of ten operations a client begins anew, knowing neither ranges nor leaders.
    pub forgets: u32,
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
            reads: 5,
            compares: 2,
            chases: 0,
            forgets: 0,
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
    /// How many writes were acknowledged, and the key of the last of them.
    written: Mutex<(u64, u32)>,
    by_lease: AtomicUsize,
    freshness: Freshness,
    /// What clients draw that have nothing of their own to draw from.
    random: Mutex<SmallRng>,
    /// Sessions that their clients have left: process and token. Whoever takes one over goes on with it.
    left: Mutex<Vec<(u64, Session)>>,
}

/// A session, and the process it is in the history.
struct Client {
    process: u64,
    session: Session,
    /// The process whose token the next operation takes over.
    token_from: Option<u64>,
}

impl Client {
    /// What is known of an operation before it is sent.
    fn extras(&mut self, level: Level) -> Extras {
        let token_from = self.token_from.take();
        Extras { level: Some(level.to_string()), token_from, ..Extras::default() }
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
            ..wire::CreateKeyspaceRequest::default()
        };
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
            by_lease: AtomicUsize::new(0),
            freshness: Freshness::default(),
            random: Mutex::new(SmallRng::seed_from_u64(derive(cluster.layout().seed, "bounds"))),
            left: Mutex::default(),
        });
        let clients = (0..self.clients)
            .map(|_| {
                let shared = Arc::clone(&shared);
                cluster.start_client(TIMEOUT, |host| async move { shared.run(host).await })
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
    pub fn finish(self, cluster: &mut Cluster) -> Result<Seen> {
        let Self { shared, clients } = self;
        shared.stop.store(true, Ordering::Relaxed);
        let deadline = cluster.now() + 2 * TIMEOUT;
        while !clients.iter().all(Pending::is_ready) {
            if cluster.now() > deadline {
                bail!(Check::Deadline.found("a client's operation did not end by its deadline"));
            }
            cluster.step()?;
        }
        for client in clients {
            client.take().context("the client has ended")??;
        }
        let last = Arc::clone(&shared);
        cluster.run_client(Duration::from_secs(30), |host| async move {
            last.read_all(host).await
        })??;
        let by_lease = shared.by_lease.load(Ordering::Relaxed);
        Ok(Seen { history: shared.recorder.history(), by_lease })
    }
}

/// What the clients of a workload have seen.
pub struct Seen {
    /// All of it.
    pub history: History,
    /// Reads that were answered by a lease.
    pub by_lease: usize,
}

/// What a workload did, once it was found right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Operations by outcome: ok, certainly without effect, unknown.
    pub outcomes: [usize; 3],
    /// Reads that were answered by a lease.
    pub by_lease: usize,
}

impl Seen {
    /// What the judges say of it.
    ///
    /// # Errors
    /// What no correct database could have answered.
    pub fn judge(&self) -> Result<Summary> {
        let operations = self.history.operations();
        let whole = sequential::check(&self.history);
        if whole.verdict != sequential::Verdict::Sequential {
            bail!(Check::Sequential.found(whole.to_string()));
        }
        let is_sequential_read = |op: &Operation| {
            let reads = op.micro_ops.iter().all(|op| matches!(op, MicroOp::Read { .. }));
            reads && op.extras.level.as_deref() == Some(Level::Sequential.name())
        };
        let strict: Vec<_> =
            operations.iter().filter(|op| !is_sequential_read(op)).cloned().collect();
        let report = linearizable::check_operations(&strict, linearizable::Budget::default());
        if report.verdict != linearizable::Verdict::Linearizable {
            bail!(Check::Linearizable.found(report.verdict.to_string()));
        }
        // Weaker than what was judged already: what they reject here they would get wrong elsewhere.
        let report = causal::check_operations(&operations, causal::Budget::default());
        if let causal::Verdict::Violation(..) = &report.verdict {
            bail!(Check::Causal.found(report.verdict.to_string()));
        }
        let report = sessions::check_operations(&operations, latitude_checker::Level::Causal);
        if let promise::Verdict::Violation(_) = &report.verdict {
            bail!(Check::Sessions.found(report.verdict.to_string()));
        }
        let count = |outcome| operations.iter().filter(|op| op.outcome == outcome).count();
        let outcomes = [Outcome::Ok, Outcome::Fail, Outcome::Info].map(count);
        Ok(Summary { outcomes, by_lease: self.by_lease })
    }
}

/// A version as histories have it: comparable over all keys.
fn version(version: &WriteTime) -> Option<Version> {
    match version.writer {
        Writer::Node(node) => {
            Some(Version(vec![version.time.0, u64::from(node.0), version.sequence]))
        }
        Writer::Client(_) => None,
    }
}

impl Shared {
    async fn run(&self, mut host: ClientHost) -> Result<()> {
        let mut client = self.new_client();
        let mut seen: BTreeMap<u32, Option<i64>> = BTreeMap::new();
        let mut chased = None;
        while !self.stop.load(Ordering::Relaxed) {
            let drawn = host.random.random_range(0..self.workload.keys);
            let at = chased.unwrap_or(drawn);
            let is_strict = host.random.random_range(0..10) < self.workload.strict;
            let level = if is_strict { Level::Strict } else { Level::Sequential };
            if host.random.random_range(0..10) < self.workload.forgets {
                host.begin_anew();
            }
            let keyspace = host
                .client
                .keyspace(KEYSPACE)
                .with_timeout(TIMEOUT)
                .with_receipt(ReceiptDetail::Full)
                .with_level(level)
                .with_session(client.session.clone());
            let Workload { reads, compares, .. } = self.workload;
            let went = match host.random.random_range(0..10) {
                draw if draw < reads || chased.is_some() => {
                    let read = self.read(&host, &keyspace, &mut client, at, level, false).await?;
                    if let Some(value) = read {
                        seen.insert(at, value);
                    }
                    Went::Ok
                }
                draw if draw < reads + compares => {
                    let from = seen.get(&at).copied().flatten();
                    self.compare(&host, &keyspace, &mut client, at, from, level).await?
                }
                _ => self.write(&host, &keyspace, &mut client, at, level).await?,
            };
            if matches!(went, Went::Failed) && host.random.random_ratio(1, 4) {
                // As a person would: begin anew when something does not work.
                client = self.new_client();
            }
            if host.random.random_ratio(1, 20) {
                self.change_session(&mut client);
            }
            let (least, most) = self.workload.pause_ms;
            let pause = Duration::from_millis(host.random.random_range(least..=most));
            let chases = host.random.random_range(0..10) < self.workload.chases;
            chased = if chases {
                self.next_written(pause).await
            } else {
                tokio::time::sleep(pause).await;
                None
            };
        }
        Ok(())
    }

    /// Waits until somebody has written, but no longer than that. Which key it was.
    async fn next_written(&self, most: Duration) -> Option<u32> {
        let written = || *self.written.lock().expect("no client panics");
        let (before, _) = written();
        for _ in 0..most.as_millis() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let (count, key) = written();
            if count > before {
                return Some(key);
            }
        }
        None
    }

    fn note_written(&self, key: u32) {
        let (count, last) = &mut *self.written.lock().expect("no client panics");
        *count += 1;
        *last = key;
    }

    fn new_client(&self) -> Client {
        let (process, session) = (self.recorder.process(), Session::new());
        Client { process, session, token_from: None }
    }

    /// Leaves the session to whoever wants it, and goes on with one that another client has left, if there
    /// is one, else with a new one.
    fn change_session(&self, client: &mut Client) {
        let mut left = self.left.lock().expect("no client panics");
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

    /// Reads a key; the outer `None`: it could not be read.
    async fn read(
        &self,
        host: &ClientHost,
        keyspace: &Keyspace,
        client: &mut Client,
        at: u32,
        level: Level,
        is_final: bool,
    ) -> Result<Option<Option<i64>>> {
        let key = self.workload.key(at);
        let read = |value| vec![MicroOp::Read { key: key.clone(), value }];
        let extras = Extras { is_final, ..client.extras(level) };
        let bound = self.bound(level);
        let keyspace = match bound {
            Some(bound) if level == Level::Sequential => {
                &keyspace.clone().with_max_staleness(bound)
            }
            _ => keyspace,
        };
        host.say(&format!("{} reads {key} {level}, no staler than {bound:?}", client.process));
        self.recorder.invoke(client.process, nanos(host), read(Value::Absent), extras)?;
        let sent = host.now();
        match keyspace.get(&key).await {
            Ok(answer) => {
                if let Some(bound) = bound {
                    let seen = answer.value.as_ref().map(|value| &value.version);
                    self.freshness.seen(at, sent, bound, seen)?;
                }
                if let Some(receipt) = &answer.receipt {
                    if receipt.proof == Some(Proof::Lease) {
                        self.by_lease.fetch_add(1, Ordering::Relaxed);
                    }
                    if let (Some((_, index)), Some(time)) = (receipt.log, receipt.as_of) {
                        host.told(receipt.range, index, time);
                    }
                }
                let version = answer.value.as_ref().and_then(|value| version(&value.version));
                let value = answer.value.map(|value| decode(&value.bytes)).transpose()?;
                host.say(&format!("{} has read {key} = {value:?}", client.process));
                let seen = value.map_or(Value::Absent, Value::Integer);
                let extras = Extras { version, is_final, ..Extras::default() };
                self.recorder.ok(client.process, nanos(host), read(seen), extras)?;
                Ok(Some(value))
            }
            Err(error) => {
                host.say(&format!("{} could not read: {error}", client.process));
                expected(&error)?;
                self.recorder.fail(client.process, nanos(host), Extras::default())?;
                Ok(None)
            }
        }
    }

    /// How stale the answer of a read may be: not at all if it is strict, else often anything.
    fn bound(&self, level: Level) -> Option<Duration> {
        if level == Level::Strict {
            return Some(Duration::ZERO);
        }
        let mut random = self.random.lock().expect("no client panics");
        let bounds = [None, None, Some(0), Some(30), Some(300), Some(2_000)];
        bounds.choose(&mut *random).copied().flatten().map(Duration::from_millis)
    }

    async fn write(
        &self,
        host: &ClientHost,
        keyspace: &Keyspace,
        client: &mut Client,
        at: u32,
        level: Level,
    ) -> Result<Went> {
        let key = self.workload.key(at);
        let value = self.next_value.fetch_add(1, Ordering::Relaxed);
        let write = vec![MicroOp::Write { key: key.clone(), value }];
        let extras = client.extras(level);
        host.say(&format!("{} writes {key} = {value} {level}", client.process));
        self.recorder.invoke(client.process, nanos(host), write.clone(), extras)?;
        match keyspace.put(&key, self.workload.encode(value)).await {
            Ok(answer) => {
                host.acknowledged(&answer.value);
                self.freshness.written(at, host.now(), &answer.value);
                let extras = Extras { version: version(&answer.value), ..Extras::default() };
                host.say(&format!("{} has written {key} at {:?}", client.process, extras.version));
                self.note_written(at);
                self.recorder.ok(client.process, nanos(host), write, extras)?;
                Ok(Went::Ok)
            }
            Err(error) => self.failed(host, client, &error),
        }
    }

    async fn compare(
        &self,
        host: &ClientHost,
        keyspace: &Keyspace,
        client: &mut Client,
        at: u32,
        from: Option<i64>,
        level: Level,
    ) -> Result<Went> {
        let key = self.workload.key(at);
        let to = self.next_value.fetch_add(1, Ordering::Relaxed);
        let compare = vec![MicroOp::CompareAndSet { key: key.clone(), from, to }];
        let extras = client.extras(level);
        host.say(&format!("{} sets {key} from {from:?} to {to} {level}", client.process));
        self.recorder.invoke(client.process, nanos(host), compare.clone(), extras)?;
        let encode = |value| self.workload.encode(value);
        let condition = from.map_or(Expected::Absent, |from| Expected::Value(encode(from).into()));
        let answer = keyspace.compare_and_set(&key, condition, Some(encode(to).into())).await;
        match answer.map(|answer| answer.value) {
            Ok(CasOutcome::Applied { version: written }) => {
                host.acknowledged(&written);
                self.freshness.written(at, host.now(), &written);
                let extras = Extras { version: version(&written), ..Extras::default() };
                host.say(&format!("{} has set {key} at {:?}", client.process, extras.version));
                self.note_written(at);
                self.recorder.ok(client.process, nanos(host), compare, extras)?;
                Ok(Went::Ok)
            }
            Ok(CasOutcome::Mismatch { found }) => {
                let version = found.as_ref().and_then(version);
                let extras = Extras { version, ..Extras::default() };
                host.say(&format!("{} found another value in {key}", client.process));
                self.recorder.mismatch(client.process, nanos(host), extras)?;
                Ok(Went::Ok)
            }
            Err(error) => self.failed(host, client, &error),
        }
    }

    /// Notes a failure. After an unknown outcome the client goes on under a new process, with the session as
    /// the last answer left it.
    fn failed(&self, host: &ClientHost, client: &mut Client, error: &Error) -> Result<Went> {
        host.say(&format!("{} failed: {error}", client.process));
        expected(error)?;
        if error.may_have_applied() {
            let process = self.recorder.info(client.process, nanos(host), Extras::default())?;
            client.token_from = Some(std::mem::replace(&mut client.process, process));
            return Ok(Went::Unknown);
        }
        self.recorder.fail(client.process, nanos(host), Extras::default())?;
        Ok(Went::Failed)
    }
}

/// Faults explain many errors, but not these.
fn expected(error: &Error) -> Result<()> {
    tracing::debug!(%error, "an operation failed");
    match error.reason {
        Reason::Internal | Reason::Malformed | Reason::ArgumentInvalid => {
            Err(Check::Answers.found(format!("no fault explains this: {error}")).into())
        }
        _ => Ok(()),
    }
}

fn nanos(host: &ClientHost) -> u64 {
    host.now().as_nanos() as u64
}

fn decode(bytes: &[u8]) -> Result<i64> {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end()
        .parse()
        .map_err(|_| Check::Answers.found(format!("nobody wrote {text:?}")).into())
}

//! Replicas of one range on nodes in one process, over links that can be slow, cut and counted.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use latitude_consensus::{
    Appended, Birth, Class, Committer, Failpoints, FlushInline, Group, GroupContext, LeaderToken,
    OpenError, ProposeError, Registry, Settings, SnapshotSettings, Snapshots, Step, Transport,
    TransportError, seed_thread_rng,
};
use latitude_range::{
    AUDIT_FORMAT, Audit, Body, Done, Entry, Op, Operation, RangeMeta, Reader, Reply, Write,
};
use latitude_storage::memory::{MemoryDisk, MemoryEngine};
use latitude_storage::{Batch, Engine};
use latitude_types::{
    ClientId, Epoch, Generation, Key, KeySpan, KeyspaceId, Level, NodeId, OperationId,
    OperationKind, Past, Positions, RangeId, ReplicaId, Stamp, Timestamp,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// The range of every test.
pub(crate) const RANGE: RangeId = RangeId(7);

/// From so many calls on, a link answers no more.
const CALLS_MAX: usize = 100_000;

/// The replica of a node.
pub(crate) fn replica(node: u32) -> ReplicaId {
    ReplicaId { node: NodeId(node), generation: Generation(1) }
}

type LinkKey = (NodeId, ReplicaId, Class);
type Answer = Result<Bytes, TransportError>;

struct Message {
    due: Instant,
    body: Bytes,
    answer: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct NetState {
    registries: BTreeMap<NodeId, Registry>,
    delay: Duration,
    /// Directions in which nothing passes: from, to.
    cut: BTreeSet<(u32, u32)>,
    /// How often a node called another.
    calls: BTreeMap<(u32, u32), usize>,
    connections: BTreeMap<LinkKey, mpsc::UnboundedSender<Message>>,
}

/// The links between the nodes.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<NetState>>);

impl Net {
    fn lock(&self) -> MutexGuard<'_, NetState> {
        self.0.lock().expect("no panic holds it")
    }

    /// How long every message takes, each way.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// Nothing passes from one node to the other any more; a message on its way is lost.
    pub(crate) fn cut(&self, from: u32, to: u32) {
        self.lock().cut.insert((from, to));
    }

    /// Nothing passes between the node and any other.
    pub(crate) fn isolate(&self, node: u32) {
        for other in (1..=3).filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Everything passes again.
    pub(crate) fn heal(&self) {
        self.lock().cut.clear();
    }

    /// How often `from` called `to` so far.
    pub(crate) fn calls(&self, from: u32, to: u32) -> usize {
        self.lock().calls.get(&(from, to)).copied().unwrap_or(0)
    }

    fn passes(&self, from: NodeId, to: NodeId) -> Result<(), TransportError> {
        if self.lock().cut.contains(&(from.0, to.0)) {
            return Err(TransportError(format!("no way from {from} to {to}")));
        }
        Ok(())
    }

    /// Delivers the messages of one connection in their order, without waiting for answers.
    async fn deliver(self, (from, to, _): LinkKey, mut messages: mpsc::UnboundedReceiver<Message>) {
        while let Some(Message { due, body, answer }) = messages.recv().await {
            tokio::time::sleep_until(due).await;
            let dispatched = self.passes(from, to.node).and_then(|()| {
                let registry = self.lock().registries.get(&to.node).cloned();
                let registry = registry.ok_or(TransportError(format!("{to} is down")))?;
                registry
                    .dispatch(RANGE, to.generation, &body)
                    .map_err(|error| TransportError(error.to_string()))
            });
            let net = self.clone();
            let mut reply = async move {
                let reply = dispatched?.await.map_err(|error| TransportError(error.to_string()))?;
                let delay = net.lock().delay;
                tokio::time::sleep(delay).await;
                net.passes(to.node, from)?;
                Ok(reply)
            }
            .boxed();
            match futures::poll!(&mut reply) {
                std::task::Poll::Ready(reply) => drop(answer.send(reply)),
                std::task::Poll::Pending => {
                    tokio::spawn(async move { drop(answer.send(reply.await)) });
                }
            }
        }
    }
}

/// A node's end of the links.
struct End {
    net: Net,
    from: NodeId,
}

impl Transport for End {
    fn call(
        &self,
        to: ReplicaId,
        range: RangeId,
        class: Class,
        body: Bytes,
    ) -> BoxFuture<'static, Answer> {
        assert_eq!(range, RANGE);
        let calls = {
            let mut state = self.net.lock();
            let calls = state.calls.entry((self.from.0, to.node.0)).or_default();
            *calls += 1;
            *calls
        };
        if calls > CALLS_MAX {
            // A loop without a pause would keep this thread, and the paused clock, for ever: it is let
            // rest here, for the test to see how often it went round.
            return std::future::pending().boxed();
        }
        if let Err(error) = self.net.passes(self.from, to.node) {
            return async move { Err(error) }.boxed();
        }
        let mut state = self.net.lock();
        let due = Instant::now() + state.delay;
        let key = (self.from, to, class);
        let connection = state.connections.entry(key).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tokio::spawn(self.net.clone().deliver(key, receiver));
            sender
        });
        let (answer, answered) = oneshot::channel();
        assert!(connection.send(Message { due, body, answer }).is_ok(), "connections never end");
        async move { answered.await.unwrap_or_else(|_| Err(TransportError("lost".into()))) }.boxed()
    }
}

/// Where nodes are to crash.
#[derive(Default)]
pub(crate) struct Plan {
    /// The step, and how often whoever reaches it crashes.
    crash_at: Option<(Step, u32)>,
    /// Of unsynced batches, one in so many survives; 0: none.
    spares: usize,
    crashed: Vec<u32>,
}

/// The plan, as one node follows it.
struct Crashes {
    node: u32,
    disk: MemoryDisk,
    plan: Arc<Mutex<Plan>>,
}

impl Failpoints for Crashes {
    fn reached(&self, _: RangeId, step: Step) -> std::io::Result<()> {
        let mut plan = self.plan.lock().expect("no panic holds it");
        match &mut plan.crash_at {
            Some((at, times)) if *at == step && *times > 0 => *times -= 1,
            _ => return Ok(()),
        }
        plan.spares += 1;
        let spares = plan.spares;
        self.disk.crash(|unsynced| if spares.is_multiple_of(2) { unsynced / spares } else { 0 });
        plan.crashed.push(self.node);
        Err(std::io::Error::other(format!("node {} crashes at {step}", self.node)))
    }
}

/// A node that is up.
pub(crate) struct Up {
    pub(crate) engine: Arc<MemoryEngine>,
    pub(crate) committer: Committer,
    pub(crate) context: GroupContext,
    pub(crate) registry: Registry,
    pub(crate) group: Group,
    run: [tokio::task::JoinHandle<()>; 4],
}

/// Three nodes with a replica each.
pub(crate) struct Cluster {
    pub(crate) net: Net,
    pub(crate) settings: Settings,
    pub(crate) snapshots: SnapshotSettings,
    plan: Arc<Mutex<Plan>>,
    /// How long a node keeps silent after its start, if it does.
    pub(crate) silence: Option<Duration>,
    disks: BTreeMap<u32, MemoryDisk>,
    up: BTreeMap<u32, Up>,
    clock: Mutex<u64>,
}

impl Cluster {
    /// Three replicas born alike; nobody has campaigned.
    pub(crate) async fn new() -> Self {
        Self::with_delay(Duration::from_millis(5)).await
    }

    /// The same, over links that take so long each way.
    pub(crate) async fn with_delay(delay: Duration) -> Self {
        Self::with(delay, SnapshotSettings::default()).await
    }

    /// The same, with logs of that size.
    pub(crate) async fn with(delay: Duration, snapshots: SnapshotSettings) -> Self {
        seed_thread_rng(7);
        let net = Net::default();
        net.set_delay(delay);
        let disks = (1..=3).map(|node| (node, MemoryDisk::new())).collect();
        let settings = Settings::for_round_trip(2 * delay);
        let mut cluster = Self {
            net,
            settings,
            snapshots,
            plan: Arc::default(),
            silence: None,
            disks,
            up: BTreeMap::new(),
            clock: Mutex::new(1_000),
        };
        let meta = RangeMeta::new(RANGE, KeyspaceId::DEFAULT, KeySpan::all(), 1 << 20, true);
        let birth = Birth { meta, voters: (1..=3).map(replica).collect(), learners: vec![] };
        for node in 1..=3 {
            let engine = MemoryEngine::open(cluster.disk(node)).expect("nobody has it open");
            let mut batch = Batch::new();
            birth.stage(replica(node), &engine, &mut batch);
            engine.write(batch).expect("the disk has space");
            engine.sync().expect("the sync succeeds");
        }
        for node in 1..=3 {
            cluster.start(node).await.expect("the replica was just born");
        }
        cluster
    }

    /// The same, with a leader: node 1, as nobody else campaigns.
    pub(crate) async fn led() -> (Self, LeaderToken) {
        Self::new().await.lead().await
    }

    /// The same, once node 1 leads.
    pub(crate) async fn lead(self) -> (Self, LeaderToken) {
        let cluster = self;
        cluster.group(1).campaign_at_birth().await;
        let (leader, token) = cluster.leader().await;
        assert_eq!(leader, 1);
        // Only once a quorum has answered it may a leader take writes.
        cluster.group(1).read_index(Duration::from_secs(10)).await.expect("all are up");
        (cluster, token)
    }

    pub(crate) fn disk(&self, node: u32) -> &MemoryDisk {
        &self.disks[&node]
    }

    pub(crate) fn node(&self, node: u32) -> &Up {
        &self.up[&node]
    }

    pub(crate) fn group(&self, node: u32) -> &Group {
        &self.node(node).group
    }

    /// Starts a node on what its disk holds.
    pub(crate) async fn start(&mut self, node: u32) -> Result<(), OpenError> {
        let engine = Arc::new(MemoryEngine::open(self.disk(node)).expect("nobody has it open"));
        let (committer, run) = Committer::new(FlushInline(Arc::clone(&engine) as Arc<dyn Engine>));
        let run = tokio::spawn(run);
        let crashes = Crashes { node, disk: self.disk(node).clone(), plan: Arc::clone(&self.plan) };
        let snapshots = Snapshots::open(&*engine, self.snapshots, Arc::new(crashes));
        let context = GroupContext {
            snapshots: snapshots.expect("the store reads"),
            engine: Arc::clone(&engine) as Arc<dyn Engine>,
            committer: committer.clone(),
            transport: Arc::new(End { net: self.net.clone(), from: NodeId(node) }),
            settings: self.settings,
            silent_until: self.silence.map(|silence| Instant::now() + silence),
        };
        let group = match Group::open(&context, RANGE, replica(node)).await {
            Ok(group) => group,
            Err(error) => {
                run.abort();
                return Err(error);
            }
        };
        let silent = group.clone();
        let run = [
            run,
            tokio::spawn(group.keep_log_short()),
            tokio::spawn(group.make_audits()),
            tokio::spawn(async move { silent.end_silence().await }),
        ];
        let registry = Registry::default();
        registry.insert(group.clone());
        self.net.lock().registries.insert(NodeId(node), registry.clone());
        self.up.insert(node, Up { engine, committer, context, registry, group, run });
        Ok(())
    }

    /// Cuts a node's power: everything not synced is gone.
    pub(crate) async fn crash(&mut self, node: u32) {
        self.disk(node).crash(|_| 0);
        self.tear_down(node).await;
    }

    /// From now on whoever reaches that step of a snapshot loses its power, so many times.
    pub(crate) fn crash_at(&self, step: Step, times: u32) {
        self.plan.lock().expect("no panic holds it").crash_at = Some((step, times));
    }

    /// How often a node will still crash by [`Cluster::crash_at`].
    pub(crate) fn crashes_left(&self) -> u32 {
        let plan = self.plan.lock().expect("no panic holds it");
        plan.crash_at.map_or(0, |(_, times)| times)
    }

    /// Starts every node again that has crashed by [`Cluster::crash_at`]; returns how often one did.
    pub(crate) async fn restart_crashed(&mut self) -> usize {
        let mut count = 0;
        loop {
            let Some(node) = self.plan.lock().expect("no panic holds it").crashed.pop() else {
                return count;
            };
            count += 1;
            if self.up.contains_key(&node) {
                self.tear_down(node).await;
            }
            // It may crash while it is started: then it is in the plan again.
            let started = self.start(node).await;
            let again = self.plan.lock().expect("no panic holds it").crashed.contains(&node);
            assert!(again || started.is_ok(), "{:?}", started.err());
        }
    }

    /// Takes down a node whose disk has crashed already.
    async fn tear_down(&mut self, node: u32) {
        self.net.lock().registries.remove(&NodeId(node));
        let up = self.up.remove(&node).expect("the node is up");
        up.registry.remove(RANGE);
        up.group.stop().await;
        up.run.iter().for_each(tokio::task::JoinHandle::abort);
    }

    /// The nodes that are up.
    pub(crate) fn nodes(&self) -> Vec<u32> {
        self.up.keys().copied().collect()
    }

    /// Stops a node in good order.
    pub(crate) async fn shut_down(&mut self, node: u32) {
        self.net.lock().registries.remove(&NodeId(node));
        let up = self.up.remove(&node).expect("the node is up");
        up.registry.remove(RANGE);
        up.group.stop().await;
        up.run.iter().for_each(tokio::task::JoinHandle::abort);
        let engine = Arc::downgrade(&up.engine);
        drop(up);
        self.wait("the engine is closed", || (engine.strong_count() == 0).then_some(())).await;
    }

    /// Waits until somebody leads, and a minute at most.
    pub(crate) async fn leader(&self) -> (u32, LeaderToken) {
        self.leader_other_than(0).await
    }

    /// Waits until somebody else than `former` leads.
    pub(crate) async fn leader_other_than(&self, former: u32) -> (u32, LeaderToken) {
        let found = self.wait("somebody leads", || {
            self.up
                .iter()
                .filter(|(node, _)| **node != former)
                .find_map(|(node, up)| up.group.leadership().token.map(|token| (*node, token)))
        });
        found.await
    }

    /// Waits, for a minute at most, until there is something.
    pub(crate) async fn wait<T>(&self, what: &str, mut there: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(value) = there() {
                return value;
            }
            assert!(Instant::now() < deadline, "waited a minute in vain until {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// An entry that puts a value, with the next stamp.
    pub(crate) fn entry(&self, key: &str, value: &str) -> (Stamp, Bytes) {
        let mut clock = self.clock.lock().expect("no panic holds it");
        *clock += 1;
        let stamp = Stamp { time: Timestamp::from_ms(*clock), node: NodeId(1) };
        let operation = Operation {
            id: OperationId {
                birth: stamp.time,
                client: ClientId([9; 16]),
                sequence: *clock,
                kind: OperationKind::Log,
            },
            answered_below: 0,
            level: Level::Strict,
            key: Key::new(key.as_bytes()).expect("a short key"),
            op: Op::Put { value: Bytes::copy_from_slice(value.as_bytes()) },
            named: vec![],
            need: Positions::default(),
            past: Past::default(),
            extensions: vec![],
        };
        let entry = Entry {
            stamp,
            range: RANGE,
            epoch: Epoch(1),
            keyspace: KeyspaceId::DEFAULT,
            body: Body::Write(Write { segments: vec![], operations: vec![operation] }),
        };
        (stamp, entry.encode())
    }

    /// An entry that audits, with the next stamp.
    pub(crate) fn audit_entry(&self) -> Bytes {
        let (stamp, _) = self.entry("k", "never proposed");
        let body = Body::Audit(Audit { format: AUDIT_FORMAT });
        let (epoch, keyspace) = (Epoch(1), KeyspaceId::DEFAULT);
        Entry { stamp, range: RANGE, epoch, keyspace, body }.encode()
    }

    /// Proposes a put at a node and waits for what becomes of it.
    pub(crate) async fn put(
        &self,
        node: u32,
        token: LeaderToken,
        key: &str,
        value: &str,
    ) -> Result<Appended, ProposeError> {
        let (_, entry) = self.entry(key, value);
        self.group(node).propose(token, entry).await?.await
    }

    /// What a node's base holds under a key.
    pub(crate) fn value(&self, node: u32, key: &str) -> Option<String> {
        let engine = &self.node(node).engine;
        let view = engine.snapshot();
        let reader = Reader::new(RANGE, &*view).expect("the range has a base");
        let row = reader.get(&Key::new(key.as_bytes()).expect("a short key"));
        let value = row.expect("the row reads")?.value().cloned()?;
        Some(String::from_utf8(value.to_vec()).expect("tests write text"))
    }

    /// Waits until every node that is up has applied `index`.
    pub(crate) async fn applied_everywhere(&self, index: u64) {
        for up in self.up.values() {
            let applied = tokio::time::timeout(Duration::from_secs(60), up.group.applied(index));
            applied.await.expect("within a minute").expect("the group runs");
        }
    }
}

/// Whether a proposal was written, rather than refused by the range.
pub(crate) fn written(appended: &Appended) -> bool {
    matches!(
        &appended.applied.replies[..],
        [Reply { result: Ok(Done::Written { .. }), duplicate: false, .. }]
    )
}

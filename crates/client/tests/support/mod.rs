//! A cluster made up for tests: the wire is real, the network is memory, and what nodes answer is
//! scripted. It keeps values and results of ids, so that a test can count how often a write happened.

mod admin;
mod net;
mod types;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use latitude_client::{Client, ClusterIdentity, Error, NodeId, RangeId, Reason};
use latitude_consistency::Token;
use latitude_rpc::net::Net;
use latitude_rpc::pb::v1;
use latitude_rpc::pb::v1::admin_server::AdminServer;
use latitude_rpc::pb::v1::latitude_server::{Latitude, LatitudeServer};
use latitude_rpc::{error_to_pb, status_from_error};
use latitude_types::{ClusterId, Epoch, LeaderHint, Stamp, Timestamp};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

pub(crate) use net::MemoryNet;

/// What a node does with a command.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Serves it if it leads the range, else names the leader.
    Serve,
    /// Does nothing and answers with this.
    Fail(Error),
    /// Never answers.
    Silent,
    /// Applies it and cuts the connection before the answer.
    ApplyAndCut,
    /// Serves it after a while.
    After(Duration),
    /// Serves it and changes the reply.
    Change(fn(&mut v1::Reply)),
}

/// A range of the fake cluster.
#[derive(Debug, Clone)]
pub(crate) struct FakeRange {
    pub(crate) id: u64,
    pub(crate) start: &'static str,
    pub(crate) end: Option<&'static str>,
    pub(crate) leader: u32,
}

/// A command as a node received it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) node: u32,
    pub(crate) at: Instant,
    pub(crate) command: v1::Command,
}

impl Seen {
    pub(crate) fn id(&self) -> &v1::OperationId {
        self.command.id.as_ref().expect("a write carries an id")
    }
}

#[derive(Default)]
struct State {
    ranges: Vec<FakeRange>,
    values: BTreeMap<Bytes, (Bytes, v1::Version)>,
    types: types::Types,
    results: BTreeMap<(Bytes, u64), v1::reply::Result>,
    /// How many writes took effect.
    applied: u64,
    scripts: BTreeMap<u32, VecDeque<Act>>,
    /// What a node does when its script is over.
    habits: BTreeMap<u32, Act>,
    seen: Vec<Seen>,
    /// Commands per frame.
    frames: Vec<usize>,
    streams: usize,
    locates: usize,
    clock_ms: u64,
    admin_calls: Vec<(u32, &'static str)>,
    admin_failures: BTreeMap<u32, Status>,
    /// Where nodes are; `eu` unless said.
    regions: BTreeMap<u32, &'static str>,
    /// How long a greeting takes to be answered.
    round_trips: BTreeMap<u32, Duration>,
}

/// The cluster: three nodes at `n1:7400` to `n3:7400`, one range led by n1.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) net: Arc<MemoryNet>,
    state: Arc<Mutex<State>>,
    started: Instant,
}

pub(crate) const NODES: [u32; 3] = [1, 2, 3];

pub(crate) fn address(node: u32) -> String {
    format!("n{node}:7400")
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let ranges = vec![FakeRange { id: 7, start: "", end: None, leader: 1 }];
        Self::start_with(ranges).await
    }

    pub(crate) async fn start_with(ranges: Vec<FakeRange>) -> Self {
        let state = State { ranges, clock_ms: 1_000_000, ..State::default() };
        let cluster = Self {
            net: Arc::new(MemoryNet::default()),
            state: Arc::new(Mutex::new(state)),
            started: Instant::now(),
        };
        for node in NODES {
            cluster.serve(node).await;
        }
        cluster
    }

    async fn serve(&self, node: u32) {
        let (_, incoming) = self.net.listen(&address(node)).await.unwrap();
        let fake = FakeNode { node, cluster: self.clone() };
        let admin = admin::FakeAdmin { node, cluster: self.clone() };
        let server = tonic::transport::Server::builder()
            .add_service(LatitudeServer::new(fake))
            .add_service(AdminServer::new(admin));
        tokio::spawn(server.serve_with_incoming(incoming));
    }

    /// A client of the cluster that knows n1 and n2.
    pub(crate) fn client(&self) -> Client {
        Client::builder()
            .seeds([address(1), address(2)])
            .net(Arc::clone(&self.net) as Arc<dyn Net>)
            .random_seed(7)
            .build()
    }

    /// The next commands at a node meet these acts, one each.
    pub(crate) fn script(&self, node: u32, acts: impl IntoIterator<Item = Act>) {
        self.state.lock().unwrap().scripts.entry(node).or_default().extend(acts);
    }

    /// From now on, when its script is over, the node does this.
    pub(crate) fn habit(&self, node: u32, act: Act) {
        self.state.lock().unwrap().habits.insert(node, act);
    }

    pub(crate) fn set_ranges(&self, ranges: Vec<FakeRange>) {
        self.state.lock().unwrap().ranges = ranges;
    }

    pub(crate) fn set_leader(&self, leader: u32) {
        for range in &mut self.state.lock().unwrap().ranges {
            range.leader = leader;
        }
    }

    /// Where a node is, and how far away.
    pub(crate) fn place(&self, node: u32, region: &'static str, round_trip: Duration) {
        let mut state = self.state.lock().unwrap();
        state.regions.insert(node, region);
        state.round_trips.insert(node, round_trip);
    }

    /// Sets the cluster's clock back by so much.
    pub(crate) fn set_clock_back(&self, ms: u64) {
        self.state.lock().unwrap().clock_ms -= ms;
    }

    /// Sets the cluster's clock forward by so much: as a client sees it that stood still.
    pub(crate) fn set_clock_forward(&self, ms: u64) {
        self.state.lock().unwrap().clock_ms += ms;
    }

    /// The cluster's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock()
    }

    pub(crate) fn applied(&self) -> u64 {
        self.state.lock().unwrap().applied
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    pub(crate) fn frames(&self) -> Vec<usize> {
        self.state.lock().unwrap().frames.clone()
    }

    pub(crate) fn streams(&self) -> usize {
        self.state.lock().unwrap().streams
    }

    pub(crate) fn locates(&self) -> usize {
        self.state.lock().unwrap().locates
    }

    /// From now on the node fails every call of the administration with this.
    pub(crate) fn fail_admin(&self, node: u32, failure: Status) {
        self.state.lock().unwrap().admin_failures.insert(node, failure);
    }

    /// Which nodes were asked what, since the last time.
    pub(crate) fn take_admin_calls(&self) -> Vec<(u32, &'static str)> {
        std::mem::take(&mut self.state.lock().unwrap().admin_calls)
    }

    fn clock(&self) -> Timestamp {
        let ms = self.state.lock().unwrap().clock_ms;
        Timestamp::from_ms(ms + self.started.elapsed().as_millis() as u64)
    }
}

impl State {
    fn act(&mut self, node: u32) -> Act {
        let next = self.scripts.get_mut(&node).and_then(VecDeque::pop_front);
        next.or_else(|| self.habits.get(&node).cloned()).unwrap_or(Act::Serve)
    }

    fn range_of(&self, key: &[u8]) -> FakeRange {
        let covers = |range: &&FakeRange| {
            range.start.as_bytes() <= key && range.end.is_none_or(|end| key < end.as_bytes())
        };
        self.ranges.iter().find(covers).expect("the ranges cover all keys").clone()
    }

    fn serve(&mut self, node: u32, clock: Timestamp, command: &v1::Command) -> v1::reply::Result {
        use v1::command::Operation;
        let operation = command.operation.clone().expect("a command holds an operation");
        // As far as routing goes, a reverse scan is at the key below its end.
        let range = match &operation {
            Operation::Get(get) => self.range_of(&get.key),
            Operation::Put(put) => self.range_of(&put.key),
            Operation::Delete(delete) => self.range_of(&delete.key),
            Operation::CompareAndSet(cas) => self.range_of(&cas.key),
            Operation::Scan(scan) => self.range_of(&scan.start),
            Operation::CounterAdd(add) => self.range_of(&add.key),
            Operation::CounterReset(reset) => self.range_of(&reset.key),
            Operation::SetAdd(add) => self.range_of(&add.key),
            Operation::SetRemove(remove) => self.range_of(&remove.key),
            Operation::MapPut(put) => self.range_of(&put.key),
            Operation::MapRemove(remove) => self.range_of(&remove.key),
            Operation::FlagEnable(enable) => self.range_of(&enable.key),
            Operation::FlagDisable(disable) => self.range_of(&disable.key),
        };
        if range.id != command.range_id {
            return error(&Error::new(Reason::RangeMoved, "the key is in another range"));
        }
        let read = matches!(operation, Operation::Get(_) | Operation::Scan(_));
        let any_replica = read && command.level > v1::Level::Strict as i32;
        if range.leader != node && command.no_forward && !any_replica {
            return error(&not_leader(range.id, Some(range.leader)));
        }
        let version = v1::Version {
            time: clock.0,
            writer: Some(v1::version::Writer::Node(node)),
            sequence: self.applied,
        };
        if command.id.as_ref().is_some_and(|id| clock > Timestamp(id.birth).plus_ms(ID_LIFETIME_MS))
        {
            return error(&id_expired());
        }
        let id = command.id.as_ref().map(|id| (id.client.clone(), id.sequence));
        if let Some(first) = id.as_ref().and_then(|id| self.results.get(id)) {
            return first.clone();
        }
        // The one keyspace whose values are siblings.
        let siblings = command.keyspace == "notes";
        let result = match operation {
            Operation::Get(get) => {
                if let Some(typed) = self.types.get(&get.key, &version) {
                    return v1::reply::Result::Get(typed);
                }
                let (value, version) = self.values.get(&get.key).cloned().unzip();
                return v1::reply::Result::Get(v1::GetResult { value, version, typed: None });
            }
            Operation::Scan(scan) => return self.scan(&scan),
            Operation::Put(put) if !siblings => {
                self.values.insert(put.key, (put.value, version.clone()));
                v1::reply::Result::Write(v1::WriteResult { version: Some(version) })
            }
            Operation::Delete(delete) if !siblings => {
                self.values.remove(&delete.key);
                v1::reply::Result::Write(v1::WriteResult { version: Some(version) })
            }
            Operation::CompareAndSet(cas) => {
                use v1::compare_and_set::Expected;
                let found = self.values.get(&cas.key);
                let applied = match cas.expected.expect("a condition") {
                    Expected::Absent(_) => found.is_none(),
                    Expected::Value(value) => found.is_some_and(|(held, _)| *held == value),
                    Expected::Version(version) => found.is_some_and(|(_, held)| *held == version),
                };
                let version = if applied {
                    match cas.new_value {
                        Some(value) => self.values.insert(cas.key, (value, version.clone())),
                        None => self.values.remove(&cas.key),
                    };
                    Some(version)
                } else {
                    found.map(|(_, version)| version.clone())
                };
                v1::reply::Result::CompareAndSet(v1::CompareAndSetResult { applied, version })
            }
            typed => self.types.write(typed, version),
        };
        self.applied += 1;
        self.results.extend(id.map(|id| (id, result.clone())));
        result
    }

    fn scan(&self, scan: &v1::Scan) -> v1::reply::Result {
        let end = scan.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let inside = self.values.range::<Bytes, _>((Bound::Included(&scan.start), end));
        let row = |(key, (value, version)): (&Bytes, &(Bytes, v1::Version))| v1::Row {
            key: key.clone(),
            value: if scan.keys_only { Bytes::new() } else { value.clone() },
            version: Some(version.clone()),
            typed: None,
        };
        let limit = scan.limit as usize;
        let (rows, resume): (Vec<_>, _) = if scan.reverse {
            let all: Vec<_> = inside.rev().map(row).collect();
            let resume = (all.len() > limit).then(|| all[limit - 1].key.clone());
            (all, resume)
        } else {
            let all: Vec<_> = inside.map(row).collect();
            let resume = (all.len() > limit).then(|| all[limit].key.clone());
            (all, resume)
        };
        let rows = rows.into_iter().take(limit).collect();
        v1::reply::Result::Scan(v1::ScanResult { rows, resume })
    }
}

fn error(error: &Error) -> v1::reply::Result {
    v1::reply::Result::Error(error_to_pb(error))
}

/// The refusal of a node that does not lead.
pub(crate) fn not_leader(range: u64, leader: Option<u32>) -> Error {
    let leader = leader.map(|node| LeaderHint { range: RangeId(range), node: NodeId(node) });
    Error { leader, ..Error::new(Reason::NotLeader, "another node leads the range") }
}

/// How long after its birth a write is taken.
const ID_LIFETIME_MS: u64 = 600_000;

/// The refusal of a write that was born too long ago. A node does not know of earlier copies of the write.
pub(crate) fn id_expired() -> Error {
    Error::unknown(Reason::IdExpired, "the write's id is more than ten minutes old")
}

/// The refusal of a write whose answer is no longer kept, whatever it was.
pub(crate) fn id_retired() -> Error {
    Error::unknown(Reason::IdRetired, "the write was answered before")
}

/// The refusal of a session that is ahead of the node's clock.
pub(crate) fn token_from_future() -> Error {
    Error::new(Reason::TokenFromFuture, "the session is ahead of this node's clock")
}

/// The cluster that all tokens are of.
pub(crate) const CLUSTER: ClusterIdentity =
    ClusterIdentity { id: ClusterId([9; 16]), incarnation: 1 };

/// The session after a command: it has met an entry of the range's log, stamped now.
fn token_after(command: &v1::Command, clock: Timestamp, node: u32) -> Bytes {
    let mut token = match &command.token[..] {
        [] => Token::new(CLUSTER),
        bytes => Token::decode_for(bytes, CLUSTER).expect("the client sends tokens as it got them"),
    };
    let stamp = Stamp { time: clock, node: NodeId(node) };
    token.meet_entry(RangeId(command.range_id), Epoch(command.range_epoch), stamp);
    token.encode().into()
}

struct FakeNode {
    node: u32,
    cluster: Cluster,
}

impl FakeNode {
    /// Starts on a command; the reply may come later or never.
    fn take(&self, command: v1::Command, replies: &mpsc::UnboundedSender<v1::Reply>) {
        let (node, cluster) = (self.node, self.cluster.clone());
        let tag = command.tag;
        let seen = Seen { node, at: Instant::now(), command: command.clone() };
        let act = {
            let mut state = cluster.state.lock().unwrap();
            state.seen.push(seen);
            state.act(node)
        };
        let serve = move || {
            let clock = cluster.clock();
            let result = cluster.state.lock().unwrap().serve(node, clock, &command);
            let receipt = v1::Receipt {
                node,
                range_id: command.range_id,
                level_asked: command.level,
                level_given: command.level,
                covers_session: true,
                ..Default::default()
            };
            let told = command.receipt() != v1::ReceiptDetail::None;
            // As a node does: no token for those who will not look at it.
            let continued = told || !command.token.is_empty();
            v1::Reply {
                tag: command.tag,
                clock: clock.0,
                token: if continued { token_after(&command, clock, node) } else { Bytes::new() },
                receipt: told.then_some(receipt),
                result: Some(result),
            }
        };
        match act {
            Act::Change(change) => {
                let mut reply = serve();
                change(&mut reply);
                drop(replies.send(reply));
            }
            Act::Serve => drop(replies.send(serve())),
            Act::Fail(failure) => {
                let result = Some(error(&failure));
                drop(replies.send(v1::Reply { tag, result, ..Default::default() }));
            }
            Act::Silent => {}
            Act::ApplyAndCut => {
                serve();
                self.cluster.net.cut(&address(node));
            }
            Act::After(wait) => {
                let replies = replies.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    drop(replies.send(serve()));
                });
            }
        }
    }
}

#[tonic::async_trait]
impl Latitude for FakeNode {
    type StreamStream = BoxStream<'static, Result<v1::ReplyFrame, Status>>;

    async fn execute(&self, _: Request<v1::Command>) -> Result<Response<v1::Reply>, Status> {
        Err(Status::unimplemented("the client uses the stream"))
    }

    async fn batch(
        &self,
        _: Request<v1::BatchRequest>,
    ) -> Result<Response<v1::BatchReply>, Status> {
        Err(Status::unimplemented("the client uses the stream"))
    }

    async fn stream(
        &self,
        request: Request<Streaming<v1::CommandFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        self.cluster.state.lock().unwrap().streams += 1;
        let mut incoming = request.into_inner();
        let (replies, mut ready) = mpsc::unbounded_channel();
        let node = Self { node: self.node, cluster: self.cluster.clone() };
        tokio::spawn(async move {
            while let Ok(Some(frame)) = incoming.message().await {
                node.cluster.state.lock().unwrap().frames.push(frame.commands.len());
                for command in frame.commands {
                    node.take(command, &replies);
                }
            }
        });
        let outgoing = futures::stream::poll_fn(move |cx| ready.poll_recv(cx))
            .map(|reply| Ok(v1::ReplyFrame { replies: vec![reply] }));
        Ok(Response::new(outgoing.boxed()))
    }

    async fn hello(
        &self,
        _: Request<v1::HelloRequest>,
    ) -> Result<Response<v1::HelloReply>, Status> {
        let round_trip = self.cluster.state.lock().unwrap().round_trips.get(&self.node).copied();
        tokio::time::sleep(round_trip.unwrap_or_default()).await;
        Ok(Response::new(v1::HelloReply {
            node: self.node,
            clock: self.cluster.clock().0,
            ..Default::default()
        }))
    }

    async fn locate(
        &self,
        request: Request<v1::LocateRequest>,
    ) -> Result<Response<v1::LocateReply>, Status> {
        let request = request.into_inner();
        let mut state = self.cluster.state.lock().unwrap();
        state.locates += 1;
        if request.keyspace == "nowhere" {
            let unknown = Error::new(Reason::KeyspaceUnknown, "no keyspace is called \"nowhere\"");
            return Err(status_from_error(&unknown));
        }
        let above_start =
            |range: &&FakeRange| range.end.is_none_or(|end| *request.start < *end.as_bytes());
        let ranges = state.ranges.iter().filter(above_start).map(|range| v1::RangeLocation {
            range_id: range.id,
            epoch: 1,
            start: range.start.into(),
            end: range.end.map(Into::into),
            nodes: NODES.to_vec(),
            leader: range.leader,
        });
        let nodes = NODES.map(|node| v1::NodeLocation {
            node,
            address: address(node),
            region: state.regions.get(&node).copied().unwrap_or("eu").into(),
            zone: "a".into(),
        });
        Ok(Response::new(v1::LocateReply {
            keyspace_id: 16,
            default_level: v1::Level::Strict as i32,
            ranges: ranges.collect(),
            nodes: nodes.to_vec(),
        }))
    }
}

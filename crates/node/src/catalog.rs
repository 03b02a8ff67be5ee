//! The directory as this node has it, and the task that keeps it current.
//!
//! A node with a replica of the meta range reads it from its own base whenever an entry is applied; any
//! other asks those nodes, all of them, because none knows whether it has the latest. Either way it may be a
//! little old: who acts on it is told so by the range he reaches, and asks for a newer one. Right after a
//! start it may be very old, older than what an earlier life of the node has acted on: see
//! [`replicas`](crate::replicas).

use std::future::{pending, ready};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use latitude_consensus::Group;
use latitude_directory::{
    Counter, Directory, KeyspaceRecord, KeyspaceState, NodeRecord, RangeRecord,
    key as directory_key,
};
use latitude_range::{Reader, ScanRequest, Value, ValueType};
use latitude_rpc::pb::peer as pb;
use latitude_storage::View;
use latitude_types::{Error, Key, KeySpan, KeyspaceId, Level, NodeId, RangeId, Reason, Stamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::shared::Shared;

/// How often a node without the meta range asks, unless it is told that it is behind.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// A question about a keyspace nobody has heard of waits at most this long for each of two steps.
const REFRESH_PATIENCE: Duration = Duration::from_secs(1);
/// After so long without an answer the next one is asked as well.
const HEDGE_AFTER: Duration = Duration::from_millis(150);

/// The directory as this node has it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Catalog {
    current: Arc<watch::Sender<Arc<Directory>>>,
    /// Changes when a newer one seems to exist.
    behind: Arc<watch::Sender<()>>,
}

/// Keys and values of the meta range.
type MetaRows = Vec<(Vec<u8>, Vec<u8>)>;

/// The rows of the meta range, as they travel between nodes.
#[derive(Serialize, Deserialize)]
struct WireRows {
    meta: Vec<u8>,
    rows: MetaRows,
}

/// The keyspace of the meta range, which is in no directory.
pub(crate) fn meta_keyspace() -> Arc<KeyspaceRecord> {
    Arc::new(KeyspaceRecord {
        id: KeyspaceId::META,
        name: String::new(),
        state: KeyspaceState::Active,
        ranges: vec![RangeId::META],
        place: Vec::new(),
        learners: Vec::new(),
        value_type: ValueType::Register,
        default_level: Level::Strict,
        log_only: true,
        value_len_max: 8 << 20,
    })
}

impl Catalog {
    pub(crate) fn new() -> Self {
        Self {
            current: Arc::new(watch::Sender::new(Arc::default())),
            behind: Arc::new(watch::Sender::new(())),
        }
    }

    /// The directory as it is known now.
    pub(crate) fn current(&self) -> Arc<Directory> {
        Arc::clone(&self.current.borrow())
    }

    /// Watches it change.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Directory>> {
        self.current.subscribe()
    }

    /// Says that a newer one seems to exist.
    pub(crate) fn is_behind(&self) {
        self.behind.send_replace(());
    }

    /// Takes a directory unless the one known is newer.
    pub(crate) fn offer(&self, directory: Directory) {
        self.current.send_if_modified(|current| {
            let newer =
                directory.version() > current.version() || current.ranges().next().is_none();
            if newer {
                *current = Arc::new(directory);
            }
            newer
        });
    }

    /// Waits for a directory in which `wanted` finds something.
    pub(crate) async fn wait_for<T>(&self, mut wanted: impl FnMut(&Directory) -> Option<T>) -> T {
        let mut watch = self.watch();
        loop {
            if let Some(found) = wanted(&watch.borrow_and_update()) {
                return found;
            }
            self.is_behind();
            if watch.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }
}

/// The meta range's rows and the index they stand for, from one snapshot of this node's replica.
fn read(shared: &Shared, group: &Group) -> Result<(u64, MetaRows), Error> {
    let snapshot = shared.engine.snapshot();
    let version = group.applied_in(&*snapshot);
    let version = version.map_err(|error| Error::new(Reason::Internal, error.to_string()))?.index;
    Ok((version, read_rows(&*snapshot)?))
}

fn read_rows(snapshot: &dyn View) -> Result<MetaRows, Error> {
    let internal =
        |error: latitude_range::ApplyError| Error::new(Reason::Internal, error.to_string());
    let reader = Reader::new(RangeId::META, snapshot).map_err(internal)?;
    let everything = ScanRequest {
        span: KeySpan::all(),
        reverse: false,
        limit: usize::MAX,
        bytes_max: usize::MAX,
        keys_only: false,
    };
    let page = reader.scan(&everything).map_err(internal)?;
    let rows = page.rows.into_iter().filter_map(|row| match row.value {
        Some(Value::Register(Some(value))) => Some((row.key.to_vec(), value.to_vec())),
        _ => None,
    });
    Ok(rows.collect())
}

/// The directory of the meta range's rows. As long as the cluster is being founded they may lack
/// founders, which are known all the same: whoever writes their records must find the meta range's
/// leader.
fn assemble(
    version: u64,
    meta: RangeRecord,
    founders: &[NodeRecord],
    mut rows: MetaRows,
) -> Result<Directory, Error> {
    let holds = |rows: &MetaRows, key: &Key| rows.iter().any(|(row, _)| row == key.as_bytes());
    // Written when every founder's record is.
    if !holds(&rows, &directory_key::next(Counter::Node)) {
        for founder in founders {
            let key = directory_key::node(founder.id);
            if !holds(&rows, &key) {
                rows.push((key.as_bytes().to_vec(), founder.encode()));
            }
        }
    }
    let rows = rows.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
    Directory::from_rows(version, meta, rows)
        .map_err(|error| Error::new(Reason::Internal, error.to_string()))
}

/// Answers another node that asks for the directory.
pub(crate) async fn answer(
    shared: &Shared,
    request: &pb::DirectoryRequest,
) -> Result<pb::DirectoryReply, Error> {
    let no_replica =
        || Error::new(Reason::RangeNotHere, "this node has no replica of the meta range");
    if request.strict {
        let meta = shared.range(RangeId::META).ok_or_else(no_replica)?;
        meta.strict_read_barrier(Stamp::ZERO).await?;
    }
    let group = shared.registry.get(RangeId::META).ok_or_else(no_replica)?;
    let applied = group.applied_position().0.index;
    if applied <= request.version {
        return Ok(pb::DirectoryReply { version: applied, directory: None });
    }
    let membership = shared
        .membership()
        .ok_or_else(|| Error::new(Reason::NotInitialized, "in no cluster yet"))?;
    let (version, rows) = read(shared, &group)?;
    let rows = WireRows { meta: membership.meta.encode(), rows };
    let bytes = postcard::to_stdvec(&rows).expect("our records serialize");
    Ok(pb::DirectoryReply { version, directory: Some(bytes.into()) })
}

/// Waits, for a moment, until the catalog is not older than this call. Whether it is not.
///
/// Any replica of the meta range can tell, its own among them: each is asked a little after the one before, so that
/// one that is silent keeps from nothing.
pub(crate) async fn refresh(shared: &Shared) -> bool {
    let own = async {
        let meta = shared.range(RangeId::META)?;
        meta.strict_read_barrier(Stamp::ZERO).await.ok()?;
        Some(meta.group.applied_position().0.index)
    };
    let places = u32::from(shared.range(RangeId::META).is_some())..;
    let others = others_with_meta(shared).into_iter().zip(places).map(|(node, place)| async move {
        sleep(HEDGE_AFTER * place).await;
        let request = pb::DirectoryRequest { version: u64::MAX, strict: true };
        let mut client = shared.peers().client(node).ok()?;
        Some(client.directory(request).await.ok()?.into_inner().version)
    });
    let mut asked = FuturesUnordered::new();
    asked.push(own.boxed());
    asked.extend(others.map(FutureExt::boxed));
    let newest = async { pin!(asked.filter_map(ready)).next().await };
    let Ok(Some(version)) = timeout(REFRESH_PATIENCE, newest).await else { return false };
    let reached =
        shared.catalog.wait_for(|directory| (directory.version() >= version).then_some(()));
    timeout(REFRESH_PATIENCE, reached).await.is_ok()
}

/// The other nodes that have a replica of the meta range, as far as is known.
fn others_with_meta(shared: &Shared) -> Vec<NodeId> {
    let (own, directory) = (shared.node().ok(), shared.catalog.current());
    let replicas = directory.range(RangeId::META).into_iter().flat_map(|meta| meta.replicas());
    replicas.map(|replica| replica.node).filter(|node| Some(*node) != own).collect()
}

/// Keeps the catalog current for as long as the node runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let stop = shared.stop.clone();
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = keep_current(shared) => {}
    }
}

async fn keep_current(shared: Arc<Shared>) {
    loop {
        match shared.registry.get(RangeId::META) {
            Some(group) => follow(&shared, &group).await,
            None => tokio::select! {
                biased;
                () = own_replica(&shared) => {}
                () = ask_around(&shared) => {}
            },
        }
    }
}

/// Resolves when this node's own replica of the meta range has been opened.
async fn own_replica(shared: &Shared) {
    let mut behind = shared.catalog.behind.subscribe();
    while shared.registry.get(RangeId::META).is_none() {
        // Whoever opens it says that it knows more.
        if behind.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}

/// Follows this node's own replica of the meta range until it goes.
async fn follow(shared: &Shared, group: &Group) {
    let mut applied = pin!(group.watch_applied());
    loop {
        let read = shared.membership().map(|membership| {
            let (version, rows) = read(shared, group)?;
            assemble(version, membership.meta, &membership.founders, rows)
        });
        match read {
            Some(Ok(directory)) => shared.catalog.offer(directory),
            Some(Err(error)) => tracing::error!(%error, "the meta range cannot be read"),
            None => {}
        }
        if applied.next().await.is_none() {
            return;
        }
    }
}

/// Asks the nodes of the meta range, each by itself, for ever: one that is cut off or has not caught up keeps
/// from nobody what another one knows.
async fn ask_around(shared: &Shared) {
    let others = others_with_meta(shared).into_iter();
    join_all(others.map(|node| keep_asking(shared, node))).await;
    // There is no other one.
    pending().await
}

async fn keep_asking(shared: &Shared, node: NodeId) {
    let mut behind = shared.catalog.behind.subscribe();
    loop {
        if let Some(directory) = ask(shared, node).await {
            shared.catalog.offer(directory);
        }
        // Either the time is up or somebody found out that the catalog is old, maybe while it was asked.
        let _ = timeout(ASK_EVERY, behind.changed()).await;
    }
}

/// What a node knows that is newer than what is known here.
async fn ask(shared: &Shared, node: NodeId) -> Option<Directory> {
    let membership = shared.membership()?;
    let mut client = shared.peers().client(node).ok()?;
    let version = shared.catalog.current().version();
    let request = pb::DirectoryRequest { version, strict: false };
    let reply = timeout(ASK_TIMEOUT, client.directory(request)).await.ok()?.ok()?;
    let pb::DirectoryReply { version, directory } = reply.into_inner();
    let malformed = |error: String| Error::new(Reason::Malformed, error);
    let read = postcard::from_bytes::<WireRows>(&directory?)
        .map_err(|error| malformed(error.to_string()))
        .and_then(|WireRows { meta, rows }| {
            let meta = RangeRecord::decode(&meta).map_err(|error| malformed(error.to_string()))?;
            assemble(version, meta, &membership.founders, rows)
        });
    read.inspect_err(
        |error| tracing::warn!(peer = %node, %error, "a directory that cannot be read"),
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use latitude_directory::Address;
    use latitude_types::{Epoch, NodeId, StoreId};

    use super::*;

    fn founder(id: u32) -> NodeRecord {
        NodeRecord {
            id: NodeId(id),
            store: StoreId([id as u8; 16]),
            region: "eu".to_string(),
            zone: "a".to_string(),
            address: Address { default: format!("127.0.0.1:{id}"), from_region: Vec::new() },
        }
    }

    /// The nodes of a directory after these rows, of a cluster founded by n1 and n2.
    fn nodes(rows: &[(Key, Vec<u8>)]) -> Vec<NodeId> {
        let meta = RangeRecord {
            id: RangeId::META,
            epoch: Epoch(1),
            keyspace: KeyspaceId::META,
            span: KeySpan::all(),
            voters: Vec::new(),
            learners: Vec::new(),
            value_type: ValueType::Register,
            value_len_max: 8 << 20,
            log_only: true,
        };
        let rows =
            rows.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.clone())).collect();
        let directory = assemble(1, meta, &[founder(1), founder(2)], rows).unwrap();
        directory.nodes().map(|node| node.id).collect()
    }

    #[test]
    fn founders_are_known_before_their_records_are_written() {
        assert_eq!(nodes(&[]), [NodeId(1), NodeId(2)]);
        let first = (directory_key::node(NodeId(1)), founder(1).encode());
        assert_eq!(nodes(&[first]), [NodeId(1), NodeId(2)]);
    }

    #[test]
    fn once_a_cluster_is_founded_its_nodes_are_those_of_the_meta_range() {
        let third = (directory_key::node(NodeId(3)), founder(3).encode());
        let counter = (directory_key::next(Counter::Node), b"4".to_vec());
        assert_eq!(nodes(&[third, counter]), [NodeId(3)]);
    }
}

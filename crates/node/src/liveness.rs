//! Which other nodes are there: each is asked now and then, and its answer also tells the round trip and
//! its clock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use latitude_types::NodeId;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::shared::Shared;

/// A node is live if it answered within this many intervals.
const PATIENCE: u32 = 4;

/// Asks every node, for as long as this one runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let every = interval(&shared);
    let mut too_far = BTreeSet::new();
    loop {
        warn_of_distance(&shared, &mut too_far);
        let mut pings = JoinSet::new();
        for node in others(&shared) {
            let peers = shared.peers().clone();
            pings.spawn(async move {
                // A node that does not answer is seen by its silence.
                let _ = tokio::time::timeout(every * PATIENCE, peers.ping(node)).await;
            });
        }
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = sleep(every) => {}
        }
        pings.detach_all();
    }
}

/// Says so, once for each node, when a measured round trip is longer than Raft's timing was planned for: no
/// heartbeat to that node is answered in time, and a range that needs it for its quorum refuses writes.
///
/// The timing is a constant of the cluster, because the longest election timeout is the leader's lease, so
/// no node may change its own by what it measures.
fn warn_of_distance(shared: &Shared, too_far: &mut BTreeSet<NodeId>) {
    let most = interval(shared) / 2;
    for node in others(shared) {
        let Some(round_trip) = shared.peers().state(node).round_trip else { continue };
        if round_trip <= most {
            too_far.remove(&node);
        } else if too_far.insert(node) {
            tracing::warn!(
                peer = %node,
                ?round_trip,
                planned = ?most,
                "further away than planned: restart every node with a larger --round-trip-max"
            );
        }
    }
}

fn interval(shared: &Shared) -> Duration {
    shared.config.settings.heartbeat_interval
}

fn others(shared: &Shared) -> Vec<NodeId> {
    let own = shared.node().ok();
    shared.catalog.current().nodes().map(|node| node.id).filter(|node| Some(*node) != own).collect()
}

/// Whether a node has answered lately. A node always hears itself.
pub(crate) fn is_live(shared: &Shared, node: NodeId) -> bool {
    let patience = interval(shared) * PATIENCE;
    shared.node() == Ok(node)
        || shared.peers().state(node).heard.is_some_and(|heard| heard.elapsed() <= patience)
}

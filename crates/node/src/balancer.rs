//! Moves leaders to where they are wanted: the rule is `latitude-placement`'s, the doing is here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use latitude_placement::{RangeInfo, ReplicaInfo, rebalance_leaders};
use latitude_probe::Mark;
use latitude_types::{NodeId, RangeId};
use tokio::time::{Instant, sleep};

use crate::admin::node_info;
use crate::liveness::is_live;
use crate::range_handle::RangeHandle;
use crate::shared::Shared;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A range whose leader was moved, by us or by hand, is left alone for this many election timeouts.
const REST: u32 = 3;
/// Transfers begun at once.
const TRANSFERS_MAX: usize = 4;

/// Balances for as long as the node runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let rest = shared.config.settings.election_timeout_max * REST;
    let mut resting: BTreeMap<RangeId, Instant> = BTreeMap::new();
    let mut fenced = false;
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = sleep(LOOK_EVERY) => {}
        }
        if *shared.draining.borrow() {
            continue;
        }
        let was_fenced = std::mem::replace(&mut fenced, shared.peers().is_unsynced());
        match (was_fenced, fenced) {
            (false, true) => {
                Mark::NodeFenced.hit();
                tracing::warn!(
                    "this node's clock differs from those of most nodes: it gives up leadership"
                );
            }
            (true, false) => {
                Mark::NodeUnfenced.hit();
                tracing::info!("this node's clock is in step with those of most nodes again");
            }
            _ => {}
        }
        if fenced {
            // Its clock is the odd one out, so it must not stamp: others can lead.
            hand_over(&shared, LOOK_EVERY).await;
            continue;
        }
        resting.retain(|_, since| since.elapsed() < rest);
        balance(&shared, &mut resting).await;
    }
}

async fn balance(shared: &Shared, resting: &mut BTreeMap<RangeId, Instant>) {
    let Ok(own) = shared.node() else { return };
    let directory = shared.catalog.current();
    let handles = shared.all_ranges();
    let mut led: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut ranges = Vec::with_capacity(handles.len());
    for handle in &handles {
        let status = handle.group.status();
        let leader = status.leadership.leader.map(|replica| replica.node);
        if let Some(leader) = leader {
            *led.entry(leader).or_default() += 1;
        }
        // Only the leader knows who has caught up, and only it can hand over. But what others lead counts: without
        // it every node would think that the others lead nothing, and give them what they give back.
        if leader != Some(own) {
            let (id, replicas) = (handle.id(), Vec::new());
            ranges.push(RangeInfo { id, replicas, leader, is_joint: false, transferring_to: None });
            continue;
        }
        let replicas = handle.record.replicas().map(|replica| ReplicaInfo {
            node: replica.node,
            is_voter: status.voters.contains(&replica),
            is_caught_up: replica == handle.group.replica() || status.caught_up.contains(&replica),
        });
        ranges.push(RangeInfo {
            id: handle.id(),
            replicas: replicas.collect(),
            leader,
            is_joint: status.joint,
            transferring_to: resting.contains_key(&handle.id()).then_some(own),
        });
    }
    let nodes: Vec<_> = directory
        .nodes()
        .map(|record| {
            let mut info = node_info(record);
            info.live = can_take_over(shared, record.id);
            info.leaders = led.get(&record.id).copied().unwrap_or(0);
            info
        })
        .collect();
    let mine = |transfer: &latitude_placement::Transfer| transfer.from == own;
    for transfer in rebalance_leaders(&nodes, &ranges, TRANSFERS_MAX).into_iter().filter(mine) {
        let Some(handle) = shared.range(transfer.range) else { continue };
        resting.insert(transfer.range, Instant::now());
        if shared.leases.are_in_use() {
            Mark::TransferUnderLease.hit();
        }
        match handle.group.transfer_leader(transfer.to).await {
            Ok(()) => tracing::debug!(range = %transfer.range, to = %transfer.to, "leader moved"),
            Err(error) => tracing::debug!(range = %transfer.range, %error, "leader not moved"),
        }
    }
}

/// Whether a node answers, and would not refuse a transfer because it has just started.
fn can_take_over(shared: &Shared, node: NodeId) -> bool {
    is_live(shared, node) && !shared.leases.may_be_silent(node)
}

/// Hands every leadership to another node, as far as one can take it, before this one stops.
pub(crate) async fn hand_over(shared: &Shared, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let led: Vec<RangeHandle> = shared
            .all_ranges()
            .into_iter()
            .filter(|handle| handle.group.leadership().token.is_some())
            .collect();
        let mut waiting = false;
        for handle in led {
            let status = handle.group.status();
            let others = status.voters.iter().filter(|replica| **replica != handle.group.replica());
            let Some(to) = others.map(|replica| replica.node).find(|node| {
                can_take_over(shared, *node)
                    && status.caught_up.iter().any(|replica| replica.node == *node)
            }) else {
                // Alone, or nobody has caught up yet; the latter may change.
                waiting |= status.voters.len() > 1;
                continue;
            };
            waiting = true;
            if let Err(error) = handle.group.transfer_leader(to).await {
                tracing::debug!(range = %handle.id(), %error, "leader not handed over");
            }
        }
        if !waiting || Instant::now() >= deadline {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

//! What is not folded yet, as this node sees it, and what holds it back: for operators.

use latitude_rpc::pb::v1::{self, HeldBack};
use latitude_types::{Error, NodeId, RangeId, Timestamp};

use super::Local;
use crate::liveness::is_live;
use crate::range_handle::RangeHandle;
use crate::shared::Shared;

/// Of one origin in one range, here.
struct Unfolded {
    origin: NodeId,
    count: usize,
    first: Timestamp,
    bytes: usize,
}

/// The unfolded local writes at this node, by range and origin.
pub(crate) fn unfolded(
    shared: &Shared,
    request: &v1::ListDeltasRequest,
) -> Result<v1::ListDeltasReply, Error> {
    let node = shared.node()?;
    let directory = shared.catalog.current();
    let wanted = match request.keyspace.as_str() {
        "" => None,
        name => Some(directory.keyspace(name, None)?.id),
    };
    let name_of = |handle: &RangeHandle| {
        let mut keyspaces = directory.keyspaces();
        let found = keyspaces.find(|keyspace| keyspace.id == handle.record.keyspace);
        found.map(|keyspace| keyspace.name.clone()).unwrap_or_default()
    };
    // The hybrid clock of a node at rest stands still.
    let now_ms = Timestamp::from_unix_ms(shared.clock.hybrid().physical_us() / 1000).ms();
    let mut deltas = Vec::new();
    for handle in shared.all_ranges() {
        if wanted.is_some_and(|wanted| wanted != handle.record.keyspace) {
            continue;
        }
        let origins = handle.group.origins();
        for Unfolded { origin, count, first, bytes } in shared.local().unfolded_of(handle.id()) {
            let (held_back, by) = held_back(shared, &handle, origin, first);
            let folded = origins.borrow().iter().find(|o| o.node == origin).map(|o| o.folded);
            deltas.push(v1::UnfoldedDeltas {
                range_id: handle.id().0,
                keyspace: name_of(&handle),
                origin: origin.0,
                count: count as u64,
                bytes: bytes as u64,
                oldest_ms: now_ms.saturating_sub(first.ms()),
                folded: folded.unwrap_or_default().0,
                held_back: held_back as i32,
                held_back_by: by.into_iter().map(|node| node.0).collect(),
            });
        }
    }
    Ok(v1::ListDeltasReply { node: node.0, deltas })
}

/// Why what an origin took is not folded yet, and which nodes have to do with it.
fn held_back(
    shared: &Shared,
    handle: &RangeHandle,
    origin: NodeId,
    first: Timestamp,
) -> (HeldBack, Vec<NodeId>) {
    let leadership = handle.group.leadership();
    if leadership.token.is_some() {
        let status = handle.group.status();
        let silent = status.silent_voters();
        return match status.voters.len() - silent.len() > status.voters.len() / 2 {
            true => (HeldBack::BeingFolded, Vec::new()),
            false => (HeldBack::NoQuorum, silent),
        };
    }
    let Some(leader) = leadership.leader.map(|leader| leader.node) else {
        let voters = handle.group.voters().into_iter().map(|replica| replica.node);
        return (HeldBack::NoLeader, voters.filter(|node| !is_live(shared, *node)).collect());
    };
    if !is_live(shared, leader) {
        return (HeldBack::LeaderSilent, vec![leader]);
    }
    let holders = shared.local().holders(handle.id(), origin, first);
    match origin == leader || holders.contains(&leader) {
        true => (HeldBack::AtLeader, vec![leader]),
        false => (HeldBack::OnItsWay, vec![leader]),
    }
}

impl Local {
    fn unfolded_of(&self, range: RangeId) -> Vec<Unfolded> {
        let state = self.state();
        let Some(overlay) = state.overlays.get(&range) else { return Vec::new() };
        let of_origin = |(origin, count, first): (NodeId, usize, Timestamp)| {
            let all = overlay.of_origin(origin, Timestamp::ZERO, Timestamp(u64::MAX));
            let bytes = all.map(|delta| delta.size()).sum();
            Unfolded { origin, count, first, bytes }
        };
        overlay.origins().map(of_origin).collect()
    }
}

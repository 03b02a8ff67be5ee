//! What an operator asks about origins: who takes local writes of which range, and that a node stops or goes on.
//!
//! A seal is two entries of the log, and between them the node's own word (`local/seal.rs`). What is here proposes the
//! first and waits; the rest goes on by itself, whoever leads, also when nobody waits any more.

use std::sync::Arc;
use std::time::Duration;

use latitude_range::{Body, Origin, OriginState};
use latitude_rpc::pb::v1;
use latitude_types::{Error, NodeId, Outcome, RangeId, Reason, Timestamp};
use tokio::time::{Instant, sleep, timeout};

use crate::admin::PASSED_ON;
use crate::liveness::is_live;
use crate::proposer::not_leader;
use crate::range_handle::RangeHandle;
use crate::shared::Shared;

/// How long a command waits unless it says.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long before the deadline the answer of another node is wanted.
const ON_THE_WAY: Duration = Duration::from_millis(500);
/// How often it is looked whether this node still leads.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The origins of the ranges that have replicas here.
pub(crate) fn list(
    shared: &Shared,
    request: &v1::ListOriginsRequest,
) -> Result<v1::ListOriginsReply, Error> {
    let node = shared.node()?;
    let directory = shared.catalog.current();
    let wanted = match request.keyspace.as_str() {
        "" => None,
        name => Some(directory.keyspace(name, None)?.id),
    };
    let mut origins = Vec::new();
    for handle in shared.all_ranges() {
        if wanted.is_none_or(|wanted| wanted == handle.record.keyspace) {
            let known = Arc::clone(&handle.group.origins().borrow());
            origins.extend(known.iter().map(|origin| status(shared, &handle, origin)));
        }
    }
    Ok(v1::ListOriginsReply { node: node.0, origins })
}

fn status(shared: &Shared, handle: &RangeHandle, origin: &Origin) -> v1::OriginStatus {
    let directory = shared.catalog.current();
    let keyspace = directory.keyspaces().find(|of| of.id == handle.record.keyspace);
    // The hybrid clock of a node at rest stands still.
    let now_ms = Timestamp::from_unix_ms(shared.clock.hybrid().physical_us() / 1000).ms();
    let said = || shared.local().stopped_at(handle.id(), origin.admission());
    let state = match origin.state {
        OriginState::Active => v1::OriginState::Active,
        OriginState::Sealing => v1::OriginState::Sealing,
        OriginState::Sealed => v1::OriginState::Sealed,
        OriginState::Lost => v1::OriginState::Lost,
    };
    v1::OriginStatus {
        range_id: handle.id().0,
        keyspace: keyspace.map(|keyspace| keyspace.name.clone()).unwrap_or_default(),
        node: origin.node.0,
        state: state as i32,
        folded: origin.folded.0,
        folded_age_ms: now_ms.saturating_sub(origin.folded.ms()),
        last: origin.last.or_else(said).map(|last| last.0),
        applied_index: handle.group.applied_position().0.index,
        live: is_live(shared, origin.node),
    }
}

/// Has an origin sealed or admitted again, at the range's leader; passed on to it, once, if that is elsewhere.
pub(crate) async fn set(
    shared: &Arc<Shared>,
    request: v1::SetOriginRequest,
    passed_on: bool,
) -> Result<v1::SetOriginReply, Error> {
    shared.node()?;
    let patience = match request.timeout_ms {
        0 => PATIENCE,
        ms => Duration::from_millis(ms.into()),
    };
    let deadline = Instant::now() + patience;
    let invalid = |message: String| Error::new(Reason::ArgumentInvalid, message);
    let mut unknown = false;
    let range = RangeId(request.range_id);
    let wanted = match request.wanted() {
        v1::OriginState::Active => OriginState::Active,
        v1::OriginState::Sealed => OriginState::Sealed,
        _ => return Err(invalid("an origin can be made active or sealed".into())),
    };
    loop {
        let directory = shared.catalog.current();
        let record = directory.range(range);
        let record = record.ok_or_else(|| invalid(format!("there is no range {range}")))?;
        let handle = shared.range(range);
        let leading = handle.as_ref().filter(|h| h.group.leadership().token.is_some());
        let attempt = match leading {
            Some(handle) => lead(shared, handle, NodeId(request.node), wanted, deadline).await,
            None => {
                let leader = handle.as_ref().and_then(|handle| handle.group.leadership().leader);
                let target = leader.or(record.voters.first().copied().filter(|_| handle.is_none()));
                let target = target.map(|replica| replica.node).filter(|_| !passed_on);
                match target.filter(|target| shared.node() != Ok(*target)) {
                    Some(target) => pass_on(shared, target, request, deadline).await,
                    None => Err(not_leader(range, leader)),
                }
            }
        };
        let error = match attempt {
            Ok(origin) => return Ok(v1::SetOriginReply { origin: Some(origin) }),
            Err(error) => error,
        };
        let is_late = Instant::now() + ON_THE_WAY >= deadline;
        if is_late && error.reason == Reason::Unreachable {
            // Asking another node would take as long again.
            let message =
                format!("the leader of range {range} cannot be reached: {}", error.message);
            return Err(Error::unknown(Reason::SealPending, message));
        }
        unknown |= error.may_have_applied();
        if passed_on || is_late || !error.is_retryable() {
            return Err(may_have(unknown, error));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// At the leader: proposes what there is to propose, and waits for the rest.
async fn lead(
    shared: &Shared,
    handle: &RangeHandle,
    node: NodeId,
    wanted: OriginState,
    deadline: Instant,
) -> Result<v1::OriginStatus, Error> {
    let range = handle.id();
    let mut origins = handle.group.origins();
    let mut proposed = false;
    loop {
        let found = origins.borrow_and_update().iter().find(|origin| origin.node == node).cloned();
        let Some(origin) = found else {
            let message = format!("{node} takes no local writes of range {range}, and never did");
            return Err(Error::new(Reason::ArgumentInvalid, message));
        };
        let change = match (origin.state, wanted) {
            (state, wanted) if state == wanted => return Ok(status(shared, handle, &origin)),
            (OriginState::Active, _) => Some(Body::Seal(origin.admission())),
            (OriginState::Sealed, _) => Some(Body::AdmitAgain(origin.admission())),
            // First all that it took is folded.
            (OriginState::Sealing, _) => None,
            (OriginState::Lost, _) => {
                let message = format!("{node} is lost as an origin of range {range}");
                return Err(Error::new(Reason::ArgumentInvalid, message));
            }
        };
        if let Some(change) = change {
            let changed = handle.proposer.change_origins(change).await;
            changed.map_err(|error| may_have(proposed, error))?;
            proposed = true;
        }
        let leadership = handle.group.leadership();
        if leadership.token.is_none() {
            return Err(may_have(proposed, not_leader(range, leadership.leader)));
        }
        if Instant::now() >= deadline {
            return Err(pending(shared, handle, &origin));
        }
        drop(timeout(LOOK_EVERY, origins.changed()).await);
    }
}

/// The error of a command of which something may have happened before.
fn may_have(happened: bool, error: Error) -> Error {
    if happened { Error { outcome: Outcome::Unknown, ..error } } else { error }
}

/// The error of a command that waited in vain, naming for whom.
fn pending(shared: &Shared, handle: &RangeHandle, origin: &Origin) -> Error {
    let (node, range) = (origin.node, handle.id());
    let why = match shared.local().stopped_at(range, origin.admission()) {
        Some(at) => format!("what it took up to {at} is not in the log yet"),
        None if is_live(shared, node) => "it has not said that it has stopped".into(),
        None => "it is not heard from".into(),
    };
    let message = format!(
        "{node} is not sealed in range {range} yet: {why}. The seal goes on by itself; `latitude admin origins` shows it"
    );
    Error::unknown(Reason::SealPending, message)
}

async fn pass_on(
    shared: &Shared,
    target: NodeId,
    request: v1::SetOriginRequest,
    deadline: Instant,
) -> Result<v1::OriginStatus, Error> {
    let left = deadline.saturating_duration_since(Instant::now() + ON_THE_WAY);
    let unreachable = |message: String| Error::unknown(Reason::Unreachable, message);
    let address = shared.peers().address_of(target).unwrap_or_default();
    let channel = shared.peers().channel(&address).map_err(|error| unreachable(error.0))?;
    let mut admin = v1::admin_client::AdminClient::new(channel);
    let timeout_ms = left.as_millis().clamp(1, u128::from(u32::MAX)) as u32;
    let mut request = tonic::Request::new(v1::SetOriginRequest { timeout_ms, ..request });
    let flag = tonic::metadata::MetadataValue::from_static("1");
    request.metadata_mut().insert(PASSED_ON, flag);
    // It may fall silent while it waits.
    let reply = timeout(left + ON_THE_WAY, admin.set_origin(request)).await;
    let reply = reply.map_err(|_| unreachable(format!("{target} has not answered")))?;
    let reply = reply.map_err(|status| latitude_rpc::error_from_status(&status))?;
    let origin = reply.into_inner().origin;
    origin.ok_or_else(|| Error::new(Reason::Internal, "an answer without an origin"))
}

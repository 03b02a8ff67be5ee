//! Serving a request from a replica of this node: by its log, by a read index, or by a closed time.
//!
//! ```text
//!   ThroughLog ─▶ proposer ─▶ committed, applied ─┐
//!   ReadIndex ──▶ quorum ───▶ one snapshot ───────┼─▶ result, receipt, the session's new token
//!   ClosedTime ─▶ closed ≥ s? one snapshot ───────┤
//!   LocalWrite ─▶ past met? delta, synced here ───┤
//!   Causal-, EventualRead ─▶ base and overlay ────┘
//! ```

mod causal;
mod durable;
mod fold;
mod fresh;
mod local;
mod read;
mod sequential;
mod write;

use std::sync::Arc;
use std::time::Duration;

use latitude_consistency::{Route, Token};
use latitude_rpc::ToWire;
use latitude_rpc::pb::v1;
use latitude_types::{Error, Outcome, Past, Reason};
use tokio::time::Instant;

use crate::liveness::is_live;
use crate::proposer::not_leader;
use crate::range_handle::RangeHandle;
use crate::request::Request;
use crate::shared::Shared;

/// How long a replica waits for what may come soon, on top of round trips.
const BRIEFLY: Duration = Duration::from_millis(400);

/// An answer, before it becomes a message.
pub(crate) struct Answer {
    result: v1::reply::Result,
    receipt: v1::Receipt,
    session: Option<Token>,
}

/// A request being served here.
struct Serving<'a> {
    shared: &'a Arc<Shared>,
    handle: &'a RangeHandle,
    request: &'a Request,
    started: Instant,
}

/// Serves a request from this node's replica.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    handle: &RangeHandle,
    request: &Request,
    started: Instant,
) -> Result<Answer, Error> {
    if let Some((range, epoch)) = request.routed_by
        && (range != handle.id() || epoch != handle.record.epoch)
    {
        let message = format!("the key is in range {} now: learn the ranges again", handle.id());
        return Err(Error::new(Reason::RangeMoved, message));
    }
    let serving = Serving { shared, handle, request, started };
    let served = match request.plan.route {
        Route::ThroughLog => serving.write().await,
        Route::ReadIndex => serving.strict_read().await,
        Route::ClosedTime => serving.sequential_read().await,
        Route::LocalWrite => serving.local_write().await,
        Route::CausalRead => serving.causal_read().await,
        Route::EventualRead => serving.eventual_read().await,
    };
    let mut answer = served.map_err(|error| explained(shared, handle, error))?;
    if let Some(session) = &mut answer.session {
        let here = shared.local();
        let replicas = here.applied_by_all();
        session.forget_stable(&here.all_stable(), |range, epoch, stamp| {
            replicas.have(range, epoch, stamp)
        });
    }
    Ok(answer)
}

impl Serving<'_> {
    /// The session that the answer continues, if anybody will look at it.
    fn session(&self) -> Option<Token> {
        let wanted =
            self.request.session.is_some() || self.request.receipt != v1::ReceiptDetail::None;
        let membership = self.shared.membership().filter(|_| wanted)?;
        Some(self.request.session.clone().unwrap_or_else(|| Token::new(membership.cluster)))
    }

    /// What a write of the session follows, without what need not be said.
    fn past(&self) -> Past {
        let Some(session) = &self.request.session else { return Past::default() };
        let mut past = session.past().clone();
        let here = self.shared.local();
        let replicas = here.applied_by_all();
        past.forget_stable(&here.all_stable(), |range, epoch, stamp| {
            replicas.have(range, epoch, stamp)
        });
        past
    }

    /// The instant at which waiting makes no more sense: a round trip before the deadline, so that the
    /// error that says why is there in time.
    fn give_up_at(&self) -> Instant {
        let whole = self.request.deadline.saturating_duration_since(self.started);
        let round_trip = self.shared.peers().round_trip_max().max(Duration::from_millis(5));
        self.request.deadline - round_trip.min(whole / 4)
    }

    /// The instant up to which a replica waits for what may come soon, before it says that it is not there: whoever
    /// asked may ask again, here or elsewhere.
    fn soon(&self) -> Instant {
        let round_trips = 4 * self.shared.peers().round_trip_max();
        self.give_up_at().min(Instant::now() + round_trips + BRIEFLY)
    }

    /// The part of the receipt that every answer has.
    fn receipt(&self) -> v1::Receipt {
        let Self { shared, handle, request, .. } = self;
        if request.receipt == v1::ReceiptDetail::None {
            return v1::Receipt::default();
        }
        let mut receipt = v1::Receipt {
            level_asked: request.level_asked.to_wire(),
            level_given: request.plan.level.to_wire(),
            node: shared.node().map_or(0, |node| node.0),
            region: shared.config.region.clone(),
            range_id: handle.id().0,
            range_epoch: handle.record.epoch.0,
            keyspace_id: handle.record.keyspace.0,
            fallback_reason: request.fallback.map_or_else(String::new, |why| why.name().into()),
            ..v1::Receipt::default()
        };
        receipt.set_role(handle.role());
        receipt
    }

    fn is_full(&self) -> bool {
        self.request.receipt == v1::ReceiptDetail::Full
    }

    /// The error of a request that waited in vain, naming who is silent.
    fn late(&self) -> Error {
        let handle = self.handle;
        let status = handle.group.status();
        let needed = status.voters.len() / 2 + 1;
        let silent = status.silent_voters();
        let error = if status.leadership.token.is_none() {
            not_leader(handle.id(), status.leadership.leader)
        } else if status.voters.len() - silent.len() < needed {
            handle.no_quorum(silent)
        } else {
            let message = "the deadline passed before the range had answered";
            Error::new(Reason::DeadlineExceeded, message)
        };
        // A write handed to the proposer may be in the log.
        let is_write = self.request.operation.is_write();
        let outcome = if is_write { Outcome::Unknown } else { Outcome::NotApplied };
        Error { outcome, ..error }
    }
}

/// Names the missing quorum in the error of a replica that knows no leader, or only one that is silent, when
/// too few of the range's nodes are heard from: in a minority no other answer will come.
fn explained(shared: &Shared, handle: &RangeHandle, error: Error) -> Error {
    let leader_is_heard = error.leader.as_ref().is_some_and(|hint| is_live(shared, hint.node));
    if leader_is_heard || !matches!(error.reason, Reason::NotLeader | Reason::NoLeader) {
        return error;
    }
    let voters = handle.group.voters();
    let silent: Vec<_> =
        voters.iter().map(|replica| replica.node).filter(|node| !is_live(shared, *node)).collect();
    if voters.len() - silent.len() > voters.len() / 2 {
        return error;
    }
    Error { outcome: error.outcome, ..handle.no_quorum(silent) }
}

/// A fault of the store, or of ours.
fn internal(error: latitude_range::ApplyError) -> Error {
    Error::new(Reason::Internal, error.to_string())
}

impl Answer {
    pub(crate) fn into_reply(self) -> v1::Reply {
        let receipt = (self.receipt != v1::Receipt::default()).then_some(self.receipt);
        // The token's clock covers its parts, and no more: were it this node's, a node whose clock is wrong
        // would spoil every session that it only lets read.
        let token = self.session.map(|session| session.encode()).unwrap_or_default().into();
        v1::Reply { result: Some(self.result), receipt, token, ..v1::Reply::default() }
    }
}

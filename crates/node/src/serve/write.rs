//! Log writes: proposed to the range's log, answered once committed and applied.

use std::time::Duration;

use latitude_probe::Plant;
use latitude_range::{Done, Op, Operation as LogOperation, Reader, ValueType};
use latitude_rpc::ToWire;
use latitude_rpc::pb::v1;
use latitude_types::{Error, Key, OperationKind, Past, Positions, Reason, Timestamp};
use tokio::time::timeout_at;

use super::local::may_write;
use super::read::capped_to_wire;
use super::{Answer, Serving, internal};
use crate::proposer::Written;
use crate::range_handle::RangeHandle;
use crate::request::WriteId;
use crate::shared::OwnId;

/// Answers kept for one client at most: they are written with every entry the client is in.
const UNANSWERED_MAX: u64 = 1 << 16;

impl Serving<'_> {
    pub(super) async fn write(&self) -> Result<Answer, Error> {
        let Self { shared, handle, request, .. } = *self;
        may_write(shared)?;
        self.check_ack_replicas()?;
        let own_id = match request.id {
            Some(_) => None,
            None => Some(OwnId::make(shared, OperationKind::Log).await?),
        };
        let WriteId { id, answered_below } = match (&own_id, request.id) {
            (Some(own), _) => own.id,
            (None, Some(id)) => id,
            (None, None) => return Err(Error::new(Reason::Internal, "a write without an id")),
        };
        if id.sequence - answered_below > UNANSWERED_MAX {
            return Err(Error::new(
            Reason::TooManyRequests,
            format!(
                "the client has more than {UNANSWERED_MAX} writes whose answers are kept: raise answered_below as \
                 answers arrive"
            ),
        )
        .retry_after(Duration::from_millis(100)));
        }
        let Some((key, op, context)) = request.operation.as_write() else {
            return Err(Error::new(Reason::Internal, "a read was planned as a write"));
        };
        // What a context names was born before it was read.
        let births = context.iter().map(|named| named.birth);
        shared.clock.admit(births.fold(id.birth, Timestamp::max)).await?;
        let mut need =
            request.session.as_ref().map_or_else(Positions::default, |s| s.own().clone());
        if let Some(session) =
            request.session.as_ref().filter(|_| ends_what_it_saw(handle.record.value_type, op))
        {
            need.join(&shared.local().all_it_may_have_seen(&session.past().seen));
        }
        let past = if Plant::LogPastDropped.is_on() { Past::default() } else { self.past() };
        let operation = LogOperation {
            id,
            answered_below,
            level: request.plan.level,
            key: key.clone(),
            op: op.clone(),
            named: context.to_vec(),
            need: need.clone(),
            past,
            extensions: Vec::new(),
        };
        self.have_fold_proposed(&need).await?;
        let Written { reply, at, stamp } =
            match timeout_at(self.give_up_at(), handle.proposer.propose(operation)).await {
                Ok(written) => written.map_err(|error| with_silent(handle, error))?,
                Err(_) => return Err(self.late()),
            };
        let done = reply.result.map_err(latitude_range::Refusal::into_error)?;
        let result = result_of(op, &done);
        // Of a later copy it is not known any more; what is there now follows it, unless it was overwritten.
        let follows = match reply.duplicate && op.tells_what_it_found() {
            true => self.row_past(key)?,
            false => reply.follows,
        };
        let durable_on = self.on_enough_disks(|| handle.group.durable_on(at)).await?;
        let mut receipt = self.receipt();
        receipt.version = version_of(&done);
        if self.is_full() {
            receipt.log = Some(v1::LogPosition { term: at.term, index: at.index });
            receipt.as_of = stamp.time.0;
            receipt.set_proof(v1::Proof::Committed);
            receipt.set_duplicate(if reply.duplicate {
                v1::Duplicate::Yes
            } else {
                v1::Duplicate::No
            });
            receipt.retry_safe = request.id.is_some();
            receipt.durable_on = durable_on.into_iter().map(|node| node.0).collect();
            receipt.covers_session = true;
            receipt.capped = capped_to_wire(&handle.group.origins().borrow(), &need);
            receipt.server_us = self.started.elapsed().as_micros() as u64;
        }
        // Who is told of what was found has read it, at the entry's place.
        let session = self.session().map(|mut session| {
            session.meet_entry(handle.id(), handle.record.epoch, stamp);
            session.meet_past(&follows);
            session
        });
        Ok(Answer { result, receipt, session })
    }

    /// What the key's row follows now.
    fn row_past(&self, key: &Key) -> Result<Past, Error> {
        let snapshot = self.shared.engine.snapshot();
        let reader = Reader::new(self.handle.id(), &*snapshot).map_err(internal)?;
        let mut past = reader.meta().gc_past.clone();
        reader.get(key).map_err(internal)?.iter().for_each(|row| past.join(&row.past));
        Ok(past)
    }
}

/// Whether an operation ends what its session saw. In the log it does not name it, so all of that must be folded ahead of
/// it (pitfall B9); a local one names what is here.
pub(super) fn ends_what_it_saw(value_type: ValueType, op: &Op) -> bool {
    // A register's delete wins by its stamp, whatever is folded when.
    value_type != ValueType::Register
        && matches!(
            op,
            Op::Delete | Op::Reset | Op::SetRemove { .. } | Op::MapRemove { .. } | Op::Disable
        )
}

/// The version written, or the one found instead.
fn version_of(done: &Done) -> Option<v1::Version> {
    match done {
        Done::Written { version } | Done::Added { version, .. } => Some(version.to_wire()),
        Done::Mismatch { found } => found.as_ref().map(ToWire::to_wire),
        Done::OutOfBounds { .. } => None,
    }
}

/// What a client of the operation is told.
pub(super) fn result_of(op: &Op, done: &Done) -> v1::reply::Result {
    use v1::reply::Result;
    let version = version_of(done);
    match op {
        Op::CompareAndSet { .. } => {
            let applied = matches!(done, Done::Written { .. });
            Result::CompareAndSet(v1::CompareAndSetResult { applied, version })
        }
        Op::Add { .. } | Op::AddWithin { .. } => {
            let (applied, sum) = match done {
                Done::OutOfBounds { found } => (false, Some(*found)),
                Done::Added { sum, .. } => (true, Some(*sum)),
                // A local one: its sum is not known.
                Done::Written { .. } | Done::Mismatch { .. } => (true, None),
            };
            Result::CounterAdd(v1::CounterAddResult { applied, version, sum })
        }
        _ => Result::Write(v1::WriteResult { version }),
    }
}

/// Adds who is silent to an error for want of a quorum.
fn with_silent(handle: &RangeHandle, error: Error) -> Error {
    if error.reason != Reason::NoQuorum {
        return error;
    }
    Error { outcome: error.outcome, ..handle.no_quorum(handle.group.status().silent_voters()) }
}

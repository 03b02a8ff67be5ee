//! Local writes: taken by this node as an origin of the range, durable here before they are acknowledged, and
//! folded into the log later.

use std::sync::Arc;

use latitude_probe::{Mark, Plant};
use latitude_range::{Done, Op, Origin, OriginState, Reader, ValueType};
use latitude_rpc::ToWire;
use latitude_rpc::pb::v1;
use latitude_types::{Error, KeySpan, Level, OperationKind, Past, Reason, Timestamp, WriteTime};

use super::write::{ends_what_it_saw, result_of};
use super::{Answer, Serving, internal};
use crate::local::Draft;
use crate::shared::{OwnId, Shared};

/// The most a local write may name of what it ends. It must fit into a message: an id has about thirty bytes.
const NAMED_MAX: usize = 100_000;

impl Serving<'_> {
    pub(super) async fn local_write(&self) -> Result<Answer, Error> {
        let Self { shared, handle, request, .. } = *self;
        let Some((key, op, context)) = request.operation.as_write() else {
            return Err(Error::new(Reason::Internal, "a read was planned as a write"));
        };
        may_write(shared)?;
        self.check_ack_replicas()?;
        let own_id = match request.id {
            Some(_) => None,
            None => Some(OwnId::make(shared, OperationKind::Local).await?),
        };
        let id = match (&own_id, &request.id) {
            (Some(own), _) => own.id.id,
            (None, Some(id)) => id.id,
            (None, None) => return Err(Error::new(Reason::Internal, "a write without an id")),
        };
        let origin = self.own_origin().await?;
        // A position is above the birth and above the admission: whoever gives it has merged both.
        // What a context names was born before it was read.
        let births = context.iter().map(|named| named.birth);
        shared.clock.admit(births.fold(id.birth, Timestamp::max)).await?;
        shared.clock.merge(origin.admitted.time).await?;
        let is_causal = request.plan.level == Level::Causal;
        if is_causal {
            // What it is to follow must be here, or whoever reads it here would wait (pitfall B12).
            self.causes_met().await?;
        } else if self.ends_what_is_here(op, !context.is_empty())? {
            // It follows nothing, but what its own session has done before, it is to end (consistency.md 1.2, rule 4).
            self.own_writes_met().await?;
        }
        let covers_session = is_causal || self.is_full() && self.is_met_here();
        let span = KeySpan::of_key(key);
        // It ends what a read of its level shows here.
        let shown = match is_causal {
            true => shared.local().causal_look(handle.id(), &span),
            false => shared.local().eventual_look(handle.id(), &span),
        };
        // Before the look at the base: what is not here any more then is there.
        let in_overlay = shared.local().holds(handle.id(), &id);
        let snapshot = shared.engine.snapshot();
        let reader = Reader::new(handle.id(), &*snapshot).map_err(internal)?;
        let (epoch, value_type) = (reader.meta().epoch, reader.meta().value_type);
        if !reader.meta().span.contains(key.as_bytes()) {
            return Err(latitude_range::Refusal::Moved.into_error());
        }
        let base = reader.meta().last_stamp;
        let in_base = reader.knows(key, &id).map_err(internal)?;
        let reader = reader.with_deltas(shown);
        let seen = reader.get(key).map_err(internal)?;
        // What a put of siblings takes the place of is what its client has read; anything else ends what is seen here.
        let outweighed_by = match value_type {
            ValueType::Register => seen.as_ref().and_then(|row| row.state().version),
            _ => None,
        };
        let seen = seen.map(|row| row.state()).unwrap_or_default();
        let named = match value_type {
            ValueType::Siblings if !context.is_empty() => context.to_vec(),
            _ => seen.named_by(&id, op),
        };
        // A copy of what was taken is answered like the first.
        let is_known = in_base || in_overlay;
        if !is_known && named.len() > NAMED_MAX {
            let message = format!(
                "it would end {} copies of what is in the key, one by one, and a local write can name {NAMED_MAX}: ask for \
                 it at level strict, where it need not name them",
                named.len()
            );
            return Err(Error::new(Reason::ValueTooLarge, message));
        }
        if !is_known && !seen.has_room_for(value_type, op, &named) {
            return Err(latitude_range::Refusal::Full.into_error());
        }
        let draft = Draft {
            range: handle.id(),
            admitted: origin.admitted,
            keyspace: handle.record.keyspace,
            key: key.clone(),
            op: op.clone(),
            id,
            level: request.plan.level,
            named,
            past: if is_causal { self.past() } else { Past::default() },
        };
        if id.expires_at() < shared.clock.hybrid().peek() {
            return Err(latitude_range::Refusal::IdExpired.into_error());
        }
        let taken = match in_base {
            // Folded already: whoever has the base has it.
            true => None,
            false => Some(shared.local().write(draft).await?),
        };
        let durable_on = match taken {
            Some(taken) => {
                let (node, position) = taken.delta;
                let holders = || shared.local().holders(handle.id(), node, position);
                self.on_enough_disks(holders).await?
            }
            // Whoever has applied as much of the log as is here has it.
            None => self.on_enough_disks(|| shared.local().have_applied(handle.id(), base)).await?,
        };
        let version = WriteTime::of_local_write(&id);
        let mut receipt = self.receipt();
        receipt.version = Some(version.to_wire());
        if self.is_full() {
            let duplicate = taken.is_none_or(|taken| taken.duplicate);
            receipt.set_proof(v1::Proof::Durable);
            receipt.superseded = outweighed_by.is_some_and(|other| other > version);
            receipt.set_duplicate(match duplicate {
                true => v1::Duplicate::Yes,
                // Of a register's writes the base knows the winning one.
                false if receipt.superseded => v1::Duplicate::Unknown,
                false => v1::Duplicate::No,
            });
            receipt.retry_safe = request.id.is_some();
            receipt.durable_on = durable_on.into_iter().map(|node| node.0).collect();
            receipt.covers_session = covers_session;
            receipt.server_us = self.started.elapsed().as_micros() as u64;
            receipt.as_of = taken.map_or(base.time, |taken| taken.delta.1).0;
        }
        let session = self.session().map(|mut session| {
            match taken {
                Some(taken) => {
                    let (origin_node, position) = taken.delta;
                    session.meet_own_write(origin_node, position);
                    // Whoever has applied this knows that there is such an origin.
                    session.meet_entry(handle.id(), epoch, taken.admitted);
                }
                None => session.meet_entry(handle.id(), epoch, base),
            }
            session
        });
        let result = result_of(op, &Done::Written { version });
        Ok(Answer { result, receipt, session })
    }

    /// Whether the write ends what is seen here. One of siblings with a context ends what its client has read.
    fn ends_what_is_here(&self, op: &Op, has_context: bool) -> Result<bool, Error> {
        let reader = Reader::new(self.handle.id(), &*self.shared.engine).map_err(internal)?;
        let value_type = reader.meta().value_type;
        let names_itself = value_type == ValueType::Siblings && has_context;
        Ok(!names_itself && ends_what_it_saw(value_type, op))
    }

    /// This node as an origin of the range. A replica is admitted soon after it came.
    async fn own_origin(&self) -> Result<Origin, Error> {
        let node = self.shared.node()?;
        let mut origins = self.handle.group.origins();
        let patience = self.give_up_at();
        loop {
            let found =
                origins.borrow_and_update().iter().find(|origin| origin.node == node).cloned();
            match found {
                Some(origin)
                    if origin.state == OriginState::Active || Plant::SealIgnored.is_on() =>
                {
                    // Whoever gives positions must know as much.
                    self.know_origins(self.handle);
                    return Ok(origin);
                }
                Some(origin) => {
                    Mark::SealedOriginRefuses.hit();
                    let state = format!("{:?}", origin.state).to_lowercase();
                    return Err(no_origin(&format!(
                        "{node} is {state} in range {} (`latitude admin origins`); write at another replica, or at \
                         level strict",
                        self.handle.id()
                    )));
                }
                None => {}
            }
            match tokio::time::timeout_at(patience, origins.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(no_origin("it has just left this node")),
                Err(_) => return Err(no_origin("the range's leader has not admitted it yet")),
            }
        }
    }
}

fn no_origin(why: &str) -> Error {
    Error::new(Reason::NotOrigin, format!("this replica takes no local writes: {why}"))
}

/// Whether the node takes writes at all.
pub(super) fn may_write(shared: &Arc<Shared>) -> Result<(), Error> {
    if *shared.disk_full.borrow() {
        Mark::DiskFull.hit();
        return Err(Error::new(
            Reason::DiskFull,
            "the node's disk has less free space than its floor: writes are refused until there is room, reads go on",
        )
        .retry_after(std::time::Duration::from_secs(1)));
    }
    if shared.peers().is_unsynced() {
        Mark::FencedWriteRefused.hit();
        return Err(Error::new(
            Reason::ClockUnsynced,
            "the node's clock differs from those of most nodes",
        ));
    }
    Ok(())
}

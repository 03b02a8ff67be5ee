//! Reading the base of a range from one snapshot: what every level that reads base has in common, and
//! strict reads.

use bytes::Bytes;
use latitude_consistency::{Token, answers_strict_reads};
use latitude_range::{ApplyError, Origin, Reader, ScanRequest, Unfolded, ValueRow, capped};
use latitude_rpc::pb::v1;
use latitude_types::{Epoch, Error, Past, Positions, RangeId, Reason, Stamp, Timestamp};
use tokio::time::timeout_at;

use super::{Answer, Serving, internal};
use crate::request::{Operation, Scan};
use crate::typed;

/// What proves an answer, and how fresh it is known to be.
pub(super) struct Proven {
    pub(super) proof: v1::Proof,
    pub(super) staleness_ms: Option<u64>,
    /// Up to when the replica knows everything, where that is what proves it.
    pub(super) closed: Option<Timestamp>,
    pub(super) standing: Standing,
    /// Whether all the session follows was here before the read looked.
    pub(super) covers_session: bool,
    /// For a causal scan: how far the streams of the range's origins were shown before it looked.
    pub(super) shown_to: Positions,
}

impl Proven {
    /// By the log alone, which has all that the session follows of it.
    pub(super) fn in_log(proof: v1::Proof) -> Self {
        Self {
            proof,
            staleness_ms: None,
            closed: None,
            standing: Standing::InLog,
            covers_session: true,
            shown_to: Positions::default(),
        }
    }
}

/// What a read does to its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// The session has met what was read, and stands where the snapshot does.
    InLog,
    /// The session has met what was read.
    Causal,
    /// The session has met nothing but a clock.
    Eventual,
}

impl Serving<'_> {
    /// A linearizable read: after it arrived a quorum confirms, or the lease shows, that nobody else leads.
    pub(super) async fn strict_read(&self) -> Result<Answer, Error> {
        let stands = self.request.session.as_ref().map_or(Stamp::ZERO, Token::stood);
        let barrier = self.handle.strict_read_barrier(stands);
        let proof = match timeout_at(self.give_up_at(), barrier).await {
            Ok(proof) => proof?,
            Err(_) => return Err(self.late()),
        };
        // What is applied while own local writes are folded does no harm: the quorum's word stays true.
        if let Some(own) = self.request.session.as_ref().map(Token::own) {
            self.have_folded(own).await?;
        }
        let snapshot = self.shared.engine.snapshot();
        let reader = Reader::new(self.handle.id(), &*snapshot).map_err(internal)?;
        if !answers_strict_reads(reader.meta().freeze) {
            return Err(self.handle.frozen());
        }
        self.read_from(&reader, Proven { staleness_ms: Some(0), ..Proven::in_log(proof) })
    }

    /// The answer of a snapshot. The session then stands where the snapshot does, if it did not stand above.
    pub(super) fn read_from(&self, reader: &Reader<'_>, proven: Proven) -> Result<Answer, Error> {
        let mut session = self.session();
        let mut receipt = self.receipt();
        let (range, meta) = (self.handle.id(), reader.meta());
        let mut met = Met { range, epoch: meta.epoch, stamps: Stamp::ZERO, past: Past::default() };
        // What is not there follows the deletions that have been forgotten (pitfalls 16a, B14); and so does what is
        // there, if it was written after one of them.
        met.dropped(meta.gc_stamp, &meta.gc_past);
        let (result, unfolded) = match &self.request.operation {
            Operation::Get { key } => {
                if !meta.span.contains(key.as_bytes()) {
                    return Err(latitude_range::Refusal::Moved.into_error());
                }
                let row = reader.get(key).map_err(internal)?;
                row.iter().for_each(|row| met.row(row));
                let state = row.as_ref().map(ValueRow::state).unwrap_or_default();
                let result = typed::get_result(state.value(meta.value_type), state.version);
                receipt.version.clone_from(&result.version);
                (v1::reply::Result::Get(result), reader.unfolded())
            }
            Operation::Scan(scan) => {
                let (page, unfolded) = read_scan(reader, scan, &mut met).map_err(internal)?;
                // Of what other ranges hold of what these rows follow nothing is known here.
                // And of what this one holds what was shown when it was read counts, not what is by now.
                let was_shown = |origin: &Origin| {
                    let shown = proven.shown_to.of(origin.node).max(origin.folded);
                    origin.capped(met.past.seen.of(origin.node)) <= shown
                };
                receipt.not_closed = proven.standing == Standing::Causal
                    && (page.resume.is_some() || !meta.origins.iter().all(was_shown));
                (v1::reply::Result::Scan(page), unfolded)
            }
            Operation::Write { .. } => {
                return Err(Error::new(Reason::Internal, "a write was planned as a read"));
            }
        };
        let stood = self.request.session.as_ref().map_or(Stamp::ZERO, Token::stood);
        let stands_at = stood.max(meta.last_stamp);
        if let Some(session) = &mut session {
            match proven.standing {
                Standing::InLog => {
                    met.tell(session);
                    session.stand_at(stands_at);
                }
                Standing::Causal => met.tell(session),
                Standing::Eventual => session.meet_clock(met.clock()),
            }
        }
        if self.is_full() {
            let at = self.handle.group.applied_in(reader.view()).map_err(|error| {
                Error::new(Reason::Internal, format!("what is applied cannot be read: {error}"))
            })?;
            receipt.log = Some(v1::LogPosition { term: at.term, index: at.index });
            let as_of =
                if proven.standing == Standing::InLog { stands_at } else { meta.last_stamp };
            receipt.as_of = as_of.time.0;
            receipt.closed = proven.closed.map_or(0, |closed| closed.0);
            receipt.set_proof(proven.proof);
            receipt.staleness_ms = proven.staleness_ms;
            receipt.covers_session = proven.covers_session;
            receipt.unfolded = unfolded_to_wire(unfolded);
            let waited_for = self.request.session.as_ref().and_then(|s| match proven.standing {
                Standing::InLog => Some(s.own()),
                Standing::Causal => Some(&s.past().seen),
                Standing::Eventual => None,
            });
            receipt.capped = waited_for.map_or_else(Vec::new, |p| capped_to_wire(&meta.origins, p));
            receipt.server_us = self.started.elapsed().as_micros() as u64;
        }
        Ok(Answer { result, receipt, session })
    }
}

/// What a read has met: it goes into the session's past.
pub(super) struct Met {
    range: RangeId,
    epoch: Epoch,
    stamps: Stamp,
    past: Past,
}

impl Met {
    fn row(&mut self, row: &ValueRow) {
        self.stamps = self.stamps.max(row.stamp);
        self.past.join(&row.past);
    }

    fn dropped(&mut self, stamp: Stamp, past: &Past) {
        self.stamps = self.stamps.max(stamp);
        self.past.join(past);
    }

    /// Above all of it.
    fn clock(&self) -> Timestamp {
        self.stamps.time.max(self.past.seen.highest()).max(self.past.log_highest().time)
    }

    fn tell(mut self, session: &mut Token) {
        self.past.add_log(self.range, self.epoch, self.stamps);
        session.meet_past(&self.past);
    }
}

/// The deltas that were merged into what was read, by origin.
fn unfolded_to_wire(unfolded: Unfolded) -> Vec<v1::Unfolded> {
    unfolded
        .into_iter()
        .map(|(origin, (count, highest))| v1::Unfolded {
            node: origin.0,
            count: count as u64,
            highest: highest.0,
        })
        .collect()
}

/// The origins of which less than these positions was waited for.
pub(super) fn capped_to_wire(origins: &[Origin], positions: &Positions) -> Vec<v1::Capped> {
    capped(origins, positions)
        .map(|(node, last)| v1::Capped { node: node.0, last: last.0 })
        .collect()
}

/// A scan's part in one range, and where it goes on.
fn read_scan(
    reader: &Reader<'_>,
    scan: &Scan,
    met: &mut Met,
) -> Result<(v1::ScanResult, Unfolded), ApplyError> {
    let page = reader.scan(&ScanRequest {
        span: scan.span.clone(),
        reverse: scan.reverse,
        limit: scan.limit,
        bytes_max: scan.bytes_max,
        keys_only: scan.keys_only,
    })?;
    met.past.join(&page.past);
    met.stamps = met.stamps.max(page.stamp);
    let range = &reader.meta().span;
    let resume = if page.more {
        page.reached.map(|key| {
            if scan.reverse {
                Bytes::copy_from_slice(key.as_bytes())
            } else {
                // The least key above the last one looked at.
                [key.as_bytes(), &[0]].concat().into()
            }
        })
    } else if scan.reverse {
        // The range ends here; does the span go on below it?
        (range.start() > scan.span.start()).then(|| Bytes::copy_from_slice(range.start()))
    } else {
        let goes_on = range.end().filter(|end| scan.span.end().is_none_or(|wanted| *end < wanted));
        goes_on.map(Bytes::copy_from_slice)
    };
    let rows = page.rows.into_iter().map(|row| typed::row(row.key, row.value, row.version));
    Ok((v1::ScanResult { rows: rows.collect(), resume }, page.unfolded))
}

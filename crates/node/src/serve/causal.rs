//! Reads at level causal and eventual: from base and overlay of this replica.
//!
//! ```text
//!   what may be shown (V) ─▶ one snapshot of the base ─▶ session's past met? ─ yes ─▶ base + overlay, merged
//!          ▲                                                  │ no
//!          └── origins nudged, times closed, or time passes ◀─┘
//! ```
//!
//! An eventual read asks nothing: it gets what is durable here.

use std::sync::Arc;
use std::time::Duration;

use latitude_consistency::{Token, demand};
use latitude_probe::{Mark, Plant};
use latitude_range::Reader;
use latitude_rpc::pb::v1;
use latitude_types::{Error, KeySpan, NodeId, Past, Positions, Reason};
use tokio::time::{Instant, timeout_at};

use super::read::{Proven, Standing};
use super::{Answer, Serving, internal};
use crate::local::{behind_told, has_logs, unmet_logs};
use crate::range_handle::RangeHandle;
use crate::request::Operation;

/// A read whose session is met by what this replica holds and shows.
fn by_watermarks() -> Proven {
    Proven::in_log(v1::Proof::Watermarks)
}

/// What of a session's past is not here.
enum Unmet {
    /// Local writes of this node.
    Stream(NodeId),
    /// Entries of these ranges, or that there are none.
    Logs(Vec<RangeHandle>),
}

impl Serving<'_> {
    pub(super) async fn eventual_read(&self) -> Result<Answer, Error> {
        let age = self.fresh_enough(false).await?;
        let span = self.wanted_span();
        // Before the look: what arrives after it is not in the answer.
        let covers_session = self.is_full() && self.is_met_here();
        let shown = self.shared.local().eventual_look(self.handle.id(), &span);
        let standing = Standing::Eventual;
        self.answer_with(shown, age, Proven { standing, covers_session, ..by_watermarks() })
    }

    pub(super) async fn causal_read(&self) -> Result<Answer, Error> {
        self.handle.closing.note_read();
        let session = self.request.session.as_ref();
        self.wait_until_met(|| self.unmet_in_range(session)).await?;
        let age = self.fresh_enough(true).await?;
        let span = self.wanted_span();
        let here = self.shared.local();
        let shown_to = match self.request.operation {
            Operation::Scan(_) => here.readable(self.handle.id()),
            _ => Positions::default(),
        };
        let shown = here.causal_look(self.handle.id(), &span);
        let standing = Standing::Causal;
        self.answer_with(shown, age, Proven { standing, shown_to, ..by_watermarks() })
    }

    /// Waits until everything the session follows can be read at this node, in whichever of its ranges.
    pub(super) async fn causes_met(&self) -> Result<(), Error> {
        let Some(session) = &self.request.session else { return Ok(()) };
        let unmet = || {
            let mut logs = unmet_logs(self.shared, session.past());
            logs.extend(behind_told(self.shared));
            if !logs.is_empty() {
                return Some(Unmet::Logs(logs));
            }
            for (range, ..) in &session.past().log {
                self.shared.range(*range).iter().for_each(|handle| self.know_origins(handle));
            }
            let unseen = self.shared.local().unreadable(None, &session.past().seen);
            unseen.map(|unseen| Unmet::Stream(unseen.origin))
        };
        self.wait_until_met(unmet).await
    }

    /// INV-7 for this range: the streams of its origins shown as far as the session has seen, its log and the floor
    /// met.
    fn unmet_in_range(&self, session: Option<&Token>) -> Option<Unmet> {
        let past = session.filter(|_| !Plant::SeenIgnored.is_on())?.past();
        self.unmet_logs_of_range(past).or_else(|| {
            let unseen = self.shared.local().unreadable(Some(self.handle.id()), &past.seen);
            unseen.map(|unseen| Unmet::Stream(unseen.origin))
        })
    }

    /// The log of this range as far as the session follows it; with it the origins are known.
    fn unmet_logs_of_range(&self, past: &Past) -> Option<Unmet> {
        let handle = self.handle;
        let directory = self.shared.catalog.current();
        let known = |range| directory.range(range).map(|record| (record.epoch, &record.span));
        // The log first: it says which origins there are (pitfall 12).
        let mut demand = demand(past, handle.id(), &handle.record.span, known);
        // And what the session need not say.
        demand.own = demand.own.max(self.shared.local().log_told(handle.id()));
        if !has_logs(handle, demand) {
            return Some(Unmet::Logs(vec![handle.clone()]));
        }
        self.know_origins(handle);
        None
    }

    /// Waits until the session's own writes in this range are here, whatever they follow. Which of the log's entries are
    /// its own, its token does not say: all of them must be here.
    pub(super) async fn own_writes_met(&self) -> Result<(), Error> {
        let Some(session) = &self.request.session else { return Ok(()) };
        let unmet = || {
            self.unmet_logs_of_range(session.past()).or_else(|| {
                let lacked = self.shared.local().lacked(self.handle.id(), session.own());
                lacked.map(Unmet::Stream)
            })
        };
        self.wait_until_met(unmet).await
    }

    /// The origins that the applied log of a range has admitted, before anything is concluded from who they are.
    pub(super) fn know_origins(&self, handle: &RangeHandle) {
        let origins = Arc::clone(&handle.group.origins().borrow());
        self.shared.local().folded(handle.id(), &origins);
    }

    /// Whether everything the session follows can be read of this range here, now.
    pub(super) fn is_met_here(&self) -> bool {
        self.unmet_in_range(self.request.session.as_ref()).is_none()
    }

    async fn wait_until_met(&self, unmet: impl Fn() -> Option<Unmet>) -> Result<(), Error> {
        let give_up = self.soon();
        let mut asked: Option<NodeId> = None;
        loop {
            // Before the look: what changes after it is noticed.
            let mut changes = self.shared.local().changes();
            let Some(lack) = unmet() else { return Ok(()) };
            match &lack {
                Unmet::Stream(_) => Mark::WaitsForStream.hit(),
                Unmet::Logs(_) => Mark::WaitsForLogs.hit(),
            }
            match &lack {
                Unmet::Stream(origin) => {
                    if asked != Some(*origin) {
                        self.shared.nudge(*origin);
                        asked = Some(*origin);
                    }
                    if timeout_at(give_up, changes.changed()).await.is_err() {
                        return Err(self.causes_missing(&lack));
                    }
                    self.shared.show_what_may_be();
                }
                Unmet::Logs(ranges) => {
                    let closed =
                        futures::future::join_all(ranges.iter().map(|handle| async move {
                            let closed = handle.closing.demand().await?;
                            let gone = |_| {
                                Error::new(
                                    Reason::RangeNotHere,
                                    "the replica has just left this node",
                                )
                            };
                            handle.group.applied(closed.at.index).await.map_err(gone)
                        }));
                    let Ok(closed) = timeout_at(give_up, closed).await else {
                        return Err(self.causes_missing(&lack));
                    };
                    if closed.iter().any(Result::is_err) {
                        let pause = Instant::now() + Duration::from_millis(20);
                        if pause >= give_up {
                            return Err(self.causes_missing(&lack));
                        }
                        tokio::time::sleep_until(pause).await;
                    }
                }
            }
        }
    }

    fn causes_missing(&self, lack: &Unmet) -> Error {
        let what = match lack {
            Unmet::Stream(origin) => {
                format!("local writes that {origin} took have not arrived here")
            }
            Unmet::Logs(ranges) => {
                let ranges: Vec<_> = ranges.iter().map(|handle| handle.id().to_string()).collect();
                format!("this node does not know range {} far enough", ranges.join(", "))
            }
        };
        let message =
            format!("{what}, and the session follows them. Another replica may have them");
        Error::new(Reason::ReplicaBehind, message)
    }

    /// The keys the read is about.
    fn wanted_span(&self) -> KeySpan {
        match &self.request.operation {
            Operation::Scan(scan) => scan.span.clone(),
            Operation::Get { key } => KeySpan::of_key(key),
            _ => KeySpan::all(),
        }
    }

    fn answer_with(
        &self,
        shown: latitude_range::Shown,
        age: Option<Duration>,
        proven: Proven,
    ) -> Result<Answer, Error> {
        let snapshot = self.shared.engine.snapshot();
        let reader =
            Reader::new(self.handle.id(), &*snapshot).map_err(internal)?.with_deltas(shown);
        let staleness_ms = age.map(|age| age.as_micros().div_ceil(1000) as u64);
        self.read_from(&reader, Proven { staleness_ms, ..proven })
    }

    /// Whether the session's own local writes in the range are in the base, or are known not to be missing from
    /// it; else the leader has them folded first. Of which origin something is missing.
    pub(super) fn own_unfolded(&self, reader: &Reader<'_>) -> Option<NodeId> {
        let own = self.request.session.as_ref()?.own();
        if *own == Positions::default() || Plant::OwnIgnored.is_on() {
            return None;
        }
        self.shared.local().own_unfolded(self.handle.id(), &reader.meta().origins, own)
    }
}

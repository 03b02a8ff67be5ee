//! How an origin takes leave of a range: it stops, and says up to where it took local writes.
//!
//! ```text
//!   log: Seal ─▶ applied here: no position is given any more ─▶ D reaches the last one given ─▶ the seal is on the disk
//!                                                                                                      │
//!   log: Sealed(at) ◀── everything up to `at` folded ◀── leader ◀──── with every stretch: stopped at D ─┘
//! ```
//!
//! Whoever hears the word keeps it and passes it on, so that every later leader has it too. It names the admission it
//! is about, because the node may be admitted again.
//!
//! The seal is on the disk before the word is given: after a loss of power the node does not come back as an origin
//! that goes on, even if it has to find the seal in the log again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use latitude_range::{Admission, Origin, OriginState};
use latitude_rpc::pb::peer as pb;
use latitude_types::{Error, NodeId, RangeId, Reason, Stamp, Timestamp};
use tokio::time::sleep;

use super::Local;
use crate::shared::Shared;

/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// Origins that have stopped, by range and node: under which admission, and above which position they took nothing.
#[derive(Default)]
pub(super) struct Stopped(BTreeMap<(RangeId, NodeId), (Stamp, Timestamp)>);

impl Stopped {
    /// A range's origins stand like this: what was said of them may be of no more use.
    pub(super) fn retain(&mut self, range: RangeId, origins: &[Origin]) {
        let is_over = |node: NodeId, admitted: Stamp| {
            origins.iter().any(|origin| {
                let is_done = origin.admitted == admitted && origin.state > OriginState::Sealing;
                origin.node == node && (is_done || origin.admitted > admitted)
            })
        };
        self.0.retain(|(of, node), (admitted, _)| *of != range || !is_over(*node, *admitted));
    }

    /// The range has left this node.
    pub(super) fn forget(&mut self, range: RangeId) {
        self.0.retain(|(of, _), _| *of != range);
    }

    fn learn(&mut self, range: RangeId, of: Admission, at: Timestamp) {
        let known = self.0.entry((range, of.node)).or_insert((of.stamp, at));
        if of.stamp > known.0 {
            *known = (of.stamp, at);
        }
    }

    fn at(&self, range: RangeId, of: Admission) -> Option<Timestamp> {
        let said = self.0.get(&(range, of.node)).filter(|(admitted, _)| *admitted == of.stamp)?;
        Some(said.1)
    }
}

/// Stops where this node is sealed, for as long as it runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let local = shared.local();
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = local.inner.sealing.notified() => {}
        }
        while let Some((range, of)) = local.to_stop() {
            if let Err(error) = local.stop(range, of).await {
                tracing::warn!(%range, %error, "it cannot be said up to where local writes were taken");
                if shared.stop.is_cancelled() {
                    return;
                }
                sleep(PAUSE).await;
            }
        }
    }
}

impl Local {
    /// A range in which this node is sealed and has not said where it stopped.
    fn to_stop(&self) -> Option<(RangeId, Admission)> {
        let state = self.state();
        let own = state.folded.iter().filter_map(|(range, origins)| {
            let own = origins.iter().find(|origin| origin.node == self.inner.node)?;
            (own.state == OriginState::Sealing).then(|| (*range, own.admission()))
        });
        let mut unsaid = own.filter(|(range, of)| state.stopped.at(*range, *of).is_none());
        unsaid.next()
    }

    /// Finds out up to where this node took local writes in a range in which it takes none any more, and says it.
    async fn stop(&self, range: RangeId, of: Admission) -> Result<(), Error> {
        let mut changes = self.changes();
        // Whatever was given in the range was given before this.
        let given = self.state().frontier.last();
        let at = loop {
            let durable = self.lift();
            if durable >= given {
                break durable;
            }
            let stopped = |_| Error::new(Reason::ShuttingDown, "the node is stopping");
            changes.changed().await.map_err(stopped)?;
        };
        // That the base has applied the seal was written before it was told.
        let durable = self.inner.committer.durable().await;
        durable.map_err(|error| Error::new(Reason::Internal, error.to_string()))?;
        self.state().stopped.learn(range, of, at);
        tracing::info!(%range, %at, "this node takes no local writes any more");
        // Whoever waits for its stream is told now.
        self.inner.nudges.send_replace(());
        self.tell();
        Ok(())
    }

    /// Above which position an origin took nothing in a range, if it has said so.
    pub(crate) fn stopped_at(&self, range: RangeId, of: Admission) -> Option<Timestamp> {
        self.state().stopped.at(range, of)
    }

    /// What an origin has said of where it stopped, for whoever follows its stream.
    pub(super) fn said_by(&self, origin: NodeId) -> Vec<pb::Stopped> {
        let state = self.state();
        let said = state.stopped.0.iter().filter(|((_, node), _)| *node == origin);
        said.map(|((range, _), (admitted, at))| pb::Stopped {
            range_id: range.0,
            admitted: admitted.time.0,
            admitted_by: admitted.node.0,
            at: at.0,
        })
        .collect()
    }

    /// An origin has said where it stopped.
    pub(super) fn hear_stopped(&self, origin: NodeId, said: &[pb::Stopped]) {
        if said.is_empty() {
            return;
        }
        let mut state = self.state();
        let super::State { stopped, folded, .. } = &mut *state;
        for word in said {
            let range = RangeId(word.range_id);
            let Some(origins) = folded.get(&range) else { continue };
            let (time, node) = (Timestamp(word.admitted), NodeId(word.admitted_by));
            let of = Admission { node: origin, stamp: Stamp { time, node } };
            stopped.learn(range, of, Timestamp(word.at));
            // It may be over already.
            stopped.retain(range, origins);
        }
    }
}

//! Folding: while this node leads a range, what its overlay holds goes into the range's log.
//!
//! ```text
//!   overlay, W ─▶ cursor (rule) ─▶ segments ─▶ proposer ─▶ log ─▶ every base ─▶ F ─▶ overlays pruned
//! ```
//!
//! One task for all ranges of the node, so that a range nobody writes to costs nothing. It also has the range's
//! replicas admitted as origins, and says in the log that one has taken leave once all of it is folded: whoever leads
//! next finds the origin sealing and goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use latitude_consensus::LeaderToken;
use latitude_probe::Plant;
use latitude_range::{Body, FoldCursor, Origin, OriginState};
use latitude_types::{Error, NodeId, Positions, RangeId, Reason};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::{Local, State};
use crate::proposer::not_leader;
use crate::range_handle::RangeHandle;
use crate::shared::Shared;

/// How long deltas gather before they are folded, and a new fold is looked for.
const GATHER: Duration = Duration::from_millis(5);
/// How often to look for what nothing announces: a new leadership, a replica that is no origin yet.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Pause after a proposal that failed: whoever cannot propose learns so at once.
const PAUSE: Duration = Duration::from_millis(50);
/// Deltas of one proposal, about.
const BYTES_MAX: usize = 256 << 10;
/// Proposals of one range under way at once.
const UNDER_WAY: usize = 4;

/// Somebody wants the range's local writes up to these positions to be folded.
pub(super) struct Need {
    range: RangeId,
    positions: Positions,
    queued: oneshot::Sender<Result<(), Error>>,
}

/// What is under way of a range that is led here.
#[derive(Default)]
struct Folds {
    token: Option<LeaderToken>,
    cursor: FoldCursor,
    under_way: usize,
    /// Something was not applied: nothing more is proposed until nothing is under way, and it is later than this.
    failed: Option<Instant>,
    /// A change of the range's origins is under way.
    changing: bool,
    needs: Vec<Need>,
}

enum Settled {
    Fold(RangeId, Result<(), Error>),
    Origins(RangeId, Result<(), Error>),
}

impl Local {
    /// Has local writes up to these positions proposed for folding by this node, which leads the range. When it
    /// resolves the fold is ahead of whatever is proposed after, and may still fail.
    pub(crate) async fn propose_fold(
        &self,
        range: RangeId,
        positions: Positions,
    ) -> Result<(), Error> {
        let (queued, answer) = oneshot::channel();
        let gone = || Error::new(Reason::ShuttingDown, "the node is stopping");
        self.inner.needs.send(Need { range, positions, queued }).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Folds what this node's ranges have to fold.
pub(crate) struct Folder {
    needs: mpsc::UnboundedReceiver<Need>,
}

impl Folder {
    pub(super) fn new(needs: mpsc::UnboundedReceiver<Need>) -> Self {
        Self { needs }
    }

    /// Folds for as long as the node runs.
    pub(crate) async fn run(mut self, shared: Arc<Shared>) {
        let mut ranges: BTreeMap<RangeId, Folds> = BTreeMap::new();
        let mut settling = FuturesUnordered::new();
        let mut changes = shared.local().changes();
        let mut looked = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return,
                Some(settled) = settling.next(), if !settling.is_empty() => settle(&mut ranges, settled),
                Some(need) = self.needs.recv() => ranges.entry(need.range).or_default().needs.push(need),
                _ = changes.changed() => sleep(GATHER).await,
                () = sleep(LOOK_EVERY) => {}
            }
            while let Ok(need) = self.needs.try_recv() {
                ranges.entry(need.range).or_default().needs.push(need);
            }
            while let Some(Some(settled)) = settling.next().now_or_never() {
                settle(&mut ranges, settled);
            }
            changes.mark_unchanged();
            let look_at_all = looked.elapsed() >= LOOK_EVERY;
            if look_at_all {
                looked = Instant::now();
            }
            for handle in shared.all_ranges() {
                let range = handle.id();
                let has_deltas = shared.local().has_unfolded(range);
                if !look_at_all
                    && !has_deltas
                    && ranges.get(&range).is_none_or(|f| f.needs.is_empty())
                {
                    continue;
                }
                let folds = ranges.entry(range).or_default();
                for settled in folds.step(&shared, &handle) {
                    settling.push(settled);
                }
            }
            ranges.retain(|_, folds| folds.is_in_use());
        }
    }
}

fn settle(ranges: &mut BTreeMap<RangeId, Folds>, settled: Settled) {
    match settled {
        Settled::Fold(range, result) => {
            let folds = ranges.entry(range).or_default();
            folds.under_way = folds.under_way.saturating_sub(1);
            if let Err(error) = result {
                tracing::debug!(%range, %error, "a fold was not applied");
                folds.failed = Some(Instant::now() + PAUSE);
            }
        }
        Settled::Origins(range, result) => {
            let folds = ranges.entry(range).or_default();
            folds.changing = false;
            if let Err(error) = result {
                tracing::debug!(%range, %error, "an origin was not admitted or sealed");
                folds.failed = Some(Instant::now() + PAUSE);
            }
        }
    }
}

type Settling = futures::future::BoxFuture<'static, Settled>;

impl Folds {
    fn is_in_use(&self) -> bool {
        self.token.is_some() || self.under_way > 0 || self.changing || !self.needs.is_empty()
    }

    /// Proposes what there is to propose.
    fn step(&mut self, shared: &Arc<Shared>, handle: &RangeHandle) -> Vec<Settling> {
        let range = handle.id();
        let leadership = handle.group.leadership();
        if leadership.token != self.token {
            self.token = leadership.token;
            self.cursor.reset();
        }
        if self.token.is_none() {
            let error = not_leader(range, leadership.leader);
            for need in self.needs.drain(..) {
                drop(need.queued.send(Err(error.clone())));
            }
            return Vec::new();
        }
        let origins = Arc::clone(&handle.group.origins().borrow());
        let mut settling = Vec::new();
        // What was applied and skipped, behind a gap say, is proposed again too.
        if self.under_way == 0 {
            if !Plant::FoldGap.is_on() {
                self.cursor.reset();
            }
            self.failed = self.failed.filter(|until| Instant::now() < *until);
        }
        let may_propose = self.failed.is_none();
        let mut need = Positions::default();
        let mut change = missing_origin(handle, &origins).map(Body::Admit);
        for origin in origins.iter().filter(|origin| origin.state == OriginState::Sealing) {
            // Whoever is to stop says by itself when it has, with its stream.
            let of = origin.admission();
            match shared.local().stopped_at(range, of) {
                Some(at) if at <= origin.folded => change = Some(Body::Sealed(of, at)),
                Some(at) => need.raise(origin.node, at),
                None => {}
            }
        }
        if let Some(change) = change.filter(|_| may_propose && !self.changing) {
            self.changing = true;
            let changed = handle.proposer.change_origins(change);
            settling.push(async move { Settled::Origins(range, changed.await) }.boxed());
        }
        self.needs.retain(|need| !need.queued.is_closed());
        self.needs.iter().for_each(|wanted| need.join(&wanted.positions));
        if may_propose && self.under_way < UNDER_WAY {
            let local = shared.local();
            let segments =
                local.next_segments(&mut self.cursor, handle, &origins, &need, BYTES_MAX);
            if !segments.is_empty() {
                self.under_way += 1;
                let folded = handle.proposer.fold(segments);
                settling.push(async move { Settled::Fold(range, folded.await) }.boxed());
            }
        }
        let cursor = &self.cursor;
        let mut waiting = Vec::new();
        for need in self.needs.drain(..) {
            match cursor.behind(&origins, &need.positions) {
                None => drop(need.queued.send(Ok(()))),
                Some(origin) => {
                    shared.nudge(origin);
                    waiting.push(need);
                }
            }
        }
        self.needs = waiting;
        settling
    }
}

/// A replica of the range that takes no local writes yet.
fn missing_origin(handle: &RangeHandle, origins: &[Origin]) -> Option<NodeId> {
    if handle.record.log_only || handle.id() == RangeId::META {
        return None;
    }
    let replicas = handle.record.replicas().map(|replica| replica.node);
    replicas.into_iter().find(|node| !origins.iter().any(|origin| origin.node == *node))
}

impl Local {
    /// Whether a range has deltas here that its base does not have.
    fn has_unfolded(&self, range: RangeId) -> bool {
        self.state().overlays.get(&range).is_some_and(|overlay| !overlay.is_empty())
    }

    fn next_segments(
        &self,
        cursor: &mut FoldCursor,
        handle: &RangeHandle,
        origins: &[Origin],
        need: &Positions,
        bytes_max: usize,
    ) -> Vec<latitude_range::Segment> {
        let range = handle.id();
        if need.highest() > latitude_types::Timestamp::ZERO {
            // This node's own stream stands still while nothing is written here.
            self.lift();
        }
        let mut state = self.state();
        let State { overlays, marks, frontier, .. } = &mut *state;
        let Some(overlay) = overlays.get_mut(&range) else { return Vec::new() };
        let marks = |origin| match origin == self.inner.node {
            true => Some(frontier.durable()),
            false => marks.of(range, origin),
        };
        let segments = cursor.next(origins, &handle.record.span, overlay, marks, need, bytes_max);
        if Plant::OverlayDropped.is_on() {
            for segment in &segments {
                let dropped = origins.iter().find(|origin| origin.node == segment.origin);
                let dropped = dropped.map(|origin| Origin { folded: segment.to, ..origin.clone() });
                overlay.prune(dropped.as_slice());
            }
        }
        segments
    }
}

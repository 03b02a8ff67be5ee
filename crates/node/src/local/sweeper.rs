//! Sweeping: while this node leads a range, what its base keeps against latecomers alone goes, once none can come.
//!
//! ```text
//!   cursor (rule) ─▶ a look at some thousand rows ─▶ an entry, if anything may go ─▶ log ─▶ every base
//!        └─────────▶ idle origins, where only they are waited for ─▶ folder
//! ```
//!
//! One task for all ranges of the node. Of a range that nobody writes to it compares two numbers now and then;
//! nothing is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use latitude_consensus::LeaderToken;
use latitude_range::{Looked, Reader, Sweep, SweepCursor, Sweeping};
use latitude_types::{Positions, RangeId, Timestamp};
use tokio::time::{sleep, timeout};

use crate::range_handle::RangeHandle;
use crate::shared::Shared;

/// How often to see whether there is something to sweep.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause between two looks of a pass: reading is not to be felt by anybody.
const PACE: Duration = Duration::from_millis(10);
/// How long a proposal, or an idle origin, is waited for before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is under way of a range that is led here.
#[derive(Default)]
struct Sweeps {
    token: Option<LeaderToken>,
    cursor: SweepCursor,
    waiting: bool,
}

/// What was under way and is not any more.
enum Settled {
    Swept(Box<Looked>),
    Failed,
    Lifted,
}

/// Sweeps what this node's ranges have to sweep, for as long as it runs. `stable` says what every node shows of each
/// origin's stream.
pub(crate) async fn keep(shared: Arc<Shared>, stable: impl Fn() -> Positions + Send) {
    let mut ranges: BTreeMap<RangeId, Sweeps> = BTreeMap::new();
    let mut settling = FuturesUnordered::new();
    loop {
        let in_pass = |sweeps: &Sweeps| sweeps.cursor.is_in_pass() && !sweeps.waiting;
        let pause = if ranges.values().any(in_pass) { PACE } else { LOOK_EVERY };
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            Some((range, token, settled)) = settling.next(), if !settling.is_empty() => {
                settle(&mut ranges, range, token, settled);
                continue;
            }
            () = sleep(pause) => {}
        }
        let stable = stable();
        for handle in shared.all_ranges() {
            let (range, token) = (handle.id(), handle.group.leadership().token);
            if token.is_none() {
                ranges.remove(&range);
                continue;
            }
            let sweeps = ranges.entry(range).or_default();
            if sweeps.token != token {
                *sweeps = Sweeps { token, ..Sweeps::default() };
            }
            if sweeps.waiting {
                continue;
            }
            if let Some(step) = sweeps.step(&shared, &handle, &stable) {
                sweeps.waiting = true;
                settling.push(async move { (range, token, step.await) });
            }
        }
        ranges.retain(|range, _| shared.range(*range).is_some());
    }
}

fn settle(
    ranges: &mut BTreeMap<RangeId, Sweeps>,
    range: RangeId,
    token: Option<LeaderToken>,
    settled: Settled,
) {
    let Some(sweeps) = ranges.get_mut(&range).filter(|sweeps| sweeps.token == token) else {
        return;
    };
    sweeps.waiting = false;
    match settled {
        Settled::Swept(looked) => sweeps.cursor.looked(&looked),
        Settled::Failed => sweeps.cursor.failed(),
        Settled::Lifted => {}
    }
}

impl Sweeps {
    /// Does what there is to do, or begins it.
    fn step(
        &mut self,
        shared: &Arc<Shared>,
        handle: &RangeHandle,
        stable: &Positions,
    ) -> Option<futures::future::BoxFuture<'static, Settled>> {
        let now = now(shared);
        let (_, last_stamp) = handle.group.applied_position();
        let origins = Arc::clone(&handle.group.origins().borrow());
        match self.cursor.next(now, last_stamp, &origins, stable) {
            Sweeping::Rest => None,
            Sweeping::Lift(need) => {
                let (shared, range) = (Arc::clone(shared), handle.id());
                Some(Box::pin(async move {
                    // Whom it cannot reach it gives up on, for now.
                    drop(timeout(PATIENCE, shared.local().propose_fold(range, need)).await);
                    Settled::Lifted
                }))
            }
            Sweeping::Look(sweep) => {
                let looked = match look(shared, handle, now, &sweep) {
                    Ok(looked) => looked,
                    Err(error) => {
                        tracing::error!(range = %handle.id(), %error, "a base cannot be swept");
                        self.cursor.failed();
                        return None;
                    }
                };
                if looked.changes() == 0 {
                    self.cursor.looked(&looked);
                    return None;
                }
                let (range, looked) = (handle.id(), Box::new(looked));
                let swept = timeout(PATIENCE, handle.proposer.sweep(sweep));
                Some(Box::pin(async move {
                    match swept.await {
                        Ok(Ok(())) => return Settled::Swept(looked),
                        Ok(Err(error)) => {
                            tracing::debug!(%range, %error, "a sweep was not applied")
                        }
                        Err(_) => tracing::debug!(%range, "a sweep is not applied yet"),
                    }
                    Settled::Failed
                }))
            }
        }
    }
}

/// What an entry proposed now would find at least.
fn look(
    shared: &Arc<Shared>,
    handle: &RangeHandle,
    now: Timestamp,
    sweep: &Sweep,
) -> Result<Looked, latitude_range::ApplyError> {
    let snapshot = shared.engine.snapshot();
    Reader::new(handle.id(), &*snapshot)?.look(now, sweep)
}

/// A time that whatever is stamped later is above. A node at rest gives none, so its clock alone would stand still.
fn now(shared: &Shared) -> Timestamp {
    let clock = shared.clock.hybrid();
    clock.peek().max(Timestamp::from_unix_ms(clock.physical_us() / 1000))
}

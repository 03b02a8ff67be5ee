//! Dropping deltas that are folded, from the store.
//!
//! ```text
//!   stream of an origin:  ──●──●──●──●────●──●──▶
//!                           folded here │ not folded: stays
//!                     dropped │ kept for those who lag behind
//! ```
//!
//! This node's own deltas are kept until every node that follows its stream holds them, or there are too many;
//! those of others for a while, to be relayed.
//!
//! Whoever asks for a stream from below what is kept is told so, and waits until its base has it by the log
//! (pitfall B16). How far that goes is noted by range, because a range's log brings nothing of another's; after a
//! restart nothing is kept that is folded, as far as this node says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use latitude_storage::{Batch, Column, key};
use latitude_types::{NodeId, RangeId, Timestamp};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::{Local, State};
use crate::shared::Shared;

/// How often the keeper looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Folded deltas of others are kept for so long after they were taken.
const RELAYED_MS: u64 = 10_000;
/// This node's own deltas that are folded are kept for laggards while all of its own take less than this.
const LAGGARDS_BYTES_MAX: usize = 256 << 20;
/// Deltas dropped in one batch, of one origin.
const BATCH_MAX: usize = 10_000;

/// Drops what need not be kept, for as long as the node runs. What cannot be dropped now, because the disk is full
/// say, is tried again: nothing rests on it.
pub(crate) async fn keep(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = sleep(LOOK_EVERY) => {}
        }
        let local = shared.local();
        for origin in local.origins() {
            loop {
                match local.drop_folded(origin) {
                    // There may be more: under load they come faster than one batch a look.
                    Ok(BATCH_MAX) => yield_now().await,
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%origin, %error, "folded local writes cannot be dropped");
                        break;
                    }
                }
            }
        }
    }
}

impl Local {
    /// Drops one batch of an origin's, and says how many there were in it.
    fn drop_folded(&self, origin: NodeId) -> Result<usize, String> {
        let inner = &self.inner;
        let now = inner.clock.hybrid().peek();
        let is_own = origin == inner.node;
        let until = match is_own {
            true if self.state().own_bytes > LAGGARDS_BYTES_MAX => now,
            true => self.state().held_by_all().min(now),
            false => Timestamp::from_ms(now.ms().saturating_sub(RELAYED_MS)),
        };
        let span = key::stream::span(origin, ..=until);
        let (mut last, mut count, mut bytes) = (None, 0, 0);
        let mut dropped: BTreeMap<RangeId, Timestamp> = BTreeMap::new();
        for row in inner.engine.scan(Column::Stream, span.into()).take(BATCH_MAX) {
            let (row_key, row) = row.map_err(|error| error.to_string())?;
            let (_, position) = key::stream::decode(&row_key).ok_or("a damaged key of a delta")?;
            let delta = latitude_range::Delta::decode(&row).map_err(|error| error.to_string())?;
            if !self.state().is_done_with(&delta) {
                break;
            }
            last = Some(position);
            dropped.insert(delta.range, position);
            count += 1;
            bytes += row.len();
        }
        let Some(last) = last else { return Ok(0) };
        // First: a stretch from below must not be read while rows go.
        let mut state = self.state();
        for (range, up_to) in dropped {
            match is_own {
                true => state.keep_own_above(range, up_to),
                false => state.marks.dropped(range, origin, up_to),
            }
        }
        drop(state);
        let rows = key::stream::span(origin, ..=last);
        let mut batch = Batch::new();
        batch.delete_range(Column::Stream, rows.start, rows.end);
        inner.engine.write(batch).map_err(|error| error.to_string())?;
        if is_own {
            let mut state = self.state();
            state.own_bytes = state.own_bytes.saturating_sub(bytes);
        }
        Ok(count)
    }
}

impl State {
    /// Of this node's own writes in a range, some up to there may be in the log alone.
    pub(super) fn keep_own_above(&mut self, range: RangeId, up_to: Timestamp) {
        let above = self.own_above.entry(range).or_default();
        *above = up_to.max(*above);
    }

    /// Whether a delta is in the base here, or of a range that is not here any more.
    fn is_done_with(&self, delta: &latitude_range::Delta) -> bool {
        match self.overlays.get(&delta.range) {
            Some(overlay) => {
                // What is folded has left the overlay; what is not is in it before it is in the store.
                let mark = self.marks.of(delta.range, delta.origin);
                let is_held = overlay.holds(delta.origin, delta.position);
                !is_held && mark.is_some_and(|mark| delta.position <= mark)
            }
            None => !self.unclaimed.contains_key(&delta.range),
        }
    }
}

//! Dropping deltas that are folded, from the store.
//!
//! ```text
//!   stream of an origin, r1:  ──●────●──●─────────●──●──▶
//!                       r2:  ────●─────────●─●─────────▶
//!                               folded here │ not folded: stays, and holds back nothing of another range
//!                   dropped │ kept for those who lag behind
//! ```
//!
//! This node's own deltas are kept until every node that follows its stream holds them, or there are too many;
//! those of others for a while, to be relayed. Of a range that has left this node nothing is kept.
//!
//! Only what was seen is dropped, row by row: a span would take along what is stored in it meanwhile, by a range that
//! lags behind. That leaves marks in the store that scans step over, so it is known of each range from where its rows
//! begin, and nobody looks below.
//!
//! Whoever asks for a stream from below what is kept is told so, and waits until its base has it by the log
//! (pitfall B16). How far that goes is noted by range, because a range's log brings nothing of another's; after a
//! restart nothing is kept that is folded, as far as this node says.

use std::collections::{BTreeMap, BTreeSet};
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
pub(super) const RELAYED_MS: u64 = 10_000;
/// Rows that are read before those among them that may go do.
const ROWS_MAX: usize = 1_000;

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
        let origins = local.state().kept.origins();
        for origin in origins {
            if let Err(error) = local.drop_folded(origin).await {
                tracing::warn!(%origin, %error, "folded local writes cannot be dropped");
            }
        }
    }
}

/// Where the rows of each origin in each range begin, of those that may have any.
#[derive(Default)]
pub(super) struct Kept(BTreeMap<(NodeId, RangeId), Rows>);

/// Rows of one origin in one range.
#[derive(Default)]
struct Rows {
    /// None is positioned below this.
    from: Timestamp,
    /// The lowest that was stored since the last look began, which may have missed it.
    stored: Option<Timestamp>,
    /// Of a range that has left this node: its own writes may still be written up to here.
    last: Timestamp,
}

/// Up to where the rows of an origin in a range may go.
#[derive(Clone, Copy)]
struct MayGo {
    up_to: Timestamp,
    /// The range has left this node: all of them may.
    left: bool,
}

/// A look over an origin's stream, for what may go.
struct Look {
    origin: NodeId,
    may_go: BTreeMap<RangeId, MayGo>,
    /// Not looked at yet: from here ...
    from: Timestamp,
    /// ... up to here.
    to: Timestamp,
}

impl Kept {
    /// There may be rows from there on; below there are those only that are known.
    pub(super) fn expect(&mut self, origin: NodeId, range: RangeId, from: Timestamp) {
        let new = Rows { from, ..Rows::default() };
        self.0.entry((origin, range)).or_insert(new);
    }

    /// Such a row can be read from now on.
    pub(super) fn stored(&mut self, origin: NodeId, range: RangeId, position: Timestamp) {
        self.expect(origin, range, position);
        if let Some(rows) = self.0.get_mut(&(origin, range)) {
            rows.from = position.min(rows.from);
            rows.stored = Some(rows.stored.map_or(position, |stored| position.min(stored)));
        }
    }

    /// A range has left this node, which may have given positions in it up to `last`.
    pub(super) fn leave(&mut self, own: NodeId, range: RangeId, last: Timestamp) {
        if let Some(rows) = self.0.get_mut(&(own, range)) {
            rows.last = last;
        }
    }

    fn origins(&self) -> BTreeSet<NodeId> {
        self.0.keys().map(|(origin, _)| *origin).collect()
    }

    fn ranges_of(&self, origin: NodeId) -> impl Iterator<Item = RangeId> {
        let ranges = (origin, RangeId(0))..=(origin, RangeId(u64::MAX));
        self.0.range(ranges).map(|((_, range), _)| *range)
    }

    /// Begins a look at an origin's rows. `None`: there are none that may go.
    fn begin(&mut self, origin: NodeId, mut may_go: BTreeMap<RangeId, MayGo>) -> Option<Look> {
        let (mut from, mut to) = (None::<Timestamp>, Timestamp::ZERO);
        may_go.retain(|range, MayGo { up_to, .. }| {
            let Some(rows) = self.0.get_mut(&(origin, *range)) else { return false };
            rows.stored = None;
            if *up_to < rows.from {
                return false;
            }
            from = Some(from.map_or(rows.from, |from| rows.from.min(from)));
            to = to.max(*up_to);
            true
        });
        Some(Look { origin, may_go, from: from?, to })
    }

    /// Everything has gone that a look had to find.
    fn end(&mut self, Look { origin, may_go, .. }: &Look) {
        for (range, MayGo { up_to, left }) in may_go {
            let Some(rows) = self.0.get_mut(&(*origin, *range)) else { continue };
            match rows.stored {
                Some(missed) => rows.from = missed.min(up_to.next()),
                None if *left && rows.last <= *up_to => {
                    self.0.remove(&(*origin, *range));
                }
                None => rows.from = up_to.next(),
            }
        }
    }
}

impl Local {
    /// Drops what may go of an origin's.
    async fn drop_folded(&self, origin: NodeId) -> Result<(), String> {
        let Some(mut look) = self.begin_look(origin) else { return Ok(()) };
        while self.drop_some(&mut look)? {
            yield_now().await;
        }
        self.state().kept.end(&look);
        Ok(())
    }

    fn begin_look(&self, origin: NodeId) -> Option<Look> {
        let now = self.inner.clock.hybrid().peek();
        let mut state = self.state();
        // What this node is still to write is above.
        let durable = state.frontier.durable();
        let (all, until) = match origin == self.inner.node {
            true if state.own_bytes > self.inner.laggards_bytes_max => (durable, durable),
            true => (durable, state.held_by_all().min(durable)),
            false => (now, Timestamp::from_ms(now.ms().saturating_sub(RELAYED_MS))),
        };
        let may_go = |range| {
            let up_to = match state.is_here(range) {
                true => state.done_with(range, origin)?.min(until),
                false => all,
            };
            Some((range, MayGo { up_to, left: !state.is_here(range) }))
        };
        let may_go = state.kept.ranges_of(origin).filter_map(may_go).collect();
        state.kept.begin(origin, may_go)
    }

    /// Drops what may go of the next rows. `false`: there are no more.
    fn drop_some(&self, look: &mut Look) -> Result<bool, String> {
        let Look { origin, may_go, from, to } = look;
        let (mut seen, mut bytes, mut batch) = (0, 0, Batch::new());
        let mut dropped: BTreeMap<RangeId, Timestamp> = BTreeMap::new();
        let span = key::stream::span(*origin, *from..=*to);
        for row in self.inner.engine.scan(Column::Stream, span.into()).take(ROWS_MAX) {
            let (row_key, row) = row.map_err(|error| error.to_string())?;
            let (_, position) = key::stream::decode(&row_key).ok_or("a damaged key of a delta")?;
            let delta = latitude_range::Delta::decode(&row).map_err(|error| error.to_string())?;
            (seen, *from) = (seen + 1, position.next());
            if may_go.get(&delta.range).is_some_and(|may_go| position <= may_go.up_to) {
                dropped.insert(delta.range, position);
                bytes += row.len();
                batch.delete(Column::Stream, row_key);
            }
        }
        if !dropped.is_empty() {
            // First: a stretch from below must not be read while rows go.
            self.state().no_longer_keep(self.inner.node, *origin, &dropped);
            self.inner.engine.write(batch).map_err(|error| error.to_string())?;
        }
        if *origin == self.inner.node {
            let mut state = self.state();
            state.own_bytes = state.own_bytes.saturating_sub(bytes);
        }
        Ok(seen == ROWS_MAX && *from <= *to)
    }
}

impl State {
    /// Of this node's own writes in a range, some up to there may be in the log alone.
    pub(super) fn keep_own_above(&mut self, range: RangeId, up_to: Timestamp) {
        let above = self.own_above.entry(range).or_default();
        *above = up_to.max(*above);
    }

    /// Of these ranges an origin's rows up to there are about to go.
    fn no_longer_keep(
        &mut self,
        own: NodeId,
        origin: NodeId,
        dropped: &BTreeMap<RangeId, Timestamp>,
    ) {
        for (range, up_to) in dropped {
            if origin != own {
                self.marks.dropped(*range, origin, *up_to);
            } else if self.is_here(*range) {
                self.keep_own_above(*range, *up_to);
            }
        }
    }

    /// Whether a range has a replica here; or has one that is not open yet, or cannot be.
    fn is_here(&self, range: RangeId) -> bool {
        self.overlays.contains_key(&range) || self.unclaimed.contains_key(&range)
    }

    /// Up to where every delta of an origin is in the base of a range that is here, as far as is known.
    fn done_with(&self, range: RangeId, origin: NodeId) -> Option<Timestamp> {
        // What is folded has left the overlay; what is not is in it before it counts as held.
        let held = self.overlays.get(&range)?.first_of(origin);
        let mark = self.marks.of(range, origin)?;
        Some(held.map_or(mark, |held| mark.min(Timestamp(held.0 - 1))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use latitude_storage::key::Span;
    use latitude_storage::memory::{MemoryDisk, MemoryEngine};
    use latitude_storage::{Damage, Done, Engine, Result, Rows, Scan, SetName, Staging, View};

    use super::super::testing::{HERE, local, origins, record, row, rows};
    use super::*;

    const OTHER: NodeId = NodeId(2);
    const A: RangeId = RangeId(3);
    const B: RangeId = RangeId(4);

    fn memory() -> MemoryEngine {
        MemoryEngine::open(&MemoryDisk::new()).expect("it is new")
    }

    /// An engine, with these rows of local writes.
    fn engine(of: &[(NodeId, RangeId, u64)]) -> Arc<dyn Engine> {
        let engine = memory();
        for (origin, range, position) in of {
            engine.write(row(*origin, *range, *position)).expect("there is room");
        }
        Arc::new(engine)
    }

    /// Opens a range that has folded so far.
    fn open(local: &Local, range: RangeId, folded: &[(NodeId, u64)]) {
        local.open_range(&record(range, &[HERE, OTHER]), &origins(folded));
    }

    fn at(position: u64) -> Timestamp {
        Timestamp(position)
    }

    /// While a scan of streams is at its end somebody writes: between what is seen and what is dropped there is time.
    struct Meanwhile {
        memory: MemoryEngine,
        write: Mutex<Option<Batch>>,
    }

    impl View for Meanwhile {
        fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>> {
            self.memory.get(column, key)
        }

        fn scan(&self, column: Column, scan: Scan) -> Rows<'_> {
            let rows: Vec<_> = self.memory.scan(column, scan).collect();
            if let Some(batch) = self.write.lock().expect("nothing panics").take() {
                self.memory.write(batch).expect("there is room");
            }
            Box::new(rows.into_iter())
        }
    }

    impl Engine for Meanwhile {
        fn write(&self, batch: Batch) -> Result<()> {
            self.memory.write(batch)
        }
        fn sync(&self) -> Result<()> {
            self.memory.sync()
        }
        fn snapshot(&self) -> Box<dyn View + '_> {
            self.memory.snapshot()
        }
        fn stage(&self, set: SetName, of: Column, spans: Vec<Span>) -> Result<Box<dyn Staging>> {
            self.memory.stage(set, of, spans)
        }
        fn staged(&self) -> Result<Vec<SetName>> {
            self.memory.staged()
        }
        fn replace(&self, set: SetName, done: Done) {
            self.memory.replace(set, done);
        }
        fn discard(&self, set: SetName) -> Result<()> {
            self.memory.discard(set)
        }
        fn damage(&self) -> Option<&Damage> {
            self.memory.damage()
        }
        fn free_space(&self) -> Result<u64> {
            self.memory.free_space()
        }
    }

    /// A range that lags behind is sent a write positioned below what the keeper is dropping of another. Dropped with
    /// it, a restart would lose it: acknowledged, and said to be held.
    #[tokio::test]
    async fn what_is_stored_of_a_range_that_lags_while_rows_of_another_are_dropped_stays() {
        let engine = Arc::new(Meanwhile { memory: memory(), write: Mutex::default() });
        for position in [30, 50] {
            engine.write(row(OTHER, A, position)).expect("there is room");
        }
        let store = Arc::clone(&engine) as Arc<dyn Engine>;
        let local = local(&store);
        open(&local, A, &[(HERE, 0), (OTHER, 60)]);
        open(&local, B, &[(HERE, 0), (OTHER, 20)]);
        *engine.write.lock().expect("nothing panics") = Some(row(OTHER, B, 40));
        local.drop_folded(OTHER).await.expect("it can be written");
        assert_eq!(rows(&store, OTHER), [40]);
        assert_eq!(local.state().marks.kept(A, OTHER), Some((at(60), at(60))));
        assert_eq!(local.state().marks.kept(B, OTHER), Some((at(20), at(20))));
    }

    #[tokio::test]
    async fn a_write_that_is_not_folded_holds_back_nothing_of_another_range() {
        for origin in [OTHER, HERE] {
            let of = |range, position| (origin, range, position);
            let store = engine(&[of(A, 10), of(B, 20), of(A, 30), of(B, 40), of(B, 60)]);
            let local = local(&store);
            open(&local, A, &[(HERE, 5), (OTHER, 5)]);
            open(&local, B, &[(HERE, 50), (OTHER, 50)]);
            // The others hold everything, and share no other range.
            local.state().standing.share_with([]);
            local.drop_folded(origin).await.expect("it can be written");
            assert_eq!(rows(&store, origin), [10, 30, 60], "{origin}");
            let kept_above = |range| local.kept_above(origin, range);
            // In B as before: what it had folded when it opened.
            assert_eq!((kept_above(A), kept_above(B)), (Some(at(5)), Some(at(50))), "{origin}");
            local.folded(A, &origins(&[(HERE, 20), (OTHER, 20)]));
            local.drop_folded(origin).await.expect("it can be written");
            assert_eq!(rows(&store, origin), [30, 60], "{origin}");
            assert_eq!(kept_above(A), Some(at(10)), "{origin}: as far as it has dropped");
        }
    }

    /// A node restarts before all of a dropped keyspace has gone.
    #[tokio::test]
    async fn of_a_range_that_has_left_nothing_stays() {
        let (gone, not_yet) = (RangeId(7), RangeId(8));
        for origin in [OTHER, HERE] {
            let of = |range, position| (origin, range, position);
            let store = engine(&[of(gone, 10), of(A, 20), of(B, 30), of(not_yet, 40)]);
            let local = local(&store);
            open(&local, A, &[(HERE, 5), (OTHER, 5)]);
            let drop_folded = async || {
                local.drop_folded(origin).await.expect("it can be written");
                rows(&store, origin)
            };
            assert_eq!(drop_folded().await, [10, 20, 30, 40], "what has left is not known yet");
            local.give_up_all_but(|range| range != gone);
            assert_eq!(drop_folded().await, [20, 30, 40]);
            // One never opened, and another one did.
            local.close_range(B);
            local.close_range(A);
            assert_eq!(drop_folded().await, [40]);
            assert_eq!(local.state().own_above, BTreeMap::new());
            let known: Vec<_> = local.state().kept.ranges_of(origin).collect();
            assert_eq!(known, [not_yet]);
        }
    }

    /// A row that a look was too early to see, because it was read before it was stored.
    #[test]
    fn what_a_look_has_missed_is_found_by_the_next() {
        let may_go = |up_to| BTreeMap::from([(A, MayGo { up_to: at(up_to), left: false })]);
        let mut kept = Kept::default();
        kept.stored(OTHER, A, at(10));
        let look = kept.begin(OTHER, may_go(30)).expect("there is a row");
        assert_eq!((look.from, look.to), (at(10), at(30)));
        kept.stored(OTHER, A, at(25));
        kept.end(&look);
        let look = kept.begin(OTHER, may_go(40)).expect("there is a row");
        assert_eq!((look.from, look.to), (at(25), at(40)));
        kept.end(&look);
        assert!(kept.begin(OTHER, may_go(40)).is_none(), "all of it was seen");
        assert_eq!(kept.begin(OTHER, may_go(50)).map(|look| look.from), Some(at(41)));
        assert!(kept.begin(OTHER, BTreeMap::new()).is_none());
        // What comes later than the end of a look lies below where the next one would begin.
        kept.stored(OTHER, A, at(35));
        assert_eq!(kept.begin(OTHER, may_go(40)).map(|look| look.from), Some(at(35)));
    }
}

//! The Raft log of one replica, in the node's store.
//!
//! ```text
//!   purged ≤ ... rows of Column::Log ... ≤ last          cache: a tail of it, decoded
//! ```
//!
//! Writes go to the engine unsynced and are readable at once; they are durable, and openraft is told so,
//! when the [`Committer`]'s next sync is through.

use std::collections::VecDeque;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use latitude_probe::Mark;
use latitude_storage::{Batch, Column, Engine, key};
use latitude_types::{Generation, RangeId, Stamp};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, RaftLogReader};

use tokio::sync::Notify;

use crate::committer::Committer;
use crate::sizes::Sizes;
use crate::types::{Entry, LogId, Proposal, TypeConfig, Vote};
use crate::wire;

/// Decoded entries kept in memory, by the size of their payloads: replication and apply read what was
/// just appended.
const CACHE_BYTES_MAX: usize = 1 << 20;
/// The most one replication request carries, unless a single entry is larger.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// How finely the sizes of entries are remembered: this often in a log that is just too large.
const MARKS_PER_LIMIT: u64 = 64;

/// The log of one replica. Cheap to clone; all clones are the same log.
#[derive(Clone)]
pub(crate) struct RangeLog {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<dyn Engine>,
    committer: Committer,
    range: RangeId,
    generation: Generation,
    /// From so many bytes on, `grown` is told of each append.
    bytes_max: u64,
    grown: Notify,
    state: Mutex<State>,
}

struct State {
    purged: Option<LogId>,
    /// The index of the first entry, or of the next while there is none.
    first: u64,
    last: Option<LogId>,
    /// How often entries were cut off.
    truncations: u64,
    /// The largest stamp ever appended; not lowered by a truncation.
    stamp_max: Stamp,
    /// A contiguous tail of the log.
    cache: VecDeque<Entry>,
    cache_bytes: usize,
    sizes: Sizes,
}

impl RangeLog {
    /// The log as the store has it. From about `bytes_max` bytes on it asks to be shortened
    /// ([`RangeLog::grown`]).
    ///
    /// # Errors
    /// An entry is damaged, or entries are missing between the purged and the last one: the replica has
    /// lost what it may have acknowledged, and must not vote.
    pub(crate) fn open(
        engine: Arc<dyn Engine>,
        committer: Committer,
        range: RangeId,
        generation: Generation,
        bytes_max: u64,
    ) -> io::Result<Self> {
        let purged = match engine
            .get(Column::Log, &key::log::state(range, generation))
            .map_err(io::Error::other)?
        {
            Some(row) => Some(wire::decode_log_id(&row)?),
            None => None,
        };
        let first = purged.as_ref().map_or(0, |id| id.index + 1);
        let mut state = State {
            purged,
            first,
            last: purged,
            truncations: 0,
            stamp_max: Stamp::ZERO,
            cache: VecDeque::new(),
            cache_bytes: 0,
            sizes: Sizes::new(bytes_max / MARKS_PER_LIMIT),
        };
        let all = key::log::entries_from(range, generation, 0).scan();
        let mut expected = first;
        for row in engine.scan(Column::Log, all) {
            let (_, row) = row.map_err(io::Error::other)?;
            let entry = wire::decode_entry(&row)?;
            if entry.log_id.index < expected {
                // A purge was written and its deletion of rows not yet: rows below are as good as gone.
                continue;
            }
            if entry.log_id.index != expected {
                return Err(hole(range, expected));
            }
            expected += 1;
            state.push(entry);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                engine,
                committer,
                range,
                generation,
                bytes_max,
                grown: Notify::new(),
                state: Mutex::new(state),
            }),
        })
    }

    /// The largest stamp this log holds or held: a new leader's clock must be above it before it stamps.
    pub(crate) fn stamp_max(&self) -> Stamp {
        self.state().stamp_max
    }

    /// Counts `stamp` among those the log held: entries that are purged are known by the base alone.
    pub(crate) fn raise_stamp_max(&self, stamp: Stamp) {
        let mut state = self.state();
        state.stamp_max = state.stamp_max.max(stamp);
    }

    /// About how many bytes of entries the log holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.state().sizes.held()
    }

    /// Resolves once there has been an append, since this was last asked, that left the log too large.
    pub(crate) async fn grown(&self) {
        self.shared.grown.notified().await;
    }

    /// The greatest index up to and including `applied` that can be purged and still leave about
    /// `keep_bytes` behind it.
    pub(crate) fn purgeable(&self, applied: u64, keep_bytes: u64) -> Option<u64> {
        self.state().sizes.purgeable(applied, keep_bytes)
    }

    /// Puts into a batch that everything up to `upto` is gone, whether it was there or not.
    pub(crate) fn stage_purge(
        range: RangeId,
        generation: Generation,
        from: u64,
        upto: &LogId,
        batch: &mut Batch,
    ) {
        batch.put(Column::Log, key::log::state(range, generation), wire::encode_log_id(upto));
        let span = key::log::entries(range, generation, from..upto.index + 1);
        batch.delete_range(Column::Log, span.start, span.end);
    }

    /// The index of the first entry, or of the next while there is none.
    pub(crate) fn first_index(&self) -> u64 {
        self.state().first
    }

    /// Notes that a batch of [`RangeLog::stage_purge`] was written.
    pub(crate) fn note_purged(&self, upto: LogId) {
        let mut state = self.state();
        if state.purged.as_ref().is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        while state.cache.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            state.pop_front();
        }
        if state.last.as_ref().is_none_or(|last| last.index < upto.index) {
            state.last = Some(upto);
        }
        state.first = state.first.max(upto.index + 1);
        state.purged = Some(upto);
        state.sizes.purge(upto.index);
    }

    /// Whether the replica has ever voted or heard of a vote.
    pub(crate) fn has_voted(&self) -> io::Result<bool> {
        Ok(self.read_vote_row()?.is_some())
    }

    /// Notices the loss of what a replica cannot be without: the first entry, which it was born with, the
    /// last one it `applied`, and a vote for the term of its last one.
    pub(crate) fn check_complete(&self, applied: u64) -> io::Result<()> {
        let range = self.shared.range;
        let lost = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        let Some(last) = self.state().last else {
            return lost(format!("the log of range {range} is empty: not even its birth is there"));
        };
        if last.index < applied {
            return lost(format!(
                "range {range} has applied entry {applied}, and its log ends at entry {}",
                last.index
            ));
        }
        let voted = match self.read_vote_row()? {
            Some(row) => Vote::from(wire::decode::<wire::Vote>(&row)?).leader_id.term,
            None => 0,
        };
        if voted < last.leader_id.term {
            return lost(format!(
                "the log of range {range} ends in term {}, and its last vote was for term {voted}",
                last.leader_id.term
            ));
        }
        Ok(())
    }

    /// Resolves once everything written to the log is durable.
    pub(crate) async fn durable(&self) -> io::Result<()> {
        self.shared.committer.durable().await
    }

    /// The first entry of a range, the same on every founding replica, so that none of them has to
    /// initialize the others.
    pub(crate) fn stage_birth(
        range: RangeId,
        generation: Generation,
        entry: &Entry,
        batch: &mut Batch,
    ) {
        let key = key::log::entry(range, generation, entry.log_id.index);
        batch.put(Column::Log, key, wire::encode_entry(entry));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("nothing panics while it holds the log's state")
    }

    fn read_vote_row(&self) -> io::Result<Option<Bytes>> {
        let Shared { engine, range, generation, .. } = &*self.shared;
        engine.get(Column::Log, &key::log::vote(*range, *generation)).map_err(io::Error::other)
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        self.shared.engine.write(batch).map_err(io::Error::other)
    }

    /// Entries `start..end`, as many as fit into `bytes_max`, at least one if there is one. What lies
    /// outside the log is left out.
    ///
    /// # Errors
    /// An entry is damaged or missing: the replica has lost what it may have acknowledged.
    fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let mut taken = Taken { entries: Vec::new(), bytes: 0, bytes_max };
        let (mut next, end, truncations) = {
            let state = self.state();
            (start.max(state.first), end.min(state.end()), state.truncations)
        };
        while next < end {
            let cached_from = {
                let state = self.state();
                if state.truncations != truncations {
                    // The leadership that asked is over: what is here now is not what it asked for.
                    break;
                }
                let cached_from = state.cached_from();
                if next >= cached_from {
                    state.take_cached(next, end, &mut taken);
                    break;
                }
                cached_from
            };
            // What precedes the cache comes from the store; then on to the cache, or to what was pushed
            // out of it meanwhile.
            match self.take_stored(next, end.min(cached_from), &mut taken) {
                Ok(Ended::Full) => break,
                Ok(Ended::Whole) => next = end.min(cached_from),
                // Entries cut off while they were being read are not missing.
                Err(_) if self.state().truncations != truncations => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken.entries)
    }

    fn take_stored(&self, start: u64, end: u64, taken: &mut Taken) -> io::Result<Ended> {
        let mut expected = start;
        let Shared { engine, range, generation, .. } = &*self.shared;
        let span = key::log::entries(*range, *generation, start..end);
        for row in engine.scan(Column::Log, span.scan()) {
            let (_, row) = row.map_err(io::Error::other)?;
            let entry = wire::decode_entry(&row)?;
            if entry.log_id.index != expected {
                break;
            }
            if !taken.take(&entry) {
                return Ok(Ended::Full);
            }
            expected += 1;
        }
        if expected == end { Ok(Ended::Whole) } else { Err(hole(*range, expected)) }
    }
}

/// How taking entries ended.
enum Ended {
    /// Every entry asked for was taken.
    Whole,
    /// No more fit.
    Full,
}

fn hole(range: RangeId, missing: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the log of range {range} has a hole: entry {missing} is missing"),
    )
}

/// Entries taken for one read.
struct Taken {
    entries: Vec<Entry>,
    bytes: usize,
    bytes_max: usize,
}

impl Taken {
    /// Takes the entry, unless it is too much.
    fn take(&mut self, entry: &Entry) -> bool {
        let size = payload_len(entry);
        if !self.entries.is_empty() && self.bytes + size > self.bytes_max {
            return false;
        }
        self.bytes += size;
        self.entries.push(entry.clone());
        true
    }
}

impl State {
    /// The index after the last entry.
    fn end(&self) -> u64 {
        self.last.as_ref().map_or(0, |id| id.index + 1)
    }

    fn is_empty(&self) -> bool {
        self.first >= self.end()
    }

    /// The index of the first entry in the cache; beyond every entry if it is empty.
    fn cached_from(&self) -> u64 {
        self.cache.front().map_or(u64::MAX, |entry| entry.log_id.index)
    }

    /// Takes cached entries `start..end`; `start` is not before the cache.
    fn take_cached(&self, start: u64, end: u64, taken: &mut Taken) {
        let skipped = (start - self.cached_from()) as usize;
        let wanted = self.cache.iter().skip(skipped);
        for entry in wanted.take_while(|entry| entry.log_id.index < end) {
            if !taken.take(entry) {
                break;
            }
        }
    }

    fn push(&mut self, entry: Entry) {
        if self.is_empty() {
            self.first = entry.log_id.index;
        }
        if let EntryPayload::Normal(proposal) = &entry.payload
            && let Some(stamp) = Proposal::stamp(proposal)
        {
            self.stamp_max = self.stamp_max.max(stamp);
        }
        self.last = Some(entry.log_id);
        self.sizes.push(entry.log_id.index, payload_len(&entry) as u64);
        self.cache_bytes += payload_len(&entry);
        self.cache.push_back(entry);
        while self.cache_bytes > CACHE_BYTES_MAX && self.cache.len() > 1 {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.cache.pop_front() {
            self.cache_bytes -= payload_len(&entry);
        }
    }
}

/// What an entry weighs in the cache and in a request.
fn payload_len(entry: &Entry) -> usize {
    const OVERHEAD: usize = 128;
    OVERHEAD
        + match &entry.payload {
            EntryPayload::Normal(proposal) => proposal.0.len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        }
}

/// First index, and the index after the last.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index + 1,
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for RangeLog {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX)
    }

    /// In pieces: a replica that was away long applies all it missed from one stream.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let piece = move |(log, next): (Self, u64)| async move {
            let entries = log.read(next, end, REQUEST_BYTES_MAX)?;
            let after = entries.last().map(|entry| entry.log_id.index + 1);
            let entries = futures::stream::iter(entries.into_iter().map(Ok));
            Ok::<_, io::Error>(after.map(|next| (entries, (log, next))))
        };
        futures::stream::try_unfold((self.clone(), start), piece).try_flatten().boxed()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        if start < self.state().first {
            // Purged meanwhile. What comes later does not follow what the other replica has.
            return Ok(Vec::new());
        }
        self.read(start, end, REQUEST_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        match self.read_vote_row()? {
            Some(row) => Ok(Some(wire::decode::<wire::Vote>(&row)?.into())),
            None => Ok(None),
        }
    }
}

impl RaftLogStorage<TypeConfig> for RangeLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.state();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let mut batch = Batch::new();
        let key = key::log::vote(self.shared.range, self.shared.generation);
        batch.put(Column::Log, key, wire::encode(&wire::Vote::from(vote)));
        self.write(batch)?;
        self.shared.committer.durable().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        if let (Some(entry), Some(last)) = (entries.first(), self.state().last)
            && entry.log_id.index > last.index + 1
        {
            // The store would be refused at the next start. What follows a snapshot comes when that is installed:
            // openraft purges the log first, which waits for it, and executes in order.
            return Err(hole(self.shared.range, last.index + 1));
        }
        let mut batch = Batch::new();
        for entry in &entries {
            let key =
                key::log::entry(self.shared.range, self.shared.generation, entry.log_id.index);
            batch.put(Column::Log, key, wire::encode_entry(entry));
        }
        self.write(batch)?;
        let too_large = {
            let mut state = self.state();
            for entry in entries {
                state.push(entry);
            }
            state.sizes.held() > self.shared.bytes_max
        };
        if too_large {
            self.shared.grown.notify_one();
        }
        self.shared.committer.durable_then(callback);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.as_ref().map_or(0, |id| id.index + 1);
        let span = key::log::entries_from(self.shared.range, self.shared.generation, from);
        let mut batch = Batch::new();
        batch.delete_range(Column::Log, span.start, span.end);
        let mut state = self.state();
        if from >= state.end() {
            return Ok(());
        }
        Mark::LogTruncated.hit();
        // Before the rows go, so that a read under way does not take them for lost.
        state.truncations += 1;
        // Unsynced: the next append, in the same write-ahead log, makes it durable with itself.
        self.write(batch)?;
        while state.cache.back().is_some_and(|entry| entry.log_id.index >= from) {
            if let Some(entry) = state.cache.pop_back() {
                state.cache_bytes -= payload_len(&entry);
            }
        }
        state.last = last;
        state.sizes.truncate(from);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let Shared { range, generation, .. } = &*self.shared;
        let from = {
            let state = self.state();
            if state.purged.as_ref().is_some_and(|purged| purged.index >= upto.index) {
                // A snapshot that was installed has taken these entries with it.
                return Ok(());
            }
            state.first
        };
        let mut batch = Batch::new();
        Self::stage_purge(*range, *generation, from, &upto, &mut batch);
        self.write(batch)?;
        self.note_purged(upto);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

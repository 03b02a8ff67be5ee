//! What must hold at every moment of every run, looked at where a node meets its disk.
//!
//! ```text
//!   node ── write(batch) ──▶ Invariants ──▶ disk
//!                             ├─ bound     INV-1  nothing is applied above the durable bound
//!   both ─────────────────────├─ merged    INV-2  a question's clock comes before its effect, an answer's last
//!                             ├─ stamps    INV-3  applied stamps rise
//!   client ── receipt ───────▶├─ closed    INV-4  what was closed stays closed
//!   step ──── marks ─────────▶├─ frontier  INV-5  what is said of local writes is durable
//!   wire ──── message ───────▶├─ held      INV-6  marks are over what is held
//!                             ├─ stretches INV-6  what is sent of a stream is all of it
//!                             ├─ shown     INV-7  what is shown is shown with its causes
//!                             ├─ ids       INV-8  each id takes effect once
//!                             ├─ folds     INV-8  each local write is folded once, none is left out
//!                             ├─ values    INV-8  what keys hold is what their types say of the log's writes
//!                             ├─ replay    INV-9  the base is a function of the log alone
//!                             ├─ replicas  INV-9  at the same entry all are the same
//!                             ├─ logs             log matching, leader completeness, append-only, what stays, votes
//!                             ├─ applied          state machine safety
//!                             ├─ committed        what is applied is durable on a quorum
//!                             └─ fenced           nobody follows a clock that is far ahead
//! ```
//!
//! A violation stops the run at the end of its step; nothing is thrown inside the node.

mod applied;
mod bound;
mod closed;
mod committed;
mod deltas;
mod fenced;
mod folds;
mod frontier;
mod held;
mod ids;
mod logs;
mod merged;
mod replay;
mod replicas;
mod shown;
mod stamps;
mod stretches;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use applied::First;
use deltas::Event;
use latitude_consensus::inspect::{self, EntryId};
use latitude_node::LocalMarks;
use latitude_range::{Content, RangeMeta};
use latitude_storage::{Batch, Column, View, Write, key};
use latitude_types::{Key, RangeId, Stamp, Timestamp, WriteTime};

pub(crate) use replicas::{difference, ranges};
use stretches::Wanted;

use crate::clock::SimClock;
use crate::net::Wire;
use crate::tap::{Said, Told};
use crate::violation::{Check, Violation};

/// The invariants of one cluster. Clones are the same.
#[derive(Clone)]
pub(crate) struct Invariants {
    clock: SimClock,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    bounds: bound::Bounds,
    committed: committed::Committed,
    states: replicas::Applied,
    replays: replay::Replays,
    logs: logs::Logs,
    entries: applied::AppliedEntries,
    ids: ids::Ids,
    closed: closed::Closed,
    deltas: deltas::Deltas,
    frontiers: frontier::Frontiers,
    marks: held::Held,
    stretches: stretches::Stretches,
    merged: merged::Merged,
    shown: shown::Shown,
    folds: folds::Folds,
    /// Who holds a replica of which range.
    held: BTreeSet<(Arc<str>, RangeId)>,
    /// Ranges whose replicas may go.
    dropped: BTreeSet<RangeId>,
    violations: Vec<Violation>,
    /// How many batches with applied entries were looked at.
    looked_at: u64,
    /// How often a snapshot was installed.
    replacements: u64,
}

impl fmt::Debug for Invariants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invariants").finish_non_exhaustive()
    }
}

impl Inner {
    fn applies(&mut self, host: &Arc<str>, range: RangeId, upto: EntryId) -> Vec<Violation> {
        let first = match self.entries.applies(host, range, upto, &self.logs) {
            Ok(first) => first,
            Err(found) => return vec![found],
        };
        let mut found = Vec::new();
        for First { range, index, entry } in first {
            self.ids.applied(&entry);
            found.extend(self.folds.applied(range, index, &entry, &self.deltas));
            found.extend(self.replays.applied(range, index, &entry));
            found.extend(self.closed.applied(range, index, entry.stamp));
        }
        found
    }

    /// Follows the entries of a range from here on, if this store has applied all that anybody has.
    fn follow(&mut self, range: RangeId, from: Option<u64>, store: &dyn View) {
        let Some(from) = from.filter(|_| !self.replays.follows(range)) else { return };
        if self.entries.of(range).last().is_none_or(|(index, _)| index <= from) {
            self.replays.follow(range, from, store);
        }
    }

    fn note(&mut self, host: &str, found: Vec<Violation>) {
        let found = found.into_iter();
        self.violations.extend(
            found.map(|Violation { check, message }| check.found(format!("{host}: {message}"))),
        );
    }
}

impl Invariants {
    pub(crate) fn new(clock: SimClock) -> Self {
        Self { clock, inner: Arc::default() }
    }

    /// A host has opened its store, as it was left.
    pub(crate) fn opened(&self, host: &Arc<str>, store: &dyn View) {
        let mut inner = self.lock();
        inner.bounds.opened(host, store);
        inner.committed.opened(host, store);
        inner.logs.opened(host, store);
        let metas = ranges(store);
        inner.deltas.opened(host, store, &metas);
        inner.marks.opened(host);
        inner.shown.opened(host);
        let applied = metas.into_iter().filter_map(|meta| {
            let row = store.get(Column::Base, &key::local::applied(meta.id)).ok()??;
            Some((meta.id, inspect::applied(&row).ok()?.last?.index))
        });
        inner.entries.opened(host, applied.collect());
    }

    /// A host is about to write.
    pub(crate) fn writes(&self, host: &Arc<str>, store: &dyn View, batch: &Batch) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.bounds.writes(host, batch);
        inner.committed.writes(host, batch);
        let mut found = inner.logs.writes(host, batch, &inner.entries, &inner.dropped);
        for event in inner.deltas.writes(host, batch) {
            found.extend(match event {
                Event::Takes(delta) => inner.frontiers.takes(&delta),
                Event::Drops(row) => held::Held::drops(host, row, &inner.deltas),
            });
        }
        for (range, row) in applied_rows(batch) {
            inner.looked_at += 1;
            let from = inner.entries.by(host, range);
            inner.follow(range, from, store);
            if let Ok(Some(upto)) = inspect::applied(row).map(|applied| applied.last) {
                found.extend(inner.applies(host, range, upto));
            }
            inner.held.insert((Arc::clone(host), range));
            let before = meta_in_store(store, range);
            let Some(after) = meta_in_batch(batch, range).or_else(|| before.clone()) else {
                continue;
            };
            found.extend(stamps::violation(before.as_ref(), &after));
            found.extend(inner.bounds.violation(host, &after));
            found.extend(inner.committed.violation(host, store, row, &after));
            found.extend(fenced::violation(&self.clock, &after));
            found.extend(inner.states.violation(host, row, &after));
            if let (Some(from), Some(before)) = (from, &before) {
                let entries = (from, inner.entries.by(host, range).unwrap_or(from));
                found.extend(inner.folds.folds(entries, before, &after, &inner.deltas));
                found.extend(inner.replays.writes(range, entries, batch));
            }
            inner.deltas.applies(host, &after);
        }
        found.extend(inner.ids.writes(batch));
        found.extend(inner.folds.writes(batch));
        inner.note(host, found);
    }

    /// A host has replaced rows by those of a snapshot: it must now hold what it would by applying.
    pub(crate) fn replaced(&self, host: &Arc<str>, before: &dyn View, after: &dyn View) {
        let mut inner = self.lock();
        inner.replacements += 1;
        let mut found = Vec::new();
        for meta in ranges(after) {
            let row = after.get(Column::Base, &key::local::applied(meta.id)).ok().flatten();
            let (before, Some(row)) = (meta_in_store(before, meta.id), row) else { continue };
            inner.committed.replaced(host, meta.id, &row);
            inner.deltas.applies(host, &meta);
            inner.looked_at += 1;
            if let Ok(Some(upto)) = inspect::applied(&row).map(|applied| applied.last) {
                found.extend(inner.entries.installed(host, meta.id, upto));
                found.extend(inner.replays.installed(meta.id, upto.index, after));
            }
            found.extend(stamps::violation(before.as_ref(), &meta));
            found.extend(inner.bounds.violation(host, &meta));
            found.extend(inner.states.violation(host, &row, &meta));
        }
        inner.note(host, found);
    }

    /// The receipt of a read said that everything below `time` is among the entries up to `index`.
    pub(crate) fn told(&self, client: &str, range: RangeId, index: u64, time: Timestamp) {
        let mut inner = self.lock();
        let found = inner.closed.told(range, index, time);
        inner.note(client, found.into_iter().collect());
    }

    /// A client was told that it wrote this, in a session that had seen nothing above that time.
    pub(crate) fn wrote(&self, client: &str, seen: Timestamp, version: &WriteTime) {
        let found = merged::wrote(seen, version.time);
        self.lock().note(client, found.into_iter().collect());
    }

    /// A client was told that it wrote this.
    pub(crate) fn acknowledged(&self, client: &str, version: &WriteTime) {
        let mut inner = self.lock();
        let found = inner.ids.acknowledged(version);
        let found = found.or_else(|| frontier::Frontiers::acknowledged(version, &inner.deltas));
        inner.note(client, found.into_iter().collect());
    }

    /// A step has ended, and this is what a host holds true of local writes.
    pub(crate) fn marks(&self, host: &Arc<str>, marks: &LocalMarks) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if inner.deltas.is_empty() {
            return;
        }
        let deltas = &inner.deltas;
        let node = logs::node_of(host);
        let mut found = Vec::new();
        found.extend(node.and_then(|node| inner.frontiers.says(node, marks.durable, deltas)));
        found.extend(inner.marks.marks(host, &marks.held, deltas));
        let stamps = |range, up_to| inner.entries.last_stamp(range, up_to);
        found.extend(inner.shown.marks(host, marks, deltas, stamps));
        inner.note(host, found);
    }

    /// A host says something to another one, on that connection.
    pub(crate) fn said(&self, host: &Arc<str>, to: &str, wire: &Wire, told: &Told) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut found = Vec::new();
        let call = (wire, told.call);
        match &told.said {
            Said::Pull(pull) => {
                inner.merged.asked(call, told.clock);
                if let Some(wanted) = inner.stretches.asked(host, to, call, pull) {
                    let Wanted { origin, ranges } = &wanted;
                    let told = pull.ranges.iter().map(|of| (RangeId(of.range_id), of.after));
                    let all = ranges.keys().map(|range| (*range, pull.held));
                    for (range, up_to) in all.chain(told) {
                        let up_to = Timestamp(up_to);
                        found.extend(held::Held::tells(host, *origin, range, up_to, &inner.deltas));
                    }
                }
            }
            Said::Stretch(stretch) => {
                found.extend(inner.merged.answered(call, told.clock, Timestamp(stretch.to)));
                if let Some(wanted) = inner.stretches.answered(call)
                    && stretch.refused.is_empty()
                    && !stretch.unknown
                {
                    if logs::node_of(host) == Some(wanted.origin) {
                        let up_to = Timestamp(stretch.to);
                        found.extend(inner.frontiers.says(wanted.origin, up_to, &inner.deltas));
                    }
                    found.extend(stretches::violation(&wanted, stretch, &inner.deltas));
                }
            }
        }
        inner.note(host, found);
    }

    /// How often a replica was seen to begin to lead, and how many receipts were held against INV-4.
    pub(crate) fn elections_and_receipts(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.logs.elections(), inner.closed.receipts())
    }

    /// The local writes that won a register when they were folded: which, what they left, and the entry's stamp.
    pub(crate) fn winners(&self) -> Vec<(WriteTime, Key, Content, Stamp)> {
        let inner = self.lock();
        // The rows show those that their entry has left; the replay also what it replaced at once.
        let seen = inner.folds.winners();
        let seen = seen.map(|(time, key, content, at)| (*time, key.clone(), content.clone(), at));
        let mut winners = BTreeMap::new();
        for (time, key, content, at) in inner.replays.winners().chain(seen) {
            let first = winners.entry(time).or_insert((key, content, at));
            first.2 = first.2.min(at);
        }
        let winners =
            winners.into_iter().map(|(time, (key, content, at))| (time, key, content, at));
        let mut winners: Vec<_> = winners.collect();
        // In one entry those of a key stand in the order of their times: each was replaced by the next.
        winners.sort_by_key(|(time, .., at)| (*at, *time));
        winners
    }

    /// A host has synced.
    pub(crate) fn synced(&self, host: &Arc<str>) {
        let mut inner = self.lock();
        inner.bounds.synced(host);
        inner.committed.synced(host);
        inner.deltas.synced(host);
    }

    /// Somebody drops the keyspace of that range.
    pub(crate) fn dropped(&self, range: RangeId) {
        self.lock().dropped.insert(range);
    }

    /// A replica that is gone from these stores, though no disk has lost what was synced.
    pub(crate) fn lost_replica(&self, stores: &[(Arc<str>, &dyn View)]) -> Option<Violation> {
        let inner = self.lock();
        stores.iter().find_map(|(host, store)| {
            let of_host = inner.held.iter().filter(|(holder, _)| holder == host);
            let lost = of_host
                .map(|(_, range)| *range)
                .filter(|range| !inner.dropped.contains(range))
                .find(|range| meta_in_store(*store, *range).is_none())?;
            Some(Check::ReplicasEqual.found(format!("{host} has lost its replica of {lost}")))
        })
    }

    /// What was violated first, if anything was.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.lock().violations.first().cloned()
    }

    /// How many batches of applied entries were looked at.
    pub(crate) fn looked_at(&self) -> u64 {
        self.lock().looked_at
    }

    /// How often a snapshot was installed.
    pub(crate) fn replacements(&self) -> u64 {
        self.lock().replacements
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the invariants")
    }
}

/// The rows in a batch that say how far a range is applied.
fn applied_rows(batch: &Batch) -> impl Iterator<Item = (RangeId, &[u8])> {
    batch.iter().filter_map(|write| match write {
        Write::Put { column: Column::Base, key, value } => {
            // keyspace 0 (u32), range (u64), kind (u8): see the table of keys in `latitude_storage::key`.
            let range = u64::from_be_bytes(key.get(4..12)?.try_into().ok()?);
            let range = RangeId(range);
            (**key == key::local::applied(range)[..]).then_some((range, &**value))
        }
        _ => None,
    })
}

fn meta_in_batch(batch: &Batch, range: RangeId) -> Option<RangeMeta> {
    let wanted = key::local::meta(range);
    batch.iter().rev().find_map(|write| match write {
        Write::Put { column: Column::Base, key, value } if **key == wanted[..] => {
            RangeMeta::decode(value).ok()
        }
        _ => None,
    })
}

fn meta_in_store(store: &dyn View, range: RangeId) -> Option<RangeMeta> {
    let row = store.get(Column::Base, &key::local::meta(range)).ok()??;
    RangeMeta::decode(&row).ok()
}

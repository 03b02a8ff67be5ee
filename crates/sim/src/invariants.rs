//! What must hold at every moment of every run, looked at where a node meets its disk.
//!
//! ```text
//!   node ── write(batch) ──▶ Invariants ──▶ disk
//!                             ├─ bound     INV-1  nothing is applied above the durable bound
//!                             ├─ stamps    INV-3  applied stamps rise
//!   client ── receipt ───────▶├─ closed    INV-4  what was closed stays closed
//!                             ├─ ids       INV-8  each id takes effect once
//!                             ├─ replicas  INV-9  the base is a function of the log alone
//!                             ├─ logs             log matching, leader completeness, votes
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
mod fenced;
mod ids;
mod logs;
mod replicas;
mod stamps;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use applied::First;
use latitude_consensus::inspect::{self, EntryId};
use latitude_range::RangeMeta;
use latitude_storage::{Batch, Column, View, Write, key};
use latitude_types::{RangeId, Timestamp, WriteTime};

pub(crate) use replicas::difference;

use crate::clock::SimClock;
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
    logs: logs::Logs,
    entries: applied::AppliedEntries,
    ids: ids::Ids,
    closed: closed::Closed,
    /// Who holds a replica of which range.
    held: BTreeSet<(Arc<str>, RangeId)>,
    violations: Vec<Violation>,
    /// How many batches with applied entries were looked at.
    looked_at: u64,
    /// How often a snapshot was installed.
    replacements: u64,
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
            found.extend(self.closed.applied(range, index, entry.stamp));
        }
        found
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
        let applied = replicas::ranges(store).into_iter().filter_map(|meta| {
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
        let mut found = inner.logs.writes(host, batch, &inner.entries);
        for (range, row) in applied_rows(batch) {
            inner.looked_at += 1;
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
        }
        found.extend(inner.ids.writes(batch));
        inner.note(host, found);
    }

    /// A host has replaced rows by those of a snapshot: it must now hold what it would by applying.
    pub(crate) fn replaced(&self, host: &Arc<str>, before: &dyn View, after: &dyn View) {
        let mut inner = self.lock();
        inner.replacements += 1;
        let mut found = Vec::new();
        for meta in replicas::ranges(after) {
            let row = after.get(Column::Base, &key::local::applied(meta.id)).ok().flatten();
            let (before, Some(row)) = (meta_in_store(before, meta.id), row) else { continue };
            inner.committed.replaced(host, meta.id, &row);
            inner.looked_at += 1;
            if let Ok(Some(upto)) = inspect::applied(&row).map(|applied| applied.last) {
                found.extend(inner.entries.installed(host, meta.id, upto));
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

    /// A client was told that it wrote this.
    pub(crate) fn acknowledged(&self, client: &str, version: &WriteTime) {
        let mut inner = self.lock();
        let found = inner.ids.acknowledged(version);
        inner.note(client, found.into_iter().collect());
    }

    /// How often a replica was seen to begin to lead, and how many receipts were held against INV-4.
    pub(crate) fn elections_and_receipts(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.logs.elections(), inner.closed.receipts())
    }

    /// A host has synced.
    pub(crate) fn synced(&self, host: &Arc<str>) {
        let mut inner = self.lock();
        inner.bounds.synced(host);
        inner.committed.synced(host);
    }

    /// A replica that is gone from these stores, though no disk has lost what was synced.
    pub(crate) fn lost_replica(&self, stores: &[(Arc<str>, &dyn View)]) -> Option<Violation> {
        let inner = self.lock();
        stores.iter().find_map(|(host, store)| {
            let of_host = inner.held.iter().filter(|(holder, _)| holder == host);
            let lost = of_host
                .map(|(_, range)| *range)
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

//! What must hold at every moment of every run, looked at where a node meets its disk.
//!
//! ```text
//!   node ── write(batch) ──▶ Invariants ──▶ disk
//!                             ├─ stamps   INV-3  applied stamps rise
//!                             ├─ bound    INV-1  nothing is applied above the durable bound
//!                             ├─ committed       what is applied is durable on a quorum
//!                             ├─ fenced          nobody follows a clock that is far ahead
//!                             └─ replicas INV-9  the base is a function of the log alone
//! ```
//!
//! A violation stops the run at the end of its step; nothing is thrown inside the node.

mod bound;
mod committed;
mod fenced;
mod replicas;
mod stamps;

use std::sync::{Arc, Mutex, MutexGuard};

use latitude_range::RangeMeta;
use latitude_storage::{Batch, Column, View, Write, key};

pub(crate) use replicas::difference;

use crate::clock::SimClock;
use crate::violation::Violation;

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
    applied: replicas::Applied,
    violations: Vec<Violation>,
    /// How many batches with applied entries were looked at.
    looked_at: u64,
    /// How often a snapshot was installed.
    replacements: u64,
}

impl Inner {
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
    }

    /// A host is about to write.
    pub(crate) fn writes(&self, host: &Arc<str>, store: &dyn View, batch: &Batch) {
        let mut inner = self.lock();
        inner.bounds.writes(host, batch);
        inner.committed.writes(host, batch);
        let mut found = Vec::new();
        for (range, row) in applied_rows(batch) {
            inner.looked_at += 1;
            let before = meta_in_store(store, range);
            let Some(after) = meta_in_batch(batch, range).or_else(|| before.clone()) else {
                continue;
            };
            found.extend(stamps::violation(before.as_ref(), &after));
            found.extend(inner.bounds.violation(host, &after));
            found.extend(inner.committed.violation(host, store, row, &after));
            found.extend(fenced::violation(&self.clock, &after));
            found.extend(inner.applied.violation(host, row, &after));
        }
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
            found.extend(stamps::violation(before.as_ref(), &meta));
            found.extend(inner.bounds.violation(host, &meta));
            found.extend(inner.applied.violation(host, &row, &meta));
        }
        inner.note(host, found);
    }

    /// A host has synced.
    pub(crate) fn synced(&self, host: &Arc<str>) {
        let mut inner = self.lock();
        inner.bounds.synced(host);
        inner.committed.synced(host);
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
fn applied_rows(batch: &Batch) -> impl Iterator<Item = (latitude_types::RangeId, &[u8])> {
    batch.iter().filter_map(|write| match write {
        Write::Put { column: Column::Base, key, value } => {
            // keyspace 0 (u32), range (u64), kind (u8): see the table of keys in `latitude_storage::key`.
            let range = u64::from_be_bytes(key.get(4..12)?.try_into().ok()?);
            let range = latitude_types::RangeId(range);
            (**key == key::local::applied(range)[..]).then_some((range, &**value))
        }
        _ => None,
    })
}

fn meta_in_batch(batch: &Batch, range: latitude_types::RangeId) -> Option<RangeMeta> {
    let wanted = key::local::meta(range);
    batch.iter().rev().find_map(|write| match write {
        Write::Put { column: Column::Base, key, value } if **key == wanted[..] => {
            RangeMeta::decode(value).ok()
        }
        _ => None,
    })
}

fn meta_in_store(store: &dyn View, range: latitude_types::RangeId) -> Option<RangeMeta> {
    let row = store.get(Column::Base, &key::local::meta(range)).ok()??;
    RangeMeta::decode(&row).ok()
}

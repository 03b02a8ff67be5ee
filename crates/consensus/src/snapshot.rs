//! Snapshots: a range's base, streamed to a replica that the leader's log no longer reaches.
//!
//! ```text
//!   leader                                            follower
//!   ──────                                            ────────
//!   log too large: purge ─▶ "snapshot, please"
//!   its turn on this node (one at a time)
//!   engine snapshot: header, rows in order
//!        │  begin ──────────────────────────────────▶ stage a set of rows beside the store
//!        │  chunk, chunk, ... (paced, 4 under way) ──▶   ... checked one by one
//!        └─ end, checksum ──────────────────────────▶ whole? ─▶ Raft ─▶ install (redo-able) ─▶ "installed"
//! ```
//!
//! Building one costs nothing. What Raft is given is a promise: the engine's snapshot is taken when the
//! transfer begins, and its own applied row says where in the log it stands. That may be later than what
//! Raft was told, never earlier; and nothing is pinned while a transfer waits for its turn.
//!
//! A transfer that breaks leaves nothing behind and begins anew. How an installation survives a crash is
//! told in [`install`].

mod header;
pub(crate) mod install;
mod pace;
pub(crate) mod receive;
pub(crate) mod send;
mod steps;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use latitude_storage::{Column, Engine, SetName, key};
use latitude_types::RangeId;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

pub(crate) use header::Header;
pub(crate) use pace::Pace;
pub use steps::{Failpoints, NoFailpoints, Step};

use crate::wire;

/// What a chunk carries, unless a single row is larger: an eighth of a second's worth, within these.
const CHUNK_BYTES: (u64, u64) = (4 << 10, 1 << 20);

/// When logs are shortened, and how fast snapshots are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotSettings {
    /// A range's log is shortened once it holds about so many bytes. A half of that stays, so that a
    /// replica that was away for a short while needs no snapshot.
    pub log_bytes_max: u64,
    /// What a node sends of snapshots, and reads for audits, in bytes per second, all ranges together.
    pub bytes_per_second: u64,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self { log_bytes_max: 64 << 20, bytes_per_second: 32 << 20 }
    }
}

impl SnapshotSettings {
    /// What is left of a log that was shortened.
    pub(crate) fn log_bytes_kept(&self) -> u64 {
        self.log_bytes_max / 2
    }

    /// How large chunks are. Small ones when they are sent slowly, so that none is long in coming.
    pub(crate) fn chunk_bytes(&self) -> usize {
        (self.bytes_per_second / 8).clamp(CHUNK_BYTES.0, CHUNK_BYTES.1) as usize
    }

    /// From here on a log is shortened even under a follower that is there and slow.
    pub(crate) fn log_bytes_hard_max(&self) -> u64 {
        self.log_bytes_max.saturating_mul(4)
    }
}

/// Counts since the start, of one node.
#[derive(Debug, Default)]
pub struct SnapshotStats {
    pub(crate) sent: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) installed: AtomicU64,
    pub(crate) broken: AtomicU64,
    pub(crate) purges: AtomicU64,
}

impl SnapshotStats {
    /// Snapshots that another replica has taken whole.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes of rows sent, of broken transfers too.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Snapshots received whole.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes of rows received, of broken transfers too.
    pub fn bytes_received(&self) -> u64 {
        self.bytes_received.load(Ordering::Relaxed)
    }

    /// Snapshots installed, those that a crash had interrupted among them.
    pub fn installed(&self) -> u64 {
        self.installed.load(Ordering::Relaxed)
    }

    /// Transfers to or from here that broke.
    pub fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }

    /// How often a log was shortened.
    pub fn purges(&self) -> u64 {
        self.purges.load(Ordering::Relaxed)
    }

    pub(crate) fn count(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// What the snapshots of all groups of a node share. Cheap to clone.
#[derive(Clone)]
pub struct Snapshots {
    pub(crate) settings: SnapshotSettings,
    pub(crate) stats: Arc<SnapshotStats>,
    pub(crate) failpoints: Arc<dyn Failpoints>,
    /// Held by the one transfer from this node that is under way.
    pub(crate) outgoing: Arc<Semaphore>,
    pub(crate) pace: Arc<Pace>,
    /// Numbers sets and transfers.
    next: Arc<AtomicU64>,
}

impl Snapshots {
    /// On a store just opened: what transfers left behind unfinished is removed.
    ///
    /// # Errors
    /// The store fails.
    pub fn open(
        engine: &dyn Engine,
        settings: SnapshotSettings,
        failpoints: Arc<dyn Failpoints>,
    ) -> io::Result<Self> {
        let mut installing = BTreeSet::new();
        for row in engine.scan(Column::Node, key::node::installings().scan()) {
            let (_, row) = row.map_err(io::Error::other)?;
            installing.insert(wire::decode::<Installing>(&row)?.set());
        }
        let mut next = 1;
        for set in engine.staged().map_err(io::Error::other)? {
            next = next.max(set.0 + 1);
            if !installing.contains(&set) {
                engine.discard(set).map_err(io::Error::other)?;
            }
        }
        Ok(Self {
            settings,
            stats: Arc::default(),
            failpoints,
            outgoing: Arc::new(Semaphore::new(1)),
            pace: Arc::new(Pace::new(settings.bytes_per_second)),
            next: Arc::new(AtomicU64::new(next)),
        })
    }

    /// The counts.
    pub fn stats(&self) -> &SnapshotStats {
        &self.stats
    }

    /// A number not given before since the start, nor in use on the disk.
    pub(crate) fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn reached(&self, range: RangeId, step: Step) -> io::Result<()> {
        self.failpoints.reached(range, step)
    }
}

/// The row that says: this set is being installed, whatever else the store shows of the range.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Installing {
    set: u64,
    /// The snapshot's header, encoded.
    header: Bytes,
}

impl Installing {
    pub(crate) fn set(&self) -> SetName {
        SetName(self.set)
    }
}

/// A set of staged rows, discarded with this unless it is taken.
pub(crate) struct StagedSet {
    engine: Arc<dyn Engine>,
    set: Option<SetName>,
}

impl StagedSet {
    pub(crate) fn new(engine: Arc<dyn Engine>, set: SetName) -> Self {
        Self { engine, set: Some(set) }
    }

    /// From here on the set stays.
    pub(crate) fn take(mut self) -> Option<SetName> {
        self.set.take()
    }
}

impl Drop for StagedSet {
    fn drop(&mut self) {
        if let Some(set) = self.set {
            // What cannot be removed now is removed at the next start.
            let _ = self.engine.discard(set);
        }
    }
}

/// What Raft passes from hand to hand as a snapshot's data.
pub(crate) enum SnapshotData {
    /// The base of this replica, to be read when it is sent.
    Base,
    /// Rows that were received, whole and durable, beside the store.
    Staged {
        /// What they are.
        header: Box<Header>,
        /// Where they are.
        set: StagedSet,
    },
}

/// Waits for something that tells when it has ended.
pub(crate) async fn ended(call: impl FnOnce(latitude_storage::Done)) -> io::Result<()> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    call(Box::new(move |result| {
        // Whoever stopped waiting need not know.
        let _ = sender.send(result);
    }));
    match receiver.await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::other("the store gave up")),
    }
}

#[cfg(test)]
mod tests;

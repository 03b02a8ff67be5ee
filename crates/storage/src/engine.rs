//! The ports: what a node asks of whatever keeps its bytes.

use std::fmt;

use bytes::Bytes;

use crate::key::Span;
use crate::{Batch, Column, Result};

/// The rows of a scan, key and value, in the order asked for. After an error it ends.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<(Bytes, Bytes)>> + Send + 'a>;

/// Which keys to walk, and in which direction.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Scan {
    /// The lower bound, included; empty is the least.
    pub start: Vec<u8>,
    /// The upper bound, excluded; `None` is the end of the column.
    pub end: Option<Vec<u8>>,
    /// From the highest key down, instead of from the lowest up. The bounds stay as they are.
    pub reverse: bool,
}

impl Scan {
    /// Every key of the column, upwards.
    pub fn all() -> Self {
        Self::default()
    }

    /// The keys from `start` (included) to `end` (excluded), upwards.
    pub fn between(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self { start: start.into(), end: Some(end.into()), reverse: false }
    }

    /// The same keys, downwards.
    pub fn reversed(self) -> Self {
        Self { reverse: true, ..self }
    }

    /// Whether no key can lie in it.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// Something to read from.
///
/// The engine itself is one: each `get` sees the newest state, and a `scan` the state at its own
/// beginning. Whoever reads twice and means one moment takes a snapshot.
pub trait View: Send + Sync {
    /// The value of a key, if it has one.
    fn get(&self, column: Column, key: &[u8]) -> Result<Option<Bytes>>;

    /// The rows of a span. Read what you need and drop it: an engine keeps files alive for it.
    fn scan(&self, column: Column, scan: Scan) -> Rows<'_>;
}

/// Keeps rows in columns. See the crate's documentation for what it promises.
///
/// Every call may block on the disk.
pub trait Engine: View + 'static {
    /// Writes a batch: atomic, visible at once, and durable once a `sync` that began afterwards has
    /// returned. Never syncs by itself.
    ///
    /// An error of kind [`Full`](crate::Kind::Full) means that nothing was written and that a later
    /// write may succeed; any other is final, as an error of `sync` is.
    fn write(&self, batch: Batch) -> Result<()>;

    /// Makes durable everything written before the call.
    ///
    /// An error, of whatever kind, is final: the node must stop. Nothing can be said about the writes
    /// since the last sync that returned, and a second try would succeed without having written
    /// anything, because the kernel has dropped the dirty pages. Every later `write` and `sync` fails
    /// with kind [`Fatal`](crate::Kind::Fatal).
    fn sync(&self) -> Result<()>;

    /// Everything as it is now, unaffected by later writes. Keep it short: it pins what it shows.
    fn snapshot(&self) -> Box<dyn View + '_>;

    /// Begins a set of rows that is to [replace](Engine::replace) everything in `spans` of `column`:
    /// beside the store's rows, not among them. The spans ascend and do not meet.
    ///
    /// A set of that name must not be there: [discard](Engine::discard) it first.
    fn stage(&self, set: SetName, column: Column, spans: Vec<Span>) -> Result<Box<dyn Staging>>;

    /// The sets that are there, finished or not, in order. What a crash or a process left behind
    /// unfinished is among them, and can only be discarded.
    fn staged(&self) -> Result<Vec<SetName>>;

    /// Replaces the rows in the spans of a finished set by those of the set: for every reader at once, and
    /// durable when `done` is called. The set stays, so that this can be repeated.
    ///
    /// It stands in the order of writes where it is called, but not in the write-ahead log: it survives a
    /// crash that loses writes made before it and not synced. Whoever needs them first syncs first.
    fn replace(&self, set: SetName, done: Done);

    /// Removes a set, finished or not. Nothing, if it is not there.
    fn discard(&self, set: SetName) -> Result<()>;

    /// What was missing or damaged when the store was opened; `None` if it was whole.
    ///
    /// It is found again at every opening, at least until the first `sync`: what a node decides about
    /// the damage belongs into a batch written before that.
    fn damage(&self) -> Option<&Damage>;

    /// Bytes that can still be written where the store lives.
    fn free_space(&self) -> Result<u64>;
}

/// The name of a set of staged rows, chosen by whoever stages it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SetName(pub u64);

/// Told once how something ended, from whichever thread it ended on.
pub type Done = Box<dyn FnOnce(Result<()>) + Send>;

/// Takes the rows of a set. Dropped unfinished it leaves a set that can only be discarded.
pub trait Staging: Send {
    /// Adds rows: ascending, above all that came before, within the spans. `done` is called once the next
    /// may come, so that whoever waits for it keeps memory bounded; after an error the set is lost.
    fn put(&mut self, rows: Vec<(Bytes, Bytes)>, done: Done);

    /// Ends the set. It is whole and durable when `done` is called without an error.
    fn finish(self: Box<Self>, done: Done);
}

/// Writes that a `sync` had made durable are not there any more: the disk, or somebody, lost them.
///
/// A node whose store is damaged may have acknowledged what it no longer has. It must neither vote nor
/// acknowledge with the replicas it finds, but have them rebuilt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Damage {
    /// The log of writes ends before the last write known to be durable.
    WritesMissing {
        /// How far the store reaches now, in the engine's own count of writes.
        recovered: u64,
        /// How far it reached, durably, when that was last noted.
        synced: u64,
    },
    /// The note of how far the store reached is itself missing or damaged, so nothing can be said.
    MarkerUnreadable,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WritesMissing { recovered, synced } => write!(
                f,
                "the store ends at write {recovered}, though writes up to {synced} were durable"
            ),
            Self::MarkerUnreadable => {
                f.write_str("the store's note of how far it is durable is missing or damaged")
            }
        }
    }
}

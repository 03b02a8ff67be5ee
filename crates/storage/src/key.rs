//! How rows are named: every kind of key there is, in sort order.
//!
//! Integers are big-endian. `‹key›` is the user's key, escaped and terminated (below); the kind byte
//! after it keeps several rows beside one key. The numbers in brackets are kind bytes.
//!
//! ```text
//! column   key                                                        what
//! ───────  ─────────────────────────────────────────────────────────  ──────────────────────────────
//! Log      range u64, generation u32, [1]                             vote of a replica
//!          range u64, generation u32, [2]                             state of its log (purged, …)
//!          range u64, generation u32, [3], index u64                  entry
//! Base     0 u32, range u64, [1]                                      metadata of a range
//!          0 u32, range u64, [2]                                      how far its log is applied
//!          0 u32, range u64, [3], client 16 B                         answers to log writes, by client
//!          keyspace u32, ‹key›, [1]                                   value
//!          keyspace u32, ‹key›, [2], birth u64, client 16 B,          result of a local write, or the
//!              sequence u64, [1 log | 2 local]                        mark of a spent id
//!          keyspace u32, ‹key›, [3] [4] [5]                           reserved: version stamp, lock, index
//! Overlay  keyspace u32, ‹key›, origin u32, position u64              delta
//! Stream   origin u32, position u64                                   delta
//! Node     [1]                                                        identity of the node
//!          [2]                                                        bound of its clock
//!          [3], range u64                                             a replica that lives here
//!          [4], origin u32                                            how much of an origin it called visible
//!          [5], range u64                                             the snapshot being installed
//!          [6]                                                        how long its promises to leaders last
//!          [7], range u64                                             how far the streams of its origins are held
//!          [8], range u64                                             how far it told to have applied its log
//!          [9]                                                        the directory its replicas were last changed by
//! ```
//!
//! Data names no range, so a split or merge moves no row. The rows of a range itself lie in keyspace 0
//! ([`KeyspaceId::LOCAL`](latitude_types::KeyspaceId::LOCAL)), which no user's key can enter. A replica's
//! log names the generation, so that what an earlier replica of the range left behind is never read as
//! the later one's.
//!
//! **Escaping.** In `‹key›` a byte 00 becomes `00 ff`, and `00 01` ends the key. Thus
//! - order is kept: `‹a› < ‹b›` exactly if `a < b` (the end is less than any byte that could follow);
//! - no `‹a›` is a prefix of a `‹b›`, so all rows of `a` lie together, below all rows of any greater key;
//! - `‹bound›`, of the bound of a span of keys, divides rows as the bound divides keys.

pub mod base;
mod escape;
pub mod local;
pub mod log;
pub mod node;
pub mod overlay;
pub mod stream;

use crate::Scan;

/// The rows from `start` (included) to `end` (excluded).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// The lower bound, included.
    pub start: Vec<u8>,
    /// The upper bound, excluded.
    pub end: Vec<u8>,
}

impl Span {
    /// Whether a row's key lies in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && *key < *self.end
    }

    /// A walk over it, upwards.
    pub fn scan(self) -> Scan {
        Scan { start: self.start, end: Some(self.end), reverse: false }
    }

    /// All keys that continue `prefix` with a kind byte: those are small, so ff is above each.
    fn of_kinds(prefix: Vec<u8>) -> Self {
        let mut end = prefix.clone();
        end.push(0xff);
        Self { start: prefix, end }
    }
}

impl From<Span> for Scan {
    fn from(span: Span) -> Self {
        span.scan()
    }
}

/// Splits a big-endian integer or other fixed array off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

/// Ends decoding: nothing may be left.
fn done<T>(rest: &[u8], value: T) -> Option<T> {
    rest.is_empty().then_some(value)
}

//! One key range as a state machine, replayed identically on every replica.
//!
//! ```text
//!   client ─▶ leader: Operation ─┐
//!                                ├─ Entry (stamp, operations) ─▶ log ─▶ Range::apply ─▶ Batch, replies
//!                    Segment ────┘                                          │
//!                                                             Reader ◀── base rows
//! ```
//!
//! What it keeps (`consistency.md`, part 2):
//!
//! * INV-3: applied stamps strictly rise; an entry whose stamp does not is refused, by every replica
//!   alike, and has no effect.
//! * INV-8: an operation id takes effect once, at one index.
//! * INV-9: the base is a function of the log alone: nothing here reads a clock, a random number or
//!   anything that is not in the log or in the base.
//!
//! Not known here: Raft, RocksDB, who leads, what time it is. An outcome that depends on them is
//! somebody else's.

mod audit;
mod codec;
mod delta;
mod entry;
mod fold;
mod id_rows;
mod ids;
mod image;
mod merge;
mod meta;
mod overlay;
mod range;
mod reader;
mod row;
mod staged;
mod sweep;
mod sweep_cursor;

pub use audit::{AUDIT_FORMAT, Audit, Audited, Auditor, differing};
pub use codec::DecodeError;
pub use delta::Delta;
pub use entry::{Admission, Body, Carried, Entry, EntryKind, Extension, Operation, Segment, Write};
pub use fold::{FoldCursor, capped, has_folded};
pub use ids::{Answer, IdTable, Lookup};
pub use image::{ImageChecksum, image_spans};
pub use latitude_crdt::{Content, Element, Expected, Misfit, Op, Sibling, Value, ValueType};
pub use meta::{FEATURE_LEVEL, Origin, OriginState, RangeMeta};
pub use overlay::{Overlay, Shown, Unfolded};
pub use range::{Applied, ApplyError, Done, Range, Refusal, Reply};
pub use reader::{Page, Reader, ScanRequest, ScanRow};
pub use row::{FOLDED, ValueRow};
pub use staged::Staged;
pub use sweep::{Kept, Looked, Sweep};
pub use sweep_cursor::{SweepCursor, Sweeping};

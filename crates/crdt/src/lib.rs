//! Mergeable values and the laws they keep.
//!
//! ```text
//!   log entry ── log write ──┐                                  ┌─▶ base: the row, its id rows
//!             └─ folded delta ┼─▶ State::merge(write, ids) ──────┤
//!   overlay ─── delta ────────┘         one function             └─▶ a read's view, thrown away
//! ```
//!
//! A key's [`State`] is its content and its version. Every write, by whichever way it comes, is merged by
//! [`State::merge`]; so what a causal reader sees (base and deltas) is what the base becomes when the
//! deltas are folded, whatever the order.
//!
//! **The model.** A write first *ends* ids, then, if it is an adding one, makes its own id live.
//! - It ends the ids it *names*: those of the elements its node saw, or the context its client read. A
//!   write in the log also ends what the base holds at its place, without naming it.
//! - Ending an id that is not live here *spends* it: it goes into the table of ids, and what comes later
//!   under it adds nothing. So an add and its remove merge in any order.
//! - An id adds once. Of a write that was retried at another node the ending part of every copy counts.
//!
//! A register has no elements: the larger time wins, which is all it needs. A counter's adds each take
//! effect once; a reset or delete ends, at its place in the log, all that was folded before it.
//!
//! Sources: Shapiro, Preguiça, Baquero, Zawirski: *Conflict-free Replicated Data Types* (SSS 2011), for add
//! wins by unique ids; Almeida, Shoker, Baquero: *Delta State Replicated Data Types* (JPDC 2018).
//!
//! **Laws**, each a property test of its name in `tests/laws.rs`: local writes commute; merging any write
//! again changes nothing; base and deltas read as the base after the fold; a version is the same before
//! and after its fold; a counter counts each add exactly once; what was named never comes back. They are
//! tried together, with log writes, retries and what is dropped in time, on random histories in
//! `tests/histories`.
//!
//! **Of `crdts`** its `LWWReg` decides registers and map fields, and `PNCounter`, `GSet`, `Orswot` are
//! oracles in tests. The other types here are our own: a state of `crdts` merges with states of other
//! replicas, each counting its own operations without gaps, while here single operations come from many
//! clients, in any order, several times, and into a log. Its `Map` and `MVReg` lose or diverge.
//!
//! Nothing here does I/O, reads a clock, or knows what an overlay or a range is.

mod content;
mod gc;
mod ids;
mod merge;
mod op;
mod room;
mod value;
mod value_type;

pub use content::{Content, Element, LogPlace};
pub use gc::Horizon;
pub use ids::{Fate, Ids, Transient};
pub use merge::{MergeError, Outcome, State, Write};
pub use op::{Expected, Misfit, Op};
pub use room::CONTENT_LEN_MAX;
pub use value::{SEEN_KEPT, SEEN_KEPT_OF_FIELD, Sibling, Value};
pub use value_type::{ParseValueTypeError, ValueType};

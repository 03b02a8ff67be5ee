//! Where a node keeps its bytes: the ports, the encoding of keys, and an engine in memory.
//!
//! ```text
//!            Batch ──write──▶ Engine ──sync──▶ durable
//!                               │
//!     get, scan ◀── View ◀──────┴── snapshot (a View that stands still)
//!                               ▲
//!             Staging ──replace─┘        many rows at once, past the write-ahead log
//!
//!     columns   Log │ Base │ Overlay │ Stream │ Node        one write-ahead log for all of them
//! ```
//!
//! An engine is an ordered map from bytes to bytes in five columns, with these promises:
//!
//! 1. A batch is atomic, across columns, also through a crash.
//! 2. What survives a crash is a prefix of the batches in the order they were written, and holds every
//!    batch written before the last `sync` that returned began.
//! 3. If a store is opened and has less than that, [`Engine::damage`] says so.
//! 4. What a store shows when it is opened is durable, synced before or not.
//! 5. Staged rows replace others at once, and durably, whatever becomes of writes that were not synced.
//!
//! Everything is synchronous: who may block, and for how long, is the business of the caller. Nothing
//! here knows RocksDB, Raft, or what the values mean.

mod batch;
mod column;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod engine;
mod error;
pub mod key;
pub mod memory;

pub use batch::{Batch, Write};
pub use column::Column;
pub use engine::{Damage, Done, Engine, Rows, Scan, SetName, Staging, View};
pub use error::{Error, Kind, Result};

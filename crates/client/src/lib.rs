//! The Rust SDK of Latitude.
//!
//! ```text
//!   Keyspace::put ─▶ run (one operation: attempts until it is answered or its deadline passes)
//!                     │  ├─ ids     one id for all attempts of a write; births by the cluster's clock
//!                     │  ├─ session what was seen and done before, joined from every reply
//!                     │  ├─ routes  which range holds the key, who leads it, where the nodes are
//!                     ▼  └─ what an error says: at once elsewhere │ wait │ give up
//!                   link (one per node) ══ one stream, many commands a frame ══▶ node
//! ```
//!
//! What the caller may rely on:
//!
//! - A write takes effect at most once, however often it was attempted: all attempts carry one id.
//! - An error whose `outcome` is `NotApplied` says that the write has not happened and never will. As
//!   soon as one attempt may have happened, the operation's error says `Unknown`, whatever later
//!   attempts were told.
//! - An operation ends by its deadline. One silent node does not use it up.
//! - A level is never weakened behind the caller's back.
//! - A session never loses what one of its replies knew.
//!
//! Connections come from the port [`Net`], time from tokio's clock and randomness from one seed, so the
//! SDK runs unchanged inside a simulation. It knows nothing of how a server works: only `/proto`, and how
//! tokens are joined.
//!
//! The design of the stream follows TiKV's `BatchCommands`; the ids that make retries harmless follow
//! Lee, Park, Kejriwal, Matsushita, Ousterhout: *Implementing Linearizability at Large Scale and Low
//! Latency* (SOSP 2015).

mod admin;
mod answer;
mod client;
mod ids;
mod keyspace;
mod link;
mod operation;
mod receipt;
mod routes;
mod run;
mod scan;
mod session;
mod typed;

pub use admin::Admin;
pub use answer::{Answer, CasOutcome, Outcome, Value};
pub use client::{Builder, Client, Cluster};
pub use keyspace::Keyspace;
pub use latitude_rpc::net::{Net, Tcp};
/// The messages of `/proto` that the administration takes and gives.
pub use latitude_rpc::pb::v1 as wire;
pub use latitude_types::{
    ClientId, ClusterIdentity, Error, Kind, Level, NodeId, RangeId, Reason, Result, Timestamp,
    WriteTime,
};
pub use operation::{Expected, Operation};
pub use receipt::{Duplicate, Proof, Receipt, ReceiptDetail, Role, Unfolded};
pub use scan::{Page, Row, Scan};
pub use session::Session;
pub use typed::{AddOutcome, Added, Held, Sibling, Siblings, TypedValue};

/// Locks a mutex whose critical sections neither block nor panic.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no critical section of the client panics")
}

//! A cluster from a seed: the code of the node and of the client, under simulated time, network and
//! disks.
//!
//! ```text
//!   seed ─┬─▶ Cluster ── turmoil ─┬─ node-1: Node::start ── ports: SimNet, SimClock, SimEngine, SlowFlush
//!         │                       ├─ node-2: …                  │                       │
//!         │                       └─ client-1: the SDK          ▼                       ▼
//!         ├─▶ Workload ─▶ history ─▶ judge                    Trace                 Invariants
//!         └─▶ faults, then none ─▶ everything must serve again
//! ```
//!
//! Everything runs on one thread and everything random follows from the seed, so a run with the same
//! seed is the same run, to the last byte on the network. [`Trace`] holds its fingerprint, and
//! `tests/determinism.rs` compares two.
//!
//! This crate implements ports and nothing else of a node: what it runs is what runs in production.
//!
//! HAZARD: the simulated TCP sends nothing again. What a partition swallows is missing from the
//! connection for ever; only a deadline gets its ends out of it. A real network is kinder.
//!
//! Sources: FoundationDB's simulation (Zhou et al., SIGMOD 2021); turmoil.

mod clock;
pub mod cluster;
mod disk;
mod freshness;
pub mod invariants;
mod late;
mod links;
mod net;
pub mod scenario;
mod seeds;
mod tap;
mod trace;
mod violation;
pub mod workload;

pub use cluster::{ClientHost, Cluster, Layout, RowCounts};
pub use trace::Trace;
pub use violation::{Check, Violation};

//! What the black-box tests share: a cluster of processes, clients in its regions, recorded load.
//!
//! ```text
//!   Bed ── Cluster (testbed: processes, links) ── logs, stores, history: one directory, kept on failure
//!    ├─ client(region)   the SDK
//!    ├─ raw(node)        one node by bare gRPC
//!    ├─ Load             recorded processes ─▶ history ─▶ checker
//!    └─ litmus           small programs ─▶ outcomes ─▶ checker
//! ```
//!
//! Here is only what needs real processes, real disks or real sockets. Waits are wide and end in an
//! error that says what was waited for; no test asks how long something took.

pub mod bed;
pub mod litmus;
pub mod load;
pub mod raw;
pub mod single;
pub mod steady;

pub use bed::{Bed, eventually, regions};
pub use load::{Load, Subject};

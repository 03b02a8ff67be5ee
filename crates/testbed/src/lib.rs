//! A cluster of real Latitude processes on one machine, over links as long as an ocean.
//!
//! ```text
//!   Cluster ── n1 (eu)   n2 (us)   n3 (ap)      each a Process: kill -9, SIGSTOP, SIGTERM, restart, log
//!      │         ▲         ▲         ▲
//!      └── Wan ──┴─ Link ──┴─ Link ──┘          one for each (region that looks, node of another region)
//!                    │
//!                    ├─ Way forth ─▶            latency, jitter, rate, cut, heal, reset after n bytes
//!                    └─ Way back ◀─
//! ```
//!
//! For the demo, the black-box tests and the fault harness. It is an adapter of theirs: it reads
//! clocks, spawns tasks and processes, and its delays are real. It drives Latitude as an operator
//! does, by flags, signals and sockets, and must not know the client or anything inside the server.

mod cluster;
mod link;
mod pipe;
mod ports;
mod process;
mod wan;
mod way;

pub use cluster::{Cluster, ClusterBuilder, Node};
pub use link::{Link, LinkCounts, LinkOptions};
pub use process::{Binary, Process};
pub use wan::{AP, EU, RoundTrips, US, Wan};
pub use way::{Way, WayCounts};

//! A cluster from a seed: the production node on a simulated network, clock and disk.
//!
//! ```text
//!   seed ─▶ turmoil: one thread, virtual time
//!            ├─ node-1, node-2, node-3: latitude_node::Node over net, clock, disk of this crate
//!            ├─ clients: latitude_client::Client over the same net ──▶ Recorder ──▶ checker
//!            └─ faults: crash, power cut, partition, one-way partition, skewed clock
//!                                        │
//!                     every byte sent, with its time ──▶ Trace (a hash): the same seed, the same hash
//! ```
//!
//! There is no production code here: what runs is what `latitude start` runs, behind other ports. A run is
//! a function of its seed; the trace proves it, and a failure is replayed by its seed.
//!
//! Sources: openraft's own turmoil suite and FoundationDB's simulation, for the shape: a safety phase with
//! faults, then a phase without, in which everything must come back.

mod clock;
mod cluster;
mod disk;
mod faults;
mod net;
mod trace;
mod workload;

pub use cluster::{Cluster, Setup, host_name};
pub use faults::{Fault, FaultPlan};
pub use trace::Trace;
pub use workload::{Outcome, Scenario, run};

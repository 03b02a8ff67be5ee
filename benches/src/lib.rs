//! The load generator: closed loops of clients, and what they cost the nodes.
//!
//! ```text
//!   workload (what each client asks next) ─▶ load (clients that ask, wait, ask again) ─▶ latitude-client ─▶ nodes
//!                                              │                                                             │
//!   report (rounds, medians, table, JSON) ◀────┴── process (/proc/PID), machine (/proc/stat), scrape (/metrics)
//! ```
//!
//! One process generates all load, and every rate of a report comes from one run: rounds are interleaved
//! over workloads and counts of clients, so that a slow minute of the machine hits all of them, and the
//! median of the rounds is what is reported.
//!
//! The loop is closed: a client asks again when it has its answer, so latencies under overload are those
//! of the queue the clients themselves make, and nothing corrects for it (*coordinated omission*). The CPU
//! a node spends for an operation is the steadier figure on a machine with neighbours.
//!
//! The workloads follow Cooper, Silberstein, Tam, Ramakrishnan, Sears: *Benchmarking Cloud Serving Systems
//! with YCSB* (SoCC 2010). It is an adapter of its own: it reads clocks and files, and spawns.

mod cluster;
mod idle;
mod keys;
mod load;
mod machine;
mod manner;
mod process;
mod report;
mod run;
mod scrape;
mod wide_area;
mod workload;

pub use keys::Distribution;
pub use manner::Manner;
pub use report::{Report, Style};
pub use run::{Idle, Load, Options, Own, Target, run};
pub use wide_area::WideArea;
pub use workload::Workload;

//! A node of Latitude: the event loops, and nothing that decides.
//!
//! ```text
//!   clients ─▶ service ─▶ request (parsed once) ─▶ router ─┬─▶ RangeHandle ─▶ proposer ─▶ Raft ─▶ base
//!                                                          │            └──▶ reader ─▶ read index ─▶ snapshot
//!                                                          └─▶ another node
//!   peers ──▶ service ─▶ registry ─▶ Raft
//!
//!   tasks: clock keeper · directory keeper · reconciler · liveness · closed times · leader balancer · disk watch
//! ```
//!
//! This is the only crate of ours that spawns tasks. Time, network, disk and randomness come in through
//! [`Ports`]; a simulation puts its own there, and everything else is the same code.
//!
//! Who may wait for what: a request waits for its range's proposer or reader; those wait for Raft; Raft
//! waits for the committer and for peers. Nothing waits for a request.

pub mod adapters;
mod admin;
mod audit;
mod balancer;
mod bootstrap;
mod catalog;
mod clock_keeper;
mod closing;
mod config;
mod disk_watch;
mod frames;
mod identity;
mod leases;
mod liveness;
mod local;
mod metrics;
mod node;
mod origins;
mod peers;
mod ports;
mod proposer;
mod questions;
mod range_handle;
mod reconciler;
mod request;
mod router;
mod serve;
mod service;
mod shared;
mod typed;

pub use config::{Limits, NodeConfig, ReadMode};
pub use local::LocalMarks;
pub use node::{Node, StartError};
pub use ports::Ports;

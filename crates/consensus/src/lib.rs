//! Raft for many ranges: openraft, and all we put around it, behind one crate.
//!
//! ```text
//!                    Registry ──(range, generation)──▶ Group ── propose, read_index, transfer
//!                       ▲                                │
//!   Transport (port) ───┘ messages in          ┌─────────┼──────────────┐
//!        ▲                                  openraft   RangeLog    StateMachine
//!        └──────── messages out ──── Network ──┘         │              │
//!                                                  Committer ──▶ Engine (one store, one sync)
//! ```
//!
//! The rest of Latitude sees [`Group`], [`Registry`], [`Committer`] and the [`Transport`] port; no
//! openraft type leaves this crate, and neither its disk nor its wire forms are used: both are ours
//! ([`wire`]).
//!
//! Invariants kept here:
//!
//! * A replica's Raft id is `(node, generation)` and is never used again.
//! * What openraft is told is durable has been synced: every acknowledgement passes the [`Committer`].
//! * Applied rows and the applied position are one batch, and a snapshot replaces them in one step.
//! * A replica that is missing the entry after the last one purged, one in between, one that it has
//!   applied, or its vote is not opened; unless a crash interrupted it while it installed a snapshot. That its last entries are missing cannot be seen here: the engine's damage says so.
//! * A replication stream to an unreachable peer takes its first request before it says so: openraft's
//!   backoff sits in that request stream, and a stream that failed at once would be asked again at once.
//! * Who ticks and beats a range is decided in one place: [`settings`].
//!
//! Not known here: gRPC, what an operation does, who clients are.

mod acks;
mod audit;
mod committer;
#[cfg(test)]
mod conformance;
mod group;
pub mod inspect;
mod log;
mod machine;
mod network;
mod read_index;
mod registry;
mod runtime;
pub mod settings;
mod sizes;
mod snapshot;
mod trim;
mod types;
mod wire;

pub use audit::AuditOutcome;
pub use committer::{CommitStats, Committer, Flush, FlushInline};
pub use group::{
    Appended, Birth, Group, GroupContext, GroupStatus, Leadership, LogPosition, OpenError,
    ProposeError, ReadError, Role, TransferError,
};
pub use network::{Class, Transport, TransportError, carry_time};
pub use registry::{DispatchError, Registry};
pub use runtime::seed_thread_rng;
pub use settings::Settings;
pub use snapshot::{Failpoints, NoFailpoints, SnapshotSettings, SnapshotStats, Snapshots, Step};
pub use types::LeaderToken;

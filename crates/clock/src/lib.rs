//! The clock of a node: timestamps that rise, also over restarts, and stay near real time.
//!
//! ```text
//!   PhysicalClock (port) ──▶ Slew ──▶ HybridClock ──▶ now(), merge()
//!    wall + monotonic       never      │      ▲
//!                           back       ▼      │
//!                          bound_to_persist  raise_bound      clock ≤ bound, bound on disk
//!
//!   a message's Reading ──▶ check_peer, check_hlc ──▶ merge, or Refusal ──▶ OffsetQuorum
//! ```
//!
//! What a [`HybridClock`] keeps:
//!
//! - Every [`HybridClock::now`] is larger than all before it on this node, over all ranges, and larger
//!   than everything merged before it. A step back of the wall clock does not change that.
//! - INV-1: the clock is never above its *bound*, and the bound is on disk, also for merged times. So
//!   a restarted node, which starts at the bound, is above everything it ever gave or met.
//! - INV-2: a refused message has no effect at all: the checks come first and change nothing.
//!
//! HAZARD: how near the clocks of good nodes stay to real time depends on their hosts. A host that is
//! ahead by less than ε/2 goes unnoticed and pulls the others with it; nothing here depends on that
//! for safety, only timestamps then differ from real time by that much.
//!
//! This crate starts no thread and reads no clock of the host: readings come in through
//! [`PhysicalClock`], whose real adapter lives with the server.
//!
//! Sources: Kulkarni et al., *Logical Physical Clocks* (OPODIS 2014); CockroachDB's `pkg/util/hlc`
//! for the persisted upper bound and the offset check against a majority.

mod hybrid;
mod offset;
mod physical;
mod slew;

pub use hybrid::{
    Admission, BOUND_REFILL, BOUND_RESERVE, ClockError, HORIZON, HybridClock,
    MAX_CLOCK_OFFSET_DEFAULT, Reading, ReceiveError, Refusal,
};
pub use offset::{Judge, Offset, OffsetQuorum};
pub use physical::{ManualClock, PhysicalClock, SkewedClock};

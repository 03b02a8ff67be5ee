//! How local writes spread: what a node may say of its own, what it holds of others', what it may show.
//!
//! ```text
//!   origin o                                     another node
//!   ┌──────────────────────────┐                 ┌──────────────────────────────────────────────┐
//!   │ give ─▶ written ─▶ synced│  deltas, up to  │ W[range, o]: held durably up to here   (INV-6)│
//!   │         D: the frontier ─┼────────────────▶│ V[o]: and its causes are here as well  (INV-7)│
//!   └──────────────────────────┘   (INV-5)       └──────────────────────────────────────────────┘
//! ```
//!
//! * INV-5: what others may see, what a message says and what is acknowledged is the durable frontier D, never
//!   the clock ([`Frontier`]).
//! * INV-6: `W[range, o] = t` says that this replica holds durably, in base or overlay, every delta of o in
//!   the range positioned ≤ t ([`Watermarks`]).
//! * INV-7: a causal read shows the prefix V of each origin's stream whose causes are met here ([`Visible`]).
//! * Stable: what every node shows need not be named by tokens and pasts any more ([`Followers`]), nor
//!   what every replica of a range has applied of its log ([`Applied`]).
//!
//! Rules only: no I/O, no clock, no threads. Which deltas there are and how they travel is told from outside.
//!
//! Sources: Ladin, Liskov, Shrira, Ghemawat, *Providing high availability using lazy replication* (TOCS 1992);
//! Lloyd et al., *Don't settle for eventual* (SOSP 2011); `pitfalls.md` 1, 10, 18, B2, B13.

mod applied;
mod followers;
mod frontier;
mod visible;
mod watermarks;

pub use applied::Applied;
pub use followers::{Followers, Told};
pub use frontier::Frontier;
pub use visible::{Unmet, Visible};
pub use watermarks::Watermarks;

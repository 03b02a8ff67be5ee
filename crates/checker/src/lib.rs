//! Histories of what clients saw, and the judges that say whether a correct database could have
//! answered so.
//!
//! ```text
//!   test or harness ──▶ Recorder ──▶ JSON lines ──▶ History ──▶ operations ──▶ a judge ──▶ verdict
//!                          └────── in memory ──────┘
//!
//!   of a level      linearizable   sequential   causal
//!   of a promise    sessions   counter   set   durability   convergence
//! ```
//!
//! A judge knows the definition of one consistency level, or of one promise, and nothing of the database.
//! It answers one of three things: the history fits, it does not and here are the lines that show it, or
//! nobody knows. A judge that cannot read something says so; it never passes over it.
//!
//! Nothing here reads a clock: the order of the lines of a history is its clock.

pub mod causal;
pub mod convergence;
pub mod counter;
pub mod durability;
pub mod history;
mod known;
mod levels;
pub mod linearizable;
#[cfg(test)]
mod measure;
pub mod mixed;
#[cfg(test)]
mod numbers;
pub mod promise;
pub mod recorder;
#[cfg(test)]
mod replicas;
mod report;
pub mod sequential;
mod session_order;
pub mod sessions;
pub mod set;
#[cfg(test)]
mod steps;

pub use history::{History, HistoryError};
pub use levels::Level;
pub use recorder::Recorder;
pub use report::{Cited, Counts, Violation};

//! Where tests look in and meddle.
//!
//! * A [`Mark`] counts how often a rare branch is taken. A simulation that never takes it shows nothing
//!   about it, so its standard run must take them all; `docs/testing.md` lists them.
//! * A [`Plant`] is a bug at its real place in the code. It is compiled in with the feature `planted` only,
//!   which `latitude-sim` alone forwards, and there one is picked at run time. A simulation that does not
//!   notice is not worth much.
//!
//! This crate knows nothing of the others and does nothing but count and compare. A mark changes no behaviour:
//! nobody reads the counts but tests. Without the feature a plant is the constant `false`.
//!
//! Sources: `cov_mark` of rust-analyzer; `src/testing/marks.zig` of TigerBeetle; mutation testing.

mod mark;
mod plant;

pub use mark::{Mark, Marks};
pub use plant::Plant;

/// Whether this build has planted bugs in it. No program that holds anybody's data may.
pub const PLANTED: bool = cfg!(feature = "planted");

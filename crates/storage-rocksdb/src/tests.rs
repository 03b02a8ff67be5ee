//! Tests of the engine as a whole, on real files.

mod crash;
mod files;
mod mirror;
mod suite;

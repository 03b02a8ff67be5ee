//! The simulation: seeds of the whole cluster, from one program.

use anyhow::Result;

use crate::cargo::{Metadata, cargo, run};
use crate::run::become_program;

/// Runs seeds, or one of them again; the arguments are those of `latitude-sim`.
///
/// It needs no RocksDB, hence no setup, and takes the profile of the tests: what they have compiled serves.
pub(crate) fn sim(args: &[String]) -> Result<()> {
    run(&mut cargo(&["build", "-p", "latitude-sim", "--bin", "latitude-sim"]))?;
    let program = Metadata::load()?.target_dir()?.join("debug").join("latitude-sim");
    become_program(&program, |sim| sim.args(args))
}

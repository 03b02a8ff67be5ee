//! Verbs that build the database in release and become one of its programs.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo::{Metadata, cargo, run};
use crate::setup::setup;

/// Runs the demo against the database of this tree.
pub(crate) fn demo(args: &[String]) -> Result<()> {
    let release = build(&["-p", "latitude-server", "-p", "latitude-demo", "--bins"])?;
    let latitude = release.join("latitude");
    become_program(&release.join("latitude-demo"), |demo| {
        demo.arg("--latitude").arg(latitude).args(args)
    })
}

/// Runs the benchmark that the database carries.
pub(crate) fn bench(args: &[String]) -> Result<()> {
    let release = build(&["-p", "latitude-server", "--bin", "latitude"])?;
    become_program(&release.join("latitude"), |latitude| latitude.arg("bench").args(args))
}

/// Builds in release. Returns the directory of the programs.
fn build(packages: &[&str]) -> Result<PathBuf> {
    setup()?;
    run(cargo(&["build", "--release"]).args(packages))?;
    Ok(Metadata::load()?.target_dir()?.join("release"))
}

/// Replaces this process, so that signals and the exit code are the program's own.
pub(crate) fn become_program(
    program: &Path,
    with: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<()> {
    let error = with(&mut Command::new(program)).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

//! The binary `latitude`: flags, configuration file, telemetry, and the commands of users and operators.
//!
//! ```text
//!   main ─▶ args (what may be written) ─▶ commands (what is done)
//!             start:  config ─▶ settings ─▶ start ─▶ a node, in latitude-node
//!             others: latitude-client ─▶ render ─▶ output        exit, failure: how it ended
//!             import, export: latitude-client ◀─▶ rows (lines of a file), progress
//!             shell:  line after line ─▶ commands, with a state that stays
//! ```
//!
//! This crate does not know how anything works: it turns what a person wrote into a node's options or a
//! client's calls, and the answers into what a person or a script reads. The library part exists for
//! its tests; only the binary uses it.

pub mod address;
pub mod args;
pub mod commands;
pub mod config;
pub mod exit;
pub mod failure;
pub mod output;
pub mod progress;
pub mod render;
pub mod rows;
pub mod session_file;
pub mod settings;
pub mod shell;
pub mod start;
pub mod telemetry;
pub mod text;
pub mod units;

use std::io::{BufWriter, stderr, stdout};
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use exit::Exit;
use failure::Failure;
use output::Output;
use telemetry::{LogFilter, LogFormat};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout and is a success; whether it can be printed changes neither.
            let _ = error.print();
            return if error.use_stderr() { Exit::Refused } else { Exit::Success }.into();
        }
    };
    // Neither is locked: a node logs to stderr from every thread.
    let (mut out, mut err) = (BufWriter::new(stdout()), stderr());
    let mut output = Output::new(cli.command.format(), &mut out, &mut err);
    let done = log_if_asked(&cli.command).and_then(|()| commands::run(cli.command, &mut output));
    let flushed = output.flush().map_err(Failure::from);
    let exit = done.and_then(|exit| flushed.map(|()| exit));
    exit.unwrap_or_else(|failure| failure.report(&mut output)).into()
}

/// Commands that talk to a cluster say nothing of themselves unless `LATITUDE_LOG` asks for it; a node
/// sets up its own log.
fn log_if_asked(command: &Command) -> Result<(), Failure> {
    let Ok(filter) = std::env::var("LATITUDE_LOG") else { return Ok(()) };
    if matches!(command, Command::Start(_)) {
        return Ok(());
    }
    let filter: LogFilter =
        filter.parse().map_err(|error| Failure::Usage(format!("LATITUDE_LOG: {error}")))?;
    Ok(telemetry::init(LogFormat::Text, &filter)?)
}

//! Sessions on the command line: the flags of commands on data, and the commands on tokens.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use latitude_types::Level;

use super::OutputArgs;
use crate::units::duration;

/// What a command goes on from, and what it may be given instead.
#[derive(Args, Debug)]
pub struct SessionFlags {
    /// Go on with the session in this file, and keep it there; a file that does not exist begins one
    #[arg(long, value_name = "FILE", help_heading = "Session")]
    pub session: Option<PathBuf>,
    /// Go on with the session of this token, as a receipt shows it; kept in no file
    #[arg(long, value_name = "BASE64", conflicts_with = "session", help_heading = "Session")]
    pub token: Option<String>,
    /// Take this weaker level instead if the one asked for cannot be served; by comma, in order
    #[arg(long, value_name = "LEVEL", value_parser = weaker_level(), value_delimiter = ',', help_heading = "Session")]
    pub accept: Vec<Level>,
}

/// What a read demands.
#[derive(Args, Debug)]
pub struct FreshnessFlags {
    /// Only an answer that is proved to be no staler than this
    #[arg(long, value_name = "DURATION", value_parser = duration, allow_hyphen_values = true, help_heading = "Session")]
    pub max_staleness: Option<Duration>,
}

/// What a write demands.
#[derive(Args, Debug)]
pub struct DurabilityFlags {
    /// Succeed only once so many replicas have it on disk; at strict and sequential a quorum has anyway
    #[arg(long, value_name = "N", help_heading = "Session")]
    pub ack_replicas: Option<u32>,
}

/// Strict is weaker than nothing.
fn weaker_level() -> impl TypedValueParser<Value = Level> {
    let weaker = Level::ALL.into_iter().filter(|level| *level != Level::Strict);
    PossibleValuesParser::new(weaker.map(Level::name))
        .map(|name| name.parse().expect("a possible value is the name of a level"))
}

pub(super) const EXAMPLES: &str = "\
A session makes each command take into account what the earlier ones have seen and done, whichever nodes \
serve them. It is a token: `--session FILE` keeps it in a file, which commands may share, also at the \
same time.

Examples:
  latitude put greeting hello --session mine
  latitude get greeting --level sequential --session mine
  latitude session show mine
  latitude session join mine yours > ours";

/// The arguments of `latitude session`.
#[derive(Args, Debug)]
pub struct SessionArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SessionCommand,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The commands on sessions. None of them asks a cluster.
#[derive(Subcommand, Debug)]
pub enum SessionCommand {
    /// Print what a session has seen and done
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// The session: a file, or its token
        #[arg(value_name = "FILE|TOKEN", allow_hyphen_values = true)]
        session: String,
    },
    /// Print the token of a session that knows what any of these does
    #[command(after_help = JOIN_EXAMPLES)]
    Join {
        /// The sessions: files, or tokens
        #[arg(value_name = "FILE|TOKEN", required = true, allow_hyphen_values = true)]
        sessions: Vec<String>,
    },
}

const SHOW_EXAMPLES: &str = "\
Examples:
  latitude session show mine
  latitude session show mine --output json";

const JOIN_EXAMPLES: &str = "\
Examples:
  latitude session join mine yours > ours";

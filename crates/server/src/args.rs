//! What may be written on the command line. The comments are the help: they speak to its reader.

mod admin;
mod bench;
mod data;
mod session;
mod shell;
mod transfer;
mod typed;

use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use latitude_types::Level;

pub use admin::{
    AdminArgs, AdminCommand, AuditArgs, CreateKeyspaceArgs, KeyspaceCommand, PlaceArg,
    SetOriginArgs, ValueTypeArg,
};
pub use bench::BenchArgs;
pub use data::{
    CasArgs, DataArgs, DeleteArgs, GetArgs, KeyspaceArgs, PutArgs, ReceiptArg, ScanArgs,
};
pub use session::{DurabilityFlags, FreshnessFlags, SessionArgs, SessionCommand, SessionFlags};
pub use shell::ShellArgs;
pub use transfer::{ExportArgs, ImportArgs, OnError};
pub use typed::{AddArgs, FlagAction, FlagArgs, MapAction, MapArgs, ResetArgs, SetAction, SetArgs};

use crate::address::{Address, PlaceName};
use crate::exit::Exit;
use crate::output::Format;
use crate::settings::StartFlags;
use crate::units::duration;

/// A geo-replicated key-value database whose every request names its consistency.
#[derive(Parser, Debug)]
#[command(name = "latitude", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Try it:
  latitude start                          a cluster of one node, on this machine
  latitude put greeting hello             write a key
  latitude get greeting                   read it
  latitude scan --prefix greet            read keys in order
  latitude admin status                   how the node is doing

`latitude help COMMAND` teaches a command; `latitude help exit-codes` is for scripts.";

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a node of a cluster, until Ctrl-C or SIGTERM
    #[command(after_help = START_EXAMPLES)]
    Start(Box<StartFlags>),
    /// Make a cluster of a node and all it was told to join
    ///
    /// Run it once, against any of the nodes, when all are started. Safe to repeat: a repetition
    /// finishes what an interrupted one began.
    #[command(after_help = INIT_EXAMPLES)]
    Init(InitArgs),
    /// What asks a running cluster.
    #[command(flatten)]
    Ask(Ask),
    /// Type commands and read answers: with history, completion, and a level and a keyspace that stay
    #[command(after_help = shell::EXAMPLES)]
    Shell(ShellArgs),
    /// Measure a cluster: throughput, latency, and what an operation costs the nodes
    #[command(after_help = bench::EXAMPLES)]
    Bench(Box<BenchArgs>),
    /// Look into the tokens of sessions
    #[command(after_help = session::EXAMPLES)]
    Session(SessionArgs),
    /// Print the script that completes `latitude` commands in a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell.
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
    /// What the exit codes mean, for scripts
    #[command(long_about = Exit::MEANING)]
    ExitCodes,
}

/// The commands that ask a running cluster, on the command line and in the shell.
#[derive(Subcommand, Debug)]
pub enum Ask {
    /// Read keys
    #[command(after_help = data::GET_EXAMPLES)]
    Get(GetArgs),
    /// Write a key, whatever it held
    #[command(after_help = data::PUT_EXAMPLES)]
    Put(PutArgs),
    /// Remove keys, whether or not they exist
    #[command(after_help = data::DELETE_EXAMPLES)]
    Delete(DeleteArgs),
    /// Write or remove a key if it holds what is expected (compare and set)
    #[command(after_help = data::CAS_EXAMPLES)]
    Cas(CasArgs),
    /// Read keys in order
    #[command(after_help = data::SCAN_EXAMPLES)]
    Scan(ScanArgs),
    /// Add to a counter
    #[command(after_help = typed::ADD_EXAMPLES)]
    Add(AddArgs),
    /// Set a counter to zero
    #[command(after_help = typed::RESET_EXAMPLES)]
    Reset(ResetArgs),
    /// Add elements to a set or remove them from it
    #[command(after_help = typed::SET_EXAMPLES)]
    Set(SetArgs),
    /// Write a field of a map or remove it
    #[command(after_help = typed::MAP_EXAMPLES)]
    Map(MapArgs),
    /// Turn a flag on or off
    #[command(after_help = typed::FLAG_EXAMPLES)]
    Flag(FlagArgs),
    /// Write the rows of a file
    #[command(after_help = transfer::IMPORT_EXAMPLES, mut_arg("timeout", patient))]
    Import(Box<ImportArgs>),
    /// Write every row to a file, in the order of the keys
    #[command(after_help = transfer::EXPORT_EXAMPLES, mut_arg("timeout", patient))]
    Export(Box<ExportArgs>),
    /// Look after a cluster: keyspaces, nodes, ranges, leaders
    #[command(after_help = admin::EXAMPLES)]
    Admin(AdminArgs),
}

impl Command {
    /// How the command's answers and errors are to be printed.
    pub fn format(&self) -> Format {
        match self {
            Self::Init(args) => args.output.output,
            Self::Ask(ask) => ask.format(),
            Self::Shell(args) => args.output.output,
            Self::Bench(args) => args.output.output,
            Self::Session(args) => args.output.output,
            Self::Start(_) | Self::Completions { .. } | Self::Version | Self::ExitCodes => {
                Format::Text
            }
        }
    }
}

impl Ask {
    /// How the command's answers and errors are to be printed.
    pub fn format(&self) -> Format {
        match self {
            Self::Get(args) => args.data.output.output,
            Self::Put(args) => args.data.output.output,
            Self::Delete(args) => args.data.output.output,
            Self::Cas(args) => args.data.output.output,
            Self::Scan(args) => args.data.output.output,
            Self::Add(args) => args.data.output.output,
            Self::Reset(args) => args.data.output.output,
            Self::Set(args) => args.data.output.output,
            Self::Map(args) => args.data.output.output,
            Self::Flag(args) => args.data.output.output,
            Self::Import(args) => args.output.output,
            Self::Export(args) => args.output.output,
            Self::Admin(args) => args.output.output,
        }
    }
}

const START_EXAMPLES: &str = "\
Examples:
  A cluster of one node, to try things out:
    latitude start

  One of three nodes in three regions; `latitude init` then makes the cluster:
    latitude start --region eu --listen 10.0.0.1:7400 \\
        --join 10.0.0.1:7400,10.1.0.1:7400,10.2.0.1:7400 --round-trip-max 250ms

  From a file, with one setting changed:
    latitude start --config /etc/latitude.toml --log-level debug

  A file to begin with:
    latitude start --region eu --print-config > latitude.toml";

const INIT_EXAMPLES: &str = "\
Examples:
  latitude init
  latitude init --to 10.0.0.1:7400 --wait 2m";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  latitude completions bash > ~/.local/share/bash-completion/completions/latitude
  latitude completions fish > ~/.config/fish/completions/latitude.fish";

/// The arguments of `latitude init`.
#[derive(Args, Debug)]
pub struct InitArgs {
    /// A node of the cluster to be
    #[arg(long, value_name = "ADDR", env = "LATITUDE_TO", default_value = Address::DEFAULT, value_delimiter = ',')]
    pub to: Vec<Address>,
    /// How long to wait for the other nodes
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub wait: Duration,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Which nodes to ask, and for how long.
#[derive(Args, Debug)]
pub struct ConnectArgs {
    /// Nodes to ask, by comma or repeated; one that answers is enough
    #[arg(long, value_name = "ADDR", env = "LATITUDE_TO", default_value = Address::DEFAULT, value_delimiter = ',', help_heading = "Connection", global = true)]
    pub to: Vec<Address>,
    /// The region this command runs in: it decides by which addresses nodes are reached
    #[arg(
        long,
        value_name = "REGION",
        env = "LATITUDE_REGION",
        help_heading = "Connection",
        global = true
    )]
    pub region: Option<PlaceName>,
    /// How long to wait for an answer, retries included
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, help_heading = "Connection", global = true)]
    pub timeout: Duration,
}

/// How to print.
#[derive(Args, Debug)]
pub struct OutputArgs {
    /// How to print answers and errors
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Output",
        global = true
    )]
    pub output: Format,
}

/// A command of many requests outlives a node that restarts.
fn patient(timeout: clap::Arg) -> clap::Arg {
    timeout.default_value("60s")
}

/// Reads a level by its name, and tells help and completions the names there are.
fn level() -> impl TypedValueParser<Value = Level> {
    PossibleValuesParser::new(Level::ALL.map(Level::name))
        .map(|name| name.parse().expect("a possible value is the name of a level"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split_whitespace()).map(|cli| cli.command)
    }

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_every_argument_has_help() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {argument}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn every_command_line_shown_as_an_example_parses() {
        fn examples(command: &clap::Command, into: &mut Vec<String>) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let joined = text.replace("\\\n", " ");
            for line in joined.lines().map(str::trim).filter(|line| line.starts_with("latitude ")) {
                // What a shell would take away: comments after two spaces, redirections, pipes.
                let end = ["  ", " > ", " | ", " < "].iter().filter_map(|s| line.find(s)).min();
                into.push(line[..end.unwrap_or(line.len())].to_string());
            }
            command.get_subcommands().for_each(|command| examples(command, into));
        }
        let mut lines = Vec::new();
        examples(&Cli::command(), &mut lines);
        assert!(lines.len() > 20, "{lines:?}");
        for line in lines {
            if let Err(error) = parse(&line.replace('\'', "")) {
                panic!("{line}\n{error}");
            }
        }
    }

    #[test]
    fn nodes_are_named_by_comma_or_repeated() {
        for line in ["latitude get k --to a:1,b:2", "latitude get k --to a:1 --to b:2"] {
            let Ok(Command::Ask(Ask::Get(args))) = parse(line) else {
                panic!("{line} does not parse")
            };
            assert_eq!(args.data.connect.to, ["a:1".parse().unwrap(), "b:2".parse().unwrap()]);
        }
    }

    #[test]
    fn a_level_is_one_of_the_four() {
        let Ok(Command::Ask(Ask::Get(args))) = parse("latitude get k --level causal") else {
            panic!("causal is a level")
        };
        assert_eq!(args.data.at.level, Some(Level::Causal));
        let error = parse("latitude get k --level weak").unwrap_err().to_string();
        assert!(error.contains("strict, sequential, causal, eventual"), "{error}");
    }

    #[test]
    fn a_timeout_says_its_unit() {
        assert!(parse("latitude get k --timeout 500ms").is_ok());
        let error = parse("latitude get k --timeout 10").unwrap_err().to_string();
        assert!(error.contains("like 500ms"), "{error}");
    }
}

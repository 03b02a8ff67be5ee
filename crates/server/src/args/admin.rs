//! The commands on the cluster.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use latitude_types::{Level, NodeId, RangeId};

use super::{ConnectArgs, OutputArgs, level};
use crate::address::{PlaceName, by_region};
use crate::text::{parse_node, parse_range};
use crate::units::{ByteCount, duration};

pub(super) const EXAMPLES: &str = "\
Examples:
  latitude admin status
  latitude admin keyspace create users --place eu=1,us=1,ap=1
  latitude admin ranges --keyspace users
  latitude admin deltas
  latitude admin audit --keyspace users
  latitude admin origins --keyspace users
  latitude admin seal n2 --wait 5m
  latitude admin transfer-leader r7 --to-node n2";

/// The arguments of `latitude admin`.
#[derive(Args, Debug)]
pub struct AdminArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AdminCommand,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which nodes to ask.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// What an operator does.
#[derive(Subcommand, Debug)]
pub enum AdminCommand {
    /// What the node asked is, holds and knows
    Status,
    /// Every node of the cluster, as the one asked sees them
    Nodes,
    /// The ranges keys are cut into, with their replicas and leaders
    Ranges {
        /// Only this keyspace's
        #[arg(long, short, value_name = "NAME")]
        keyspace: Option<String>,
    },
    /// Local writes that are not in the log yet, at each node, and what holds them back
    Deltas {
        /// Only this keyspace's
        #[arg(long, short, value_name = "NAME")]
        keyspace: Option<String>,
    },
    /// Compare what the replicas of each range hold, at one place in its log
    ///
    /// Exits with 1 if replicas differ, and with 3 if some could not be compared.
    Audit(AuditArgs),
    /// The nodes that take local writes, range by range, and how far what they took is in the log
    Origins {
        /// Only this keyspace's ranges
        #[arg(long, short, value_name = "NAME")]
        keyspace: Option<String>,
    },
    /// Have a node stop taking local writes, and wait until all it took is in the log
    ///
    /// Before a node is taken away: whoever is sealed is waited for by nobody. Its clients' local
    /// writes go to the nearest other node. Safe to repeat; a seal that is not done in time goes on
    /// by itself, and `latitude admin admit` undoes it.
    Seal(SetOriginArgs),
    /// Have a node that was sealed take local writes again
    Admit(SetOriginArgs),
    /// Make, list and drop keyspaces
    #[command(subcommand)]
    Keyspace(KeyspaceCommand),
    /// Hand the leadership of a range to another of its replicas
    TransferLeader {
        /// The range, as `latitude admin ranges` prints it
        #[arg(value_name = "RANGE", value_parser = parse_range)]
        range: RangeId,
        /// The node that is to lead; it must hold a replica of the range
        #[arg(long, value_name = "NODE", value_parser = parse_node)]
        to_node: NodeId,
    },
}

/// The arguments of `latitude admin audit`.
#[derive(Args, Debug)]
pub struct AuditArgs {
    /// Only this keyspace's ranges
    #[arg(long, short, value_name = "NAME", conflicts_with = "range")]
    pub keyspace: Option<String>,
    /// Only this range, as `latitude admin ranges` prints it
    #[arg(long, value_name = "RANGE", value_parser = parse_range)]
    pub range: Option<RangeId>,
    /// How long to wait for the replicas of each range
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub wait: Duration,
}

/// The arguments of `latitude admin seal` and `latitude admin admit`.
#[derive(Args, Debug)]
pub struct SetOriginArgs {
    /// The node
    #[arg(value_name = "NODE", value_parser = parse_node)]
    pub node: NodeId,
    /// Only in this range, as `latitude admin ranges` prints it [default: in all]
    #[arg(long, value_name = "RANGE", value_parser = parse_range, conflicts_with = "keyspace")]
    pub range: Option<RangeId>,
    /// Only in this keyspace's ranges
    #[arg(long, short, value_name = "NAME")]
    pub keyspace: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub wait: Duration,
}

/// What an operator does with keyspaces.
#[derive(Subcommand, Debug)]
pub enum KeyspaceCommand {
    /// Make a keyspace
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateKeyspaceArgs),
    /// List the keyspaces
    List,
    /// Remove a keyspace and all its keys, for good
    ///
    /// Asks on a terminal; elsewhere it refuses without --yes.
    Drop {
        /// The keyspace
        #[arg(value_name = "NAME")]
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

const CREATE_EXAMPLES: &str = "\
Examples:
  latitude admin keyspace create users
  latitude admin keyspace create orders --place eu=2,us=1 --default-level strict
  latitude admin keyspace create likes --type counter
  latitude admin keyspace create events --split-at g --split-at n --split-at t";

/// The type of a keyspace's values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ValueTypeArg {
    /// A value that is overwritten.
    Register,
    /// A value that is overwritten by who has read it; what was written unseen of each other is all kept.
    Siblings,
    /// A number; every add counts, once.
    Counter,
    /// Elements; an add wins over a remove that had not seen it.
    Set,
    /// Fields, each with a value; a put that a remove had not seen survives it.
    Map,
    /// On or off; an enable wins over a disable that had not seen it.
    Flag,
}

/// A region and how many replicas of each range it holds.
pub type PlaceArg = (PlaceName, u32);

/// The arguments of `latitude admin keyspace create`.
#[derive(Args, Debug)]
pub struct CreateKeyspaceArgs {
    /// The name: 1 to 64 letters, digits, '-', '_' and '.', beginning with a letter
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The type of all its values, for ever
    #[arg(long = "type", value_name = "TYPE", default_value = "register")]
    pub value_type: ValueTypeArg,
    /// Cut the keys into so many ranges, evenly over keys of letters and digits [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "split_at", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub ranges: Option<u32>,
    /// Cut the keys here; repeatable, in ascending order
    #[arg(long, value_name = "KEY")]
    pub split_at: Vec<String>,
    /// Replicas by region, the preferred leader's first [default: three, spread over regions, then zones]
    #[arg(long, value_name = "REGION=N", value_delimiter = ',', value_parser = by_region::<u32>)]
    pub place: Vec<PlaceArg>,
    /// Replicas without a vote, by region, beside those above: they serve reads near by, and no write waits for them
    #[arg(long, value_name = "REGION=N", value_delimiter = ',', value_parser = by_region::<u32>)]
    pub learners: Vec<PlaceArg>,
    /// Every write goes through the log, so that none passes under the condition of a `cas`
    #[arg(long)]
    pub log_only: bool,
    /// The level of requests that name none [default: causal]
    #[arg(long, value_name = "LEVEL", value_parser = level())]
    pub default_level: Option<Level>,
    /// The longest value, at most 8MiB [default: 1MiB]
    #[arg(long, value_name = "BYTES")]
    pub value_limit: Option<ByteCount>,
}

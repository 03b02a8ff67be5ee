//! The commands on counters, sets, maps and flags.

use clap::{Args, ValueEnum};

use super::{DataArgs, DurabilityFlags};

pub(super) const ADD_EXAMPLES: &str = "\
Prints the sum after the add, or its version at a level that does not write through the log. If the \
sum would leave the bounds, adds nothing, prints the sum found and exits with 1.

Examples:
  latitude add likes 3 --keyspace counters
  latitude add stock -1 --min 0 --keyspace counters
  latitude add seats 2 --max 40 --keyspace counters";

/// The arguments of `latitude add`.
#[derive(Args, Debug)]
pub struct AddArgs {
    /// The key of a counter, 1 to 4096 bytes
    #[arg(value_name = "KEY")]
    pub key: String,
    /// How much to add; negative to take away
    #[arg(value_name = "AMOUNT", allow_negative_numbers = true)]
    pub amount: i64,
    /// Only if the sum is not less afterwards; goes through the log
    #[arg(long, value_name = "SUM", allow_negative_numbers = true)]
    pub min: Option<i64>,
    /// Only if the sum is not more afterwards; goes through the log
    #[arg(long, value_name = "SUM", allow_negative_numbers = true)]
    pub max: Option<i64>,
    /// What the write demands.
    #[command(flatten)]
    pub durability: DurabilityFlags,
    /// What every command on data takes.
    #[command(flatten)]
    pub data: DataArgs,
}

pub(super) const RESET_EXAMPLES: &str = "\
Prints the version of the reset. What others add without having seen it counts after it.

Examples:
  latitude reset likes --keyspace counters";

/// The arguments of `latitude reset`.
#[derive(Args, Debug)]
pub struct ResetArgs {
    /// The key of a counter, 1 to 4096 bytes
    #[arg(value_name = "KEY")]
    pub key: String,
    /// What the write demands.
    #[command(flatten)]
    pub durability: DurabilityFlags,
    /// What every command on data takes.
    #[command(flatten)]
    pub data: DataArgs,
}

/// What is done with elements of a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum SetAction {
    /// Have them in the set.
    Add,
    /// Have them in the set no more.
    Remove,
}

pub(super) const SET_EXAMPLES: &str = "\
Prints the version of each write. `latitude get` prints the elements.

Examples:
  latitude set add cart milk bread --keyspace carts
  latitude set remove cart milk --keyspace carts";

/// The arguments of `latitude set`.
#[derive(Args, Debug)]
pub struct SetArgs {
    /// What to do
    #[arg(value_name = "ACTION")]
    pub action: SetAction,
    /// The key of a set, 1 to 4096 bytes
    #[arg(value_name = "KEY")]
    pub key: String,
    /// The elements, 1 to 4096 bytes each
    #[arg(value_name = "ELEMENT", required = true)]
    pub elements: Vec<String>,
    /// What the write demands.
    #[command(flatten)]
    pub durability: DurabilityFlags,
    /// What every command on data takes.
    #[command(flatten)]
    pub data: DataArgs,
}

/// What is done with a field of a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum MapAction {
    /// Write it, whatever it held.
    Put,
    /// Remove it, whether or not it exists.
    Remove,
}

pub(super) const MAP_EXAMPLES: &str = "\
Prints the version of the write. `latitude get` prints the fields with their values.

Examples:
  latitude map put profile city Lima --keyspace profiles
  latitude map remove profile city --keyspace profiles
  latitude map put profile temperature --keyspace profiles -- -5";

/// The arguments of `latitude map`.
#[derive(Args, Debug)]
pub struct MapArgs {
    /// What to do
    #[arg(value_name = "ACTION")]
    pub action: MapAction,
    /// The key of a map, 1 to 4096 bytes
    #[arg(value_name = "KEY")]
    pub key: String,
    /// The field, 1 to 4096 bytes
    #[arg(value_name = "FIELD")]
    pub field: String,
    /// The value to put; - reads it from stdin
    #[arg(value_name = "VALUE", required_if_eq("action", "put"))]
    pub value: Option<String>,
    /// What the write demands.
    #[command(flatten)]
    pub durability: DurabilityFlags,
    /// What every command on data takes.
    #[command(flatten)]
    pub data: DataArgs,
}

/// What is done with a flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum FlagAction {
    /// Turn it on.
    Enable,
    /// Turn it off.
    Disable,
}

pub(super) const FLAG_EXAMPLES: &str = "\
Prints the version of the write. `latitude get` prints `on` or `off`, and exits with 1 if it is off.

Examples:
  latitude flag enable dark-mode --keyspace flags
  latitude flag disable dark-mode --keyspace flags";

/// The arguments of `latitude flag`.
#[derive(Args, Debug)]
pub struct FlagArgs {
    /// What to do
    #[arg(value_name = "ACTION")]
    pub action: FlagAction,
    /// The key of a flag, 1 to 4096 bytes
    #[arg(value_name = "KEY")]
    pub key: String,
    /// What the write demands.
    #[command(flatten)]
    pub durability: DurabilityFlags,
    /// What every command on data takes.
    #[command(flatten)]
    pub data: DataArgs,
}

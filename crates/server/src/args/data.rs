//! The commands on data.

use std::path::PathBuf;

use bytes::Bytes;
use clap::{ArgGroup, Args, ValueEnum};
use latitude_client::ReceiptDetail;
use latitude_types::{Level, WriteTime};

use super::{ConnectArgs, DurabilityFlags, FreshnessFlags, OutputArgs, SessionFlags, level};
use crate::text::{parse_context, parse_version};

/// Which keys, and at which level.
#[derive(Args, Debug)]
pub struct KeyspaceArgs {
    /// The keyspace the keys are in
    #[arg(long, short, value_name = "NAME", env = "LATITUDE_KEYSPACE", default_value = "default")]
    pub keyspace: String,
    /// The consistency asked for, strongest first [default: the keyspace's]
    #[arg(long, short, value_name = "LEVEL", value_parser = level())]
    pub level: Option<Level>,
}

/// How much to tell of how a request was served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ReceiptArg {
    /// Nothing.
    None,
    /// Level, node, region, role, range and version.
    Short,
    /// Everything the server knows.
    Full,
}

impl ReceiptArg {
    /// Whether anything is to be told.
    pub fn is_wanted(self) -> bool {
        self != Self::None
    }

    /// As the client takes it.
    pub fn detail(self) -> ReceiptDetail {
        match self {
            Self::None => ReceiptDetail::None,
            Self::Short => ReceiptDetail::Short,
            Self::Full => ReceiptDetail::Full,
        }
    }
}

/// What every command on data takes.
#[derive(Args, Debug)]
pub struct DataArgs {
    /// Which keys, and at which level.
    #[command(flatten)]
    pub at: KeyspaceArgs,
    /// Keys are given and printed as hexadecimal digits
    #[arg(long)]
    pub hex: bool,
    /// Also print, on stderr, how the request was served: level, node, proof, version
    #[arg(
        long,
        value_name = "DETAIL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "none",
        default_missing_value = "full",
        hide_default_value = true,
        help_heading = "Output"
    )]
    pub receipt: ReceiptArg,
    /// What to go on from.
    #[command(flatten)]
    pub session: Box<SessionFlags>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which nodes to ask.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

pub(super) const GET_EXAMPLES: &str = "\
One key prints its value as it is, and a line end. Several print `key<TAB>value` lines, in which \
backslash, tab, line end and bytes that are no UTF-8 are escaped. A key that does not exist prints \
nothing, and the command exits with 1.

A counter prints its sum, a flag `on` or `off` (off exits with 1), a set an element to a line, a map \
`field<TAB>value` lines, siblings a value to a line and on stderr the context for the next write.

Examples:
  latitude get greeting
  latitude get alice bob carol --keyspace users --level strict
  latitude get greeting --receipt
  latitude get greeting --level sequential --session mine --max-staleness 500ms
  latitude get --hex 00ff01 --output json";

/// The arguments of `latitude get`.
#[derive(Args, Debug)]
pub struct GetArgs {
    /// The keys, 1 to 4096 bytes each
    #[arg(value_name = "KEY", required = true)]
    pub keys: Vec<String>,
    /// What the reads demand.
    #[command(flatten)]
    pub freshness: FreshnessFlags,
    /// What every command on data takes.
    #[command(flatten)]
    pub data: DataArgs,
}

pub(super) const PUT_EXAMPLES: &str = "\
Prints the version of what was written. A value that begins with a dash goes after `--`.

Examples:
  latitude put greeting hello
  latitude put photo --file photo.jpg
  date | latitude put now -
  latitude put note both --keyspace notes --context AZkD
  latitude put temperature -- -5";

/// The arguments of `latitude put`.
#[derive(Args, Debug)]
pub struct PutArgs {
    /// The key, 1 to 4096 bytes
    #[arg(value_name = "KEY")]
    pub key: String,
    /// The value; - reads it from stdin
    #[arg(value_name = "VALUE", required_unless_present = "file")]
    pub value: Option<String>,
    /// Read the value from this file
    #[arg(long, short, value_name = "FILE", conflicts_with = "value")]
    pub file: Option<PathBuf>,
    /// Siblings: write in the place of those that were read, whose context `get` printed
    #[arg(long, value_name = "CONTEXT", value_parser = parse_context)]
    pub context: Option<Bytes>,
    /// What the write demands.
    #[command(flatten)]
    pub durability: DurabilityFlags,
    /// What every command on data takes.
    #[command(flatten)]
    pub data: DataArgs,
}

pub(super) const DELETE_EXAMPLES: &str = "\
Prints the version of each removal, also of keys that did not exist.

Examples:
  latitude delete greeting
  latitude delete alice bob --keyspace users";

/// The arguments of `latitude delete`.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// The keys, 1 to 4096 bytes each
    #[arg(value_name = "KEY", required = true)]
    pub keys: Vec<String>,
    /// Siblings of one key: remove those that were read, whose context `get` printed
    #[arg(long, value_name = "CONTEXT", value_parser = parse_context)]
    pub context: Option<Bytes>,
    /// What the write demands.
    #[command(flatten)]
    pub durability: DurabilityFlags,
    /// What every command on data takes.
    #[command(flatten)]
    pub data: DataArgs,
}

pub(super) const CAS_EXAMPLES: &str = "\
If the condition holds, writes, prints the version written and exits with 0. Else writes nothing, \
prints the version found (nothing if there is no such key) and exits with 1.

Examples:
  latitude cas lock --expect-absent me            take a lock nobody holds
  latitude cas lock --expect me --delete          give it back
  latitude cas counter --expect 41 42
  latitude cas doc --expect-version 91234567.0@n1#0 --file doc.json";

/// The arguments of `latitude cas`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("expected").required(true).args(["expect", "expect_absent", "expect_version"]))]
#[command(group = ArgGroup::new("change").required(true).args(["new", "file", "delete"]))]
pub struct CasArgs {
    /// The key, 1 to 4096 bytes
    #[arg(value_name = "KEY")]
    pub key: String,
    /// The new value; - reads it from stdin
    #[arg(value_name = "NEW")]
    pub new: Option<String>,
    /// Expect the key to hold this value
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub expect: Option<String>,
    /// Expect the key not to exist
    #[arg(long)]
    pub expect_absent: bool,
    /// Expect the key to hold the value of this version, as `put` and `get --receipt` print it
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    pub expect_version: Option<WriteTime>,
    /// Read the new value from this file
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Remove the key instead of writing a new value
    #[arg(long)]
    pub delete: bool,
    /// What the write demands.
    #[command(flatten)]
    pub durability: DurabilityFlags,
    /// What every command on data takes.
    #[command(flatten)]
    pub data: DataArgs,
}

pub(super) const SCAN_EXAMPLES: &str = "\
Prints `key<TAB>value` lines in the order of the keys as bytes; backslash, tab, line end and bytes \
that are no UTF-8 are escaped. If more keys may follow, a note on stderr says so.

Examples:
  latitude scan --limit 20
  latitude scan --prefix user/ --keys-only
  latitude scan --start a --end n --reverse
  latitude scan --all --output json --keyspace users > users.jsonl";

/// The arguments of `latitude scan`.
#[derive(Args, Debug)]
pub struct ScanArgs {
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["start", "end"])]
    pub prefix: Option<String>,
    /// The first key, included
    #[arg(long, value_name = "KEY")]
    pub start: Option<String>,
    /// The last key, excluded
    #[arg(long, value_name = "KEY")]
    pub end: Option<String>,
    /// At most so many keys
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// Every key, however many
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
    /// From the last key down
    #[arg(long)]
    pub reverse: bool,
    /// Without the values
    #[arg(long)]
    pub keys_only: bool,
    /// What the reads demand.
    #[command(flatten)]
    pub freshness: FreshnessFlags,
    /// What every command on data takes.
    #[command(flatten)]
    pub data: DataArgs,
}

//! The commands that carry whole keyspaces: out to a file, in from one.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ConnectArgs, KeyspaceArgs, OutputArgs};
use crate::rows::RowFormat;

pub(super) const IMPORT_EXAMPLES: &str = "\
A line is a row, as `latitude export` writes it:
  tsv     key<TAB>value, with the escapes \\\\, \\t, \\n, \\r and \\xNN for any byte
  jsonl   {\"key\":\"...\",\"value\":\"...\"}, or key_base64, value_base64; other fields are passed over

Of several lines with one key the last one wins. What a key held before is overwritten, so an import that \
was interrupted, by kill -9 too, is run again as it was and comes to the same end.

Prints how many rows were written, and for every reason that others were not: how many, the first \
line, why. Exits with 0 if all were written, else with the most serious code: 4 (the outcome of a row \
is unknown: run it again), 5, 2 (rows that can never be written, lines that are none), 3. Lines in the \
file of --rejects can be imported again; if a later line of the same key was written, that one is then \
overwritten.

Examples:
  latitude import users.tsv --keyspace users
  latitude import users.jsonl --on-error continue --rejects bad.jsonl
  zcat users.tsv.gz | latitude import - --format tsv --keyspace users";

/// What to do when a row cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum OnError {
    /// Read no more lines; finish those under way.
    Stop,
    /// Go on with the next line.
    Continue,
}

/// The arguments of `latitude import`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// The file to read; - reads stdin
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How rows are written in the file [default: by its extension, .tsv or .jsonl]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<RowFormat>,
    /// How many rows are under way at once
    #[arg(long, value_name = "N", default_value = "64")]
    pub concurrency: NonZeroUsize,
    /// What to do when a row cannot be written. What would befall every row, such as a keyspace that
    /// does not exist, always stops
    #[arg(long, value_name = "WHAT", default_value = "stop")]
    pub on_error: OnError,
    /// Write the lines that failed to this file, as they are
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<PathBuf>,
    /// Where to write.
    #[command(flatten)]
    pub at: KeyspaceArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which nodes to ask.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

pub(super) const EXPORT_EXAMPLES: &str = "\
Rows are in the order of their keys as bytes, and any bytes come back as they were. Equal contents give \
equal files, byte by byte.

The keyspace is read part by part, each at the level asked for, not at one moment: of what is written \
meanwhile some may be in the export and some not.

With --out the file appears under its name when it is whole, never before.

Examples:
  latitude export --keyspace users --out users.tsv
  latitude export --keyspace users --prefix eu/ --format jsonl > eu.jsonl
  latitude export --start a --end n --format tsv";

/// The arguments of `latitude export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["start", "end"])]
    pub prefix: Option<String>,
    /// The first key, included
    #[arg(long, value_name = "KEY")]
    pub start: Option<String>,
    /// The last key, excluded
    #[arg(long, value_name = "KEY")]
    pub end: Option<String>,
    /// --prefix, --start and --end are given as hexadecimal digits
    #[arg(long)]
    pub hex: bool,
    /// The file to write; - is stdout
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub out: PathBuf,
    /// How rows are written [default: by the file's extension, .tsv or .jsonl; tsv on stdout]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<RowFormat>,
    /// What to read.
    #[command(flatten)]
    pub at: KeyspaceArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which nodes to ask.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

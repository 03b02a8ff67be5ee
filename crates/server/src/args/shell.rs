//! The shell.

use clap::Args;

use super::{ConnectArgs, KeyspaceArgs, OutputArgs, ReceiptArg};

pub(super) const EXAMPLES: &str = "\
In the shell `help` lists the commands: those on data are the same as on the command line. What the \
flags of this command say holds for every line, until `use`, `level` or `receipt` change it, or the \
line says otherwise. All lines are one session: at the level sequential each takes into account what \
earlier ones have seen and done; `session save` and `session load` carry that to another shell. \
Ctrl-C cancels the command that runs, Ctrl-D leaves.

If stdin or stdout is no terminal, the lines of stdin are run without a prompt. Every line is run, and the exit code is that \
of the first one that failed; with --stop-on-error that line is the last. That a key does not exist, or \
a condition did not hold, is an answer and no failure.

History is kept in $XDG_STATE_HOME/latitude/history (~/.local/state unless set), except for lines that \
begin with a space.

Examples:
  latitude shell
  latitude shell --to 10.0.0.1:7400 --keyspace users --level sequential
  latitude shell --stop-on-error < commands.txt";

/// The arguments of `latitude shell`.
#[derive(Args, Debug)]
pub struct ShellArgs {
    /// Stop at the first line that fails, if stdin or stdout is no terminal
    #[arg(long)]
    pub stop_on_error: bool,
    /// The receipts to print
    #[arg(long, value_name = "DETAIL", default_value = "none", help_heading = "Output")]
    pub receipt: ReceiptArg,
    /// Where to begin.
    #[command(flatten)]
    pub at: KeyspaceArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which nodes to ask.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

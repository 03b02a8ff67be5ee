//! What stays from one line to the next.

use std::time::Duration;

use latitude_types::Level;

use crate::address::{Address, PlaceName};
use crate::args::{ConnectArgs, KeyspaceArgs, OutputArgs, ReceiptArg, ShellArgs};
use crate::output::Format;

/// The state of a shell: what the flags of its lines are, unless a line says otherwise.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) keyspace: String,
    /// `None`: the keyspace's default.
    pub(super) level: Option<Level>,
    pub(super) receipt: ReceiptArg,
    pub(super) format: Format,
    /// Whether to say how long each command took.
    pub(super) timing: bool,
    pub(super) to: Vec<Address>,
    pub(super) region: Option<PlaceName>,
    pub(super) timeout: Duration,
}

impl State {
    pub(super) fn of(args: ShellArgs) -> Self {
        let ShellArgs { receipt, at, output, connect, .. } = args;
        let KeyspaceArgs { keyspace, level } = at;
        let OutputArgs { output: format } = output;
        let ConnectArgs { to, region, timeout } = connect;
        Self { keyspace, level, receipt, format, timing: false, to, region, timeout }
    }

    /// Where the shell's own requests go.
    pub(super) fn connect(&self) -> ConnectArgs {
        let Self { to, region, timeout, .. } = self.clone();
        ConnectArgs { to, region, timeout }
    }

    pub(super) fn prompt(&self) -> String {
        let level = self.level.map_or("default level", Level::name);
        format!("{} [{level}] › ", self.keyspace)
    }
}

//! What clients asked and were told, as JSON lines, one event a line.
//!
//! ```text
//!   {"index":0,"type":"invoke","process":3,"time":12,"f":"txn","value":[["r","k7",null]]}
//!   {"index":1,"type":"ok",    "process":3,"time":19,"f":"txn","value":[["r","k7",5]]}
//!
//!   line 1 ──invoke──┐                    one Operation: invoked on line 1,
//!   line 2 ──ok──────┘                    returned on line 2, saw 5
//! ```
//!
//! Invariants of a [`History`], checked wherever one is made:
//! - The order of the lines is the clock: one recorder wrote both lines of every operation under one
//!   lock. `index` grows from line to line; the lines of one key cut out of a history are still one.
//! - A process has at most one operation open. It is one session: after `info` (nobody knows whether
//!   the operation took effect) its number is never used again.
//! - A completion names the micro-operations that were invoked, with the results of reads filled in.

mod event;
mod format;
mod micro_op;
mod operation;
mod sessions;

use std::io::{self, BufRead, Write};

pub use event::{Body, Event, Extras, Phase, Version};
pub use micro_op::{MicroOp, Value};
pub use operation::{Operation, Outcome};
pub(crate) use sessions::Sessions;

/// The `f` of an ordinary event of a client.
pub const TRANSACTION: &str = "txn";
/// The `f` of a `fail` whose conditional write certainly found another value than it asked for, or whose bounded
/// addition would certainly have left its bounds.
pub const CAS_MISMATCH: &str = "cas-mismatch";

/// A valid history. Event `i` is line `i + 1`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct History {
    events: Vec<Event>,
}

impl History {
    /// Takes events in the order in which they happened.
    pub fn new(events: Vec<Event>) -> Result<Self, HistoryError> {
        let mut sessions = Sessions::default();
        for (at, event) in events.iter().enumerate() {
            sessions.step(at + 1, event)?;
        }
        Ok(Self { events })
    }

    /// Reads JSON lines to the end.
    pub fn read(input: impl BufRead) -> Result<Self, HistoryError> {
        let mut events = Vec::new();
        for (at, line) in input.lines().enumerate() {
            let number = at + 1;
            let line = line.map_err(|source| HistoryError::Unreadable { line: number, source })?;
            let event = serde_json::from_str(&line)
                .map_err(|source| HistoryError::Malformed { line: number, source })?;
            events.push(event);
        }
        Self::new(events)
    }

    /// Writes JSON lines; [`History::read`] gives the same history back.
    pub fn write(&self, mut output: impl Write) -> io::Result<()> {
        self.events.iter().try_for_each(|event| event.write_line(&mut output))
    }

    /// The events, in the order of their lines.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The operations of clients, in the order of their invocations.
    pub fn operations(&self) -> Vec<Operation> {
        operation::pair(&self.events)
    }
}

/// Why some lines are no history. Each names the line at which it shows.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The line could not be read, or is no UTF-8.
    #[error("line {line}: {source}")]
    Unreadable {
        /// Counted from 1.
        line: usize,
        /// What the reader said.
        source: io::Error,
    },
    /// The line is no event of the format.
    #[error("line {line}: not an event: {source}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// `index` did not grow: lines were shuffled, or two histories joined.
    #[error("line {line}: index {index} follows index {previous}")]
    OutOfOrder {
        /// Counted from 1.
        line: usize,
        /// The index of this line.
        index: u64,
        /// The index of the line before.
        previous: u64,
    },
    /// An event with no micro-operation.
    #[error("line {line}: no micro-operation")]
    Empty {
        /// Counted from 1.
        line: usize,
    },
    /// An invocation that already knows what its read saw.
    #[error("line {line}: a read is invoked with null")]
    ResultInInvoke {
        /// Counted from 1.
        line: usize,
    },
    /// An invocation while the process has an operation open.
    #[error("line {line}: process {process} still has the operation of line {open} open")]
    StillOpen {
        /// Counted from 1.
        line: usize,
        /// Whose.
        process: u64,
        /// The line of the open invocation.
        open: usize,
    },
    /// A completion of nothing.
    #[error("line {line}: process {process} has no open operation to complete")]
    NothingOpen {
        /// Counted from 1.
        line: usize,
        /// Whose.
        process: u64,
    },
    /// A completion of other micro-operations than were invoked.
    #[error("line {line}: completes another operation than line {open} invoked")]
    OtherOperation {
        /// Counted from 1.
        line: usize,
        /// The line of the open invocation.
        open: usize,
    },
    /// A process number used again after its `info`.
    #[error("line {line}: process {process} ended with the unknown outcome of line {retired}")]
    Retired {
        /// Counted from 1.
        line: usize,
        /// Whose.
        process: u64,
        /// The line of its `info`.
        retired: usize,
    },
}

impl HistoryError {
    /// The line at which it shows, counted from 1.
    pub fn line(&self) -> usize {
        match self {
            Self::Unreadable { line, .. }
            | Self::Malformed { line, .. }
            | Self::OutOfOrder { line, .. }
            | Self::Empty { line }
            | Self::ResultInInvoke { line }
            | Self::StillOpen { line, .. }
            | Self::NothingOpen { line, .. }
            | Self::OtherOperation { line, .. }
            | Self::Retired { line, .. } => *line,
        }
    }
}

#[cfg(test)]
mod history_test;

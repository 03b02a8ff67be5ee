//! Which writes a read certainly has to show, whatever the type of the key.
//!
//! ```text
//!   own       acknowledged in the read's session before it (with tokens), if the read is not eventual
//!   log       acknowledged by the log before the read began, if the read is strict and the write is not local
//!   final     acknowledged before the read began, if the read is a final one: all was healed before
//! ```
//!
//! All others that had begun before the read returned, and did not fail, it may show.

use crate::Level;
use crate::history::{Operation, Outcome};
use crate::promise::{Broken, Doubt};
use crate::session_order::{Clock, SessionOrder};

/// What an operation names, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) operations: &'a [Operation],
    pub(crate) levels: Vec<Level>,
    pub(crate) order: SessionOrder,
}

/// By what a read certainly has to show a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    Own,
    Log,
    Final,
}

impl<'a> Known<'a> {
    /// Takes the operations of a history, in the order of their invocations. Those that name no level are
    /// `unnamed`.
    pub(crate) fn new(operations: &'a [Operation], unnamed: Level) -> Result<Self, Broken> {
        let level = |operation: &'a Operation| {
            Level::of(operation, unnamed).map_err(|level| Doubt::level(operation, level))
        };
        let levels = operations.iter().map(level).collect::<Result<_, _>>()?;
        Ok(Self { operations, levels, order: SessionOrder::new(operations) })
    }

    /// Whether a read certainly has to show a write, which is acknowledged. `own`: what comes before the
    /// read in its session.
    pub(crate) fn shows(&self, read: usize, own: &Clock, write: usize) -> Option<By> {
        let returned = self.operations[write].return_line;
        let before = returned.is_some_and(|line| line < self.operations[read].invoke_line);
        if !before || self.operations[write].outcome != Outcome::Ok {
            return None;
        }
        let place = self.order.places[write];
        if self.operations[read].extras.is_final {
            Some(By::Final)
        } else if self.levels[read] == Level::Strict && self.levels[write].is_log() {
            Some(By::Log)
        } else if self.levels[read] != Level::Eventual && place.is_some_and(|at| own.holds(at)) {
            Some(By::Own)
        } else {
            None
        }
    }

    /// Whether a read may show a write that may have happened.
    pub(crate) fn may_show(&self, read: usize, write: usize) -> bool {
        let write = &self.operations[write];
        let happened = write.outcome == Outcome::Ok || write.outcome.is_unknown();
        let returned = self.operations[read].return_line;
        happened && returned.is_some_and(|line| write.invoke_line < line)
    }
}

impl By {
    /// Why the write on a line is certain.
    pub(crate) fn why(self, line: usize) -> String {
        match self {
            Self::Own => format!("line {line} acknowledged it in the same session"),
            Self::Log => format!("line {line} acknowledged it before the strict read began"),
            Self::Final => format!("line {line} acknowledged it before the final read began"),
        }
    }
}

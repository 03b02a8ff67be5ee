//! What a judge shows a person: the lines that cannot be, and how much was judged.

use std::fmt;

use crate::history::{MicroOp, Operation, Outcome};

/// Operations that no correct database could have answered together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The key.
    pub key: String,
    /// What is broken, in a few words.
    pub rule: &'static str,
    /// The operations that show it, in the order of their invocations.
    pub operations: Vec<Cited>,
    /// Why they cannot be.
    pub why: String,
}

/// An operation as a violation shows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cited {
    /// The line of its invocation, counted from 1.
    pub invoke_line: usize,
    /// The line of its return, if it has one.
    pub return_line: Option<usize>,
    /// The session.
    pub process: u64,
    /// What it did and what became of it.
    pub text: String,
}

impl Cited {
    /// Shows the part of an operation that touched `key`.
    pub(crate) fn new(key: &str, operation: &Operation) -> Self {
        let steps = operation.micro_ops.iter().filter(|op| op.key() == key);
        Self::of(operation, steps.map(ToString::to_string).collect())
    }

    /// Shows a whole operation, with its keys.
    pub(crate) fn across(operation: &Operation) -> Self {
        let steps = operation.micro_ops.iter().map(|op| format!("{}: {op}", op.key()));
        Self::of(operation, steps.collect())
    }

    fn of(operation: &Operation, steps: Vec<String>) -> Self {
        let is_bounded = |op: &MicroOp| matches!(op, MicroOp::BoundedAdd { .. });
        let mut text = steps.join(", ");
        text += match operation.outcome {
            Outcome::Ok => "",
            Outcome::Fail => " (failed)",
            Outcome::Mismatch if operation.micro_ops.iter().any(is_bounded) => {
                " (failed: out of bounds)"
            }
            Outcome::Mismatch => " (failed: found another value)",
            Outcome::Info => " (unknown)",
            Outcome::Pending => " (pending)",
        };
        if operation.extras.is_final {
            text += " (final)";
        }
        let &Operation { invoke_line, return_line, process, .. } = operation;
        Self { invoke_line, return_line, process, text }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key {}: {}", self.key, self.rule)?;
        for cited in &self.operations {
            writeln!(f, "  {cited}")?;
        }
        write!(f, "  {}", self.why)
    }
}

impl fmt::Display for Cited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.return_line {
            Some(line) => write!(f, "lines {}-{line}", self.invoke_line)?,
            None => write!(f, "lines {}-never", self.invoke_line)?,
        }
        write!(f, ", process {}: {}", self.process, self.text)
    }
}

/// How much was judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Operations that took effect.
    pub ok: usize,
    /// Operations that certainly had none.
    pub failed: usize,
    /// Operations of which nobody knows, those still open among them.
    pub unknown: usize,
    /// Keys.
    pub keys: usize,
}

impl Counts {
    /// Counts operations and the keys they touch.
    pub(crate) fn of(operations: &[Operation]) -> Self {
        let mut counts = Self::default();
        let mut keys = std::collections::BTreeSet::new();
        for operation in operations {
            match operation.outcome {
                Outcome::Ok => counts.ok += 1,
                Outcome::Fail | Outcome::Mismatch => counts.failed += 1,
                Outcome::Info | Outcome::Pending => counts.unknown += 1,
            }
            keys.extend(operation.micro_ops.iter().map(|op| op.key()));
        }
        counts.keys = keys.len();
        counts
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ok, failed, unknown, keys } = self;
        write!(f, "{ok} ok, {failed} failed, {unknown} unknown, {keys} keys")
    }
}

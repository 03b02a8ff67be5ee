//! What the judges of single promises say: counters, sets, durability, convergence, session guarantees.

use std::fmt;

use crate::history::Operation;
use crate::{Cited, Counts, Violation};

/// What is known of a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing in it breaks the promise.
    Kept,
    /// It is broken.
    Violation(Violation),
    /// Nobody knows.
    Unknown(Doubt),
}

/// Why a history could not be judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// An operation of another type than the one judged, or more than one step.
    NotOfType {
        /// The line of its invocation.
        line: usize,
        /// What it does.
        text: String,
    },
    /// A level that there is not.
    Level {
        /// The line of its invocation.
        line: usize,
        /// The level asked for.
        level: String,
    },
    /// Two writes of a key left the same value, so that nobody knows which one a read saw.
    WrittenTwice {
        /// The key.
        key: String,
        /// The lines of the two invocations.
        lines: (usize, usize),
    },
    /// Nobody read at the end, when all was healed.
    NoFinalReads,
    /// A key that was used has no final read, or none of this node.
    NotReadAtTheEnd {
        /// The key.
        key: String,
        /// The node, if others read the key.
        node: Option<String>,
    },
    /// A write began after the final reads did.
    NotQuiet {
        /// The line of its invocation.
        line: usize,
    },
}

/// A verdict, and how much it is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// What is known.
    pub verdict: Verdict,
    /// How much was judged.
    pub counts: Counts,
}

impl Report {
    pub(crate) fn new(operations: &[Operation], judged: Result<(), Broken>) -> Self {
        let verdict = match judged {
            Ok(()) => Verdict::Kept,
            Err(Broken::Violation(violation)) => Verdict::Violation(*violation),
            Err(Broken::Doubt(doubt)) => Verdict::Unknown(doubt),
        };
        Self { verdict, counts: Counts::of(operations) }
    }
}

/// Why a judge stopped.
#[derive(Debug)]
pub(crate) enum Broken {
    Violation(Box<Violation>),
    Doubt(Doubt),
}

impl From<Violation> for Broken {
    fn from(violation: Violation) -> Self {
        Self::Violation(Box::new(violation))
    }
}

impl From<Doubt> for Broken {
    fn from(doubt: Doubt) -> Self {
        Self::Doubt(doubt)
    }
}

impl Doubt {
    pub(crate) fn of_type(operation: &Operation) -> Self {
        Self::NotOfType { line: operation.invoke_line, text: Cited::across(operation).text }
    }

    pub(crate) fn level(operation: &Operation, level: &str) -> Self {
        Self::Level { line: operation.invoke_line, level: level.to_owned() }
    }
}

/// Operations on one key, for a violation: in the order of their invocations, each once.
pub(crate) fn violation(rule: &'static str, operations: &[&Operation], why: String) -> Violation {
    let key = operations[0].micro_ops[0].key().to_owned();
    let mut cited: Vec<_> = operations.iter().map(|op| Cited::new(&key, op)).collect();
    cited.sort();
    cited.dedup();
    Violation { key, rule, operations: cited, why }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept => f.write_str("kept"),
            Self::Violation(violation) => write!(f, "broken\n{violation}"),
            Self::Unknown(doubt) => write!(f, "unknown\n{doubt}"),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOfType { line, text } => {
                write!(f, "line {line}: `{text}` is no single operation of the type judged")
            }
            Self::Level { line, level } => write!(f, "line {line}: there is no level {level}"),
            Self::WrittenTwice { key, lines: (one, other) } => write!(
                f,
                "key {key}: lines {one} and {other} left the same value, and nobody knows which was seen"
            ),
            Self::NoFinalReads => f.write_str("there are no final reads"),
            Self::NotReadAtTheEnd { key, node: None } => write!(f, "key {key} has no final read"),
            Self::NotReadAtTheEnd { key, node: Some(node) } => {
                write!(f, "key {key} has no final read of {node}")
            }
            Self::NotQuiet { line } => {
                write!(f, "line {line}: a write began after the final reads did")
            }
        }
    }
}

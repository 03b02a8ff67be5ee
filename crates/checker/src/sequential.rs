//! Is the whole store sequentially consistent?
//!
//! There must be ONE total order of all operations, over all keys, such that
//! - it contains every session's strict and sequential operations in program order: in the order in
//!   which their process invoked them;
//! - each read returns what the last write of its key before it left: absent if there is none, or if it
//!   is a delete;
//! - a conditional write succeeds exactly if the value at its place is the one it asked for.
//!
//! ```text
//!   process 0 ─▶ w x 1 ──────────▶ r y 0          the order need not follow the lines: a read may be
//!   process 1 ──────▶ w y 1 ──────────▶ r x 1     stale. But no order holds both of these:
//!
//!   process 2 ─▶ r x 1 ─▶ r y null                IRIW: 2 puts x before y, and 3 puts y before x
//!   process 3 ─▶ r y 1 ─▶ r x null
//! ```
//!
//! Unlike linearizability this is not local: keys that fit one by one need not fit together. So the
//! whole store is judged at once.
//!
//! What counts:
//! - A session is a process. `token_from` says that the process took over another's token: whatever
//!   that one had completed before the line of the invocation comes before the operation.
//! - An operation of unknown outcome may have happened, once, after what its process had completed; or
//!   not. Its process ends with it. A client that goes on with the same token under a new number says so
//!   by `token_from`; one that does not is a new session.
//! - A failed operation did not happen, but what follows it in its session still follows what precedes it.
//! - An operation at a weaker level promises nothing here: its reads are left out. Its writes enter the
//!   order where they are folded, and that these judges cannot judge: they say so.
//!
//! Two methods. By versions: replies that carry log stamps give away the order of the writes, and then
//! the question is decided exactly in O(n log n). By search: exact without versions, for small histories.
//! A history with [`litmus`] programs is small enough.
//!
//! HAZARD: the versions must be those of the *values* (stamps of the writes that left them), comparable
//! over all ranges. A log index, or the last index applied where a read was served, is neither.
//!
//! Sources: Lamport, "How to make a multiprocessor computer" (1979) for the definition; Gibbons and
//! Korach, "Testing shared memories" (1997): NP-complete in general, easy when the order of the writes is
//! known.

#[cfg(test)]
mod definition;
pub mod litmus;
mod ordered;
mod program;
mod search;
mod write_order;

use std::fmt;

use crate::history::{History, Operation};
use crate::linearizable::{by_key, evident};
use crate::mixed::{Folded, Mixed};
use crate::{Counts, Violation};
use program::Program;

pub use crate::linearizable::Budget;

/// What is known of a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is a legal order. It was found, so this holds whatever the versions are worth.
    Sequential,
    /// There is none; or, judged by versions, none that agrees with them.
    Violation(Violation),
    /// Nobody knows.
    Unknown(Doubt),
}

/// Why a history could not be judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// The search visited as many configurations as its budget allows.
    OutOfBudget,
    /// An operation that is none of a register, or more than one step.
    NotARegister {
        /// The line of its invocation.
        line: usize,
        /// What it does.
        text: String,
    },
    /// A write at a level whose place in the order is not known, or any operation at a level that is
    /// none.
    Level {
        /// The line of its invocation.
        line: usize,
        /// The level asked for.
        level: String,
    },
}

/// How a verdict was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// From the operations' values alone: no order is needed to see it.
    Evident,
    /// By the order of the versions in the replies.
    Versions,
    /// By searching for an order of the values.
    Search,
}

/// A verdict, how it was reached, and how much it is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// What is known.
    pub verdict: Verdict,
    /// How it is known. `None`: the history could not be read as one of registers.
    pub method: Option<Method>,
    /// How much was judged.
    pub counts: Counts,
}

/// Judges every operation of a history: by versions if every reply that should carry one does, else,
/// or where the versions leave it open, by search.
pub fn check(history: &History) -> Report {
    check_operations(&history.operations(), Budget::default())
}

/// As [`check`], for the operations of one history in the order of their invocations. The operations
/// of a session that are left out take its tokens and the order of its program with them.
pub fn check_operations(operations: &[Operation], budget: Budget) -> Report {
    report(operations, budget, Trust::Versions)
}

/// As [`check_operations`], for a history with local writes, of which those that had an effect in the log did where
/// `folded` says: they are judged with the rest.
pub fn check_mixed(operations: &[Operation], folded: &[Folded], budget: Budget) -> Report {
    let Mixed { operations, local } = Mixed::new(operations, folded);
    report_of(Program::mixed(&operations, &local), &operations, budget, Trust::Versions)
}

/// As [`check_operations`], but looks at no version: by search only.
pub fn check_values(operations: &[Operation], budget: Budget) -> Report {
    report(operations, budget, Trust::Values)
}

/// What a judge believes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trust {
    Versions,
    Values,
}

fn report(operations: &[Operation], budget: Budget, trust: Trust) -> Report {
    report_of(Program::new(operations), operations, budget, trust)
}

fn report_of(
    program: Result<Program<'_>, Doubt>,
    operations: &[Operation],
    budget: Budget,
    trust: Trust,
) -> Report {
    let (verdict, method) = match program {
        Ok(program) => {
            let (verdict, method) = judge(&program, budget, trust);
            (verdict, Some(method))
        }
        Err(doubt) => (Verdict::Unknown(doubt), None),
    };
    Report { verdict, method, counts: Counts::of(operations) }
}

fn judge(program: &Program<'_>, budget: Budget, trust: Trust) -> (Verdict, Method) {
    if let Some(violation) = find_evident(program) {
        return (Verdict::Violation(violation), Method::Evident);
    }
    if trust == Trust::Versions && ordered::is_possible(program) {
        match ordered::judge(program) {
            ordered::Found::Order => return (Verdict::Sequential, Method::Versions),
            ordered::Found::Violation(violation) => {
                return (Verdict::Violation(violation), Method::Versions);
            }
            ordered::Found::Unclear => {}
        }
    }
    let verdict = match search::judge(program, budget) {
        search::Found::Order => Verdict::Sequential,
        search::Found::Violation(violation) => Verdict::Violation(violation),
        search::Found::OutOfBudget => Verdict::Unknown(Doubt::OutOfBudget),
    };
    (verdict, Method::Search)
}

/// Finds a value that nobody wrote, or that only a failed write would have left.
fn find_evident(program: &Program<'_>) -> Option<Violation> {
    by_key(program.judged()).into_iter().find_map(|(key, operations)| {
        let register = crate::linearizable::register::Register::new(key, &operations);
        evident::judge(&register.expect("the program took only operations of registers"))
    })
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Evident => "evident from the values",
            Self::Versions => "by versions",
            Self::Search => "by search",
        })
    }
}

/// The verdict with its method.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = |f: &mut fmt::Formatter<'_>| match self.method {
            Some(method) => write!(f, " ({method})"),
            None => Ok(()),
        };
        match &self.verdict {
            Verdict::Sequential => {
                f.write_str("sequentially consistent")?;
                method(f)
            }
            Verdict::Violation(violation) => {
                f.write_str("not sequentially consistent")?;
                method(f)?;
                write!(f, "\n{violation}")
            }
            Verdict::Unknown(doubt) => write!(f, "unknown\n{doubt}"),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBudget => f.write_str("the search ran out of its budget"),
            Self::NotARegister { line, text } => {
                write!(f, "line {line}: `{text}` is no single operation of a register")
            }
            Self::Level { line, level } => {
                write!(f, "line {line}: nobody knows the place of an operation at level {level}")
            }
        }
    }
}

#[cfg(test)]
mod sequential_test;

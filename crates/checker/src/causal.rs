//! Is the whole store causally convergent (CCv)?
//!
//! An operation's *past* is what its session did and saw before, and the pasts of that. There must be
//! ONE order of all writes that contains the past of each, such that every read returns the last write of
//! its key, in that order, among those in its past; absent if there is none, or if it is a delete. Sessions
//! may see writes at different times; they never see an effect without its causes, and never disagree on
//! which of two writes wins.
//!
//! ```text
//!   process 0 ─▶ w x 1 ─▶ w y 1         message passing: whoever sees y = 1 has x = 1 in its past, and
//!   process 1 ─▶ r y 1 ─▶ r x null !    cannot find x absent any more
//!
//!   process 2 ─▶ r x 1 ─▶ r y null      long fork: allowed here. Two writes that know nothing of each
//!   process 3 ─▶ r y 1 ─▶ r x null      other may arrive in any order
//! ```
//!
//! Where every value of a key is written once, a read says which write it saw, and the question has an
//! answer in the absence of five *bad patterns* ([`Pattern`]). They are looked for with one clock for each
//! operation, in O(operations × sessions).
//!
//! What counts, and why (the contract is `docs/consistency.md`):
//! - A session is a process, and `token_from` hands on what a process had completed before that line.
//!   A failed operation did nothing, but what follows it in its session still follows what precedes it.
//! - An operation that names no level is causal. A conditional write goes through the log, whatever it
//!   names; one that succeeded has seen what it replaced. One that failed says nothing here.
//! - *Causal* operations: as above.
//! - *Strict and sequential* writes: as above. Their reads see the log alone, so of their past they must
//!   show the log's writes and their own session's (tokens included), but not a local write that the
//!   session merely saw: that one may not be folded yet ("what a session has read may go back when it
//!   changes from causal to strict"). What they saw is in the past of what follows, like any read.
//! - *Eventual* reads promise nothing: they are left out, except that no value comes from thin air.
//!   *Eventual* writes carry no past: whoever sees one need not see more. But the later operations of its
//!   own session have it in their past, and it is above what its own session wrote to its key before.
//! - A write of unknown outcome happened if somebody saw it, with the past of its session; else it does
//!   not matter. A failed write never happened: to see it is [`Pattern::ThinAirRead`].
//! - An absent key does not say which delete made it so. A version does, if the reply shows the one that
//!   a delete was acknowledged with. Else every delete of the key, and the beginning, is tried where it makes
//!   a difference; if that takes too long, the verdict is [`Verdict::Unknown`], never a guess.
//!
//! Sound only if what clients told each other is in the history: a token handed on and not recorded is a
//! cause this judge does not know, and it will accept too much. For the rest, versions only say which delete
//! to try first: where all acknowledged writes show theirs, right histories with deletes are nearly always decided,
//! and long ones without versions often are not.
//!
//! Source: Bouajjani, Enea, Guerraoui, Hamza, "On verifying causal consistency" (POPL 2017): the patterns,
//! and that they are all for values written once.

#[cfg(test)]
mod definition;
mod explain;
mod program;
mod walk;

use std::fmt;

use crate::history::{History, Operation};
use crate::linearizable::{by_key, evident, register::Register};
use crate::{Counts, Violation};
use explain::Explain;
use program::Program;
use walk::{Guesses, Nulls};

/// What is known of a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is an order of the writes that explains every read.
    Causal,
    /// There is none.
    Violation(Pattern, Violation),
    /// Nobody knows.
    Unknown(Doubt),
}

/// What no causally convergent store shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Pattern {
    /// A value that nobody wrote, or only a failed write.
    ThinAirRead,
    /// An operation is in its own past.
    CyclicCO,
    /// A read found the initial state though a write of the key is in its past.
    WriteCOInitRead,
    /// A read found a write though another one of the key, which had it in its past, is in the read's.
    WriteCORead,
    /// Each read fits, but no order of the writes fits all of them.
    CyclicCF,
}

/// Why a history could not be judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// Several deletes may be what this operation found, and too many combinations were to be tried.
    Absent {
        /// The line of its invocation.
        line: usize,
    },
    /// Two writes of a key left the same value, so that nobody knows which one a read saw.
    WrittenTwice {
        /// The key.
        key: String,
        /// The lines of the two invocations.
        lines: (usize, usize),
    },
    /// An operation that is none of a register, or more than one step.
    NotARegister {
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
}

/// A verdict, and how much it is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// What is known.
    pub verdict: Verdict,
    /// How much was judged.
    pub counts: Counts,
}

/// How much may be done to find out which deletes were seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Operations looked at, again for every combination that is tried. The first is tried always.
    pub operations: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { operations: 200_000 }
    }
}

/// Judges every operation of a history.
pub fn check(history: &History) -> Report {
    check_operations(&history.operations(), Budget::default())
}

/// As [`check`], for the operations of one history in the order of their invocations.
pub fn check_operations(operations: &[Operation], budget: Budget) -> Report {
    let verdict = match Program::new(operations) {
        Ok(program) => judge(&program, budget),
        Err(doubt) => Verdict::Unknown(doubt),
    };
    Report { verdict, counts: Counts::of(operations) }
}

fn judge(program: &Program<'_>, budget: Budget) -> Verdict {
    if let Some(violation) = find_evident(program) {
        return Verdict::Violation(Pattern::ThinAirRead, violation);
    }
    if let Some(violation) = Explain::new(program).thin_swap() {
        return Verdict::Violation(Pattern::ThinAirRead, violation);
    }
    let Some(line) = program.line_open() else {
        return match attempt(program, &mut Nulls::Open) {
            Ok(()) => Verdict::Causal,
            Err((pattern, violation)) => Verdict::Violation(pattern, violation),
        };
    };
    let mut guesses = Guesses::default();
    let mut left = budget.operations;
    let mut first = None;
    loop {
        let mut nulls = Nulls::Guessed(&mut guesses);
        if first.is_some() {
            if is_right(program, &mut nulls) {
                return Verdict::Causal;
            }
        } else {
            let Err(broken) = attempt(program, &mut nulls) else { return Verdict::Causal };
            // Whatever the absent keys were, this is wrong: the better explanation.
            if let Err((pattern, violation)) = attempt(program, &mut Nulls::Open) {
                return Verdict::Violation(pattern, violation);
            }
            first = Some(broken);
        }
        if !guesses.advance()
            && let Some((pattern, mut violation)) = first.take()
        {
            if guesses.made > 1 {
                violation.why +=
                    "; and no other choice of the deletes that the absent keys show is better";
            }
            return Verdict::Violation(pattern, violation);
        }
        match left.checked_sub(program.steps.len()) {
            Some(rest) => left = rest,
            None => return Verdict::Unknown(Doubt::Absent { line }),
        }
    }
}

/// As [`attempt`], without an explanation.
fn is_right(program: &Program<'_>, nulls: &mut Nulls<'_>) -> bool {
    let (sources, outcome) = walk::walk(program, nulls, &[]);
    outcome.is_ok_and(|walked| walk::cyclic(program, &sources, &walked.replaced).is_none())
}

/// Judges with the absent keys explained in one way.
fn attempt(program: &Program<'_>, nulls: &mut Nulls<'_>) -> Result<(), (Pattern, Violation)> {
    let (sources, outcome) = walk::walk(program, nulls, &[]);
    let explain = Explain::new(program).with_sources(&sources);
    match outcome {
        Ok(walked) => match walk::cyclic(program, &sources, &walked.replaced) {
            Some(cyclic) => Err(explain.no_order(&cyclic, &walked.replaced)),
            None => Ok(()),
        },
        Err(broken) => Err(explain.broken(&broken)),
    }
}

/// Finds a value that nobody wrote, or that only a failed write would have left, at any level.
fn find_evident(program: &Program<'_>) -> Option<Violation> {
    by_key(program.operations).into_iter().find_map(|(key, operations)| {
        let register = Register::new(key, &operations);
        evident::judge(&register.expect("the program took only operations of registers"))
    })
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Causal => f.write_str("causally convergent"),
            Self::Violation(pattern, violation) => {
                write!(f, "not causally convergent ({pattern})\n{violation}")
            }
            Self::Unknown(doubt) => write!(f, "unknown\n{doubt}"),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { line } => write!(
                f,
                "line {line}: several deletes may be what was found absent, and there are too many \
                 combinations to try"
            ),
            Self::WrittenTwice { key, lines: (one, other) } => write!(
                f,
                "key {key}: lines {one} and {other} left the same value, and nobody knows which was seen"
            ),
            Self::NotARegister { line, text } => {
                write!(f, "line {line}: `{text}` is no single operation of a register")
            }
            Self::Level { line, level } => write!(f, "line {line}: there is no level {level}"),
        }
    }
}

#[cfg(test)]
mod causal_test;

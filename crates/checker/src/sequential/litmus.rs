//! Small programs, each with an outcome that tells sequential consistency from something weaker.
//!
//! A test runs the sessions of a [`Litmus`] at the same time against a database, again and again on
//! fresh keys, and asks [`Litmus::judge`] for each outcome. The judge decides from the definition; the
//! forbidden outcomes listed here are the classic ones, for people and for the tests of the judge.
//!
//! ```text
//!   store buffering    w x 1 ─▶ r y null      Each read came before the other's write, which came
//!                      w y 1 ─▶ r x null      before the other's read: a circle.
//! ```
//!
//! Sources: Adve and Gharachorloo, "Shared memory consistency models" (1996); Alglave, Maranget and
//! Tautschnig, "Herding cats" (2014) for the names.

use super::{Budget, Report, check_operations};
use crate::history::{Extras, MicroOp, Operation, Outcome, Value};

/// One step of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Writes a value to a key.
    Write(&'static str, i64),
    /// Reads a key.
    Read(&'static str),
}

/// What each session's reads saw, in the order of its program; `None`: the key was absent.
pub type Outcomes = Vec<Vec<Option<i64>>>;

/// A small program.
#[derive(Clone, Copy, Debug)]
pub struct Litmus {
    /// Its name in the literature.
    pub name: &'static str,
    /// What its forbidden outcomes would show.
    pub shows: &'static str,
    /// What each session does. All keys are absent at first; a value is written once.
    pub sessions: &'static [&'static [Step]],
    /// Outcomes that sequential consistency forbids: per session, what its reads saw.
    pub forbidden: &'static [&'static [&'static [Option<i64>]]],
}

use Step::{Read, Write};

/// Every program.
pub const ALL: &[Litmus] = &[
    Litmus {
        name: "SB (store buffering)",
        shows: "a session's read overtook its own earlier write of another key",
        sessions: &[&[Write("x", 1), Read("y")], &[Write("y", 1), Read("x")]],
        forbidden: &[&[&[None], &[None]]],
    },
    Litmus {
        name: "MP (message passing)",
        shows: "a later write was seen, and an earlier one of the same session was not",
        sessions: &[&[Write("x", 1), Write("y", 1)], &[Read("y"), Read("x")]],
        forbidden: &[&[&[], &[Some(1), None]]],
    },
    Litmus {
        name: "LB (load buffering)",
        shows: "two reads each saw what was written only after the other",
        sessions: &[&[Read("x"), Write("y", 1)], &[Read("y"), Write("x", 1)]],
        forbidden: &[&[&[Some(1)], &[Some(1)]]],
    },
    Litmus {
        name: "IRIW (independent reads of independent writes, long fork)",
        shows: "two observers saw two writes in opposite orders",
        sessions: &[
            &[Write("x", 1)],
            &[Write("y", 1)],
            &[Read("x"), Read("y")],
            &[Read("y"), Read("x")],
        ],
        forbidden: &[&[&[], &[], &[Some(1), None], &[Some(1), None]]],
    },
    Litmus {
        name: "WRC (write-to-read causality)",
        shows: "a write was seen, and one that its writer had seen before was not",
        sessions: &[&[Write("x", 1)], &[Read("x"), Write("y", 1)], &[Read("y"), Read("x")]],
        forbidden: &[&[&[], &[Some(1)], &[Some(1), None]]],
    },
    Litmus {
        name: "CoRR (coherence of two reads)",
        shows: "a session saw a write and then the state before it",
        sessions: &[&[Write("x", 1)], &[Read("x"), Read("x")]],
        forbidden: &[&[&[], &[Some(1), None]]],
    },
    Litmus {
        name: "CoRR2 (coherence for two observers)",
        shows: "two observers saw two writes of one key in opposite orders",
        sessions: &[
            &[Write("x", 1)],
            &[Write("x", 2)],
            &[Read("x"), Read("x")],
            &[Read("x"), Read("x")],
        ],
        forbidden: &[
            &[&[], &[], &[Some(1), Some(2)], &[Some(2), Some(1)]],
            &[&[], &[], &[Some(2), Some(1)], &[Some(1), Some(2)]],
        ],
    },
    Litmus {
        name: "CoWR (coherence of a write and a read)",
        shows: "a session did not see its own write, nor one that replaced it",
        sessions: &[&[Write("x", 1), Read("x")], &[Write("x", 2), Read("x")]],
        forbidden: &[
            &[&[None], &[Some(2)]],
            &[&[Some(1)], &[None]],
            &[&[None], &[None]],
            // Each saw the other's write as the one that came last.
            &[&[Some(2)], &[Some(1)]],
        ],
    },
    Litmus {
        name: "CoRW (coherence of a read and a write)",
        shows: "a session's write came before one that the session had seen",
        sessions: &[&[Read("x"), Write("x", 1)], &[Write("x", 2)], &[Read("x"), Read("x")]],
        forbidden: &[&[&[Some(1)], &[], &[None, None]], &[&[Some(2)], &[], &[Some(1), Some(2)]]],
    },
    Litmus {
        name: "2+2W (two writers of two keys)",
        shows: "two sessions each had their first write replaced by the other's last",
        sessions: &[
            &[Write("x", 1), Write("y", 2), Read("y")],
            &[Write("y", 1), Write("x", 2), Read("x")],
        ],
        forbidden: &[&[&[Some(1)], &[Some(1)]]],
    },
];

impl Litmus {
    /// Every outcome one can write down: each read saw an absent key or some value written to it.
    pub fn outcomes(&self) -> Vec<Outcomes> {
        let steps = || self.sessions.iter().flat_map(|steps| steps.iter());
        let mut all: Vec<Outcomes> = vec![vec![Vec::new(); self.sessions.len()]];
        for (session, steps_here) in self.sessions.iter().enumerate() {
            for step in *steps_here {
                let Read(key) = step else { continue };
                let written = steps().filter_map(|step| match step {
                    Write(to, value) if to == key => Some(Some(*value)),
                    _ => None,
                });
                let seen: Vec<_> = std::iter::once(None).chain(written).collect();
                let longer = |outcome: Outcomes| {
                    seen.iter()
                        .map(move |&value| {
                            let mut outcome = outcome.clone();
                            outcome[session].push(value);
                            outcome
                        })
                        .collect::<Vec<_>>()
                };
                all = all.into_iter().flat_map(longer).collect();
            }
        }
        all
    }

    /// The operations of a run with this outcome, all sessions at once. `None`: it has not one value
    /// for each read.
    pub fn operations(&self, outcome: &[Vec<Option<i64>>]) -> Option<Vec<Operation>> {
        let reads = |steps: &[Step]| steps.iter().filter(|step| matches!(step, Read(_))).count();
        let fits = outcome.len() == self.sessions.len()
            && self.sessions.iter().zip(outcome).all(|(steps, seen)| reads(steps) == seen.len());
        if !fits {
            return None;
        }
        let mut operations = Vec::new();
        for (process, (steps, seen)) in self.sessions.iter().zip(outcome).enumerate() {
            let mut seen = seen.iter();
            for (at, step) in steps.iter().enumerate() {
                let micro_op = match *step {
                    Write(key, value) => MicroOp::Write { key: key.to_owned(), value },
                    Read(key) => {
                        let value = seen.next()?.map_or(Value::Absent, Value::Integer);
                        MicroOp::Read { key: key.to_owned(), value }
                    }
                };
                // All first steps are invoked, then all return, then the second are.
                let line = at * 2 * self.sessions.len() + process + 1;
                operations.push(Operation {
                    process: process as u64,
                    invoke_line: line,
                    return_line: Some(line + self.sessions.len()),
                    micro_ops: vec![micro_op],
                    outcome: Outcome::Ok,
                    extras: Extras::default(),
                });
            }
        }
        operations.sort_by_key(|operation| operation.invoke_line);
        Some(operations)
    }

    /// Judges an outcome from the definition. `None`: it has not one value for each read.
    pub fn judge(&self, outcome: &[Vec<Option<i64>>]) -> Option<Report> {
        Some(check_operations(&self.operations(outcome)?, Budget::default()))
    }
}

//! A history as sessions of steps on registers.

use std::collections::BTreeMap;

use super::Doubt;
use crate::Cited;
use crate::history::{MicroOp, Operation, Outcome};
use crate::linearizable::register::{Action, State, action};

/// An operation, and what must come before it.
#[derive(Clone, Debug)]
pub(super) struct Step<'a> {
    pub(super) source: &'a Operation,
    /// What it does to the register. `None`: nothing, or nothing that is judged. Such a step is certain
    /// and only hands on the order of what comes before it to what comes after it.
    pub(super) action: Option<Action>,
    /// The number of the key, if `action` is something.
    pub(super) key: usize,
    /// Whether it certainly happened. If not it writes, and no step comes after it.
    pub(super) certain: bool,
    /// Whether it is a local write: it is bound by `after` and not by its place in its process.
    pub(super) local: bool,
    /// The certain steps just before it: of its process, and of the one whose token it took over. What
    /// comes before those does too.
    pub(super) after: Vec<usize>,
}

impl Step<'_> {
    /// The state it certainly found.
    pub(super) fn finds(&self) -> Option<State> {
        self.action.and_then(Action::finds)
    }

    /// The state it leaves, if it writes.
    pub(super) fn leaves(&self) -> Option<State> {
        self.action.and_then(Action::leaves)
    }

    /// The state it certainly did not find.
    pub(super) fn avoids(&self) -> Option<State> {
        match self.action {
            Some(Action::Mismatch(state)) => Some(state),
            _ => None,
        }
    }

    /// The line by which what it did was known.
    pub(super) fn line(&self) -> usize {
        self.source.return_line.unwrap_or(self.source.invoke_line)
    }
}

/// All sessions.
#[derive(Clone, Debug)]
pub(super) struct Program<'a> {
    /// What it was made of.
    pub(super) operations: &'a [Operation],
    /// Of these invocations, those that are local writes, and whether their session knows that they happened.
    pub(super) local: BTreeMap<usize, bool>,
    /// The keys, by number.
    pub(super) keys: Vec<&'a str>,
    /// In the order of their invocations, which is one in which all of `after` comes before.
    pub(super) steps: Vec<Step<'a>>,
}

impl<'a> Program<'a> {
    /// Takes the operations of a history, in the order of their invocations.
    pub(super) fn new(operations: &'a [Operation]) -> Result<Self, Doubt> {
        Self::mixed(operations, &BTreeMap::new())
    }

    /// The same, with local writes among them: of the invocations in `local`, whether their session knows that
    /// they happened. Such a write comes after what its session has completed, and before what the session does
    /// afterwards to that key; of the rest it says nothing.
    pub(super) fn mixed(
        operations: &'a [Operation],
        local: &BTreeMap<usize, bool>,
    ) -> Result<Self, Doubt> {
        let local = local.clone();
        let mut program = Self { operations, local, keys: Vec::new(), steps: Vec::new() };
        let mut keys: BTreeMap<&str, usize> = BTreeMap::new();
        let mut completed: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut own: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for operation in operations {
            let is_local = program.local.get(&operation.invoke_line).copied();
            let mut action = if is_local.is_some() || is_judged(operation)? {
                Some(single(operation)?)
            } else {
                None
            };
            let certain = !operation.outcome.is_unknown();
            action = match (operation.outcome, action) {
                (Outcome::Ok, action) => action,
                (Outcome::Mismatch, Some(Action::Swap(from, _))) => Some(Action::Mismatch(from)),
                (Outcome::Mismatch | Outcome::Fail, _) => None,
                (Outcome::Info | Outcome::Pending, Some(Action::Read(_)) | None) => continue,
                (Outcome::Info | Outcome::Pending, action) => action,
            };
            let key = match action {
                Some(_) => *keys.entry(operation.micro_ops[0].key()).or_insert_with_key(|key| {
                    program.keys.push(*key);
                    program.keys.len() - 1
                }),
                None => 0,
            };
            let mut after = Vec::new();
            let sessions = [Some(operation.process), operation.extras.token_from];
            for process in sessions.into_iter().flatten() {
                let Some(steps) = completed.get(&process) else { continue };
                // A process has one operation open at a time, so it returned in the order of its steps.
                let returned = |step: &usize| {
                    let line = program.steps[*step].source.return_line;
                    line.is_some_and(|line| line < operation.invoke_line)
                };
                let count = steps.partition_point(returned);
                after.extend(count.checked_sub(1).map(|last| steps[last]));
            }
            let here = program.steps.len();
            let mut known = own.get(&operation.process).cloned().unwrap_or_default();
            if let Some(of) = operation.extras.token_from.and_then(|process| own.get(&process)) {
                let returned = |step: &&usize| {
                    let line = program.steps[**step].source.return_line;
                    line.is_some_and(|line| line < operation.invoke_line)
                };
                known.extend(of.iter().filter(returned));
            }
            let of_key = |step: &&usize| action.is_some() && program.steps[**step].key == key;
            after.extend(known.iter().filter(of_key));
            if is_local == Some(true) && certain {
                known.push(here);
            }
            if !known.is_empty() {
                own.insert(operation.process, known);
            }
            if is_local == Some(false) {
                // Of several that nobody heard of, this may be another one's place.
                after.clear();
            }
            after.sort_unstable();
            after.dedup();
            if certain && is_local.is_none() {
                completed.entry(operation.process).or_default().push(program.steps.len());
            }
            let local = is_local.is_some();
            program.steps.push(Step { source: operation, action, key, certain, local, after });
        }
        Ok(program)
    }

    /// The operations that are judged, failed ones among them.
    pub(super) fn judged(&self) -> impl Iterator<Item = &'a Operation> {
        // A write at a level that has no place in the order is here only if it has one.
        self.operations.iter().filter(|operation| !matches!(is_judged(operation), Ok(false)))
    }

    /// The steps that may have left a state in a key without certainly having done so.
    pub(super) fn unknown_writes(&self, key: usize) -> impl Iterator<Item = usize> {
        let of_key = move |(_, step): &(usize, &Step<'_>)| !step.certain && step.key == key;
        self.steps.iter().enumerate().filter(of_key).map(|(at, _)| at)
    }

    /// Steps for a violation: in the order of their invocations, each once.
    pub(super) fn cite(&self, steps: &[usize]) -> Vec<Cited> {
        let mut cited: Vec<_> =
            steps.iter().map(|&step| Cited::across(self.steps[step].source)).collect();
        cited.sort();
        cited.dedup();
        cited
    }
}

/// Whether the operation's level promises a place in the order.
fn is_judged(operation: &Operation) -> Result<bool, Doubt> {
    match operation.extras.level.as_deref() {
        None | Some("strict" | "sequential") => return Ok(true),
        Some("causal" | "eventual") => {
            let reads = operation.micro_ops.iter().all(|op| matches!(op, MicroOp::Read { .. }));
            if reads || matches!(operation.outcome, Outcome::Fail) {
                return Ok(false);
            }
        }
        Some(_) => {}
    }
    let level = operation.extras.level.clone().unwrap_or_default();
    Err(Doubt::Level { line: operation.invoke_line, level })
}

fn single(operation: &Operation) -> Result<Action, Doubt> {
    action(operation).ok_or_else(|| Doubt::NotARegister {
        line: operation.invoke_line,
        text: Cited::across(operation).text,
    })
}

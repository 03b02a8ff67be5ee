//! What comes before what in the sessions of a history, and a clock for it.
//!
//! ```text
//!   process 0   1:w ──▶ 2:r ──▶ 3:w                       chain 0, places 1, 2, 3
//!                        └─token─▶ 4:r ──▶ 5:w            chain 1, places 1, 2 (process 1)
//!   clock before 5:     chain 0 up to place 2, chain 1 up to place 1
//! ```
//!
//! A session is a process: it invokes one operation after another. `token_from` says that it took over
//! another's token: whatever that one had completed before the line of the invocation comes before the
//! operation; what it did later, or had open, does not.
//!
//! A *chain* is a run of completed operations, each of which comes after the one before. A process that
//! goes on with the token of one that ended goes on with its chain, so there are about as many chains as
//! clients. An operation of unknown outcome is on no chain: its process ends with it.

use std::collections::BTreeMap;

use crate::history::Operation;

/// Where a completed operation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Which chain.
    pub(crate) chain: usize,
    /// Where on it, from 1.
    pub(crate) at: u32,
}

/// The order of all sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionOrder {
    /// Of each operation the completed ones just before it: of its process, and of the one whose token
    /// it took over. What comes before those does too.
    pub(crate) after: Vec<Vec<usize>>,
    /// Of each operation; `None`: nobody knows what became of it.
    pub(crate) places: Vec<Option<Place>>,
    /// How many chains there are.
    pub(crate) chains: usize,
}

/// A set of operations that holds, with each, what comes before it on its chain: up to which place, by
/// chain.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Clock(Vec<u32>);

impl Clock {
    /// The empty set.
    pub(crate) fn new(chains: usize) -> Self {
        Self(vec![0; chains])
    }

    /// Up to which place it holds a chain; 0: nothing of it.
    pub(crate) fn of(&self, chain: usize) -> u32 {
        self.0[chain]
    }

    /// Whether an operation is in it.
    pub(crate) fn holds(&self, place: Place) -> bool {
        self.0[place.chain] >= place.at
    }

    /// Puts an operation in.
    pub(crate) fn raise(&mut self, place: Place) {
        let known = &mut self.0[place.chain];
        *known = place.at.max(*known);
    }

    /// Puts in all that is in another.
    pub(crate) fn join(&mut self, other: &Self) {
        for (known, &more) in self.0.iter_mut().zip(&other.0) {
            *known = more.max(*known);
        }
    }
}

impl SessionOrder {
    /// Takes the operations of a history, in the order of their invocations.
    pub(crate) fn new(operations: &[Operation]) -> Self {
        let mut order = Self::default();
        let mut completed: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut tails: Vec<usize> = Vec::new();
        let mut lengths: Vec<u32> = Vec::new();
        for (at, operation) in operations.iter().enumerate() {
            let mut after = Vec::new();
            let sessions = [Some(operation.process), operation.extras.token_from];
            for process in sessions.into_iter().flatten() {
                let Some(steps) = completed.get(&process) else { continue };
                // A process has one operation open at a time, so they returned in this order.
                let returned = |&step: &usize| {
                    let line = operations[step].return_line;
                    line.is_some_and(|line| line < operation.invoke_line)
                };
                let count = steps.partition_point(returned);
                after.extend(count.checked_sub(1).map(|last| steps[last]));
            }
            after.dedup();
            let place = (!operation.outcome.is_unknown()).then(|| {
                completed.entry(operation.process).or_default().push(at);
                let chain_of = |&before: &usize| -> Option<usize> {
                    let place: Place = order.places[before]?;
                    (tails[place.chain] == before).then_some(place.chain)
                };
                let chain = after.iter().find_map(chain_of).unwrap_or_else(|| {
                    tails.push(at);
                    lengths.push(0);
                    tails.len() - 1
                });
                tails[chain] = at;
                lengths[chain] += 1;
                Place { chain, at: lengths[chain] }
            });
            order.places.push(place);
            order.after.push(after);
        }
        order.chains = tails.len();
        order
    }

    /// Shows each operation with the set of those before it, in their order.
    pub(crate) fn walk(&self, mut visit: impl FnMut(usize, &Clock)) {
        self.carry(Clock::new(self.chains), Clock::join, |at, clock| {
            visit(at, clock);
            if let Some(place) = self.places[at] {
                clock.raise(place);
            }
        });
    }

    /// Carries something along the sessions: shows each operation, in their order, what comes to it from
    /// those before, and hands on to those after what it made of it.
    pub(crate) fn carry<T: Clone>(
        &self,
        empty: T,
        join: impl Fn(&mut T, &T),
        mut visit: impl FnMut(usize, &mut T),
    ) {
        let mut uses = vec![0u32; self.after.len()];
        for &before in self.after.iter().flatten() {
            uses[before] += 1;
        }
        let mut kept: Vec<Option<T>> = vec![None; self.after.len()];
        for (at, after) in self.after.iter().enumerate() {
            let mut carried: Option<T> = None;
            for &before in after {
                uses[before] -= 1;
                let last = if uses[before] == 0 { kept[before].take() } else { None };
                carried = match (carried, last, &kept[before]) {
                    (None, Some(last), _) => Some(last),
                    (None, None, known) => known.clone(),
                    (Some(mut carried), last, known) => {
                        if let Some(known) = last.as_ref().or(known.as_ref()) {
                            join(&mut carried, known);
                        }
                        Some(carried)
                    }
                };
            }
            let mut carried = carried.unwrap_or_else(|| empty.clone());
            visit(at, &mut carried);
            if uses[at] > 0 {
                kept[at] = Some(carried);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Extras, MicroOp, Outcome, Value};
    use crate::numbers::Numbers;

    fn operation(
        process: u64,
        lines: (usize, Option<usize>),
        token_from: Option<u64>,
    ) -> Operation {
        let (invoke_line, return_line) = lines;
        Operation {
            process,
            invoke_line,
            return_line,
            micro_ops: vec![MicroOp::Read { key: "k".to_owned(), value: Value::Absent }],
            outcome: if return_line.is_some() { Outcome::Ok } else { Outcome::Info },
            extras: Extras { token_from, ..Extras::default() },
        }
    }

    /// The pairs of operations of which the first comes before the second, from the definition.
    fn pairs(operations: &[Operation]) -> Vec<Vec<bool>> {
        let count = operations.len();
        let mut before = vec![vec![false; count]; count];
        for (from, a) in operations.iter().enumerate() {
            for (to, b) in operations.iter().enumerate() {
                let mine = a.process == b.process || b.extras.token_from == Some(a.process);
                before[from][to] = mine && a.return_line.is_some_and(|line| line < b.invoke_line);
            }
        }
        for middle in 0..count {
            for from in 0..count {
                for to in 0..count {
                    before[from][to] |= before[from][middle] && before[middle][to];
                }
            }
        }
        before
    }

    #[test]
    fn the_clock_of_an_operation_holds_what_the_definition_puts_before_it() {
        for seed in 0..3_000 {
            let mut numbers = Numbers(seed);
            let mut line = 0;
            let mut open: Vec<usize> = Vec::new();
            let mut operations: Vec<Operation> = Vec::new();
            while operations.len() < 9 || !open.is_empty() {
                line += 1;
                if !open.is_empty() && (operations.len() >= 9 || numbers.percent(50)) {
                    let at = open.swap_remove(numbers.below(open.len()));
                    if numbers.percent(80) {
                        operations[at].return_line = Some(line);
                        operations[at].outcome = Outcome::Ok;
                    }
                    continue;
                }
                let process = numbers.below(4) as u64;
                let busy =
                    operations.iter().any(|op| op.process == process && op.return_line.is_none());
                if !busy {
                    let token = numbers.percent(30).then(|| numbers.below(4) as u64);
                    open.push(operations.len());
                    operations.push(operation(process, (line, None), token));
                } else if operations.len() + open.len() >= 4 && open.is_empty() {
                    break;
                }
            }
            let expected = pairs(&operations);
            let order = SessionOrder::new(&operations);
            order.walk(|at, clock| {
                for (other, expected) in expected.iter().enumerate() {
                    let held = order.places[other].is_some_and(|place| clock.holds(place));
                    assert_eq!(held, expected[at], "{seed}: {other} before {at}\n{operations:?}");
                }
            });
        }
    }

    #[test]
    fn a_client_that_goes_on_after_an_unknown_outcome_stays_on_its_chain() {
        let operations = [
            operation(0, (1, Some(2)), None),
            operation(0, (3, None), None),
            operation(1, (5, Some(6)), Some(0)),
            operation(2, (7, Some(8)), None),
        ];
        let order = SessionOrder::new(&operations);
        let place = |chain, at| Some(Place { chain, at });
        assert_eq!(order.places, [place(0, 1), None, place(0, 2), place(1, 1)]);
        assert_eq!(order.chains, 2);
    }
}

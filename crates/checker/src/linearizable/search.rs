//! Any register, by search: Wing and Gong's, with Lowe's memory of configurations.
//!
//! The calls and returns still to be ordered form a list in line order. A step may come next if its
//! call stands before the first return: nothing that is left returned before it was called.
//!
//! ```text
//!   call a · call b · ret b · call c · ret a · ret c        a or b may come next, c may not yet
//!        take b: lift its call and return ──▶ call a · call c · ret a · ret c      state: b's
//!        stuck at a return: put the last step back and try the one after it
//! ```
//!
//! A step of unknown outcome has a call and no return: it may be taken at any later time, or never. It
//! stands in a list of its own, tried when the certain steps are stuck. An order is found when no return
//! is left.
//!
//! What keeps it short:
//! - A configuration is the state, the certain steps taken and the unknown steps taken. One whose state
//!   and certain steps were reached before with the same unknown steps or fewer is not entered: nobody
//!   needs to have taken an unknown step. The certain steps are kept as the words of a bitset between
//!   the first not taken and the last taken, so they are as long as the concurrency, not as the history.
//! - A step that only looks is taken as soon as it is legal, and no other is tried in its stead:
//!   where it stands it changes nothing for the others.
//! - A value with one writer is not replaced before all its certain finders were taken: it will not
//!   come back. (This is foresight: the search gives up before the line that cannot be.)

use std::collections::HashMap;

use super::Budget;
use super::register::{Action, Register, State, show};
use crate::Violation;
use crate::history::Operation;

/// How a search ended.
#[derive(Debug)]
pub(super) enum Found {
    /// A legal order.
    Order,
    /// Every order fails.
    Violation(Violation),
    /// Neither, within the budget.
    OutOfBudget,
}

/// Searches for a legal order.
pub(super) fn judge(register: &Register<'_>, budget: Budget) -> Found {
    match Search::new(register, Foresight::Used).run(budget) {
        // For the explanation once more without foresight, which gives up long before the line that
        // cannot be. It is slower, so there may be no time for it.
        Found::Violation(early) => match Search::new(register, Foresight::None).run(budget) {
            Found::Violation(exact) => Found::Violation(exact),
            Found::Order | Found::OutOfBudget => Found::Violation(early),
        },
        found => found,
    }
}

/// Whether a search looks at what later steps will find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Foresight {
    Used,
    None,
}

/// What a step demands and does, with states replaced by small numbers.
#[derive(Clone, Copy, Debug)]
struct Demand {
    finds: Option<usize>,
    avoids: Option<usize>,
    leaves: Option<usize>,
    /// Whether a legal order must have it.
    certain: bool,
    /// Its place in the bitset of its kind.
    bit: usize,
}

/// A step taken, and what to go back to.
#[derive(Clone, Copy, Debug)]
struct Taken {
    step: usize,
    state_before: usize,
    /// Taken because it only looks: there is no alternative to try.
    forced: bool,
}

/// What a search used of its budget.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    configurations: usize,
    comparisons: usize,
}

/// The return nearest to the end that stopped an order.
#[derive(Debug)]
struct Stop {
    step: usize,
    /// The states there, of different orders.
    states: Vec<usize>,
    /// The step that left the first of them.
    last_write: Option<usize>,
    /// Steps that were called and not taken.
    waiting: Vec<usize>,
}

#[derive(Debug)]
struct Search<'r, 'a> {
    register: &'r Register<'a>,
    states: Vec<State>,
    demands: Vec<Demand>,
    foresight: Foresight,
    /// Whether a state is known to be current once, because it has one writer. Unknown without
    /// foresight.
    single: Vec<bool>,
    /// Certain finders of each state that were not taken.
    finders_left: Vec<usize>,
    /// Two rings of nodes: the call of step i is node 2i + 1, its return node 2i + 2; node 0 is both
    /// ends of the certain steps, node [`Self::unknown_end`] those of the unknown.
    next: Vec<usize>,
    previous: Vec<usize>,
    returns_left: usize,
    taken: Vec<Taken>,
    state: usize,
    certain_taken: Bits,
    unknown_taken: Bits,
    /// For a state and certain steps, the sets of unknown steps with which they were reached.
    visited: HashMap<Box<[u64]>, Vec<Box<[u64]>>>,
    spent: Spent,
    /// A key of `visited` on its way there.
    scratch: Vec<u64>,
    stop: Option<Stop>,
}

/// Comparisons of sets of unknown steps that are allowed for each configuration.
const COMPARISONS_PER_CONFIGURATION: usize = 32;
/// States an explanation names at most.
const STATES_SHOWN_MAX: usize = 4;
/// Writers of the value that was found an explanation names at most, the latest.
const WRITERS_SHOWN_MAX: usize = 2;
/// Waiting steps an explanation names at most.
const WAITING_SHOWN_MAX: usize = 3;

impl<'r, 'a> Search<'r, 'a> {
    fn new(register: &'r Register<'a>, foresight: Foresight) -> Self {
        let steps = &register.steps;
        let mut states: Vec<State> = vec![None];
        let mut numbers: HashMap<State, usize> = HashMap::from([(None, 0)]);
        let mut number = |state: State| {
            *numbers.entry(state).or_insert_with(|| {
                states.push(state);
                states.len() - 1
            })
        };
        let (mut certain_count, mut unknown_count) = (0, 0);
        let mut demands = Vec::with_capacity(steps.len());
        for step in steps {
            let certain = step.is_certain();
            let count = if certain { &mut certain_count } else { &mut unknown_count };
            let avoids = match step.action {
                Action::Mismatch(state) => Some(number(state)),
                _ => None,
            };
            let finds = step.action.finds().map(&mut number);
            let leaves = step.action.leaves().map(&mut number);
            demands.push(Demand { finds, avoids, leaves, certain, bit: *count });
            *count += 1;
        }
        let mut finders_left = vec![0; states.len()];
        for demand in demands.iter().filter(|demand| demand.certain) {
            if let Some(state) = demand.finds {
                finders_left[state] += 1;
            }
        }
        let writers = register.writers();
        let single = |state: &State| {
            let count = writers.get(state).map_or(0, Vec::len);
            foresight == Foresight::Used && count == usize::from(state.is_some())
        };
        let single = states.iter().map(single).collect();

        let mut certain_nodes: Vec<(usize, usize)> = Vec::with_capacity(certain_count * 2);
        let mut unknown_nodes = Vec::with_capacity(unknown_count);
        for (at, step) in steps.iter().enumerate() {
            if step.is_certain() {
                certain_nodes.extend([(step.call, call_node(at)), (step.ret, return_node(at))]);
            } else {
                unknown_nodes.push((step.call, call_node(at)));
            }
        }
        let unknown_end = return_node(steps.len());
        let mut next = vec![0; unknown_end + 1];
        let mut previous = next.clone();
        for (end, mut nodes) in [(0, certain_nodes), (unknown_end, unknown_nodes)] {
            nodes.sort_unstable();
            let mut last = end;
            for (_, node) in nodes.into_iter().chain([(usize::MAX, end)]) {
                next[last] = node;
                previous[node] = last;
                last = node;
            }
        }

        Self {
            register,
            states,
            demands,
            foresight,
            single,
            finders_left,
            next,
            previous,
            returns_left: certain_count,
            taken: Vec::new(),
            state: 0,
            certain_taken: Bits::new(certain_count),
            unknown_taken: Bits::new(unknown_count),
            visited: HashMap::new(),
            spent: Spent::default(),
            scratch: Vec::new(),
            stop: None,
        }
    }

    fn run(mut self, budget: Budget) -> Found {
        let comparisons = budget.configurations.saturating_mul(COMPARISONS_PER_CONFIGURATION);
        self.take_looks();
        let mut node = self.next[0];
        while self.returns_left > 0 {
            if self.spent.configurations > budget.configurations
                || self.spent.comparisons > comparisons
            {
                return Found::OutOfBudget;
            }
            if let Some((step, state)) = self.candidate(node) {
                self.take(step, state, false);
                self.take_looks();
                if self.enter() {
                    node = self.next[0];
                    continue;
                }
            }
            match self.put_back() {
                Some(step) => node = self.next[call_node(step)],
                None => return Found::Violation(self.explain()),
            }
        }
        Found::Order
    }

    /// The first step from `node` on that may come next, and the state after it: the certain ones up
    /// to the first return, then the unknown ones called before it.
    fn candidate(&mut self, mut node: usize) -> Option<(usize, usize)> {
        let mut deadline = None;
        while node != self.unknown_end() {
            if !is_call(node) {
                deadline = Some(self.register.steps[step_of(node)].ret);
                self.note_stop(step_of(node));
                node = self.next[self.unknown_end()];
                continue;
            }
            let step = step_of(node);
            if !self.demands[step].certain {
                let deadline = *deadline.get_or_insert_with(|| self.first_return());
                if self.register.steps[step].call > deadline {
                    return None;
                }
            }
            if let Some(state) = self.after(step) {
                return Some((step, state));
            }
            node = self.next[node];
        }
        None
    }

    /// The line before which the next step was called.
    fn first_return(&self) -> usize {
        let mut node = self.next[0];
        while is_call(node) {
            node = self.next[node];
        }
        self.register.steps[step_of(node)].ret
    }

    /// Both ends of the ring of unknown steps: the node after the last step's.
    fn unknown_end(&self) -> usize {
        self.next.len() - 1
    }

    /// The state after a step; `None` if it may not be taken in this one.
    fn after(&self, step: usize) -> Option<usize> {
        let demand = &self.demands[step];
        if demand.finds.is_some_and(|state| state != self.state)
            || demand.avoids == Some(self.state)
        {
            return None;
        }
        let Some(state) = demand.leaves else { return Some(self.state) };
        let own = usize::from(demand.certain && demand.finds.is_some());
        let wanted = self.single[self.state] && self.finders_left[self.state] > own;
        (!wanted).then_some(state)
    }

    /// Takes every step that only looks and may come next. One pass does: each lifts its own return
    /// out of the way and leaves the state as it is.
    fn take_looks(&mut self) {
        let mut node = self.next[0];
        while is_call(node) {
            let step = step_of(node);
            if self.demands[step].leaves.is_none() && self.after(step).is_some() {
                self.take(step, self.state, true);
            }
            node = self.next[node];
        }
    }

    fn take(&mut self, step: usize, state: usize, forced: bool) {
        self.taken.push(Taken { step, state_before: self.state, forced });
        self.state = state;
        let demand = self.demands[step];
        // The return first: so the lifted call still leads to what follows them both.
        if demand.certain {
            self.lift(return_node(step));
            self.returns_left -= 1;
            self.certain_taken.set(demand.bit);
            if let Some(found) = demand.finds {
                self.finders_left[found] -= 1;
            }
        } else {
            self.unknown_taken.set(demand.bit);
        }
        self.lift(call_node(step));
    }

    /// Puts steps back up to the last that had alternatives, and returns that one.
    fn put_back(&mut self) -> Option<usize> {
        while let Some(Taken { step, state_before, forced }) = self.taken.pop() {
            self.state = state_before;
            let demand = self.demands[step];
            self.unlift(call_node(step));
            if demand.certain {
                self.unlift(return_node(step));
                self.returns_left += 1;
                self.certain_taken.clear(demand.bit);
                if let Some(found) = demand.finds {
                    self.finders_left[found] += 1;
                }
            } else {
                self.unknown_taken.clear(demand.bit);
            }
            if !forced {
                return Some(step);
            }
        }
        None
    }

    fn lift(&mut self, node: usize) {
        let (before, after) = (self.previous[node], self.next[node]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    /// Undoes [`Self::lift`]; nodes are put back in the reverse of the order they were lifted in.
    fn unlift(&mut self, node: usize) {
        let (before, after) = (self.previous[node], self.next[node]);
        self.next[before] = node;
        self.previous[after] = node;
    }

    /// Remembers the configuration; false if there is no use in entering it.
    fn enter(&mut self) -> bool {
        self.scratch.clear();
        self.scratch.push(self.state as u64);
        self.certain_taken.window(&mut self.scratch);
        let unknown = &self.unknown_taken.words;
        if let Some(reached) = self.visited.get_mut(self.scratch.as_slice()) {
            self.spent.comparisons += reached.len();
            if reached.iter().any(|fewer| is_subset(fewer, unknown)) {
                return false;
            }
            reached.retain(|more| !is_subset(unknown, more));
            reached.push(unknown.as_slice().into());
        } else {
            let key = self.scratch.as_slice().into();
            self.visited.insert(key, vec![unknown.as_slice().into()]);
        }
        self.spent.configurations += 1;
        true
    }

    fn note_stop(&mut self, step: usize) {
        let line = |step: usize| self.register.steps[step].ret;
        match &mut self.stop {
            Some(stop) if stop.step == step => {
                if stop.states.len() < STATES_SHOWN_MAX && !stop.states.contains(&self.state) {
                    stop.states.push(self.state);
                }
                return;
            }
            Some(stop) if line(stop.step) > line(step) => return,
            _ => {}
        }
        let mut waiting = Vec::new();
        let mut node = self.next[0];
        while is_call(node) && waiting.len() < WAITING_SHOWN_MAX {
            if step_of(node) != step {
                waiting.push(step_of(node));
            }
            node = self.next[node];
        }
        let writes = |taken: &&Taken| self.demands[taken.step].leaves.is_some();
        let last_write = self.taken.iter().rev().find(writes).map(|taken| taken.step);
        self.stop = Some(Stop { step, states: vec![self.state], last_write, waiting });
    }

    fn explain(&self) -> Violation {
        let stop = self.stop.as_ref().expect("an order fails at a return");
        let stopped = &self.register.steps[stop.step];
        let found = stopped.action.finds();
        let wrote = self.register.steps.iter().rev().filter(|step| {
            found.is_some() && step.action.leaves() == found && step.call < stopped.ret
        });
        let others =
            stop.last_write.iter().chain(&stop.waiting).map(|&at| &self.register.steps[at]);
        let cited = others.chain(wrote.take(WRITERS_SHOWN_MAX)).chain([stopped]);
        let sources: Vec<&Operation> = cited.map(|step| step.source).collect();

        let mut values: Vec<_> = stop.states.iter().map(|&state| self.states[state]).collect();
        values.sort_unstable();
        let mut values: Vec<_> = values.into_iter().map(show).collect();
        if values.len() == STATES_SHOWN_MAX {
            values.push("others".to_owned());
        }
        let values = values.join(" or ");
        let demand = match stopped.action {
            Action::Read(state) | Action::Swap(state, _) => format!("found {}", show(state)),
            Action::Mismatch(state) => format!("found another value than {}", show(state)),
            Action::Write(state) => format!("left {}", show(state)),
        };
        let (call, ret) = (stopped.call, stopped.ret);
        let why = match self.foresight {
            Foresight::None => format!(
                "before line {ret} every legal order ends with {values}; but the operation of line \
                 {call}, which returned there, {demand}"
            ),
            Foresight::Used => format!(
                "no legal order gets past line {ret}, where the operation of line {call} returned: it \
                 {demand}, the value there is {values}, and what later operations found must fit too"
            ),
        };
        Violation {
            key: self.register.key.to_owned(),
            rule: "no order of the operations is legal",
            operations: self.register.cite(&sources),
            why,
        }
    }
}

fn call_node(step: usize) -> usize {
    2 * step + 1
}

fn return_node(step: usize) -> usize {
    2 * step + 2
}

fn is_call(node: usize) -> bool {
    node % 2 == 1
}

fn step_of(node: usize) -> usize {
    (node - 1) / 2
}

fn is_subset(fewer: &[u64], more: &[u64]) -> bool {
    fewer.iter().zip(more).all(|(fewer, more)| fewer & !more == 0)
}

/// A set of steps, compared by the part of it that differs between configurations.
#[derive(Debug)]
struct Bits {
    words: Vec<u64>,
    count: usize,
    /// Every word before it is full.
    full: usize,
}

impl Bits {
    fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], count: 0, full: 0 }
    }

    fn set(&mut self, bit: usize) {
        self.words[bit / 64] |= 1 << (bit % 64);
        self.count += 1;
    }

    fn clear(&mut self, bit: usize) {
        self.words[bit / 64] &= !(1 << (bit % 64));
        self.count -= 1;
        self.full = self.full.min(bit / 64);
    }

    /// Appends the number of full words at the front and the words from there to the last set bit:
    /// equal if and only if the sets are.
    fn window(&mut self, output: &mut Vec<u64>) {
        while self.words.get(self.full) == Some(&u64::MAX) {
            self.full += 1;
        }
        output.push(self.full as u64);
        let mut left = self.count - self.full * 64;
        for &word in &self.words[self.full..] {
            if left == 0 {
                break;
            }
            output.push(word);
            left -= word.count_ones() as usize;
        }
    }
}

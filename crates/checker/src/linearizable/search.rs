//! Any object, by search: Wing and Gong's, with Lowe's memory of configurations.
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
//! - Of unknown steps that do the same, the one called first is taken first.
//! - What is known of steps to come is obeyed ([`Object::is_promising`]): a value that will not come back is
//!   not replaced before all its certain finders were taken. (This is foresight: the search gives up before
//!   the line that cannot be.)

mod bits;
mod explain;

use std::collections::HashMap;
use std::hash::Hash;

use super::Budget;
use super::object::{Object, Step};
use crate::Violation;
use bits::{Bits, is_subset};
use explain::Stop;

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
pub(super) fn judge(object: &impl Object, budget: Budget) -> Found {
    match Search::new(object.clone(), Foresight::Used).run(budget) {
        // For the explanation once more without foresight, which gives up long before the line that
        // cannot be. It is slower, so there may be no time for it.
        Found::Violation(early) => match Search::new(object.clone(), Foresight::None).run(budget) {
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

/// Where a step stands among the others.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Whether a legal order must have it.
    certain: bool,
    /// Its place in the bitset of its kind.
    bit: usize,
    /// If it is unknown: the last that was called before it, is unknown too and does the same.
    twin: Option<usize>,
}

/// A step taken, and what to go back to.
#[derive(Clone, Copy, Debug)]
struct Taken<S> {
    step: usize,
    state_before: S,
    /// Taken because it only looks: there is no alternative to try.
    forced: bool,
}

/// What a search used of its budget.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    configurations: usize,
    comparisons: usize,
}

#[derive(Debug)]
struct Search<O: Object> {
    object: O,
    places: Vec<Place>,
    foresight: Foresight,
    /// Two rings of nodes: the call of step i is node 2i + 1, its return node 2i + 2; node 0 is both
    /// ends of the certain steps, node [`Self::unknown_end`] those of the unknown.
    next: Vec<usize>,
    previous: Vec<usize>,
    returns_left: usize,
    taken: Vec<Taken<O::State>>,
    state: O::State,
    certain_taken: Bits,
    unknown_taken: Bits,
    /// For a state and certain steps, the sets of unknown steps with which they were reached.
    visited: HashMap<Box<[u64]>, Vec<Box<[u64]>>>,
    spent: Spent,
    /// A key of `visited` on its way there.
    scratch: Vec<u64>,
    stop: Option<Stop<O::State>>,
}

/// Comparisons of sets of unknown steps that are allowed for each configuration.
const COMPARISONS_PER_CONFIGURATION: usize = 32;

impl<O: Object> Search<O> {
    fn new(object: O, foresight: Foresight) -> Self {
        let steps = object.steps();
        let places = places(steps);
        let certain_count = places.iter().filter(|place| place.certain).count();
        let unknown_count = places.len() - certain_count;
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
            state: object.initial(),
            object,
            places,
            foresight,
            next,
            previous,
            returns_left: certain_count,
            taken: Vec::new(),
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
    fn candidate(&mut self, mut node: usize) -> Option<(usize, O::State)> {
        let mut deadline = None;
        while node != self.unknown_end() {
            if !is_call(node) {
                deadline = Some(self.object.steps()[step_of(node)].ret);
                self.note_stop(step_of(node));
                node = self.next[self.unknown_end()];
                continue;
            }
            let step = step_of(node);
            if !self.places[step].certain {
                let deadline = *deadline.get_or_insert_with(|| self.first_return());
                if self.object.steps()[step].call > deadline {
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
        self.object.steps()[step_of(node)].ret
    }

    /// Both ends of the ring of unknown steps: the node after the last step's.
    fn unknown_end(&self) -> usize {
        self.next.len() - 1
    }

    /// The state after a step; `None` if it may not be taken in this one.
    fn after(&self, step: usize) -> Option<O::State> {
        let is_taken = |twin: usize| self.unknown_taken.has(self.places[twin].bit);
        if !self.places[step].twin.is_none_or(is_taken) {
            return None;
        }
        let after = self.object.after(step, self.state)?;
        let promising = self.foresight == Foresight::None
            || self.object.looks(step)
            || self.object.is_promising(step, self.state, after);
        promising.then_some(after)
    }

    /// Takes every step that only looks and may come next. One pass does: each lifts its own return
    /// out of the way and leaves the state as it is.
    fn take_looks(&mut self) {
        let mut node = self.next[0];
        while is_call(node) {
            let step = step_of(node);
            if self.object.looks(step) && self.after(step).is_some() {
                self.take(step, self.state, true);
            }
            node = self.next[node];
        }
    }

    fn take(&mut self, step: usize, state: O::State, forced: bool) {
        self.taken.push(Taken { step, state_before: self.state, forced });
        self.state = state;
        self.object.take(step);
        let Place { certain, bit, .. } = self.places[step];
        // The return first: so the lifted call still leads to what follows them both.
        if certain {
            self.lift(return_node(step));
            self.returns_left -= 1;
            self.certain_taken.set(bit);
        } else {
            self.unknown_taken.set(bit);
        }
        self.lift(call_node(step));
    }

    /// Puts steps back up to the last that had alternatives, and returns that one.
    fn put_back(&mut self) -> Option<usize> {
        while let Some(Taken { step, state_before, forced }) = self.taken.pop() {
            self.state = state_before;
            self.object.put_back(step);
            let Place { certain, bit, .. } = self.places[step];
            self.unlift(call_node(step));
            if certain {
                self.unlift(return_node(step));
                self.returns_left += 1;
                self.certain_taken.clear(bit);
            } else {
                self.unknown_taken.clear(bit);
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
        let number = O::number(self.state);
        self.scratch.extend([(number >> 64) as u64, number as u64]);
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
}

/// The place of each step.
fn places<A: Eq + Hash>(steps: &[Step<'_, A>]) -> Vec<Place> {
    let (mut certain_count, mut unknown_count) = (0, 0);
    let mut alike: HashMap<&A, usize> = HashMap::new();
    let mut places = Vec::with_capacity(steps.len());
    for (at, step) in steps.iter().enumerate() {
        let certain = step.is_certain();
        let count = if certain { &mut certain_count } else { &mut unknown_count };
        let twin = if certain { None } else { alike.insert(&step.action, at) };
        places.push(Place { certain, bit: *count, twin });
        *count += 1;
    }
    places
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

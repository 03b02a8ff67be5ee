//! What a search that found no order says of it: the return that no order gets past.

use super::{Foresight, Object, Search, Taken, is_call, step_of};
use crate::Violation;
use crate::history::Operation;
use crate::linearizable::object::cite;

/// The return nearest to the end that stopped an order.
#[derive(Debug)]
pub(super) struct Stop<S> {
    step: usize,
    /// The states there, of different orders.
    states: Vec<S>,
    /// The step that left the first of them.
    last_write: Option<usize>,
    /// Steps that were called and not taken.
    waiting: Vec<usize>,
}

/// States an explanation names at most.
const STATES_SHOWN_MAX: usize = 4;
/// Writers of the value that was found an explanation names at most, the latest.
const WRITERS_SHOWN_MAX: usize = 2;
/// Waiting steps an explanation names at most.
const WAITING_SHOWN_MAX: usize = 3;

impl<O: Object> Search<O> {
    /// Notes that an order stopped at the return of a step.
    pub(super) fn note_stop(&mut self, step: usize) {
        let line = |step: usize| self.object.steps()[step].ret;
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
        let writes = |taken: &&Taken<O::State>| !self.object.looks(taken.step);
        let last_write = self.taken.iter().rev().find(writes).map(|taken| taken.step);
        self.stop = Some(Stop { step, states: vec![self.state], last_write, waiting });
    }

    pub(super) fn explain(&self) -> Violation {
        let stop = self.stop.as_ref().expect("an order fails at a return");
        let steps = self.object.steps();
        let stopped = &steps[stop.step];
        let wrote = (0..steps.len())
            .rev()
            .filter(|&at| steps[at].call < stopped.ret && self.object.made(at, stop.step));
        let others = stop.last_write.iter().chain(&stop.waiting).copied();
        let cited = others.chain(wrote.take(WRITERS_SHOWN_MAX)).chain([stop.step]);
        let sources: Vec<&Operation> = cited.map(|at| steps[at].source).collect();

        let mut states = stop.states.clone();
        states.sort_unstable();
        let mut states: Vec<_> = states.into_iter().map(|state| self.object.show(state)).collect();
        if states.len() == STATES_SHOWN_MAX {
            states.push("others".to_owned());
        }
        let states = states.join(" or ");
        let demand = self.object.demand(stop.step);
        let (call, ret) = (stopped.call, stopped.ret);
        let why = match self.foresight {
            Foresight::None => format!(
                "before line {ret} every legal order ends with {states}; but the operation of line \
                 {call}, which returned there, {demand}"
            ),
            Foresight::Used => format!(
                "no legal order gets past line {ret}, where the operation of line {call} returned: it \
                 {demand}, the value there is {states}, and what later operations found must fit too"
            ),
        };
        Violation {
            key: self.object.key().to_owned(),
            rule: "no order of the operations is legal",
            operations: cite(self.object.key(), &sources),
            why,
        }
    }
}

//! A register as the search takes it: states as small numbers, and what is known of values with one writer.
//!
//! Such a value is not replaced before all its certain finders were taken, because it will not come back.

use std::collections::{BTreeSet, HashMap};

use super::{Action, Register, State, show};
use crate::linearizable::object::{Object, Step};

/// What a step demands and does, with states replaced by their numbers.
#[derive(Clone, Copy, Debug)]
struct Demand {
    finds: Option<usize>,
    avoids: Option<usize>,
    leaves: Option<usize>,
    certain: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Numbered<'r, 'a> {
    register: &'r Register<'a>,
    /// In their order, so that the first is the initial one.
    states: Vec<State>,
    demands: Vec<Demand>,
    /// Whether a state is current once, because it has one writer.
    single: Vec<bool>,
    /// Certain finders of each state that were not taken.
    finders_left: Vec<usize>,
}

impl<'r, 'a> Numbered<'r, 'a> {
    pub(crate) fn new(register: &'r Register<'a>) -> Self {
        let avoids = |action| match action {
            Action::Mismatch(state) => Some(state),
            _ => None,
        };
        let named = |step: &Step<'_, Action>| {
            [step.action.finds(), step.action.leaves(), avoids(step.action)]
        };
        let named = register.steps.iter().flat_map(named).flatten();
        let states: BTreeSet<State> = named.chain([None]).collect();
        let states: Vec<State> = states.into_iter().collect();
        let numbers: HashMap<State, usize> =
            states.iter().enumerate().map(|(number, &state)| (state, number)).collect();
        let number = |state: Option<State>| state.map(|state| numbers[&state]);
        let demand = |step: &Step<'_, Action>| Demand {
            finds: number(step.action.finds()),
            avoids: number(avoids(step.action)),
            leaves: number(step.action.leaves()),
            certain: step.is_certain(),
        };
        let demands: Vec<Demand> = register.steps.iter().map(demand).collect();

        let mut finders_left = vec![0; states.len()];
        for demand in demands.iter().filter(|demand| demand.certain) {
            if let Some(state) = demand.finds {
                finders_left[state] += 1;
            }
        }
        let writers = register.writers();
        let single =
            |state: &State| writers.get(state).map_or(0, Vec::len) == usize::from(state.is_some());
        let single = states.iter().map(single).collect();
        Self { register, states, demands, single, finders_left }
    }
}

impl Object for Numbered<'_, '_> {
    type Action = Action;
    type State = usize;

    fn key(&self) -> &str {
        self.register.key
    }

    fn steps(&self) -> &[Step<'_, Action>] {
        &self.register.steps
    }

    fn initial(&self) -> usize {
        0
    }

    fn after(&self, step: usize, state: usize) -> Option<usize> {
        let demand = &self.demands[step];
        let found = demand.finds.is_none_or(|wanted| wanted == state);
        (found && demand.avoids != Some(state)).then(|| demand.leaves.unwrap_or(state))
    }

    fn looks(&self, step: usize) -> bool {
        self.demands[step].leaves.is_none()
    }

    fn number(state: usize) -> u128 {
        state as u128
    }

    fn is_promising(&self, step: usize, state: usize, _after: usize) -> bool {
        let demand = &self.demands[step];
        let own = usize::from(demand.certain && demand.finds.is_some());
        !self.single[state] || self.finders_left[state] <= own
    }

    fn take(&mut self, step: usize) {
        if let Demand { finds: Some(found), certain: true, .. } = self.demands[step] {
            self.finders_left[found] -= 1;
        }
    }

    fn put_back(&mut self, step: usize) {
        if let Demand { finds: Some(found), certain: true, .. } = self.demands[step] {
            self.finders_left[found] += 1;
        }
    }

    fn show(&self, state: usize) -> String {
        show(self.states[state])
    }

    fn demand(&self, step: usize) -> String {
        match self.register.steps[step].action {
            Action::Read(state) | Action::Swap(state, _) => format!("found {}", show(state)),
            Action::Mismatch(state) => format!("found another value than {}", show(state)),
            Action::Write(state) => format!("left {}", show(state)),
        }
    }

    fn made(&self, writer: usize, finder: usize) -> bool {
        let found = self.demands[finder].finds;
        found.is_some() && self.demands[writer].leaves == found
    }
}

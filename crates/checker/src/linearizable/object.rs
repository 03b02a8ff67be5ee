//! What stands under a key, as the search sees it: states, and steps that lead from one to another.

use std::fmt::Debug;
use std::hash::Hash;

use crate::Cited;
use crate::history::Operation;

/// The return of an operation that may take effect for ever.
pub(crate) const NEVER: usize = usize::MAX;

/// An operation that took effect, or may have: with all its micro-operations, at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'a, A> {
    pub(crate) source: &'a Operation,
    pub(crate) action: A,
    /// The line of the invocation.
    pub(crate) call: usize,
    /// The line of the return; [`NEVER`] if and only if nobody knows whether it took effect.
    pub(crate) ret: usize,
}

impl<'a, A> Step<'a, A> {
    /// The step of an operation that did not fail, or that failed and tells something by it.
    pub(super) fn new(source: &'a Operation, action: A) -> Self {
        let ret = if source.outcome.is_unknown() {
            NEVER
        } else {
            source.return_line.expect("what is certain returned")
        };
        Self { source, action, call: source.invoke_line, ret }
    }

    /// Whether it certainly took effect.
    pub(crate) fn is_certain(&self) -> bool {
        self.ret != NEVER
    }
}

/// An object: where it begins, and which steps are legal in which state.
pub(super) trait Object: Clone {
    /// What a step does. Steps that do the same can stand for each other.
    type Action: Eq + Hash;
    /// What is there between two steps. States with which the same can follow may be one.
    type State: Copy + Ord + Debug;

    /// The key.
    fn key(&self) -> &str;

    /// In the order of their calls.
    fn steps(&self) -> &[Step<'_, Self::Action>];

    /// The state before the first step.
    fn initial(&self) -> Self::State;

    /// The state after a step; `None` if the step is not legal in this one.
    fn after(&self, step: usize, state: Self::State) -> Option<Self::State>;

    /// Whether a step leaves every state as it is.
    fn looks(&self, step: usize) -> bool;

    /// A number that no other state has.
    fn number(state: Self::State) -> u128;

    /// Foresight: false only if no legal order goes on with this legal step, because of what steps that
    /// are not taken yet certainly found.
    fn is_promising(&self, _step: usize, _state: Self::State, _after: Self::State) -> bool {
        true
    }

    /// Notes that a step was taken.
    fn take(&mut self, _step: usize) {}

    /// Notes that a step was put back.
    fn put_back(&mut self, _step: usize) {}

    /// A state, for people.
    fn show(&self, state: Self::State) -> String;

    /// What a step demands of the state before it, for people: `found 5`.
    fn demand(&self, step: usize) -> String;

    /// Whether one step left what another demands.
    fn made(&self, _writer: usize, _finder: usize) -> bool {
        false
    }
}

/// Operations on a key, for a violation: in the order of their invocations, each once.
pub(super) fn cite(key: &str, operations: &[&Operation]) -> Vec<Cited> {
    let mut cited: Vec<_> = operations.iter().map(|op| Cited::new(key, op)).collect();
    cited.sort();
    cited.dedup();
    cited
}

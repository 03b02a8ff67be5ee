//! One key as a counter: what its operations demand of the sum, and what they add to it.
//!
//! ```text
//!   read 5                    the sum is 5
//!   add 3                     leaves 3 more, whatever it is
//!   add 3, read 5             the sum is 2, and 3 more afterwards; at one moment
//!   add 3 within 0..=9        the sum is within -3..=6, and 3 more afterwards
//!      found out of bounds    the sum is outside -3..=6
//! ```
//!
//! So whatever an operation consists of, it demands that the sum is within or outside one interval. An absent
//! counter is 0. What an operation of unknown outcome would have read demands nothing.

pub(super) mod bounds;

use std::fmt;

use super::Doubt;
use super::kind::doubt;
use super::object::{Object, Step};
use crate::history::{MicroOp, Operation, Outcome, Value};

/// What an operation does to the counter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Action {
    /// The interval: empty if no sum fits all that the operation found.
    low: i128,
    high: i128,
    /// Whether the sum has to be in it, or outside.
    within: bool,
    amount: i128,
}

impl Action {
    /// `None` if the operation had no effect and tells nothing.
    fn of(operation: &Operation) -> Option<Self> {
        let outcome = operation.outcome;
        let mut action = Self { low: i128::MIN, high: i128::MAX, within: true, amount: 0 };
        for micro_op in &operation.micro_ops {
            match *micro_op {
                MicroOp::Read { ref value, .. } if outcome == Outcome::Ok => {
                    let sum = if let Value::Integer(sum) = *value { sum } else { 0 };
                    action.narrow(sum, sum);
                }
                MicroOp::Add { amount, .. } => action.amount += i128::from(amount),
                MicroOp::BoundedAdd { amount, low, high, .. } => {
                    action.amount += i128::from(amount);
                    action.narrow(low, high);
                }
                _ => {}
            }
        }
        match outcome {
            Outcome::Ok => Some(action),
            Outcome::Info | Outcome::Pending => Some(action).filter(|action| action.amount != 0),
            Outcome::Mismatch => {
                Some(Self { within: false, amount: 0, ..action }).filter(Self::demands)
            }
            Outcome::Fail => None,
        }
    }

    /// Demands that the sum, with what was added so far, is within bounds.
    fn narrow(&mut self, low: i64, high: i64) {
        self.low = self.low.max(i128::from(low) - self.amount);
        self.high = self.high.min(i128::from(high) - self.amount);
    }

    /// Whether not every sum will do.
    fn demands(&self) -> bool {
        (self.low, self.high) != (i128::MIN, i128::MAX)
    }

    fn allows(&self, sum: i128) -> bool {
        (self.low..=self.high).contains(&sum) == self.within
    }
}

/// The operations of one key that bear on its order.
#[derive(Clone, Debug)]
pub(super) struct Counter<'a> {
    key: &'a str,
    /// In the order of their calls. Unknown steps that add nothing are left out.
    steps: Vec<Step<'a, Action>>,
}

impl<'a> Counter<'a> {
    /// Takes the operations on `key`, in the order of their invocations.
    pub(super) fn new(key: &'a str, operations: &[&'a Operation]) -> Result<Self, Doubt> {
        let mut steps = Vec::new();
        for &operation in operations {
            if !operation.micro_ops.iter().all(is_of_counter) {
                return Err(doubt(key, operation));
            }
            steps.extend(Action::of(operation).map(|action| Step::new(operation, action)));
        }
        Ok(Self { key, steps })
    }
}

/// Whether a counter has such an operation.
pub(super) fn is_of_counter(micro_op: &MicroOp) -> bool {
    match micro_op {
        MicroOp::Read { value, .. } => !matches!(value, Value::List(_)),
        MicroOp::Add { .. } | MicroOp::BoundedAdd { .. } => true,
        _ => false,
    }
}

impl Object for Counter<'_> {
    type Action = Action;
    type State = i128;

    fn key(&self) -> &str {
        self.key
    }

    fn steps(&self) -> &[Step<'_, Action>] {
        &self.steps
    }

    fn initial(&self) -> i128 {
        0
    }

    fn after(&self, step: usize, sum: i128) -> Option<i128> {
        let action = &self.steps[step].action;
        action.allows(sum).then(|| sum + action.amount)
    }

    fn looks(&self, step: usize) -> bool {
        self.steps[step].action.amount == 0
    }

    fn number(sum: i128) -> u128 {
        sum.cast_unsigned()
    }

    fn show(&self, sum: i128) -> String {
        sum.to_string()
    }

    fn demand(&self, step: usize) -> String {
        self.steps[step].action.to_string()
    }
}

/// What it found, and what it did.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, high, within, amount } = *self;
        let end = |end: i128, none| if end == none { String::new() } else { end.to_string() };
        let interval = format!("{}..={}", end(low, i128::MIN), end(high, i128::MAX));
        match within {
            true if !self.demands() => f.write_str("found any sum")?,
            true if low > high => f.write_str("found two sums at once")?,
            true if low == high => write!(f, "found {low}")?,
            true => write!(f, "found a sum within {interval}")?,
            false => write!(f, "found a sum outside {interval}")?,
        }
        if amount == 0 { Ok(()) } else { write!(f, ", and added {amount}") }
    }
}

//! Is every key linearizable: is there one order of its operations, legal for the object it is, in which
//! whatever returned before another was invoked comes before it?
//!
//! ```text
//!   operations ──by key──▶ Register ──▶ evident ──▶ zones ──▶ search ──▶ verdict
//!                     │                 a value     values    the rest: cas, delete,
//!                     │                 nobody      written   values written twice
//!                     │                 wrote       once
//!                     ├──▶ Counter ───▶ bounds ─────────────▶ search
//!                     │                 sums out of reach
//!                     └──▶ List ──────▶ evident ────────────▶ search
//!                                       elements lost or from nowhere
//! ```
//!
//! Which object a key is, its operations say ([`kind`]). Those of a counter or a list may have several
//! micro-operations on the key, which happen at one moment: an addition and the sum it answered.
//!
//! Linearizability is local: a store is linearizable if each of its keys is, so keys are judged one by
//! one. [`monitor`] is a cheaper judge beside it, for histories whose replies carry versions.
//!
//! Sources: Herlihy and Wing, "Linearizability" (1990) for the definition and locality; Gibbons and
//! Korach, "Testing shared memories" (1997) for zones; Wing and Gong (1993) and Lowe, "Testing for
//! linearizability" (2017) for the search.

mod counter;
pub(crate) mod evident;
mod kind;
mod list;
pub mod monitor;
mod object;
pub(crate) mod register;
mod search;
mod zones;

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{History, Operation};
use crate::{Counts, Violation};
use counter::{Counter, bounds};
use kind::Kind;
use list::{Beginnings, List};
use object::Object;
use register::{Numbered, Register};
use search::Found;

/// What is known of a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is a legal order for every key.
    Linearizable,
    /// There is none for this key.
    Violation(Violation),
    /// No key was found in violation, but for this one nobody knows.
    Unknown {
        /// The key.
        key: String,
        /// Why.
        doubt: Doubt,
    },
}

/// Why a key could not be judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// The search visited as many configurations as its budget allows.
    OutOfBudget,
    /// An operation that no object has which also has those before it, or one of several keys.
    NoObject {
        /// The line of its invocation.
        line: usize,
        /// What it does.
        text: String,
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

/// How much a search may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Configurations remembered for one key, or for the whole store where keys are not judged one by
    /// one: some hundred bytes each.
    pub configurations: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { configurations: 2_000_000 }
    }
}

/// Judges every operation of a history.
pub fn check(history: &History) -> Report {
    check_operations(&history.operations(), Budget::default())
}

/// Judges operations of one history, in the order of their invocations. A caller whose history mixes
/// levels leaves out the reads that promise less.
pub fn check_operations(operations: &[Operation], budget: Budget) -> Report {
    Report { verdict: verdict(operations, budget), counts: Counts::of(operations) }
}

fn verdict(operations: &[Operation], budget: Budget) -> Verdict {
    let mut unknown = None;
    for (key, operations) in by_key(operations) {
        match judge(key, &operations, budget) {
            Ok(None) => {}
            Ok(Some(violation)) => return Verdict::Violation(violation),
            Err(doubt) => {
                unknown.get_or_insert(Verdict::Unknown { key: key.to_owned(), doubt });
            }
        }
    }
    unknown.unwrap_or(Verdict::Linearizable)
}

/// The operations that touch each key, in their order.
pub(crate) fn by_key<'a>(
    operations: impl IntoIterator<Item = &'a Operation>,
) -> BTreeMap<&'a str, Vec<&'a Operation>> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        let mut touched: Vec<_> = operation.micro_ops.iter().map(|op| op.key()).collect();
        touched.sort_unstable();
        touched.dedup();
        for key in touched {
            keys.entry(key).or_default().push(operation);
        }
    }
    keys
}

/// Judges one key by the cheapest judge that can.
fn judge(key: &str, operations: &[&Operation], budget: Budget) -> Result<Option<Violation>, Doubt> {
    match Kind::of(key, operations)? {
        Kind::Register => {
            let register = Register::new(key, operations)?;
            let quick = evident::judge(&register).or_else(|| zones::judge(&register));
            if quick.is_some() || zones::is_complete(&register) {
                return Ok(quick);
            }
            search(&Numbered::new(&register), budget)
        }
        Kind::Counter => {
            let counter = Counter::new(key, operations)?;
            bounds::judge(&counter)
                .map_or_else(|| search(&counter, budget), |found| Ok(Some(found)))
        }
        Kind::List => {
            let list = List::new(key, operations)?;
            let quick = list::evident::judge(&list);
            quick.map_or_else(|| search(&Beginnings::new(&list), budget), |found| Ok(Some(found)))
        }
    }
}

fn search(object: &impl Object, budget: Budget) -> Result<Option<Violation>, Doubt> {
    match search::judge(object, budget) {
        Found::Order => Ok(None),
        Found::Violation(violation) => Ok(Some(violation)),
        Found::OutOfBudget => Err(Doubt::OutOfBudget),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => f.write_str("linearizable"),
            Self::Violation(violation) => write!(f, "not linearizable\n{violation}"),
            Self::Unknown { key, doubt } => write!(f, "unknown\nkey {key}: {doubt}"),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBudget => f.write_str("the search ran out of its budget"),
            Self::NoObject { line, text } => write!(
                f,
                "line {line}: `{text}` is no operation of a register, counter or list that has those before it"
            ),
        }
    }
}

#[cfg(test)]
mod definition;
#[cfg(test)]
mod linearizable_test;
#[cfg(test)]
mod objects_test;

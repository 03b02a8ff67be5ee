//! Does every read of a set hold what it must, and nothing it cannot?
//!
//! ```text
//!   process 0   add 7 ──ok──▶ read {7}        certain for it, and nobody removed it
//!   process 1   read {7} ──▶ remove 7 ──ok    observed the addition: it ends it
//!   process 2   add 7 (at the same time)      not observed: it stays (add wins)
//! ```
//!
//! A read holds an element if some addition of it is shown and no shown removal had observed that addition. What
//! is certainly shown depends on the read's level, as for counters (eventual: nothing; causal and sequential:
//! its own session's; strict: also what the log acknowledged before; final: all that was acknowledged before);
//! whatever else had begun may be. So, of each element:
//! - *no phantom*: it was added, by an operation that did not fail and had begun;
//! - *nothing lost*: a certain addition that no removal can have observed is there. A removal cannot have
//!   observed what was invoked after it returned;
//! - *nothing back*: if a certain removal had certainly observed each addition there was, it is not there. A
//!   removal certainly observed what its session had added before; if both went through the log, what was
//!   acknowledged before it was invoked; and, if the element was added once, what its session had seen: if it is
//!   causal, at any level but eventual, if it went through the log, at those of the log;
//! - no element twice in one answer.
//!
//! A delete of the set is a removal of every element. Elements that are added once make this exact.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::history::{MicroOp, Operation, Outcome, Value};
use crate::known::Known;
use crate::promise::{Broken, Doubt, Report, violation};
use crate::session_order::Clock;
use crate::{History, Level, Violation};

/// Judges every set of a history; operations that name no level are strict.
pub fn check(history: &History) -> Report {
    check_operations(&history.operations(), Level::Strict)
}

/// As [`check`], for the operations of one history in the order of their invocations; those that name no
/// level are `unnamed`. Of the order of the elements in all answers, and of those that should be.
pub fn check_operations(operations: &[Operation], unnamed: Level) -> Report {
    Report::new(operations, judge(operations, unnamed))
}

/// What was done with an element.
#[derive(Default)]
struct Element {
    additions: Vec<usize>,
    removals: Vec<Removal>,
    failed: Option<usize>,
    /// Where sessions first had it in an answer that was not eventual: by chain, the place.
    seen: BTreeMap<usize, u32>,
    /// And where in one of the log.
    seen_in_log: BTreeMap<usize, u32>,
}

/// A removal of an element, or a delete of its set.
struct Removal {
    operation: usize,
    /// The additions it certainly observed, in their order.
    observed: Vec<usize>,
}

impl Removal {
    fn new(operation: usize) -> Self {
        Self { operation, observed: Vec::new() }
    }
}

/// Of each set its elements.
type Elements<'a> = HashMap<&'a str, BTreeMap<i64, Element>>;

fn judge(operations: &[Operation], unnamed: Level) -> Result<(), Broken> {
    let known = Known::new(operations, unnamed)?;
    let mut sets = Elements::new();
    for (at, operation) in operations.iter().enumerate() {
        take(&mut sets, at, operation)?;
    }
    for (at, operation) in operations.iter().enumerate() {
        if let ([MicroOp::Delete { key }], true) = (&operation.micro_ops[..], happened(operation)) {
            let elements = sets.get_mut(key.as_str()).into_iter().flat_map(BTreeMap::values_mut);
            elements.for_each(|element| element.removals.push(Removal::new(at)));
        }
    }
    for element in sets.values_mut().flat_map(BTreeMap::values_mut) {
        element.removals.sort_unstable_by_key(|removal| removal.operation);
    }
    let mut broken = None;
    known.order.walk(|at, own| {
        let operation = &operations[at];
        let Some(set) = sets.get_mut(operation.micro_ops[0].key()) else { return };
        match &operation.micro_ops[0] {
            MicroOp::Read { value, .. } if operation.outcome == Outcome::Ok => {
                let list: &[i64] = if let Value::List(list) = value { list } else { &[] };
                broken = broken.take().or_else(|| judge_read(&known, set, at, list, own));
                note_seen(&known, set, at, list);
            }
            MicroOp::Remove { element, .. } => {
                if let Some(element) = set.get_mut(element) {
                    note_observed(&known, element, at, own);
                }
            }
            MicroOp::Delete { .. } => {
                set.values_mut().for_each(|element| note_observed(&known, element, at, own));
            }
            _ => {}
        }
    });
    broken.map_or(Ok(()), |violation: Violation| Err(violation.into()))
}

fn happened(operation: &Operation) -> bool {
    operation.outcome == Outcome::Ok || operation.outcome.is_unknown()
}

fn take<'a>(sets: &mut Elements<'a>, at: usize, operation: &'a Operation) -> Result<(), Broken> {
    let set = sets.entry(operation.micro_ops[0].key()).or_default();
    match operation.micro_ops.as_slice() {
        [MicroOp::Read { value: Value::Absent | Value::List(_), .. }] => {}
        [MicroOp::Add { amount, .. }] if happened(operation) => {
            set.entry(*amount).or_default().additions.push(at);
        }
        [MicroOp::Add { amount, .. }] => set.entry(*amount).or_default().failed = Some(at),
        [MicroOp::Remove { element, .. }] if happened(operation) => {
            set.entry(*element).or_default().removals.push(Removal::new(at));
        }
        [MicroOp::Remove { .. } | MicroOp::Delete { .. }] => {}
        _ => return Err(Doubt::of_type(operation).into()),
    }
    Ok(())
}

fn note_seen(known: &Known<'_>, set: &mut BTreeMap<i64, Element>, read: usize, list: &[i64]) {
    let Some(place) = known.order.places[read] else { return };
    if known.levels[read] != Level::Eventual {
        for element in list {
            if let Some(element) = set.get_mut(element) {
                element.seen.entry(place.chain).or_insert(place.at);
                if known.levels[read].is_log() {
                    element.seen_in_log.entry(place.chain).or_insert(place.at);
                }
            }
        }
    }
}

/// Notes what a removal of the element certainly observed, if there is such a removal.
fn note_observed(known: &Known<'_>, element: &mut Element, removal: usize, own: &Clock) {
    let found = element.removals.binary_search_by_key(&removal, |removal| removal.operation);
    if let Ok(found) = found {
        let additions = element.additions.iter().copied();
        let observed = additions.filter(|&at| has_observed(known, element, removal, at, own));
        element.removals[found].observed = observed.collect();
    }
}

/// Whether a removal certainly observed an addition.
fn has_observed(
    known: &Known<'_>,
    element: &Element,
    removal: usize,
    addition: usize,
    own: &Clock,
) -> bool {
    let (removed, added) = (&known.operations[removal], &known.operations[addition]);
    let acknowledged = added.outcome == Outcome::Ok;
    let returned = added.return_line.is_some_and(|line| line < removed.invoke_line);
    let log = known.levels[addition].is_log() && known.levels[removal].is_log();
    let in_session = known.order.places[addition].is_some_and(|place| own.holds(place));
    let seen = match known.levels[removal] {
        Level::Eventual => None,
        Level::Causal => Some(&element.seen),
        Level::Sequential | Level::Strict => Some(&element.seen_in_log),
    };
    let is_seen =
        |seen: &BTreeMap<usize, u32>| seen.iter().any(|(&chain, &at)| own.of(chain) >= at);
    let saw = element.additions.len() == 1 && seen.is_some_and(is_seen);
    (acknowledged && (in_session || (log && returned))) || saw
}

fn judge_read(
    known: &Known<'_>,
    set: &BTreeMap<i64, Element>,
    read: usize,
    list: &[i64],
    own: &Clock,
) -> Option<Violation> {
    let operations = known.operations;
    let operation = &operations[read];
    let line = operation.return_line?;
    let mut held = BTreeSet::new();
    for &value in list {
        if !held.insert(value) {
            let why = format!("line {line} answered {value} twice");
            return Some(violation("an element twice in a set", &[operation], why));
        }
        let Some(element) = set.get(&value) else {
            let why = format!("line {line} answered {value}, which nobody ever added");
            return Some(violation("a phantom element", &[operation], why));
        };
        let additions = || element.additions.iter().filter(|&&at| known.may_show(read, at));
        if additions().next().is_none() {
            let (others, why): (Vec<&Operation>, _) = match element.failed {
                Some(failed) => (
                    vec![operation, &operations[failed]],
                    format!(
                        "line {line} answered {value}, whose addition failed: it has no effect, ever"
                    ),
                ),
                None => (
                    vec![operation],
                    format!("line {line} answered {value} before anybody added it"),
                ),
            };
            return Some(violation("a phantom element", &others, why));
        }
        let ended = |addition: usize| {
            let mut removals = element.removals.iter().rev();
            removals.find(|removal| {
                removal.observed.binary_search(&addition).is_ok()
                    && known.shows(read, own, removal.operation).is_some()
            })
        };
        // The last first: it is the one that most likely has not ended.
        let each = additions().rev().map(|&at| ended(at));
        if let Some(removals) = each.collect::<Option<Vec<_>>>() {
            let removal = removals[0].operation;
            let by = known.shows(read, own, removal)?;
            let removed = operations[removal].return_line?;
            let why = format!(
                "line {line} answered {value}, which was removed by one that had observed it: {}",
                by.why(removed)
            );
            let mut cited = vec![operation, &operations[removal]];
            cited.extend(additions().map(|&at| &operations[at]));
            return Some(violation("a removed element is back", &cited, why));
        }
    }
    // What it must hold.
    for (&value, element) in set {
        if held.contains(&value) {
            continue;
        }
        let kept = |addition: &&usize| {
            !element.removals.iter().rev().any(|removal| {
                let removed = operations[removal.operation].return_line;
                let too_early =
                    removed.is_some_and(|line| line < operations[**addition].invoke_line);
                known.may_show(read, removal.operation) && !too_early
            })
        };
        let certain = element.additions.iter().filter(kept);
        let mut certain = certain.filter_map(|&at| Some((at, known.shows(read, own, at)?)));
        if let Some((addition, by)) = certain.next() {
            let added = operations[addition].return_line?;
            let why = format!(
                "line {line} answered without {value}, which no removal can have observed: {}",
                by.why(added)
            );
            let cited = [operation, &operations[addition]];
            return Some(violation("an added element is missing", &cited, why));
        }
    }
    None
}

#[cfg(test)]
mod set_test;

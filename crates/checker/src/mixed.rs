//! Histories in which local writes stand beside operations of the log on the same keys, as histories of the log.
//!
//! A local write (causal, eventual) enters the log where it is folded: any time after it was sent, and maybe without an
//! effect, because a write with a larger time is there already. Whoever watches the log knows where each
//! that had an effect did ([`Folded`]). So:
//!
//! ```text
//!   history:   strict and sequential operations      local writes           local reads
//!                 │                                     │ folded, with effect    (no place in the log)
//!                 ▼                                     ▼
//!   strict:    writes, strict reads               writes of unknown end: at any time after they were sent;
//!                                                  but before the first answer that shows them
//!   sequential: all, in their sessions            writes at their places; after what their session did in the log
//!                                                  before, and before what it does to that key there afterwards
//! ```
//!
//! One that never had an effect is left out: nothing that the log answers shows it. The judges of the log
//! then judge these histories as any other. Where nobody watches the log, as with real processes, the strict projection can
//! be made all the same ([`shown`]).
//!
//! Source: `consistency.md` 1.1 and 1.2, rules 2 to 4.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{MicroOp, Operation, Outcome, Value, Version};
use crate::levels::Level;

/// A local write that had an effect in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Folded {
    /// Of which key.
    pub key: String,
    /// What it left; `None`: it deleted the key.
    pub value: Option<i64>,
    /// Its version, as replies carry it.
    pub version: Version,
    /// Its place among the versions of log writes.
    pub place: Version,
}

/// The operations of the log, with the local writes that had an effect in it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Mixed {
    /// In the order of their invocations. Versions are places in the log.
    pub(crate) operations: Vec<Operation>,
    /// Of these invocations, those that are local writes, and whether their session knows that they happened.
    pub(crate) local: BTreeMap<usize, bool>,
}

impl Mixed {
    /// Of a whole history, and what is known of its folds.
    pub(crate) fn new(operations: &[Operation], folded: &[Folded]) -> Self {
        let taken_in = assign(operations, folded);
        let places: BTreeMap<_, _> =
            folded.iter().map(|folded| (&folded.version, &folded.place)).collect();
        let mut mixed = Self { operations: Vec::new(), local: BTreeMap::new() };
        for operation in operations {
            let mut operation = operation.clone();
            if is_local_write(&operation) {
                let Some(folded) = taken_in.get(&operation.invoke_line) else { continue };
                mixed.local.insert(operation.invoke_line, operation.outcome == Outcome::Ok);
                operation.outcome = Outcome::Ok;
                operation.return_line.get_or_insert(operation.invoke_line);
                operation.extras.version = Some(folded.place.clone());
            } else if let Some(version) = &mut operation.extras.version
                && let Some(place) = places.get(version)
            {
                // A version that no fold explains stays, and the judge finds that nobody wrote it.
                version.clone_from(place);
            }
            mixed.operations.push(operation);
        }
        mixed
    }
}

/// The strict projection: what must be linearizable, key by key.
pub fn strict(operations: &[Operation], folded: &[Folded]) -> Vec<Operation> {
    let is_read = |op: &MicroOp| matches!(op, MicroOp::Read { .. });
    let mut mixed = Mixed::new(operations, folded);
    mixed.operations.retain(|operation| {
        !operation.micro_ops.iter().all(is_read)
            || !matches!(level(operation), Level::Sequential | Level::Causal | Level::Eventual)
    });
    let mut shown: BTreeMap<(String, i64), usize> = BTreeMap::new();
    for operation in &mixed.operations {
        let found = match (&operation.micro_ops[0], operation.outcome) {
            (MicroOp::Read { value: Value::Integer(value), .. }, Outcome::Ok)
            | (MicroOp::CompareAndSet { from: Some(value), .. }, Outcome::Ok) => *value,
            _ => continue,
        };
        let Some(line) = operation.return_line else { continue };
        let first = shown.entry((operation.micro_ops[0].key().to_owned(), found)).or_insert(line);
        *first = line.min(*first);
    }
    for operation in &mut mixed.operations {
        if !mixed.local.contains_key(&operation.invoke_line) {
            continue;
        }
        let line = match &operation.micro_ops[0] {
            MicroOp::Write { key, value } => shown.get(&(key.clone(), *value)).copied(),
            _ => None,
        };
        operation.return_line = line;
        operation.outcome = if line.is_some() { Outcome::Ok } else { Outcome::Info };
    }
    mixed.operations
}

/// Of a history of registers whose log nobody watched: the local writes that the log certainly took in, because it
/// answered with them. Enough for [`strict`], and for nothing else: a base never exchanges a value for one
/// of a smaller version, so the versions of one key are in the order of its places in the log, but say nothing of
/// other keys.
///
/// Versions of log writes and of local ones must compare as those of the store do. Local deletes are not found: an
/// answer does not say which delete it shows.
pub fn shown(operations: &[Operation]) -> Vec<Folded> {
    let mut versions: BTreeMap<(&str, i64), &Version> = BTreeMap::new();
    let mut by_value: BTreeSet<(&str, i64)> = BTreeSet::new();
    let mut by_version: BTreeSet<&Version> = BTreeSet::new();
    for operation in operations {
        let of_log = level(operation).is_log();
        let key = operation.micro_ops[0].key();
        let version = operation.extras.version.as_ref();
        let (value, is_its_version) = match (&operation.micro_ops[0], operation.outcome) {
            (MicroOp::Read { value: Value::Integer(value), .. }, Outcome::Ok) => (*value, true),
            (MicroOp::Write { value, .. }, Outcome::Ok) if !of_log => (*value, true),
            (MicroOp::CompareAndSet { from: Some(value), .. }, Outcome::Ok) => (*value, false),
            (_, Outcome::Mismatch) => {
                by_version.extend(version);
                continue;
            }
            _ => continue,
        };
        if let Some(version) = version.filter(|_| is_its_version) {
            versions.insert((key, value), version);
        }
        if of_log {
            by_value.insert((key, value));
        }
    }
    let found = |operation: &Operation| {
        let MicroOp::Write { key, value } = &operation.micro_ops[0] else { return None };
        let version = *versions.get(&(key.as_str(), *value))?;
        let is_shown = by_value.contains(&(key.as_str(), *value)) || by_version.contains(version);
        is_shown.then(|| Folded {
            key: key.clone(),
            value: Some(*value),
            version: version.clone(),
            place: version.clone(),
        })
    };
    operations.iter().filter(|operation| is_local_write(operation)).filter_map(found).collect()
}

/// Which local write each fold is of: by its version, or by its value where the client was not told. Of deletes that
/// the client was not told about any will do: they leave the same.
fn assign<'a>(operations: &[Operation], folded: &'a [Folded]) -> BTreeMap<usize, &'a Folded> {
    let local: Vec<_> = operations.iter().filter(|op| is_local_write(op)).collect();
    let mut taken = BTreeMap::new();
    let mut claimed = BTreeSet::new();
    let mut claim = |fits: &dyn Fn(&Operation, &Folded) -> bool| {
        for operation in &local {
            if taken.contains_key(&operation.invoke_line) {
                continue;
            }
            let is_free = |(at, of): &(usize, &Folded)| {
                of.key == operation.micro_ops[0].key()
                    && !claimed.contains(at)
                    && fits(operation, of)
            };
            if let Some((at, of)) = folded.iter().enumerate().find(is_free) {
                claimed.insert(at);
                taken.insert(operation.invoke_line, of);
            }
        }
    };
    claim(&|operation, of| operation.extras.version.as_ref() == Some(&of.version));
    let is_untold = |operation: &Operation| operation.outcome.is_unknown();
    claim(&|operation, of| match &operation.micro_ops[0] {
        MicroOp::Write { value, .. } => is_untold(operation) && of.value == Some(*value),
        _ => is_untold(operation) && of.value.is_none(),
    });
    taken
}

fn level(operation: &Operation) -> Level {
    Level::of(operation, Level::Strict).unwrap_or(Level::Strict)
}

fn is_local_write(operation: &Operation) -> bool {
    let writes = matches!(operation.micro_ops[0], MicroOp::Write { .. } | MicroOp::Delete { .. });
    writes && !level(operation).is_log() && operation.outcome != Outcome::Fail
}

#[cfg(test)]
mod mixed_test;

//! Siblings, sets, maps and flags: live elements, each with the id of the write that made it.

use std::collections::BTreeSet;

use bytes::Bytes;
use latitude_types::OperationId;

use super::{MergeError, Outcome, State, Write, spend, takes_effect};
use crate::{Content, Element, Ids, Op, ValueType};

pub(super) fn merge<I: Ids>(
    state: &mut State,
    value_type: ValueType,
    write: &Write<'_>,
    ids: &mut I,
) -> Result<Outcome, MergeError<I::Error>> {
    let mut live = match std::mem::take(&mut state.content) {
        Content::Deleted => Vec::new(),
        Content::Live(elements) => elements,
        Content::Plain(_) | Content::Counter(_) => return Err(MergeError::Content(value_type)),
    };
    end_named(&mut live, write.named, ids)?;
    if write.logged.is_some() {
        end_what_is_here(&mut live, value_type, write);
    }
    state.raise_version(write.time());
    let is_new = takes_effect(write, ids)?;
    if is_new && let Some((name, value)) = added(write.op) {
        let element = Element { id: *write.id, logged: write.logged, name, value };
        if let Err(at) = live.binary_search_by(|other| order(other).cmp(&order(&element))) {
            live.insert(at, element);
        }
    }
    state.content = if live.is_empty() { Content::Deleted } else { Content::Live(live) };
    Ok(if is_new { Outcome::Applied { superseded: false } } else { Outcome::Duplicate })
}

/// Ends the ids a write names: those live go, the others are spent.
///
/// A live id that goes needs no record: it has one since it took effect, or no copy of it can come.
fn end_named<I: Ids>(
    live: &mut Vec<Element>,
    named: &[OperationId],
    ids: &mut I,
) -> Result<(), MergeError<I::Error>> {
    let mut unmet: BTreeSet<_> = named.iter().collect();
    if unmet.is_empty() {
        return Ok(());
    }
    live.retain(|element| !unmet.remove(&element.id));
    unmet.into_iter().try_for_each(|id| spend(id, ids))
}

/// Ends what a log write ends without naming it: all that the base holds, at its place, of what it is
/// about.
///
/// A put of siblings ends nothing but its context, nor does a delete that has one: with one that is behind they
/// leave a sibling at every level, rather than end what their client has not read.
fn end_what_is_here(live: &mut Vec<Element>, value_type: ValueType, write: &Write<'_>) {
    match write.op {
        Op::Put { .. } => {}
        Op::Delete if value_type == ValueType::Siblings && !write.named.is_empty() => {}
        Op::Delete => live.clear(),
        op => live.retain(|element| element.name != *op.name_of_element()),
    }
}

/// The name and value of the element that an adding operation makes.
fn added(op: &Op) -> Option<(Bytes, Bytes)> {
    match op {
        Op::Put { value } => Some((Bytes::new(), value.clone())),
        Op::SetAdd { element } => Some((element.clone(), Bytes::new())),
        Op::MapPut { field, value } => Some((field.clone(), value.clone())),
        Op::Enable => Some((Bytes::new(), Bytes::new())),
        _ => None,
    }
}

fn order(element: &Element) -> (&Bytes, &OperationId) {
    (&element.name, &element.id)
}

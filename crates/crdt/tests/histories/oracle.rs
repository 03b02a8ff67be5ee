//! What the key must hold once everything is known everywhere, said without merging: an id is live if a
//! write added it and nothing ended it; the last reset and the adds after it make a counter; the largest
//! time makes a register and every version.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use latitude_crdt::{Content, Op, State, ValueType};
use latitude_types::{OperationId, Stamp, WriteTime};

use crate::world::{Delta, Entry, Remover, World, Wrong, name_if_adding};

/// Everything that happened to the key, in one order: the log, then what is not folded.
enum Event<'a> {
    Local(&'a Delta),
    Log(Stamp, OperationId, &'a Op, &'a [OperationId]),
}

pub(crate) fn judge_the_end(world: &World) -> Result<(), Wrong> {
    let shown = world.view(0, 1);
    let events = events(world);
    let expected_version = events.iter().map(Event::time).max();
    if !world.nodes[0].base.dropped && shown.version != expected_version {
        return Err(Wrong::Rules(format!("shown is {shown:?}, and not of {expected_version:?}")));
    }
    let right = match (world.value_type, &shown.content) {
        (ValueType::Register, content) => *content == register(&events),
        (ValueType::Counter, content) => *content == counter(&events),
        (_, _) => {
            let live: BTreeSet<_> = shown.elements().iter().map(|element| element.id).collect();
            live == live_ids(&events)
        }
    };
    if !right {
        return Err(Wrong::Rules(format!("shown in the end, and not what was written: {shown:?}")));
    }
    let lost = events.iter().any(|event| is_lost(event, &shown, &world.removers));
    if lost { Err(Wrong::LostAdd) } else { Ok(()) }
}

/// Whether an element or a field is gone although nothing that removed it knew of this add. It may be
/// there by another add that took this one's place.
fn is_lost(added: &Event<'_>, shown: &State, removers: &[Remover]) -> bool {
    let Some(name) = name_if_adding(added.op()) else { return false };
    let removes = |op: &Op| match op {
        Op::SetRemove { element } => *element == name,
        Op::MapRemove { field } => *field == name,
        Op::Delete | Op::Disable => true,
        _ => false,
    };
    let removed =
        removers.iter().any(|remover| removes(&remover.op) && remover.known.contains(&added.id()));
    !removed && !shown.elements().iter().any(|element| element.name == name)
}

fn events(world: &World) -> Vec<Event<'_>> {
    let in_log = world.log.iter().flat_map(|entry| match entry {
        Entry::Fold { deltas, .. } => deltas.iter().map(Event::Local).collect::<Vec<_>>(),
        Entry::Write { stamp, id, op, named } => vec![Event::Log(*stamp, *id, op, named)],
    });
    in_log.chain(world.overlay(0, 0).into_iter().map(Event::Local)).collect()
}

impl Event<'_> {
    fn time(&self) -> WriteTime {
        match self {
            Self::Local(delta) => WriteTime::of_local_write(&delta.id),
            Self::Log(stamp, ..) => WriteTime::of_log_write(*stamp, 0),
        }
    }

    fn id(&self) -> OperationId {
        match self {
            Self::Local(delta) => delta.id,
            Self::Log(_, id, ..) => *id,
        }
    }

    fn op(&self) -> &Op {
        match self {
            Self::Local(delta) => &delta.op,
            Self::Log(_, _, op, _) => op,
        }
    }

    fn named(&self) -> &[OperationId] {
        match self {
            Self::Local(delta) => &delta.named,
            Self::Log(_, _, _, named) => named,
        }
    }
}

fn register(events: &[Event<'_>]) -> Content {
    match events.iter().max_by_key(|event| event.time()).map(Event::op) {
        Some(Op::Put { value }) => Content::Plain(value.clone()),
        _ => Content::Deleted,
    }
}

fn counter(events: &[Event<'_>]) -> Content {
    let (mut met, mut content) = (BTreeSet::new(), Content::Deleted);
    for event in events.iter() {
        if !met.insert(event.id()) {
            continue;
        }
        let sum = if let Content::Counter(sum) = content { sum } else { 0 };
        content = match event.op() {
            Op::Add { amount } => Content::Counter(sum + i128::from(*amount)),
            Op::Reset => Content::Counter(0),
            _ => Content::Deleted,
        };
    }
    content
}

fn live_ids(events: &[Event<'_>]) -> BTreeSet<OperationId> {
    // Where each id first stands, and of which name it is.
    let mut added: BTreeMap<OperationId, (usize, Bytes)> = BTreeMap::new();
    let mut ended: BTreeSet<OperationId> = BTreeSet::new();
    for (place, event) in events.iter().enumerate() {
        ended.extend(event.named());
        let sibling = matches!(event.op(), Op::Put { .. }).then(Bytes::new);
        if let Some(name) = name_if_adding(event.op()).or(sibling) {
            added.entry(event.id()).or_insert((place, name));
        }
    }
    for (place, event) in events.iter().enumerate() {
        let Event::Log(_, own, op, named) = event else { continue };
        let is_ended = |name: &Bytes| match op {
            Op::Put { .. } => false,
            Op::SetAdd { element } | Op::SetRemove { element } => name == element,
            Op::MapPut { field, .. } | Op::MapRemove { field } => name == field,
            // Of siblings, which have no names, only those that are named.
            Op::Delete if !named.is_empty() => !name.is_empty(),
            _ => true,
        };
        let before =
            added.iter().filter(|(id, (at, name))| *at < place && **id != *own && is_ended(name));
        ended.extend(before.map(|(id, _)| *id));
    }
    added.into_keys().filter(|id| !ended.contains(id)).collect()
}

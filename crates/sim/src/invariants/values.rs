//! What keys hold is what their types say of the writes in the log (`consistency.md` 1.4): by definition, not by merging.
//!
//! | type | after every entry |
//! | --- | --- |
//! | register | what the write with the largest time left, among all that the log has |
//! | counter | the sum of what was added since it was reset or deleted last, each id once; and that is what answers say |
//! | set, map, flag, siblings | the adds that nobody ended: neither a write that names them, in any of its copies, nor one of the log after them |
//!
//! A local write is in the log once its origin is folded over it. INV-8 by its effect: whatever is retried, folded
//! twice, left out or brought back shows here at the entry that does it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use latitude_range::{
    Applied, Body, Carried, Content, Delta, Done, Entry, Op, Operation, RangeMeta, ValueRow,
    ValueType,
};
use latitude_storage::key;
use latitude_types::{Key, OperationId, Stamp, WriteTime};

use crate::violation::{Check, Violation};

/// What the writes in the log of a range come to, by the row of their key.
#[derive(Default)]
pub(crate) struct Values {
    keys: BTreeMap<Vec<u8>, Meaning>,
    /// The local writes that won a register when they were folded, also those that something in the same entry
    /// replaced at once.
    winners: Vec<(WriteTime, Key, Content, Stamp)>,
    /// Not all writes are known.
    unknown: bool,
}

/// What the writes of a key come to.
enum Meaning {
    Register(Option<(WriteTime, Option<Bytes>)>),
    /// The ids that have counted, or never will; the sum, if the key exists.
    Counter(BTreeSet<OperationId>, Option<i128>),
    Live(Elements),
    /// There was a write whose meaning is not told here.
    Unknown,
}

#[derive(Default)]
struct Elements {
    /// Each with its name and value.
    live: BTreeMap<OperationId, (Bytes, Bytes)>,
    ended: BTreeSet<OperationId>,
    /// A delete that names something ends that and no more.
    are_siblings: bool,
}

impl Meaning {
    fn of(value_type: ValueType) -> Self {
        match value_type {
            ValueType::Register => Self::Register(None),
            ValueType::Counter => Self::Counter(BTreeSet::new(), None),
            ValueType::Set | ValueType::Siblings | ValueType::Map | ValueType::Flag => {
                let are_siblings = value_type == ValueType::Siblings;
                Self::Live(Elements { are_siblings, ..Elements::default() })
            }
        }
    }

    /// A local write is folded, another copy of it maybe before.
    fn fold(&mut self, delta: &Delta) {
        self.write(&delta.id, delta.time(), &delta.op, &delta.named);
    }

    /// A log write has its place; `done` is what it did.
    fn log(&mut self, at: WriteTime, operation: &Operation, done: &Done) {
        if !matches!(done, Done::Written { .. } | Done::Added { .. }) {
            return;
        }
        if let Self::Live(elements) = &mut *self {
            match &operation.op {
                Op::SetAdd { element: name }
                | Op::SetRemove { element: name }
                | Op::MapPut { field: name, .. }
                | Op::MapRemove { field: name } => elements.end(|_, (other, _)| other == name),
                Op::Enable | Op::Disable => elements.end(|_, _| true),
                Op::Delete if elements.are_siblings && !operation.named.is_empty() => {}
                Op::Delete => elements.end(|_, _| true),
                _ => {}
            }
        }
        self.write(&operation.id, at, &operation.op, &operation.named);
    }

    fn write(&mut self, id: &OperationId, time: WriteTime, op: &Op, named: &[OperationId]) {
        match (&mut *self, op) {
            (Self::Register(best), Op::Put { .. } | Op::Delete | Op::CompareAndSet { .. }) => {
                let left = match op {
                    Op::Put { value } => Some(value.clone()),
                    Op::CompareAndSet { new_value, .. } => new_value.clone(),
                    _ => None,
                };
                if best.as_ref().is_none_or(|(best, _)| *best < time) {
                    *best = Some((time, left));
                }
            }
            (Self::Counter(counted, sum), Op::Add { amount } | Op::AddWithin { amount, .. }) => {
                if counted.insert(*id) {
                    *sum = Some(sum.unwrap_or_default() + i128::from(*amount));
                }
            }
            (Self::Counter(ended, sum), Op::Reset | Op::Delete) => {
                ended.extend(named);
                *sum = matches!(op, Op::Reset).then_some(0);
            }
            (Self::Live(elements), op) => {
                elements.ended.extend(named);
                elements.end(|_, _| false);
                let none = Bytes::new;
                let added = match op {
                    Op::SetAdd { element } => Some((element.clone(), none())),
                    Op::MapPut { field, value } => Some((field.clone(), value.clone())),
                    Op::Put { value } => Some((none(), value.clone())),
                    Op::Enable => Some((none(), none())),
                    _ => None,
                };
                if let Some(added) = added.filter(|_| !elements.ended.contains(id)) {
                    elements.live.insert(*id, added);
                }
            }
            _ => *self = Self::Unknown,
        }
    }

    /// Whether a row says so.
    fn is(&self, row: Option<&ValueRow>, now: Stamp) -> bool {
        let content = row.map(|row| &row.content);
        match self {
            Self::Unknown | Self::Register(None) => true,
            // The record of a deleted key may go once no copy of what came before can come.
            Self::Register(Some((time, None))) if row.is_none() => {
                now.time > time.time.plus_ms(RECORD_KEPT_MS)
            }
            Self::Register(Some((time, left))) => {
                let expected = left.clone().map_or(Content::Deleted, Content::Plain);
                row.is_some_and(|row| row.version == *time && row.content == expected)
            }
            Self::Counter(_, Some(sum)) => content == Some(&Content::Counter(*sum)),
            Self::Counter(_, None) => matches!(content, None | Some(Content::Deleted)),
            Self::Live(Elements { live, .. }) => match content {
                Some(Content::Live(elements)) => {
                    elements.len() == live.len()
                        && elements.iter().all(|e| {
                            live.get(&e.id).is_some_and(|l| (&l.0, &l.1) == (&e.name, &e.value))
                        })
                }
                Some(Content::Deleted) | None => live.is_empty(),
                Some(_) => false,
            },
        }
    }

    /// Whether the answer to an operation that has just had its place says what there is.
    fn is_answered(&self, done: &Done) -> bool {
        match (self, done) {
            (
                Self::Counter(_, sum),
                Done::Added { sum: told, .. } | Done::OutOfBounds { found: told },
            ) => i128::from(*told) == sum.unwrap_or_default(),
            _ => true,
        }
    }

    fn told(&self) -> String {
        match self {
            Self::Unknown | Self::Register(None) => "anything".into(),
            Self::Register(Some((time, left))) => format!("{left:?}, written at {time}"),
            Self::Counter(counted, sum) => format!("{sum:?}, after {} adds", counted.len()),
            Self::Live(Elements { live, .. }) => format!("{live:?}"),
        }
    }
}

impl Elements {
    /// Ends those, and whatever was named before it came.
    fn end(&mut self, which: impl Fn(&OperationId, &(Bytes, Bytes)) -> bool) {
        let Self { live, ended, .. } = self;
        live.retain(|id, element| {
            if which(id, element) {
                ended.insert(*id);
            }
            !ended.contains(id)
        });
    }
}

/// For so long the record of a deleted key is kept at least.
const RECORD_KEPT_MS: u64 = latitude_types::OPERATION_ID_LIFETIME.as_millis() as u64;

impl Values {
    /// There were writes before those that are told.
    pub(crate) fn know_nothing(&mut self) {
        self.unknown = true;
    }

    /// The local writes that won a register when they were folded: which, what they left, and the entry's stamp.
    pub(crate) fn winners(&self) -> impl Iterator<Item = (WriteTime, Key, Content, Stamp)> {
        self.winners.iter().cloned()
    }

    /// An entry was applied, with these answers, and the range's metadata went from one to the other.
    pub(crate) fn applied(
        &mut self,
        entry: &Entry,
        before: &RangeMeta,
        after: &RangeMeta,
        applied: &Applied,
        row: impl Fn(&[u8]) -> Option<Bytes>,
    ) -> Option<Violation> {
        let Body::Write(write) = &entry.body else { return None };
        if self.unknown {
            return None;
        }
        let keyspace = after.keyspace;
        let folded = |meta: &RangeMeta, node| {
            let origin = meta.origins.iter().find(|origin| origin.node == node);
            origin.map(|origin| origin.folded).unwrap_or_default()
        };
        let mut touched = BTreeSet::new();
        let mut positions = BTreeSet::new();
        let carried = write.segments.iter().flat_map(|segment| &segment.deltas);
        for carried in carried {
            let Carried::Whole(bytes) = carried else { continue };
            let Ok(delta) = Delta::decode(bytes) else { continue };
            let (from, to) = (folded(before, delta.origin), folded(after, delta.origin));
            let is_new = from < delta.position && delta.position <= to;
            if !is_new || !positions.insert((delta.origin, delta.position)) {
                continue;
            }
            let row = key::base::value_key(keyspace, &delta.key);
            let meaning = self.keys.entry(row.clone());
            let meaning = meaning.or_insert_with(|| Meaning::of(after.value_type));
            meaning.fold(&delta);
            if let Meaning::Register(Some((time, left))) = meaning
                && *time == delta.time()
            {
                let content = left.clone().map_or(Content::Deleted, Content::Plain);
                self.winners.push((*time, delta.key.clone(), content, entry.stamp));
            }
            touched.insert(row);
        }
        let answered = write.operations.iter().zip(&applied.replies).zip(0..);
        for ((operation, reply), ordinal) in answered {
            let Some(done) = reply.result.as_ref().ok().filter(|_| !reply.duplicate) else {
                continue;
            };
            let row = key::base::value_key(keyspace, &operation.key);
            let at = WriteTime::of_log_write(entry.stamp, ordinal);
            let meaning = self.keys.entry(row.clone());
            let meaning = meaning.or_insert_with(|| Meaning::of(after.value_type));
            meaning.log(at, operation, done);
            if !meaning.is_answered(done) {
                return Some(Check::Answers.found(format!(
                    "{:?} in entry {} of {} is answered with {done:?}, and the writes in the log come to {}",
                    operation.op,
                    entry.stamp,
                    after.id,
                    meaning.told()
                )));
            }
            touched.insert(row);
        }
        touched.iter().find_map(|name| {
            let found = row(name).and_then(|row| ValueRow::decode(&row).ok());
            let meaning = self.keys.get(name)?;
            (!meaning.is(found.as_ref(), entry.stamp)).then(|| {
                Check::Ids.found(format!(
                    "after entry {} of {} the row {} has {:?}, and the writes in the log come to {}",
                    entry.stamp,
                    after.id,
                    name.escape_ascii(),
                    found.map(|row| row.content),
                    meaning.told()
                ))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use latitude_range::Element;

    use super::super::deltas::tests::delta;
    use super::*;

    fn row(content: Content, version: WriteTime) -> ValueRow {
        let (stamp, past) = (Stamp::ZERO, latitude_types::Past::default());
        ValueRow { stamp, ordinal: 0, version, content, extensions: vec![], past }
    }

    fn is(meaning: &Meaning, content: Content, version: WriteTime) -> bool {
        meaning.is(Some(&row(content, version)), Stamp::ZERO)
    }

    #[test]
    fn a_register_is_what_the_largest_time_left() {
        let mut meaning = Meaning::of(ValueType::Register);
        let (old, new) = (delta(1, 10), delta(1, 20));
        meaning.fold(&new);
        meaning.fold(&old);
        let value = Content::Plain(Bytes::from_static(b"v"));
        assert!(is(&meaning, value.clone(), new.time()));
        assert!(!is(&meaning, value.clone(), old.time()));
        let mut deletes = delta(1, 30);
        deletes.op = Op::Delete;
        meaning.fold(&deletes);
        assert!(is(&meaning, Content::Deleted, deletes.time()));
        assert!(!meaning.is(None, Stamp::ZERO), "its record went too early");
        assert!(!is(&meaning, value, new.time()));
    }

    #[test]
    fn a_counter_counts_each_id_once() {
        let mut meaning = Meaning::of(ValueType::Counter);
        let mut add = delta(1, 10);
        add.op = Op::Add { amount: 3 };
        meaning.fold(&add);
        // Sent again to another node.
        meaning.fold(&Delta { origin: latitude_types::NodeId(2), ..add.clone() });
        assert!(is(&meaning, Content::Counter(3), add.time()));
        assert!(!is(&meaning, Content::Counter(6), add.time()));
        let added = |sum| Done::Added { version: add.time(), sum };
        assert!(meaning.is_answered(&added(3)) && !meaning.is_answered(&added(4)));
        assert!(!meaning.is_answered(&Done::OutOfBounds { found: 2 }));
        let late = delta(1, 20);
        let reset = |op| Delta { op, named: vec![late.id], ..delta(2, 30) };
        meaning.fold(&reset(Op::Reset));
        assert!(is(&meaning, Content::Counter(0), add.time()));
        meaning.fold(&Delta { op: Op::Add { amount: 5 }, ..late.clone() });
        assert!(is(&meaning, Content::Counter(0), add.time()), "it was ended before it came");
        meaning.fold(&reset(Op::Delete));
        assert!(is(&meaning, Content::Deleted, add.time()) && meaning.is(None, Stamp::ZERO));
    }

    #[test]
    fn a_set_has_what_was_added_and_is_named_by_no_copy_of_a_remove() {
        let element = |id: &Delta| {
            let name = Bytes::from_static(b"e");
            Content::Live(vec![Element { id: id.id, logged: None, name, value: Bytes::new() }])
        };
        let add =
            |at| Delta { op: Op::SetAdd { element: Bytes::from_static(b"e") }, ..delta(1, at) };
        let (a, b) = (add(10), add(20));
        let remove = |named: &[&Delta]| Delta {
            op: Op::SetRemove { element: Bytes::from_static(b"e") },
            named: named.iter().map(|delta| delta.id).collect(),
            ..delta(2, 30)
        };
        let mut meaning = Meaning::of(ValueType::Set);
        meaning.fold(&remove(&[&a]));
        meaning.fold(&a);
        assert!(meaning.is(None, Stamp::ZERO), "it was removed before it came");
        meaning.fold(&b);
        assert!(is(&meaning, element(&b), b.time()));
        meaning.fold(&remove(&[&a, &b]));
        assert!(is(&meaning, Content::Deleted, b.time()) && !is(&meaning, element(&b), b.time()));
    }
}

//! What a reader sees of a state, and what a writer who saw it names.

use bytes::Bytes;
use crdts::LWWReg;
use latitude_types::{OperationId, OperationKind, WriteTime};

use crate::{Content, Element, Ids, MergeError, Op, State, Transient, ValueType, Write};

/// How many of the ids it sees of a set's element, or of a flag, an add leaves alone.
///
/// Naming them all would lose adds: *c* and *b* add an element, *b* is retried at a node that sees *c* and
/// hence ends it, and someone who knows only the first copy of *b* removes that. No remover knew of *c*,
/// and the element is gone. With some left alone, that remover must have known all of these and still
/// not the older one. What it takes is a few ids for an element that is added over and over.
///
/// Of 1,000,000 random histories full of retries (`tests/histories`) some 4,000 lose an add with 0, 10 with
/// 3, one with 5, none with 7.
pub const SEEN_KEPT: usize = 7;

/// The same for a field of a map. Fewer, because each keeps its value: 2 of the 1,000,000 lose a put.
pub const SEEN_KEPT_OF_FIELD: usize = 3;

/// A key's value, as a reader gets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A register's bytes; `None` if the key does not exist.
    Register(Option<Bytes>),
    /// All values written unseen of each other, by id; none if the key does not exist.
    Siblings(Vec<Sibling>),
    /// A counter's sum, at the ends of its range if it lies beyond them; `None` if the key does not exist.
    Counter(Option<i64>),
    /// A set's elements in order; an empty set does not exist.
    Set(Vec<Bytes>),
    /// A map's fields in order, each with its value; an empty map does not exist.
    Map(Vec<(Bytes, Bytes)>),
    /// Whether a flag is on.
    Flag(bool),
}

/// One of several values written unseen of each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// The write that made it. The ids of the siblings a client read are the context of its next write.
    pub id: OperationId,
    /// The time of that write.
    pub time: WriteTime,
    /// Its value.
    pub value: Bytes,
}

impl State {
    /// The state that a reader of deltas sees: this one, of the base, with the deltas merged into it. Their
    /// order does not matter, and the base and its ids stay as they are.
    ///
    /// # Errors
    /// As [`State::merge`].
    pub fn with_deltas<'w, I: Ids>(
        &self,
        value_type: ValueType,
        ids: &I,
        deltas: impl IntoIterator<Item = Write<'w>>,
    ) -> Result<State, MergeError<I::Error>> {
        let mut state = self.clone();
        let mut ids = Transient::new(ids);
        for delta in deltas {
            state.merge(value_type, &delta, &mut ids)?;
        }
        Ok(state)
    }

    /// What a reader gets.
    pub fn value(&self, value_type: ValueType) -> Value {
        let live = self.elements();
        match value_type {
            ValueType::Register => Value::Register(match &self.content {
                Content::Plain(value) => Some(value.clone()),
                _ => None,
            }),
            ValueType::Counter => Value::Counter(match self.content {
                Content::Counter(sum) => Some(saturated(sum)),
                _ => None,
            }),
            ValueType::Siblings => Value::Siblings(live.iter().map(sibling).collect()),
            ValueType::Set => Value::Set(by_name(live).map(|of| of[0].name.clone()).collect()),
            ValueType::Map => Value::Map(
                by_name(live).map(|of| (of[0].name.clone(), winner(of).clone())).collect(),
            ),
            ValueType::Flag => Value::Flag(!live.is_empty()),
        }
    }

    /// The live elements; none for registers and counters.
    pub fn elements(&self) -> &[Element] {
        match &self.content {
            Content::Live(elements) => elements,
            Content::Deleted | Content::Plain(_) | Content::Counter(_) => &[],
        }
    }

    /// The ids that a write names, if this state is what its node sees.
    ///
    /// - One that removes (remove, delete, disable): everything seen of what it is about.
    /// - A local one that adds to a set, a map or a flag: what it takes the place of, so that live ids stay
    ///   few. That is what is seen of the same element or field and older than the write itself, except
    ///   for the newest ([`SEEN_KEPT`], [`SEEN_KEPT_OF_FIELD`]). What is
    ///   younger stays: in a map it is the one that readers see.
    /// - A log write that adds: nothing, it ends what the base holds at its place.
    /// - A put of siblings: nothing. Its client says what it read. A delete of siblings with a context
    ///   names that context instead of what is returned here.
    pub fn named_by(&self, id: &OperationId, op: &Op) -> Vec<OperationId> {
        let of_same_name = |element: &&Element| element.name == *op.name_of_element();
        let live = self.elements().iter();
        match op {
            Op::Delete | Op::Disable => live.map(|element| element.id).collect(),
            Op::SetRemove { .. } | Op::MapRemove { .. } => {
                live.filter(of_same_name).map(|element| element.id).collect()
            }
            Op::SetAdd { .. } | Op::MapPut { .. } | Op::Enable
                if id.kind == OperationKind::Local =>
            {
                let mut seen: Vec<_> =
                    live.filter(of_same_name).map(|element| (element.time(), element.id)).collect();
                seen.sort();
                let kept = match op {
                    Op::MapPut { .. } => SEEN_KEPT_OF_FIELD,
                    _ => SEEN_KEPT,
                };
                seen.truncate(seen.len().saturating_sub(kept));
                let time = WriteTime::of_local_write(id);
                seen.retain(|(seen, _)| *seen < time);
                seen.into_iter().map(|(_, id)| id).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// As the 64-bit number readers get.
pub(crate) fn saturated(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}

fn sibling(element: &Element) -> Sibling {
    Sibling { id: element.id, time: element.time(), value: element.value.clone() }
}

/// The elements in groups of one name each, which lie together.
pub(crate) fn by_name(live: &[Element]) -> impl Iterator<Item = &[Element]> {
    live.chunk_by(|a, b| a.name == b.name)
}

/// The value of a field: it is a register of the values in it.
fn winner(of: &[Element]) -> &Bytes {
    let mut field = LWWReg { val: &of[0].value, marker: of[0].time() };
    for element in of {
        field.update(&element.value, element.time());
    }
    field.val
}

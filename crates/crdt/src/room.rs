//! How much one key holds.
//!
//! A value goes whole into every answer, and is written anew for each change of it. So a key takes only so much. It is no
//! invariant: nodes that do not hear of each other each take what they see room for, and what was taken is merged
//! whatever it comes to.
//!
//! What counts is what readers get. Of an element or a field several copies may be live ([`SEEN_KEPT`]), and were they to count,
//! a key could be too full for a change of what is in it.
//!
//! [`SEEN_KEPT`]: crate::SEEN_KEPT

use latitude_types::OperationId;

use crate::value::by_name;
use crate::{Element, Op, State, ValueType};

/// A key that holds more than this of siblings, elements or fields, in bytes with their ids, takes no more of them.
/// Below it takes another one, whatever its length.
pub const CONTENT_LEN_MAX: usize = 4 << 20;

/// What an element takes beside its name and value, about: its id, and its place in the log.
const ELEMENT_LEN: usize = 48;

impl State {
    /// Whether the key has room for what a write adds, which takes the place of the siblings it names, or of the element
    /// or field that it is about.
    ///
    /// A write that adds nothing always has; so has one after which the key holds no more than before.
    pub fn has_room_for(&self, value_type: ValueType, op: &Op, named: &[OperationId]) -> bool {
        let added = match op {
            Op::Put { value } => value.len(),
            Op::SetAdd { element } => element.len(),
            Op::MapPut { field, value } => field.len() + value.len(),
            _ => return true,
        };
        let stays = |element: &Element| match value_type {
            ValueType::Siblings => !named.contains(&element.id),
            _ => element.name != *op.name_of_element(),
        };
        let shown = self.shown_len(value_type, |_| true);
        if shown <= CONTENT_LEN_MAX {
            return true;
        }
        let left = self.shown_len(value_type, stays);
        left <= CONTENT_LEN_MAX || left + ELEMENT_LEN + added <= shown
    }

    /// How long what readers get of some elements is.
    fn shown_len(&self, value_type: ValueType, of: impl Fn(&Element) -> bool) -> usize {
        let len = |element: &Element| ELEMENT_LEN + element.name.len() + element.value.len();
        let live = self.elements();
        if value_type == ValueType::Siblings {
            return live.iter().filter(|element| of(element)).map(len).sum();
        }
        // Which copy is shown makes no difference worth looking for: the longest counts.
        let longest = |copies: &[Element]| copies.iter().map(len).max().unwrap_or_default();
        by_name(live).filter(|copies| of(&copies[0])).map(longest).sum()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use latitude_types::{ClientId, OperationKind, Timestamp};

    use super::*;
    use crate::Content;

    fn id(sequence: u64) -> OperationId {
        let (birth, client) = (Timestamp::from_ms(1), ClientId([1; 16]));
        OperationId { birth, client, sequence, kind: OperationKind::Local }
    }

    /// A state of elements with these names and lengths of values.
    fn state(of: &[(&'static str, usize)]) -> State {
        let element = |(sequence, (name, len)): (u64, &(&'static str, usize))| Element {
            id: id(sequence),
            logged: None,
            name: Bytes::from_static(name.as_bytes()),
            value: vec![0; *len].into(),
        };
        State { version: None, content: Content::Live((0..).zip(of).map(element).collect()) }
    }

    fn put(field: &'static str, len: usize) -> Op {
        Op::MapPut { field: Bytes::from_static(field.as_bytes()), value: vec![0; len].into() }
    }

    fn map_has_room(state: &State, op: &Op) -> bool {
        state.has_room_for(ValueType::Map, op, &[])
    }

    #[test]
    fn a_full_map_takes_what_makes_it_less_than_full_or_no_longer() {
        let full = state(&[("a", CONTENT_LEN_MAX), ("b", 10), ("c", 20)]);
        assert!(!map_has_room(&full, &put("d", 0)));
        assert!(map_has_room(&full, &put("a", CONTENT_LEN_MAX)), "then it is less than full");
        assert!(map_has_room(&full, &put("b", 10)), "it is no longer then");
        assert!(!map_has_room(&full, &put("b", 11)));
        for op in [Op::Delete, Op::MapRemove { field: Bytes::from_static(b"d") }] {
            assert!(map_has_room(&full, &op), "{op:?}");
        }
    }

    /// Found by reading: with every copy counted, a field that was written a few times was too long to be written again.
    #[test]
    fn copies_that_nobody_is_shown_take_no_room() {
        let mib = CONTENT_LEN_MAX / 4;
        let often =
            state(&[("a", mib), ("a", mib), ("a", mib), ("a", mib), ("b", mib), ("b", mib)]);
        for field in ["a", "b", "c"] {
            assert!(map_has_room(&often, &put(field, mib)), "{field}");
        }
        let long = state(&[("a", CONTENT_LEN_MAX + 1)]);
        assert!(map_has_room(&long, &put("a", CONTENT_LEN_MAX + 1)));
        assert!(!map_has_room(&long, &put("b", 0)));
    }

    #[test]
    fn siblings_make_room_by_what_their_client_has_read() {
        let full = state(&[("", CONTENT_LEN_MAX), ("", 10)]);
        let op = Op::Put { value: Bytes::from_static(b"a new one") };
        for (named, has_room) in [(vec![], false), (vec![id(1)], true), (vec![id(0)], true)] {
            assert_eq!(full.has_room_for(ValueType::Siblings, &op, &named), has_room, "{named:?}");
        }
        let longer = Op::Put { value: vec![0; 11].into() };
        assert!(!full.has_room_for(ValueType::Siblings, &longer, &[id(1)]));
    }

    #[test]
    fn below_its_most_a_key_takes_one_more_and_small_elements_count_with_their_ids() {
        assert!(map_has_room(&State::default(), &put("z", CONTENT_LEN_MAX)));
        assert!(map_has_room(&state(&[("a", CONTENT_LEN_MAX - ELEMENT_LEN - 1)]), &put("z", 0)));
        assert!(!map_has_room(&state(&[("a", CONTENT_LEN_MAX - ELEMENT_LEN)]), &put("z", 0)));
        let count = (CONTENT_LEN_MAX / (ELEMENT_LEN + 4) + 1) as u32;
        let element = |at: u32| Element {
            id: id(at.into()),
            logged: None,
            name: Bytes::copy_from_slice(&at.to_be_bytes()),
            value: Bytes::new(),
        };
        let many = Content::Live((0..count).map(element).collect());
        let many = State { version: None, content: many };
        let add = |name: u32| Op::SetAdd { element: Bytes::copy_from_slice(&name.to_be_bytes()) };
        assert!(!many.has_room_for(ValueType::Set, &add(count), &[]));
        assert!(many.has_room_for(ValueType::Set, &add(0), &[]), "it is in there");
    }
}

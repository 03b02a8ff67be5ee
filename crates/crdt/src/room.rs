//! How much one key holds.
//!
//! A value goes whole into every answer, and is written anew for each change of it. So a key takes only so much. It is no
//! invariant: nodes that do not hear of each other each take what they see room for, and what was taken is merged
//! whatever it comes to.

use latitude_types::{OperationId, OperationKind};

use crate::{Element, Op, State};

/// A key that holds more than this of siblings, elements or fields, in bytes with their ids, takes no more of them.
/// Below it takes another one, whatever its length.
pub const CONTENT_LEN_MAX: usize = 4 << 20;

/// What an element takes beside its name and value, about: its id, and its place in the log.
const ELEMENT_LEN: usize = 48;

impl State {
    /// Whether the key has room for what a write of this kind adds, which names these ids, beside what it leaves there.
    ///
    /// What only ends something always has; so has whatever goes in the place of the most of what is there.
    pub fn has_room_for(&self, kind: OperationKind, op: &Op, named: &[OperationId]) -> bool {
        let adds = matches!(op, Op::Put { .. } | Op::SetAdd { .. } | Op::MapPut { .. });
        if !adds || len(self.elements()) <= CONTENT_LEN_MAX {
            return true;
        }
        // Through the log it ends all that is there of its element or field.
        let name = op.name_of_element();
        let ends_name = kind == OperationKind::Log && !name.is_empty();
        let stays = |element: &&Element| {
            let ends = ends_name && element.name == *name;
            !ends && !named.contains(&element.id)
        };
        len(self.elements().iter().filter(stays)) <= CONTENT_LEN_MAX
    }
}

fn len<'e>(elements: impl IntoIterator<Item = &'e Element>) -> usize {
    let len = |element: &Element| ELEMENT_LEN + element.name.len() + element.value.len();
    elements.into_iter().map(len).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use latitude_types::OperationKind::{Local, Log};
    use latitude_types::{ClientId, Timestamp};

    use super::*;
    use crate::Content;

    fn id(sequence: u64) -> OperationId {
        let (birth, client) = (Timestamp::from_ms(1), ClientId([1; 16]));
        OperationId { birth, client, sequence, kind: Local }
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

    fn put(field: &'static str) -> Op {
        Op::MapPut { field: Bytes::from_static(field.as_bytes()), value: Bytes::new() }
    }

    #[test]
    fn a_full_key_takes_what_ends_something_and_what_leaves_it_less_than_full() {
        let full = state(&[("a", CONTENT_LEN_MAX), ("b", 10)]);
        let local = |op: &Op, named: &[OperationId]| full.has_room_for(Local, op, named);
        assert!(!local(&put("b"), &[]));
        assert!(!local(&put("b"), &[id(1)]), "what goes is not enough");
        assert!(local(&put("a"), &[id(0)]));
        assert!(!local(&put("a"), &[]), "it leaves the one that is there, unseen");
        let log = |op: &Op| full.has_room_for(Log, op, &[]);
        assert!(log(&put("a")));
        assert!(!log(&put("b")));
        for op in [Op::Delete, Op::MapRemove { field: Bytes::from_static(b"b") }] {
            assert!(local(&op, &[]) && log(&op), "{op:?}");
        }
    }

    #[test]
    fn siblings_make_room_by_what_their_client_has_read() {
        let full = state(&[("", CONTENT_LEN_MAX), ("", 10)]);
        let op = Op::Put { value: Bytes::new() };
        for (named, has_room) in [(vec![], false), (vec![id(1)], false), (vec![id(0)], true)] {
            assert_eq!(full.has_room_for(Local, &op, &named), has_room);
            assert_eq!(full.has_room_for(Log, &op, &named), has_room);
        }
    }

    #[test]
    fn below_its_most_a_key_takes_one_more_and_small_elements_count_with_their_ids() {
        let has_room = |state: &State| state.has_room_for(Local, &put("z"), &[]);
        assert!(has_room(&State::default()));
        assert!(has_room(&state(&[("a", CONTENT_LEN_MAX - ELEMENT_LEN - 1)])));
        assert!(!has_room(&state(&[("a", CONTENT_LEN_MAX - ELEMENT_LEN)])));
        let many = vec![("a", 0); CONTENT_LEN_MAX / (ELEMENT_LEN + 1) + 1];
        assert!(!has_room(&state(&many)));
    }
}

//! The base of the key, under the rules of the crate or with one of them broken.

use std::collections::BTreeMap;
use std::convert::Infallible;

use latitude_crdt::{
    Content, Element, Fate, Horizon, Ids, LogPlace, MergeError, Outcome, State, ValueType, Write,
};
use latitude_types::{ClientId, OperationId, OperationKind, Stamp, Timestamp};

use crate::world::{Delta, Entry, NODES};

/// The rules in force: those of the crate, or with one of them broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rules {
    Right,
    /// An id ended before it is met is not remembered.
    ForgetSpent,
    /// An id that took effect is not remembered.
    ForgetTaken,
    /// The second copy of a write is skipped whole, with what it ends (the old rule of B7).
    SkipCopies,
    /// The base keeps which elements there are, without their ids (finding 5).
    DropDots,
    /// Rows of ids go once all is folded up to their birth, not ten minutes later.
    DropIdsEarly,
    /// The origin that is folded least is not waited for.
    WithoutIdle,
    /// Records of deleted keys go at once (finding 16).
    DropDeletedEarly,
    /// An add takes the place of everything its node sees of the element.
    NameAllSeen,
}

/// What the log makes of the key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Base {
    pub(crate) state: State,
    pub(crate) ids: BTreeMap<OperationId, Fate>,
    pub(crate) folded: [Timestamp; NODES],
    last_stamp: Stamp,
    /// A deleted key's record went at some time, and its version with it.
    pub(crate) dropped: bool,
    row_stamp: Stamp,
}

/// The ids as the rules in force keep them.
struct Kept<'a, I> {
    rules: Rules,
    ids: &'a mut I,
}

impl<I: Ids> Ids for Kept<'_, I> {
    type Error = I::Error;

    fn fate(&self, id: &OperationId) -> Result<Option<Fate>, I::Error> {
        self.ids.fate(id)
    }

    fn record(&mut self, id: &OperationId, fate: Fate) -> Result<(), I::Error> {
        match (self.rules, fate) {
            (Rules::ForgetSpent, Fate::Spent) | (Rules::ForgetTaken, Fate::TookEffect) => Ok(()),
            _ => self.ids.record(id, fate),
        }
    }
}

impl Rules {
    pub(crate) fn merge<I: Ids<Error = Infallible>>(
        self,
        value_type: ValueType,
        state: &mut State,
        write: &Write<'_>,
        ids: &mut I,
    ) -> Outcome {
        let known = ids.fate(write.id).unwrap_or_else(|never| match never {});
        if self == Self::SkipCopies && known == Some(Fate::TookEffect) {
            return Outcome::Duplicate;
        }
        let merged = state.merge(value_type, write, &mut Kept { rules: self, ids });
        match merged {
            Ok(outcome) => outcome,
            Err(MergeError::Ids(never)) => match never {},
            Err(error) => panic!("{error}"),
        }
    }
}

impl Base {
    /// Applies an entry, as the range does: the segment's deltas above F, or the write; then what may
    /// go, goes.
    pub(crate) fn apply(&mut self, rules: Rules, value_type: ValueType, entry: &Entry) {
        let before = self.state.clone();
        let stamp = match entry {
            Entry::Fold { stamp, origin, to, deltas } => {
                let folded = self.folded[*origin];
                for delta in deltas.iter().filter(|delta| delta.position > folded) {
                    self.fold(rules, value_type, delta);
                }
                self.folded[*origin] = folded.max(*to);
                *stamp
            }
            Entry::Write { stamp, id, op, named } => {
                let at = LogPlace { stamp: *stamp, ordinal: 0 };
                let write = Write::log(id, at, op, named);
                rules.merge(value_type, &mut self.state, &write, &mut self.ids);
                *stamp
            }
        };
        self.last_stamp = stamp;
        if rules == Rules::DropDots {
            self.drop_dots();
        }
        if self.state != before {
            self.row_stamp = stamp;
        }
        let horizon = self.horizon(rules);
        let least = self.folded.iter().fold(self.last_stamp.time, |a, b| a.min(*b));
        self.ids.retain(|id, _| match rules {
            Rules::DropIdsEarly => least < id.birth,
            _ => !horizon.id_may_go(id.birth),
        });
        let may_go = match rules {
            Rules::DropDeletedEarly => true,
            _ => horizon.deleted_may_go(self.row_stamp),
        };
        if may_go && !self.state.exists() && self.state.version.is_some() {
            self.state = State::default();
            self.dropped = true;
        }
    }

    fn horizon(&self, rules: Rules) -> Horizon {
        let mut folded = self.folded;
        folded.sort();
        let least = usize::from(rules == Rules::WithoutIdle);
        Horizon::new(self.last_stamp, folded[least..].iter().copied())
    }

    pub(crate) fn fold(&mut self, rules: Rules, value_type: ValueType, delta: &Delta) {
        let mut delta = delta.clone();
        if rules == Rules::DropDots && !delta.named.is_empty() {
            delta.named.push(dotless());
        }
        rules.merge(value_type, &mut self.state, &delta.write(), &mut self.ids);
        if rules == Rules::DropDots {
            self.ids.remove(&dotless());
        }
    }

    /// One element of each name is left, under an id that says nothing.
    fn drop_dots(&mut self) {
        if let Content::Live(elements) = &mut self.state.content {
            elements.dedup_by(|a, b| a.name == b.name);
            for Element { id, .. } in elements {
                *id = dotless();
            }
        }
    }
}

fn dotless() -> OperationId {
    OperationId {
        birth: Timestamp::ZERO,
        client: ClientId([0; 16]),
        sequence: 0,
        kind: OperationKind::Log,
    }
}

//! Dropping what is kept against latecomers alone, once none can come; and what pasts name that is stable.
//!
//! ```text
//!   ‹key› value          deleted long enough ago? gone, its stamp and past go to the range (gc_stamp, gc_past)
//!                        else its past loses what is stable
//!   ‹key› id id id│id …  oldest births first: gone, up to the first that must stay; then the next key
//! ```
//!
//! A sweep is an entry of the log, so that every replica drops the same at the same place (INV-9), and it is
//! bounded: a key may have very many ids. When what may go is said by [`Horizon`], from the entry's stamp and
//! how far the origins are folded there.
//!
//! Ids and deleted records go each by themselves: an id says that no copy of its write may have an effect,
//! a record says what was deleted when. Neither rests on the other.
//!
//! The stamp of a row is never changed here, nor its version or value: no read at any level can tell, but by the
//! version of a key that does not exist, which no client is told.

use std::collections::BTreeMap;

use latitude_crdt::Horizon;
use latitude_storage::key::base::{self, RowKind};
use latitude_types::{
    Key, KeySpan, NodeId, OPERATION_ID_LIFETIME, Past, Positions, Stamp, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::codec::DecodeError;
use crate::meta::{OriginState, RangeMeta};
use crate::range::ApplyError;
use crate::row::ValueRow;
use crate::staged::Staged;

/// A row counts once, and once more for every so many bytes. What an entry drops depends on it, so it is part of
/// the format.
const BYTES_OF_WORK: usize = 1024;

/// Which rows of a range are looked at, and how many.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sweep {
    /// Of these keys.
    pub span: KeySpan,
    /// Of the first key only ids, and only those born at or after this: its other rows were looked at before.
    pub ids_from: Option<Timestamp>,
    /// So many rows, where one counts more the larger it is; at least one.
    pub work_max: u32,
    /// What every node shows of each origin's stream: pasts name it no more. Nothing is dropped of them if it is
    /// empty.
    pub stable: Positions,
}

/// What a sweep finds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Looked {
    changes: Vec<Change>,
    kept: Kept,
    next: Option<(Key, Option<Timestamp>)>,
}

/// What of the rows looked at stays only for its time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// Once every origin is folded up to here, and the last stamp is there, something more may go.
    pub due: Option<Timestamp>,
    /// Of each origin the least position that a past names: once it is stable, something more may go.
    pub seen: BTreeMap<NodeId, Timestamp>,
}

/// What becomes of a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// No copy of the operation can come any more.
    Id { row: Vec<u8> },
    /// Nothing older than the deletion can come any more.
    Deleted { row: Vec<u8>, stamp: Stamp, past: Past },
    /// The same, with less of a past.
    Shortened { row: Vec<u8>, value: Vec<u8> },
}

impl Looked {
    /// How many rows change.
    pub fn changes(&self) -> usize {
        self.changes.len()
    }

    /// What stays, for its time.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Where to go on, if there was more than was to be looked at: with this key, or with its ids from that birth.
    pub fn next(&self) -> Option<&(Key, Option<Timestamp>)> {
        self.next.as_ref()
    }

    #[cfg(test)]
    pub(crate) fn for_tests(kept: Kept, next: Option<(Key, Option<Timestamp>)>) -> Self {
        Self { changes: Vec::new(), kept, next }
    }

    pub(crate) fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}

impl Kept {
    /// What either keeps.
    pub fn join(&mut self, other: &Self) {
        other.due.iter().for_each(|due| self.note_due(*due));
        other.seen.iter().for_each(|(node, position)| self.note_seen(*node, *position));
    }

    fn note_due(&mut self, due: Timestamp) {
        self.due = Some(self.due.map_or(due, |known| known.min(due)));
    }

    fn note_seen(&mut self, node: NodeId, position: Timestamp) {
        let known = self.seen.entry(node).or_insert(position);
        *known = position.min(*known);
    }
}

/// How far a range is done with the past, if its last stamp has this time.
fn horizon(meta: &RangeMeta, now: Timestamp) -> Horizon {
    // Of one that is sealed everything is folded, and nothing can come.
    let origins = meta.origins.iter().filter(|origin| origin.state != OriginState::Sealed);
    let last = Stamp { time: now, ..meta.last_stamp };
    Horizon::new(last, origins.map(|origin| origin.folded))
}

/// Looks at the rows that a sweep names, as a base with this metadata has them, at this time.
pub(crate) fn look(
    meta: &RangeMeta,
    now: Timestamp,
    sweep: &Sweep,
    base: &Staged<'_>,
) -> Result<Looked, ApplyError> {
    let mut looked = Looked::default();
    let Some(span) = sweep.span.intersection(&meta.span) else { return Ok(looked) };
    let horizon = horizon(meta, now);
    let mut rest = base::value_span(meta.keyspace, &span);
    let first = Key::new(span.start()).ok().filter(|_| span.start() == sweep.span.start());
    if let (Some(birth), Some(first)) = (sweep.ids_from, first) {
        rest.start = base::id_span_from(meta.keyspace, &first, birth).start;
    }
    let mut work = 0;
    'rows: loop {
        let mut beyond = None;
        for found in base.scan(rest.clone()) {
            let (row_key, row) = found?;
            let base::Row { key, kind, .. } =
                base::decode(&row_key).ok_or_else(|| DecodeError::Damaged {
                    what: "key of a row",
                    message: "it is none of this version's".into(),
                })?;
            let birth = match kind {
                RowKind::Value => None,
                RowKind::Id(id) => Some(id.birth),
            };
            if work >= sweep.work_max.max(1) as usize {
                looked.next = Some((key, birth));
                break 'rows;
            }
            work += 1 + row.len() / BYTES_OF_WORK;
            match birth {
                None => looked.at_value(&horizon, &sweep.stable, &row_key, &row)?,
                Some(birth) if horizon.id_may_go(birth) => {
                    looked.changes.push(Change::Id { row: row_key.to_vec() });
                }
                Some(birth) => {
                    // The others of the key are younger.
                    looked.kept.note_due(may_go_at(birth));
                    beyond = Some(base::id_span(meta.keyspace, &key).end);
                    break;
                }
            }
        }
        match beyond {
            Some(beyond) => rest.start = beyond,
            None => break,
        }
    }
    Ok(looked)
}

/// When what is kept because of this time may go.
fn may_go_at(time: Timestamp) -> Timestamp {
    time.plus_ms(OPERATION_ID_LIFETIME.as_millis() as u64)
}

impl Looked {
    fn at_value(
        &mut self,
        horizon: &Horizon,
        stable: &Positions,
        row_key: &[u8],
        row: &[u8],
    ) -> Result<(), ApplyError> {
        let mut value = ValueRow::decode(row)?;
        if !value.exists() {
            if horizon.deleted_may_go(value.stamp) {
                let row = row_key.to_vec();
                self.changes.push(Change::Deleted { row, stamp: value.stamp, past: value.past });
                return Ok(());
            }
            self.kept.note_due(may_go_at(value.stamp.time));
        }
        if value.past.seen.drop_up_to(stable) {
            let row = row_key.to_vec();
            self.changes.push(Change::Shortened { row, value: value.encode() });
        }
        let left = &value.past.seen.by_node;
        left.iter().for_each(|(node, position)| self.kept.note_seen(*node, *position));
        Ok(())
    }
}

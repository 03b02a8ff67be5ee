//! Writes into the rows of a key: log writes at their place, deltas that are folded.

use latitude_crdt::{
    Content, Element, Ids, LogPlace, MergeError, Op, Outcome, State, Value, ValueType, Write,
};
use latitude_probe::Plant;
use latitude_storage::key;
use latitude_types::{ClientId, Key, KeyspaceId, Past, WriteTime};

use crate::codec::DecodeError;
use crate::delta::Delta;
use crate::entry::Operation;
use crate::id_rows::StagedIds;
use crate::range::{ApplyError, Done, Refusal};
use crate::row::ValueRow;
use crate::staged::Staged;

/// Where in the log something is merged, and into what.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) value_type: ValueType,
    pub(crate) at: LogPlace,
}

/// What merging a write has come to.
enum Merged {
    /// The key's row, as it is now.
    Into(ValueRow),
    /// The condition did not hold; what was found follows this.
    Mismatch { found: Option<WriteTime>, past: Past },
    /// The sum would have been out of bounds; what was found follows this.
    OutOfBounds { found: i64, past: Past },
    /// The key holds as much as it may.
    Full,
}

impl Place {
    /// Applies a log write whose id is new and whose key is in the range: what it did, and what that follows, as far as it
    /// tells of what it found.
    pub(crate) fn log_write(
        &self,
        operation: &Operation,
        staged: &mut Staged<'_>,
    ) -> Result<Result<(Done, Past), Refusal>, ApplyError> {
        let Operation { id, key, op, named, past, .. } = operation;
        let write = Write::log(id, self.at, op, named);
        Ok(Ok(match self.merge(key, &write, past, staged)? {
            Merged::Full => return Ok(Err(Refusal::Full)),
            Merged::Mismatch { found, past } => (Done::Mismatch { found }, past),
            Merged::OutOfBounds { found, past } => (Done::OutOfBounds { found }, past),
            Merged::Into(row) => match op {
                Op::Add { .. } | Op::AddWithin { .. } => {
                    let sum = match row.read(self.value_type) {
                        Value::Counter(sum) => sum.unwrap_or_default(),
                        _ => 0,
                    };
                    (Done::Added { version: row.version, sum }, row.past)
                }
                // Whose condition held has learnt what was there.
                op if op.tells_what_it_found() => {
                    (Done::Written { version: row.version }, row.past)
                }
                _ => (Done::Written { version: row.version }, Past::default()),
            },
        }))
    }

    /// Takes a delta into the base.
    pub(crate) fn fold(&self, delta: &Delta, staged: &mut Staged<'_>) -> Result<(), ApplyError> {
        if Plant::RemoveSkipped.is_on() {
            let ids = StagedIds { staged, keyspace: self.keyspace, key: &delta.key };
            if ids.fate(&delta.id)?.is_some() {
                return Ok(());
            }
        }
        let mut write = delta.write();
        let mut id = delta.id;
        if Plant::CountedTwice.is_on() && matches!(delta.op, Op::Add { .. }) {
            id.sequence += u64::from(delta.origin.0) << 32;
            write.id = &id;
        }
        self.merge(&delta.key, &write, &delta.past, staged)?;
        Ok(())
    }

    fn merge(
        &self,
        key: &Key,
        write: &Write<'_>,
        past: &Past,
        staged: &mut Staged<'_>,
    ) -> Result<Merged, ApplyError> {
        let row_key = key::base::value_key(self.keyspace, key);
        let found = staged.get(&row_key)?.map(|row| ValueRow::decode(&row)).transpose()?;
        // Moved, not cloned: a set may be large.
        let (mut state, found) = match found {
            None => (State::default(), None),
            Some(ValueRow { version, content, past, .. }) => {
                (State { version: Some(version), content }, Some(past))
            }
        };
        // What was taken locally is in, whatever it comes to.
        if write.logged.is_some() && !state.has_room_for(self.value_type, write.op, write.named) {
            return Ok(Merged::Full);
        }
        let mut ids = StagedIds { staged, keyspace: self.keyspace, key };
        let outcome = state.merge(self.value_type, write, &mut ids).map_err(into_apply_error)?;
        match outcome {
            Outcome::Mismatch { found: version } => {
                return Ok(Merged::Mismatch { found: version, past: found.unwrap_or_default() });
            }
            Outcome::OutOfBounds { found: sum } => {
                return Ok(Merged::OutOfBounds { found: sum, past: found.unwrap_or_default() });
            }
            Outcome::Applied { .. } | Outcome::Duplicate => {}
        }
        if let Content::Live(elements) = &mut state.content
            && Plant::LiveIdsDropped.is_on()
        {
            let folded = |element: &Element| element.logged.is_none();
            for element in elements.iter_mut().filter(|element| folded(element)) {
                element.id.client = ClientId::default();
            }
            elements.dedup_by(|a, b| folded(a) && folded(b) && a.name == b.name);
        }
        let mut followed = past.clone();
        // What a register held before it was overwritten blindly through the log is followed no more: its reader stands
        // above the entry. Who overwrote it on a condition has seen it; and anything else holds, or may show again,
        // something of what was merged before.
        let overwritten = self.value_type == ValueType::Register
            && write.logged.is_some()
            && !matches!(write.op, Op::CompareAndSet { .. });
        if let Some(found) = found.filter(|_| !overwritten) {
            followed.join(&found);
        }
        let row = ValueRow {
            stamp: self.at.stamp,
            ordinal: self.at.ordinal,
            // It has one from the first write on.
            version: state.version.unwrap_or_else(|| write.time()),
            content: state.content,
            extensions: Vec::new(),
            past: followed,
        };
        match row.content == Content::Deleted && Plant::TombstoneEarly.is_on() {
            true => staged.delete(row_key),
            false => staged.put(row_key, row.encode()),
        }
        Ok(Merged::Into(row))
    }
}

/// Whatever merging fails with but the store is damage: requests are checked before they are taken.
pub(crate) fn into_apply_error(error: MergeError<ApplyError>) -> ApplyError {
    match error {
        MergeError::Ids(error) => error,
        MergeError::Misfit(_) | MergeError::Content(_) => {
            ApplyError::Decode(DecodeError::Damaged { what: "write", message: error.to_string() })
        }
    }
}

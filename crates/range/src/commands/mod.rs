//! The operations, one to a file: each reads what it must and says what it did.

mod compare_and_set;
mod delete;
mod put;

use bytes::Bytes;
use latitude_storage::key;
use latitude_types::{Key, KeyspaceId, Past, Stamp, WriteTime};

use crate::delta::Delta;
use crate::entry::{Op, Operation};
use crate::range::{ApplyError, Done};
use crate::row::{Content, ValueRow};
use crate::staged::Staged;

/// Where an operation stands in the log.
pub(crate) struct Place {
    pub(crate) keyspace: KeyspaceId,
    pub(crate) stamp: Stamp,
    pub(crate) ordinal: u32,
}

impl Place {
    /// The version a write here gives its key.
    fn version(&self) -> WriteTime {
        WriteTime::of_log_write(self.stamp, self.ordinal)
    }

    /// Writes the key's row.
    ///
    /// Without a look at the old one: a log write wins over whatever the base holds, because its stamp
    /// is above every stamp before it in this log (INV-3), and a local write in the base has a birth
    /// below its position, which is below the stamp of its fold.
    fn write(&self, key: &Key, content: Content, past: &Past, staged: &mut Staged<'_>) -> Done {
        let row = ValueRow {
            stamp: self.stamp,
            ordinal: self.ordinal,
            version: self.version(),
            content,
            extensions: Vec::new(),
            past: past.clone(),
        };
        staged.put(key::base::value_key(self.keyspace, key), row.encode());
        Done::Written { version: self.version() }
    }

    /// The key's value and its version, unless it does not exist.
    fn read(
        &self,
        key: &Key,
        staged: &Staged<'_>,
    ) -> Result<Option<(Bytes, WriteTime)>, ApplyError> {
        let Some(row) = staged.get(&key::base::value_key(self.keyspace, key))? else {
            return Ok(None);
        };
        let row = ValueRow::decode(&row)?;
        Ok(row.value().map(|value| (value.clone(), row.version)))
    }
}

/// Takes a delta into the base: the register's larger time wins, and what the value follows grows by what the
/// delta follows, also where it loses.
pub(crate) fn fold(
    place: &Place,
    delta: &Delta,
    staged: &mut Staged<'_>,
) -> Result<(), ApplyError> {
    let row_key = key::base::value_key(place.keyspace, &delta.key);
    let found = staged.get(&row_key)?.map(|row| ValueRow::decode(&row)).transpose()?;
    let content = match &delta.op {
        Op::Put { value } => Content::Plain(value.clone()),
        Op::Delete => Content::Deleted,
        Op::CompareAndSet { .. } => return Err(ApplyError::Unsupported("a local condition")),
    };
    let version = delta.time();
    let mut row = found.unwrap_or(ValueRow {
        stamp: place.stamp,
        ordinal: place.ordinal,
        version,
        content: content.clone(),
        extensions: Vec::new(),
        past: Past::default(),
    });
    if version > row.version {
        (row.version, row.content) = (version, content);
    }
    (row.stamp, row.ordinal) = (place.stamp, place.ordinal);
    row.past.join(&delta.past);
    staged.put(row_key, row.encode());
    Ok(())
}

/// Applies one operation whose id is new and whose key is in the range.
pub(crate) fn apply(
    place: &Place,
    operation: &Operation,
    staged: &mut Staged<'_>,
) -> Result<Done, ApplyError> {
    let Operation { key, op, past, .. } = operation;
    match op {
        Op::Put { value } => Ok(put::apply(place, key, value, past, staged)),
        Op::Delete => Ok(delete::apply(place, key, past, staged)),
        Op::CompareAndSet { expected, new_value } => {
            compare_and_set::apply(place, key, expected, new_value.as_ref(), past, staged)
        }
    }
}

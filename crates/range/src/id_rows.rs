//! The rows beside a key that say which local writes have taken effect in the base, and which were ended before
//! they came.

use latitude_crdt::{Fate, Ids};
use latitude_probe::Mark;
use latitude_storage::{Column, View, key};
use latitude_types::{Key, KeyspaceId, OperationId};

use crate::codec;
use crate::range::ApplyError;
use crate::staged::Staged;

const VERSION: u8 = 1;

/// Those beside one key, on top of which an entry is applied.
pub(crate) struct StagedIds<'s, 'v> {
    pub(crate) staged: &'s mut Staged<'v>,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: &'s Key,
}

impl Ids for StagedIds<'_, '_> {
    type Error = ApplyError;

    fn fate(&self, id: &OperationId) -> Result<Option<Fate>, ApplyError> {
        decode(self.staged.get(&key::base::id_key(self.keyspace, self.key, id))?.as_deref())
    }

    fn record(&mut self, id: &OperationId, fate: Fate) -> Result<(), ApplyError> {
        if fate == Fate::Spent {
            Mark::IdSpent.hit();
        }
        let row = key::base::id_key(self.keyspace, self.key, id);
        self.staged.put(row, codec::encode(VERSION, &fate));
        Ok(())
    }
}

/// Those beside one key, as a snapshot has them.
pub(crate) struct ReadIds<'a> {
    pub(crate) view: &'a dyn View,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) key: &'a Key,
}

impl Ids for ReadIds<'_> {
    type Error = ApplyError;

    fn fate(&self, id: &OperationId) -> Result<Option<Fate>, ApplyError> {
        let row = key::base::id_key(self.keyspace, self.key, id);
        decode(self.view.get(Column::Base, &row)?.as_deref())
    }

    fn record(&mut self, _: &OperationId, _: Fate) -> Result<(), ApplyError> {
        Err(ApplyError::Unsupported("a change to a snapshot"))
    }
}

fn decode(row: Option<&[u8]>) -> Result<Option<Fate>, ApplyError> {
    Ok(row.map(|row| codec::decode("row of an id", VERSION, row)).transpose()?)
}

//! Which replicas the store holds, and which directories may change that.
//!
//! The directory says which replicas a node is to have. A node does not keep it over a restart, and hears of it from
//! others that may have missed the latest, so it may begin a life with an older one than it has seen before:
//!
//! ```text
//!   entries of the meta range: ···── 90 ──···── 100: R is created ──···── 110: R is dropped ──···▶
//!                                    │                             │
//!                        says nothing of R,                        has R, whose rows were deleted
//!                        which may live here                       here if 110 was seen before
//! ```
//!
//! To delete R by the directory of 90 would lose what it has acknowledged; to make it anew by one below 110 would bring
//! it back empty, under an id that has voted. So the store notes the newest directory by which a replica was made or
//! deleted, in the same batch, and an older one changes nothing. Versions are indexes of the meta range's log, and
//! numbers of ranges are never used again: what a directory at or above the note lacks was dropped, and for ever.

use std::collections::BTreeMap;

use latitude_directory::Directory;
use latitude_storage::{Batch, Column, View, key};
use latitude_types::{Generation, NodeId, RangeId, ReplicaId};

use crate::identity::IdentityError;

/// The replicas a store holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Replicas {
    stored: BTreeMap<RangeId, ReplicaId>,
    /// The version of the newest directory by which they were changed; `None`: a version of Latitude that did not note
    /// it made them, so any of them may be newer than any directory.
    changed_by: Option<u64>,
}

impl Replicas {
    /// Reads the rows of the node `node`.
    pub(crate) fn load(view: &dyn View, node: NodeId) -> Result<Self, IdentityError> {
        let mut stored = BTreeMap::new();
        for row in view.scan(Column::Node, key::node::replicas().into()) {
            let (key, value) = row?;
            let range = key::node::decode_replica(&key);
            let generation = <[u8; 4]>::try_from(&value[..]).ok().map(u32::from_be_bytes);
            let (Some(range), Some(generation)) = (range, generation) else {
                return Err(IdentityError::Damaged("the record of a replica".into()));
            };
            stored.insert(range, ReplicaId { node, generation: Generation(generation) });
        }
        let changed_by = match view.get(Column::Node, &key::node::directory())? {
            None => None,
            Some(row) => {
                let damaged = || IdentityError::Damaged("the record of a directory".into());
                Some(u64::from_be_bytes(<[u8; 8]>::try_from(&row[..]).map_err(|_| damaged())?))
            }
        };
        Ok(Self { stored, changed_by })
    }

    /// Where no directory is noted yet, begins with one that lacks no replica, and so is not older than any; for a store
    /// without replicas that is whichever comes. `None`: there is nothing to write.
    pub(crate) fn begin_to_note(&mut self, directory: &Directory) -> Option<Batch> {
        let lacks_one = || self.stored.keys().any(|range| directory.range(*range).is_none());
        if self.changed_by.is_some() || lacks_one() {
            return None;
        }
        self.changed_by = Some(directory.version());
        let mut batch = Batch::new();
        self.stage_note(directory, &mut batch);
        Some(batch)
    }

    /// Whether a replica of the range is there.
    pub(crate) fn has(&self, range: RangeId) -> bool {
        self.stored.contains_key(&range)
    }

    /// Whether the replica is there.
    pub(crate) fn hold(&self, range: RangeId, replica: ReplicaId) -> bool {
        self.stored.get(&range) == Some(&replica)
    }

    /// Whether this directory may have replicas made that are not there: an older one does not know what was dropped.
    pub(crate) fn may_grow_by(&self, directory: &Directory) -> bool {
        self.changed_by.is_none_or(|noted| directory.version() >= noted)
    }

    /// The replicas of ranges that were dropped, as far as this directory can tell: an older one does not know what was
    /// created.
    pub(crate) fn dropped_in(&self, directory: &Directory) -> Vec<(RangeId, ReplicaId)> {
        if self.changed_by.is_none_or(|noted| directory.version() < noted) {
            return Vec::new();
        }
        let stored = self.stored.iter().map(|(range, replica)| (*range, *replica));
        stored.filter(|(range, _)| directory.range(*range).is_none()).collect()
    }

    /// Notes that a replica is made by this directory.
    pub(crate) fn stage_birth(
        &self,
        range: RangeId,
        replica: ReplicaId,
        directory: &Directory,
        batch: &mut Batch,
    ) {
        let generation = replica.generation.0.to_be_bytes().to_vec();
        batch.put(Column::Node, key::node::replica(range), generation);
        self.stage_note(directory, batch);
    }

    /// Notes that a replica is deleted by this directory.
    pub(crate) fn stage_end(&self, range: RangeId, directory: &Directory, batch: &mut Batch) {
        batch.delete(Column::Node, key::node::replica(range));
        self.stage_note(directory, batch);
    }

    fn stage_note(&self, directory: &Directory, batch: &mut Batch) {
        // Where it is not known how new the other replicas are, this would say that they are no newer.
        if self.changed_by.is_some() {
            let version = directory.version().to_be_bytes().to_vec();
            batch.put(Column::Node, key::node::directory(), version);
        }
    }
}

#[cfg(test)]
mod tests {
    use latitude_directory::{KeyspaceRecord, KeyspaceState, RangeRecord, key as directory_key};
    use latitude_range::ValueType;
    use latitude_storage::Engine;
    use latitude_storage::memory::{MemoryDisk, MemoryEngine};
    use latitude_types::{Epoch, KeySpan, KeyspaceId, Level};

    use super::*;

    const NODE: NodeId = NodeId(2);
    const OLD: RangeId = RangeId(2);
    const NEW: RangeId = RangeId(3);
    const REPLICA: ReplicaId = ReplicaId { node: NODE, generation: Generation(1) };

    fn record(id: RangeId, keyspace: KeyspaceId) -> RangeRecord {
        RangeRecord {
            id,
            epoch: Epoch(1),
            keyspace,
            span: KeySpan::all(),
            voters: vec![REPLICA],
            learners: Vec::new(),
            value_type: ValueType::Register,
            value_len_max: 1 << 20,
            log_only: false,
        }
    }

    /// The directory of an entry of the meta range, with these ranges, each of a keyspace of its own.
    fn directory(version: u64, ranges: &[RangeId]) -> Directory {
        let rows = ranges.iter().flat_map(|range| {
            let id = KeyspaceId(range.0 as u32);
            let keyspace = KeyspaceRecord {
                id,
                name: format!("k{id}"),
                state: KeyspaceState::Active,
                ranges: vec![*range],
                place: Vec::new(),
                learners: Vec::new(),
                value_type: ValueType::Register,
                default_level: Level::Strict,
                log_only: false,
                value_len_max: 1 << 20,
            };
            [
                (directory_key::keyspace(&keyspace.name), keyspace.encode()),
                (directory_key::range(*range), record(*range, id).encode()),
            ]
        });
        let rows: Vec<_> = rows.collect();
        let rows = rows.iter().map(|(key, value)| (key.as_bytes(), value.as_slice()));
        Directory::from_rows(version, record(RangeId::META, KeyspaceId::META), rows).unwrap()
    }

    struct Store(MemoryEngine);

    impl Store {
        fn new() -> Self {
            Self(MemoryEngine::open(&MemoryDisk::new()).unwrap())
        }

        /// The replicas as a node finds them that hears of this directory.
        fn replicas(&self, directory: &Directory) -> Replicas {
            let mut replicas = Replicas::load(&self.0, NODE).unwrap();
            if let Some(batch) = replicas.begin_to_note(directory) {
                self.0.write(batch).unwrap();
            }
            assert_eq!(Replicas::load(&self.0, NODE).unwrap(), replicas, "what is noted is read");
            replicas
        }

        fn bear(&self, range: RangeId, directory: &Directory) {
            let mut batch = Batch::new();
            self.replicas(directory).stage_birth(range, REPLICA, directory, &mut batch);
            self.0.write(batch).unwrap();
        }

        fn end(&self, range: RangeId, directory: &Directory) {
            let mut batch = Batch::new();
            self.replicas(directory).stage_end(range, directory, &mut batch);
            self.0.write(batch).unwrap();
        }

        /// As a version left it that noted no directories.
        fn forget(&self) {
            let mut batch = Batch::new();
            batch.delete(Column::Node, key::node::directory());
            self.0.write(batch).unwrap();
        }

        fn dropped_in(&self, directory: &Directory) -> Vec<RangeId> {
            let dropped = self.replicas(directory).dropped_in(directory);
            dropped.into_iter().map(|(range, _)| range).collect()
        }
    }

    #[test]
    fn a_replica_outlives_a_directory_from_before_its_birth_and_goes_by_a_later_one_that_lacks_it()
    {
        let store = Store::new();
        store.bear(RangeId::META, &directory(0, &[]));
        store.bear(OLD, &directory(80, &[OLD]));
        store.bear(NEW, &directory(100, &[OLD, NEW]));
        assert_eq!(store.dropped_in(&directory(0, &[])), []);
        assert_eq!(store.dropped_in(&directory(90, &[OLD])), []);
        assert_eq!(store.dropped_in(&directory(90, &[])), [], "nor is an older one gone by it");
        assert_eq!(store.dropped_in(&directory(100, &[OLD, NEW])), []);
        assert_eq!(store.dropped_in(&directory(101, &[OLD])), [NEW]);
        assert!(store.replicas(&directory(0, &[])).hold(NEW, REPLICA));
    }

    #[test]
    fn a_replica_that_is_gone_does_not_come_back_by_a_directory_from_before_that() {
        let store = Store::new();
        store.bear(NEW, &directory(100, &[NEW]));
        store.end(NEW, &directory(110, &[]));
        let may_grow_by = |directory: &Directory| store.replicas(directory).may_grow_by(directory);
        assert!(!store.replicas(&directory(0, &[])).hold(NEW, REPLICA));
        assert!(!may_grow_by(&directory(105, &[NEW])));
        assert!(may_grow_by(&directory(110, &[])));
    }

    #[test]
    fn where_nothing_was_noted_nothing_goes_before_a_directory_has_every_replica() {
        let store = Store::new();
        store.bear(OLD, &directory(80, &[OLD]));
        store.bear(NEW, &directory(100, &[OLD, NEW]));
        store.forget();
        let stale = directory(90, &[OLD]);
        assert_eq!(store.dropped_in(&stale), []);
        // What is made by such a directory does not make it new.
        assert!(store.replicas(&stale).may_grow_by(&stale));
        store.bear(RangeId(9), &stale);
        assert_eq!(store.dropped_in(&stale), []);
        assert_eq!(store.dropped_in(&directory(102, &[OLD, NEW, RangeId(9)])), []);
        assert_eq!(store.dropped_in(&stale), []);
        assert_eq!(store.dropped_in(&directory(103, &[OLD, RangeId(9)])), [NEW]);
    }
}

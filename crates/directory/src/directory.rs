//! All records together, and questions to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use latitude_types::{Epoch, Error, Key, KeySpan, KeyspaceId, NodeId, RangeId, Reason, ReplicaId};

use crate::record::{KeyspaceRecord, KeyspaceState, NodeRecord, RangeRecord, RecordError, key};

/// What the cluster consists of, as the meta range had it after one of its entries.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Directory {
    /// The index of that entry: the larger, the newer.
    version: u64,
    nodes: BTreeMap<NodeId, NodeRecord>,
    keyspaces: BTreeMap<String, Arc<KeyspaceRecord>>,
    /// The ranges of active keyspaces and the meta range.
    ranges: BTreeMap<RangeId, Arc<RangeRecord>>,
    by_key: BTreeMap<KeyspaceId, BTreeMap<Vec<u8>, RangeId>>,
}

/// The rows of the meta range make no directory.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A row is of no known kind.
    #[error("the meta range holds a row {0} of unknown kind")]
    Unknown(String),
}

impl Directory {
    /// A directory of nothing but the meta range: what a node knows before it has read it.
    pub fn of_meta(meta: RangeRecord, nodes: impl IntoIterator<Item = NodeRecord>) -> Self {
        let mut directory = Self::default();
        directory.add_range(meta);
        directory.nodes = nodes.into_iter().map(|node| (node.id, node)).collect();
        directory
    }

    /// The directory of the meta range's rows, keys and values, after entry `version`; and the meta range's
    /// own record.
    pub fn from_rows<'a>(
        version: u64,
        meta: RangeRecord,
        rows: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Self, DirectoryError> {
        let mut directory = Self { version, ..Self::default() };
        let mut ranges = BTreeMap::new();
        for (row, value) in rows {
            let starts = |prefix: &str| row.starts_with(prefix.as_bytes());
            if starts(key::NODE) {
                let node = NodeRecord::decode(value)?;
                directory.nodes.insert(node.id, node);
            } else if starts(key::KEYSPACE) {
                let keyspace = KeyspaceRecord::decode(value)?;
                directory.keyspaces.insert(keyspace.name.clone(), Arc::new(keyspace));
            } else if starts(key::RANGE) {
                let range = RangeRecord::decode(value)?;
                ranges.insert(range.id, range);
            } else if !starts(key::NEXT) {
                return Err(DirectoryError::Unknown(row.escape_ascii().to_string()));
            }
        }
        directory.add_range(meta);
        // A range that no active keyspace names is left over from a creation that did not finish, or from a
        // keyspace that was dropped.
        let active: Vec<_> = directory
            .keyspaces
            .values()
            .filter(|k| k.state == KeyspaceState::Active)
            .cloned()
            .collect();
        for keyspace in active {
            for id in &keyspace.ranges {
                if let Some(range) = ranges.remove(id) {
                    directory.add_range(range);
                }
            }
        }
        Ok(directory)
    }

    fn add_range(&mut self, range: RangeRecord) {
        let starts = self.by_key.entry(range.keyspace).or_default();
        starts.insert(range.span.start().to_vec(), range.id);
        self.ranges.insert(range.id, Arc::new(range));
    }

    /// The index of the meta range's entry this stands for.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Every node, by number.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeRecord> {
        self.nodes.values()
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Option<&NodeRecord> {
        self.nodes.get(&id)
    }

    /// The node bound to a store.
    pub fn node_of_store(&self, store: latitude_types::StoreId) -> Option<&NodeRecord> {
        self.nodes.values().find(|node| node.store == store)
    }

    /// Every keyspace that can be used, by name.
    pub fn keyspaces(&self) -> impl Iterator<Item = &Arc<KeyspaceRecord>> {
        self.keyspaces.values().filter(|keyspace| keyspace.state == KeyspaceState::Active)
    }

    /// The keyspace of that name, also one that was dropped.
    pub fn keyspace_record(&self, name: &str) -> Option<&Arc<KeyspaceRecord>> {
        self.keyspaces.get(name)
    }

    /// The usable keyspace of that name; if the asker knows its number, it must be that one.
    ///
    /// # Errors
    /// [`Reason::KeyspaceUnknown`], [`Reason::KeyspaceChanged`].
    pub fn keyspace(
        &self,
        name: &str,
        known: Option<KeyspaceId>,
    ) -> Result<&Arc<KeyspaceRecord>, Error> {
        let keyspace =
            self.keyspaces.get(name).filter(|keyspace| keyspace.state == KeyspaceState::Active);
        let keyspace = keyspace.ok_or_else(|| {
            let message =
                format!("there is no keyspace {name:?}: create it, or list those there are");
            Error::new(Reason::KeyspaceUnknown, message)
        })?;
        match known {
            Some(known) if known != keyspace.id => Err(Error::new(
                Reason::KeyspaceChanged,
                format!(
                    "the keyspace {name:?} is now {}, not {known}: it was dropped and created anew",
                    keyspace.id
                ),
            )),
            _ => Ok(keyspace),
        }
    }

    /// Every range, by number.
    pub fn ranges(&self) -> impl Iterator<Item = &Arc<RangeRecord>> {
        self.ranges.values()
    }

    /// A range.
    pub fn range(&self, id: RangeId) -> Option<&Arc<RangeRecord>> {
        self.ranges.get(&id)
    }

    /// The range that holds a key.
    pub fn range_of(&self, keyspace: KeyspaceId, key: &Key) -> Option<&Arc<RangeRecord>> {
        self.range_at(keyspace, key.as_bytes())
    }

    /// The range that holds the least key at or above `bound`, if `bound` is in one.
    pub fn range_at(&self, keyspace: KeyspaceId, bound: &[u8]) -> Option<&Arc<RangeRecord>> {
        let (_, id) = self.by_key.get(&keyspace)?.range(..=bound.to_vec()).next_back()?;
        self.ranges.get(id).filter(|range| range.span.end().is_none_or(|end| bound < end))
    }

    /// The ranges that hold keys of a span, in key order.
    pub fn ranges_in<'a>(
        &'a self,
        keyspace: KeyspaceId,
        span: &'a KeySpan,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<RangeRecord>> {
        self.by_key
            .get(&keyspace)
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter_map(|id| self.ranges.get(id))
            .filter(move |range| range.span.intersection(span).is_some())
    }

    /// The replicas a node is to hold, with their ranges.
    pub fn replicas_on(
        &self,
        node: NodeId,
    ) -> impl Iterator<Item = (ReplicaId, &Arc<RangeRecord>)> {
        self.ranges.values().filter_map(move |range| Some((range.replica_on(node)?, range)))
    }

    /// A range's epoch, if it is known.
    pub fn epoch(&self, id: RangeId) -> Option<Epoch> {
        self.ranges.get(&id).map(|range| range.epoch)
    }
}

#[cfg(test)]
mod tests {
    use latitude_crdt::ValueType;
    use latitude_types::{Generation, Level};

    use super::*;
    use crate::record::{Address, Counter};

    fn range(
        id: u64,
        keyspace: u32,
        start: &[u8],
        end: Option<&[u8]>,
        nodes: &[u32],
    ) -> RangeRecord {
        RangeRecord {
            id: RangeId(id),
            epoch: Epoch(1),
            keyspace: KeyspaceId(keyspace),
            span: KeySpan::new(start, end).unwrap(),
            voters: nodes
                .iter()
                .map(|node| ReplicaId { node: NodeId(*node), generation: Generation(1) })
                .collect(),
            learners: vec![],
            value_type: ValueType::Register,
            value_len_max: 1 << 20,
            log_only: false,
        }
    }

    fn keyspace(id: u32, name: &str, state: KeyspaceState, ranges: &[u64]) -> KeyspaceRecord {
        KeyspaceRecord {
            id: KeyspaceId(id),
            name: name.into(),
            state,
            ranges: ranges.iter().map(|id| RangeId(*id)).collect(),
            place: vec![],
            learners: vec![],
            value_type: ValueType::Register,
            default_level: Level::Strict,
            log_only: false,
            value_len_max: 1 << 20,
        }
    }

    fn directory(records: &[(Key, Vec<u8>)]) -> Directory {
        let rows = records.iter().map(|(key, value)| (key.as_bytes(), value.as_slice()));
        Directory::from_rows(9, range(1, 1, b"", None, &[1, 2, 3]), rows).unwrap()
    }

    fn sample() -> Directory {
        let ranges = [
            range(4, 16, b"", Some(b"m"), &[1, 2]),
            range(5, 16, b"m", None, &[2, 3]),
            range(6, 17, b"", None, &[1]),
            range(7, 18, b"", None, &[1]),
        ];
        let keyspaces = [
            keyspace(16, "zones", KeyspaceState::Active, &[4, 5]),
            keyspace(17, "old", KeyspaceState::Dropped, &[6]),
        ];
        let mut records: Vec<_> =
            ranges.iter().map(|range| (key::range(range.id), range.encode())).collect();
        records.extend(
            keyspaces.iter().map(|keyspace| (key::keyspace(&keyspace.name), keyspace.encode())),
        );
        records.push((key::next(Counter::Range), b"8".to_vec()));
        directory(&records)
    }

    #[test]
    fn a_key_is_in_the_range_whose_span_holds_it() {
        let directory = sample();
        for (key, id) in [(b"a".as_slice(), 4), (b"lz", 4), (b"m", 5), (b"\xff\xff", 5)] {
            let found = directory.range_of(KeyspaceId(16), &Key::new(key).unwrap()).unwrap();
            assert_eq!(found.id, RangeId(id), "{key:?}");
        }
        assert!(directory.range_of(KeyspaceId(99), &Key::new(b"a").unwrap()).is_none());
    }

    #[test]
    fn ranges_no_active_keyspace_names_do_not_exist() {
        let directory = sample();
        assert!(directory.range(RangeId(6)).is_none(), "its keyspace was dropped");
        assert!(directory.range(RangeId(7)).is_none(), "its keyspace was never finished");
        let here: Vec<_> = directory.replicas_on(NodeId(1)).map(|(_, range)| range.id.0).collect();
        assert_eq!(here, [1, 4]);
    }

    #[test]
    fn a_keyspace_known_by_another_number_was_created_anew() {
        let directory = sample();
        assert_eq!(directory.keyspace("zones", None).unwrap().id, KeyspaceId(16));
        let reason =
            |name, known| directory.keyspace(name, known).map_err(|e| e.reason).unwrap_err();
        assert_eq!(reason("zones", Some(KeyspaceId(15))), Reason::KeyspaceChanged);
        assert_eq!(reason("old", None), Reason::KeyspaceUnknown);
        assert_eq!(reason("none", None), Reason::KeyspaceUnknown);
    }

    #[test]
    fn a_span_is_covered_by_its_ranges_in_key_order() {
        let directory = sample();
        let ids = |span: KeySpan| -> Vec<_> {
            directory.ranges_in(KeyspaceId(16), &span).map(|r| r.id.0).collect()
        };
        assert_eq!(ids(KeySpan::all()), [4, 5]);
        assert_eq!(ids(KeySpan::new(b"a", Some(b"m")).unwrap()), [4]);
        assert_eq!(ids(KeySpan::new(b"m", None).unwrap()), [5]);
    }

    #[test]
    fn a_row_of_unknown_kind_is_refused() {
        let rows = [(b"what/1".as_slice(), b"".as_slice())];
        let meta = range(1, 1, b"", None, &[1]);
        assert_eq!(
            Directory::from_rows(1, meta, rows),
            Err(DirectoryError::Unknown("what/1".into()))
        );
    }

    #[test]
    fn an_address_depends_on_who_asks() {
        let address =
            Address { default: "a:1".into(), from_region: vec![("us".into(), "b:2".into())] };
        assert_eq!((address.seen_from("us"), address.seen_from("eu")), ("b:2", "a:1"));
    }
}

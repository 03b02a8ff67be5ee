//! The deltas of one range that a replica holds and its base does not include.
//!
//! ```text
//!   key ──▶ deltas of the key         what a local read merges with the base
//!   origin ─▶ position ─▶ delta       what the leader folds, in order
//! ```
//!
//! In memory: a quota bounds it, and what it holds is durable elsewhere (the column `Stream`). A reader looks
//! here first and takes its snapshot of the base second, and a delta is removed here only after the batch that
//! folds it can be read: so a delta is always in one of the two, and counted once, because a reader leaves
//! out what its snapshot has folded.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use latitude_types::{Key, KeySpan, NodeId, OperationId, Timestamp};

use crate::delta::Delta;
use crate::meta::Origin;

/// Of each origin how many deltas, and the highest position of them.
pub type Unfolded = BTreeMap<NodeId, (usize, Timestamp)>;

/// The deltas that a read merges with the base.
#[derive(Clone, Debug, Default)]
pub struct Shown(BTreeMap<Key, Vec<Arc<Delta>>>);

impl Shown {
    /// Those of one key.
    pub(crate) fn of_key(&self, key: &Key) -> &[Arc<Delta>] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// The keys that have any, in order.
    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = &Key> {
        self.0.keys()
    }

    /// How many of each origin a base that has folded so far leaves, and the highest position of them.
    pub fn unfolded(&self, origins: &[Origin]) -> Unfolded {
        let mut unfolded = Unfolded::new();
        self.0.keys().for_each(|key| self.count_unfolded(key, origins, &mut unfolded));
        unfolded
    }

    /// Counts those of one key.
    pub(crate) fn count_unfolded(&self, key: &Key, origins: &[Origin], into: &mut Unfolded) {
        for delta in self.of_key(key).iter().filter(|delta| !is_folded(delta, origins)) {
            let (count, highest) = into.entry(delta.origin).or_insert((0, Timestamp::ZERO));
            *count += 1;
            *highest = delta.position.max(*highest);
        }
    }
}

/// Whether a base has a delta, or will never have it: of a node that is no origin nothing counts.
pub(crate) fn is_folded(delta: &Delta, origins: &[Origin]) -> bool {
    origins
        .iter()
        .find(|origin| origin.node == delta.origin)
        .is_none_or(|origin| delta.position <= origin.folded)
}

/// Unfolded deltas of one range.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    by_key: BTreeMap<Key, BTreeMap<(NodeId, Timestamp), Arc<Delta>>>,
    by_origin: BTreeMap<NodeId, BTreeMap<Timestamp, Arc<Delta>>>,
    /// The first copy that came of each.
    by_id: BTreeMap<OperationId, Arc<Delta>>,
    /// Of each origin, how far deltas have been dropped as folded.
    dropped: BTreeMap<NodeId, Timestamp>,
    bytes: usize,
}

impl Overlay {
    /// Takes in a delta. `false` if it is there already.
    pub fn insert(&mut self, delta: Arc<Delta>) -> bool {
        let of_origin = self.by_origin.entry(delta.origin).or_default();
        if of_origin.contains_key(&delta.position) {
            return false;
        }
        of_origin.insert(delta.position, Arc::clone(&delta));
        self.bytes += delta.size();
        self.by_id.entry(delta.id).or_insert_with(|| Arc::clone(&delta));
        let of_key = self.by_key.entry(delta.key.clone()).or_default();
        of_key.insert((delta.origin, delta.position), delta);
        true
    }

    /// Removes what the base has folded.
    pub fn prune(&mut self, origins: &[Origin]) {
        for origin in origins {
            let dropped = self.dropped.entry(origin.node).or_default();
            *dropped = origin.folded.max(*dropped);
            let Some(held) = self.by_origin.get_mut(&origin.node) else { continue };
            let rest = held.split_off(&origin.folded.next());
            for delta in std::mem::replace(held, rest).into_values() {
                self.bytes -= delta.size();
                if self.by_id.get(&delta.id).is_some_and(|first| Arc::ptr_eq(first, &delta)) {
                    self.by_id.remove(&delta.id);
                }
                if let Some(of_key) = self.by_key.get_mut(&delta.key) {
                    of_key.remove(&(delta.origin, delta.position));
                    if of_key.is_empty() {
                        self.by_key.remove(&delta.key);
                    }
                }
            }
            if held.is_empty() {
                self.by_origin.remove(&origin.node);
            }
        }
    }

    /// The first copy that came of a write, while it is here.
    pub fn of_id(&self, id: &OperationId) -> Option<&Arc<Delta>> {
        self.by_id.get(id)
    }

    /// The position of the first delta of an origin.
    pub fn first_of(&self, origin: NodeId) -> Option<Timestamp> {
        Some(*self.by_origin.get(&origin)?.first_key_value()?.0)
    }

    /// What a read of these keys may show: of each origin the deltas positioned up to what `limit` says.
    pub fn shown(&self, span: &KeySpan, limit: impl Fn(NodeId) -> Timestamp) -> Shown {
        // One key is what most reads are about.
        let keys = self.by_key.range::<[u8], _>((
            Bound::Included(span.start()),
            span.end().map_or(Bound::Unbounded, Bound::Excluded),
        ));
        let mut shown = BTreeMap::new();
        for (key, deltas) in keys {
            let deltas: Vec<_> = deltas
                .values()
                .filter(|delta| delta.position <= limit(delta.origin))
                .cloned()
                .collect();
            if !deltas.is_empty() {
                shown.insert(key.clone(), deltas);
            }
        }
        Shown(shown)
    }

    /// Whether it shows that there is no delta of an origin positioned in (`from`, `to`]. It cannot show that of
    /// what it has dropped: a base that has folded only up to `from` may lack it.
    pub fn has_none(&self, origin: NodeId, from: Timestamp, to: Timestamp) -> bool {
        let dropped = self.dropped.get(&origin).copied().unwrap_or_default();
        dropped <= from && self.of_origin(origin, from, to).next().is_none()
    }

    /// The deltas of an origin positioned in (`from`, `to`], in order.
    pub fn of_origin(
        &self,
        origin: NodeId,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = &Arc<Delta>> {
        let span = (Bound::Excluded(from), Bound::Included(to.max(from)));
        // An empty span is none that a map takes.
        let held = self.by_origin.get(&origin).filter(|_| from < to);
        held.into_iter().flat_map(move |held| held.range(span)).map(|(_, delta)| delta)
    }

    /// Each origin with deltas: how many, and the first position.
    pub fn origins(&self) -> impl Iterator<Item = (NodeId, usize, Timestamp)> {
        self.by_origin
            .iter()
            .filter_map(|(origin, held)| Some((*origin, held.len(), *held.first_key_value()?.0)))
    }

    /// How many deltas there are.
    pub fn len(&self) -> usize {
        self.by_origin.values().map(BTreeMap::len).sum()
    }

    /// Whether everything is folded.
    pub fn is_empty(&self) -> bool {
        self.by_origin.is_empty()
    }

    /// About how many bytes of memory they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

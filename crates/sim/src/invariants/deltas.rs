//! Which local writes there are, and who holds what of them, as the disks have it: what INV-5 to INV-8 are held
//! against.
//!
//! ```text
//!   batch ─▶ written ─ sync ─▶ held          rows of the column Stream, of a host
//!                       └─ of its own ─▶ taken    what there is, from then on for ever
//!   batch ─▶ bases                           how far a host's base has folded each origin
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use latitude_range::{Delta, RangeMeta};
use latitude_storage::{Batch, Column, View, Write, key};
use latitude_types::{NodeId, OperationId, RangeId, Stamp, Timestamp};

use super::logs::node_of;

/// Local writes as the disks have them.
#[derive(Default)]
pub(crate) struct Deltas {
    /// Those that were durable where they were taken, by origin and position.
    taken: BTreeMap<NodeId, BTreeMap<Timestamp, Arc<Delta>>>,
    /// The ids of those, and of those that a base had before.
    ids: BTreeSet<DeltaId>,
    disks: BTreeMap<Arc<str>, Disk>,
}

/// An id as a key: birth, client, sequence.
pub(crate) type DeltaId = (Timestamp, [u8; 16], u64);

/// What one host has on its disk.
#[derive(Default)]
pub(crate) struct Disk {
    /// Whose deltas are durable there, and their positions.
    held: BTreeSet<(NodeId, Timestamp)>,
    /// Written, and not synced.
    written: Vec<Arc<Delta>>,
    bases: BTreeMap<RangeId, Base>,
}

/// A host's base of a range.
#[derive(Clone, Default)]
pub(crate) struct Base {
    folded: BTreeMap<NodeId, Timestamp>,
    pub(crate) last_stamp: Stamp,
}

impl Base {
    fn of(meta: &RangeMeta) -> Self {
        let folded = meta.origins.iter().map(|origin| (origin.node, origin.folded)).collect();
        Self { folded, last_stamp: meta.last_stamp }
    }

    /// How far it has folded an origin.
    pub(crate) fn folded(&self, origin: NodeId) -> Timestamp {
        self.folded.get(&origin).copied().unwrap_or_default()
    }
}

impl Disk {
    /// The base of a range, if the host has a replica of it.
    pub(crate) fn base(&self, range: RangeId) -> Option<&Base> {
        self.bases.get(&range)
    }

    /// Whether a delta is here durably, or in the base.
    pub(crate) fn has(&self, delta: &Delta) -> bool {
        self.held.contains(&(delta.origin, delta.position)) || self.has_folded(delta)
    }

    /// Whether a delta is in the base.
    pub(crate) fn has_folded(&self, delta: &Delta) -> bool {
        let base = self.bases.get(&delta.range);
        base.is_some_and(|base| delta.position <= base.folded(delta.origin))
    }
}

impl Deltas {
    /// A host has opened its store: what it shows is durable.
    pub(crate) fn opened(&mut self, host: &Arc<str>, store: &dyn View, metas: &[RangeMeta]) {
        let everything = key::stream::everything();
        let rows = store.scan(Column::Stream, everything.into()).filter_map(Result::ok);
        let found: Vec<_> =
            rows.filter_map(|(_, row)| Delta::decode(&row).ok()).map(Arc::new).collect();
        let bases = metas.iter().map(|meta| (meta.id, Base::of(meta))).collect();
        let disk = Disk { bases, ..Disk::default() };
        self.disks.insert(Arc::clone(host), disk);
        self.now_durable(host, found);
    }

    /// A host writes rows of local writes: those that are new and its own, and those it drops.
    pub(crate) fn writes(&mut self, host: &Arc<str>, batch: &Batch) -> Vec<Event> {
        let mut events = Vec::new();
        let node = node_of(host);
        let disk = self.disks.entry(Arc::clone(host)).or_default();
        for write in batch {
            match write {
                Write::Put { column: Column::Stream, value, .. } => {
                    let Ok(delta) = Delta::decode(value).map(Arc::new) else { continue };
                    if node == Some(delta.origin) {
                        events.push(Event::Takes(Arc::clone(&delta)));
                    }
                    disk.written.push(delta);
                }
                Write::Delete { column: Column::Stream, key: row } => {
                    events.extend(key::stream::decode(row).map(Event::Drops));
                }
                Write::DeleteRange { column: Column::Stream, start, end } => {
                    let name = |origin, position| key::stream::delta(origin, position);
                    let within = |(origin, position): &&(NodeId, Timestamp)| {
                        let row = name(*origin, *position);
                        **start <= row[..] && row[..] < **end
                    };
                    events.extend(disk.held.iter().filter(within).copied().map(Event::Drops));
                }
                _ => {}
            }
        }
        for event in &events {
            if let Event::Drops(row) = event {
                disk.held.remove(row);
            }
        }
        events
    }

    /// A host's base of a range is this from now on.
    pub(crate) fn applies(&mut self, host: &Arc<str>, meta: &RangeMeta) {
        let disk = self.disks.entry(Arc::clone(host)).or_default();
        disk.bases.insert(meta.id, Base::of(meta));
    }

    /// A host has synced.
    pub(crate) fn synced(&mut self, host: &Arc<str>) {
        let disk = self.disks.entry(Arc::clone(host)).or_default();
        let written = std::mem::take(&mut disk.written);
        self.now_durable(host, written);
    }

    fn now_durable(&mut self, host: &Arc<str>, deltas: Vec<Arc<Delta>>) {
        let node = node_of(host);
        let disk = self.disks.entry(Arc::clone(host)).or_default();
        for delta in deltas {
            disk.held.insert((delta.origin, delta.position));
            if node == Some(delta.origin) {
                self.ids.insert(id_of(&delta.id));
                self.taken.entry(delta.origin).or_default().insert(delta.position, delta);
            }
        }
    }

    /// Whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// The durable deltas of an origin positioned in (`from`, `to`], in order.
    pub(crate) fn taken(
        &self,
        origin: NodeId,
        from: Timestamp,
        to: Timestamp,
    ) -> impl Iterator<Item = &Arc<Delta>> {
        let taken = self.taken.get(&origin).filter(|_| from < to);
        taken.into_iter().flat_map(move |taken| taken.range(from.next()..=to)).map(|(_, d)| d)
    }

    /// The first delta that an origin has written and not synced.
    pub(crate) fn first_unsynced(&self, origin: NodeId) -> Option<&Arc<Delta>> {
        let host = format!("node-{}", origin.0);
        let written = &self.disks.get(&*host)?.written;
        written.iter().filter(|d| d.origin == origin).min_by_key(|delta| delta.position)
    }

    /// Whether a local write of that id was ever durable where it was taken.
    pub(crate) fn knows(&self, id: &DeltaId) -> bool {
        self.ids.contains(id)
    }

    /// What a host has on its disk.
    pub(crate) fn disk(&self, host: &str) -> Option<&Disk> {
        self.disks.get(host)
    }
}

/// What a host does with rows of local writes.
pub(crate) enum Event {
    /// It takes one of its own.
    Takes(Arc<Delta>),
    /// It drops the one of that origin at that position.
    Drops((NodeId, Timestamp)),
}

/// An id as a key.
pub(crate) fn id_of(id: &OperationId) -> DeltaId {
    (id.birth, id.client.0, id.sequence)
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use latitude_range::Op;
    use latitude_storage::memory::{MemoryDisk, MemoryEngine};
    use latitude_types::{ClientId, Key, KeySpan, KeyspaceId, Level, OperationKind, Past, Stamp};

    use super::*;

    pub(crate) const RANGE: RangeId = RangeId(4);

    pub(crate) fn delta(origin: u32, position: u64) -> Delta {
        Delta {
            origin: NodeId(origin),
            position: Timestamp(position),
            range: RANGE,
            admitted: Stamp::ZERO,
            keyspace: KeyspaceId(16),
            key: Key::new(b"k").unwrap(),
            op: Op::Put { value: Bytes::from_static(b"v") },
            id: OperationId {
                birth: Timestamp(position - 1),
                client: ClientId([origin as u8; 16]),
                sequence: position,
                kind: OperationKind::Local,
            },
            level: Level::Causal,
            named: vec![],
            extensions: vec![],
            past: Past::default(),
        }
    }

    pub(crate) fn row(delta: &Delta) -> Batch {
        let mut batch = Batch::new();
        batch.put(Column::Stream, key::stream::delta(delta.origin, delta.position), delta.encode());
        batch
    }

    pub(crate) fn meta(folded: &[(u32, u64)]) -> RangeMeta {
        let mut meta = RangeMeta::new(RANGE, KeyspaceId(16), KeySpan::all(), 1024, false);
        meta.origins = folded
            .iter()
            .map(|(node, at)| latitude_range::Origin {
                node: NodeId(*node),
                state: latitude_range::OriginState::Active,
                admitted: Stamp::ZERO,
                folded: Timestamp(*at),
                last: None,
            })
            .collect();
        meta
    }

    /// Writes and syncs.
    pub(crate) fn store(deltas: &mut Deltas, host: &Arc<str>, delta: &Delta) {
        deltas.writes(host, &row(delta));
        deltas.synced(host);
    }

    #[test]
    fn a_delta_is_there_once_its_origin_has_synced_it() {
        let (a, b): (Arc<str>, Arc<str>) = ("node-1".into(), "node-2".into());
        let mut deltas = Deltas::default();
        let one = delta(1, 10);
        assert!(matches!(&deltas.writes(&a, &row(&one))[..], [Event::Takes(_)]));
        assert!(deltas.is_empty());
        assert_eq!(deltas.first_unsynced(NodeId(1)).unwrap().position, Timestamp(10));
        deltas.synced(&a);
        assert!(deltas.first_unsynced(NodeId(1)).is_none() && deltas.knows(&id_of(&one.id)));
        assert_eq!(deltas.taken(NodeId(1), Timestamp(9), Timestamp(10)).count(), 1);
        assert_eq!(deltas.taken(NodeId(1), Timestamp(10), Timestamp(20)).count(), 0);
        assert!(deltas.writes(&b, &row(&one)).is_empty(), "another's");
        assert!(!deltas.disk("node-2").unwrap().has(&one));
        deltas.synced(&b);
        assert!(deltas.disk("node-2").unwrap().has(&one));
        let span = key::stream::span(NodeId(1), ..=Timestamp(10));
        let mut drops = Batch::new();
        drops.delete_range(Column::Stream, span.start, span.end);
        assert!(matches!(
            deltas.writes(&b, &drops)[..],
            [Event::Drops((NodeId(1), Timestamp(10)))]
        ));
        assert!(!deltas.disk("node-2").unwrap().has(&one));
        deltas.applies(&b, &meta(&[(1, 10)]));
        assert!(deltas.disk("node-2").unwrap().has(&one), "in the base");
    }

    #[test]
    fn what_a_store_shows_when_it_is_opened_is_durable_and_the_rest_is_gone() {
        let host: Arc<str> = "node-1".into();
        let mut deltas = Deltas::default();
        deltas.writes(&host, &row(&delta(1, 10)));
        let engine = MemoryEngine::open(&MemoryDisk::new()).unwrap();
        latitude_storage::Engine::write(&engine, row(&delta(1, 8))).unwrap();
        deltas.opened(&host, &engine, &[]);
        let all: Vec<_> = deltas.taken(NodeId(1), Timestamp(0), Timestamp(99)).collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].position, Timestamp(8));
        assert!(deltas.first_unsynced(NodeId(1)).is_none());
    }
}

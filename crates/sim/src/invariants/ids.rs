//! INV-8 (`consistency.md`): each id takes effect once, at one index. And none that was acknowledged is lost.
//!
//! Seen from the disk: a value's row names the entry and the operation in it that wrote it, so it names an id; the
//! same id is never named with another place. What a client was told it wrote must have been applied.

use std::collections::BTreeMap;

use latitude_range::{Body, Entry, ValueRow};
use latitude_storage::{Batch, Column, Write};
use latitude_types::{OperationId, Stamp, WriteTime, Writer};

use crate::violation::{Check, Violation};

/// Where an operation stands in the one order: its entry's stamp, and its place in the entry.
type Place = (Stamp, u32);

/// The operations of entries that were applied.
#[derive(Default)]
pub(crate) struct Ids {
    /// Ids in the order of their entry's operations.
    applied: BTreeMap<Stamp, Vec<OperationId>>,
    effects: BTreeMap<OperationKey, Place>,
}

/// An id as a key: birth, client, sequence.
type OperationKey = (u64, [u8; 16], u64);

impl Ids {
    /// An entry was applied for the first time.
    pub(crate) fn applied(&mut self, entry: &Entry) {
        let Body::Write(write) = &entry.body else { return };
        let ids = write.operations.iter().map(|operation| operation.id).collect();
        self.applied.insert(entry.stamp, ids);
    }

    /// A host writes: every value's row is the effect of one id.
    pub(crate) fn writes(&mut self, batch: &Batch) -> Option<Violation> {
        batch.iter().find_map(|write| match write {
            // A row's key may be that of another kind of row; then it decodes as no value.
            Write::Put { column: Column::Base, value, .. } => {
                self.effect(&ValueRow::decode(value).ok()?)
            }
            _ => None,
        })
    }

    fn effect(&mut self, row: &ValueRow) -> Option<Violation> {
        let place = (row.stamp, row.ordinal);
        let id = self.applied.get(&row.stamp)?.get(row.ordinal as usize)?;
        let first = *self.effects.entry((id.birth.0, id.client.0, id.sequence)).or_insert(place);
        (first != place).then(|| {
            Check::Ids.found(format!("{id:?} takes effect at {place:?}, and did at {first:?}"))
        })
    }

    /// A client was told that it wrote this.
    pub(crate) fn acknowledged(&self, version: &WriteTime) -> Option<Violation> {
        let Writer::Node(node) = version.writer else { return None };
        let stamp = Stamp { time: version.time, node };
        let operations = self.applied.get(&stamp).map_or(0, Vec::len) as u64;
        (operations <= version.sequence).then(|| {
            let what =
                format!("a write was acknowledged at {version:?}, and nothing was applied there");
            Check::Durability.found(what)
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use latitude_range::{Content, Op, Operation};
    use latitude_types::{
        ClientId, Epoch, Key, KeyspaceId, Level, NodeId, OperationKind, Past, Positions, RangeId,
        Timestamp,
    };

    use super::*;

    fn stamp(ms: u64) -> Stamp {
        Stamp { time: Timestamp::from_ms(ms), node: NodeId(1) }
    }

    fn entry(ms: u64) -> Entry {
        let operation = Operation {
            id: OperationId {
                birth: Timestamp::from_ms(1),
                client: ClientId([7; 16]),
                sequence: 1,
                kind: OperationKind::Log,
            },
            answered_below: 1,
            level: Level::Strict,
            key: Key::new(b"k").unwrap(),
            op: Op::Put { value: Bytes::from_static(b"v") },
            named: Vec::new(),
            need: Positions::default(),
            past: Past::default(),
            extensions: Vec::new(),
        };
        Entry {
            stamp: stamp(ms),
            range: RangeId(4),
            epoch: Epoch(1),
            keyspace: KeyspaceId(16),
            body: Body::Write(latitude_range::Write {
                segments: Vec::new(),
                operations: vec![operation],
            }),
        }
    }

    fn row(ms: u64) -> Batch {
        let row = ValueRow {
            stamp: stamp(ms),
            ordinal: 0,
            version: WriteTime::of_log_write(stamp(ms), 0),
            content: Content::Plain(Bytes::from_static(b"v")),
            extensions: Vec::new(),
            past: Past::default(),
        };
        let mut batch = Batch::new();
        batch.put(Column::Base, "k", row.encode());
        batch
    }

    #[test]
    fn an_id_that_takes_effect_at_two_places_is_a_violation() {
        let mut ids = Ids::default();
        ids.applied(&entry(5));
        ids.applied(&entry(9));
        assert_eq!(ids.writes(&row(5)), None);
        assert_eq!(ids.writes(&row(5)), None, "on another replica");
        assert_eq!(ids.writes(&row(9)).unwrap().check, Check::Ids);
    }

    #[test]
    fn what_is_acknowledged_was_applied() {
        let mut ids = Ids::default();
        ids.applied(&entry(5));
        assert_eq!(ids.acknowledged(&WriteTime::of_log_write(stamp(5), 0)), None);
        let lost = ids.acknowledged(&WriteTime::of_log_write(stamp(6), 0));
        assert_eq!(lost.unwrap().check, Check::Durability);
        assert!(ids.acknowledged(&WriteTime::of_log_write(stamp(5), 1)).is_some());
    }
}

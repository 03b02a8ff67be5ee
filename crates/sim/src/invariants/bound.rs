//! INV-1 (`consistency.md`): a node's clock is never above its durable bound, also for merged times.
//!
//! Seen from the disk: what a node applies it has merged, so no stamp it applies is above the bound that
//! was synced by then.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use latitude_range::RangeMeta;
use latitude_storage::{Batch, Column, View, Write, key};
use latitude_types::Timestamp;

use crate::violation::{Check, Violation};

/// The bounds of the hosts' clocks.
#[derive(Default)]
pub(crate) struct Bounds(BTreeMap<Arc<str>, Bound>);

#[derive(Clone, Copy, Default)]
struct Bound {
    written: Timestamp,
    synced: Timestamp,
}

fn decode(row: &Bytes) -> Timestamp {
    <[u8; 8]>::try_from(&row[..]).map_or(Timestamp::ZERO, |row| Timestamp(u64::from_be_bytes(row)))
}

impl Bounds {
    pub(crate) fn opened(&mut self, host: &Arc<str>, store: &dyn View) {
        let row = store.get(Column::Node, &key::node::clock_bound()).ok().flatten();
        let bound = row.as_ref().map_or(Timestamp::ZERO, decode);
        self.0.insert(Arc::clone(host), Bound { written: bound, synced: bound });
    }

    pub(crate) fn writes(&mut self, host: &Arc<str>, batch: &Batch) {
        for write in batch {
            if let Write::Put { column: Column::Node, key, value } = write
                && **key == key::node::clock_bound()[..]
            {
                self.0.entry(Arc::clone(host)).or_default().written = decode(value);
            }
        }
    }

    pub(crate) fn synced(&mut self, host: &Arc<str>) {
        let bound = self.0.entry(Arc::clone(host)).or_default();
        bound.synced = bound.written;
    }

    pub(crate) fn violation(&self, host: &Arc<str>, after: &RangeMeta) -> Option<Violation> {
        let bound = self.0.get(host).copied().unwrap_or_default().synced;
        let stamp = after.last_stamp;
        (stamp.time > bound).then(|| {
            Check::Bound
                .found(format!("{} applies {stamp}, above the durable bound {bound}", after.id))
        })
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::{KeySpan, KeyspaceId, NodeId, RangeId, Stamp};

    use super::*;

    #[test]
    fn a_bound_covers_what_is_applied_only_once_it_is_synced() {
        let host: Arc<str> = "node-1".into();
        let mut meta = RangeMeta::new(RangeId(4), KeyspaceId(16), KeySpan::all(), 1024, false);
        meta.last_stamp = Stamp { time: Timestamp(90), node: NodeId(1) };
        let mut batch = Batch::new();
        batch.put(Column::Node, key::node::clock_bound(), 100u64.to_be_bytes().to_vec());
        let mut bounds = Bounds::default();
        bounds.writes(&host, &batch);
        assert_eq!(bounds.violation(&host, &meta).unwrap().check, Check::Bound);
        bounds.synced(&host);
        assert_eq!(bounds.violation(&host, &meta), None);
    }
}

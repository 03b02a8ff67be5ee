//! What the bases of a node's replicas hold, row by row.

use std::collections::BTreeMap;

use latitude_range::{Delta, ValueRow};
use latitude_storage::key::base::{Row, RowKind, decode};
use latitude_storage::{Column, Scan, View, key};
use latitude_types::{KeyspaceId, NodeId, RangeId};

use super::{Cluster, NO_PANIC};
use crate::invariants;

/// How many rows of users' keys there are, of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RowCounts {
    /// Keys that exist.
    pub values: usize,
    /// Records of deleted keys.
    pub deleted: usize,
    /// Ids of local writes that took effect, or may not any more.
    pub ids: usize,
}

impl Cluster {
    /// The rows of users' keys that a node's store has; `None` while it is down.
    pub fn rows(&self, node: u32) -> Option<RowCounts> {
        let engine = self.site(node).engine.lock().expect(NO_PANIC).upgrade()?;
        let mut counts = RowCounts::default();
        for (row_key, row) in engine.scan(Column::Base, Scan::all()).filter_map(Result::ok) {
            let of_users = |row: &Row| row.keyspace >= KeyspaceId::FIRST_USER;
            match decode(&row_key).filter(of_users).map(|row| row.kind) {
                Some(RowKind::Id(_)) => counts.ids += 1,
                Some(RowKind::Value) => match ValueRow::decode(&row) {
                    Ok(row) if row.exists() => counts.values += 1,
                    Ok(_) => counts.deleted += 1,
                    Err(_) => {}
                },
                None => {}
            }
        }
        Some(counts)
    }

    /// Whether a node that is up has a replica of a range, be it just born.
    pub fn holds(&self, node: u32, range: RangeId) -> bool {
        let engine = self.site(node).engine.lock().expect(NO_PANIC).upgrade();
        engine
            .is_some_and(|engine| invariants::ranges(&*engine).iter().any(|meta| meta.id == range))
    }

    /// How many local writes of an origin a node's store has, by range; `None` while it is down.
    pub fn stream_rows(&self, node: u32, origin: u32) -> Option<BTreeMap<RangeId, usize>> {
        let engine = self.site(node).engine.lock().expect(NO_PANIC).upgrade()?;
        let of_origin = key::stream::span(NodeId(origin), ..);
        let rows = engine.scan(Column::Stream, of_origin.into()).filter_map(Result::ok);
        let mut counts = BTreeMap::new();
        for delta in rows.filter_map(|(_, row)| Delta::decode(&row).ok()) {
            *counts.entry(delta.range).or_default() += 1;
        }
        Some(counts)
    }

    /// How far a node has applied the log of each of its ranges, in the form in which its store says it.
    pub fn applied_rows(&self, node: u32) -> BTreeMap<RangeId, Vec<u8>> {
        let Some(engine) = self.site(node).engine.lock().expect(NO_PANIC).upgrade() else {
            return BTreeMap::new();
        };
        let applied = |id| engine.get(Column::Base, &key::local::applied(id)).ok().flatten();
        let ranges = invariants::ranges(&*engine).into_iter();
        ranges.filter_map(|meta| Some((meta.id, applied(meta.id)?.to_vec()))).collect()
    }
}

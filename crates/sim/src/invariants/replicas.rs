//! INV-9 (`consistency.md`): the base is a function of the log alone.
//!
//! At every moment: two replicas that have applied a range up to the same entry have the same metadata of
//! it. At the end, when all have applied everything: the same rows, all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use latitude_range::RangeMeta;
use latitude_storage::{Column, View, key};
use latitude_types::RangeId;
use xxhash_rust::xxh3::xxh3_64;

use crate::violation::{Check, Violation};

/// What each range was after each entry up to which somebody applied it: by the row that says how far,
/// who did and the hash of the metadata.
#[derive(Default)]
pub(crate) struct Applied(BTreeMap<(RangeId, Vec<u8>), (Arc<str>, u64)>);

impl Applied {
    pub(crate) fn violation(
        &mut self,
        host: &Arc<str>,
        row: &[u8],
        after: &RangeMeta,
    ) -> Option<Violation> {
        let hash = xxh3_64(&after.encode());
        let (first, expected) =
            self.0.entry((after.id, row.to_vec())).or_insert_with(|| (Arc::clone(host), hash));
        (*expected != hash).then(|| {
            Check::Replicas.found(format!(
                "{} differs from what {first} had after the same entry: {after:?}",
                after.id
            ))
        })
    }
}

/// The ranges that have a replica in a store.
pub(crate) fn ranges(store: &dyn View) -> Vec<RangeMeta> {
    let rows = store.scan(Column::Base, key::local::all().into()).filter_map(Result::ok);
    rows.filter_map(|(row, value)| {
        let meta = RangeMeta::decode(&value).ok()?;
        (*row == key::local::meta(meta.id)[..]).then_some(meta)
    })
    .collect()
}

/// Rows, key and value.
type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// All rows of a range: its own, then those of its keys.
fn rows(store: &dyn View, meta: &RangeMeta) -> Rows {
    let own = store.scan(Column::Base, key::local::span_of(meta.id).into());
    let of_keys = store.scan(Column::Base, key::base::value_span(meta.keyspace, &meta.span).into());
    own.chain(of_keys)
        .filter_map(Result::ok)
        .map(|(row, value)| (row.to_vec(), value.to_vec()))
        .collect()
}

/// The first row in which two stores that hold the same range differ, if any does. Stores differ for a
/// while whenever one has applied less.
pub(crate) fn difference(stores: &[(Arc<str>, &dyn View)]) -> Option<Violation> {
    let mut first: BTreeMap<RangeId, (Arc<str>, Rows)> = BTreeMap::new();
    for (host, store) in stores {
        for meta in ranges(*store) {
            let found = rows(*store, &meta);
            let Some((other, expected)) = first.get(&meta.id) else {
                first.insert(meta.id, (Arc::clone(host), found));
                continue;
            };
            if *expected != found {
                let same = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
                let show = |rows: &Rows| {
                    rows.get(same).map(|(row, value)| {
                        format!("{} = {}", row.escape_ascii(), value.escape_ascii())
                    })
                };
                return Some(Check::ReplicasEqual.found(format!(
                    "the replicas of {} differ: {other} has {:?}, {host} has {:?}",
                    meta.id,
                    show(expected),
                    show(&found),
                )));
            }
        }
    }
    None
}

//! INV-8 (`consistency.md`) for local writes: each is folded once, at one entry, and none that is positioned at or
//! below F is left out.
//!
//! ```text
//!   entries applied: (a, b]      segments in them: deltas of o
//!   F[o] before: f  ──────────── F[o] after: g
//!                every delta of o in (f, g] is in a segment of these entries: there it takes effect, and nowhere else
//! ```
//!
//! Seen from the disk: the entries that a batch applies, how far F rises in it, and the rows that say which entry
//! folded something into them. What is held against that is what the origins took.
//!
//! Source: `pitfalls.md` 3, folds that overlap or leave gaps when leaders change.

use std::collections::BTreeMap;

use latitude_range::{Body, Carried, Content, Delta, Entry, FOLDED, RangeMeta, ValueRow};
use latitude_storage::{Batch, Column, Write, key};
use latitude_types::{Key, NodeId, RangeId, Stamp, Timestamp, WriteTime, Writer};

use super::deltas::Deltas;
use crate::violation::{Check, Violation};

/// The folds that were applied.
#[derive(Default)]
pub(crate) struct Folds {
    ranges: BTreeMap<RangeId, Folded>,
    /// Which entry has which stamp.
    places: BTreeMap<Stamp, (RangeId, u64)>,
    /// The local writes that won a register when they were folded: what they left, and the entry's stamp.
    winners: BTreeMap<WriteTime, (Key, Content, Stamp)>,
}

/// What was folded of a range.
#[derive(Default)]
struct Folded {
    /// The deltas in the segments of each entry: whose, where, and the row of its key.
    entries: BTreeMap<u64, Vec<(NodeId, Timestamp, Vec<u8>)>>,
    /// Where each delta took effect: above the one entry, at or below the other.
    effects: BTreeMap<(NodeId, Timestamp), (u64, u64)>,
}

impl Folds {
    /// An entry was applied for the first time.
    pub(crate) fn applied(
        &mut self,
        range: RangeId,
        index: u64,
        entry: &Entry,
        deltas: &Deltas,
    ) -> Option<Violation> {
        let Body::Write(write) = &entry.body else { return None };
        if write.segments.is_empty() {
            return None;
        }
        self.places.insert(entry.stamp, (range, index));
        let carried = write.segments.iter().flat_map(|segment| &segment.deltas);
        let carried = carried.filter_map(|carried| match carried {
            Carried::Whole(bytes) => Delta::decode(bytes).ok(),
            Carried::Stripped(..) => None,
        });
        let mut found = None;
        let mut rows = Vec::new();
        for delta in carried {
            let before = Timestamp(delta.position.0.saturating_sub(1));
            let taken = deltas.taken(delta.origin, before, delta.position).next();
            if taken.is_none_or(|taken| **taken != delta) {
                found = Some(Check::Ids.found(format!(
                    "{range} folds a local write of {} at {}, which {} does not have so on its disk",
                    delta.origin, delta.position, delta.origin
                )));
            }
            let row = key::base::value_key(delta.keyspace, &delta.key);
            rows.push((delta.origin, delta.position, row));
        }
        self.ranges.entry(range).or_default().entries.insert(index, rows);
        found
    }

    /// A host applies the entries above `from` and up to `to`, and so its base gets from one state to another.
    pub(crate) fn folds(
        &mut self,
        (from, to): (u64, u64),
        before: &RangeMeta,
        after: &RangeMeta,
        deltas: &Deltas,
    ) -> Option<Violation> {
        let known = self.ranges.entry(after.id).or_default();
        for origin in &after.origins {
            let node = origin.node;
            let was = before.origins.iter().find(|origin| origin.node == node);
            let was = was.map(|origin| origin.folded).unwrap_or_default();
            if origin.folded < was {
                let what = format!(
                    "{} has folded {node} up to {was}, and now to {}",
                    after.id, origin.folded
                );
                return Some(Check::Ids.found(what));
            }
            if origin.folded == was {
                continue;
            }
            let entries = known.entries.range(from + 1..=to).flat_map(|(_, rows)| rows);
            let is_new = |position: Timestamp| was < position && position <= origin.folded;
            let folded = entries.filter(|(of, position, _)| *of == node && is_new(*position));
            for (_, position, _) in folded {
                let at = known.effects.entry((node, *position)).or_insert((from, to));
                *at = (at.0.max(from), at.1.min(to));
            }
            let taken = deltas.taken(node, was, origin.folded).filter(|d| d.range == after.id);
            for delta in taken {
                if !known.effects.contains_key(&(node, delta.position)) {
                    return Some(Check::Ids.found(format!(
                        "{} says that it has folded {node} up to {}, and the local write at {} was in none of entries \
                         {} to {to}",
                        after.id,
                        origin.folded,
                        delta.position,
                        from + 1
                    )));
                }
            }
        }
        None
    }

    /// A host writes: a row that says it was folded into names an entry in which something of its key took effect.
    pub(crate) fn writes(&mut self, batch: &Batch) -> Option<Violation> {
        let mut found = None;
        for write in batch {
            let Write::Put { column: Column::Base, key: row_key, value } = write else { continue };
            // A row's key may be that of another kind of row; then it decodes as no value.
            let Ok(row) = ValueRow::decode(value) else { continue };
            if row.ordinal == FOLDED {
                found = found.or_else(|| self.again(row_key, row.stamp));
            }
            if matches!(row.version.writer, Writer::Client(_))
                && let Some((_, key)) = key::base::key_of_value(row_key)
            {
                // A row is written again when something is folded into it that does not win.
                let new = (key, row.content, row.stamp);
                let first = self.winners.entry(row.version).or_insert_with(|| new.clone());
                first.2 = first.2.min(new.2);
            }
        }
        found
    }

    /// The local writes that won a register when they were folded: which, what they left, and the entry's stamp.
    pub(crate) fn winners(&self) -> impl Iterator<Item = (&WriteTime, &Key, &Content, Stamp)> {
        self.winners.iter().map(|(version, (key, content, stamp))| (version, key, content, *stamp))
    }

    fn again(&self, row: &[u8], stamp: Stamp) -> Option<Violation> {
        let (range, index) = self.places.get(&stamp)?;
        let known = self.ranges.get(range)?;
        let here = known.entries.get(index)?.iter().filter(|(.., of)| of == row);
        let mut at = here.clone().map(|(node, position, _)| known.effects.get(&(*node, *position)));
        let is_new = at.any(|at| at.is_some_and(|(from, to)| from < index && index <= to));
        (!is_new).then(|| {
            let names: Vec<_> = here.map(|(node, at, _)| format!("{at} of {node}")).collect();
            let what = format!(
                "entry {index} of {range} folds {} into {} once more",
                names.join(", "),
                row.escape_ascii()
            );
            Check::Ids.found(what)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use latitude_range::Segment;
    use latitude_types::{Epoch, KeySpan, KeyspaceId, Past};

    use super::super::deltas::tests::{RANGE, delta, meta, store};
    use super::*;

    fn stamp(at: u64) -> Stamp {
        Stamp { time: Timestamp(at), node: NodeId(1) }
    }

    fn entry(at: u64, positions: &[u64]) -> Entry {
        let carried = positions.iter().map(|at| Carried::Whole(delta(1, *at).encode())).collect();
        let segment = Segment {
            origin: NodeId(1),
            from: Timestamp::ZERO,
            to: Timestamp(99),
            span: KeySpan::all(),
            deltas: carried,
        };
        Entry {
            stamp: stamp(at),
            range: RANGE,
            epoch: Epoch(1),
            keyspace: KeyspaceId(16),
            body: Body::Write(latitude_range::Write {
                segments: vec![segment],
                operations: vec![],
            }),
        }
    }

    /// Deltas at 10 and 20; the first is folded by entry 1, the second by entry 2, which has both.
    fn folded() -> (Folds, Deltas) {
        let host: Arc<str> = "node-1".into();
        let (mut folds, mut deltas) = (Folds::default(), Deltas::default());
        store(&mut deltas, &host, &delta(1, 10));
        store(&mut deltas, &host, &delta(1, 20));
        assert_eq!(folds.applied(RANGE, 1, &entry(101, &[10]), &deltas), None);
        assert_eq!(folds.applied(RANGE, 2, &entry(102, &[10, 20]), &deltas), None);
        (folds, deltas)
    }

    fn step(folds: &mut Folds, deltas: &Deltas, entries: (u64, u64), f: (u64, u64)) -> bool {
        folds.folds(entries, &meta(&[(1, f.0)]), &meta(&[(1, f.1)]), deltas).is_none()
    }

    #[test]
    fn what_f_passes_was_in_the_entries_that_raised_it() {
        let (mut folds, deltas) = folded();
        assert!(step(&mut folds, &deltas, (0, 1), (0, 15)));
        assert!(step(&mut folds, &deltas, (1, 2), (15, 30)));
        let (mut folds, deltas) = folded();
        assert!(!step(&mut folds, &deltas, (0, 1), (0, 30)), "20 is left out");
        let (mut folds, deltas) = folded();
        assert!(step(&mut folds, &deltas, (0, 2), (0, 30)), "in one batch");
        assert!(!step(&mut folds, &deltas, (2, 3), (30, 20)), "it goes back");
    }

    #[test]
    fn a_row_is_folded_into_by_an_entry_that_brings_something_new() {
        let (mut folds, deltas) = folded();
        let row = |at| {
            let row = ValueRow {
                stamp: stamp(at),
                ordinal: FOLDED,
                version: WriteTime::of_log_write(stamp(at), 0),
                content: Content::Deleted,
                extensions: vec![],
                past: Past::default(),
            };
            let mut batch = Batch::new();
            let key = key::base::value_key(KeyspaceId(16), &delta(1, 10).key);
            batch.put(Column::Base, key, row.encode());
            batch
        };
        step(&mut folds, &deltas, (0, 1), (0, 15));
        assert_eq!(folds.writes(&row(101)), None);
        assert!(folds.writes(&row(102)).is_some(), "nothing was new in it when it was applied");
        step(&mut folds, &deltas, (1, 2), (15, 30));
        assert_eq!(folds.writes(&row(102)), None);
    }

    #[test]
    fn what_is_folded_is_what_its_origin_took() {
        let (mut folds, deltas) = folded();
        assert!(folds.applied(RANGE, 3, &entry(103, &[30]), &deltas).is_some(), "it has no such");
    }
}

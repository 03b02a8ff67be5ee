//! Whether the replicas of a range hold the same: a checksum of what the log decides, at one index.
//!
//! ```text
//!   ... entry, entry, [Audit] entry ...        every replica, right after it applied that entry:
//!                        │
//!                        └─▶ snapshot ─▶ row, row, row ─▶ Auditor ─▶ Audited { checksum, rows, keys }
//! ```
//!
//! In it: metadata (span, epoch, origins and how far each is folded, last stamp, what was dropped up to when), the
//! answers to log writes, values with their stamps, versions and live ids, records of deleted keys, and the ids
//! beside keys. Not in it, or healthy replicas would be taken for damaged ones (`pitfalls.md`, finding 25): what
//! values follow (pasts), which a version may trim by what one node knows; and whatever is not base: deltas
//! not folded, watermarks, closed times, how far the log is applied.

use std::collections::{BTreeMap, BTreeSet};

use latitude_storage::key::{self, base::RowKind};
use latitude_types::{Past, RangeId};
use serde::{Deserialize, Serialize};

use crate::codec::DecodeError;
use crate::image::ImageChecksum;
use crate::meta::RangeMeta;
use crate::row::ValueRow;

/// What the checksum is made of. Rises when that changes, so that two versions are never compared.
pub const AUDIT_FORMAT: u32 = 1;

/// Has every replica make the checksum of its base where this stands in the log. Changes nothing there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Audit {
    /// What the checksum is to be made of: [`AUDIT_FORMAT`] of whoever wants it. A replica that knows another one
    /// says so, and is not compared.
    pub format: u32,
}

/// What a replica's base comes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Audited {
    /// Over all rows, in their order.
    pub checksum: u64,
    /// How many rows are in it.
    pub rows: u64,
    /// How many of them are keys that exist.
    pub keys: u64,
}

/// Takes in the rows of a range's base: those of its [`image_spans`](crate::image_spans), in order.
#[derive(Clone)]
pub struct Auditor {
    range: RangeId,
    checksum: ImageChecksum,
    rows: u64,
    keys: u64,
}

impl Auditor {
    /// One that has taken in nothing.
    pub fn new(range: RangeId) -> Self {
        let mut checksum = ImageChecksum::default();
        checksum.add(b"audit", &AUDIT_FORMAT.to_le_bytes());
        Self { range, checksum, rows: 0, keys: 0 }
    }

    /// Takes in the next row.
    ///
    /// # Errors
    /// It is none that this version knows, or cannot be read: the base is damaged.
    pub fn add(&mut self, row_key: &[u8], row: &[u8]) -> Result<(), DecodeError> {
        if row_key == key::local::applied(self.range) {
            return Ok(());
        }
        if row_key == key::local::meta(self.range) {
            let meta = RangeMeta { gc_past: Past::default(), ..RangeMeta::decode(row)? };
            self.take(row_key, &meta.encode());
        } else if key::local::decode_id_window(row_key).is_some() {
            self.take(row_key, row);
        } else {
            let what = "key of a row";
            let message = || format!("{row_key:02x?} is none of this version's");
            let named = key::base::decode(row_key);
            match named.ok_or_else(|| DecodeError::Damaged { what, message: message() })?.kind {
                RowKind::Id(_) => self.take(row_key, row),
                RowKind::Value => {
                    let value = ValueRow { past: Past::default(), ..ValueRow::decode(row)? };
                    self.keys += u64::from(value.exists());
                    self.take(row_key, &value.encode());
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, row_key: &[u8], row: &[u8]) {
        self.checksum.add(row_key, row);
        self.rows += 1;
    }

    /// What the rows come to.
    pub fn finish(self) -> Audited {
        Audited { checksum: self.checksum.value(), rows: self.rows, keys: self.keys }
    }
}

/// Those that differ from what most hold; all, if no content is held by more replicas than every other: then
/// nobody can say which is right.
pub fn differing<R: Ord + Copy>(audited: &BTreeMap<R, Audited>) -> BTreeSet<R> {
    let mut holders: BTreeMap<Audited, usize> = BTreeMap::new();
    audited.values().for_each(|content| *holders.entry(*content).or_default() += 1);
    let most = holders.values().copied().max().unwrap_or(0);
    let mut held_by_most = holders.iter().filter(|(_, count)| **count == most);
    let right = match (held_by_most.next(), held_by_most.next()) {
        (Some((content, _)), None) => Some(*content),
        _ => None,
    };
    let differs = |content: &Audited| Some(*content) != right;
    audited.iter().filter(|(_, content)| differs(content)).map(|(replica, _)| *replica).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use latitude_crdt::Content;
    use latitude_storage::key::{base, local};
    use latitude_types::{
        ClientId, Epoch, Key, KeySpan, KeyspaceId, NodeId, OperationId, OperationKind, Stamp,
        Timestamp, WriteTime,
    };

    use super::*;
    use crate::meta::{Origin, OriginState};

    const KEYSPACE: KeyspaceId = KeyspaceId(16);

    fn stamp(ms: u64) -> Stamp {
        Stamp { time: Timestamp::from_ms(ms), node: NodeId(1) }
    }

    fn past() -> Past {
        let mut past = Past::default();
        past.seen.raise(NodeId(3), Timestamp::from_ms(7));
        past.add_log(RangeId(9), Epoch(1), stamp(6));
        past
    }

    fn meta() -> RangeMeta {
        let mut meta = RangeMeta::new(RangeId(4), KEYSPACE, KeySpan::all(), 1024, false);
        meta.last_stamp = stamp(20);
        meta.gc_stamp = stamp(3);
        meta.origins = vec![Origin {
            node: NodeId(2),
            state: OriginState::Active,
            admitted: stamp(1),
            folded: Timestamp::from_ms(8),
            last: None,
        }];
        meta
    }

    fn value() -> ValueRow {
        ValueRow {
            stamp: stamp(9),
            ordinal: 2,
            version: WriteTime::of_log_write(stamp(9), 2),
            content: Content::Plain(Bytes::from_static(b"v")),
            extensions: vec![],
            past: Past::default(),
        }
    }

    fn id() -> OperationId {
        let birth = Timestamp::from_ms(5);
        OperationId { birth, client: ClientId([7; 16]), sequence: 3, kind: OperationKind::Local }
    }

    /// The rows of a small base, in order: metadata, applied position, an answer, a value, an id, a deleted key.
    fn rows(meta: &RangeMeta, value: &ValueRow) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (a, b) = (Key::new(b"a").unwrap(), Key::new(b"b").unwrap());
        let deleted = ValueRow { content: Content::Deleted, ..value.clone() };
        vec![
            (local::meta(meta.id), meta.encode()),
            (local::applied(meta.id), b"anything".to_vec()),
            (local::id_window(meta.id, ClientId([7; 16])), b"answers".to_vec()),
            (base::value_key(KEYSPACE, &a), value.encode()),
            (base::id_key(KEYSPACE, &a, &id()), vec![1, 0]),
            (base::value_key(KEYSPACE, &b), deleted.encode()),
        ]
    }

    fn audited(rows: &[(Vec<u8>, Vec<u8>)]) -> Audited {
        let mut auditor = Auditor::new(RangeId(4));
        rows.iter().for_each(|(key, row)| auditor.add(key, row).unwrap());
        auditor.finish()
    }

    /// Versions compare what they make of the same rows. If this changes, [`AUDIT_FORMAT`] must.
    #[test]
    fn the_checksum_of_format_1_never_changes() {
        let audited = audited(&rows(&meta(), &value()));
        assert_eq!((audited.rows, audited.keys), (5, 1));
        assert_eq!(format!("{:016x}", audited.checksum), "645bd1414ae9bb55");
    }

    /// Pitfall 25: what replicas trim for themselves must not make them differ.
    #[test]
    fn pasts_and_how_far_the_log_is_applied_are_not_in_it() {
        let expected = audited(&rows(&meta(), &value()));
        let meta = RangeMeta { gc_past: past(), ..meta() };
        let mut same = rows(&meta, &ValueRow { past: past(), ..value() });
        same[1].1 = b"anything else".to_vec();
        assert_ne!(same, rows(&self::meta(), &value()));
        assert_eq!(audited(&same), expected);
    }

    #[test]
    fn whatever_else_changes_is_noticed() {
        let usual = rows(&meta(), &value());
        let expected = audited(&usual);
        let folded = |ms| {
            let mut meta = meta();
            meta.origins[0].folded = Timestamp::from_ms(ms);
            meta
        };
        let other_values = [
            ValueRow { stamp: stamp(10), ..value() },
            ValueRow { ordinal: 3, ..value() },
            ValueRow { version: WriteTime::of_log_write(stamp(8), 2), ..value() },
            ValueRow { content: Content::Counter(1), ..value() },
        ];
        let other_metas = [
            RangeMeta { last_stamp: stamp(21), ..meta() },
            RangeMeta { epoch: Epoch(2), ..meta() },
            RangeMeta { gc_stamp: stamp(4), ..meta() },
            RangeMeta { floor: stamp(4), ..meta() },
            folded(9),
        ];
        let mut others: Vec<_> = other_values.iter().map(|value| rows(&meta(), value)).collect();
        others.extend(other_metas.iter().map(|meta| rows(meta, &value())));
        for at in [2, 4] {
            let mut other = usual.clone();
            other[at].1.push(9);
            others.push(other);
        }
        for at in [0, 2, 3, 4, 5] {
            let mut other = usual.clone();
            other.remove(at);
            others.push(other);
        }
        for other in others {
            assert_ne!(audited(&other).checksum, expected.checksum, "{other:?}");
        }
    }

    #[test]
    fn a_row_that_cannot_be_read_is_an_error() {
        let usual = rows(&meta(), &value());
        for at in [0, 3] {
            let mut auditor = Auditor::new(RangeId(4));
            assert!(auditor.add(&usual[at].0, b"\x01garbage").is_err());
        }
        let mut auditor = Auditor::new(RangeId(4));
        let mut unknown = usual[3].0.clone();
        *unknown.last_mut().unwrap() = 5;
        assert!(auditor.add(&unknown, &usual[3].1).is_err());
    }

    #[test]
    fn who_differs_is_said_by_most() {
        let of = |checksums: &[u64]| {
            let content = |checksum: &u64| Audited { checksum: *checksum, rows: 1, keys: 1 };
            let audited = (1..).zip(checksums.iter().map(content)).collect();
            differing::<u32>(&audited).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[7]), []);
        assert_eq!(of(&[7, 7, 7]), []);
        assert_eq!(of(&[7, 8, 7]), [2]);
        assert_eq!(of(&[7, 8, 7, 9, 7]), [2, 4]);
        assert_eq!(of(&[7, 8]), [1, 2], "nobody can say which");
        assert_eq!(of(&[7, 8, 8, 7, 9]), [1, 2, 3, 4, 5]);
    }
}

//! Applying log entries.

use latitude_crdt::{CONTENT_LEN_MAX, LogPlace};
use latitude_probe::{Mark, Plant};
use latitude_storage::{Column, View, key};
use latitude_types::{
    Error, NodeId, OperationKind, Past, RangeId, Reason, Stamp, Timestamp, WriteTime,
};
use serde::{Deserialize, Serialize};

use crate::codec::DecodeError;
use crate::delta::Delta;
use crate::entry::{Admission, Body, Carried, Entry, Operation, Segment};
use crate::fold::has_folded;
use crate::ids::{Answer, IdTable, Lookup};
use crate::merge::Place;
use crate::meta::{FEATURE_LEVEL, Origin, OriginState, RangeMeta};
use crate::row::FOLDED;
use crate::staged::Staged;
use crate::sweep::{self, Change, Sweep};

/// One key range, replayed identically on every replica.
///
/// Holds in memory what every entry needs (the metadata and the ids); both are rows of the base too,
/// written in the same batch as what the entry did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    meta: RangeMeta,
    ids: IdTable,
    /// Applying failed, maybe half-way through an entry: what is in memory is good for nothing any more.
    failed: Option<ApplyError>,
}

/// What applying an entry answers its proposer: one reply for each operation, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// In the order of the entry's operations.
    pub replies: Vec<Reply>,
}

/// The reply to one operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// What it did, or why it did nothing.
    pub result: Result<Done, Refusal>,
    /// The id was known: `result` is what the first copy was answered.
    pub duplicate: bool,
    /// What `result` follows, where it tells of what was found; not kept for later copies.
    pub follows: Past,
}

/// What a log write did.
///
/// The order of the variants is a format: a new one goes to the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Done {
    /// The key was written, or deleted; this is the version it has now.
    Written {
        /// The new version.
        version: WriteTime,
    },
    /// The condition did not hold; this is the version found, if the key exists.
    Mismatch {
        /// The version found.
        found: Option<WriteTime>,
    },
    /// The sum would have been out of bounds; this is the one found.
    OutOfBounds {
        /// The sum found.
        found: i64,
    },
    /// A counter was added to.
    Added {
        /// The version it has now.
        version: WriteTime,
        /// The sum it has now, at the ends of its range if it lies beyond them.
        sum: i64,
    },
}

/// Why an operation had no effect: decided by the log alone, so that every replica refuses alike.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The entry's stamp is not above the last one (INV-3): propose again with a new stamp.
    Restamp,
    /// The key is not in the range at the entry's place in the log.
    Moved,
    /// The entry belongs to another keyspace.
    KeyspaceChanged,
    /// The id's birth is more than ten minutes before the stamp.
    IdExpired,
    /// The id's birth is after the stamp.
    IdFromFuture,
    /// The client had the answer to this id, and it is no longer kept.
    IdRetired,
    /// The range is frozen, to be merged.
    Frozen,
    /// Local writes that the operation needs in the base are not folded yet.
    NotFolded,
    /// The type of the range's values has no such operation.
    Misfit,
    /// The key holds as much as it may.
    Full,
}

impl Refusal {
    /// As a client's error.
    pub fn into_error(self) -> Error {
        match self {
            Self::Restamp => {
                Error::new(Reason::LeaderChanged, "the write lost its place in the log: retry")
            }
            Self::Moved => Error::new(
                Reason::RangeMoved,
                "the key moved to another range: learn the ranges again",
            ),
            Self::KeyspaceChanged => Error::new(
                Reason::KeyspaceChanged,
                "the keyspace is another one than the request was routed by",
            ),
            // An earlier copy may have taken effect: that is no longer known, which is why it is refused.
            Self::IdExpired => Error::unknown(
                Reason::IdExpired,
                "the write's id is more than ten minutes old, so it is no longer known whether an earlier \
                 copy of the write took effect: read, and write again with a new id if it did not",
            ),
            Self::IdFromFuture => Error::new(
                Reason::IdFromFuture,
                "the write's id was born after this cluster's clock: make births from the clock in replies",
            ),
            Self::Frozen => Error::new(
                Reason::RangeFrozen,
                "the range is frozen for a moment, to be merged: try again",
            ),
            Self::NotFolded => Error::new(
                Reason::NotFolded,
                "local writes of the session are not in the range's log yet: try again",
            ),
            Self::Full => Error::new(
                Reason::ValueTooLarge,
                format!(
                    "the key holds more than {CONTENT_LEN_MAX} bytes already, and takes no more: remove some of it, or \
                     spread it over several keys"
                ),
            ),
            Self::Misfit => Error::new(
                Reason::TypeMismatch,
                "values of the keyspace's type have no such operation",
            ),
            // Its answer is gone, whether it was that the write happened or that it was refused.
            Self::IdRetired => Error::unknown(
                Reason::IdRetired,
                "the write was answered before and its answer is no longer kept",
            ),
        }
    }
}

/// Applying failed for a reason that is not in the log: this replica must stop, or it would differ from
/// the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] latitude_storage::Error),
    /// The log or the base holds what this version cannot read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The entry uses what this version does not know.
    #[error("the entry uses {0}, which this version does not know")]
    Unsupported(&'static str),
    /// The base has no such range.
    #[error("the store holds no base of range {0}")]
    Missing(RangeId),
}

impl Range {
    /// Puts the rows of a range that has applied nothing into `staged`.
    pub fn create(meta: &RangeMeta, staged: &mut Staged<'_>) {
        staged.put(key::local::meta(meta.id), meta.encode());
    }

    /// The range as its base in `view` has it.
    pub fn open(id: RangeId, view: &dyn View) -> Result<Self, ApplyError> {
        let meta = read_meta(id, view)?;
        let mut ids = IdTable::default();
        for row in view.scan(Column::Base, key::local::id_windows(id).into()) {
            let (key, row) = row?;
            let (_, client) = key::local::decode_id_window(&key).ok_or(DecodeError::Damaged {
                what: "key of an id window",
                message: "wrong length".into(),
            })?;
            ids.load(client, &row)?;
        }
        Ok(Self { meta, ids, failed: None })
    }

    /// The range's metadata after the last entry applied.
    pub fn meta(&self) -> &RangeMeta {
        &self.meta
    }

    /// The ids of log writes that are still known.
    pub fn ids(&self) -> &IdTable {
        &self.ids
    }

    /// The stamp of the last entry applied.
    pub fn last_stamp(&self) -> Stamp {
        self.meta.last_stamp
    }

    /// Applies a committed entry on top of `staged`. The same entry on the same base gives the same
    /// writes and replies, on every replica.
    ///
    /// # Errors
    /// Only what is not in the log; the replica must stop, and nothing staged may be written. The entry
    /// may have been applied half-way, so every later call fails with the same error.
    pub fn apply(&mut self, entry: &Entry, staged: &mut Staged<'_>) -> Result<Applied, ApplyError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let applied = self.apply_whole(entry, staged);
        self.failed = applied.as_ref().err().cloned();
        applied
    }

    fn apply_whole(
        &mut self,
        entry: &Entry,
        staged: &mut Staged<'_>,
    ) -> Result<Applied, ApplyError> {
        if self.meta.feature_level > FEATURE_LEVEL {
            return Err(ApplyError::Unsupported("a newer feature level"));
        }
        let operations: &[Operation] = match &entry.body {
            Body::Write(write) => &write.operations,
            _ => &[],
        };
        if operations.iter().any(|operation| !operation.extensions.is_empty()) {
            return Err(ApplyError::Unsupported("an extension"));
        }
        let refuse_all = |refusal: Refusal| Applied {
            replies: operations.iter().map(|_| Reply::refused(refusal.clone())).collect(),
        };
        if entry.stamp <= self.meta.last_stamp || entry.stamp <= self.meta.floor {
            return Ok(refuse_all(Refusal::Restamp));
        }
        self.meta.last_stamp = entry.stamp;
        self.ids.expire(entry.stamp.time);
        let applied = if entry.keyspace != self.meta.keyspace || entry.range != self.meta.id {
            refuse_all(Refusal::KeyspaceChanged)
        } else if self.meta.freeze.is_some() {
            refuse_all(Refusal::Frozen)
        } else {
            match &entry.body {
                Body::Write(write) => {
                    for segment in &write.segments {
                        self.apply_segment(entry.stamp, segment, staged)?;
                    }
                }
                Body::Admit(node) => self.admit(*node, entry.stamp),
                Body::AdmitAgain(of) => self.admit_again(*of, entry.stamp),
                Body::Seal(of) => self.seal(*of),
                Body::Sealed(of, last) => self.sealed(*of, *last, entry.stamp),
                Body::Sweep(sweep) => self.sweep(sweep, staged)?,
                // What is to be looked at is what this entry leaves behind.
                Body::Audit(_) => {}
            }
            let mut replies = Vec::with_capacity(operations.len());
            for (ordinal, operation) in (0..).zip(operations) {
                replies.push(self.apply_operation(entry.stamp, ordinal, operation, staged)?);
            }
            Applied { replies }
        };
        self.stage_own_rows(staged);
        Ok(applied)
    }

    fn place(&self, stamp: Stamp, ordinal: u32) -> Place {
        let RangeMeta { keyspace, value_type, .. } = self.meta;
        Place { keyspace, value_type, at: LogPlace { stamp, ordinal } }
    }

    /// The node may take local writes from here on, above this stamp. No effect on one that may already, or
    /// might once and has stopped.
    fn admit(&mut self, node: NodeId, stamp: Stamp) {
        if self.meta.log_only {
            return;
        }
        if let Err(at) = self.meta.origins.binary_search_by_key(&node, |origin| origin.node) {
            let origin = Origin {
                node,
                state: OriginState::Active,
                admitted: stamp,
                folded: stamp.time,
                last: None,
            };
            self.meta.origins.insert(at, origin);
        }
    }

    /// An origin that was sealed may take local writes again, above this stamp. All it took before is folded, and
    /// it took nothing since.
    fn admit_again(&mut self, of: Admission, stamp: Stamp) {
        if let Some(origin) = self.origin_in(of, OriginState::Sealed) {
            let state = OriginState::Active;
            *origin = Origin { state, admitted: stamp, folded: stamp.time, last: None, ..*origin };
        }
    }

    /// The origin is to stop, once it has applied this.
    fn seal(&mut self, of: Admission) {
        if let Some(origin) = self.origin_in(of, OriginState::Active) {
            origin.state = OriginState::Sealing;
        }
    }

    /// The origin has stopped and took nothing above `last`. No effect while that is not folded: the base must have
    /// all of it before anybody stops waiting for more.
    fn sealed(&mut self, of: Admission, last: Timestamp, stamp: Stamp) {
        let Some(origin) = self.origin_in(of, OriginState::Sealing) else { return };
        if last <= origin.folded && last < stamp.time {
            (origin.state, origin.last) = (OriginState::Sealed, Some(last));
        }
    }

    /// An origin under this admission, in this state.
    fn origin_in(&mut self, of: Admission, state: OriginState) -> Option<&mut Origin> {
        let mut origins = self.meta.origins.iter_mut();
        origins.find(|origin| origin.admission() == of && origin.state == state)
    }

    /// Drops what need not be kept any more of part of the range, as its base and the entry's stamp decide.
    fn sweep(&mut self, sweep: &Sweep, staged: &mut Staged<'_>) -> Result<(), ApplyError> {
        let looked = sweep::look(&self.meta, self.meta.last_stamp.time, sweep, staged)?;
        for change in looked.into_changes() {
            match change {
                Change::Id { row } => staged.delete(row),
                Change::Deleted { row, stamp, past } => {
                    // Whoever finds nothing now follows what the record said.
                    self.meta.gc_stamp = self.meta.gc_stamp.max(stamp);
                    self.meta.gc_past.join(&past);
                    staged.delete(row);
                }
                Change::Shortened { row, value } => staged.put(row, value),
            }
        }
        self.meta.gc_past.seen.drop_up_to(&sweep.stable);
        Ok(())
    }

    /// Takes deltas into the base: exactly those of the segment that are positioned above what is folded, in
    /// order. A segment that begins above it is skipped as a whole: what lies between would be lost.
    fn apply_segment(
        &mut self,
        stamp: Stamp,
        segment: &Segment,
        staged: &mut Staged<'_>,
    ) -> Result<(), ApplyError> {
        let meta = &self.meta;
        let Ok(at) = meta.origins.binary_search_by_key(&segment.origin, |origin| origin.node)
        else {
            return Ok(());
        };
        let Origin { folded, last, .. } = meta.origins[at];
        let to = last.map_or(segment.to, |last| segment.to.min(last));
        // A segment of part of the range cannot say how far all of it is folded.
        let covers = segment.span.intersection(&meta.span).as_ref() == Some(&meta.span);
        if segment.from < folded && folded < to {
            Mark::SegmentFoldedInPart.hit();
        }
        if segment.from > folded && !Plant::FoldGap.is_on()
            || to <= folded
            || stamp.time <= to
            || !covers
        {
            return Ok(());
        }
        for carried in &segment.deltas {
            let Carried::Whole(bytes) = carried else {
                return Err(ApplyError::Unsupported("a delta that is not there"));
            };
            let delta = Delta::decode(bytes)?;
            let is_folded = delta.position <= folded && !Plant::FoldTwice.is_on();
            if is_folded || delta.position > to {
                continue;
            }
            // No origin takes one that does not fit; one that did must not stop every replica.
            let fits = delta.op.check(meta.value_type, OperationKind::Local).is_ok();
            if fits && meta.span.contains(delta.key.as_bytes()) {
                self.place(stamp, FOLDED).fold(&delta, staged)?;
            }
        }
        self.meta.origins[at].folded = to;
        Ok(())
    }

    fn apply_operation(
        &mut self,
        stamp: Stamp,
        ordinal: u32,
        operation: &Operation,
        staged: &mut Staged<'_>,
    ) -> Result<Reply, ApplyError> {
        let id = &operation.id;
        match self.ids.look_up(id) {
            Lookup::Known(answer) => {
                Mark::DuplicateAnswered.hit();
                let (result, follows) = (Ok(answer.done), Past::default());
                return Ok(Reply { result, duplicate: true, follows });
            }
            Lookup::Retired => {
                Mark::IdRetired.hit();
                return Ok(Reply::refused(Refusal::IdRetired));
            }
            Lookup::New => {}
        }
        if let Some(refusal) = refuse_id(id.birth, id.expires_at(), stamp.time) {
            return Ok(Reply::refused(refusal));
        }
        // The span decides, not the entry's epoch. The epoch says how the proposer saw the range, and a
        // split or merge may have come between; but who owns a key is the business of this place in the
        // log. Inside the span the write belongs here whatever the proposer saw: conditions and ids are
        // judged here and now, the ids came along with the keys, and the stamp is above that of the
        // change (INV-3). Refusing it for its epoch would only turn away writes to keys that stayed.
        if !self.meta.span.contains(operation.key.as_bytes()) {
            return Ok(Reply::refused(Refusal::Moved));
        }
        if !has_folded(&self.meta.origins, &operation.need) {
            return Ok(Reply::refused(Refusal::NotFolded));
        }
        if operation.op.check(self.meta.value_type, OperationKind::Log).is_err() {
            return Ok(Reply::refused(Refusal::Misfit));
        }
        let (done, mut follows) = match self.place(stamp, ordinal).log_write(operation, staged)? {
            Ok(written) => written,
            Err(refusal) => return Ok(Reply::refused(refusal)),
        };
        if operation.op.tells_what_it_found() {
            // What was not there may have been dropped; the stamps of that lie below the entry's.
            follows.join(&self.meta.gc_past);
        }
        self.ids.record(id, operation.answered_below, Answer { done: done.clone() });
        Ok(Reply { result: Ok(done), duplicate: false, follows })
    }

    fn stage_own_rows(&mut self, staged: &mut Staged<'_>) {
        let range = self.meta.id;
        for (client, row) in self.ids.take_dirty(self.meta.last_stamp.time) {
            let key = key::local::id_window(range, client);
            match row {
                Some(row) => staged.put(key, row),
                None => staged.delete(key),
            }
        }
        staged.put(key::local::meta(range), self.meta.encode());
    }
}

impl Reply {
    fn refused(refusal: Refusal) -> Self {
        Self { result: Err(refusal), duplicate: false, follows: Past::default() }
    }
}

/// Ids are taken while `birth ≤ stamp ≤ birth + 10 min`.
fn refuse_id(birth: Timestamp, expires_at: Timestamp, stamp: Timestamp) -> Option<Refusal> {
    if birth > stamp {
        Some(Refusal::IdFromFuture)
    } else if stamp > expires_at {
        Some(Refusal::IdExpired)
    } else {
        None
    }
}

/// The metadata row of a range.
pub(crate) fn read_meta(id: RangeId, view: &dyn View) -> Result<RangeMeta, ApplyError> {
    let row = view.get(Column::Base, &key::local::meta(id))?.ok_or(ApplyError::Missing(id))?;
    Ok(RangeMeta::decode(&row)?)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use latitude_crdt::{Expected, Op, ValueType};
    use latitude_storage::Rows;
    use latitude_types::{
        ClientId, Epoch, Key, KeySpan, KeyspaceId, Level, NodeId, OperationId, OperationKind, Past,
        Positions,
    };

    use super::*;
    use crate::entry::{Extension, Write};

    /// A store with the metadata of one range and nothing else, where key `bad` cannot be read.
    struct OneRange(Bytes);

    impl View for OneRange {
        fn get(&self, _: Column, key: &[u8]) -> latitude_storage::Result<Option<Bytes>> {
            if key == key::base::value_key(KeyspaceId(16), &Key::new(b"bad").unwrap()) {
                let kind = latitude_storage::Kind::Io;
                return Err(latitude_storage::Error::new(kind, "the disk says no"));
            }
            Ok((key == key::local::meta(RangeId(4))).then(|| self.0.clone()))
        }

        fn scan(&self, _: Column, _: latitude_storage::Scan) -> Rows<'_> {
            Box::new(std::iter::empty())
        }
    }

    fn one_range() -> OneRange {
        let meta = RangeMeta::new(RangeId(4), KeyspaceId(16), KeySpan::all(), 1024, false);
        OneRange(meta.encode().into())
    }

    fn operation(sequence: u64, key: &[u8], op: Op) -> Operation {
        let birth = Timestamp::from_ms(1);
        let client = ClientId([1; 16]);
        Operation {
            id: OperationId { birth, client, sequence, kind: OperationKind::Log },
            answered_below: 1,
            level: Level::Strict,
            key: Key::new(key).unwrap(),
            op,
            named: vec![],
            need: Positions::default(),
            past: Past::default(),
            extensions: vec![],
        }
    }

    fn entry(ms: u64, operations: Vec<Operation>) -> Entry {
        Entry {
            stamp: Stamp { time: Timestamp::from_ms(ms), node: NodeId(1) },
            range: RangeId(4),
            epoch: Epoch(1),
            keyspace: KeyspaceId(16),
            body: Body::Write(Write { segments: vec![], operations }),
        }
    }

    #[test]
    fn a_range_that_failed_to_apply_an_entry_applies_no_other() {
        let view = one_range();
        let mut range = Range::open(RangeId(4), &view).unwrap();
        let mut staged = Staged::new(&view);
        let new_value = Some(Bytes::from_static(b"v"));
        let op = Op::CompareAndSet { expected: Expected::Absent, new_value };
        let halfway = entry(5, vec![operation(1, b"a", Op::Delete), operation(2, b"bad", op)]);
        let error = range.apply(&halfway, &mut staged).unwrap_err();
        assert!(matches!(error, ApplyError::Storage(_)));
        let next = entry(6, vec![operation(3, b"a", Op::Delete)]);
        assert_eq!(range.apply(&next, &mut staged), Err(error));
    }

    /// What B10 needs of the log: from the freeze on the range takes nothing, so that what its neighbour takes
    /// over is all there is.
    #[test]
    fn a_frozen_range_takes_no_write() {
        let mut meta = RangeMeta::new(RangeId(4), KeyspaceId(16), KeySpan::all(), 1024, false);
        meta.freeze = Some(Timestamp::from_ms(3));
        let view = OneRange(meta.encode().into());
        let mut range = Range::open(RangeId(4), &view).unwrap();
        let put = operation(1, b"a", Op::Put { value: Bytes::from_static(b"v") });
        let mut staged = Staged::new(&view);
        let applied = range.apply(&entry(5, vec![put]), &mut staged).unwrap();
        assert_eq!(applied.replies[0].result, Err(Refusal::Frozen));
        assert!(!Refusal::Frozen.into_error().may_have_applied());
    }

    /// Pitfall B5, first half: a log write wins by its stamp, wherever its client thought it was; and one born
    /// above its stamp is refused.
    #[test]
    fn b5_a_birth_wins_nothing_in_the_log() {
        let view = one_range();
        let mut range = Range::open(RangeId(4), &view).unwrap();
        let mut staged = Staged::new(&view);
        let put = |sequence, birth| {
            let mut put = operation(sequence, b"a", Op::Put { value: Bytes::from_static(b"v") });
            put.id.birth = Timestamp::from_ms(birth);
            put
        };
        let first = range.apply(&entry(130, vec![put(1, 100)]), &mut staged).unwrap();
        let second = range.apply(&entry(140, vec![put(2, 50)]), &mut staged).unwrap();
        let version = |applied: &Applied| match &applied.replies[0].result {
            Ok(Done::Written { version }) => *version,
            other => panic!("{other:?}"),
        };
        assert!(version(&second) > version(&first), "born earlier, stamped later: it wins");
        let ahead = range.apply(&entry(150, vec![put(3, 500)]), &mut staged).unwrap();
        assert_eq!(ahead.replies[0].result, Err(Refusal::IdFromFuture));
    }

    /// And whoever was refused may ask again, under the same id.
    #[test]
    fn a_full_key_takes_no_more_through_the_log_until_there_is_room() {
        let mut meta = RangeMeta::new(RangeId(4), KeyspaceId(16), KeySpan::all(), 1024, false);
        meta.value_type = ValueType::Map;
        let view = OneRange(meta.encode().into());
        let mut range = Range::open(RangeId(4), &view).unwrap();
        let mut staged = Staged::new(&view);
        let put = |sequence, field: &'static str, len| {
            let field = Bytes::from_static(field.as_bytes());
            operation(sequence, b"a", Op::MapPut { field, value: vec![0; len].into() })
        };
        let delete = operation(4, b"a", Op::MapRemove { field: Bytes::from_static(b"long") });
        let operations = vec![
            put(1, "long", CONTENT_LEN_MAX),
            put(2, "short", 1),
            put(3, "long", CONTENT_LEN_MAX),
            put(2, "short", 1),
            delete,
            put(2, "short", 1),
        ];
        let applied = range.apply(&entry(5, operations), &mut staged).unwrap();
        let refused: Vec<_> = applied.replies.iter().map(|reply| reply.result.is_err()).collect();
        assert_eq!(refused, [false, true, false, true, false, false]);
        assert_eq!(applied.replies[1].result, Err(Refusal::Full));
        assert!(!Refusal::Full.into_error().may_have_applied());
    }

    #[test]
    fn an_id_no_longer_known_may_have_taken_effect() {
        assert!(Refusal::IdExpired.into_error().may_have_applied());
        assert!(Refusal::IdRetired.into_error().may_have_applied());
        assert!(!Refusal::IdFromFuture.into_error().may_have_applied());
        assert!(!Refusal::Moved.into_error().may_have_applied());
    }

    #[test]
    fn what_this_version_does_not_know_stops_the_replica() {
        let view = one_range();
        let mut extended = operation(1, b"a", Op::Delete);
        extended.extensions.push(Extension { kind: 1, body: Bytes::new() });
        let mut folding = entry(5, vec![]);
        let Body::Write(write) = &mut folding.body else { panic!("it is a write") };
        write.segments.push(Segment {
            origin: NodeId(1),
            from: Timestamp::ZERO,
            to: Timestamp::from_ms(4),
            span: KeySpan::all(),
            deltas: vec![Carried::Stripped(Timestamp::from_ms(4), 7)],
        });
        let what_folds = "a delta that is not there";
        for (entry, what) in [(entry(5, vec![extended]), "an extension"), (folding, what_folds)] {
            let mut range = Range::open(RangeId(4), &view).unwrap();
            range.admit(NodeId(1), Stamp { time: Timestamp::from_ms(2), node: NodeId(1) });
            let applied = range.apply(&entry, &mut Staged::new(&view));
            assert_eq!(applied, Err(ApplyError::Unsupported(what)));
        }
    }
}

//! A log entry: many operations and, later, folds, under one stamp.
//!
//! ```text
//!   ┌─────────┬──────┬───────┬───────┬───────┬──────────┬───────────────────────────┐
//!   │ version │ kind │ stamp │ range │ epoch │ keyspace │ body: segments, operations │
//!   └─────────┴──────┴───────┴───────┴───────┴──────────┴───────────────────────────┘
//! ```
//!
//! The kind is must-understand: a replica that meets one it does not know stops. A kind is enabled by
//! the range's feature level, which only rises through the log, so that no leader proposes what a
//! voter cannot apply.

use bytes::Bytes;
use latitude_crdt::{Expected, Op};
use latitude_types::{
    Epoch, Key, KeySpan, KeyspaceId, Level, NodeId, OperationId, Past, Positions, RangeId, Stamp,
    Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::audit::Audit;
use crate::codec::{self, DecodeError};
use crate::sweep::Sweep;

const VERSION: u8 = 1;

/// What an entry is. The numbers of those not built yet are reserved, so that they mean the same for
/// ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// Segments of a fold and operations.
    Write = 1,
    /// A node becomes an origin of the range.
    Admit = 2,
    /// An origin is to stop taking local writes.
    Seal = 3,
    /// An origin has stopped, at this position.
    Sealed = 4,
    /// An origin is lost, at this position.
    Lost = 5,
    /// What a lost origin still had is brought in.
    Salvage = 6,
    /// An origin is forgotten.
    Forget = 7,
    /// The range is cut in two.
    Split = 8,
    /// The range stops, to be merged into its left neighbour.
    Freeze = 9,
    /// The range goes on after all.
    Thaw = 10,
    /// The frozen right neighbour is taken in.
    Merge = 11,
    /// The feature level rises.
    Feature = 12,
    /// What of part of the range is kept against latecomers, and need not be any more, goes.
    Sweep = 13,
    /// Every replica makes the checksum of its base, at this place in the log.
    Audit = 14,
}

/// A log entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its place in the one total order; above the stamp of every entry before it in this log.
    pub stamp: Stamp,
    /// The range it was proposed in.
    pub range: RangeId,
    /// The range's epoch when it was proposed.
    pub epoch: Epoch,
    /// The keyspace of everything in it.
    pub keyspace: KeyspaceId,
    /// What it does.
    pub body: Body,
}

/// What an entry does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Kind [`EntryKind::Write`].
    Write(Write),
    /// Kind [`EntryKind::Admit`]: this node, which never could, may take local writes from here on.
    Admit(NodeId),
    /// The same kind: one that was sealed may take them again.
    AdmitAgain(Admission),
    /// Kind [`EntryKind::Seal`]: this origin is to stop.
    Seal(Admission),
    /// Kind [`EntryKind::Sealed`]: this origin has stopped, and took nothing above this position.
    Sealed(Admission, Timestamp),
    /// Kind [`EntryKind::Sweep`]: what may go of these keys, goes.
    Sweep(Sweep),
    /// Kind [`EntryKind::Audit`]: nothing changes; whoever applies it looks at what it has.
    Audit(Audit),
}

/// A node's admission as an origin. What changes an origin names it, so that an entry that comes late has no
/// effect on one that has been admitted again meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Admission {
    /// The node.
    pub node: NodeId,
    /// The stamp that admitted it.
    pub stamp: Stamp,
}

/// Folds, then operations, applied in this order in one batch.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Write {
    /// Deltas that the base takes in.
    pub segments: Vec<Segment>,
    /// Log writes; their place here is their ordinal.
    pub operations: Vec<Operation>,
}

/// A stretch of one origin's stream of local writes, to be folded into the base.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Segment {
    /// The node that took the local writes.
    pub origin: NodeId,
    /// The segment holds every delta of the origin in the span positioned above this ...
    pub from: Timestamp,
    /// ... up to and including this.
    pub to: Timestamp,
    /// The keys it covers.
    pub span: KeySpan,
    /// The deltas, in the order of their positions.
    pub deltas: Vec<Carried>,
}

/// A delta in a segment: whole, or named by its hash where the receiver is known to hold it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Carried {
    /// The bytes of a [`Delta`](crate::Delta).
    Whole(Bytes),
    /// Its position and the hash of its bytes.
    Stripped(Timestamp, u64),
}

/// One log write.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Operation {
    /// With it the write takes effect at most once.
    pub id: OperationId,
    /// Every sequence of the client below this one has been answered for good or given up: the client
    /// sends none of them again, and a copy still under way need not take effect.
    pub answered_below: u64,
    /// The level it was sent at; strict and sequential writes are applied alike.
    pub level: Level,
    /// The key.
    pub key: Key,
    /// What to do with it.
    pub op: Op,
    /// The ids of live elements it ends (sets, maps, flags, siblings).
    pub named: Vec<OperationId>,
    /// What must have been folded before it: the session's own local writes.
    pub need: Positions,
    /// The session's past.
    pub past: Past,
    /// Room for what is to come (expiry, transaction, result wish). Must-understand: an entry with one
    /// this version does not know stops the replica.
    pub extensions: Vec<Extension>,
}

impl Segment {
    /// About how many bytes it brings.
    pub fn size(&self) -> usize {
        let size = |carried: &Carried| match carried {
            Carried::Whole(bytes) => bytes.len(),
            Carried::Stripped(..) => size_of::<(Timestamp, u64)>(),
        };
        self.deltas.iter().map(size).sum()
    }
}

impl Operation {
    /// About how many bytes it brings.
    pub fn size(&self) -> usize {
        let named = self.named.len() * size_of::<OperationId>();
        self.key.as_bytes().len() + op_size(&self.op) + named
    }
}

/// How many bytes an operation brings.
pub(crate) fn op_size(op: &Op) -> usize {
    match op {
        Op::Put { value } => value.len(),
        Op::CompareAndSet { expected, new_value } => {
            let compared = match expected {
                Expected::Value(value) => value.len(),
                _ => 0,
            };
            compared + new_value.as_ref().map_or(0, Bytes::len)
        }
        Op::SetAdd { element } | Op::SetRemove { element } => element.len(),
        Op::MapPut { field, value } => field.len() + value.len(),
        Op::MapRemove { field } => field.len(),
        Op::Delete
        | Op::Add { .. }
        | Op::AddWithin { .. }
        | Op::Reset
        | Op::Enable
        | Op::Disable => 0,
    }
}

/// Something a later version adds to an operation or a value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Extension {
    /// What it is.
    pub kind: u16,
    /// Its content.
    pub body: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Header {
    stamp: Stamp,
    range: RangeId,
    epoch: Epoch,
    keyspace: KeyspaceId,
}

impl Entry {
    /// The entry as it stands in the log.
    pub fn encode(&self) -> Bytes {
        let header = Header {
            stamp: self.stamp,
            range: self.range,
            epoch: self.epoch,
            keyspace: self.keyspace,
        };
        let kind = match self.body {
            Body::Write(_) => EntryKind::Write,
            Body::Admit(_) | Body::AdmitAgain(_) => EntryKind::Admit,
            Body::Seal(_) => EntryKind::Seal,
            Body::Sealed(..) => EntryKind::Sealed,
            Body::Sweep(_) => EntryKind::Sweep,
            Body::Audit(_) => EntryKind::Audit,
        };
        let mut bytes = codec::encode(VERSION, &(kind as u8));
        bytes = postcard::to_extend(&header, bytes).expect("our structures serialize");
        bytes = match &self.body {
            Body::Write(write) => postcard::to_extend(write, bytes),
            Body::Admit(node) => postcard::to_extend(node, bytes),
            Body::AdmitAgain(of) | Body::Seal(of) => postcard::to_extend(of, bytes),
            Body::Sealed(of, last) => postcard::to_extend(&(of, last), bytes),
            Body::Sweep(sweep) => postcard::to_extend(sweep, bytes),
            Body::Audit(audit) => postcard::to_extend(audit, bytes),
        }
        .expect("our structures serialize");
        bytes.into()
    }

    /// The entry of these bytes.
    ///
    /// # Errors
    /// [`DecodeError::Kind`] for a kind this version does not know: the replica must stop.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let damaged = |error: postcard::Error| DecodeError::Damaged {
            what: "log entry",
            message: error.to_string(),
        };
        const WRITE: u8 = EntryKind::Write as u8;
        const ADMIT: u8 = EntryKind::Admit as u8;
        const SEAL: u8 = EntryKind::Seal as u8;
        const SEALED: u8 = EntryKind::Sealed as u8;
        const SWEEP: u8 = EntryKind::Sweep as u8;
        const AUDIT: u8 = EntryKind::Audit as u8;
        match bytes {
            [VERSION, kind @ (WRITE | ADMIT | SEAL | SEALED | SWEEP | AUDIT), rest @ ..] => {
                let (header, rest) = postcard::take_from_bytes::<Header>(rest).map_err(damaged)?;
                let Header { stamp, range, epoch, keyspace } = header;
                let body = match *kind {
                    WRITE => Body::Write(codec::decode_to_end("log entry", rest)?),
                    SWEEP => Body::Sweep(codec::decode_to_end("log entry", rest)?),
                    AUDIT => Body::Audit(codec::decode_to_end("log entry", rest)?),
                    SEAL => Body::Seal(codec::decode_to_end("log entry", rest)?),
                    SEALED => {
                        let (of, last) = codec::decode_to_end("log entry", rest)?;
                        Body::Sealed(of, last)
                    }
                    // Whoever was never admitted has no admission to name.
                    _ => match postcard::take_from_bytes::<NodeId>(rest).map_err(damaged)? {
                        (node, []) => Body::Admit(node),
                        _ => Body::AdmitAgain(codec::decode_to_end("log entry", rest)?),
                    },
                };
                Ok(Self { stamp, range, epoch, keyspace, body })
            }
            [VERSION, kind, ..] => Err(DecodeError::Kind(*kind)),
            [found, ..] => {
                Err(DecodeError::Version { what: "log entry", found: *found, known: VERSION })
            }
            [] => Err(DecodeError::Damaged { what: "log entry", message: "it is empty".into() }),
        }
    }

    /// What is to be audited once this encoded entry is applied, if it is such an entry.
    ///
    /// # Errors
    /// As [`Entry::decode`].
    pub fn audit_of(bytes: &[u8]) -> Result<Option<Audit>, DecodeError> {
        const AUDIT: u8 = EntryKind::Audit as u8;
        match bytes {
            [VERSION, AUDIT, ..] => match Self::decode(bytes)?.body {
                Body::Audit(audit) => Ok(Some(audit)),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// The stamp of an encoded entry, without reading the rest: what a new leader must be above.
    pub fn stamp_of(bytes: &[u8]) -> Option<Stamp> {
        match bytes {
            [VERSION, _, rest @ ..] => {
                Some(postcard::take_from_bytes::<Header>(rest).ok()?.0.stamp)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::{ClientId, OperationKind};

    use super::*;

    fn entry() -> Entry {
        let id = OperationId {
            birth: Timestamp::from_ms(5),
            client: ClientId([7; 16]),
            sequence: 3,
            kind: OperationKind::Log,
        };
        let operation = Operation {
            id,
            answered_below: 2,
            level: Level::Strict,
            key: Key::new(b"k").unwrap(),
            op: Op::Put { value: Bytes::from_static(b"v") },
            named: vec![],
            need: Positions::default(),
            past: Past::default(),
            extensions: vec![],
        };
        Entry {
            stamp: Stamp { time: Timestamp::from_ms(9), node: NodeId(1) },
            range: RangeId(4),
            epoch: Epoch(1),
            keyspace: KeyspaceId(16),
            body: Body::Write(Write { segments: vec![], operations: vec![operation] }),
        }
    }

    /// Entries are made up by it, and one that is larger than a message between nodes can be sent to nobody.
    #[test]
    fn what_is_compared_and_what_is_named_count_for_the_size_of_an_operation() {
        let Body::Write(Write { operations, .. }) = entry().body else { panic!("it writes") };
        let operation = &operations[0];
        let of = |op, named| {
            let named = vec![operation.id; named];
            Operation { op, named, ..operation.clone() }
        };
        let value = |len| Bytes::from(vec![0; len]);
        let none = of(Op::Delete, 0).size();
        let compared = Op::CompareAndSet {
            expected: Expected::Value(value(1 << 20)),
            new_value: Some(value(1 << 10)),
        };
        assert!(of(compared, 0).size() >= none + (1 << 20) + (1 << 10));
        assert!(of(Op::Delete, 1_000).size() >= none + 1_000 * 24);
    }

    #[test]
    fn an_entry_decodes_to_itself_and_its_stamp_can_be_read_alone() {
        let bytes = entry().encode();
        assert_eq!(Entry::decode(&bytes), Ok(entry()));
        assert_eq!(Entry::stamp_of(&bytes), Some(entry().stamp));
    }

    /// The bytes on disk and on the wire. If this changes, [`VERSION`] must.
    #[test]
    fn the_layout_of_version_1_never_changes() {
        let hex: String = entry().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("entry_v1.hex").trim());
    }

    /// The bytes of what changes origins, as those of a write above.
    #[test]
    fn the_layouts_of_changes_of_origins_in_version_1_never_change() {
        let stamp = Stamp { time: Timestamp::from_ms(7), node: NodeId(2) };
        let of = Admission { node: NodeId(3), stamp };
        let header = "8080801201040110";
        for (body, kind, rest) in [
            (Body::Admit(NodeId(3)), "02", "03"),
            (Body::AdmitAgain(of), "02", "038080800e02"),
            (Body::Seal(of), "03", "038080800e02"),
            (Body::Sealed(of, Timestamp::from_ms(8)), "04", "038080800e0280808010"),
        ] {
            let entry = Entry { body, ..entry() };
            let hex: String = entry.encode().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, format!("01{kind}{header}{rest}"));
            assert_eq!(Entry::decode(&entry.encode()), Ok(entry.clone()));
            assert_eq!(Entry::stamp_of(&entry.encode()), Some(entry.stamp));
            assert!(Entry::decode(&[&entry.encode()[..], &[0]].concat()).is_err());
        }
    }

    /// The bytes of a sweep, as those of a write above.
    #[test]
    fn the_layout_of_a_sweep_in_version_1_never_changes() {
        let mut stable = Positions::default();
        stable.raise(NodeId(2), Timestamp::from_ms(3));
        let sweep = Sweep {
            span: KeySpan::new(b"a", Some(b"m")).unwrap(),
            ids_from: Some(Timestamp::from_ms(1)),
            work_max: 2048,
            stable,
        };
        let sweep = Entry { body: Body::Sweep(sweep), ..entry() };
        let hex: String = sweep.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "010d8080801201040110016101016d0180808002801001028080800600");
        assert_eq!(Entry::decode(&sweep.encode()), Ok(sweep.clone()));
        assert_eq!(Entry::stamp_of(&sweep.encode()), Some(sweep.stamp));
    }

    #[test]
    fn an_audit_is_told_from_other_entries_and_keeps_its_layout() {
        let audit = Entry { body: Body::Audit(Audit { format: 1 }), ..entry() };
        let bytes = audit.encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "010e808080120104011001");
        assert_eq!(Entry::decode(&bytes), Ok(audit.clone()));
        assert_eq!(Entry::stamp_of(&bytes), Some(audit.stamp));
        assert_eq!(Entry::audit_of(&bytes), Ok(Some(Audit { format: 1 })));
        assert_eq!(Entry::audit_of(&entry().encode()), Ok(None));
    }

    #[test]
    fn an_unknown_kind_or_version_is_named() {
        let mut bytes = entry().encode().to_vec();
        bytes[1] = 99;
        assert_eq!(Entry::decode(&bytes), Err(DecodeError::Kind(99)));
        bytes[0] = 2;
        let error = DecodeError::Version { what: "log entry", found: 2, known: 1 };
        assert_eq!(Entry::decode(&bytes), Err(error));
        assert!(Entry::decode(&[]).is_err());
    }

    #[test]
    fn an_entry_cut_short_anywhere_or_followed_by_anything_is_an_error() {
        let bytes = entry().encode();
        assert!(Entry::decode(&[&bytes[..], &[0]].concat()).is_err());
        for len in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
        }
    }
}

//! What a snapshot is of: sent before its rows, and kept while it is installed.

use std::io;

use bytes::Bytes;
use latitude_range::{FEATURE_LEVEL, RangeMeta};
use latitude_storage::{Column, View, key};
use latitude_types::{RangeId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::types::{LogId, StoredMembership, TypeConfig};
use crate::wire;

/// What a snapshot is of.
///
/// Most of it is in the rows too, where it must be the same; here it can be judged before any row came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// The range, its epoch and span, last stamp, floor, freeze, origins, marks of what was dropped, and
    /// feature level.
    pub(crate) meta: RangeMeta,
    /// The last entry applied.
    pub(crate) last: LogId,
    /// The configuration then.
    pub(crate) membership: StoredMembership,
    /// A time known to be closed by then, above what the last stamp closes by itself.
    pub(crate) closed: Option<ClosedTime>,
}

/// A time closed in a range, for whoever has applied the entry at this place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ClosedTime {
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) time: Timestamp,
}

/// As it is sent and stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// The row of the metadata, behind its own version byte.
    meta: Bytes,
    applied: wire::AppliedRow,
    closed: Option<ClosedTime>,
}

impl Header {
    /// The header of a snapshot of that range, as its base in `view` is; `None` if nothing is applied.
    pub(crate) fn read(range: RangeId, view: &dyn View) -> io::Result<Option<Self>> {
        let get = |key: Vec<u8>| view.get(Column::Base, &key).map_err(io::Error::other);
        let (Some(meta), Some(applied)) =
            (get(key::local::meta(range))?, get(key::local::applied(range))?)
        else {
            return Ok(None);
        };
        let meta = RangeMeta::decode(&meta).map_err(io::Error::other)?;
        let (last, membership) = wire::decode::<wire::AppliedRow>(&applied)?.into_parts();
        Ok(last.map(|last| Self { meta, last, membership, closed: None }))
    }

    pub(crate) fn encode(&self) -> Bytes {
        wire::encode(&Stored {
            meta: self.meta.encode().into(),
            applied: self.applied_row(),
            closed: self.closed,
        })
        .into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let Stored { meta, applied, closed } = wire::decode(bytes)?;
        let meta = RangeMeta::decode(&meta).map_err(io::Error::other)?;
        let (last, membership) = applied.into_parts();
        let last = last.ok_or_else(|| io::Error::other("a snapshot of nothing"))?;
        Ok(Self { meta, last, membership, closed })
    }

    /// The row in which the base says how far it is applied.
    pub(crate) fn applied_row(&self) -> wire::AppliedRow {
        wire::AppliedRow::new(Some(&self.last), &self.membership)
    }

    /// As openraft wants it.
    pub(crate) fn raft_meta(&self) -> openraft::alias::SnapshotMetaOf<TypeConfig> {
        openraft::alias::SnapshotMetaOf::<TypeConfig> {
            last_log_id: Some(self.last),
            last_membership: self.membership.clone(),
        }
    }

    /// Why a replica of the range whose metadata is `own` cannot take it, if so.
    pub(crate) fn unfit_for(&self, own: &RangeMeta) -> Option<String> {
        let RangeMeta { id, keyspace, span, .. } = &self.meta;
        if (id, keyspace) != (&own.id, &own.keyspace) {
            return Some(format!("it is of {id} in keyspace {keyspace}, and this is {}", own.id));
        }
        // What a split gave away is not this snapshot's to clear; splits are to say whose it is.
        if (span, self.meta.epoch) != (&own.span, own.epoch) {
            return Some(format!("{id} has another span there than here"));
        }
        if self.meta.feature_level > FEATURE_LEVEL {
            let level = self.meta.feature_level;
            return Some(format!(
                "{id} is at feature level {level}; this version knows {FEATURE_LEVEL}"
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::{Generation, KeySpan, KeyspaceId, NodeId, ReplicaId, Stamp};

    use super::*;
    use crate::types::{LeaderId, Membership};

    pub(crate) fn header() -> Header {
        let replica = |node| ReplicaId { node: NodeId(node), generation: Generation(1) };
        let span = KeySpan::new(b"a", Some(b"m")).unwrap();
        let mut meta = RangeMeta::new(RangeId(4), KeyspaceId(16), span, 1024, false);
        meta.last_stamp = Stamp { time: Timestamp::from_ms(9), node: NodeId(1) };
        let id = |index| LogId { leader_id: LeaderId { term: 3, node_id: replica(2) }, index };
        let membership = Membership::new_with_defaults(vec![[replica(1), replica(2)].into()], []);
        let membership = StoredMembership::new(Some(id(7)), membership);
        let closed = Some(ClosedTime { term: 3, index: 8, time: Timestamp::from_ms(10) });
        Header { meta, last: id(8), membership, closed }
    }

    #[test]
    fn a_header_survives_its_encoding_and_damage_is_an_error() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes).expect("it was just encoded"), header());
        for len in 0..bytes.len() {
            assert!(Header::decode(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
        }
    }

    /// On the disk while a snapshot is installed, and between versions. If this changes, its version must.
    #[test]
    fn the_layout_of_version_1_never_changes() {
        let hex: String = header().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = "011e01040110016101016d008008008080801201000000000000000000000001\
                        01030201080103020107010201010201020101020101030880808014";
        assert_eq!(hex, expected);
    }

    #[test]
    fn a_replica_takes_only_what_is_of_its_own_range_and_span() {
        let own = header().meta;
        assert_eq!(header().unfit_for(&own), None);
        let unfit = |change: fn(&mut RangeMeta)| {
            let mut header = header();
            change(&mut header.meta);
            header.unfit_for(&own)
        };
        assert!(unfit(|meta| meta.id = RangeId(5)).is_some());
        assert!(unfit(|meta| meta.keyspace = KeyspaceId(17)).is_some());
        assert!(unfit(|meta| meta.span = KeySpan::all()).is_some());
        assert!(unfit(|meta| meta.feature_level = FEATURE_LEVEL + 1).is_some());
    }
}

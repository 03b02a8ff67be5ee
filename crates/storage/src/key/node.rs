//! Rows of the node itself, in the column `Node`.

use latitude_types::{NodeId, RangeId};

use super::{Span, done, take};

const IDENT: u8 = 1;
const CLOCK_BOUND: u8 = 2;
const REPLICA: u8 = 3;
const VISIBLE: u8 = 4;
const INSTALLING: u8 = 5;
const LEASE: u8 = 6;
const MARKS: u8 = 7;
const APPLIED: u8 = 8;
const DIRECTORY: u8 = 9;

/// Who the node is: its id, cluster, store.
pub fn ident() -> Vec<u8> {
    vec![IDENT]
}

/// What the node's clock must never exceed without first moving this.
pub fn clock_bound() -> Vec<u8> {
    vec![CLOCK_BOUND]
}

/// How long the node's promises to leaders last, over its next restart as well.
pub fn lease() -> Vec<u8> {
    vec![LEASE]
}

/// The replica of that range that lives here.
pub fn replica(range: RangeId) -> Vec<u8> {
    of_range(REPLICA, range)
}

/// All replicas that live here.
pub fn replicas() -> Span {
    Span { start: vec![REPLICA], end: vec![REPLICA + 1] }
}

/// Which directory the node's replicas were last changed by.
pub fn directory() -> Vec<u8> {
    vec![DIRECTORY]
}

/// How much of that origin the node last told others it sees.
pub fn visible(origin: NodeId) -> Vec<u8> {
    let mut out = vec![VISIBLE];
    out.extend_from_slice(&origin.0.to_be_bytes());
    out
}

/// The same of all origins.
pub fn visibles() -> Span {
    Span { start: vec![VISIBLE], end: vec![VISIBLE + 1] }
}

/// How far the node holds the streams of the origins of that range.
pub fn marks(range: RangeId) -> Vec<u8> {
    of_range(MARKS, range)
}

/// The same of all ranges.
pub fn all_marks() -> Span {
    Span { start: vec![MARKS], end: vec![MARKS + 1] }
}

/// The range of a row of [`marks`], if the row is one.
pub fn decode_marks(row: &[u8]) -> Option<RangeId> {
    decode_of_range(MARKS, row)
}

/// How far the node has told that it has applied the log of that range.
pub fn applied(range: RangeId) -> Vec<u8> {
    of_range(APPLIED, range)
}

/// The same of all ranges.
pub fn all_applied() -> Span {
    Span { start: vec![APPLIED], end: vec![APPLIED + 1] }
}

/// The range of a row of [`applied`], if the row is one.
pub fn decode_applied(row: &[u8]) -> Option<RangeId> {
    decode_of_range(APPLIED, row)
}

/// What the replica of that range is being replaced by, as long as it is.
pub fn installing(range: RangeId) -> Vec<u8> {
    of_range(INSTALLING, range)
}

/// The same of all ranges.
pub fn installings() -> Span {
    Span { start: vec![INSTALLING], end: vec![INSTALLING + 1] }
}

/// The range of a replica's row, if the row is one.
pub fn decode_replica(row: &[u8]) -> Option<RangeId> {
    decode_of_range(REPLICA, row)
}

/// The origin of a row of [`visible`], if the row is one.
pub fn decode_visible(mut row: &[u8]) -> Option<NodeId> {
    if take(&mut row)? != [VISIBLE] {
        return None;
    }
    let origin = NodeId(u32::from_be_bytes(take(&mut row)?));
    done(row, origin)
}

/// A row of which there is one for each range.
fn of_range(kind: u8, range: RangeId) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&range.0.to_be_bytes());
    out
}

fn decode_of_range(kind: u8, mut row: &[u8]) -> Option<RangeId> {
    if take(&mut row)? != [kind] {
        return None;
    }
    let range = RangeId(u64::from_be_bytes(take(&mut row)?));
    done(row, range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_and_origins_decode_and_lie_in_their_spans_only() {
        let (replica, visible) = (replica(RangeId(u64::MAX)), visible(NodeId(u32::MAX)));
        assert_eq!(decode_replica(&replica), Some(RangeId(u64::MAX)));
        assert_eq!(decode_visible(&visible), Some(NodeId(u32::MAX)));
        assert_eq!((decode_replica(&visible), decode_visible(&replica)), (None, None));
        assert!(replicas().contains(&replica) && visibles().contains(&visible));
        let marks = marks(RangeId(u64::MAX));
        assert_eq!(decode_marks(&marks), Some(RangeId(u64::MAX)));
        assert_eq!((decode_marks(&visible), decode_visible(&marks)), (None, None));
        assert!(all_marks().contains(&marks) && !visibles().contains(&marks));
        let applied = applied(RangeId(u64::MAX));
        assert_eq!(decode_applied(&applied), Some(RangeId(u64::MAX)));
        assert_eq!((decode_applied(&marks), decode_marks(&applied)), (None, None));
        assert!(all_applied().contains(&applied) && !all_marks().contains(&applied));
        let installing = installing(RangeId(u64::MAX));
        assert!(installings().contains(&installing) && !installings().contains(&visible));
        for row in [ident(), clock_bound(), visible, installing, lease(), directory()] {
            assert!(!replicas().contains(&row));
        }
    }
}

//! Deltas by origin and position, in the column `Stream`: what other nodes are sent.

use std::ops::{Bound, RangeBounds};

use latitude_types::{NodeId, Timestamp};

use super::{Span, done, take};

/// The delta of that origin at that position.
pub fn delta(origin: NodeId, position: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + 8);
    out.extend_from_slice(&origin.0.to_be_bytes());
    out.extend_from_slice(&position.0.to_be_bytes());
    out
}

/// The deltas of that origin at these positions.
pub fn span(origin: NodeId, positions: impl RangeBounds<Timestamp>) -> Span {
    // A key ends with the position, so the least key above a delta is the delta's with 00 after it.
    let after = |position| {
        let mut key = delta(origin, position);
        key.push(0);
        key
    };
    let start = match positions.start_bound() {
        Bound::Included(start) => delta(origin, *start),
        Bound::Excluded(start) => after(*start),
        Bound::Unbounded => delta(origin, Timestamp::ZERO),
    };
    let end = match positions.end_bound() {
        Bound::Included(end) => after(*end),
        Bound::Excluded(end) => delta(origin, *end),
        Bound::Unbounded => after(Timestamp::MAX),
    };
    Span { start, end }
}

/// All deltas there are.
pub fn everything() -> Span {
    Span { start: delta(NodeId(0), Timestamp::ZERO), end: vec![0xff; 4 + 8 + 1] }
}

/// Which delta a row is, if it is one.
pub fn decode(mut row: &[u8]) -> Option<(NodeId, Timestamp)> {
    let origin = NodeId(u32::from_be_bytes(take(&mut row)?));
    let position = Timestamp(u64::from_be_bytes(take(&mut row)?));
    done(row, (origin, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_holds_the_positions_its_bounds_say() {
        let origin = NodeId(3);
        let at = Timestamp;
        let held = |span: Span| -> Vec<u64> {
            (0..6).filter(|t| span.contains(&delta(origin, at(*t)))).collect()
        };
        assert_eq!(held(span(origin, at(2)..at(4))), [2, 3]);
        assert_eq!(held(span(origin, at(2)..=at(4))), [2, 3, 4]);
        assert_eq!(held(span(origin, (Bound::Excluded(at(2)), Bound::Unbounded))), [3, 4, 5]);
        assert!(span(origin, ..).contains(&delta(origin, Timestamp::MAX)));
        assert!(!span(origin, ..).contains(&delta(NodeId(4), Timestamp::ZERO)));
        assert!(!span(origin, ..).contains(&delta(NodeId(2), Timestamp::MAX)));
    }

    #[test]
    fn a_row_decodes_to_its_delta() {
        let row = delta(NodeId(3), Timestamp(9));
        assert_eq!(decode(&row), Some((NodeId(3), Timestamp(9))));
        assert_eq!(decode(&row[1..]), None);
    }
}

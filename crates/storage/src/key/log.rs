//! Rows of a replica's Raft log, in the column `Log`.

use std::ops::Range;

use latitude_types::{Generation, RangeId};

use super::{Span, done, take};

const VOTE: u8 = 1;
const STATE: u8 = 2;
const ENTRY: u8 = 3;

/// The replica's vote.
pub fn vote(range: RangeId, generation: Generation) -> Vec<u8> {
    key(range, generation, VOTE, 0)
}

/// What is known of the log besides its entries: how far it is purged.
pub fn state(range: RangeId, generation: Generation) -> Vec<u8> {
    key(range, generation, STATE, 0)
}

/// The entry at `index`.
pub fn entry(range: RangeId, generation: Generation, index: u64) -> Vec<u8> {
    let mut out = key(range, generation, ENTRY, 8);
    out.extend_from_slice(&index.to_be_bytes());
    out
}

/// The entries of these indexes.
pub fn entries(range: RangeId, generation: Generation, indexes: Range<u64>) -> Span {
    Span {
        start: entry(range, generation, indexes.start),
        end: entry(range, generation, indexes.end),
    }
}

/// The entries from `index` on.
pub fn entries_from(range: RangeId, generation: Generation, index: u64) -> Span {
    Span { start: entry(range, generation, index), end: key(range, generation, ENTRY + 1, 0) }
}

/// Everything of that replica's log, vote included.
pub fn span_of(range: RangeId, generation: Generation) -> Span {
    Span::of_kinds(prefix(range, generation, 0))
}

/// Everything of every generation's log of that range.
pub fn span_of_range(range: RangeId) -> Span {
    let mut end = prefix(range, Generation(u32::MAX), 1);
    end.push(0xff);
    Span { start: range.0.to_be_bytes().to_vec(), end }
}

/// The replica and index of an entry, if the row is one.
pub fn decode_entry(mut row: &[u8]) -> Option<(RangeId, Generation, u64)> {
    let range = RangeId(u64::from_be_bytes(take(&mut row)?));
    let generation = Generation(u32::from_be_bytes(take(&mut row)?));
    if take(&mut row)? != [ENTRY] {
        return None;
    }
    let index = u64::from_be_bytes(take(&mut row)?);
    done(row, (range, generation, index))
}

fn prefix(range: RangeId, generation: Generation, suffix: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + 4 + suffix);
    out.extend_from_slice(&range.0.to_be_bytes());
    out.extend_from_slice(&generation.0.to_be_bytes());
    out
}

fn key(range: RangeId, generation: Generation, kind: u8, suffix: usize) -> Vec<u8> {
    let mut out = prefix(range, generation, 1 + suffix);
    out.push(kind);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: RangeId = RangeId(7);
    const GENERATION: Generation = Generation(2);

    #[test]
    fn entries_sort_by_index_and_decode_to_it() {
        let entries: Vec<_> =
            [0, 1, 255, 256, u64::MAX].map(|index| entry(RANGE, GENERATION, index)).into();
        assert!(entries.is_sorted());
        assert_eq!(decode_entry(&entries[3]), Some((RANGE, GENERATION, 256)));
        assert_eq!(decode_entry(&vote(RANGE, GENERATION)), None);
    }

    #[test]
    fn the_span_of_a_log_holds_its_rows_and_no_other_generation_s() {
        let span = span_of(RANGE, GENERATION);
        for generation in [Generation(1), GENERATION, Generation(3), Generation(u32::MAX)] {
            for row in [
                vote(RANGE, generation),
                state(RANGE, generation),
                entry(RANGE, generation, 0),
                entry(RANGE, generation, u64::MAX),
            ] {
                assert_eq!(span.contains(&row), generation == GENERATION);
                assert!(span_of_range(RANGE).contains(&row));
                assert!(!span_of_range(RangeId(6)).contains(&row));
            }
        }
    }

    #[test]
    fn spans_of_entries_hold_neither_vote_nor_state() {
        let some = entries(RANGE, GENERATION, 3..5);
        let held: Vec<_> =
            (0..9).filter(|i| some.contains(&entry(RANGE, GENERATION, *i))).collect();
        assert_eq!(held, [3, 4]);
        let from = entries_from(RANGE, GENERATION, 3);
        assert!(from.contains(&entry(RANGE, GENERATION, u64::MAX)));
        assert!(!from.contains(&entry(RANGE, GENERATION, 2)));
        assert!(!from.contains(&vote(RANGE, GENERATION)));
        assert!(!from.contains(&vote(RANGE, Generation(3))));
    }
}

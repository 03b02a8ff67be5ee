//! Rows of a range itself, in keyspace 0 of the column `Base`: part of what its log decides.

use latitude_types::{ClientId, KeyspaceId, RangeId};

use super::{Span, done, take};

const META: u8 = 1;
const APPLIED: u8 = 2;
const ID_WINDOW: u8 = 3;

/// The range's metadata: span, epoch, origins.
pub fn meta(range: RangeId) -> Vec<u8> {
    key(range, META, 0)
}

/// How far the range's log is applied.
pub fn applied(range: RangeId) -> Vec<u8> {
    key(range, APPLIED, 0)
}

/// The answers kept for a client's log writes.
pub fn id_window(range: RangeId, client: ClientId) -> Vec<u8> {
    let mut out = key(range, ID_WINDOW, 16);
    out.extend_from_slice(&client.0);
    out
}

/// The answers kept for all clients.
pub fn id_windows(range: RangeId) -> Span {
    Span { start: key(range, ID_WINDOW, 0), end: key(range, ID_WINDOW + 1, 0) }
}

/// Every row of the range itself.
pub fn span_of(range: RangeId) -> Span {
    Span::of_kinds(prefix(range, 0))
}

/// The metadata and all else of every range here.
pub fn all() -> Span {
    let next = KeyspaceId(KeyspaceId::LOCAL.0 + 1);
    Span { start: KeyspaceId::LOCAL.0.to_be_bytes().to_vec(), end: next.0.to_be_bytes().to_vec() }
}

/// The range and client of a row of answers, if the row is one.
pub fn decode_id_window(mut row: &[u8]) -> Option<(RangeId, ClientId)> {
    let range = take_prefix(&mut row, ID_WINDOW)?;
    let client = ClientId(take(&mut row)?);
    done(row, (range, client))
}

fn prefix(range: RangeId, suffix: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + 8 + suffix);
    out.extend_from_slice(&KeyspaceId::LOCAL.0.to_be_bytes());
    out.extend_from_slice(&range.0.to_be_bytes());
    out
}

fn key(range: RangeId, kind: u8, suffix: usize) -> Vec<u8> {
    let mut out = prefix(range, 1 + suffix);
    out.push(kind);
    out
}

fn take_prefix(row: &mut &[u8], kind: u8) -> Option<RangeId> {
    if take(row)? != KeyspaceId::LOCAL.0.to_be_bytes() {
        return None;
    }
    let range = RangeId(u64::from_be_bytes(take(row)?));
    (take(row)? == [kind]).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: RangeId = RangeId(7);
    const CLIENT: ClientId = ClientId([9; 16]);

    #[test]
    fn the_span_of_a_range_holds_its_rows_and_no_neighbour_s() {
        for range in [RangeId(0), RangeId(6), RANGE, RangeId(8), RangeId(u64::MAX)] {
            for row in [meta(range), applied(range), id_window(range, ClientId([0xff; 16]))] {
                assert_eq!(span_of(RANGE).contains(&row), range == RANGE, "{row:?}");
                assert!(span_of(range).contains(&row) && all().contains(&row));
            }
        }
    }

    #[test]
    fn a_row_of_answers_decodes_to_its_client_and_no_other_row_does() {
        let row = id_window(RANGE, CLIENT);
        assert_eq!(decode_id_window(&row), Some((RANGE, CLIENT)));
        assert_eq!(decode_id_window(&meta(RANGE)), None);
        assert_eq!(decode_id_window(&row[..row.len() - 1]), None);
        assert!(id_windows(RANGE).contains(&row) && !id_windows(RANGE).contains(&applied(RANGE)));
    }
}

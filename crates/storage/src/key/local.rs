//! Rows of a range itself, in keyspace 0 of the column `Base`: part of what its log decides.

use latitude_types::{ClientId, KeyspaceId, RangeId};

use super::{Span, done, take};

const META: u8 = 1;
const APPLIED: u8 = 2;
const ID_FLOOR: u8 = 3;
const ID: u8 = 4;

/// The range's metadata: span, epoch, origins.
pub fn meta(range: RangeId) -> Vec<u8> {
    key(range, META, 0)
}

/// How far the range's log is applied.
pub fn applied(range: RangeId) -> Vec<u8> {
    key(range, APPLIED, 0)
}

/// Below which sequence a client has its answers, so that their results need not be kept.
pub fn id_floor(range: RangeId, client: ClientId) -> Vec<u8> {
    let mut out = key(range, ID_FLOOR, 16);
    out.extend_from_slice(&client.0);
    out
}

/// The result of a log write.
pub fn id_row(range: RangeId, client: ClientId, sequence: u64) -> Vec<u8> {
    let mut out = key(range, ID, 16 + 8);
    out.extend_from_slice(&client.0);
    out.extend_from_slice(&sequence.to_be_bytes());
    out
}

/// The results kept of a client's writes below `sequence`.
pub fn id_rows_below(range: RangeId, client: ClientId, sequence: u64) -> Span {
    Span { start: id_row(range, client, 0), end: id_row(range, client, sequence) }
}

/// The results kept of all clients' writes.
pub fn id_rows(range: RangeId) -> Span {
    Span { start: key(range, ID, 0), end: key(range, ID + 1, 0) }
}

/// The floors of all clients.
pub fn id_floors(range: RangeId) -> Span {
    Span { start: key(range, ID_FLOOR, 0), end: key(range, ID_FLOOR + 1, 0) }
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

/// The range, client and sequence of a log write's result, if the row is one.
pub fn decode_id_row(mut row: &[u8]) -> Option<(RangeId, ClientId, u64)> {
    let range = take_prefix(&mut row, ID)?;
    let client = ClientId(take(&mut row)?);
    let sequence = u64::from_be_bytes(take(&mut row)?);
    done(row, (range, client, sequence))
}

/// The range and client of a floor, if the row is one.
pub fn decode_id_floor(mut row: &[u8]) -> Option<(RangeId, ClientId)> {
    let range = take_prefix(&mut row, ID_FLOOR)?;
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
            for row in [
                meta(range),
                applied(range),
                id_floor(range, ClientId([0xff; 16])),
                id_row(range, ClientId([0xff; 16]), u64::MAX),
            ] {
                assert_eq!(span_of(RANGE).contains(&row), range == RANGE, "{row:?}");
                assert!(span_of(range).contains(&row) && all().contains(&row));
            }
        }
    }

    #[test]
    fn results_below_a_sequence_are_those_of_that_client_only() {
        let below = id_rows_below(RANGE, CLIENT, 5);
        assert!(below.contains(&id_row(RANGE, CLIENT, 0)));
        assert!(below.contains(&id_row(RANGE, CLIENT, 4)));
        assert!(!below.contains(&id_row(RANGE, CLIENT, 5)));
        assert!(!below.contains(&id_row(RANGE, ClientId([8; 16]), 4)));
        assert!(!below.contains(&id_row(RangeId(6), CLIENT, 4)));
    }

    #[test]
    fn ids_and_floors_decode_to_what_made_them_and_not_to_each_other() {
        let (id, floor) = (id_row(RANGE, CLIENT, 3), id_floor(RANGE, CLIENT));
        assert_eq!(decode_id_row(&id), Some((RANGE, CLIENT, 3)));
        assert_eq!(decode_id_floor(&floor), Some((RANGE, CLIENT)));
        assert_eq!((decode_id_row(&floor), decode_id_floor(&id)), (None, None));
        assert!(id_rows(RANGE).contains(&id) && !id_rows(RANGE).contains(&floor));
        assert!(id_floors(RANGE).contains(&floor) && !id_floors(RANGE).contains(&id));
    }
}

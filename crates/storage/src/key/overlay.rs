//! Deltas by key, in the column `Overlay`: what a local read adds to the base.

use latitude_types::{Key, KeySpan, KeyspaceId, NodeId, Timestamp};

use super::{Span, done, escape, take};

/// A delta: of that key, by its origin and its position there.
pub fn delta(keyspace: KeyspaceId, key: &Key, origin: NodeId, position: Timestamp) -> Vec<u8> {
    let mut out = escape::prefix(keyspace, key.as_bytes(), 4 + 8);
    out.extend_from_slice(&origin.0.to_be_bytes());
    out.extend_from_slice(&position.0.to_be_bytes());
    out
}

/// The deltas of one key, by origin and then by position.
pub fn span_of_key(keyspace: KeyspaceId, key: &Key) -> Span {
    let start = escape::prefix(keyspace, key.as_bytes(), 0);
    let mut end = start.clone();
    // The last byte is that of the key's end, 01: one more is above every row of the key.
    *end.last_mut().expect("an escaped key ends with two bytes") += 1;
    Span { start, end }
}

/// The deltas of every key in `keys`.
pub fn span(keyspace: KeyspaceId, keys: &KeySpan) -> Span {
    escape::span(keyspace, keys)
}

/// Which delta a row is, if it is one.
pub fn decode(mut row: &[u8]) -> Option<(KeyspaceId, Key, NodeId, Timestamp)> {
    let (keyspace, key) = escape::take_prefix(&mut row)?;
    let origin = NodeId(u32::from_be_bytes(take(&mut row)?));
    let position = Timestamp(u64::from_be_bytes(take(&mut row)?));
    done(row, (keyspace, key, origin, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_span_of_a_key_holds_its_deltas_and_no_other_key_s() {
        let keyspace = KeyspaceId::DEFAULT;
        let key = Key::new(b"a").unwrap();
        let least = delta(keyspace, &key, NodeId(0), Timestamp::ZERO);
        let most = delta(keyspace, &key, NodeId(u32::MAX), Timestamp::MAX);
        let span = span_of_key(keyspace, &key);
        assert!(span.contains(&least) && span.contains(&most));
        for other in [&b"a\0"[..], b"a\x01", b"aa", b"b", b"`"] {
            let other = Key::new(other).unwrap();
            assert!(!span.contains(&delta(keyspace, &other, NodeId(1), Timestamp::MAX)));
        }
        assert_eq!(decode(&most), Some((keyspace, key, NodeId(u32::MAX), Timestamp::MAX)));
    }
}

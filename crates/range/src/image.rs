//! A range's base as rows: what a replica that is too far behind is given instead of the log.
//!
//! It is a function of the base at one place in the log. Overlay and streams are no part of it: what is
//! there and not yet folded stays whatever base comes (`pitfalls.md`, finding 10).

use latitude_storage::key::{self, Span};
use xxhash_rust::xxh3::Xxh3;

use crate::meta::RangeMeta;

/// Where the rows of a range's base are, all of them in [`Column::Base`](latitude_storage::Column::Base)
/// and no other range's among them: its own, then those of its keys.
pub fn image_spans(meta: &RangeMeta) -> Vec<Span> {
    vec![key::local::span_of(meta.id), key::base::value_span(meta.keyspace, &meta.span)]
}

/// The checksum of rows in their order: XXH3 over each key and value behind its length.
#[derive(Clone, Default)]
pub struct ImageChecksum(Xxh3);

impl ImageChecksum {
    /// Takes in a row, or anything else that comes in two parts.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        for part in [key, value] {
            self.0.update(&(part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    /// The checksum of what was taken in so far.
    pub fn value(&self) -> u64 {
        self.0.digest()
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::{Key, KeySpan, KeyspaceId, RangeId};

    use super::*;

    #[test]
    fn the_spans_ascend_do_not_meet_and_hold_no_neighbour_s_rows() {
        let keys = KeySpan::new(b"b", Some(b"d")).unwrap();
        let meta = RangeMeta::new(RangeId(4), KeyspaceId(16), keys, 1024, false);
        let spans = image_spans(&meta);
        assert!(spans.windows(2).all(|pair| pair[0].end <= pair[1].start));
        let held = |row: &[u8]| spans.iter().any(|span| span.contains(row));
        let value = |keyspace, key: &[u8]| {
            key::base::value_key(KeyspaceId(keyspace), &Key::new(key).unwrap())
        };
        assert!(held(&key::local::meta(RangeId(4))) && held(&key::local::applied(RangeId(4))));
        assert!(held(&value(16, b"b")) && held(&value(16, b"c\xff\xff")));
        for row in [value(16, b"a\xff"), value(16, b"d"), value(15, b"c"), value(17, b"c")] {
            assert!(!held(&row), "{row:?}");
        }
        assert!(!held(&key::local::meta(RangeId(3))) && !held(&key::local::meta(RangeId(5))));
    }

    #[test]
    fn the_checksum_tells_rows_whose_bytes_are_only_divided_differently() {
        let checksum = |rows: &[(&[u8], &[u8])]| {
            let mut checksum = ImageChecksum::default();
            rows.iter().for_each(|(key, value)| checksum.add(key, value));
            checksum.value()
        };
        let one = checksum(&[(b"ab", b"c"), (b"d", b"")]);
        assert_eq!(one, checksum(&[(b"ab", b"c"), (b"d", b"")]));
        assert_ne!(one, checksum(&[(b"a", b"bc"), (b"d", b"")]));
        assert_ne!(one, checksum(&[(b"d", b""), (b"ab", b"c")]));
        assert_ne!(one, checksum(&[(b"ab", b"c"), (b"d", b""), (b"", b"")]));
    }
}

//! The escaped and terminated form of a user's key. Why, is told with the table of keys.

use latitude_types::{Key, KeySpan, KeyspaceId};

use super::{Span, take};

const ESCAPED_ZERO: [u8; 2] = [0x00, 0xff];
const END: [u8; 2] = [0x00, 0x01];

/// `keyspace u32, ‹key›`, with room for `suffix` more bytes.
pub(super) fn prefix(keyspace: KeyspaceId, key: &[u8], suffix: usize) -> Vec<u8> {
    let zeros = key.iter().filter(|byte| **byte == 0).count();
    let mut out = Vec::with_capacity(4 + key.len() + zeros + END.len() + suffix);
    out.extend_from_slice(&keyspace.0.to_be_bytes());
    if zeros == 0 {
        out.extend_from_slice(key);
    } else {
        for &byte in key {
            match byte {
                0 => out.extend_from_slice(&ESCAPED_ZERO),
                byte => out.push(byte),
            }
        }
    }
    out.extend_from_slice(&END);
    out
}

/// Every row of every key in `keys`.
pub(super) fn span(keyspace: KeyspaceId, keys: &KeySpan) -> Span {
    let end = match (keys.end(), keyspace.0.checked_add(1)) {
        (Some(end), _) => prefix(keyspace, end, 0),
        (None, Some(next)) => next.to_be_bytes().to_vec(),
        // Above the last keyspace there is no prefix, but no key is this long.
        (None, None) => vec![0xff; 4 + latitude_types::KEY_LEN_MAX + 1],
    };
    Span { start: prefix(keyspace, keys.start(), 0), end }
}

/// Splits `keyspace u32, ‹key›` off the front. `None` if the bytes are not that.
pub(super) fn take_prefix(bytes: &mut &[u8]) -> Option<(KeyspaceId, Key)> {
    let keyspace = KeyspaceId(u32::from_be_bytes(take(bytes)?));
    let mut key = Vec::with_capacity(bytes.len());
    loop {
        let zero = bytes.iter().position(|byte| *byte == 0)?;
        key.extend_from_slice(&bytes[..zero]);
        let escape = [0, *bytes.get(zero + 1)?];
        *bytes = &bytes[zero + 2..];
        match escape {
            ESCAPED_ZERO => key.push(0),
            END => return Some((keyspace, Key::new(&key).ok()?)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYSPACE: KeyspaceId = KeyspaceId::DEFAULT;

    /// Few distinct bytes, those that escaping treats specially among them.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 0x61, 0xfe, 0xff]), 0..6)
    }

    fn key() -> impl Strategy<Value = Key> {
        bytes().prop_filter_map("empty key", |bytes| Key::new(&bytes).ok())
    }

    fn keys() -> impl Strategy<Value = KeySpan> {
        (bytes(), prop::option::of(bytes()))
            .prop_filter_map("empty span", |(start, end)| KeySpan::new(&start, end.as_deref()))
    }

    fn keyspace() -> impl Strategy<Value = KeyspaceId> {
        prop::sample::select(vec![1, 2, 16, 0xff, 0x100, u32::MAX]).prop_map(KeyspaceId)
    }

    proptest! {
        #[test]
        fn keys_keep_order(a in bytes(), b in bytes()) {
            let (ea, eb) = (prefix(KEYSPACE, &a, 0), prefix(KEYSPACE, &b, 0));
            prop_assert_eq!(a.cmp(&b), ea.cmp(&eb));
        }

        #[test]
        fn no_key_is_a_prefix_of_another(a in bytes(), b in bytes()) {
            let (ea, eb) = (prefix(KEYSPACE, &a, 0), prefix(KEYSPACE, &b, 0));
            prop_assert!(a == b || !eb.starts_with(&ea));
        }

        #[test]
        fn a_key_decodes_to_itself_and_leaves_the_rest(
            keyspace in keyspace(), key in key(), rest in bytes(),
        ) {
            let mut row = prefix(keyspace, key.as_bytes(), rest.len());
            row.extend_from_slice(&rest);
            let mut row = row.as_slice();
            prop_assert_eq!(take_prefix(&mut row), Some((keyspace, key)));
            prop_assert_eq!(row, rest);
        }

        #[test]
        fn a_span_holds_all_rows_of_its_keys_and_no_other(
            keyspace in keyspace(), other in keyspace(), keys in keys(), key in key(), rest in bytes(),
        ) {
            let mut row = prefix(other, key.as_bytes(), rest.len());
            row.extend_from_slice(&rest);
            let inside = keyspace == other && keys.contains(key.as_bytes());
            prop_assert_eq!(span(keyspace, &keys).contains(&row), inside);
        }

        #[test]
        fn bytes_that_are_no_key_decode_to_nothing_or_to_what_encodes_back(row in bytes()) {
            let mut rest = row.as_slice();
            if let Some((keyspace, key)) = take_prefix(&mut rest) {
                let mut again = prefix(keyspace, key.as_bytes(), rest.len());
                again.extend_from_slice(rest);
                prop_assert_eq!(again, row);
            }
        }
    }

    #[test]
    fn the_longest_key_of_the_last_keyspace_is_inside_its_span() {
        let row = prefix(KeyspaceId(u32::MAX), &[0xff; latitude_types::KEY_LEN_MAX], 0);
        assert!(span(KeyspaceId(u32::MAX), &KeySpan::all()).contains(&row));
    }
}

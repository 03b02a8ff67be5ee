//! Keys and spans of keys, as users see them. How they are stored is the business of
//! `latitude-storage`'s key encoding.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Reason};

/// The longest key, in bytes.
pub const KEY_LEN_MAX: usize = 4096;

/// A key: 1 to [`KEY_LEN_MAX`] bytes of any value, ordered as bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

/// Keys compare as their bytes do.
impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Key {
    /// A key of these bytes, or why they cannot be one.
    pub fn new(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.is_empty() {
            return Err(Error::new(
                Reason::KeyEmpty,
                "the key is empty: a key has 1 to 4096 bytes",
            ));
        }
        if bytes.len() > KEY_LEN_MAX {
            let message =
                format!("the key has {} bytes: a key has 1 to {KEY_LEN_MAX} bytes", bytes.len());
            return Err(Error::new(Reason::KeyTooLong, message));
        }
        Ok(Self(bytes.into()))
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // As bytes: derived, it would be a sequence of numbers, taken one by one.
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "1 to {KEY_LEN_MAX} bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Key, E> {
                Key::new(bytes).map_err(E::custom)
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The keys from `start` (included) to `end` (excluded), compared as bytes.
///
/// An empty `start` is the least bound; `end: None` has no upper bound. A span is never empty: it is
/// made by [`KeySpan::new`], which refuses an end that is not above its start.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Bounds")]
pub struct KeySpan {
    start: Arc<[u8]>,
    end: Option<Arc<[u8]>>,
}

/// A span as it is read, before it is known to hold a key.
#[derive(Deserialize)]
struct Bounds {
    start: Arc<[u8]>,
    end: Option<Arc<[u8]>>,
}

impl TryFrom<Bounds> for KeySpan {
    type Error = &'static str;

    fn try_from(bounds: Bounds) -> Result<Self, &'static str> {
        Self::new(&bounds.start, bounds.end.as_deref())
            .ok_or("a span whose end is not above its start")
    }
}

impl KeySpan {
    /// The span that holds one key alone.
    pub fn of_key(key: &Key) -> Self {
        // The least key above it: the same with a zero byte after it.
        Self { start: key.as_bytes().into(), end: Some([key.as_bytes(), &[0]].concat().into()) }
    }

    /// The span `[start, end)`, or `None` if it could hold no key.
    pub fn new(start: &[u8], end: Option<&[u8]>) -> Option<Self> {
        if end.is_some_and(|end| end <= start) {
            return None;
        }
        Some(Self { start: start.into(), end: end.map(Into::into) })
    }

    /// Every key.
    pub fn all() -> Self {
        Self { start: Arc::new([]), end: None }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        // The least bytes above all that begin with the prefix: drop trailing 0xff, count the last up.
        let mut end = prefix.to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self { start: prefix.into(), end: (!end.is_empty()).then(|| end.into()) }
    }

    /// The lower bound, included.
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// The upper bound, excluded; `None` if there is none.
    pub fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    /// Whether the span holds `key`.
    pub fn contains(&self, key: &[u8]) -> bool {
        *self.start <= *key && self.end.as_deref().is_none_or(|end| key < end)
    }

    /// The keys both spans hold, if any.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let start = self.start().max(other.start());
        let end = match (self.end(), other.end()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self::new(start, end)
    }
}

impl fmt::Display for KeySpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, ", self.start.escape_ascii())?;
        match &self.end {
            Some(end) => write!(f, "{})", end.escape_ascii()),
            None => write!(f, "∞)"),
        }
    }
}

impl fmt::Debug for KeySpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_has_1_to_4096_bytes() {
        assert_eq!(Key::new(b"").map_err(|e| e.reason), Err(Reason::KeyEmpty));
        assert!(Key::new(&[0; KEY_LEN_MAX]).is_ok());
        assert_eq!(Key::new(&[0; KEY_LEN_MAX + 1]).map_err(|e| e.reason), Err(Reason::KeyTooLong));
    }

    #[test]
    fn a_span_that_holds_no_key_cannot_be_made() {
        assert_eq!(KeySpan::new(b"b", Some(b"a")), None);
        assert_eq!(KeySpan::new(b"a", Some(b"a")), None);
        assert!(KeySpan::new(b"a", None).is_some());
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        // Few distinct bytes, the extremes among them, so that bounds collide often.
        prop::collection::vec(prop::sample::select(vec![0u8, 1, 0x61, 0xfe, 0xff]), 0..4)
    }

    fn span() -> impl Strategy<Value = KeySpan> {
        (bytes(), prop::option::of(bytes()))
            .prop_filter_map("empty span", |(start, end)| KeySpan::new(&start, end.as_deref()))
    }

    proptest! {
        #[test]
        fn a_prefix_span_holds_exactly_the_keys_with_that_prefix(prefix in bytes(), key in bytes()) {
            prop_assert_eq!(KeySpan::prefix(&prefix).contains(&key), key.starts_with(&prefix));
        }

        #[test]
        fn an_intersection_holds_what_both_hold(a in span(), b in span(), key in bytes()) {
            let both = a.intersection(&b).is_some_and(|span| span.contains(&key));
            prop_assert_eq!(both, a.contains(&key) && b.contains(&key));
        }
    }
}

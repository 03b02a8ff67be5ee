//! Put: the key now has this value, whatever it had before.

use bytes::Bytes;
use latitude_types::{Key, Past};

use super::Place;
use crate::range::Done;
use crate::row::Content;
use crate::staged::Staged;

pub(super) fn apply(
    place: &Place,
    key: &Key,
    value: &Bytes,
    past: &Past,
    staged: &mut Staged<'_>,
) -> Done {
    place.write(key, Content::Plain(value.clone()), past, staged)
}

//! Delete: the key has no value. It keeps a row, with the stamp and the past of its deletion, so that
//! nothing older can bring it back and a reader of its absence knows what that absence follows.

use latitude_types::{Key, Past};

use super::Place;
use crate::range::Done;
use crate::row::Content;
use crate::staged::Staged;

pub(super) fn apply(place: &Place, key: &Key, past: &Past, staged: &mut Staged<'_>) -> Done {
    place.write(key, Content::Deleted, past, staged)
}

//! Compare-and-set: the key gets a new value if it holds what is expected, judged against the base at
//! the operation's place in the log.

use bytes::Bytes;
use latitude_types::{Key, Past};

use super::Place;
use crate::entry::Expected;
use crate::range::{ApplyError, Done};
use crate::row::Content;
use crate::staged::Staged;

pub(super) fn apply(
    place: &Place,
    key: &Key,
    expected: &Expected,
    new_value: Option<&Bytes>,
    past: &Past,
    staged: &mut Staged<'_>,
) -> Result<Done, ApplyError> {
    let found = place.read(key, staged)?;
    let holds = match (expected, &found) {
        (Expected::Absent, found) => found.is_none(),
        (Expected::Value(expected), Some((value, _))) => value == expected,
        (Expected::Version(expected), Some((_, version))) => version == expected,
        (Expected::Value(_) | Expected::Version(_), None) => false,
    };
    if !holds {
        return Ok(Done::Mismatch { found: found.map(|(_, version)| version) });
    }
    let content = new_value.map_or(Content::Deleted, |value| Content::Plain(value.clone()));
    Ok(place.write(key, content, past, staged))
}

//! How our structures become bytes: one version byte, then postcard.
//!
//! postcard writes fields in order without names, so a layout never changes under its version byte:
//! a changed one takes the next number, and the old number stays readable.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes were not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer version, or damaged. A replica that meets it stops: skipping what it does not
    /// understand would make it differ from the others.
    #[error("{what} of version {found}; this version knows {known}")]
    Version {
        /// What was read.
        what: &'static str,
        /// Its version byte.
        found: u8,
        /// The newest this code knows.
        known: u8,
    },
    /// An entry kind that this version does not know.
    #[error("log entry of unknown kind {0}")]
    Kind(u8),
    /// An extension that this version does not know, and must not pass over.
    #[error("{what} with unknown extension {kind}")]
    Extension {
        /// What was read.
        what: &'static str,
        /// The extension's kind.
        kind: u16,
    },
    /// Cut short or damaged.
    #[error("{what} cannot be read: {message}")]
    Damaged {
        /// What was read.
        what: &'static str,
        /// What the decoder says.
        message: String,
    },
}

/// `value` behind its version byte.
pub(crate) fn encode<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![version]).expect("our structures serialize")
}

/// The value behind the version byte `known`.
pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    known: u8,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    let Some((&found, rest)) = bytes.split_first() else {
        return Err(DecodeError::Damaged { what, message: "it is empty".into() });
    };
    if found != known {
        return Err(DecodeError::Version { what, found, known });
    }
    decode_to_end(what, rest)
}

/// The value these bytes are. Bytes left over are damage, or a field this version does not know.
pub(crate) fn decode_to_end<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    let damaged = |message: String| DecodeError::Damaged { what, message };
    let (value, rest) =
        postcard::take_from_bytes(bytes).map_err(|error| damaged(error.to_string()))?;
    if !rest.is_empty() {
        return Err(damaged(format!("{} bytes follow it", rest.len())));
    }
    Ok(value)
}

//! Wire values to domain values and back.

use bytes::Bytes;
use latitude_types::{
    ClientId, Error, Key, KeySpan, Level, NodeId, OperationId, OperationKind, Reason, Timestamp,
    WriteTime, Writer,
};

use crate::pb::v1;

/// A domain value from its wire form, or why it cannot be one.
pub trait FromWire<W>: Sized {
    /// Parses the wire form.
    fn from_wire(wire: W) -> Result<Self, Error>;
}

/// The wire form of a domain value.
pub trait ToWire<W> {
    /// The wire form.
    fn to_wire(&self) -> W;
}

/// Carries a domain value through `From` in this crate, which owns neither side.
pub(crate) struct Wrapped<T>(pub(crate) T);

impl FromWire<v1::Error> for Error {
    fn from_wire(wire: v1::Error) -> Result<Self, Error> {
        Ok(Wrapped::from(wire).0)
    }
}

fn malformed(message: &str) -> Error {
    Error::new(Reason::Malformed, message)
}

fn client_id(bytes: &Bytes) -> Result<ClientId, Error> {
    let id = <[u8; 16]>::try_from(bytes.as_ref());
    id.map(ClientId).map_err(|_| malformed("a client id has 16 bytes"))
}

/// `None` stands for the keyspace's default.
impl FromWire<i32> for Option<Level> {
    fn from_wire(wire: i32) -> Result<Self, Error> {
        match v1::Level::try_from(wire) {
            Ok(v1::Level::Unspecified) => Ok(None),
            Ok(v1::Level::Strict) => Ok(Some(Level::Strict)),
            Ok(v1::Level::Sequential) => Ok(Some(Level::Sequential)),
            Ok(v1::Level::Causal) => Ok(Some(Level::Causal)),
            Ok(v1::Level::Eventual) => Ok(Some(Level::Eventual)),
            Err(_) => Err(Error::new(
                Reason::LevelUnknown,
                format!(
                    "{wire} is not a consistency level: 1 strict, 2 sequential, 3 causal, 4 eventual"
                ),
            )),
        }
    }
}

impl ToWire<i32> for Level {
    fn to_wire(&self) -> i32 {
        (match self {
            Self::Strict => v1::Level::Strict,
            Self::Sequential => v1::Level::Sequential,
            Self::Causal => v1::Level::Causal,
            Self::Eventual => v1::Level::Eventual,
        }) as i32
    }
}

impl FromWire<&Bytes> for Key {
    fn from_wire(wire: &Bytes) -> Result<Self, Error> {
        Self::new(wire)
    }
}

/// A span whose end is not above its start is refused: nobody scans nothing on purpose.
impl FromWire<(&Bytes, Option<&Bytes>)> for KeySpan {
    fn from_wire((start, end): (&Bytes, Option<&Bytes>)) -> Result<Self, Error> {
        Self::new(start, end.map(AsRef::as_ref)).ok_or_else(|| {
            let end = end.map(|end| end.escape_ascii().to_string()).unwrap_or_default();
            let message = format!(
                "the end {end:?} is not above the start \"{}\": swap them",
                start.escape_ascii()
            );
            Error::new(Reason::ScanSpanEmpty, message)
        })
    }
}

impl FromWire<(&v1::OperationId, OperationKind)> for OperationId {
    fn from_wire((wire, kind): (&v1::OperationId, OperationKind)) -> Result<Self, Error> {
        if wire.sequence == 0 {
            return Err(malformed("an operation's sequence counts up from 1"));
        }
        if wire.answered_below > wire.sequence {
            return Err(malformed(
                "an operation cannot be answered before it is asked: answered_below > sequence",
            ));
        }
        Ok(Self {
            birth: Timestamp(wire.birth),
            client: client_id(&wire.client)?,
            sequence: wire.sequence,
            kind,
        })
    }
}

impl FromWire<&v1::Version> for WriteTime {
    fn from_wire(wire: &v1::Version) -> Result<Self, Error> {
        let writer = match &wire.writer {
            Some(v1::version::Writer::Node(node)) => Writer::Node(NodeId(*node)),
            Some(v1::version::Writer::Client(client)) => Writer::Client(client_id(client)?),
            None => return Err(malformed("a version names its writer")),
        };
        Ok(Self { time: Timestamp(wire.time), writer, sequence: wire.sequence })
    }
}

impl ToWire<v1::Version> for WriteTime {
    fn to_wire(&self) -> v1::Version {
        let writer = match self.writer {
            Writer::Node(node) => v1::version::Writer::Node(node.0),
            Writer::Client(client) => {
                v1::version::Writer::Client(Bytes::copy_from_slice(&client.0))
            }
        };
        v1::Version { time: self.time.0, writer: Some(writer), sequence: self.sequence }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_level_survives_the_wire_and_others_are_refused() {
        for level in Level::ALL {
            assert_eq!(Option::<Level>::from_wire(level.to_wire()), Ok(Some(level)));
        }
        assert_eq!(Option::<Level>::from_wire(0), Ok(None));
        assert_eq!(Option::<Level>::from_wire(5).map_err(|e| e.reason), Err(Reason::LevelUnknown));
    }

    #[test]
    fn a_scan_of_nothing_is_refused() {
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        assert!(KeySpan::from_wire((&a, Some(&b))).is_ok());
        assert_eq!(
            KeySpan::from_wire((&b, Some(&a))).map_err(|e| e.reason),
            Err(Reason::ScanSpanEmpty)
        );
    }

    proptest! {
        #[test]
        fn a_version_survives_the_wire(time: u64, sequence: u64, node: u32, client: [u8; 16], log: bool) {
            let writer = if log { Writer::Node(NodeId(node)) } else { Writer::Client(ClientId(client)) };
            let version = WriteTime { time: Timestamp(time), writer, sequence };
            prop_assert_eq!(WriteTime::from_wire(&version.to_wire()), Ok(version));
        }
    }
}

//! Errors as gRPC statuses and as messages.
//!
//! A status carries our error in its details, as a `google.rpc.Status` that holds a
//! `latitude.v1.Error`: any gRPC client library can read it. A status *without* it was made by the gRPC
//! library or by something between us and the client, so a write that got it may have happened.

use std::time::Duration;

use latitude_types::{Error, Kind, LeaderHint, MissingQuorum, NodeId, Outcome, RangeId, Reason};
use prost::Message;
use tonic::{Code, Status};

use crate::pb::v1;

/// `google.rpc.Status`, as far as we need it.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

const ERROR_TYPE_URL: &str = "type.googleapis.com/latitude.v1.Error";

/// The longest sentence that leaves, in bytes. A status travels in HTTP headers, three times over and escaped, and of
/// those gRPC libraries take 8 or 16 KiB; a longer one would break the call, and its error would be lost.
const SENTENCE_LEN_MAX: usize = 1024;

/// The gRPC code of a kind of error: the one place where the two meet.
fn code(error: &Error) -> Code {
    match error.kind() {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::Redirect => Code::Aborted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Deadline => Code::DeadlineExceeded,
        Kind::Internal => Code::Internal,
    }
}

/// A sentence that quotes what a client sent may be as long as that.
fn cut(sentence: &str) -> String {
    if sentence.len() <= SENTENCE_LEN_MAX {
        return sentence.to_string();
    }
    let end = sentence.floor_char_boundary(SENTENCE_LEN_MAX - '…'.len_utf8());
    format!("{}…", &sentence[..end])
}

/// The error as a message; a very long sentence is cut.
pub fn error_to_pb(error: &Error) -> v1::Error {
    v1::Error {
        code: code(error) as i32,
        reason: error.reason.name().to_string(),
        message: cut(&error.message),
        outcome: match error.outcome {
            Outcome::NotApplied => v1::Outcome::NotApplied,
            Outcome::Unknown => v1::Outcome::Unknown,
        } as i32,
        retry_after_ms: error
            .retry_after
            .map_or(0, |wait| wait.as_millis().clamp(1, u128::from(u32::MAX)) as u32),
        leader: error
            .leader
            .as_ref()
            .map(|hint| v1::LeaderHint { range_id: hint.range.0, node: hint.node.0 }),
        missing_quorum: error.missing_quorum.as_ref().map(|missing| v1::MissingQuorum {
            range_id: missing.range.0,
            needed: missing.needed,
            silent_nodes: missing.silent.iter().map(|node| node.0).collect(),
        }),
    }
}

impl From<v1::Error> for crate::convert::Wrapped<Error> {
    fn from(wire: v1::Error) -> Self {
        // A reason this version does not know (from a newer server) is internal to it; the outcome and
        // the sentence still tell the caller what matters.
        let reason = Reason::from_name(&wire.reason).unwrap_or(Reason::Internal);
        let outcome = match wire.outcome() {
            v1::Outcome::NotApplied => Outcome::NotApplied,
            v1::Outcome::Unknown | v1::Outcome::Unspecified => Outcome::Unknown,
        };
        Self(Error {
            reason,
            outcome,
            message: wire.message,
            retry_after: (wire.retry_after_ms > 0)
                .then(|| Duration::from_millis(u64::from(wire.retry_after_ms))),
            leader: wire
                .leader
                .map(|hint| LeaderHint { range: RangeId(hint.range_id), node: NodeId(hint.node) }),
            missing_quorum: wire.missing_quorum.map(|missing| MissingQuorum {
                range: RangeId(missing.range_id),
                needed: missing.needed,
                silent: missing.silent_nodes.into_iter().map(NodeId).collect(),
            }),
        })
    }
}

/// The error as the status of a unary call.
pub fn status_from_error(error: &Error) -> Status {
    let wire = error_to_pb(error);
    let any =
        prost_types::Any { type_url: ERROR_TYPE_URL.to_string(), value: wire.encode_to_vec() };
    let details = RpcStatus { code: wire.code, message: wire.message.clone(), details: vec![any] };
    Status::with_details(
        code(error),
        format!("{}: {}", wire.reason, wire.message),
        details.encode_to_vec().into(),
    )
}

/// The error a unary call's status stands for. Without our detail a write counts as
/// [`Outcome::Unknown`].
pub fn error_from_status(status: &Status) -> Error {
    let detail = RpcStatus::decode(status.details()).ok().and_then(|details| {
        let any = details.details.into_iter().find(|any| any.type_url == ERROR_TYPE_URL)?;
        v1::Error::decode(any.value.as_slice()).ok()
    });
    if let Some(wire) = detail {
        return crate::convert::Wrapped::from(wire).0;
    }
    let reason = match status.code() {
        Code::Unavailable | Code::Unknown | Code::Cancelled => Reason::Unreachable,
        Code::DeadlineExceeded => Reason::DeadlineExceeded,
        Code::ResourceExhausted => Reason::TooManyRequests,
        Code::InvalidArgument | Code::OutOfRange => Reason::Malformed,
        _ => Reason::Internal,
    };
    Error::unknown(reason, status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_trip_through_a_status() {
        let error = Error {
            leader: Some(LeaderHint { range: RangeId(7), node: NodeId(2) }),
            missing_quorum: Some(MissingQuorum {
                range: RangeId(7),
                needed: 2,
                silent: vec![NodeId(1), NodeId(3)],
            }),
            retry_after: Some(Duration::from_millis(250)),
            ..Error::unknown(Reason::NoQuorum, "two of three do not answer")
        };
        assert_eq!(error_from_status(&status_from_error(&error)), error);
    }

    /// What a client sent and an error quotes may have megabytes.
    #[test]
    fn an_error_fits_into_headers_however_long_its_sentence_is() {
        let quoted = "é\n".repeat(1 << 20);
        let error = Error::new(Reason::KeyspaceUnknown, format!("no keyspace is called {quoted}"));
        let mut headers = http::HeaderMap::new();
        status_from_error(&error).add_header(&mut headers).unwrap();
        let len: usize = headers.values().map(http::HeaderValue::len).sum();
        assert!(len < 8 << 10, "{len} bytes of headers");
        let told = error_from_status(&status_from_error(&error));
        assert_eq!((told.reason, told.outcome), (error.reason, error.outcome));
        assert!(told.message.starts_with("no keyspace is called é") && told.message.ends_with('…'));
        // The longest that is left as it is.
        let whole = Error::new(Reason::Internal, "x".repeat(SENTENCE_LEN_MAX));
        assert_eq!(error_from_status(&status_from_error(&whole)), whole);
    }

    #[test]
    fn every_reason_survives_the_trip() {
        for reason in Reason::ALL {
            let error = Error::new(*reason, "why");
            assert_eq!(error_from_status(&status_from_error(&error)), error);
        }
    }

    #[test]
    fn a_status_without_our_detail_may_have_applied() {
        for code in 1..=16 {
            assert!(
                error_from_status(&Status::new(Code::from(code), "made elsewhere"))
                    .may_have_applied()
            );
        }
    }
}

//! What fits into one message of a stream.
//!
//! HAZARD: the gRPC library refuses to send a message that is too long, and ends the stream for it: everything that is
//! under way on it is lost, to be sent again in the same message. So whatever comes together from several sides is cut
//! here, and what is too long by itself gives way to an error.

use latitude_rpc::pb::v1::{self, reply};
use latitude_rpc::{MESSAGE_LEN_MAX, error_to_pb};
use latitude_types::{Error, Reason};
use prost::Message;

/// A frame is closed at this size; a single larger message makes a frame of its own.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 20;
/// What a message takes in a frame beside itself: its tag and its length.
const HEAD: usize = 6;
/// The longest reply: it may leave in a frame, or be handed to another node that passed the command on.
const REPLY_LEN_MAX: usize = MESSAGE_LEN_MAX - 2 * HEAD;

/// As many of these messages, from the first on, as make a frame; one at least.
pub(crate) fn first_of<M: Message>(ready: &mut Vec<M>) -> Vec<M> {
    let (mut count, mut bytes) = (0, 0);
    for message in ready.iter() {
        bytes += HEAD + message.encoded_len();
        if count > 0 && bytes > FRAME_BYTES_MAX {
            break;
        }
        count += 1;
    }
    let rest = ready.split_off(count);
    std::mem::replace(ready, rest)
}

/// The reply or, if no message can carry it, an error. Only what was read can be so long.
pub(crate) fn fitting(reply: v1::Reply) -> v1::Reply {
    if !is_read(&reply) {
        return reply;
    }
    let len = reply.encoded_len();
    if len <= REPLY_LEN_MAX {
        return reply;
    }
    let message = format!(
        "the answer has {len} bytes, and a message carries up to {REPLY_LEN_MAX}: a scan may ask for fewer at once or \
         for keys alone; of a key that holds so much some must be removed"
    );
    refused(&reply, &Error::new(Reason::ValueTooLarge, message))
}

/// A batch's replies as far as one message carries them. What was written has happened, so whoever wrote it is told;
/// reads, in their order, have what room there is, and those that have none are errors.
pub(crate) fn fitting_batch(replies: Vec<v1::Reply>) -> Vec<v1::Reply> {
    let len = |reply: &v1::Reply| HEAD + reply.encoded_len();
    if replies.iter().map(len).sum::<usize>() <= MESSAGE_LEN_MAX {
        return replies;
    }
    let message = format!(
        "the answers of the batch have more than the {MESSAGE_LEN_MAX} bytes that a message carries, and this one had \
         no more room: ask again, in a smaller batch"
    );
    let no_room = Error::new(Reason::BatchTooLarge, message);
    let least = |reply: &v1::Reply| {
        if is_read(reply) { len(&refused(reply, &no_room)) } else { len(reply) }
    };
    let mut bytes: usize = replies.iter().map(least).sum();
    let fit = |reply: v1::Reply| {
        let with = bytes - least(&reply) + len(&reply);
        if with > MESSAGE_LEN_MAX && is_read(&reply) {
            return refused(&reply, &no_room);
        }
        bytes = with;
        reply
    };
    replies.into_iter().map(fit).collect()
}

fn is_read(reply: &v1::Reply) -> bool {
    matches!(reply.result, Some(reply::Result::Get(_) | reply::Result::Scan(_)))
}

/// An error in the place of a reply. The session has seen nothing of it.
fn refused(reply: &v1::Reply, error: &Error) -> v1::Reply {
    v1::Reply {
        tag: reply.tag,
        clock: reply.clock,
        result: Some(reply::Result::Error(error_to_pb(error))),
        ..v1::Reply::default()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use latitude_rpc::FromWire;
    use latitude_rpc::pb::peer;

    use super::*;

    const MIB: usize = 1 << 20;

    fn got(tag: u64, len: usize) -> v1::Reply {
        let value = Some(Bytes::from(vec![0; len]));
        let got = v1::GetResult { value, ..v1::GetResult::default() };
        v1::Reply { tag, clock: 7, result: Some(reply::Result::Get(got)), ..v1::Reply::default() }
    }

    fn written(tag: u64) -> v1::Reply {
        let result = Some(reply::Result::Write(v1::WriteResult::default()));
        v1::Reply { tag, result, ..v1::Reply::default() }
    }

    fn reason(reply: &v1::Reply) -> Option<Reason> {
        match &reply.result {
            Some(reply::Result::Error(error)) => {
                let error = Error::from_wire(error.clone()).unwrap();
                assert!(!error.may_have_applied());
                Some(error.reason)
            }
            _ => None,
        }
    }

    fn frames<M: Message>(mut ready: Vec<M>) -> Vec<Vec<M>> {
        let mut frames = Vec::new();
        while !ready.is_empty() {
            frames.push(first_of(&mut ready));
        }
        frames
    }

    /// Eight stretches of 8 MiB values in one frame would be more than a peer takes, each time anew.
    #[test]
    fn answers_that_are_ready_together_make_frames_that_a_peer_takes() {
        let message = |call, len| peer::Message {
            call,
            body: Bytes::from(vec![0; len]),
            ..peer::Message::default()
        };
        let mut ready: Vec<_> = (0..8).map(|call| message(call, 8 * MIB)).collect();
        ready.extend((8..20).map(|call| message(call, 10)));
        let frames = frames(ready);
        assert_eq!(frames.len(), 9, "small ones share a frame");
        let calls: Vec<_> = frames.iter().flatten().map(|message| message.call).collect();
        assert_eq!(calls, (0..20).collect::<Vec<_>>());
        for messages in frames {
            let frame = peer::Frame { messages, ..peer::Frame::default() };
            assert!(frame.encoded_len() < MESSAGE_LEN_MAX);
        }
    }

    /// Of many small messages most is what is around their bodies.
    #[test]
    fn a_frame_is_as_long_as_its_messages_and_not_as_their_bodies() {
        let frames = frames((0..100_000).map(written).collect::<Vec<_>>());
        for replies in frames {
            let frame = v1::ReplyFrame { replies };
            assert!(frame.encoded_len() <= FRAME_BYTES_MAX, "{}", frame.encoded_len());
        }
    }

    #[test]
    fn replies_that_are_ready_together_make_frames_that_a_client_takes() {
        let mut ready: Vec<_> = (0..24).map(|tag| got(tag, MIB)).collect();
        ready.push(written(24));
        let frames = frames(ready);
        let tags: Vec<_> = frames.iter().flatten().map(|reply| reply.tag).collect();
        assert_eq!(tags, (0..25).collect::<Vec<_>>());
        for replies in frames {
            assert!(v1::ReplyFrame { replies }.encoded_len() <= MESSAGE_LEN_MAX);
        }
    }

    #[test]
    fn a_reply_that_no_message_carries_is_an_error_and_one_that_just_fits_is_sent() {
        let around = got(3, MESSAGE_LEN_MAX).encoded_len() - MESSAGE_LEN_MAX;
        let longest = fitting(got(3, REPLY_LEN_MAX - around));
        assert_eq!((reason(&longest), longest.encoded_len()), (None, REPLY_LEN_MAX));
        assert!(v1::ReplyFrame { replies: vec![longest] }.encoded_len() <= MESSAGE_LEN_MAX);
        let refused = fitting(got(3, REPLY_LEN_MAX - around + 1));
        assert_eq!((refused.tag, refused.clock), (3, 7));
        assert_eq!(reason(&refused), Some(Reason::ValueTooLarge));
    }

    #[test]
    fn a_batch_loses_no_write_to_reads_that_have_no_room() {
        let small: Vec<_> = (0..1000).map(|tag| got(tag, 1000)).collect();
        assert_eq!(fitting_batch(small.clone()), small);
        // Far more than fits, with what was written at either end and between.
        let mut replies = vec![written(0)];
        replies.extend((1..400).map(|tag| if tag % 3 == 0 { written(tag) } else { got(tag, MIB) }));
        replies.push(written(400));
        let fitted = fitting_batch(replies.clone());
        assert_eq!(fitted.len(), replies.len());
        let mut reads = Vec::new();
        for (fitted, reply) in fitted.iter().zip(&replies) {
            assert_eq!(fitted.tag, reply.tag);
            if !is_read(reply) {
                assert_eq!(fitted, reply);
                continue;
            }
            reads.push(reason(fitted));
        }
        let (fit, rest) = reads.split_at(19);
        assert!(fit.iter().all(Option::is_none), "the first ones fit: {fit:?}");
        assert!(rest.iter().all(|reason| *reason == Some(Reason::BatchTooLarge)));
        assert!(v1::BatchReply { replies: fitted }.encoded_len() <= MESSAGE_LEN_MAX);
    }
}

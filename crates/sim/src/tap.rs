//! What nodes say to each other of local writes, read off the wire.
//!
//! ```text
//!   bytes of a connection ─▶ frames of HTTP/2 ─▶ DATA of a stream ─▶ messages of gRPC ─▶ Frame ─▶ Pull, Stretch
//! ```
//!
//! Only streams of `Exchange` that greet as of the class of local writes are read; of all others the first message
//! at most. Nothing here is known to a node, and nothing is changed on the way.
//!
//! Sources: RFC 9113, sections 3.4, 4.1 and 6.1; gRPC over HTTP/2, "Length-Prefixed-Message".

use std::collections::BTreeMap;

use latitude_rpc::pb::peer::{Class, Frame, Message, MessageKind, Pull, Stretch};
use latitude_types::Timestamp;
use prost::Message as _;

/// What whoever dials says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_LEN: usize = 9;
const DATA: u8 = 0;
const PADDED: u8 = 8;
/// One byte whether it is compressed, four how long it is.
const PREFIX_LEN: usize = 5;

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    /// Bytes of a frame that is not whole yet.
    rest: Vec<u8>,
    /// Whether this end dialled, once that is known: then it asks, else it answers.
    dialled: Option<bool>,
    streams: BTreeMap<u32, Stream>,
}

#[derive(Debug)]
enum Stream {
    /// Bytes of a message that is not whole yet; whether the stream has greeted.
    Read(Vec<u8>, bool),
    /// It is about something else.
    Ignored,
}

/// Something that one node says to another, in a frame with that clock.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Told {
    pub(crate) call: u64,
    pub(crate) clock: Timestamp,
    pub(crate) said: Said,
}

/// What it says.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Said {
    Pull(Pull),
    Stretch(Stretch),
}

impl Tap {
    /// These bytes were sent. What was said in them.
    pub(crate) fn sent(&mut self, bytes: &[u8]) -> Vec<Told> {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        let dialled = match self.dialled {
            Some(dialled) => dialled,
            None => {
                let len = self.rest.len().min(PREFACE.len());
                let is_preface = self.rest[..len] == PREFACE[..len];
                if is_preface && len < PREFACE.len() {
                    return Vec::new();
                }
                at = if is_preface { len } else { 0 };
                *self.dialled.insert(is_preface)
            }
        };
        let mut said = Vec::new();
        while let Some(header) = self.rest.get(at..at + HEADER_LEN) {
            let len = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
            let (kind, flags) = (header[3], header[4]);
            let stream =
                u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
            let Some(payload) = self.rest.get(at + HEADER_LEN..at + HEADER_LEN + len) else {
                break;
            };
            if kind == DATA {
                let state = self.streams.entry(stream).or_insert(Stream::Read(Vec::new(), false));
                let messages = state.data(unpadded(payload, flags));
                let messages = messages.iter();
                said.extend(messages.filter_map(|(clock, message)| told(*clock, message, dialled)));
            }
            at += HEADER_LEN + len;
        }
        self.rest.drain(..at);
        said
    }
}

fn unpadded(payload: &[u8], flags: u8) -> &[u8] {
    match payload {
        [padding, rest @ ..] if flags & PADDED != 0 => {
            &rest[..rest.len().saturating_sub(usize::from(*padding))]
        }
        _ => payload,
    }
}

impl Stream {
    /// The messages that these bytes make whole, each with its frame's clock.
    fn data(&mut self, bytes: &[u8]) -> Vec<(Timestamp, Message)> {
        let mut messages = Vec::new();
        let Self::Read(rest, greeted) = self else { return messages };
        rest.extend_from_slice(bytes);
        loop {
            let Some([compressed, len @ ..]) = rest.first_chunk::<PREFIX_LEN>() else {
                return messages;
            };
            let (is_compressed, len) = (*compressed != 0, u32::from_be_bytes(*len) as usize);
            let Some(message) = rest.get(PREFIX_LEN..PREFIX_LEN + len) else { return messages };
            let frame = Frame::decode(message).ok().filter(|_| !is_compressed);
            let is_ours = |frame: &Frame| {
                let greeting = frame.greeting.as_ref();
                greeting.is_some_and(|g| g.class() == Class::Stream && g.cluster_id.len() == 16)
            };
            let Some(frame) = frame.filter(|frame| *greeted || is_ours(frame)) else {
                *self = Self::Ignored;
                return messages;
            };
            *greeted = true;
            let clock = Timestamp(frame.clock);
            messages.extend(frame.messages.into_iter().map(|message| (clock, message)));
            rest.drain(..PREFIX_LEN + len);
        }
    }
}

fn told(clock: Timestamp, message: &Message, dialled: bool) -> Option<Told> {
    if message.kind() != MessageKind::Pull || !message.failure.is_empty() {
        return None;
    }
    let body = &message.body[..];
    let said = match dialled {
        true => Said::Pull(Pull::decode(body).ok()?),
        false => Said::Stretch(Stretch::decode(body).ok()?),
    };
    Some(Told { call: message.call, clock, said })
}

#[cfg(test)]
mod tests {
    use latitude_rpc::pb::peer::{Greeting, SubscribedRange};

    use super::*;

    fn frame(class: Class, bodies: &[Vec<u8>]) -> Frame {
        let message = |body: &Vec<u8>| Message {
            call: 6,
            kind: MessageKind::Pull as i32,
            body: body.clone().into(),
            ..Message::default()
        };
        let mut greeting =
            Greeting { cluster_id: vec![7; 16].into(), node: 1, ..Greeting::default() };
        greeting.set_class(class);
        Frame {
            greeting: Some(greeting),
            messages: bodies.iter().map(message).collect(),
            clock: 12,
            ..Frame::default()
        }
    }

    /// The bytes of a stream that says these frames, in DATA of so many bytes at most.
    fn bytes(stream: u32, frames: &[Frame], most: usize) -> Vec<u8> {
        let mut messages = Vec::new();
        for frame in frames {
            let body = frame.encode_to_vec();
            messages.push(0);
            messages.extend_from_slice(&(body.len() as u32).to_be_bytes());
            messages.extend_from_slice(&body);
        }
        let mut bytes = Vec::new();
        for chunk in messages.chunks(most) {
            bytes.extend_from_slice(&(chunk.len() as u32).to_be_bytes()[1..]);
            bytes.extend_from_slice(&[DATA, 0]);
            bytes.extend_from_slice(&stream.to_be_bytes());
            bytes.extend_from_slice(chunk);
        }
        bytes
    }

    #[test]
    fn what_is_said_is_read_however_it_is_cut() {
        let ranges = vec![SubscribedRange { range_id: 4, after: 9 }];
        let pull = Pull { subscription: 3, ranges, ..Pull::default() };
        let stretch = Stretch { from: 1, to: 8, ..Stretch::default() };
        let (asked, told) = (pull.encode_to_vec(), stretch.encode_to_vec());
        for (most, step) in [(3, 1), (1_000, 7), (1_000, 100_000)] {
            let asks = frame(Class::Stream, std::slice::from_ref(&asked));
            let more = Frame { greeting: None, ..asks.clone() };
            let mut sent = PREFACE.to_vec();
            // A frame of another kind: SETTINGS, without a body.
            sent.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
            sent.extend_from_slice(&bytes(1, &[asks, more], most));
            let mut tap = Tap::default();
            let said: Vec<_> = sent.chunks(step).flat_map(|bytes| tap.sent(bytes)).collect();
            let is = |said| Told { call: 6, clock: Timestamp(12), said };
            assert_eq!(said, [is(Said::Pull(pull.clone())), is(Said::Pull(pull.clone()))]);
            let answers = bytes(1, &[frame(Class::Stream, std::slice::from_ref(&told))], most);
            let mut tap = Tap::default();
            let said: Vec<_> = answers.chunks(step).flat_map(|bytes| tap.sent(bytes)).collect();
            assert_eq!(said, [is(Said::Stretch(stretch.clone()))]);
        }
    }

    #[test]
    fn streams_about_something_else_are_not_read() {
        let pull = Pull { subscription: 3, ..Pull::default() }.encode_to_vec();
        let mut sent = PREFACE.to_vec();
        sent.extend_from_slice(&bytes(1, &[frame(Class::Raft, std::slice::from_ref(&pull))], 50));
        sent.extend_from_slice(&bytes(3, &[frame(Class::Stream, &[pull])], 50));
        assert_eq!(Tap::default().sent(&sent).len(), 1);
    }
}

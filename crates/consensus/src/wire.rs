//! Our own forms of what openraft sends and stores, in the log and between nodes.
//!
//! openraft's serde forms are explicitly not stable; these are: one version byte, then postcard, with
//! fields in an order that never changes under its version.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use latitude_probe::Plant;
use latitude_types::ReplicaId;
use openraft::entry::RaftEntry;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, EntryPayload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::types::{self, LeaderId, Proposal, TypeConfig};

const VERSION: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Vote {
    term: u64,
    replica: ReplicaId,
    committed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LogId {
    term: u64,
    replica: ReplicaId,
    index: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    id: LogId,
    payload: Payload,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Payload {
    Blank,
    Normal(Bytes),
    Membership(Membership),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Membership {
    /// One voter set; two while a change is under way.
    configs: Vec<Vec<ReplicaId>>,
    /// Every replica, learners too.
    replicas: Vec<ReplicaId>,
}

/// How far a replica has applied its log; in one batch with what it applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct AppliedRow {
    pub(crate) last: Option<LogId>,
    pub(crate) membership_at: Option<LogId>,
    pub(crate) membership: Membership,
}

/// What one replica asks of another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Append { vote: Vote, prev: Option<LogId>, entries: Vec<Entry>, leader_commit: Option<LogId> },
    Vote(VoteBody),
    PreVote(VoteBody),
    TransferLeader { from: Vote, to: ReplicaId, last: Option<LogId> },
    Snapshot(SnapshotPart),
}

/// A part of a snapshot on its way, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotPart {
    pub(crate) vote: Vote,
    /// Which transfer of this leadership.
    pub(crate) transfer: u64,
    pub(crate) part: Part,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    /// The header, encoded.
    Begin(Bytes),
    /// Rows, encoded, and the CRC-32C of that.
    Chunk { seq: u32, crc: u32, rows: Bytes },
    /// How many rows there were, and the checksum of header and rows.
    End { rows: u64, checksum: u64 },
    /// The beginning of the encoded rows of a chunk that no message could carry, and its CRC-32C. More of them may
    /// follow, and then the chunk, with the rest.
    Piece { seq: u32, crc: u32, bytes: Bytes },
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct VoteBody {
    vote: Vote,
    last: Option<LogId>,
    leadership_transfer: bool,
}

impl From<types::LeaderToken> for Vote {
    /// The vote of whoever has won it.
    fn from(leadership: types::LeaderToken) -> Self {
        Self { term: leadership.term, replica: leadership.replica, committed: true }
    }
}

impl Request {
    /// The leadership under which it was sent, if it is a leader's to its followers.
    pub(crate) fn leadership(&self) -> Option<types::LeaderToken> {
        match self {
            Self::Append { vote, .. } => {
                Some(types::LeaderToken { term: vote.term, replica: vote.replica })
            }
            // Parts of a snapshot do not reach Raft, so whoever takes them promises nothing by it.
            Self::Vote(_) | Self::PreVote(_) | Self::TransferLeader { .. } | Self::Snapshot(_) => {
                None
            }
        }
    }
}

/// What it answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Append(AppendAnswer),
    Vote { vote: Vote, granted: bool, last: Option<LogId> },
    TransferLeader(Result<(), TransferRefused>),
    Snapshot(SnapshotAnswer),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum SnapshotAnswer {
    /// The part is staged; the next, please.
    Taken,
    /// The replica has everything that the snapshot holds.
    Installed(Vote),
    /// The sender has been deposed.
    HigherVote(Vote),
    /// The transfer is over; another may work.
    Refused(String),
}

impl Response {
    /// Whether it answers a leader's message and knows of no higher vote: whoever gives it has taken the
    /// leader for its own, even if it could not take the entries.
    pub(crate) fn acknowledges(&self) -> bool {
        match self {
            Self::Append(AppendAnswer::HigherVote(_)) => Plant::AckWithoutVote.is_on(),
            Self::Append(
                AppendAnswer::Success | AppendAnswer::PartialSuccess(_) | AppendAnswer::Conflict,
            ) => true,
            _ => false,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum AppendAnswer {
    Success,
    PartialSuccess(Option<LogId>),
    Conflict,
    HigherVote(Vote),
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum TransferRefused {
    VoteChanged { expected: Vote, actual: Vote },
    LogNotFlushed { expected: Option<LogId>, actual: Option<LogId> },
}

/// `value` behind its version byte.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("our structures serialize")
}

/// The value of these bytes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    match bytes {
        [VERSION, rest @ ..] => {
            postcard::from_bytes(rest).map_err(|error| corrupt(&error.to_string()))
        }
        [other, ..] => {
            Err(corrupt(&format!("written in version {other}; this version knows {VERSION}")))
        }
        [] => Err(corrupt("empty")),
    }
}

/// A log entry as it stands in the store: its checksum, then the entry.
pub(crate) fn encode_entry(entry: &types::Entry) -> Vec<u8> {
    let body = encode(&Entry::from(entry));
    let mut row = Vec::with_capacity(body.len() + 4);
    row.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    row.extend_from_slice(&body);
    row
}

/// The log entry of a row, if its checksum is right.
pub(crate) fn decode_entry(row: &[u8]) -> io::Result<types::Entry> {
    let (checksum, body) = row.split_first_chunk::<4>().ok_or_else(|| corrupt("cut short"))?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return Err(corrupt("its checksum is wrong"));
    }
    Ok(decode::<Entry>(body)?.into())
}

fn corrupt(message: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a stored or received structure cannot be read: {message}"),
    )
}

impl From<&types::Vote> for Vote {
    fn from(vote: &types::Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            replica: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<Vote> for types::Vote {
    fn from(vote: Vote) -> Self {
        Self {
            leader_id: LeaderId { term: vote.term, node_id: vote.replica },
            committed: vote.committed,
        }
    }
}

impl From<&types::LogId> for LogId {
    fn from(id: &types::LogId) -> Self {
        Self { term: id.leader_id.term, replica: id.leader_id.node_id, index: id.index }
    }
}

impl From<LogId> for types::LogId {
    fn from(id: LogId) -> Self {
        Self { leader_id: LeaderId { term: id.term, node_id: id.replica }, index: id.index }
    }
}

fn log_id(id: Option<&types::LogId>) -> Option<LogId> {
    id.map(LogId::from)
}

fn into_log_id(id: Option<LogId>) -> Option<types::LogId> {
    id.map(types::LogId::from)
}

impl From<&types::Membership> for Membership {
    fn from(membership: &types::Membership) -> Self {
        Self {
            configs: membership
                .get_joint_config()
                .iter()
                .map(|voters| voters.iter().copied().collect())
                .collect(),
            replicas: membership.nodes().map(|(replica, _)| *replica).collect(),
        }
    }
}

impl From<Membership> for types::Membership {
    fn from(membership: Membership) -> Self {
        let configs =
            membership.configs.into_iter().map(|voters| voters.into_iter().collect()).collect();
        let replicas: BTreeMap<_, _> =
            membership.replicas.into_iter().map(|replica| (replica, EmptyNode::new())).collect();
        Self::new_with_defaults(configs, replicas.into_keys())
    }
}

impl From<&types::Entry> for Entry {
    fn from(entry: &types::Entry) -> Self {
        let payload = match &entry.payload {
            EntryPayload::Blank => Payload::Blank,
            EntryPayload::Normal(proposal) => Payload::Normal(proposal.0.clone()),
            EntryPayload::Membership(membership) => Payload::Membership(membership.into()),
        };
        Self { id: (&entry.log_id).into(), payload }
    }
}

impl From<Entry> for types::Entry {
    fn from(entry: Entry) -> Self {
        let payload = match entry.payload {
            Payload::Blank => EntryPayload::Blank,
            Payload::Normal(bytes) => EntryPayload::Normal(Proposal(bytes)),
            Payload::Membership(membership) => EntryPayload::Membership(membership.into()),
        };
        RaftEntry::new(entry.id.into(), payload)
    }
}

impl From<&AppendEntriesRequest<TypeConfig>> for Request {
    fn from(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        Self::Append {
            vote: (&request.vote).into(),
            prev: log_id(request.prev_log_id.as_ref()),
            entries: request.entries.iter().map(Entry::from).collect(),
            leader_commit: log_id(request.leader_commit.as_ref()),
        }
    }
}

impl From<&VoteRequest<TypeConfig>> for VoteBody {
    fn from(request: &VoteRequest<TypeConfig>) -> Self {
        Self {
            vote: (&request.vote).into(),
            last: log_id(request.last_log_id.as_ref()),
            leadership_transfer: request.leadership_transfer,
        }
    }
}

impl From<VoteBody> for VoteRequest<TypeConfig> {
    fn from(body: VoteBody) -> Self {
        let mut request = Self::new(body.vote.into(), into_log_id(body.last));
        request.leadership_transfer = body.leadership_transfer;
        request
    }
}

impl From<&VoteResponse<TypeConfig>> for Response {
    fn from(response: &VoteResponse<TypeConfig>) -> Self {
        Self::Vote {
            vote: (&response.vote).into(),
            granted: response.vote_granted,
            last: log_id(response.last_log_id.as_ref()),
        }
    }
}

impl From<&TransferLeaderRequest<TypeConfig>> for Request {
    fn from(request: &TransferLeaderRequest<TypeConfig>) -> Self {
        Self::TransferLeader {
            from: request.from_leader().into(),
            to: *request.to_node_id(),
            last: log_id(request.last_log_id()),
        }
    }
}

impl From<AppendEntriesResponse<TypeConfig>> for Response {
    fn from(response: AppendEntriesResponse<TypeConfig>) -> Self {
        Self::Append(match response {
            AppendEntriesResponse::Success => AppendAnswer::Success,
            AppendEntriesResponse::PartialSuccess(last) => {
                AppendAnswer::PartialSuccess(log_id(last.as_ref()))
            }
            AppendEntriesResponse::Conflict => AppendAnswer::Conflict,
            AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote((&vote).into()),
        })
    }
}

impl From<AppendAnswer> for AppendEntriesResponse<TypeConfig> {
    fn from(answer: AppendAnswer) -> Self {
        match answer {
            AppendAnswer::Success => Self::Success,
            AppendAnswer::PartialSuccess(last) => Self::PartialSuccess(into_log_id(last)),
            AppendAnswer::Conflict => Self::Conflict,
            AppendAnswer::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<TransferLeaderError<TypeConfig>> for TransferRefused {
    fn from(error: TransferLeaderError<TypeConfig>) -> Self {
        match error {
            TransferLeaderError::VoteChanged { expected, actual } => {
                Self::VoteChanged { expected: (&expected).into(), actual: (&actual).into() }
            }
            TransferLeaderError::LogNotFlushed { expected, actual } => Self::LogNotFlushed {
                expected: log_id(expected.as_ref()),
                actual: log_id(actual.as_ref()),
            },
        }
    }
}

impl From<TransferRefused> for TransferLeaderError<TypeConfig> {
    fn from(refused: TransferRefused) -> Self {
        match refused {
            TransferRefused::VoteChanged { expected, actual } => {
                Self::VoteChanged { expected: expected.into(), actual: actual.into() }
            }
            TransferRefused::LogNotFlushed { expected, actual } => {
                Self::LogNotFlushed { expected: into_log_id(expected), actual: into_log_id(actual) }
            }
        }
    }
}

/// An append, as openraft takes it.
pub(crate) fn append_request(
    vote: Vote,
    prev: Option<LogId>,
    entries: Vec<Entry>,
    leader_commit: Option<LogId>,
) -> AppendEntriesRequest<TypeConfig> {
    AppendEntriesRequest {
        vote: vote.into(),
        prev_log_id: into_log_id(prev),
        entries: entries.into_iter().map(types::Entry::from).collect(),
        leader_commit: into_log_id(leader_commit),
    }
}

/// A leader transfer, as openraft takes it.
pub(crate) fn transfer_request(
    from: Vote,
    to: ReplicaId,
    last: Option<LogId>,
) -> TransferLeaderRequest<TypeConfig> {
    TransferLeaderRequest::new(from.into(), to, into_log_id(last))
}

/// A vote's answer, as openraft takes it.
pub(crate) fn vote_response(
    vote: Vote,
    granted: bool,
    last: Option<LogId>,
) -> VoteResponse<TypeConfig> {
    VoteResponse::new(types::Vote::from(vote), into_log_id(last), granted)
}

impl AppliedRow {
    pub(crate) fn new(last: Option<&types::LogId>, membership: &types::StoredMembership) -> Self {
        Self {
            last: log_id(last),
            membership_at: log_id(membership.log_id().as_ref()),
            membership: membership.membership().into(),
        }
    }

    pub(crate) fn into_parts(self) -> (Option<types::LogId>, types::StoredMembership) {
        let membership =
            types::StoredMembership::new(into_log_id(self.membership_at), self.membership.into());
        (into_log_id(self.last), membership)
    }
}

/// The stored form of what is purged.
pub(crate) fn encode_log_id(id: &types::LogId) -> Vec<u8> {
    encode(&LogId::from(id))
}

/// What is purged, from its stored form.
pub(crate) fn decode_log_id(row: &[u8]) -> io::Result<types::LogId> {
    Ok(decode::<LogId>(row)?.into())
}

#[cfg(test)]
mod tests {
    use latitude_types::{Generation, NodeId};

    use super::*;

    fn replica(node: u32) -> ReplicaId {
        ReplicaId { node: NodeId(node), generation: Generation(1) }
    }

    fn entries() -> Vec<types::Entry> {
        let id =
            |index| types::LogId { leader_id: LeaderId { term: 3, node_id: replica(2) }, index };
        let membership = types::Membership::new_with_defaults(
            vec![[replica(1), replica(2)].into(), [replica(2), replica(3)].into()],
            [replica(1), replica(2), replica(3), replica(4)],
        );
        vec![
            RaftEntry::new(id(7), EntryPayload::Blank),
            RaftEntry::new(id(8), EntryPayload::Normal(Proposal(Bytes::from_static(b"abc")))),
            RaftEntry::new(id(9), EntryPayload::Membership(membership)),
        ]
    }

    /// What replicas of different versions say to each other: kinds are added at the end only.
    #[test]
    fn requests_and_answers_keep_their_numbers() {
        let vote = Vote { term: 3, replica: replica(2), committed: true };
        let part = |part| Request::Snapshot(SnapshotPart { vote, transfer: 9, part });
        let rows = Bytes::from_static(b"rows");
        let hex =
            |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let append = Request::Append { vote, prev: None, entries: vec![], leader_commit: None };
        let body = VoteBody { vote, last: None, leadership_transfer: false };
        let transfer = Request::TransferLeader { from: vote, to: replica(1), last: None };
        for (request, expected) in [
            (append, "010003020101000000"),
            (Request::Vote(body.clone()), "0101030201010000"),
            (Request::PreVote(body), "0102030201010000"),
            (transfer, "010303020101010100"),
            (part(Part::Begin(rows.clone())), "010403020101090004726f7773"),
            (
                part(Part::Chunk { seq: 1, crc: 2, rows: rows.clone() }),
                "0104030201010901010204726f7773",
            ),
            (part(Part::Piece { seq: 1, crc: 2, bytes: rows }), "0104030201010903010204726f7773"),
            (part(Part::End { rows: 1, checksum: 2 }), "01040302010109020102"),
        ] {
            assert_eq!(hex(encode(&request)), expected, "{request:?}");
        }
        for (answer, expected) in [
            (SnapshotAnswer::Taken, "010300"),
            (SnapshotAnswer::Installed(vote), "01030103020101"),
            (SnapshotAnswer::HigherVote(vote), "01030203020101"),
            (SnapshotAnswer::Refused("no".into()), "010303026e6f"),
        ] {
            assert_eq!(hex(encode(&Response::Snapshot(answer.clone()))), expected, "{answer:?}");
        }
    }

    #[test]
    fn an_entry_of_any_kind_survives_its_row() {
        for entry in entries() {
            assert_eq!(decode_entry(&encode_entry(&entry)).expect("it was just written"), entry);
        }
    }

    #[test]
    fn a_row_with_any_bit_turned_is_noticed() {
        let row = encode_entry(&entries()[1]);
        for bit in 0..row.len() * 8 {
            let mut damaged = row.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_entry(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_applied_row_keeps_a_joint_configuration_and_its_learners() {
        let EntryPayload::Membership(membership) = entries()[2].payload.clone() else {
            unreachable!()
        };
        let stored = types::StoredMembership::new(Some(entries()[2].log_id), membership);
        let row = encode(&AppliedRow::new(Some(&entries()[1].log_id), &stored));
        let (last, read) = decode::<AppliedRow>(&row).expect("it was just written").into_parts();
        assert_eq!((last, read), (Some(entries()[1].log_id), stored));
    }
}

//! Sending a snapshot: read from one engine snapshot, paced, a few parts under way at a time.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use latitude_probe::Plant;
use latitude_range::{ImageChecksum, image_spans};
use latitude_storage::{Column, key};
use openraft::RPCTypes;
use openraft::errors::{RPCError, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;

use super::{Header, SnapshotStats, Step};
use crate::network::{Class, Peer, unexpected};
use crate::types::{TypeConfig, Vote};
use crate::wire::{self, Part, Request, Response, SnapshotAnswer, SnapshotPart};

/// Parts of one transfer under way at once.
const WINDOW: usize = 4;
/// How long a part may take: a megabyte over a slow line, or a burst of others before it.
const PART_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the receiver may take to make the set durable and install it.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);

type Sent = Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>>;
type Answer = BoxFuture<'static, Result<Response, RPCError<TypeConfig>>>;

/// Sends this replica's base to a peer. Dropped, it sends nothing more.
pub(crate) async fn send(peer: &Peer, vote: Vote) -> Sent {
    let snapshots = &peer.network.place.snapshots;
    // One at a time: what is sent competes with nothing but the log.
    let turn = Arc::clone(&snapshots.outgoing).acquire_owned().await;
    let turn = turn.map_err(|_| broken("the node stops sending snapshots"))?;
    let number = snapshots.next();
    let mut transfer = Transfer { peer, vote, number, begun: false, under_way: VecDeque::new() };
    let sent = async {
        if let Some(answer) = transfer.rows().await? {
            return answer.into_sent();
        }
        // What remains to be done is done there.
        drop(turn);
        transfer.drain().await?.into_sent()
    }
    .await;
    // Whoever cannot be reached is asked again and again, which is no news.
    SnapshotStats::count(&snapshots.stats.sent, u64::from(sent.is_ok()));
    SnapshotStats::count(&snapshots.stats.broken, u64::from(sent.is_err() && transfer.begun));
    sent
}

struct Transfer<'p> {
    peer: &'p Peer,
    vote: Vote,
    number: u64,
    /// The receiver has taken the header.
    begun: bool,
    under_way: VecDeque<Answer>,
}

impl Transfer<'_> {
    /// Sends everything, and waits for all answers but the last. An answer that ends the transfer before
    /// its end is returned.
    async fn rows(&mut self) -> Result<Option<SnapshotAnswer>, StreamingError<TypeConfig>> {
        let place = &self.peer.network.place;
        let (range, snapshots) = (place.range, &place.snapshots);
        let engine = Arc::clone(&place.engine);
        let view = engine.snapshot();
        let header = Header::read(range, &*view).map_err(|error| broken(&error.to_string()))?;
        let header = header.ok_or_else(|| broken("nothing is applied yet"))?;
        if header.last.leader_id > self.vote.leader_id {
            // This replica has been deposed since: the leadership that was asked for it is over.
            return Err(broken("the base is another leader's by now"));
        }
        tracing::info!(%range, to = %self.peer.target, upto = header.last.index, "sending a snapshot");
        snapshots.reached(range, Step::Build).map_err(|error| broken(&error.to_string()))?;
        let encoded = header.encode();
        let mut checksum = ImageChecksum::default();
        checksum.add(&encoded, b"");
        self.part(Part::Begin(encoded), PART_TIMEOUT);
        // The header is judged before rows are read for it.
        if let Some(answer) = self.settle(0).await? {
            return Ok(Some(answer));
        }
        self.begun = true;
        let spans = image_spans(&header.meta);
        let mut rows = spans.iter().flat_map(|span| view.scan(Column::Base, span.clone().scan()));
        let chunk_bytes = snapshots.settings.chunk_bytes();
        let (mut seq, mut count, mut more) = (0, 0, true);
        while more {
            let mut chunk: Vec<(Bytes, Bytes)> = Vec::new();
            let mut bytes = 0;
            while bytes < chunk_bytes {
                let Some(row) = rows.next() else {
                    more = false;
                    break;
                };
                let (key, value) = row.map_err(|error| broken(&error.to_string()))?;
                let is_id = || key::local::decode_id_window(&key).is_some();
                if Plant::SnapshotWithoutIds.is_on() && is_id() {
                    continue;
                }
                checksum.add(&key, &value);
                bytes += key.len() + value.len();
                chunk.push((key, value));
            }
            if chunk.is_empty() {
                break;
            }
            count += chunk.len() as u64;
            let mut rows = Bytes::from(wire::encode(&chunk));
            // One row may be longer than a message: what is much longer than a chunk should be goes in pieces.
            while rows.len() > 2 * chunk_bytes {
                let bytes = rows.split_to(chunk_bytes);
                snapshots.pace.pass(bytes.len()).await;
                if let Some(answer) = self.settle(WINDOW - 1).await? {
                    return Ok(Some(answer));
                }
                self.part(Part::Piece { seq, crc: crc32c::crc32c(&bytes), bytes }, PART_TIMEOUT);
                seq += 1;
            }
            snapshots.pace.pass(rows.len()).await;
            if let Some(answer) = self.settle(WINDOW - 1).await? {
                return Ok(Some(answer));
            }
            let crc = crc32c::crc32c(&rows);
            self.part(Part::Chunk { seq, crc, rows }, PART_TIMEOUT);
            SnapshotStats::count(&snapshots.stats.bytes_sent, bytes as u64);
            seq += 1;
            snapshots.reached(range, Step::Send).map_err(|error| broken(&error.to_string()))?;
        }
        if let Some(answer) = self.settle(0).await? {
            return Ok(Some(answer));
        }
        self.part(Part::End { rows: count, checksum: checksum.value() }, INSTALL_TIMEOUT);
        Ok(None)
    }

    fn part(&mut self, part: Part, timeout: Duration) {
        let part = SnapshotPart { vote: (&self.vote).into(), transfer: self.number, part };
        let request = Request::Snapshot(part);
        let answer = self.peer.call(RPCTypes::InstallSnapshot, Class::Bulk, &request, timeout);
        self.under_way.push_back(answer.boxed());
    }

    /// Waits until no more than `left` parts are under way. `Some`: the receiver wants no more.
    async fn settle(
        &mut self,
        left: usize,
    ) -> Result<Option<SnapshotAnswer>, StreamingError<TypeConfig>> {
        while self.under_way.len() > left {
            match self.drain().await? {
                SnapshotAnswer::Taken => {}
                answer => return Ok(Some(answer)),
            }
        }
        Ok(None)
    }

    /// The answer to the oldest part.
    async fn drain(&mut self) -> Result<SnapshotAnswer, StreamingError<TypeConfig>> {
        let oldest = self.under_way.pop_front();
        let answer = oldest.ok_or_else(|| broken("no part is under way"))?.await?;
        match answer {
            Response::Snapshot(answer) => Ok(answer),
            other => Err(unexpected(&other).into()),
        }
    }
}

impl SnapshotAnswer {
    fn into_sent(self) -> Sent {
        match self {
            Self::Installed(vote) | Self::HigherVote(vote) => {
                Ok(SnapshotResponse::new(vote.into()))
            }
            Self::Refused(why) => Err(broken(&why)),
            Self::Taken => Err(broken("the receiver took the end of a snapshot for a part of it")),
        }
    }
}

/// It did not work, and is tried again after a pause.
fn broken(why: &str) -> StreamingError<TypeConfig> {
    StreamingError::Unreachable(Unreachable::new(&io::Error::other(why.to_string())))
}

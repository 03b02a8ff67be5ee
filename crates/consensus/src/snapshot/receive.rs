//! Receiving a snapshot: part by part, in order, each checked, staged beside the store.
//!
//! Nothing of the replica changes before the whole of it is there, durable, and what its sender had.
//! Whatever does not fit ends the transfer; its rows are removed, and the sender begins anew.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use latitude_range::{ImageChecksum, RangeMeta, image_spans};
use latitude_storage::{Column, SetName, Staging, key};
use openraft::async_runtime::WatchReceiver;
use openraft::{Raft, Snapshot};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::install::Place;
use super::{Header, SnapshotData, SnapshotStats, StagedSet, Step, ended};
use crate::machine::StateMachine;
use crate::types::{TypeConfig, Vote};
use crate::wire::{self, Part, SnapshotAnswer, SnapshotPart};

/// A transfer of which nothing came for so long is over.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Room that a snapshot leaves on the disk, beside what installing it takes once more.
const SPARE_BYTES: u64 = 64 << 20;

/// The receiving end of one replica. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Receiver {
    place: Place,
    incoming: Arc<Mutex<Option<Incoming>>>,
    begun: Arc<Notify>,
}

/// A transfer under way.
struct Incoming {
    vote: Vote,
    transfer: u64,
    header: Header,
    /// The next part.
    seq: u32,
    /// What came of a chunk of which more is to come.
    pieces: Vec<u8>,
    rows: u64,
    bytes: u64,
    checksum: ImageChecksum,
    /// Which of the two rows that the header repeats have come, and were the same.
    repeated: [bool; 2],
    heard: Instant,
    /// Before the set, which it fills.
    staging: Box<dyn Staging>,
    set: StagedSet,
}

impl Receiver {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, incoming: Arc::default(), begun: Arc::default() }
    }

    /// Gives up a transfer that its sender seems to have given up.
    pub(crate) fn forget_silent(&self) {
        let mut incoming = self.lock();
        if incoming.as_ref().is_some_and(|incoming| incoming.heard.elapsed() > SILENCE_MAX) {
            *incoming = None;
        }
    }

    /// Resolves once a transfer has begun since this was last asked.
    pub(crate) async fn begun(&self) {
        self.begun.notified().await;
    }

    /// Whether a transfer is under way.
    pub(crate) fn is_receiving(&self) -> bool {
        self.lock().is_some()
    }

    /// Takes a part. What is done before this first waits is done in the order of the calls.
    ///
    /// # Errors
    /// The replica has stopped.
    pub(crate) async fn take(
        &self,
        raft: &Raft<TypeConfig, StateMachine>,
        part: SnapshotPart,
    ) -> io::Result<SnapshotAnswer> {
        let SnapshotPart { vote, transfer, part } = part;
        let vote = Vote::from(vote);
        if !vote.committed {
            return Ok(SnapshotAnswer::Refused("only a leader sends snapshots".into()));
        }
        let own = raft.metrics().borrow_watched().vote;
        if own.leader_id > vote.leader_id {
            return Ok(SnapshotAnswer::HigherVote((&own).into()));
        }
        let taken = match part {
            Part::Begin(header) => self.begin(own, vote, transfer, &header),
            Part::Chunk { seq, crc, rows } => {
                self.chunk(vote, transfer, seq, crc, &rows).await.map(|()| SnapshotAnswer::Taken)
            }
            Part::Piece { seq, crc, bytes } => {
                self.piece(vote, transfer, seq, crc, &bytes).map(|()| SnapshotAnswer::Taken)
            }
            Part::End { rows, checksum } => match self.end(vote, transfer, rows, checksum) {
                Ok(whole) => return self.install(raft, whole).await,
                Err(error) => Err(error),
            },
        };
        Ok(taken.unwrap_or_else(|error| {
            let range = self.place.range;
            tracing::warn!(%range, %error, "a snapshot was refused");
            SnapshotStats::count(&self.place.snapshots.stats.broken, 1);
            SnapshotAnswer::Refused(error.to_string())
        }))
    }

    fn begin(
        &self,
        own: Vote,
        vote: Vote,
        transfer: u64,
        encoded: &[u8],
    ) -> io::Result<SnapshotAnswer> {
        let Place { engine, range, snapshots, .. } = &self.place;
        let mut incoming = self.lock();
        if let Some(other) = &*incoming
            && other.vote.leader_id > vote.leader_id
        {
            return Ok(SnapshotAnswer::HigherVote((&other.vote).into()));
        }
        // Whatever came of another is of no use any more.
        *incoming = None;
        let header = Header::decode(encoded)?;
        let before = Header::read(*range, &*engine.snapshot())?;
        let meta = match &before {
            Some(before) => before.meta.clone(),
            None => {
                let row = engine.get(Column::Base, &key::local::meta(*range));
                let row = row.map_err(io::Error::other)?.ok_or_else(|| refused("no such range"))?;
                RangeMeta::decode(&row).map_err(io::Error::other)?
            }
        };
        if let Some(why) = header.unfit_for(&meta) {
            return Err(refused(&why));
        }
        if header.last.leader_id > vote.leader_id {
            return Err(refused("it holds entries of a leader after its sender"));
        }
        if before.is_some_and(|before| before.last.index >= header.last.index) {
            return Ok(SnapshotAnswer::Installed((&own).into()));
        }
        let set = SetName(snapshots.next());
        let guard = StagedSet::new(Arc::clone(engine), set);
        let staging = engine.stage(set, Column::Base, image_spans(&header.meta));
        let mut checksum = ImageChecksum::default();
        checksum.add(encoded, b"");
        *incoming = Some(Incoming {
            vote,
            transfer,
            header,
            seq: 0,
            pieces: Vec::new(),
            rows: 0,
            bytes: 0,
            checksum,
            repeated: [false; 2],
            heard: Instant::now(),
            staging: staging.map_err(io::Error::other)?,
            set: guard,
        });
        self.begun.notify_one();
        Ok(SnapshotAnswer::Taken)
    }

    fn piece(&self, vote: Vote, transfer: u64, seq: u32, crc: u32, bytes: &[u8]) -> io::Result<()> {
        let mut slot = self.lock();
        let free = self.place.engine.free_space().map_err(io::Error::other)?;
        let mut incoming = current(&mut slot, vote, transfer)?;
        incoming.check(seq, crc, bytes, free)?;
        incoming.pieces.extend_from_slice(bytes);
        SnapshotStats::count(&self.place.snapshots.stats.bytes_received, bytes.len() as u64);
        *slot = Some(incoming);
        Ok(())
    }

    async fn chunk(
        &self,
        vote: Vote,
        transfer: u64,
        seq: u32,
        crc: u32,
        encoded: &[u8],
    ) -> io::Result<()> {
        let (sender, written) = tokio::sync::oneshot::channel();
        {
            let mut slot = self.lock();
            let free = self.place.engine.free_space().map_err(io::Error::other)?;
            let mut incoming = current(&mut slot, vote, transfer)?;
            incoming.check(seq, crc, encoded, free)?;
            let rows = incoming.take_in(encoded)?;
            SnapshotStats::count(&self.place.snapshots.stats.bytes_received, encoded.len() as u64);
            let done = move |result: latitude_storage::Result<()>| drop(sender.send(result));
            incoming.staging.put(rows, Box::new(done));
            // Put back only if all was well.
            *slot = Some(incoming);
        }
        let staged = match written.await {
            Ok(staged) => staged.map_err(io::Error::other),
            Err(_) => Err(refused("the store gave up")),
        };
        if staged.is_err() {
            // The set is lost, unless it is another transfer's by now.
            drop(current(&mut self.lock(), vote, transfer));
        }
        staged?;
        self.place.snapshots.reached(self.place.range, Step::Receive)
    }

    /// The whole of a transfer, if it is.
    fn end(&self, vote: Vote, transfer: u64, rows: u64, checksum: u64) -> io::Result<Incoming> {
        let incoming = current(&mut self.lock(), vote, transfer)?;
        if (incoming.rows, incoming.checksum.value()) != (rows, checksum) {
            return Err(refused("it is not what its sender had"));
        }
        if incoming.repeated != [true; 2] {
            return Err(refused("its rows are not those of its header"));
        }
        Ok(incoming)
    }

    async fn install(
        &self,
        raft: &Raft<TypeConfig, StateMachine>,
        whole: Incoming,
    ) -> io::Result<SnapshotAnswer> {
        let Incoming { vote, header, staging, set, .. } = whole;
        let Place { range, snapshots, .. } = &self.place;
        SnapshotStats::count(&snapshots.stats.received, 1);
        ended(|done| staging.finish(done)).await?;
        snapshots.reached(*range, Step::Stage)?;
        let meta = header.raft_meta();
        let snapshot =
            Snapshot { meta, snapshot: SnapshotData::Staged { header: Box::new(header), set } };
        let installed = raft.install_full_snapshot(vote, snapshot).await;
        Ok(SnapshotAnswer::Installed((&installed.map_err(io::Error::other)?.vote).into()))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.incoming.lock().expect("nothing panics while it holds this")
    }
}

/// Takes out the transfer under way, if it is that one. Another one stays.
fn current(slot: &mut Option<Incoming>, vote: Vote, transfer: u64) -> io::Result<Incoming> {
    match slot.take() {
        Some(incoming) if (incoming.vote, incoming.transfer) == (vote, transfer) => Ok(incoming),
        other => {
            *slot = other;
            Err(refused("this part is of a transfer that is over"))
        }
    }
}

impl Incoming {
    /// Checks a part: that it is the next, and that there is room for it: `free` bytes.
    fn check(&mut self, seq: u32, crc: u32, bytes: &[u8], free: u64) -> io::Result<()> {
        if seq != self.seq {
            return Err(refused(&format!("part {seq} came where {} was due", self.seq)));
        }
        if crc32c::crc32c(bytes) != crc {
            return Err(refused(&format!("part {seq} was damaged on its way")));
        }
        self.bytes += bytes.len() as u64;
        if free < self.bytes.saturating_add(SPARE_BYTES) {
            return Err(refused("there is no room for it on the disk"));
        }
        self.seq += 1;
        self.heard = Instant::now();
        Ok(())
    }

    /// Takes in the rows of a chunk, which begins with the pieces that came.
    fn take_in(&mut self, rest: &[u8]) -> io::Result<Vec<(Bytes, Bytes)>> {
        let mut pieces = std::mem::take(&mut self.pieces);
        let encoded = match pieces.is_empty() {
            true => rest,
            false => {
                pieces.extend_from_slice(rest);
                &pieces[..]
            }
        };
        let rows = wire::decode::<Vec<(Bytes, Bytes)>>(encoded)?;
        let range = self.header.meta.id;
        let expected = [
            (key::local::meta(range), self.header.meta.encode()),
            (key::local::applied(range), wire::encode(&self.header.applied_row())),
        ];
        for (row, value) in &rows {
            self.checksum.add(row, value);
            for (same, (key, expected)) in self.repeated.iter_mut().zip(&expected) {
                *same |= row[..] == key[..] && value[..] == expected[..];
            }
        }
        self.rows += rows.len() as u64;
        Ok(rows)
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

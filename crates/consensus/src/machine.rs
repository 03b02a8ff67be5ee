//! A range's state machine under openraft: committed entries in, rows of the base out.
//!
//! ```text
//!   committed entries ──▶ as many as are ready ──▶ Range::apply ... ──▶ one batch, with the applied row
//!                                                                             │ unsynced
//!                                                    watchers, proposers ◀────┘
//! ```
//!
//! The batch is not synced: it is a function of the log, which is. After a crash the store may be behind
//! the log by some entries, and openraft applies them again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use latitude_range::{Applied, Entry as RangeEntry, Range, Staged};
use latitude_storage::{Batch, Column, Engine, key};
use latitude_types::{RangeId, Stamp, Timestamp};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;

use crate::types::{LogId, StoredMembership, TypeConfig};
use crate::wire;

/// Entries applied in one batch at most, by count and by the bytes they write.
const BATCH_ENTRIES_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 4 << 20;

/// How far a replica has applied its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Progress {
    /// The last applied entry; 0 before the first (which is the range's birth, entry 0).
    pub(crate) index: u64,
    /// Its term.
    pub(crate) term: u64,
    /// The last stamp applied.
    pub(crate) stamp: Stamp,
    /// Set while the range is frozen for a merge: nothing above this is closed.
    pub(crate) freeze: Option<Timestamp>,
}

/// The largest closed time a replica has relied on: whatever it applies later must be above.
#[derive(Default, Debug)]
pub(crate) struct ClosedUsed(AtomicU64);

impl ClosedUsed {
    pub(crate) fn note(&self, time: Timestamp) {
        self.0.fetch_max(time.0, Ordering::SeqCst);
    }

    fn get(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// The state machine of one replica.
pub(crate) struct StateMachine {
    engine: Arc<dyn Engine>,
    range: Range,
    id: RangeId,
    applied: Option<LogId>,
    membership: StoredMembership,
    progress: watch::Sender<Progress>,
    closed_used: Arc<ClosedUsed>,
}

impl StateMachine {
    /// The state machine as the store has it, and where to watch its progress.
    pub(crate) fn open(
        engine: Arc<dyn Engine>,
        id: RangeId,
        closed_used: Arc<ClosedUsed>,
    ) -> io::Result<(Self, watch::Receiver<Progress>)> {
        let range = Range::open(id, &*engine).map_err(io::Error::other)?;
        let row = engine.get(Column::Base, &key::local::applied(id)).map_err(io::Error::other)?;
        let (applied, membership) = match row {
            Some(row) => wire::decode::<wire::AppliedRow>(&row)?.into_parts(),
            None => (None, StoredMembership::default()),
        };
        let progress = watch::Sender::new(Progress {
            index: applied.as_ref().map_or(0, |id| id.index),
            term: applied.as_ref().map_or(0, |id| id.leader_id.term),
            stamp: range.last_stamp(),
            freeze: range.meta().freeze,
        });
        let watcher = progress.subscribe();
        Ok((Self { engine, range, id, applied, membership, progress, closed_used }, watcher))
    }

    /// Applies entries as one batch and answers their proposers.
    fn apply_batch(&mut self, entries: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let mut staged = Staged::new(&*self.engine);
        let mut answers = Vec::with_capacity(entries.len());
        for (entry, responder) in entries {
            if let Some(before) = &self.applied
                && entry.log_id.index != before.index + 1
            {
                let (index, before, id) = (entry.log_id.index, before.index, self.id);
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("entry {index} of range {id} cannot be applied after entry {before}"),
                ));
            }
            let applied = match &entry.payload {
                EntryPayload::Blank => Applied::default(),
                EntryPayload::Normal(proposal) => {
                    let entry = RangeEntry::decode(&proposal.0).map_err(io::Error::other)?;
                    self.check_closed(&entry)?;
                    self.range.apply(&entry, &mut staged).map_err(io::Error::other)?
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    Applied::default()
                }
            };
            self.applied = Some(entry.log_id);
            answers.extend(responder.map(|responder| (responder, applied)));
        }
        let mut batch: Batch = staged.into_batch();
        let row = wire::AppliedRow::new(self.applied.as_ref(), &self.membership);
        batch.put(Column::Base, key::local::applied(self.id), wire::encode(&row));
        self.engine.write(batch).map_err(io::Error::other)?;
        if let Some(applied) = &self.applied {
            self.progress.send_replace(Progress {
                index: applied.index,
                term: applied.leader_id.term,
                stamp: self.range.last_stamp(),
                freeze: self.range.meta().freeze,
            });
        }
        for (responder, applied) in answers {
            responder.send(applied);
        }
        Ok(())
    }
}

impl StateMachine {
    /// INV-4, asserted: no entry comes at or below a time that was taken for closed here. Somebody has read
    /// without it what it changes, so this replica must not go on as if nothing had happened.
    fn check_closed(&self, entry: &RangeEntry) -> io::Result<()> {
        let used = self.closed_used.get();
        if entry.stamp.time > used {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "ALARM: range {} brings an entry stamped {} after everything up to {used} was closed",
                self.id, entry.stamp
            ),
        ))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = NoSnapshots;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(first) = entries.next().await {
            let mut group = vec![first?];
            let mut bytes = 0;
            while group.len() < BATCH_ENTRIES_MAX && bytes < BATCH_BYTES_MAX {
                let Some(Some(next)) = entries.next().now_or_never() else { break };
                let next = next?;
                if let EntryPayload::Normal(proposal) = &next.0.payload {
                    bytes += proposal.0.len();
                }
                group.push(next);
            }
            self.apply_batch(group)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> NoSnapshots {
        NoSnapshots
    }

    async fn install_snapshot(
        &mut self,
        _meta: &openraft::alias::SnapshotMetaOf<TypeConfig>,
        _snapshot: Bytes,
    ) -> io::Result<()> {
        Err(no_snapshots())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<openraft::alias::SnapshotOf<TypeConfig, Bytes>>> {
        Ok(None)
    }
}

/// Logs are kept whole (`SnapshotPolicy::Never`), so openraft never asks for a snapshot; were it to, the
/// replica stops instead of pretending.
pub(crate) struct NoSnapshots;

impl RaftSnapshotBuilder<TypeConfig> for NoSnapshots {
    type SnapshotData = Bytes;

    async fn build_snapshot(
        &mut self,
    ) -> io::Result<openraft::alias::SnapshotOf<TypeConfig, Bytes>> {
        Err(no_snapshots())
    }
}

pub(crate) fn no_snapshots() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "this version keeps whole logs and knows no snapshots",
    )
}

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

use futures::{FutureExt, Stream, StreamExt};
use latitude_probe::Mark;
use latitude_range::{Applied, Audit, Entry as RangeEntry, Origin, Range, Staged};
use latitude_storage::{Batch, Column, Engine, View, key};
use latitude_types::{RangeId, Stamp, Timestamp};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot};
use tokio::sync::watch;

use crate::audit::Audits;
use crate::log::RangeLog;
use crate::snapshot::SnapshotData;
use crate::snapshot::install::{self, Place};
use crate::types::{LogId, Proposal, StoredMembership, TypeConfig};
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
    /// Where snapshots are installed, and the log that they cut.
    place: Place,
    log: RangeLog,
    range: Range,
    id: RangeId,
    applied: Option<LogId>,
    membership: StoredMembership,
    progress: watch::Sender<Progress>,
    origins: watch::Sender<Arc<[Origin]>>,
    closed_used: Arc<ClosedUsed>,
    audits: Audits,
}

/// What others watch of a state machine.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) progress: watch::Receiver<Progress>,
    /// The range's origins, and how far each is folded: told once it can be read in the base.
    pub(crate) origins: watch::Receiver<Arc<[Origin]>>,
}

impl StateMachine {
    /// The state machine as the store has it, and where to watch it.
    pub(crate) fn open(
        place: Place,
        log: RangeLog,
        closed_used: Arc<ClosedUsed>,
        audits: Audits,
    ) -> io::Result<(Self, Watched)> {
        let (engine, id) = (Arc::clone(&place.engine), place.range);
        let (range, applied, membership) = read(&*engine, id)?;
        // What is purged from the log is known here alone.
        log.raise_stamp_max(range.last_stamp().max(range.meta().floor));
        let progress = watch::Sender::new(progress(applied.as_ref(), &range));
        let origins = watch::Sender::new(Arc::from(&range.meta().origins[..]));
        let watched = Watched { progress: progress.subscribe(), origins: origins.subscribe() };
        let machine = Self {
            engine,
            place,
            log,
            range,
            id,
            applied,
            membership,
            progress,
            origins,
            closed_used,
            audits,
        };
        Ok((machine, watched))
    }

    /// Tells whoever watches where the state machine stands, once that can be read in the base.
    fn tell(&self) {
        // The origins first: who knows how far it is applied may ask which origins there are then.
        self.origins.send_if_modified(|origins| {
            let changed = origins[..] != self.range.meta().origins[..];
            if changed {
                *origins = Arc::from(&self.range.meta().origins[..]);
            }
            changed
        });
        if self.applied.is_some() {
            self.progress.send_replace(progress(self.applied.as_ref(), &self.range));
        }
    }

    /// What the store has, in a form that costs nothing until it is sent.
    fn snapshot(&self) -> Option<SnapshotOf<TypeConfig, SnapshotData>> {
        let meta = SnapshotMetaOf::<TypeConfig> {
            last_log_id: Some(self.applied?),
            last_membership: self.membership.clone(),
        };
        Some(Snapshot { meta, snapshot: SnapshotData::Base })
    }

    /// Applies entries as one batch and answers their proposers. An entry that audits is the last of its batch.
    fn apply_batch(&mut self, entries: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let mut staged = Staged::new(&*self.engine);
        let mut audit = None;
        let mut answers = Vec::with_capacity(entries.len());
        let answers_many = entries.len() > 1;
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
                    audit = audit_of(proposal)?;
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
        if answers_many {
            Mark::BatchApplied.hit();
        }
        let mut batch: Batch = staged.into_batch();
        let row = wire::AppliedRow::new(self.applied.as_ref(), &self.membership);
        batch.put(Column::Base, key::local::applied(self.id), wire::encode(&row));
        self.engine.write(batch).map_err(io::Error::other)?;
        if let (Some(audit), Some(at)) = (audit, &self.applied) {
            self.audits.begin(&self.engine, self.id, at.index, audit);
        }
        self.tell();
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

fn audit_of(proposal: &Proposal) -> io::Result<Option<Audit>> {
    RangeEntry::audit_of(&proposal.0).map_err(io::Error::other)
}

/// Whether nothing may be in a batch behind it: what is there right after this entry is to be looked at.
fn ends_batch(entry: &EntryResponder<TypeConfig>) -> io::Result<bool> {
    match &entry.0.payload {
        EntryPayload::Normal(proposal) => Ok(audit_of(proposal)?.is_some()),
        EntryPayload::Blank | EntryPayload::Membership(_) => Ok(false),
    }
}

/// A range as a store has it.
fn read(engine: &dyn Engine, id: RangeId) -> io::Result<(Range, Option<LogId>, StoredMembership)> {
    let view = engine.snapshot();
    let range = Range::open(id, &*view).map_err(io::Error::other)?;
    let (applied, membership) = read_applied(&*view, id)?;
    Ok((range, applied, membership))
}

/// The last entry whose effects a view shows, and the membership then.
pub(crate) fn read_applied(
    view: &dyn View,
    id: RangeId,
) -> io::Result<(Option<LogId>, StoredMembership)> {
    let row = view.get(Column::Base, &key::local::applied(id)).map_err(io::Error::other)?;
    match row {
        Some(row) => Ok(wire::decode::<wire::AppliedRow>(&row)?.into_parts()),
        None => Ok((None, StoredMembership::default())),
    }
}

fn progress(applied: Option<&LogId>, range: &Range) -> Progress {
    Progress {
        index: applied.map_or(0, |id| id.index),
        term: applied.map_or(0, |id| id.leader_id.term),
        stamp: range.last_stamp(),
        freeze: range.meta().freeze,
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Built;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(first) = entries.next().await {
            let first = first?;
            let mut ended = ends_batch(&first)?;
            let mut group = vec![first];
            let mut bytes = 0;
            while !ended && group.len() < BATCH_ENTRIES_MAX && bytes < BATCH_BYTES_MAX {
                let Some(Some(next)) = entries.next().now_or_never() else { break };
                let next = next?;
                if let EntryPayload::Normal(proposal) = &next.0.payload {
                    bytes += proposal.0.len();
                }
                ended = ends_batch(&next)?;
                group.push(next);
            }
            self.apply_batch(group)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Built {
        Built(self.snapshot())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let SnapshotData::Staged { header, set } = snapshot else {
            return Err(io::Error::other("only what was received can be installed"));
        };
        let set = set.take().filter(|_| meta.last_log_id == Some(header.last));
        let set = set.ok_or_else(|| io::Error::other("this is another snapshot's data"))?;
        install::install(&self.place, &header, set).await?;
        self.log.note_purged(header.last);
        (self.range, self.applied, self.membership) = read(&*self.engine, self.id)?;
        self.log.raise_stamp_max(self.range.last_stamp());
        tracing::info!(range = %self.id, upto = header.last.index, "a snapshot is installed");
        self.tell();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotData>>> {
        Ok(self.snapshot())
    }
}

/// A snapshot that is there already: the base, where it stood when this was asked for.
pub(crate) struct Built(Option<SnapshotOf<TypeConfig, SnapshotData>>);

impl RaftSnapshotBuilder<TypeConfig> for Built {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotData>> {
        self.0.take().ok_or_else(|| io::Error::other("nothing is applied yet"))
    }
}

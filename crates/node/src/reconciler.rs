//! Makes the node's replicas what the directory says they should be.
//!
//! ```text
//!   directory: replicas on this node ─┐
//!                                     ├─▶ missing: write its birth, open it     gone: stop it, delete its rows
//!   store: replicas that live here ───┘
//! ```
//!
//! Every replica of a new range begins with the same rows, so it does not matter which comes first, nor
//! whether one comes much later. What an old directory may not change is told in [`replicas`](crate::replicas).

use std::sync::Arc;

use futures::FutureExt;
use latitude_consensus::{Birth, Group, ReadError};
use latitude_directory::{Directory, RangeRecord};
use latitude_range::RangeMeta;
use latitude_storage::{Batch, Column, key};
use latitude_types::{KeyspaceId, RangeId, ReplicaId};

use crate::closing::{Closing, gone};
use crate::local;
use crate::proposer::Proposer;
use crate::questions::Questions;
use crate::range_handle::RangeHandle;
use crate::replicas::Replicas;
use crate::shared::{NO_PANIC, Shared};

/// Reconciles whenever the directory changes, for as long as the node runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let mut directory = shared.catalog.watch();
    loop {
        if let Err(error) = reconcile(&shared).await {
            shared.fail(error);
            return;
        }
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            changed = directory.changed() => if changed.is_err() { return },
            () = shared.reconcile.notified() => {}
        }
    }
}

async fn reconcile(shared: &Arc<Shared>) -> Result<(), String> {
    let Ok(node) = shared.node() else { return Ok(()) };
    if shared.identity.lock().expect(NO_PANIC).quarantine.is_some() {
        return Ok(());
    }
    let directory = shared.catalog.current();
    let mut replicas = Replicas::load(&*shared.engine, node).map_err(|error| error.to_string())?;
    if let Some(batch) = replicas.begin_to_note(&directory) {
        shared.engine.write(batch).map_err(|error| error.to_string())?;
    }
    for (replica, record) in directory.replicas_on(node) {
        if shared.range(record.id).is_some() || is_quarantined(shared, record.id) {
            continue;
        }
        if !replicas.hold(record.id, replica) {
            if !replicas.may_grow_by(&directory) {
                continue;
            }
            be_born(shared, &replicas, &directory, replica, record).await?;
        }
        open(shared, replica, record).await?;
    }
    // An old directory may not know yet what is to be here.
    if directory.version() > 0 && replicas.may_grow_by(&directory) {
        let has_replica = |range| directory.range(range)?.replica_on(node);
        let may_open = |range| replicas.has(range) || has_replica(range).is_some();
        shared.local().give_up_all_but(may_open);
    }
    for (range, replica) in replicas.dropped_in(&directory) {
        bury(shared, &replicas, &directory, range, replica).await?;
    }
    Ok(())
}

fn is_quarantined(shared: &Shared, range: RangeId) -> bool {
    shared.quarantined.lock().expect(NO_PANIC).contains_key(&range)
}

/// Writes the first rows of a replica and makes them durable.
async fn be_born(
    shared: &Shared,
    replicas: &Replicas,
    directory: &Directory,
    replica: ReplicaId,
    record: &RangeRecord,
) -> Result<(), String> {
    let meta = RangeMeta {
        value_type: record.value_type,
        ..RangeMeta::new(
            record.id,
            record.keyspace,
            record.span.clone(),
            record.value_len_max,
            record.log_only,
        )
    };
    let (voters, learners) = (record.voters.clone(), record.learners.clone());
    let birth = Birth { meta, voters, learners };
    let mut batch = Batch::new();
    birth.stage(replica, &*shared.engine, &mut batch);
    replicas.stage_birth(record.id, replica, directory, &mut batch);
    shared.engine.write(batch).map_err(|error| error.to_string())?;
    shared.committer.durable().await.map_err(|error| error.to_string())
}

/// Opens a replica and lets it take part.
async fn open(
    shared: &Arc<Shared>,
    replica: ReplicaId,
    record: &Arc<RangeRecord>,
) -> Result<(), String> {
    let group = match Group::open(&shared.group_context(), record.id, replica).await {
        Ok(group) => group,
        Err(error) => {
            // It may have acknowledged what it no longer has. The node's other replicas are not worse for it.
            tracing::error!(%error, "replica quarantined: it neither votes nor serves until it is rebuilt");
            shared.quarantined.lock().expect(NO_PANIC).insert(record.id, error.to_string());
            shared.local().cannot_open(record.id);
            return Ok(());
        }
    };
    let keyspace: KeyspaceId = record.keyspace;
    let (proposer, propose) = Proposer::new(
        group.clone(),
        keyspace,
        shared.clock.clone(),
        replica.node,
        Arc::clone(&shared.metrics),
    );
    let (reads, read) = {
        let (group, wait) = (group.clone(), shared.config.settings.election_timeout_max);
        Questions::new(ReadError::Stopped, move || {
            let group = group.clone();
            async move { group.read_index(wait).await }.boxed()
        })
    };
    let (leased_reads, read_by_lease) = {
        let (group, leases) = (group.clone(), shared.leases.clone());
        Questions::new(ReadError::Stopped, move || {
            let (group, leases) = (group.clone(), leases.clone());
            async move { leases.read_index(&group, None).await }.boxed()
        })
    };
    let (closes, close) = {
        let (shared, range) = (Arc::clone(shared), record.id);
        Questions::new(gone(), move || {
            let shared = Arc::clone(&shared);
            async move { shared.range(range).ok_or_else(gone)?.close().await }.boxed()
        })
    };
    let (closing, learn_closed) = Closing::new(Arc::clone(shared), record.id);
    let watch = {
        let (shared, group) = (Arc::clone(shared), group.clone());
        async move {
            let reason = group.failed().await;
            // A replica that cannot apply or store what it must would differ from the others.
            shared.fail(format!(
                "replica {} of range {} failed: {reason}",
                group.replica(),
                group.range()
            ));
        }
    };
    let end_silence = {
        let group = group.clone();
        async move { group.end_silence().await }
    };
    let tasks = [
        tokio::spawn(propose),
        tokio::spawn(read),
        tokio::spawn(read_by_lease),
        tokio::spawn(close),
        tokio::spawn(learn_closed),
        tokio::spawn(watch),
        tokio::spawn(end_silence),
        tokio::spawn(group.keep_log_short()),
        tokio::spawn(group.make_audits()),
    ];
    let tasks = tasks.iter().map(tokio::task::JoinHandle::abort_handle).collect();
    let handle = RangeHandle {
        record: Arc::clone(record),
        group: group.clone(),
        proposer,
        reads,
        leased_reads,
        closes,
        leases: shared.leases.clone(),
        closing,
        tasks,
    };
    // Before anybody can read here: a range without an overlay knows of no origin, and would wait for none.
    let origins = Arc::clone(&group.origins().borrow());
    shared.local().open_range(record, &origins);
    shared.ranges.write().expect(NO_PANIC).insert(record.id, handle.clone());
    // Ends with the group it follows.
    tokio::spawn(local::follow_base(Arc::clone(shared), handle));
    shared.registry.insert(group.clone());
    if record.id == RangeId::META {
        // Here it can be read from now on.
        shared.catalog.is_behind();
    }
    if record.voters.first() == Some(&replica) {
        group.campaign_at_birth().await;
    }
    tracing::debug!(range = %record.id, %replica, "replica opened");
    Ok(())
}

/// Stops the replica of a dropped range and deletes its rows.
async fn bury(
    shared: &Shared,
    replicas: &Replicas,
    directory: &Directory,
    range: RangeId,
    replica: ReplicaId,
) -> Result<(), String> {
    let handle = shared.ranges.write().expect(NO_PANIC).remove(&range);
    shared.registry.remove(range);
    let mut batch = Batch::new();
    shared.local().close_range(range);
    if let Some(handle) = handle {
        handle.stop().await;
        let rows = key::base::value_span(handle.record.keyspace, &handle.record.span);
        batch.delete_range(Column::Base, rows.start, rows.end);
    } else if let Ok(meta) =
        latitude_range::Reader::new(range, &*shared.engine).map(|reader| reader.meta().clone())
    {
        let rows = key::base::value_span(meta.keyspace, &meta.span);
        batch.delete_range(Column::Base, rows.start, rows.end);
    }
    let own = key::local::span_of(range);
    batch.delete_range(Column::Base, own.start, own.end);
    let log = key::log::span_of(range, replica.generation);
    batch.delete_range(Column::Log, log.start, log.end);
    replicas.stage_end(range, directory, &mut batch);
    batch.delete(Column::Node, key::node::installing(range));
    shared.engine.write(batch).map_err(|error| error.to_string())?;
    shared.committer.durable().await.map_err(|error| error.to_string())?;
    shared.quarantined.lock().expect(NO_PANIC).remove(&range);
    tracing::info!(%range, "replica of a dropped range removed");
    Ok(())
}

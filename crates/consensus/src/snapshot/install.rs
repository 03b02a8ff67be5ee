//! Installing a snapshot so that a crash anywhere leaves the old state or the new one.
//!
//! ```text
//!   0  the set of rows is whole and durable beside the store              (receive)
//!   1  marker "installing this set": written, synced                      Mark
//!   2  the set replaces the range's base: at once, durably                Replace
//!   3  log purged up to the snapshot, marker removed: one batch, synced   Apply
//!   4  the set is removed                                                 Cleanup
//!
//!   a marker found when the replica is opened: again from 2
//! ```
//!
//! *Why nothing is lost.* The sync of 1 covers everything before: the replica's vote, and every entry it
//! has acknowledged. Nothing ever deletes its vote, and of its log only what the snapshot holds.
//!
//! *Why the base and the log agree.* Between 2 and 3 the base is ahead of the log, which is what a replica
//! that lost its log looks like. The marker tells the two apart, and outlives 2 because 1 was synced.
//!
//! *Why there is no hole between the base and the log.* Openraft acknowledges a snapshot before it is installed, and
//! may be sent what follows it at once. It appends that only when the log is purged up to the snapshot, which
//! waits for the installation; `RangeLog::append` refuses what would leave a hole.
//!
//! *Why no reader sees a half state.* The engine replaces all rows of the range in one step, the metadata
//! and the applied row among them. Whoever reads from one engine snapshot reads the state before or the
//! one after.
//!
//! The overlay is not touched. Once ranges have origins, 3 prunes from it what the new base has folded.

use std::io;
use std::sync::Arc;

use latitude_probe::Plant;
use latitude_range::image_spans;
use latitude_storage::{Batch, Column, Engine, SetName, key};
use latitude_types::{Generation, RangeId};

use super::{Header, Installing, SnapshotStats, Snapshots, Step, ended};
use crate::committer::Committer;
use crate::log::RangeLog;
use crate::wire;

/// Where a snapshot is installed.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) committer: Committer,
    pub(crate) range: RangeId,
    pub(crate) generation: Generation,
    pub(crate) snapshots: Snapshots,
}

/// Installs a whole set. The caller tells the log, if it is open.
pub(crate) async fn install(place: &Place, header: &Header, set: SetName) -> io::Result<()> {
    if Plant::SnapshotWipesFirst.is_on() {
        return wipe_and_install(place, header, set).await;
    }
    let marker = Installing { set: set.0, header: header.encode() };
    let mut batch = Batch::new();
    if Plant::InstallWipes.is_on() {
        let everything = key::stream::everything();
        batch.delete_range(Column::Stream, everything.start, everything.end);
    }
    batch.put(Column::Node, key::node::installing(place.range), wire::encode(&marker));
    place.engine.write(batch).map_err(io::Error::other)?;
    place.committer.durable().await?;
    place.reached(Step::Mark)?;
    finish(place, header, set).await
}

/// The bug [`Plant::SnapshotWipesFirst`].
async fn wipe_and_install(place: &Place, header: &Header, set: SetName) -> io::Result<()> {
    let mut batch = Batch::new();
    for span in image_spans(&header.meta) {
        batch.delete_range(Column::Base, span.start, span.end);
    }
    place.engine.write(batch).map_err(io::Error::other)?;
    place.committer.durable().await?;
    place.reached(Step::Mark)?;
    finish(place, header, set).await
}

/// Ends an installation that a crash interrupted, if there is one.
pub(crate) async fn resume(place: &Place) -> io::Result<()> {
    let marker = place.engine.get(Column::Node, &key::node::installing(place.range));
    let Some(marker) = marker.map_err(io::Error::other)? else { return Ok(()) };
    let marker = wire::decode::<Installing>(&marker)?;
    let header = Header::decode(&marker.header)?;
    tracing::info!(range = %place.range, upto = header.last.index, "installing a snapshot, again");
    finish(place, &header, marker.set()).await
}

async fn finish(place: &Place, header: &Header, set: SetName) -> io::Result<()> {
    let Place { engine, committer, range, generation, snapshots } = place;
    let before = Header::read(*range, &**engine)?;
    // Nothing is applied while this goes on, so the base is either what it was or the snapshot.
    if before.is_none_or(|before| before.last.index < header.last.index) {
        ended(|done| engine.replace(set, done)).await?;
    }
    place.reached(Step::Replace)?;
    let mut batch = Batch::new();
    RangeLog::stage_purge(*range, *generation, 0, &header.last, &mut batch);
    batch.delete(Column::Node, key::node::installing(*range));
    engine.write(batch).map_err(io::Error::other)?;
    committer.durable().await?;
    place.reached(Step::Apply)?;
    SnapshotStats::count(&snapshots.stats.installed, 1);
    // If this fails, the next start does it.
    if let Err(error) = engine.discard(set) {
        tracing::warn!(%range, %error, "an installed snapshot's files could not be removed");
    }
    place.reached(Step::Cleanup)
}

impl Place {
    fn reached(&self, step: Step) -> io::Result<()> {
        self.snapshots.reached(self.range, step)
    }
}

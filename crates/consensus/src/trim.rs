//! Keeping a replica's log short: by bytes, on each replica for itself.
//!
//! ```text
//!   ├─────── purged ───────┤◀──── kept: half the limit ────▶│ last entry
//!                          cut: not above what is applied, nor above what a follower that answers lacks,
//!                               unless the log has grown to four times the limit
//! ```
//!
//! openraft purges what a snapshot holds. Building one costs nothing here, so one is built for each purge:
//! it only says how far this replica has applied.
//!
//! A replica that becomes the leader has its own cut; whoever needs less than that of it gets a snapshot.

use std::time::Duration;

use latitude_probe::Mark;
use openraft::async_runtime::WatchReceiver;

use crate::group::Group;
use crate::snapshot::{SnapshotStats, Step};

/// How long a log that cannot be cut yet is left alone.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Group {
    /// Shortens the log whenever it has grown too large. Ends when the group has stopped.
    pub fn keep_log_short(&self) -> impl Future<Output = ()> + Send + use<> {
        let group = self.clone();
        async move {
            loop {
                let too_large = group.log.bytes() > group.snapshots.settings.log_bytes_max;
                if too_large && group.trim().await.is_none() {
                    return;
                }
                group.receiver.forget_silent();
                if too_large || group.receiver.is_receiving() {
                    tokio::time::sleep(AGAIN_AFTER).await;
                } else {
                    tokio::select! {
                        biased;
                        () = group.log.grown() => {}
                        () = group.receiver.begun() => {}
                    }
                }
            }
        }
    }

    /// Purges what can be purged. `None`: the group has stopped, or a test wants it so.
    async fn trim(&self) -> Option<()> {
        let Some(upto) = self.cut() else { return Some(()) };
        let mut metrics = self.raft.metrics();
        self.raft.trigger().snapshot().await.ok()?;
        let has = |id: &Option<crate::types::LogId>| id.as_ref().is_some_and(|id| id.index >= upto);
        while !has(&metrics.borrow_watched().snapshot) {
            metrics.changed().await.ok()?;
        }
        self.raft.trigger().purge_log(upto).await.ok()?;
        // The purge waits for replication that is using these entries.
        let purged = async {
            while self.log.first_index() <= upto {
                metrics.changed().await.ok()?;
            }
            Some(())
        };
        match tokio::time::timeout(AGAIN_AFTER, purged).await {
            Ok(purged) => purged?,
            Err(_) => return Some(()),
        }
        SnapshotStats::count(&self.snapshots.stats.purges, 1);
        tracing::debug!(range = %self.range(), upto, "log purged");
        self.snapshots.reached(self.range(), Step::Purge).ok()
    }

    /// The last entry to go.
    fn cut(&self) -> Option<u64> {
        let settings = &self.snapshots.settings;
        let applied = self.progress.borrow().index;
        let mut read_by_all = applied;
        let status = self.status();
        let metrics = self.raft.metrics();
        for (replica, matched) in metrics.borrow_watched().replication.iter().flatten() {
            if *replica != self.replica() && !status.silent.contains(replica) {
                read_by_all = read_by_all.min(matched.as_ref().map_or(0, |id| id.index));
            }
        }
        let spared = self.log.bytes() <= settings.log_bytes_hard_max();
        let upto = if spared { read_by_all } else { applied };
        if upto < applied {
            Mark::LogCutWaits.hit();
        }
        let cut = self.log.purgeable(upto, settings.log_bytes_kept())?;
        (cut >= self.log.first_index()).then_some(cut)
    }
}

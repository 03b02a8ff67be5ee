//! A write is acknowledged once as many replicas have it on disk as its client wants.

use std::time::Duration;

use latitude_types::{Error, NodeId, Outcome, Reason};
use tokio::time::{Instant, sleep};

use super::Serving;

/// How often it is looked who has a log entry on disk, beyond its quorum.
const LOOK_EVERY: Duration = Duration::from_millis(5);

impl Serving<'_> {
    /// Refuses what can never be acknowledged, before anything is done.
    pub(super) fn check_ack_replicas(&self) -> Result<(), Error> {
        let replicas = self.handle.record.replicas().count();
        if self.request.ack_replicas <= replicas {
            return Ok(());
        }
        let message = format!(
            "{} replicas are to have the write on disk, and range {} has {replicas}",
            self.request.ack_replicas,
            self.handle.id()
        );
        Err(Error::new(Reason::ArgumentInvalid, message))
    }

    /// Waits until enough nodes hold a write that has happened, and says which.
    ///
    /// # Errors
    /// [`Reason::DeadlineExceeded`], with an outcome that is not known: the write has happened, and is on fewer disks
    /// than it was to be.
    pub(super) async fn on_enough_disks(
        &self,
        holders: impl Fn() -> Vec<NodeId>,
    ) -> Result<Vec<NodeId>, Error> {
        let wanted = self.request.ack_replicas;
        let patience = self.give_up_at();
        let mut told = self.shared.local().told();
        loop {
            let holding = holders();
            if holding.len() >= wanted {
                return Ok(holding);
            }
            if Instant::now() >= patience {
                let on: Vec<_> = holding.iter().map(ToString::to_string).collect();
                let message = format!(
                    "the write has happened, and is on disk at {}, not at the {wanted} replicas asked for: try again \
                     with the same id to wait for them",
                    on.join(", ")
                );
                let error = Error::new(Reason::DeadlineExceeded, message);
                return Err(Error { outcome: Outcome::Unknown, ..error });
            }
            tokio::select! {
                _ = told.changed() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }
}

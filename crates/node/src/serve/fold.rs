//! A strict or sequential operation sees its session's own local writes: they are folded ahead of it, or known not
//! to be missing from the base (`consistency.md` 1.2 rule 4, and the own check).

use std::time::Duration;

use latitude_probe::{Mark, Plant};
use latitude_range::has_folded;
use latitude_types::{Error, NodeId, Positions, Reason};
use tokio::time::{Instant, timeout, timeout_at};

use super::Serving;

/// How long a fold that was proposed is waited for before it is proposed again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How old a request may become while a fold is waited for. A client that is near the leader waits a second for an
/// answer, and NOT_FOLDED must be there before: of a write whose answer it missed it would have to say that it may have
/// happened.
const WAIT_MAX: Duration = Duration::from_millis(800);

impl Serving<'_> {
    /// The instant up to which a fold is waited for.
    fn fold_by(&self) -> Instant {
        self.soon().min(self.started + WAIT_MAX)
    }

    /// At the leader: has local writes up to these positions folded, as far as any of this range is missing from
    /// its base. Whoever takes a snapshot after this sees them.
    pub(super) async fn have_folded(&self, needed: &Positions) -> Result<(), Error> {
        if Plant::OwnIgnored.is_on() {
            return Ok(());
        }
        let patience = self.fold_by();
        let mut origins = self.handle.group.origins();
        loop {
            let missing = {
                let origins = origins.borrow_and_update();
                self.shared.local().own_unfolded(self.handle.id(), &origins, needed)
            };
            let Some(missing) = missing else { return Ok(()) };
            Mark::FoldedForRead.hit();
            let folded = async {
                self.shared.local().propose_fold(self.handle.id(), needed.clone()).await?;
                // Applied soon, or not at all: then it is proposed again.
                drop(timeout(LOOK_AGAIN, origins.changed()).await);
                Ok::<(), Error>(())
            };
            match timeout_at(patience, folded).await {
                Ok(folded) => folded?,
                Err(_) => return Err(not_folded(missing)),
            }
        }
    }

    /// At the leader: has local writes up to these positions proposed ahead of what is proposed next.
    pub(super) async fn have_fold_proposed(&self, needed: &Positions) -> Result<(), Error> {
        let is_folded = has_folded(&self.handle.group.origins().borrow(), needed);
        if *needed == Positions::default() || is_folded {
            return Ok(());
        }
        Mark::FoldedForWrite.hit();
        let proposed = self.shared.local().propose_fold(self.handle.id(), needed.clone());
        match timeout_at(self.fold_by(), proposed).await {
            Ok(proposed) => proposed,
            Err(_) => {
                let origins = self.handle.group.origins();
                let behind = origins
                    .borrow()
                    .iter()
                    .find(|o| o.folded < o.capped(needed.of(o.node)))
                    .map(|o| o.node);
                Err(not_folded(behind.unwrap_or_default()))
            }
        }
    }
}

/// The error of an operation that must not be done without local writes that are not here.
pub(super) fn not_folded(origin: NodeId) -> Error {
    let message = format!(
        "local writes of the session that {origin} took have not reached the range's leader, and the operation must \
         not be done without them: try again when {origin} can be reached, or begin a new session"
    );
    Error::new(Reason::NotFolded, message)
}

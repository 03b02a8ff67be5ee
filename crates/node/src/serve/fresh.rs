//! How stale an answer from base and overlay may be, and making it fresher.
//!
//! ```text
//!   base:    age of the question whose answer, a closed time, has been reached
//!   overlay: age of the oldest nudge, among the range's origins, whose answer is held (shown, at level causal)
//!   answer:  the older of both
//! ```
//!
//! Both are counted on this node's own monotonic clock, from before the question left: no other clock is in it.

use std::time::Duration;

use futures::future::join;
use latitude_types::{Error, NodeId, Reason};
use tokio::time::{Instant, timeout_at};

use super::Serving;

/// What is known of an answer's age, before it is read.
struct Age {
    /// `None`: nothing.
    base: Option<Duration>,
    /// Of the oldest stream; `None`: nothing is known of that origin's.
    streams: Option<(NodeId, Option<Duration>)>,
}

impl Age {
    fn whole(&self) -> Option<Duration> {
        match self.streams {
            None => self.base,
            Some((_, age)) => Some(self.base?.max(age?)),
        }
    }
}

impl Serving<'_> {
    /// An upper bound of the staleness of what is read after this, if there is one: no more than the request allows.
    ///
    /// - `shown`: only what is shown to causal reads will be read.
    ///
    /// # Errors
    /// [`Reason::StalenessUnproved`] if the request demands more than can be proved here.
    pub(super) async fn fresh_enough(&self, shown: bool) -> Result<Option<Duration>, Error> {
        let most = self.request.staleness_max;
        if most.is_none() && !self.is_full() {
            // Nobody looks at it, and most reads are like this.
            return Ok(None);
        }
        let age = self.age(shown);
        let Some(most) = most else { return Ok(age.whole()) };
        if age.whole().is_some_and(|age| age <= most) {
            return Ok(age.whole());
        }
        let give_up = self.soon();
        let asked = Instant::now();
        // An error of either shows in what is known after.
        let refreshed = join(self.refresh_base(), self.refresh_streams(shown, asked));
        drop(timeout_at(give_up, refreshed).await);
        let age = self.age(shown);
        match age.whole() {
            Some(known) if known <= most => Ok(Some(known)),
            _ => Err(self.too_old(&age, most)),
        }
    }

    fn age(&self, shown: bool) -> Age {
        let (applied, _) = self.handle.group.applied_position();
        // One that is admitted up to there may have taken what is older than the base, and is to be asked.
        self.know_origins(self.handle);
        let closed = self.handle.closing.reached(applied);
        let base = closed.map(|closed| closed.age(self.shared.started.elapsed()));
        let streams = self.shared.local().as_of(self.handle.id(), shown);
        let streams = streams.map(|(origin, as_of)| (origin, as_of.map(|at| at.elapsed())));
        Age { base, streams }
    }

    async fn refresh_base(&self) {
        if let Ok(closed) = self.handle.closing.demand().await {
            // If the replica leaves this node meanwhile, so does the read.
            drop(self.handle.group.applied(closed.at.index).await);
        }
    }

    /// Waits until every origin's stream is known as of `since` or later.
    async fn refresh_streams(&self, shown: bool, since: Instant) {
        let local = self.shared.local();
        for origin in local.origins_of(self.handle.id()) {
            self.shared.nudge(origin);
        }
        loop {
            // Before the look: what changes after it is noticed.
            let mut changes = local.changes();
            match local.as_of(self.handle.id(), shown) {
                Some((_, as_of)) if as_of.is_none_or(|as_of| as_of < since) => {}
                _ => return,
            }
            if changes.changed().await.is_err() {
                return;
            }
            self.shared.show_what_may_be();
        }
    }

    fn too_old(&self, age: &Age, most: Duration) -> Error {
        let what = match (age.base, age.streams) {
            (Some(base), _) if base > most => format!("of the range's log only {base:?}"),
            (None, _) => "of the range's log nothing".into(),
            (_, Some((origin, Some(age)))) => {
                format!("of local writes that {origin} took only {age:?}")
            }
            (_, Some((origin, None))) => format!("of local writes that {origin} took nothing"),
            (Some(base), None) => format!("only {base:?}"),
        };
        let message = format!(
            "the answer must be no staler than {most:?}, and {what} can be proved here. Another replica may be fresher"
        );
        Error::new(Reason::StalenessUnproved, message)
    }
}

//! The node's leases: what it promises, what others have promised it, and whether it may answer by them. The
//! rule, and why it is right, is `latitude_consistency::LeaseRule`.
//!
//! ```text
//!   own promise ─▶ store, synced ─▶ greeting of every connection ─▶ the peer's rule
//!   a read: grant (clocks, promises) ─▶ group (acknowledgements) ─▶ still holds? ─▶ answer; else read index
//! ```
//!
//! The promise in the store is that of this life or, while the node is silent, of the life before if that was
//! longer: whichever life a leader counted on, the next one begins with a silence.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use latitude_clock::PhysicalClock;
use latitude_consensus::{Group, ReadError};
use latitude_consistency::{ClockLook, Grant, LeaseRule, silence_after_start};
use latitude_storage::{Batch, Column, Engine, Kind, key};
use latitude_types::{NodeId, Timestamp};
use tokio::time::Instant;

use crate::clock_keeper::Clock;
use crate::config::{NodeConfig, ReadMode};
use crate::shared::NO_PANIC;

/// What a node keeps of its promises over its restarts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Promise {
    /// What the node promises in this life; zero: nothing.
    own: Duration,
    /// What it or its life before promised, whichever is longer.
    longest: Duration,
}

impl Promise {
    /// The promise of a node that starts on this store.
    pub(crate) fn of_start(
        engine: &dyn Engine,
        config: &NodeConfig,
    ) -> latitude_storage::Result<Self> {
        let row = engine.get(Column::Node, &key::node::lease())?;
        let former = match row.map(|row| <[u8; 8]>::try_from(&row[..])) {
            None => Duration::ZERO,
            Some(Ok(us)) => Duration::from_micros(u64::from_be_bytes(us)),
            Some(Err(_)) => {
                let message = "the lease that the node has promised has the wrong length";
                return Err(latitude_storage::Error::new(Kind::Corrupt, message));
            }
        };
        let own = match config.read_mode {
            ReadMode::Lease => config.settings.election_timeout_max,
            ReadMode::ReadIndex => Duration::ZERO,
        };
        Ok(Self { own, longest: own.max(former) })
    }

    /// Until when the node is silent, if it starts now.
    pub(crate) fn silent_until(&self) -> Option<Instant> {
        (!self.longest.is_zero()).then(|| Instant::now() + silence_after_start(self.longest))
    }

    /// What must be in the store before anybody hears of this life.
    pub(crate) fn stage(&self, batch: &mut Batch) {
        stage(self.longest, batch);
    }

    /// What may be in the store once the silence is over; `None`: the same.
    pub(crate) fn after_silence(&self) -> Option<Batch> {
        let mut batch = Batch::new();
        stage(self.own, &mut batch);
        (self.own != self.longest).then_some(batch)
    }
}

fn stage(lease: Duration, batch: &mut Batch) {
    if lease.is_zero() {
        batch.delete(Column::Node, key::node::lease());
    } else {
        let us = lease.as_micros() as u64;
        batch.put(Column::Node, key::node::lease(), us.to_be_bytes().to_vec());
    }
}

/// The leases of a node. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub(crate) struct Leases {
    inner: Arc<Inner>,
}

struct Inner {
    promise: Promise,
    silent_until: Option<Instant>,
    physical: Arc<dyn PhysicalClock>,
    clock: Clock,
    /// `None`: this node does not answer by lease.
    rule: Option<Mutex<LeaseRule>>,
}

impl Leases {
    pub(crate) fn new(
        promise: Promise,
        silent_until: Option<Instant>,
        physical: Arc<dyn PhysicalClock>,
        clock: Clock,
    ) -> Self {
        let now = look(&*physical, &clock);
        let rule = (!promise.own.is_zero()).then(|| Mutex::new(LeaseRule::new(promise.own, now)));
        Self { inner: Arc::new(Inner { promise, silent_until, physical, clock, rule }) }
    }

    /// Whether this node answers by lease where it may.
    pub(crate) fn are_in_use(&self) -> bool {
        self.inner.rule.is_some()
    }

    /// Until when this node's replicas that have ever voted are silent, if they were at its start.
    pub(crate) fn silent_until(&self) -> Option<Instant> {
        self.inner.silent_until
    }

    /// What this node promises those it speaks to, in microseconds.
    pub(crate) fn promised_us(&self) -> u64 {
        self.inner.promise.own.as_micros() as u64
    }

    /// What may be in the store once the silence is over; `None`: the same.
    pub(crate) fn after_silence(&self) -> Option<Batch> {
        self.inner.promise.after_silence()
    }

    /// Takes in what a peer said when a connection to it was made, before any answer of its on it.
    pub(crate) fn heard(&self, node: NodeId, starts: u32, lease_us: u64) {
        if let Some(rule) = &self.inner.rule {
            let mut rule = rule.lock().expect(NO_PANIC);
            rule.promised(node, starts, Duration::from_micros(lease_us), self.look());
        }
    }

    /// Whether a node may have started so lately that it would refuse to take over.
    pub(crate) fn may_be_silent(&self, node: NodeId) -> bool {
        let rule = self.inner.rule.as_ref();
        rule.is_some_and(|rule| rule.lock().expect(NO_PANIC).may_be_silent(node, self.look()))
    }

    /// The index that a strict read which began before this call must see applied, if this replica's lease
    /// holds; `None`: ask a quorum. `stands`: the time of a session that no stamp applied here covers.
    pub(crate) async fn read_index(
        &self,
        group: &Group,
        stands: Option<Timestamp>,
    ) -> Result<Option<u64>, ReadError> {
        let Some(grant) = self.grant(group, stands) else { return Ok(None) };
        let index = group.lease_index(grant.age_max).await?;
        Ok(index.filter(|_| self.still_holds(grant)))
    }

    fn grant(&self, group: &Group, stands: Option<Timestamp>) -> Option<Grant> {
        let rule = self.inner.rule.as_ref()?;
        let own = group.replica().node;
        let voters = group.voters().into_iter().map(|replica| replica.node);
        let others = voters.filter(|node| *node != own);
        rule.lock().expect(NO_PANIC).grant(others, stands, self.look())
    }

    fn still_holds(&self, grant: Grant) -> bool {
        let rule = self.inner.rule.as_ref();
        rule.is_some_and(|rule| rule.lock().expect(NO_PANIC).still_holds(grant, self.look()))
    }

    /// Looks at the clocks. Under the rule's lock, so that looks are taken in in their order.
    fn look(&self) -> ClockLook {
        look(&*self.inner.physical, &self.inner.clock)
    }
}

/// The hybrid clock is read first: what is noted is that it stood there *by* that monotonic time. In the other order
/// a message could leave between the two, after the monotonic time and with a clock below the hybrid one, and whoever
/// acknowledged it would count as having heard of that.
fn look(physical: &dyn PhysicalClock, clock: &Clock) -> ClockLook {
    let hybrid = clock.hybrid().peek();
    ClockLook { wall_us: physical.wall_us(), monotonic_us: physical.monotonic_us(), hybrid }
}

//! The ids of this client's writes.
//!
//! ```text
//!   clock of a reply ──▶ anchor (cluster time, own monotonic time) ──▶ birth = anchor + elapsed
//!   sequences:  1 ✓  2 ✓  3 …  4 ✓  5 …        answered_below = 3: the least one not finished
//! ```
//!
//! Invariants: births never decrease from one sequence to the next, because both are taken under one
//! lock; a birth is above all its session has seen (pitfall B5: a write must not lose to what it has
//! read); `answered_below` never passes a sequence that may still be retried.
//!
//! HAZARD: a node whose clock runs far ahead would have every later birth refused as coming from the
//! future. So a clock far above the estimate counts only if a second node says the like, or if nobody
//! has said otherwise for a while. The first clock of all is believed: there is nothing to compare it to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use latitude_rpc::pb::v1;
use latitude_types::{ClientId, Error, Reason, Result, Timestamp};
use tokio::time::Instant;

use crate::lock;

/// How long an observed clock is moved on before a newer observation replaces it even if it is lower.
/// Without this a host whose monotonic clock runs fast would drift ahead of the cluster for ever, until
/// its ids were refused as coming from the future.
const ANCHOR_AGE_MAX: Duration = Duration::from_secs(10);

/// How far above the estimate a clock may be that one node alone tells, and a session may have been. It is
/// twice what clocks may differ by, unless a cluster is set up otherwise.
const LEAP_MAX: Duration = Duration::from_secs(1);

/// After how long without a reply the cluster is asked for its clock before a write is named: in that
/// time clocks that differ by 200 ppm part by 60 ms, far less than the cluster tolerates.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// The source of a client's ids.
#[derive(Debug)]
pub(crate) struct Ids {
    client: ClientId,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// A clock of the cluster and when it was seen; `None` before the first reply.
    anchor: Option<(Timestamp, Instant)>,
    /// When a clock was last told that is not far above the estimate.
    agreed: Option<Instant>,
    /// Who told a clock far above it, since the anchor was set: not believed alone.
    leapt: Option<Arc<str>>,
    last_birth: Timestamp,
    next_sequence: u64,
    /// Sequences given and not finished.
    outstanding: BTreeSet<u64>,
}

impl State {
    fn estimate(&self, now: Instant) -> Option<Timestamp> {
        let (clock, seen) = self.anchor?;
        Some(clock.plus_ms(now.saturating_duration_since(seen).as_millis() as u64))
    }
}

impl Ids {
    pub(crate) fn new(client: ClientId) -> Self {
        let state = State {
            anchor: None,
            agreed: None,
            leapt: None,
            last_birth: Timestamp::ZERO,
            next_sequence: 1,
            outstanding: BTreeSet::new(),
        };
        Self { client, state: Mutex::new(state) }
    }

    /// The client all ids belong to.
    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    /// Takes in the clock that a node (named by its address) told. The largest wins, so that a node that
    /// lags does not hold births back; zero is no clock.
    pub(crate) fn observe(&self, node: &str, clock: Timestamp) {
        if clock == Timestamp::ZERO {
            return;
        }
        let now = Instant::now();
        let mut state = lock(&self.state);
        let lately = |seen: Option<Instant>| {
            seen.is_some_and(|seen| now.saturating_duration_since(seen) <= ANCHOR_AGE_MAX)
        };
        let estimate = state.estimate(now);
        if estimate.is_none_or(|estimate| clock <= leap(estimate)) {
            state.agreed = Some(now);
        } else if state.leapt.as_deref().is_none_or(|other| other == node) && lately(state.agreed) {
            // Not believed, but remembered: a second node may say the like.
            state.leapt = Some(node.into());
            return;
        }
        let old = !lately(state.anchor.map(|(_, seen)| seen));
        if old || estimate.is_none_or(|estimate| estimate < clock) {
            state.anchor = Some((clock, now));
            state.leapt = None;
        }
    }

    /// The cluster refused a birth as too long ago: this process stood still, and the next clock it is
    /// told counts, however far it leaps.
    pub(crate) fn stood_still(&self) {
        let mut state = lock(&self.state);
        state.anchor = None;
        state.agreed = None;
    }

    /// Whether a birth above this time must wait for a newer clock of the cluster.
    pub(crate) fn needs_clock_for(&self, above: Timestamp) -> bool {
        let reached =
            lock(&self.state).estimate(Instant::now()).is_some_and(|now| above <= leap(now));
        !reached || self.needs_clock()
    }

    /// Whether no clock of the cluster has been seen, or none for long.
    pub(crate) fn needs_clock(&self) -> bool {
        lock(&self.state).anchor.is_none_or(|(_, seen)| seen.elapsed() > IDLE_MAX)
    }

    /// The id of a new write, born above `above`.
    ///
    /// # Errors
    /// [`Reason::ClockUnsynced`] as long as no clock of the cluster has been seen;
    /// [`Reason::TokenFromFuture`] if `above` is far ahead of it: one such birth, and every later one of
    /// this client would be, too.
    pub(crate) fn begin(self: &Arc<Self>, above: Timestamp) -> Result<Ticket> {
        let mut state = lock(&self.state);
        let Some(estimate) = state.estimate(Instant::now()) else {
            let message = "no node has told its clock yet, which a write is named by";
            return Err(Error::new(Reason::ClockUnsynced, message));
        };
        if above > leap(estimate) {
            let ahead = above.ms() - estimate.ms();
            let message = format!(
                "the session is {ahead} ms ahead of the cluster's clock, and a write must be born above it: \
                 its token is damaged, of another cluster, or of a node whose clock is wrong"
            );
            return Err(Error::new(Reason::TokenFromFuture, message));
        }
        let birth = estimate.max(state.last_birth).max(above.next());
        let sequence = state.next_sequence;
        state.last_birth = birth;
        state.next_sequence += 1;
        state.outstanding.insert(sequence);
        Ok(Ticket { ids: Arc::clone(self), birth, sequence })
    }
}

/// How far a clock told by one node may be above the estimate.
fn leap(estimate: Timestamp) -> Timestamp {
    estimate.plus_ms(LEAP_MAX.as_millis() as u64)
}

/// The id of one write, from its first attempt until nobody will attempt it again.
///
/// Dropping the ticket finishes the sequence: the write was answered, given up at its deadline, or its
/// caller dropped the future. In the last two cases an attempt may still be on its way. That is safe
/// because nobody retries it: it arrives once and takes effect, or it arrives after a later write has
/// told the range that its sequence is finished and is refused as `ID_RETIRED`.
///
/// HAZARD: a ticket dropped while an attempt could still follow would let the server forget the first
/// attempt's result, and the second would be refused or, worse, taken for new.
#[derive(Debug)]
pub(crate) struct Ticket {
    ids: Arc<Ids>,
    birth: Timestamp,
    sequence: u64,
}

impl Ticket {
    /// The id for the next attempt. Only `answered_below` differs between attempts; it is at most this
    /// sequence, which is outstanding itself.
    pub(crate) fn to_wire(&self) -> v1::OperationId {
        let answered_below = lock(&self.ids.state).outstanding.first().copied();
        v1::OperationId {
            birth: self.birth.0,
            client: Bytes::copy_from_slice(&self.ids.client.0),
            sequence: self.sequence,
            answered_below: answered_below.unwrap_or(self.sequence),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.ids.state).outstanding.remove(&self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> Arc<Ids> {
        Arc::new(Ids::new(ClientId([7; 16])))
    }

    fn begin(ids: &Arc<Ids>) -> Result<Ticket> {
        ids.begin(Timestamp::ZERO)
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_clock_there_is_no_id() {
        let ids = ids();
        assert_eq!(begin(&ids).unwrap_err().reason, Reason::ClockUnsynced);
        ids.observe("a", Timestamp::ZERO);
        assert_eq!(begin(&ids).unwrap_err().reason, Reason::ClockUnsynced);
        ids.observe("a", Timestamp::from_ms(1));
        assert_eq!(begin(&ids).unwrap().to_wire().sequence, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn answered_below_is_the_least_sequence_not_finished() {
        let ids = ids();
        ids.observe("a", Timestamp::from_ms(1000));
        let first = begin(&ids).unwrap();
        let second = begin(&ids).unwrap();
        let third = begin(&ids).unwrap();
        assert_eq!(third.to_wire().answered_below, 1);
        drop(second);
        assert_eq!(third.to_wire().answered_below, 1);
        drop(first);
        assert_eq!(third.to_wire().answered_below, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_birth_is_the_largest_clock_seen_moved_on_by_own_time() {
        let ids = ids();
        ids.observe("a", Timestamp::from_ms(1000));
        ids.observe("a", Timestamp::from_ms(400));
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(begin(&ids).unwrap().birth, Timestamp::from_ms(1250));
        ids.observe("a", Timestamp::from_ms(2000));
        assert_eq!(begin(&ids).unwrap().birth, Timestamp::from_ms(2000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_whose_clock_ran_ahead_waits_for_the_cluster_and_no_birth_decreases() {
        let ids = ids();
        ids.observe("a", Timestamp::from_ms(1000));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(begin(&ids).unwrap().birth, Timestamp::from_ms(12_000));
        ids.observe("a", Timestamp::from_ms(11_500));
        assert_eq!(begin(&ids).unwrap().birth, Timestamp::from_ms(12_000));
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(begin(&ids).unwrap().birth, Timestamp::from_ms(12_100));
    }

    /// Pitfall B5, second half: a write must not lose to what its session has read.
    #[tokio::test(start_paused = true)]
    async fn a_birth_is_above_what_its_session_has_seen() {
        let ids = ids();
        ids.observe("a", Timestamp::from_ms(1000));
        let seen = Timestamp::from_ms(1400);
        assert!(!ids.needs_clock_for(seen));
        assert!(ids.begin(seen).unwrap().birth > seen);
        // Births never decrease, and the estimate is not moved by it.
        assert!(begin(&ids).unwrap().birth > seen);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(begin(&ids).unwrap().birth, Timestamp::from_ms(1500));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_of_the_future_gets_no_birth_and_spoils_no_other() {
        let ids = ids();
        ids.observe("a", Timestamp::from_ms(1000));
        let seen = Timestamp::from_ms(60_000);
        assert!(ids.needs_clock_for(seen));
        assert_eq!(ids.begin(seen).unwrap_err().reason, Reason::TokenFromFuture);
        assert_eq!(begin(&ids).unwrap().birth, Timestamp::from_ms(1000));
    }

    #[tokio::test(start_paused = true)]
    async fn one_node_whose_clock_runs_ahead_does_not_spoil_the_births() {
        let ids = ids();
        ids.observe("a", Timestamp::from_ms(1000));
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(1)).await;
            let true_clock = begin(&ids).unwrap().birth;
            ids.observe("fast", true_clock.plus_ms(30_000));
            ids.observe("b", true_clock);
        }
        assert_eq!(begin(&ids).unwrap().birth, Timestamp::from_ms(101_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leap_counts_if_two_nodes_tell_it_or_nobody_tells_otherwise() {
        let ids = ids();
        ids.observe("a", Timestamp::from_ms(1000));
        ids.observe("a", Timestamp::from_ms(50_000));
        assert_eq!(begin(&ids).unwrap().birth, Timestamp::from_ms(1000));
        ids.observe("b", Timestamp::from_ms(50_001));
        assert_eq!(begin(&ids).unwrap().birth, Timestamp::from_ms(50_001));

        ids.observe("a", Timestamp::from_ms(90_000));
        assert_eq!(begin(&ids).unwrap().birth, Timestamp::from_ms(50_001));
        tokio::time::advance(Duration::from_secs(11)).await;
        ids.observe("a", Timestamp::from_ms(101_000));
        assert_eq!(begin(&ids).unwrap().birth, Timestamp::from_ms(101_000));
    }

    #[tokio::test(start_paused = true)]
    async fn who_stood_still_believes_the_next_clock() {
        let ids = ids();
        ids.observe("a", Timestamp::from_ms(1000));
        ids.observe("a", Timestamp::from_ms(3_600_000));
        ids.stood_still();
        assert!(ids.needs_clock());
        ids.observe("a", Timestamp::from_ms(3_600_001));
        assert_eq!(begin(&ids).unwrap().birth, Timestamp::from_ms(3_600_001));
    }
}

//! The ids of this client's writes.
//!
//! ```text
//!   clock of a reply ──▶ anchor (cluster time, own monotonic time) ──▶ birth = anchor + elapsed
//!   sequences:  1 ✓  2 ✓  3 …  4 ✓  5 …        answered_below = 3: the least one not finished
//! ```
//!
//! Invariants: births never decrease from one sequence to the next, because both are taken under one
//! lock; `answered_below` never passes a sequence that may still be retried.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use latitude_rpc::pb::v1;
use latitude_types::{ClientId, Timestamp};
use tokio::time::Instant;

use crate::lock;

/// How long an observed clock is moved on before a newer observation replaces it even if it is lower.
/// Without this a host whose monotonic clock runs fast would drift ahead of the cluster for ever, until
/// its ids were refused as coming from the future.
const ANCHOR_AGE_MAX: Duration = Duration::from_secs(10);

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

    /// Takes in the clock of a reply. The largest wins, so that a node that lags does not hold births
    /// back; zero is no clock.
    pub(crate) fn observe(&self, clock: Timestamp) {
        if clock == Timestamp::ZERO {
            return;
        }
        let now = Instant::now();
        let mut state = lock(&self.state);
        let old = state
            .anchor
            .is_none_or(|(_, seen)| now.saturating_duration_since(seen) > ANCHOR_AGE_MAX);
        if old || state.estimate(now).is_none_or(|estimate| estimate < clock) {
            state.anchor = Some((clock, now));
        }
    }

    /// Whether no clock of the cluster has been seen, or none for long.
    pub(crate) fn needs_clock(&self) -> bool {
        lock(&self.state).anchor.is_none_or(|(_, seen)| seen.elapsed() > IDLE_MAX)
    }

    /// The id of a new write; `None` as long as no clock of the cluster has been seen.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Ticket> {
        let mut state = lock(&self.state);
        let birth = state.estimate(Instant::now())?.max(state.last_birth);
        let sequence = state.next_sequence;
        state.last_birth = birth;
        state.next_sequence += 1;
        state.outstanding.insert(sequence);
        Some(Ticket { ids: Arc::clone(self), birth, sequence })
    }
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

    #[tokio::test(start_paused = true)]
    async fn without_a_clock_there_is_no_id() {
        let ids = ids();
        assert!(ids.begin().is_none());
        ids.observe(Timestamp::ZERO);
        assert!(ids.begin().is_none());
        ids.observe(Timestamp::from_ms(1));
        assert_eq!(ids.begin().unwrap().to_wire().sequence, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn answered_below_is_the_least_sequence_not_finished() {
        let ids = ids();
        ids.observe(Timestamp::from_ms(1000));
        let first = ids.begin().unwrap();
        let second = ids.begin().unwrap();
        let third = ids.begin().unwrap();
        assert_eq!(third.to_wire().answered_below, 1);
        drop(second);
        assert_eq!(third.to_wire().answered_below, 1);
        drop(first);
        assert_eq!(third.to_wire().answered_below, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_birth_is_the_largest_clock_seen_moved_on_by_own_time() {
        let ids = ids();
        ids.observe(Timestamp::from_ms(1000));
        ids.observe(Timestamp::from_ms(400));
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(ids.begin().unwrap().birth, Timestamp::from_ms(1250));
        ids.observe(Timestamp::from_ms(5000));
        assert_eq!(ids.begin().unwrap().birth, Timestamp::from_ms(5000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_whose_clock_ran_ahead_waits_for_the_cluster_and_no_birth_decreases() {
        let ids = ids();
        ids.observe(Timestamp::from_ms(1000));
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(ids.begin().unwrap().birth, Timestamp::from_ms(12_000));
        ids.observe(Timestamp::from_ms(11_500));
        assert_eq!(ids.begin().unwrap().birth, Timestamp::from_ms(12_000));
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(ids.begin().unwrap().birth, Timestamp::from_ms(12_100));
    }
}

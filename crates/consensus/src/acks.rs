//! Which voters have acknowledged which leadership, and since when each keeps its promise: for leases.
//!
//! ```text
//!   sent at t ──▶ voter hears it at ≥ t, and votes for nobody else for one lease ──▶ answer: counts from t
//! ```
//!
//! openraft keeps such times too, but takes the answer to one request for an answer to every request under
//! way that ends at the same entry (`InflightAppendQueue::drain_acked` of alpha.37). Our replication streams
//! have many under way, and a request without entries, which only tells how far is committed, ends where the
//! one before it does: it would count as acknowledged while it is lost. So a lease here rests on the answers
//! as the network hands them over, each with the time of its own request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use latitude_types::ReplicaId;
use tokio::time::Instant;

use crate::types::LeaderToken;

/// The acknowledgements of one replica's latest leadership. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Acks {
    inner: Arc<Mutex<Latest>>,
}

#[derive(Default)]
struct Latest {
    leadership: Option<LeaderToken>,
    /// When the last acknowledged message to each replica was sent.
    sent: BTreeMap<ReplicaId, Instant>,
}

impl Acks {
    /// `voter` has answered, without naming a higher vote, a message of this leadership that was sent at
    /// `sent`.
    pub(crate) fn note(&self, leadership: LeaderToken, voter: ReplicaId, sent: Instant) {
        let mut latest = self.lock();
        if latest.leadership < Some(leadership) {
            *latest = Latest { leadership: Some(leadership), sent: BTreeMap::new() };
        }
        if latest.leadership == Some(leadership) {
            let at = latest.sent.entry(voter).or_insert(sent);
            *at = sent.max(*at);
        }
    }

    /// Whether a quorum of every one of `configs` has acknowledged a message of this leadership sent less
    /// than `age_max` ago. The leader acknowledges its own.
    pub(crate) fn are_fresh(
        &self,
        leadership: LeaderToken,
        configs: &[BTreeSet<ReplicaId>],
        age_max: Duration,
    ) -> bool {
        let latest = self.lock();
        if configs.is_empty() {
            return false;
        }
        let now = Instant::now();
        let is_fresh = |voter: &ReplicaId| {
            *voter == leadership.replica
                || latest.leadership == Some(leadership)
                    && latest.sent.get(voter).is_some_and(|sent| now < *sent + age_max)
        };
        configs
            .iter()
            .all(|voters| voters.iter().filter(|voter| is_fresh(voter)).count() > voters.len() / 2)
    }

    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.inner.lock().expect("nothing panics while it holds this")
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::{Generation, NodeId};

    use super::*;

    const AGE: Duration = Duration::from_millis(100);

    fn replica(node: u32) -> ReplicaId {
        ReplicaId { node: NodeId(node), generation: Generation(1) }
    }

    fn leadership(term: u64) -> LeaderToken {
        LeaderToken { term, replica: replica(1) }
    }

    fn voters(nodes: std::ops::RangeInclusive<u32>) -> BTreeSet<ReplicaId> {
        nodes.map(replica).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_quorum_counts_from_when_its_messages_were_sent() {
        let acks = Acks::default();
        let sent = Instant::now();
        assert!(!acks.are_fresh(leadership(1), &[voters(1..=3)], AGE), "only itself");
        tokio::time::advance(AGE / 2).await;
        acks.note(leadership(1), replica(2), sent);
        assert!(acks.are_fresh(leadership(1), &[voters(1..=3)], AGE));
        assert!(!acks.are_fresh(leadership(1), &[voters(1..=5)], AGE), "two of five");
        tokio::time::advance(AGE / 2).await;
        assert!(!acks.are_fresh(leadership(1), &[voters(1..=3)], AGE), "the answer was no newer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_takes_nothing_back() {
        let acks = Acks::default();
        let early = Instant::now();
        tokio::time::advance(AGE).await;
        acks.note(leadership(1), replica(2), Instant::now());
        acks.note(leadership(1), replica(2), early);
        assert!(acks.are_fresh(leadership(1), &[voters(1..=3)], AGE));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_promised_to_one_leadership_is_nothing_to_another() {
        let acks = Acks::default();
        acks.note(leadership(1), replica(2), Instant::now());
        assert!(!acks.are_fresh(leadership(2), &[voters(1..=3)], AGE));
        acks.note(leadership(2), replica(3), Instant::now());
        acks.note(leadership(1), replica(2), Instant::now());
        assert!(acks.are_fresh(leadership(2), &[voters(1..=3)], AGE));
        assert!(!acks.are_fresh(leadership(1), &[voters(1..=3)], AGE));
    }

    #[tokio::test(start_paused = true)]
    async fn while_voters_change_a_quorum_of_both_configurations_is_needed() {
        let acks = Acks::default();
        acks.note(leadership(1), replica(2), Instant::now());
        let after = [1, 4, 5].map(replica).into();
        assert!(!acks.are_fresh(leadership(1), &[voters(1..=3), after], AGE));
        let after = [1, 2, 5].map(replica).into();
        assert!(acks.are_fresh(leadership(1), &[voters(1..=3), after], AGE));
    }
}

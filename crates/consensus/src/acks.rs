//! Which voters have acknowledged which leadership, and since when: for leases and for read indexes.
//!
//! ```text
//!   sent at t ──▶ voter hears it at ≥ t, and votes for nobody else for one lease ──▶ answer: counts from t
//! ```
//!
//! openraft keeps such times too, but takes the answer to one request for an answer to every request under
//! way that ends at the same entry (`InflightAppendQueue::drain_acked` of alpha.37). Our replication streams
//! have many under way, and a request without entries, which only tells how far is committed, ends where the
//! one before it does: it would count as acknowledged while it is lost. So all that rests on who leads, here,
//! rests on the answers as the network hands them over, each with the time and the place of its own request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use latitude_probe::Plant;
use latitude_types::ReplicaId;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::types::LeaderToken;

/// A place in the order in which this replica sends messages and begins reads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Ticket(u64);

/// When a message was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    at: Instant,
    ticket: Ticket,
}

/// The acknowledgements of one replica's latest leadership. Clones are the same.
#[derive(Clone)]
pub(crate) struct Acks {
    latest: Arc<Mutex<Latest>>,
    tickets: Arc<AtomicU64>,
    /// Tells that there is another.
    noted: watch::Sender<()>,
}

#[derive(Default)]
struct Latest {
    leadership: Option<LeaderToken>,
    /// The last acknowledged message to each replica.
    sent: BTreeMap<ReplicaId, Sent>,
}

impl Default for Acks {
    fn default() -> Self {
        Self { latest: Arc::default(), tickets: Arc::default(), noted: watch::Sender::new(()) }
    }
}

impl Acks {
    /// The next place. Each is given once, so it tells before from after where the clock does not.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::SeqCst))
    }

    /// A message is sent now: taken down before it is, for what an answer promises begins later.
    pub(crate) fn sending(&self) -> Sent {
        Sent { at: Instant::now(), ticket: self.ticket() }
    }

    /// `replica` has answered, without naming a higher vote, a message of this leadership.
    pub(crate) fn note(&self, leadership: LeaderToken, replica: ReplicaId, sent: Sent) {
        let mut latest = self.lock();
        if latest.leadership < Some(leadership) {
            *latest = Latest { leadership: Some(leadership), sent: BTreeMap::new() };
        }
        if latest.leadership == Some(leadership) {
            let last = latest.sent.entry(replica).or_insert(sent);
            if last.ticket < sent.ticket {
                *last = sent;
            }
        }
        drop(latest);
        self.noted.send_replace(());
    }

    /// Whether a quorum of every one of `configs` has acknowledged a message of this leadership sent less
    /// than `age_max` ago. The leader acknowledges its own.
    pub(crate) fn are_fresh(
        &self,
        leadership: LeaderToken,
        configs: &[BTreeSet<ReplicaId>],
        age_max: Duration,
    ) -> bool {
        let now = Instant::now();
        self.has_quorum(leadership, configs, |sent| now < sent.at + age_max)
    }

    /// Resolves once a quorum of every one of `configs` has acknowledged a message of this leadership that
    /// was sent after `ticket`.
    pub(crate) async fn confirmed(
        &self,
        leadership: LeaderToken,
        configs: &[BTreeSet<ReplicaId>],
        ticket: Ticket,
    ) {
        let mut noted = self.noted.subscribe();
        while !self.has_quorum(leadership, configs, |sent| sent.ticket > ticket) {
            // This end holds the other, so there is always a next.
            let _ = noted.changed().await;
        }
    }

    /// Who has acknowledged a message of this leadership that was sent after `ticket`.
    pub(crate) fn heard(&self, leadership: LeaderToken, ticket: Ticket) -> Vec<ReplicaId> {
        let latest = self.lock();
        let of_this = latest.sent.iter().filter(|_| latest.leadership == Some(leadership));
        of_this.filter(|(_, sent)| sent.ticket > ticket).map(|(replica, _)| *replica).collect()
    }

    fn has_quorum(
        &self,
        leadership: LeaderToken,
        configs: &[BTreeSet<ReplicaId>],
        counts: impl Fn(&Sent) -> bool,
    ) -> bool {
        let latest = self.lock();
        let acknowledged = |voter: &&ReplicaId| {
            **voter == leadership.replica
                || latest.leadership == Some(leadership)
                    && latest.sent.get(voter).is_some_and(&counts)
        };
        if Plant::LearnerCounted.is_on() {
            let heard: BTreeSet<_> = latest.sent.keys().chain([&leadership.replica]).collect();
            let count = heard.iter().filter(|replica| acknowledged(replica)).count();
            return configs.iter().all(|voters| count > voters.len() / 2);
        }
        !configs.is_empty()
            && configs
                .iter()
                .all(|voters| voters.iter().filter(acknowledged).count() > voters.len() / 2)
    }

    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().expect("nothing panics while it holds this")
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
        let sent = acks.sending();
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
        let early = acks.sending();
        tokio::time::advance(AGE).await;
        acks.note(leadership(1), replica(2), acks.sending());
        acks.note(leadership(1), replica(2), early);
        assert!(acks.are_fresh(leadership(1), &[voters(1..=3)], AGE));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_promised_to_one_leadership_is_nothing_to_another() {
        let acks = Acks::default();
        acks.note(leadership(1), replica(2), acks.sending());
        assert!(!acks.are_fresh(leadership(2), &[voters(1..=3)], AGE));
        acks.note(leadership(2), replica(3), acks.sending());
        acks.note(leadership(1), replica(2), acks.sending());
        assert!(acks.are_fresh(leadership(2), &[voters(1..=3)], AGE));
        assert!(!acks.are_fresh(leadership(1), &[voters(1..=3)], AGE));
    }

    #[tokio::test(start_paused = true)]
    async fn while_voters_change_a_quorum_of_both_configurations_is_needed() {
        let acks = Acks::default();
        acks.note(leadership(1), replica(2), acks.sending());
        let after = [1, 4, 5].map(replica).into();
        assert!(!acks.are_fresh(leadership(1), &[voters(1..=3), after], AGE));
        let after = [1, 2, 5].map(replica).into();
        assert!(acks.are_fresh(leadership(1), &[voters(1..=3), after], AGE));
    }

    /// Time stands still here: a message that was sent before the read began is told from one after all the same.
    #[tokio::test(start_paused = true)]
    async fn a_read_is_confirmed_by_messages_that_were_sent_after_it_began() {
        let acks = Acks::default();
        let before = acks.sending();
        let ticket = acks.ticket();
        let configs = [voters(1..=3)];
        let confirmed = acks.confirmed(leadership(1), &configs, ticket);
        tokio::pin!(confirmed);
        for (voter, sent) in [(2, before), (3, before)] {
            acks.note(leadership(1), replica(voter), sent);
        }
        assert!(acks.heard(leadership(1), ticket).is_empty());
        assert!(futures::poll!(&mut confirmed).is_pending(), "sent before the read began");
        // A learner, and a voter that follows another leadership.
        acks.note(leadership(1), replica(4), acks.sending());
        acks.note(leadership(0), replica(3), acks.sending());
        assert!(futures::poll!(&mut confirmed).is_pending());
        acks.note(leadership(1), replica(3), acks.sending());
        assert!(futures::poll!(&mut confirmed).is_ready());
        assert_eq!(acks.heard(leadership(1), ticket), [replica(3), replica(4)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_of_one_confirms_itself() {
        let acks = Acks::default();
        acks.confirmed(leadership(1), &[voters(1..=1)], acks.ticket()).await;
    }
}

//! Leases across restarts: the executions of pitfall 9, and what a silent node does.
//!
//! In each of them a leader that may still read by lease is cut off, or restarts, while voters that promised
//! it their silence restart. What must never be: a lease that holds on one replica while another one has
//! committed something it does not know of.

mod common;

use std::time::Duration;

use common::{Cluster, written};
use latitude_consensus::{LeaderToken, ReadError};
use latitude_types::NodeId;
use tokio::time::{Instant, sleep};

const WAIT: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(5);

/// What of a lease may be used: a fifth is left for clocks that run differently.
fn age_max(cluster: &Cluster) -> Duration {
    cluster.settings.election_timeout_max * 4 / 5
}

/// A cluster with a leader, node 1, that has leases; a value is everywhere.
async fn with_leases() -> (Cluster, LeaderToken) {
    let (mut cluster, token) = Cluster::led().await;
    cluster.silence = Some(cluster.settings.election_timeout_max * 11 / 10);
    let first = cluster.put(1, token, "k", "1").await.expect("all are up");
    cluster.applied_everywhere(first.at.index).await;
    (cluster, token)
}

/// Whether a node may read by its lease, and from which entry on.
async fn leased(cluster: &Cluster, node: u32) -> Option<u64> {
    match cluster.group(node).lease_index(age_max(cluster)).await {
        Ok(index) => index,
        Err(ReadError::NotLeader(_)) => None,
        Err(error) => panic!("node {node}: {error:?}"),
    }
}

/// What happened while a former leader may have held its lease.
#[derive(Default, Debug)]
struct Watched {
    /// How often the former leader's lease was seen to hold.
    held: usize,
    /// How often nodes asked others for their votes, or told them anything else, meanwhile.
    calls_while_held: usize,
    /// Who led after it, and committed a value.
    successor: Option<u32>,
}

/// Lets whoever comes to lead after node 1 commit a value, and looks at the lease of node 1 all along.
async fn watch_succession(cluster: &Cluster, within: Duration) -> Watched {
    let deadline = Instant::now() + within;
    let calls = || cluster.net.calls(2, 3) + cluster.net.calls(3, 2);
    let before = calls();
    let mut watched = Watched::default();
    let mut newest = 0;
    while Instant::now() < deadline {
        for node in [2, 3] {
            let token = cluster.group(node).leadership().token;
            if let Some(token) = token.filter(|_| watched.successor.is_none())
                && let Ok(appended) = cluster.put(node, token, "k", "2").await
            {
                assert!(written(&appended), "{appended:?}");
                newest = appended.at.index;
                watched.successor = Some(node);
            }
        }
        if let Some(index) = leased(cluster, 1).await {
            assert!(
                index >= newest,
                "node 1 reads at {index} by its lease, and node {:?} has committed {newest}",
                watched.successor
            );
            watched.held += 1;
            watched.calls_while_held = calls() - before;
        }
        sleep(STEP).await;
    }
    watched
}

/// Execution 1: the voter that acknowledged forgets its promise in a restart, and another one, long cut off
/// from the leader, asks it for its vote. Execution 2: the voter that acknowledged restarts and campaigns
/// itself, sooner than its promise would have ended.
async fn a_voter_restarts(voter: u32, other: u32, down_for: Duration) {
    let mut asked = 0;
    for turn in 0..8 {
        let (mut cluster, _) = with_leases().await;
        let lease = cluster.settings.election_timeout_max;
        cluster.net.cut(1, other);
        cluster.net.cut(other, 1);
        // So that the campaigns of the other one fall to other moments each time.
        sleep(2 * lease + turn * lease / 8).await;
        assert!(leased(&cluster, 1).await.is_some(), "one voter acknowledges the leader");
        cluster.net.cut(1, voter);
        cluster.net.cut(voter, 1);
        cluster.crash(voter).await;
        sleep(down_for).await;
        cluster.start(voter).await.expect("its disk is whole");
        let watched = watch_succession(&cluster, 5 * lease).await;
        assert!(watched.held > 0, "the lease outlasts the restart: {watched:?}");
        assert!(watched.successor.is_some(), "two of three elect a leader: {watched:?}");
        asked += watched.calls_while_held;
    }
    assert!(asked > 0, "somebody campaigned while the lease held");
}

#[tokio::test(start_paused = true)]
async fn pitfall_9_1_a_voter_that_restarts_does_not_vote_while_its_forgotten_promise_lasts() {
    a_voter_restarts(2, 3, Duration::from_millis(100)).await;
}

#[tokio::test(start_paused = true)]
async fn pitfall_9_2_a_voter_that_restarts_does_not_campaign_while_its_forgotten_promise_lasts() {
    // The other one's log is behind, so that only the one that restarts can win.
    for turn in 0..8 {
        let (mut cluster, token) = with_leases().await;
        let lease = cluster.settings.election_timeout_max;
        cluster.net.isolate(3);
        cluster.put(1, token, "other", "x").await.expect("two are up");
        sleep(2 * lease + turn * lease / 8).await;
        cluster.net.heal();
        cluster.net.cut(1, 3);
        cluster.net.cut(3, 1);
        cluster.net.cut(1, 2);
        cluster.net.cut(2, 1);
        cluster.crash(2).await;
        cluster.start(2).await.expect("its disk is whole");
        let watched = watch_succession(&cluster, 5 * lease).await;
        assert!(watched.held > 0, "the lease outlasts the restart: {watched:?}");
        assert_eq!(watched.successor, Some(2), "{watched:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pitfall_9_3_a_transfer_that_a_leader_began_before_it_restarted_bypasses_no_lease() {
    let (mut cluster, token) = with_leases().await;
    let lease = cluster.settings.election_timeout_max;
    let begun = Instant::now();
    // The message is long on its way.
    cluster.net.set_delay(lease * 6 / 10);
    cluster.group(1).transfer_leader(NodeId(2)).await.expect("node 2 has everything");
    sleep(Duration::from_millis(1)).await;
    cluster.net.set_delay(Duration::from_millis(5));
    cluster.crash(1).await;
    cluster.start(1).await.expect("its disk is whole");
    sleep(lease / 2).await;
    assert_ne!(cluster.group(1).leadership().token, Some(token), "it does not lead on");
    // What node 2 does then, node 1 does not hear at once.
    cluster.net.cut(2, 1);
    let watched = watch_succession(&cluster, lease / 2).await;
    assert_eq!(watched.successor, Some(2), "the transfer arrived: {watched:?}");
    assert!(begun.elapsed() < 2 * lease);
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_refuses_transfers_and_votes_and_takes_entries_all_the_same() {
    let (mut cluster, token) = with_leases().await;
    cluster.crash(2).await;
    cluster.start(2).await.expect("its disk is whole");
    assert!(cluster.group(2).is_silent());
    let put = cluster.put(1, token, "k", "2").await.expect("a leader needs no silence to end");
    cluster.applied_everywhere(put.at.index).await;
    assert!(cluster.group(2).is_silent());
    assert!(leased(&cluster, 1).await.is_some(), "its acknowledgements count");

    sleep(cluster.silence.expect("it is set")).await;
    assert!(!cluster.group(2).is_silent());
    cluster.group(1).transfer_leader(NodeId(2)).await.expect("node 2 has everything");
    assert_eq!(cluster.leader_other_than(1).await.0, 2, "afterwards it takes over");
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_of_all_nodes_one_leads_again_once_the_silence_is_over() {
    let (mut cluster, _) = with_leases().await;
    for node in 1..=3 {
        cluster.crash(node).await;
    }
    let begun = Instant::now();
    for node in 1..=3 {
        cluster.start(node).await.expect("its disk is whole");
        // Whoever has voted is never asked to campaign at birth.
        cluster.group(node).campaign_at_birth().await;
    }
    let (leader, _) = cluster.leader().await;
    let silence = cluster.silence.expect("it is set");
    assert!(begun.elapsed() >= silence, "{:?}", begun.elapsed());
    assert!(begun.elapsed() < 3 * silence, "{:?}", begun.elapsed());
    cluster.group(leader).read_index(WAIT).await.expect("all are up");
}

#[tokio::test(start_paused = true)]
async fn a_range_whose_replicas_never_voted_is_led_at_once_even_in_a_silence() {
    let mut cluster = Cluster::new().await;
    cluster.silence = Some(Duration::from_secs(60));
    for node in 1..=3 {
        cluster.shut_down(node).await;
        cluster.start(node).await.expect("its disk is whole");
    }
    cluster.group(1).campaign_at_birth().await;
    let begun = Instant::now();
    cluster.leader().await;
    assert!(begun.elapsed() < cluster.settings.election_timeout_min);
}

#[tokio::test(start_paused = true)]
async fn a_lease_needs_no_message_and_ends_with_the_acknowledgements() {
    let (cluster, token) = with_leases().await;
    let calls = || cluster.net.calls(1, 2) + cluster.net.calls(1, 3);
    let before = calls();
    let index = leased(&cluster, 1).await.expect("it has just been acknowledged");
    assert_eq!(calls(), before);
    assert_eq!(index, 2);
    assert_eq!(leased(&cluster, 2).await, None, "a follower has none");
    assert_eq!(cluster.group(1).lease_index(Duration::ZERO).await, Ok(None));
    cluster.net.isolate(1);
    let cut = Instant::now();
    while leased(&cluster, 1).await.is_some() {
        sleep(STEP).await;
    }
    let held = cut.elapsed();
    assert!(held <= age_max(&cluster), "{held:?}");
    assert!(held >= age_max(&cluster) - 2 * cluster.settings.heartbeat_interval, "{held:?}");
    assert_eq!(cluster.group(1).leadership().token, Some(token), "it still thinks that it leads");
}

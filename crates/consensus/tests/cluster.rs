//! What three replicas do together: elections, proposals, reads, transfers, cuts.

mod common;

use std::time::Duration;

use common::{Cluster, RANGE, replica, written};
use latitude_consensus::{
    DispatchError, LeaderToken, LogPosition, ProposeError, ReadError, TransferError,
};
use latitude_types::{Generation, NodeId, RangeId};

use tokio::time::Instant;

const WAIT: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_range_whose_replicas_are_born_alike_elects_at_once_and_takes_writes() {
    let begun = Instant::now();
    let (cluster, token) = Cluster::led().await;
    assert!(
        begun.elapsed() < cluster.settings.election_timeout_min,
        "nobody waits out an election timeout: {:?}",
        begun.elapsed()
    );
    assert_eq!(token, LeaderToken { term: 1, replica: replica(1) });
    let appended = cluster.put(1, token, "k", "v").await.expect("all are up");
    assert!(written(&appended), "{appended:?}");
    assert_eq!(appended.at, LogPosition { term: 1, index: 2 }, "after the birth and the election");
    let read = cluster.group(1).read_index(WAIT).await.expect("all are up");
    assert_eq!(read, 2);
    cluster.applied_everywhere(read).await;
    for node in 1..=3 {
        assert_eq!(cluster.value(node, "k").as_deref(), Some("v"), "node {node}");
        let leadership = cluster.group(node).leadership();
        assert_eq!((leadership.term, leadership.leader), (1, Some(replica(1))));
        assert_eq!(leadership.token.is_some(), node == 1);
        assert_eq!(cluster.group(node).voters(), (1..=3).map(replica).collect());
        assert_eq!(cluster.group(node).applied_position().0, appended.at);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_campaign_at_birth_an_election_timeout_makes_a_leader() {
    let cluster = Cluster::new().await;
    let (leader, token) = cluster.leader().await;
    cluster.group(leader).read_index(WAIT).await.expect("all are up");
    assert!(written(&cluster.put(leader, token, "k", "v").await.expect("all are up")));
}

#[tokio::test(start_paused = true)]
async fn a_campaign_at_birth_of_one_that_missed_the_election_deposes_nobody() {
    let cluster = Cluster::new().await;
    // Node 3 hears nothing, but is heard.
    cluster.net.cut(1, 3);
    cluster.net.cut(2, 3);
    cluster.group(1).campaign_at_birth().await;
    let (_, token) = cluster.leader().await;
    cluster.group(1).read_index(WAIT).await.expect("a quorum is up");
    assert_eq!(cluster.group(3).leadership().term, 0, "it knows of no vote");
    cluster.group(3).campaign_at_birth().await;
    tokio::time::sleep(cluster.settings.heartbeat_interval).await;
    cluster.net.heal();
    tokio::time::sleep(4 * cluster.settings.election_timeout_max).await;
    assert_eq!(cluster.group(1).leadership().token, Some(token), "the leader is still the same");
    assert_eq!(cluster.group(3).leadership().leader, Some(replica(1)));
}

#[tokio::test(start_paused = true)]
async fn a_proposal_under_an_earlier_leadership_is_refused_and_never_appended() {
    let (cluster, first) = Cluster::led().await;
    cluster.put(1, first, "k", "first").await.expect("all are up");
    cluster.applied_everywhere(2).await;
    cluster.group(1).transfer_leader(NodeId(2)).await.expect("node 2 has everything");
    let (leader, second) = cluster.leader_other_than(1).await;
    assert_eq!((leader, second.replica), (2, replica(2)));
    assert!(second.term > first.term);
    let refused = cluster.put(1, first, "k", "stale").await;
    assert!(matches!(refused, Err(ProposeError::NotLeader(_))), "{refused:?}");

    // And so it is when the same replica leads again.
    let read = cluster.group(2).read_index(WAIT).await.expect("all are up");
    cluster.applied_everywhere(read).await;
    transfer_when_caught_up(&cluster, 2, 1).await;
    let (leader, third) = cluster.leader_other_than(2).await;
    assert_eq!(leader, 1);
    cluster.group(1).read_index(WAIT).await.expect("all are up");
    let before = cluster.group(1).status().last_index;
    let refused = cluster.put(1, first, "k", "stale").await;
    assert_eq!(refused, Err(ProposeError::NotLeader(Some(replica(1)))));
    let appended = cluster.put(1, third, "other", "x").await.expect("all are up");
    assert_eq!(appended.at.index, before + 1, "the refused one took no place in the log");
    cluster.applied_everywhere(before + 1).await;
    for node in 1..=3 {
        assert_eq!(cluster.value(node, "k").as_deref(), Some("first"), "node {node}");
    }
}

async fn transfer_when_caught_up(cluster: &Cluster, from: u32, to: u32) {
    let group = cluster.group(from);
    cluster
        .wait("the target has caught up", || {
            group.status().caught_up.contains(&replica(to)).then_some(())
        })
        .await;
    group.transfer_leader(NodeId(to)).await.expect("it has everything");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_refuses_proposals_until_a_quorum_has_answered_it() {
    let cluster = Cluster::with_delay(Duration::from_millis(100)).await;
    cluster.group(1).campaign_at_birth().await;
    let (_, token) = cluster.leader().await;
    assert_eq!(cluster.put(1, token, "k", "early").await, Err(ProposeError::NoQuorum));
    assert_eq!(cluster.group(1).status().silent_voters(), [], "nobody had the time to answer");
    let read = cluster.group(1).read_index(WAIT).await.expect("all are up");
    assert_eq!(read, 1, "its own first entry");
    let appended = cluster.put(1, token, "k", "v").await.expect("all are up");
    assert_eq!(appended.at.index, 2, "the refused one took no place in the log");
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_confirms_nothing_and_its_successor_decides() {
    let (cluster, token) = Cluster::led().await;
    cluster.put(1, token, "k", "before").await.expect("all are up");
    cluster.net.isolate(1);
    // Taken, since the last answers are still fresh; but nobody can confirm it.
    let (_, entry) = cluster.entry("k", "cut off");
    let pending = cluster.group(1).propose(token, entry).await.expect("it leads");
    let mut pending = Box::pin(pending);
    assert!(futures::poll!(&mut pending).is_pending());
    let read = cluster.group(1).read_index(WAIT).await;
    assert_eq!(read, Err(ReadError::NoQuorum { heard: vec![] }));

    tokio::time::sleep(cluster.settings.election_timeout_max).await;
    let refused = cluster.put(1, token, "k", "too late").await;
    assert!(
        matches!(refused, Err(ProposeError::NoQuorum | ProposeError::NotLeader(_))),
        "{refused:?}"
    );
    let (leader, successor) = cluster.leader_other_than(1).await;
    cluster.group(leader).read_index(WAIT).await.expect("two are up");
    assert!(written(&cluster.put(leader, successor, "k", "after").await.expect("two are up")));
    assert!(futures::poll!(&mut pending).is_pending());
    assert_eq!(cluster.value(1, "k").as_deref(), Some("before"));

    cluster.net.heal();
    assert_eq!(pending.await, Err(ProposeError::Unknown));
    let read = cluster.group(leader).read_index(WAIT).await.expect("all are up");
    cluster.applied_everywhere(read).await;
    for node in 1..=3 {
        assert_eq!(cluster.value(node, "k").as_deref(), Some("after"), "node {node}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_answers_any_more_says_so_at_once() {
    let (cluster, token) = Cluster::led().await;
    // Heard by nobody, so that no election deposes it; the others' votes do not reach it either.
    cluster.net.isolate(1);
    tokio::time::sleep(cluster.settings.election_timeout_max).await;
    assert_eq!(cluster.group(1).leadership().token, Some(token));
    let asked = Instant::now();
    assert_eq!(cluster.put(1, token, "k", "v").await, Err(ProposeError::NoQuorum));
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!(cluster.group(1).status().silent_voters(), [NodeId(2), NodeId(3)]);
}

#[tokio::test(start_paused = true)]
async fn reads_and_proposals_at_a_follower_name_the_leader() {
    let (cluster, token) = Cluster::led().await;
    cluster.applied_everywhere(1).await;
    let there = Some(replica(1));
    assert_eq!(cluster.group(2).read_index(WAIT).await, Err(ReadError::NotLeader(there)));
    let stolen = LeaderToken { replica: replica(2), ..token };
    for token in [token, stolen] {
        let refused = cluster.put(2, token, "k", "v").await;
        assert_eq!(refused, Err(ProposeError::NotLeader(there)));
    }
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over_to_a_voter_that_has_everything_and_to_no_other() {
    let (cluster, token) = Cluster::led().await;
    let group = cluster.group(1);
    cluster.applied_everywhere(1).await;
    let follower = cluster.group(2).transfer_leader(NodeId(2)).await;
    assert_eq!(follower, Err(TransferError::NotLeader));
    let stranger = group.transfer_leader(NodeId(9)).await;
    assert_eq!(stranger, Err(TransferError::NotVoter(NodeId(9))));
    assert_eq!(group.transfer_leader(NodeId(1)).await, Ok(()), "it leads already");
    cluster.net.cut(1, 3);
    cluster.put(1, token, "k", "v").await.expect("two are up");
    assert_eq!(group.transfer_leader(NodeId(3)).await, Err(TransferError::Behind(NodeId(3))));
    assert_eq!(group.leadership().token, Some(token), "a refused transfer changes nothing");

    transfer_when_caught_up(&cluster, 1, 2).await;
    let begun = Instant::now();
    let (leader, token) = cluster.leader_other_than(1).await;
    assert_eq!(leader, 2);
    assert!(
        begun.elapsed() < cluster.settings.election_timeout_min,
        "nobody waits out an election timeout: {:?}",
        begun.elapsed()
    );
    cluster.net.heal();
    cluster.group(2).read_index(WAIT).await.expect("all are up");
    assert!(written(&cluster.put(2, token, "k", "w").await.expect("all are up")));
}

/// Found by a simulated run (a leader hands over while connections break, and clients read all along): the
/// messages that confirmed the leader for its reads kept the others from electing, for as long as there were
/// reads.
#[tokio::test(start_paused = true)]
async fn a_transfer_that_is_lost_costs_an_election_however_much_is_read_meanwhile() {
    let (cluster, token) = Cluster::led().await;
    let group = cluster.group(1);
    cluster.put(1, token, "k", "before").await.expect("all are up");
    cluster
        .wait("all have everything", || {
            group.status().caught_up.contains(&replica(3)).then_some(())
        })
        .await;
    cluster.net.cut(1, 3);
    group.transfer_leader(NodeId(3)).await.expect("it had everything when it was last heard");
    let patience = Instant::now() + 4 * cluster.settings.election_timeout_max;
    while group.leadership().leader == Some(replica(1)) {
        assert!(Instant::now() < patience, "nobody else was elected");
        let read = group.read_index(cluster.settings.heartbeat_interval).await;
        assert!(matches!(read, Err(ReadError::NotLeader(_))), "{read:?}");
        tokio::time::sleep(cluster.settings.heartbeat_interval / 2).await;
    }
    let (leader, successor) = cluster.leader_other_than(1).await;
    cluster.group(leader).read_index(WAIT).await.expect("it hears a quorum");
    assert!(written(&cluster.put(leader, successor, "k", "after").await.expect("two are up")));
}

#[tokio::test(start_paused = true)]
async fn a_caught_up_voter_that_has_fallen_silent_is_handed_nothing() {
    let (cluster, _) = Cluster::led().await;
    let group = cluster.group(1);
    cluster.wait("all are caught up", || (group.status().caught_up.len() == 3).then_some(())).await;
    cluster.net.cut(1, 3);
    tokio::time::sleep(4 * cluster.settings.heartbeat_interval).await;
    let status = group.status();
    assert!(status.caught_up.contains(&replica(3)), "nothing was written meanwhile");
    assert_eq!(status.silent_voters(), [NodeId(3)]);
    assert_eq!(group.transfer_leader(NodeId(3)).await, Err(TransferError::Behind(NodeId(3))));
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_never_answered_is_silent_once_it_had_the_time_to() {
    let cluster = Cluster::new().await;
    cluster.net.isolate(3);
    cluster.group(1).campaign_at_birth().await;
    cluster.leader().await;
    assert_eq!(cluster.group(1).status().silent_voters(), []);
    tokio::time::sleep(3 * cluster.settings.heartbeat_interval).await;
    assert_eq!(cluster.group(1).status().silent_voters(), [NodeId(3)]);
    cluster.net.heal();
    tokio::time::sleep(3 * cluster.settings.heartbeat_interval).await;
    assert_eq!(cluster.group(1).status().silent_voters(), []);
}

#[tokio::test(start_paused = true)]
async fn a_message_for_another_replica_than_the_one_here_is_refused() {
    let (cluster, _) = Cluster::led().await;
    let registry = &cluster.node(2).registry;
    for (range, generation) in
        [(RANGE, Generation(0)), (RANGE, Generation(2)), (RangeId(8), Generation(1))]
    {
        let refused = registry.dispatch(range, generation, b"anything").err();
        assert_eq!(refused, Some(DispatchError::NotHere(range, generation)));
    }
    let garbage = registry.dispatch(RANGE, Generation(1), b"anything").err();
    assert!(matches!(garbage, Some(DispatchError::Failed(_))), "{garbage:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_peer_costs_a_few_messages_a_second_busy_or_idle() {
    let (mut cluster, token) = Cluster::led().await;
    cluster.applied_everywhere(1).await;
    cluster.crash(3).await;
    // No connection: every call fails at once, which makes a loop without a pause the fastest.
    cluster.net.cut(1, 3);
    let minute = Duration::from_secs(60);
    // A heartbeat and a replication attempt per interval, and half as many again.
    let bound =
        3 * minute.as_millis() as usize / cluster.settings.heartbeat_interval.as_millis() as usize;
    for busy in [false, true] {
        let before = cluster.net.calls(1, 3);
        let begun = Instant::now();
        while begun.elapsed() < minute {
            if busy {
                cluster.put(1, token, "k", "v").await.expect("two are up");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let calls = cluster.net.calls(1, 3) - before;
        assert!(calls > 0, "it is not forgotten either");
        assert!(
            calls <= bound,
            "{calls} calls in a minute, busy: {busy}; at most {bound} expected"
        );
    }
    assert_eq!(cluster.group(1).leadership().token, Some(token));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_missed_more_than_a_request_carries_catches_up() {
    let (cluster, token) = Cluster::led().await;
    cluster.net.isolate(3);
    let large = "x".repeat(300 << 10);
    for i in 0..12 {
        cluster.put(1, token, &format!("k{i}"), &large).await.expect("two are up");
    }
    cluster.net.heal();
    let read = cluster.group(1).read_index(WAIT).await.expect("all are up");
    cluster.applied_everywhere(read).await;
    for i in 0..12 {
        assert_eq!(cluster.value(3, &format!("k{i}")).as_ref(), Some(&large), "k{i}");
    }
}

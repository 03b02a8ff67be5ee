//! What three replicas do together: elections, proposals, reads, transfers, cuts.

mod common;

use std::time::Duration;

use common::{Cluster, replica, written};
use latitude_consensus::{LeaderToken, LogPosition};

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

//! What every node shows and no log has: sessions need not say that they have seen it, and operations on the log must
//! not be done without it all the same.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use latitude_client::wire::command::Operation;
use latitude_client::{Level, NodeId, Session, wire};
use latitude_sim::cluster::Pending;
use latitude_sim::{ClientHost, Cluster, Layout};
use tokio::time::sleep;

use crate::common::{WITHIN, run_near};
use crate::world::{command, decoded, new_id};

const COUNTERS: &str = "counters";
const KEY: &str = "k";
const REGIONS: [&str; 4] = ["ap", "eu", "us", "sa"];
/// They are to hear nobody but the learner, which hears all of them and has no vote.
const VOTERS: [u32; 3] = [1, 2, 3];
const LEARNER: u32 = 4;

/// Three voters that are no quorum, because they hear only the learner: it takes writes, and every node shows them.
fn cluster(seed: u64) -> Cluster {
    let regions = REGIONS.map(String::from).to_vec();
    let mut cluster = Cluster::new(Layout { nodes: 4, regions, ..Layout::small(seed) });
    cluster.init().unwrap();
    let one = |region: &str| wire::RegionReplicas { region: region.into(), replicas: 1 };
    let request = wire::CreateKeyspaceRequest {
        name: COUNTERS.into(),
        r#type: wire::ValueType::Counter as i32,
        place: vec![one("ap"), one("eu"), one("us")],
        learners: vec![one("sa")],
        ..wire::CreateKeyspaceRequest::default()
    };
    let created = cluster.run_client(WITHIN, |host| async move {
        host.client.admin().create_keyspace(request).await
    });
    created.unwrap().unwrap();
    cluster.run_for(Duration::from_secs(5)).unwrap();
    run_near(&mut cluster, 1, |host| async move {
        host.client.keyspace(COUNTERS).with_level(Level::Strict).add(KEY, 100).await?;
        Ok(())
    });
    cluster.run_for(Duration::from_secs(2)).unwrap();
    for (a, b) in [(1, 2), (2, 3), (1, 3)] {
        cluster.partition(a, b);
    }
    cluster.run_for(Duration::from_secs(3)).unwrap();
    cluster
}

/// A session that has added 5 at the learner, then read 105 at a voter once everybody shows it; and one that has read it
/// only. Their tokens as they are then.
fn sessions(cluster: &mut Cluster) -> (String, String) {
    let wrote = run_near(cluster, LEARNER, |host| async move {
        let session = Session::new();
        let near = host.client.keyspace(COUNTERS).with_session(session.clone());
        near.with_level(Level::Causal).add(KEY, 5).await?;
        session.token().context("it has written")
    });
    assert_eq!(decoded(&wrote).1.past().seen.by_node.len(), 1, "nobody else can show it yet");
    // Followers tell what they show every second.
    cluster.run_for(Duration::from_secs(6)).unwrap();
    let read = |token: Option<String>| {
        move |host: ClientHost| {
            let token = token.clone();
            async move {
                let session = token.as_deref().map_or(Ok(Session::new()), Session::from_token)?;
                let near = host.client.keyspace(COUNTERS).with_session(session.clone());
                let sum = near.with_level(Level::Causal).counter(KEY).await?.value;
                ensure!(sum == 105, "{sum}");
                session.token().context("it has read")
            }
        }
    };
    (run_near(cluster, 1, read(Some(wrote))), run_near(cluster, 2, read(None)))
}

/// Asks the voter near by, without a pause, until it does it or another one has.
async fn insist(
    host: ClientHost,
    operation: Operation,
    token: String,
    done: Rc<Cell<bool>>,
) -> Result<Option<wire::Reply>> {
    let mut regions = VOTERS.into_iter().zip(REGIONS);
    let Some((node, _)) = regions.find(|(_, region)| host.region == *region) else {
        return Ok(None);
    };
    let id = (!matches!(operation, Operation::Get(_))).then(|| new_id(&host, 1));
    let command = command(COUNTERS, Level::Strict, operation);
    let token = decoded(&token).0.into();
    let command = wire::Command { id, token, timeout_ms: 300, ..command };
    while !done.get() {
        match host.send(node, command.clone()).await {
            Ok(reply) => {
                done.set(true);
                return Ok(Some(reply));
            }
            Err(error) if error.is_retryable() => sleep(Duration::from_millis(1)).await,
            Err(error) => bail!("{error}"),
        }
    }
    Ok(None)
}

/// Lets everybody hear everybody, while a client near each voter insists on an operation: what the first was told whom a
/// leader served.
fn heal_meanwhile(cluster: &mut Cluster, operation: &Operation, token: &str) -> wire::Reply {
    let done = Rc::new(Cell::new(false));
    // One in each region.
    let running: Vec<_> = REGIONS
        .iter()
        .map(|_| {
            let (operation, token, done) = (operation.clone(), token.into(), Rc::clone(&done));
            cluster.start_client(WITHIN, |host| insist(host, operation, token, done))
        })
        .collect();
    cluster.run_for(Duration::from_secs(1)).unwrap();
    assert!(!done.get(), "there is no quorum");
    cluster.heal();
    let deadline = cluster.now() + WITHIN;
    while !running.iter().all(Pending::is_ready) {
        assert!(cluster.now() < deadline, "nobody does it");
        cluster.step().unwrap();
    }
    running.into_iter().find_map(|client| client.take().unwrap().unwrap()).unwrap()
}

/// Pitfall B1: every node shows the write, so tokens do not say any more that it was seen. That the session made it they
/// go on saying, because held everywhere is not folded: the first strict read that anybody serves has it.
#[test]
fn a_session_goes_on_naming_its_own_write_although_every_node_shows_it() {
    for seed in [78, 79] {
        let mut cluster = cluster(seed);
        let (token, _) = sessions(&mut cluster);
        let read = decoded(&token).1;
        assert_eq!(read.past().seen.by_node, [], "every node shows it: {read:?}");
        let own: Vec<_> = read.own().by_node.iter().map(|(node, _)| *node).collect();
        assert_eq!(own, [NodeId(LEARNER)], "no log has it: {read:?}");
        let get = Operation::Get(wire::Get { key: KEY.as_bytes().into() });
        let reply = heal_meanwhile(&mut cluster, &get, &token);
        let Some(wire::reply::Result::Get(got)) = reply.result else { panic!("{reply:?}") };
        let sum = got.typed.and_then(|of| of.value);
        assert_eq!(sum, Some(wire::typed_value::Value::Counter(105)), "seed {seed}");
    }
}

/// Pitfalls B9 and B1: a reset ends all its session saw, also what its token need not name any more.
#[test]
fn a_reset_ends_also_what_its_session_need_not_say_that_it_saw() {
    for seed in [82, 83] {
        let mut cluster = cluster(seed);
        let (_, token) = sessions(&mut cluster);
        let read = decoded(&token).1;
        assert_eq!(read.past().seen.by_node, [], "every node shows it: {read:?}");
        assert_eq!(read.own().by_node, [], "it is not its own: {read:?}");
        let key = KEY.as_bytes().into();
        let reset = Operation::CounterReset(wire::CounterReset { key });
        heal_meanwhile(&mut cluster, &reset, &token);
        cluster.run_for(Duration::from_secs(5)).unwrap();
        for node in 1..=LEARNER {
            run_near(&mut cluster, node, move |host| async move {
                for level in Level::ALL {
                    let counters = host.client.keyspace(COUNTERS).with_level(level);
                    let sum = counters.counter(KEY).await?.value;
                    ensure!(sum == 0, "seed {seed}: {sum} {level} at {node}");
                }
                Ok(())
            });
        }
    }
}

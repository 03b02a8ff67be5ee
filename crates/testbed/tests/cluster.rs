//! Clusters of a program that has Latitude's command line: started, hurt, healed and explained.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use latitude_testbed::{AP, Cluster, ClusterBuilder, EU, RoundTrips, US};

const LONG: Duration = Duration::from_secs(120);

fn builder(dir: &Path) -> ClusterBuilder {
    let short = RoundTrips::default()
        .with(EU, US, Duration::from_millis(4))
        .with(US, AP, Duration::from_millis(6))
        .with(EU, AP, Duration::from_millis(8));
    ClusterBuilder::new(env!("CARGO_BIN_EXE_latitude-testbed-stand-in"), dir.join("cluster"))
        .wan(short)
}

/// A shell script to run as `latitude`.
fn script(dir: &Path, text: &str) -> PathBuf {
    let (source, program) = (dir.join("latitude.sh"), dir.join("latitude"));
    fs::write(&source, format!("#!/bin/sh\n{text}\n")).unwrap();
    // Another process makes the program: were it open for writing in this one, a process started by
    // another test might inherit it so, and it could not be run until that test's process runs.
    let mut install = Command::new("install");
    assert!(install.arg("-m755").args([&source, &program]).status().unwrap().success());
    program
}

async fn is_live(cluster: &Cluster) -> bool {
    cluster.live_within(Duration::ZERO).await.is_ok()
}

#[tokio::test]
async fn a_cluster_starts_with_a_node_in_each_region_behind_links() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path()).flags(["--log-format", "json"]).start().await.unwrap();
    let regions: Vec<_> = cluster.nodes().iter().map(|node| node.region()).collect();
    assert_eq!(regions, [EU, US, AP]);

    let args = fs::read_to_string(cluster.node(1).store().join("args")).unwrap();
    let seen_from = |region| cluster.client_addresses(region)[1].to_string();
    assert!(args.contains(&format!("--advertise-from\neu={}\n", seen_from(EU))), "{args}");
    assert!(args.contains(&format!("--advertise-from\nap={}\n", seen_from(AP))), "{args}");
    assert!(args.contains(&format!("--advertise\n{}\n", seen_from(US))), "{args}");
    let join: Vec<_> = cluster.client_addresses(US).iter().map(ToString::to_string).collect();
    assert!(args.contains(&format!("--join\n{}\n", join.join(","))), "{args}");
    assert!(args.ends_with("--log-format\njson"), "{args}");

    assert_eq!(cluster.client_addresses(US)[1], cluster.node(1).address());
    assert_ne!(cluster.client_addresses(EU)[1], cluster.node(1).address());
    assert!(cluster.node(1).log_tail(1).contains("listening"));
}

#[tokio::test]
async fn without_a_wan_every_node_is_reached_directly() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path()).nodes_in(&[EU, EU]).without_wan().start().await.unwrap();
    let direct: Vec<_> = cluster.nodes().iter().map(|node| node.address()).collect();
    assert_eq!(cluster.client_addresses(US), direct);
    assert!(cluster.wan().is_none());
    let args = fs::read_to_string(cluster.node(0).store().join("args")).unwrap();
    assert!(!args.contains("--advertise-from"), "{args}");
}

#[tokio::test]
async fn a_killed_node_is_missed_until_it_restarts_on_its_store_and_address() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path()).start().await.unwrap();
    let node = cluster.node(2);
    let (first, address) = (node.pid().await.unwrap(), node.address());
    node.kill9().await.unwrap();
    assert_eq!(node.pid().await, None);
    assert!(!is_live(&cluster).await);
    assert!(node.pause().await.is_err());

    node.restart(LONG).await.unwrap();
    cluster.live_within(LONG).await.unwrap();
    assert_ne!(node.pid().await.unwrap(), first);
    assert_eq!(node.address(), address);
    assert!(node.start().await.is_err(), "a running node is not started twice");
}

#[tokio::test]
async fn a_paused_node_is_missed_until_it_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path()).start().await.unwrap();
    cluster.node(1).pause().await.unwrap();
    assert!(!is_live(&cluster).await);
    cluster.node(1).resume().await.unwrap();
    cluster.live_within(LONG).await.unwrap();
}

#[tokio::test]
async fn a_terminated_node_tells_its_exit_status_and_can_be_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path()).start().await.unwrap();
    let ended = cluster.node(0).terminate(LONG).await.unwrap();
    assert!(!ended.success());
    assert!(cluster.node(0).terminate(LONG).await.is_err());
    cluster.node(0).start().await.unwrap();
    cluster.live_within(LONG).await.unwrap();
}

#[tokio::test]
async fn a_partition_is_seen_by_the_nodes_until_it_heals() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path()).start().await.unwrap();
    let wan = cluster.wan().unwrap();
    wan.partition(&[EU], &[US, AP]);
    let error = format!("{:#}", cluster.live_within(Duration::ZERO).await.unwrap_err());
    assert!(error.contains("n1") && error.contains("1 of 3 nodes are live"), "{error}");
    assert!(error.contains("listening on"), "the log's end is missing: {error}");
    wan.heal_all();
    cluster.live_within(LONG).await.unwrap();
}

#[tokio::test]
async fn dropping_a_cluster_kills_its_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path()).start().await.unwrap();
    let addresses: Vec<_> = cluster.nodes().iter().map(|node| node.address()).collect();
    drop(cluster);
    for address in addresses {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_node_that_ends_at_once_is_explained_by_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let latitude = script(dir.path(), "echo the disk is on fire >&2; exit 9");
    let started = ClusterBuilder::new(latitude, dir.path().join("cluster")).start().await;
    let error = format!("{:#}", started.unwrap_err());
    assert!(error.contains("n1") && error.contains("exit status: 9"), "{error}");
    assert!(error.contains("the disk is on fire"), "{error}");
}

#[tokio::test]
async fn a_failed_init_is_explained_by_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let stand_in = env!("CARGO_BIN_EXE_latitude-testbed-stand-in");
    let text = format!(
        "if [ $1 = init ]; then echo no quorum of moons >&2; exit 1; fi; exec {stand_in} \"$@\""
    );
    let latitude = script(dir.path(), &text);
    let started = ClusterBuilder::new(latitude, dir.path().join("cluster")).start().await;
    let error = format!("{:#}", started.unwrap_err());
    assert!(error.contains("no quorum of moons"), "{error}");
}

#[tokio::test]
async fn a_store_that_exists_is_never_started_on_as_a_new_cluster() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("cluster/n2")).unwrap();
    let error = format!("{:#}", builder(dir.path()).start().await.unwrap_err());
    assert!(error.contains("n2"), "{error}");
}

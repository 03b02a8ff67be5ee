//! The wide-area network: distances and partitions between regions, each a server that echoes.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use std::net::SocketAddr;
use std::time::Duration;

use latitude_testbed::{AP, EU, RoundTrips, US, Wan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Long enough for bytes that may pass to show themselves on an idle machine.
const A_WHILE: Duration = Duration::from_millis(100);

/// Nodes in eu, us, ap, us, each an echo server, and the network between them.
async fn open() -> (Wan, Vec<SocketAddr>) {
    let mut nodes = Vec::new();
    for region in [EU, US, AP, US] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        nodes.push((region.to_owned(), listener.local_addr().unwrap()));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
    }
    let addresses = nodes.iter().map(|(_, address)| *address).collect();
    let round_trips = RoundTrips::default()
        .with(EU, US, Duration::from_millis(8))
        .with(AP, US, Duration::from_millis(14))
        .with(EU, AP, Duration::from_millis(22));
    (Wan::open(&nodes, &round_trips, 7).await.unwrap(), addresses)
}

async fn dial(wan: &Wan, viewer: &str, target: usize) -> TcpStream {
    let mut stream = TcpStream::connect(wan.address_of(target, viewer)).await.unwrap();
    answers(&mut stream).await;
    stream
}

async fn answers(stream: &mut TcpStream) {
    stream.write_all(b"?").await.unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"?");
}

/// Asks, and hears nothing for a while; the question stays under way.
async fn hangs(stream: &mut TcpStream) {
    stream.write_all(b"?").await.unwrap();
    assert!(timeout(A_WHILE, stream.read(&mut [0])).await.is_err(), "it answered");
}

async fn hears(stream: &mut TcpStream) {
    let mut answer = [0];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"?");
}

#[test]
fn published_round_trips_are_the_same_from_both_sides() {
    let published = RoundTrips::published();
    for (a, b, millis) in [(EU, US, 80), (US, AP, 150), (EU, AP, 220), (US, US, 0), ("x", EU, 0)] {
        assert_eq!(published.between(a, b), Duration::from_millis(millis));
        assert_eq!(published.between(b, a), Duration::from_millis(millis));
    }
}

#[tokio::test]
async fn a_region_reaches_its_own_nodes_directly_and_others_at_their_distance() {
    let (wan, addresses) = open().await;
    assert_eq!(wan.regions(), [AP, EU, US]);
    for (viewer, direct) in [(EU, vec![0]), (US, vec![1, 3]), (AP, vec![2])] {
        for (target, address) in addresses.iter().enumerate() {
            let is_direct = wan.address_of(target, viewer) == *address;
            assert_eq!(is_direct, direct.contains(&target), "{viewer} to {target}");
            assert_eq!(wan.link(viewer, target).is_none(), is_direct);
        }
    }
    for (viewer, target, millis) in [(EU, 1, 8), (US, 0, 8), (US, 2, 14), (AP, 0, 22)] {
        let mut stream = dial(&wan, viewer, target).await;
        let began = Instant::now();
        answers(&mut stream).await;
        assert!(began.elapsed() >= Duration::from_millis(millis), "{viewer} to {target}");
    }
}

#[tokio::test]
async fn a_partition_parts_two_groups_whoever_dialled_and_heals() {
    let (wan, _) = open().await;
    let mut across = [
        dial(&wan, EU, 1).await,
        dial(&wan, EU, 2).await,
        dial(&wan, US, 0).await,
        dial(&wan, AP, 0).await,
    ];
    let mut within = [dial(&wan, EU, 0).await, dial(&wan, US, 2).await, dial(&wan, AP, 3).await];
    wan.partition(&[EU], &[US, AP]);
    for stream in &mut across {
        hangs(stream).await;
    }
    for stream in &mut within {
        answers(stream).await;
    }
    wan.heal_all();
    for stream in &mut across {
        hears(stream).await;
    }
}

#[tokio::test]
async fn an_isolated_region_is_parted_from_all_others() {
    let (wan, _) = open().await;
    let mut across = [dial(&wan, AP, 0).await, dial(&wan, US, 2).await];
    let mut within = dial(&wan, EU, 3).await;
    wan.isolate(AP);
    for stream in &mut across {
        hangs(stream).await;
    }
    answers(&mut within).await;
    wan.heal(AP, EU);
    hears(&mut across[0]).await;
    wan.heal(AP, US);
    hears(&mut across[1]).await;
}

#[tokio::test]
async fn a_one_way_cut_stops_requests_from_one_side_and_replies_to_the_other() {
    let (wan, _) = open().await;
    let (mut from_eu, mut from_us) = (dial(&wan, EU, 1).await, dial(&wan, US, 0).await);
    let mut elsewhere = [dial(&wan, EU, 2).await, dial(&wan, US, 2).await];
    wan.cut_one_way(EU, US);
    hangs(&mut from_eu).await;
    hangs(&mut from_us).await;
    let (eu_us, us_eu) = (wan.link(EU, 1).unwrap(), wan.link(US, 0).unwrap());
    // The question from eu never arrived; the one from us did, and its answer did not.
    assert_eq!(eu_us.counts().forth.delivered, 1);
    assert_eq!(us_eu.counts().forth.delivered, 2);
    assert_eq!(us_eu.counts().back.delivered, 1);
    assert!(!eu_us.back().is_cut() && !us_eu.forth().is_cut());
    for stream in &mut elsewhere {
        answers(stream).await;
    }
    wan.heal_all();
    hears(&mut from_eu).await;
    hears(&mut from_us).await;
}

#[tokio::test]
async fn distances_change_and_connections_reset_between_two_regions_only() {
    let (wan, _) = open().await;
    let (mut near, mut other) = (dial(&wan, US, 0).await, dial(&wan, EU, 2).await);
    wan.set_round_trip(EU, US, Duration::from_millis(40));
    let began = Instant::now();
    answers(&mut near).await;
    assert!(began.elapsed() >= Duration::from_millis(40));
    wan.reset(EU, US);
    assert!(near.read(&mut [0]).await.is_err());
    answers(&mut other).await;
}

#[tokio::test]
#[should_panic(expected = "there is no region mars")]
async fn a_region_nobody_is_in_cannot_be_cut() {
    open().await.0.partition(&[EU], &["mars"]);
}

//! Links: bytes keep their order and content, take their time, and stop, wait or break as told.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use std::io::ErrorKind;
use std::num::NonZeroU64;
use std::time::Duration;

use latitude_testbed::{Link, LinkOptions};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Long enough for bytes that may pass to show themselves on an idle machine.
const A_WHILE: Duration = Duration::from_millis(100);

/// A server that sends every connection's bytes back, and then its end.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await?;
                to.shutdown().await
            });
        }
    });
    address
}

async fn link_to_echo() -> Link {
    Link::open(LinkOptions::to(echo().await)).await.unwrap()
}

/// A link to a listener that the test accepts from.
async fn link_to_listener() -> (Link, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = Link::open(LinkOptions::to(listener.local_addr().unwrap())).await.unwrap();
    (link, listener)
}

async fn dial(link: &Link) -> TcpStream {
    TcpStream::connect(link.address()).await.unwrap()
}

async fn round_trip(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    expect(stream, bytes).await;
}

async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(read, bytes);
}

/// Nothing can be read for a while.
async fn expect_silence(stream: &mut TcpStream) {
    let mut byte = [0];
    assert!(timeout(A_WHILE, stream.read(&mut byte)).await.is_err(), "read {byte:?}");
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn expect_reset(stream: &mut TcpStream) {
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Sends random bytes in random chunks, as long as `len`, and reads them back.
async fn random_round_trip(stream: &mut TcpStream, seed: u64, len: usize) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut bytes = vec![0; len];
    random.fill_bytes(&mut bytes);
    let (mut from, mut to) = stream.split();
    let send = async {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(random.random_range(1..=rest.len().min(30_000)));
            to.write_all(chunk).await.unwrap();
            if random.random_bool(0.2) {
                tokio::time::sleep(Duration::from_micros(random.random_range(0..2_000))).await;
            }
            rest = after;
        }
        to.shutdown().await.unwrap();
    };
    let mut read = Vec::new();
    let (_, count) = tokio::join!(send, from.read_to_end(&mut read));
    assert_eq!(count.unwrap(), len);
    assert!(read == bytes, "the bytes differ (seed {seed})");
}

#[tokio::test]
async fn a_round_trip_takes_the_latency_of_both_ways_and_the_first_one_twice_that() {
    let link = link_to_echo().await;
    link.forth().set_latency(Duration::from_millis(15));
    link.back().set_latency(Duration::from_millis(25));
    let began = Instant::now();
    let mut stream = dial(&link).await;
    round_trip(&mut stream, b"first").await;
    assert!(began.elapsed() >= Duration::from_millis(80), "{:?}", began.elapsed());
    let began = Instant::now();
    round_trip(&mut stream, b"second").await;
    assert!(began.elapsed() >= Duration::from_millis(40), "{:?}", began.elapsed());
}

#[tokio::test]
async fn each_way_has_its_own_latency() {
    let (link, listener) = link_to_listener().await;
    let mut opener = dial(&link).await;
    let (mut target, _) = listener.accept().await.unwrap();
    round_trip_between(&mut opener, &mut target).await;
    link.back().set_latency(Duration::from_secs(1_000));
    // Forth is not slowed, and back holds what a thousand seconds must pass for.
    opener.write_all(b"quick").await.unwrap();
    expect(&mut target, b"quick").await;
    target.write_all(b"slow").await.unwrap();
    until(|| link.counts().back.taken == 8).await;
    expect_silence(&mut opener).await;
    // A new latency counts for bytes under way too.
    link.back().set_latency(Duration::ZERO);
    expect(&mut opener, b"slow").await;
}

async fn round_trip_between(opener: &mut TcpStream, target: &mut TcpStream) {
    opener.write_all(b"ping").await.unwrap();
    expect(target, b"ping").await;
    target.write_all(b"pong").await.unwrap();
    expect(opener, b"pong").await;
}

#[tokio::test]
async fn jitter_only_adds_and_keeps_the_order() {
    let link = link_to_echo().await;
    link.set_round_trip(Duration::from_millis(10));
    link.forth().set_jitter(Duration::from_millis(20));
    link.back().set_jitter(Duration::from_millis(20));
    let began = Instant::now();
    random_round_trip(&mut dial(&link).await, 1, 200_000).await;
    assert!(began.elapsed() >= Duration::from_millis(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_keep_their_bytes_apart_in_order_and_whole() {
    let link = link_to_echo().await;
    link.set_round_trip(Duration::from_millis(4));
    let mut clients = JoinSet::new();
    for seed in 0..50 {
        let link = link.clone();
        clients.spawn(async move {
            random_round_trip(&mut dial(&link).await, seed, 150_000 + seed as usize).await;
        });
    }
    clients.join_all().await;
    until(|| link.counts().connections_open == 0).await;
    let counts = link.counts();
    let sent = (0..50).map(|seed| 150_000 + seed).sum::<u64>();
    assert_eq!(counts.connections, 50);
    assert_eq!((counts.forth.taken, counts.forth.delivered), (sent, sent));
    assert_eq!((counts.back.taken, counts.back.delivered), (sent, sent));
}

#[tokio::test]
async fn latency_does_not_limit_throughput() {
    let link = link_to_echo().await;
    let mut stream = dial(&link).await;
    round_trip(&mut stream, b"open").await;
    // Many chunks, each due an hour from now: all are taken at once.
    link.forth().set_latency(Duration::from_secs(3_600));
    let bytes = vec![7; 8 << 20];
    stream.write_all(&bytes).await.unwrap();
    until(|| link.counts().forth.taken == 4 + bytes.len() as u64).await;
    assert_eq!(link.counts().forth.delivered, 4);
    link.forth().set_latency(Duration::ZERO);
    expect(&mut stream, &bytes).await;
}

#[tokio::test]
async fn a_cut_holds_bytes_and_a_heal_delivers_them_a_latency_later() {
    let link = link_to_echo().await;
    let mut stream = dial(&link).await;
    round_trip(&mut stream, b"before").await;
    link.cut();
    stream.write_all(b"while cut").await.unwrap();
    until(|| link.counts().forth.taken == 15).await;
    expect_silence(&mut stream).await;
    assert_eq!(link.counts().forth.delivered, 6);
    link.forth().set_latency(Duration::from_millis(30));
    let healed = Instant::now();
    link.heal();
    expect(&mut stream, b"while cut").await;
    assert!(healed.elapsed() >= Duration::from_millis(30));
    round_trip(&mut stream, b"after").await;
}

#[tokio::test]
async fn a_one_way_cut_stops_one_way() {
    let (link, listener) = link_to_listener().await;
    let mut opener = dial(&link).await;
    let (mut target, _) = listener.accept().await.unwrap();
    round_trip_between(&mut opener, &mut target).await;

    link.back().cut();
    opener.write_all(b"heard").await.unwrap();
    expect(&mut target, b"heard").await;
    target.write_all(b"unheard").await.unwrap();
    expect_silence(&mut opener).await;
    link.back().heal();
    expect(&mut opener, b"unheard").await;

    link.forth().cut();
    target.write_all(b"heard").await.unwrap();
    expect(&mut opener, b"heard").await;
    opener.write_all(b"unheard").await.unwrap();
    expect_silence(&mut target).await;
    link.forth().heal();
    expect(&mut target, b"unheard").await;
}

#[tokio::test]
async fn a_new_connection_hangs_in_a_cut_and_opens_after_the_heal() {
    let (link, listener) = link_to_listener().await;
    link.cut();
    let mut opener = dial(&link).await;
    opener.write_all(b"hello").await.unwrap();
    until(|| link.counts().connections_open == 1).await;
    assert!(timeout(A_WHILE, listener.accept()).await.is_err(), "it was opened");
    link.heal();
    let (mut target, _) = listener.accept().await.unwrap();
    expect(&mut target, b"hello").await;
}

#[tokio::test]
async fn what_a_cut_holds_is_bounded_and_delivered_whole() {
    let options = LinkOptions { in_flight_max: 200_000, ..LinkOptions::to(echo().await) };
    let link = Link::open(options).await.unwrap();
    let mut stream = dial(&link).await;
    round_trip(&mut stream, b"open").await;
    link.cut();
    let bytes: Vec<u8> = (0..32_u32 << 20).map(|i| (i % 251) as u8).collect();
    let (mut from, mut to) = stream.split();
    assert!(timeout(A_WHILE, to.write_all(&bytes)).await.is_err(), "the sender never blocked");
    // The queue's bytes, and one chunk taken that waits for room.
    let held = link.counts().forth.taken - 4;
    assert!(held <= 200_000 + 64 * 1024, "{held} bytes are held");
    link.heal();
    // What was written before the timeout is unknown, so only the order is checked: it must be a
    // prefix of the pattern.
    to.shutdown().await.unwrap();
    let mut read = Vec::new();
    from.read_to_end(&mut read).await.unwrap();
    assert!(read.len() as u64 >= held);
    assert!(read == bytes[..read.len()], "the bytes differ");
}

#[tokio::test]
async fn a_reset_breaks_every_connection_at_both_ends_even_in_a_cut() {
    let (link, listener) = link_to_listener().await;
    let mut pairs = Vec::new();
    for _ in 0..3 {
        let mut opener = dial(&link).await;
        let (mut target, _) = listener.accept().await.unwrap();
        round_trip_between(&mut opener, &mut target).await;
        pairs.push((opener, target));
    }
    link.cut();
    link.reset();
    for (opener, target) in &mut pairs {
        expect_reset(opener).await;
        expect_reset(target).await;
    }
    until(|| link.counts().connections_open == 0).await;
    // The link itself lives on.
    link.heal();
    let mut opener = dial(&link).await;
    let (mut target, _) = listener.accept().await.unwrap();
    round_trip_between(&mut opener, &mut target).await;
}

#[tokio::test]
async fn a_reply_can_be_lost_whole_after_the_request_arrived() {
    let (link, listener) = link_to_listener().await;
    link.back().reset_after_bytes(0);
    let mut opener = dial(&link).await;
    let (mut target, _) = listener.accept().await.unwrap();
    opener.write_all(b"apply").await.unwrap();
    expect(&mut target, b"apply").await;
    target.write_all(b"applied").await.unwrap();
    expect_reset(&mut opener).await;
    expect_reset(&mut target).await;
    assert_eq!(link.counts().back.delivered, 0);
    // Once: the retry is answered.
    let mut opener = dial(&link).await;
    let (mut target, _) = listener.accept().await.unwrap();
    round_trip_between(&mut opener, &mut target).await;
}

#[tokio::test]
async fn a_reply_can_be_cut_after_so_many_bytes() {
    let (link, listener) = link_to_listener().await;
    link.back().reset_after_bytes(5);
    let mut opener = dial(&link).await;
    let (mut target, _) = listener.accept().await.unwrap();
    target.write_all(b"apple pie").await.unwrap();
    expect(&mut opener, b"apple").await;
    expect_reset(&mut opener).await;
    assert_eq!(link.counts().back.delivered, 5);
}

#[tokio::test]
async fn a_half_close_arrives_after_the_bytes_and_leaves_the_other_way_open() {
    let (link, listener) = link_to_listener().await;
    link.set_round_trip(Duration::from_millis(10));
    let mut opener = dial(&link).await;
    let (mut target, _) = listener.accept().await.unwrap();
    opener.write_all(b"all I say").await.unwrap();
    opener.shutdown().await.unwrap();
    let mut heard = Vec::new();
    target.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"all I say");
    assert_eq!(link.counts().connections_open, 1);
    target.write_all(b"and I").await.unwrap();
    expect(&mut opener, b"and I").await;
    target.shutdown().await.unwrap();
    assert_eq!(opener.read(&mut [0]).await.unwrap(), 0);
    until(|| link.counts().connections_open == 0).await;
}

#[tokio::test]
async fn a_half_close_does_not_pass_a_cut() {
    let (link, listener) = link_to_listener().await;
    let mut opener = dial(&link).await;
    let (mut target, _) = listener.accept().await.unwrap();
    round_trip_between(&mut opener, &mut target).await;
    link.cut();
    opener.shutdown().await.unwrap();
    expect_silence(&mut target).await;
    link.heal();
    assert_eq!(target.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_reset_of_one_end_reaches_the_other_but_not_through_a_cut() {
    let (link, listener) = link_to_listener().await;
    let mut opener = dial(&link).await;
    let (mut target, _) = listener.accept().await.unwrap();
    round_trip_between(&mut opener, &mut target).await;
    link.cut();
    target.set_zero_linger().unwrap();
    drop(target);
    expect_silence(&mut opener).await;
    link.heal();
    expect_reset(&mut opener).await;
}

#[tokio::test]
async fn a_sender_learns_that_its_receiver_has_closed() {
    let (link, listener) = link_to_listener().await;
    let mut opener = dial(&link).await;
    let (mut target, _) = listener.accept().await.unwrap();
    round_trip_between(&mut opener, &mut target).await;
    drop(target);
    assert_eq!(opener.read(&mut [0]).await.unwrap(), 0);
    // The receiver's host answers what comes after its end with a reset.
    while opener.write_all(b"anyone there?").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    until(|| link.counts().connections_open == 0).await;
}

#[tokio::test]
async fn a_refused_connection_is_reset_one_round_trip_later() {
    let (link, listener) = link_to_listener().await;
    drop(listener);
    link.set_round_trip(Duration::from_millis(30));
    let began = Instant::now();
    expect_reset(&mut dial(&link).await).await;
    assert!(began.elapsed() >= Duration::from_millis(30));
}

#[tokio::test]
async fn a_rate_is_shared_by_all_connections_and_can_be_lifted() {
    let link = link_to_echo().await;
    link.back().set_rate(NonZeroU64::new(100_000));
    let began = Instant::now();
    let (mut a, mut b) = (dial(&link).await, dial(&link).await);
    let bytes = [3; 10_000];
    tokio::join!(round_trip(&mut a, &bytes), round_trip(&mut b, &bytes));
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());

    link.back().set_rate(NonZeroU64::new(1));
    a.write_all(&bytes).await.unwrap();
    expect(&mut a, &bytes[..1]).await;
    link.back().set_rate(None);
    expect(&mut a, &bytes[1..]).await;
}

#[tokio::test]
async fn dropping_a_link_closes_it_and_its_connections() {
    let link = link_to_echo().await;
    let mut stream = dial(&link).await;
    round_trip(&mut stream, b"open").await;
    let address = link.address();
    let clone = link.clone();
    drop(link);
    round_trip(&mut stream, b"still open").await;
    drop(clone);
    assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

//! What local writes and reads cost where regions are far apart, against the same nodes side by side.
//!
//! ```text
//!   three nodes, links without delay ─▶ put and get near by, in each region ─┐
//!   three nodes, 80, 150 and 220 ms apart ─▶ the same ───────────────────────┴─▶ p50 and p99 side by side
//!                       └─▶ how soon writes are folded; a strict get right after a causal put; how long tokens are
//! ```
//!
//! Clients ask one after another, so that what is measured is how long an operation takes and not how long it queues.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use latitude_client::wire::CreateKeyspaceRequest;
use latitude_client::{Client, Keyspace, Level, ReceiptDetail, Session};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::{Subject, Wiring};
use crate::idle::await_quiet;
use crate::keys::Keys;
use crate::run::{Own, Say};
use crate::scrape::{self, Buckets};

const KEYSPACE: &str = "wide";
const RANGES: u32 = 16;
/// Making the ranges takes a while.
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Keys that a client asks for.
const KEYS: u32 = 500;
/// Writes of each region in a second while folding is watched ...
const FOLDS_PER_SECOND: u32 = 50;
/// ... for so long.
const FOLDS_FOR: Duration = Duration::from_secs(20);
/// Strict reads, each right after a causal write of its session.
const STRICT_READS: usize = 60;
/// Sessions of each region whose tokens are looked at, and operations of each.
const SESSIONS: u32 = 10;
const SESSION_OPERATIONS: u32 = 40;
/// How long a client thinks between two operations of such a session.
const THINKS: Duration = Duration::from_millis(100);

/// What is measured over a wide area.
#[derive(Clone, Debug)]
pub struct WideArea {
    /// How often each client asks for each operation.
    pub operations: u32,
}

/// What one region saw.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct WideAreaRow {
    pub(crate) region: String,
    /// By operation: p50 and p99 in milliseconds side by side, and far apart.
    pub(crate) near: Vec<(String, [f64; 2], [f64; 2])>,
    /// From a write's position to its fold being applied where it was taken: p50 and p99 in milliseconds, upper
    /// bounds of their buckets.
    pub(crate) folded: [f64; 2],
    /// The longest round trip to another region, in milliseconds.
    pub(crate) round_trip: f64,
    /// p50 of a strict get by a session that has written nothing, and right after a causal put of its own.
    pub(crate) strict: [f64; 2],
    /// Lengths in base64 of the tokens of sessions at all four levels: median and largest.
    pub(crate) token: [u64; 2],
}

/// Brings up both clusters, one after the other, and measures them.
pub(crate) async fn measure(
    own: &Own,
    wide: &WideArea,
    seed: u64,
    say: Say<'_>,
) -> Result<Vec<WideAreaRow>> {
    let binary = own.binaries.first().context("no program is named")?;
    let start = |wiring| Subject::start(binary, String::new(), own.dir.as_ref(), 3, wiring);
    let together = start(Wiring::Counted).await?;
    say("side by side: waiting until leaders stay");
    let clients = prepare(&together).await?;
    let mut side_by_side = Vec::new();
    for client in &clients {
        say(&format!("side by side: {}", client.region));
        side_by_side.push(near(client, wide, seed).await?);
    }
    drop((clients, together));

    let apart = start(Wiring::Published).await?;
    say("far apart: waiting until leaders stay");
    let clients = prepare(&apart).await?;
    let mut rows = Vec::new();
    for (client, side_by_side) in clients.iter().zip(side_by_side) {
        say(&format!("far apart: {}", client.region));
        let far = near(client, wide, seed).await?;
        let near = side_by_side.into_iter().zip(far);
        rows.push(WideAreaRow {
            region: client.region.clone(),
            near: near.map(|((name, near), (_, far))| (name, near, far)).collect(),
            folded: [0.0; 2],
            round_trip: apart.round_trip_max(&client.region).as_secs_f64() * 1e3,
            strict: [0.0; 2],
            token: [0; 2],
        });
    }
    say("far apart: watching how soon writes are folded");
    for (row, folded) in rows.iter_mut().zip(folded(&clients).await?) {
        row.folded = folded;
    }
    for (row, client) in rows.iter_mut().zip(&clients) {
        say(&format!("far apart: sessions of {}", client.region));
        row.strict = strict(client).await?;
    }
    say("far apart: tokens");
    let of_sessions = clients.iter().enumerate().map(|(at, client)| {
        let clients = &clients;
        async move { tokens(client, clients, seed ^ at as u64).await }
    });
    for (row, token) in rows.iter_mut().zip(futures::future::try_join_all(of_sessions).await?) {
        row.token = token;
    }
    Ok(rows)
}

/// A client in a region.
struct Near {
    region: String,
    /// The node there, for its metrics.
    node: String,
    keyspace: Keyspace,
    keys: Arc<Keys>,
}

impl Near {
    /// A key of some range.
    fn key(&self, index: u32) -> Bytes {
        Bytes::copy_from_slice(self.keys.get(u64::from(index % KEYS)))
    }
}

async fn prepare(subject: &Subject) -> Result<Vec<Near>> {
    let admin = Client::builder().seeds(&subject.addresses).timeout(CREATE_TIMEOUT).build();
    let request =
        CreateKeyspaceRequest { name: KEYSPACE.into(), ranges: RANGES, ..Default::default() };
    admin.admin().create_keyspace(request).await.map_err(|error| anyhow!("{error}"))?;
    await_quiet(&admin).await?;
    let keys = Arc::new(Keys::new(u64::from(KEYS)));
    let nodes = subject.regions.iter().zip(&subject.addresses);
    let clients = nodes.map(|(region, node)| {
        let seeds = subject.addresses_from(region);
        let client = Client::builder().seeds(&seeds).region(region).timeout(TIMEOUT).build();
        let keyspace = client.keyspace(KEYSPACE).with_receipt(ReceiptDetail::Short);
        Near { region: region.clone(), node: node.clone(), keyspace, keys: Arc::clone(&keys) }
    });
    let clients: Vec<_> = clients.collect();
    for client in &clients {
        // Connections, routes, origins.
        for index in 0..KEYS {
            client
                .keyspace
                .put(client.key(index), "first")
                .await
                .map_err(|error| anyhow!("{error}"))?;
        }
    }
    Ok(clients)
}

/// One operation after another: p50 and p99 of each kind, in milliseconds.
async fn near(client: &Near, wide: &WideArea, seed: u64) -> Result<Vec<(String, [f64; 2])>> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut rows = Vec::new();
    for (name, level, writes) in [
        ("causal put", Level::Causal, true),
        ("causal get", Level::Causal, false),
        ("eventual get", Level::Eventual, false),
    ] {
        let keyspace = client.keyspace.clone().with_level(level).with_session(Session::new());
        let mut took = histogram();
        for _ in 0..wide.operations {
            let key = client.key(rng.random_range(0..KEYS));
            let asked = Instant::now();
            let by = match writes {
                true => keyspace.put(key, "near").await.map(|answer| answer.receipt),
                false => keyspace.get(key).await.map(|answer| answer.receipt),
            };
            took.saturating_record(asked.elapsed().as_micros() as u64);
            let by = by.map_err(|error| anyhow!("{name}: {error}"))?;
            let by = by.map(|receipt| receipt.region).unwrap_or_default();
            ensure!(by == client.region, "a {name} of {} was served in {by:?}", client.region);
        }
        rows.push((name.to_string(), [ms(&took, 0.5), ms(&took, 0.99)]));
    }
    Ok(rows)
}

/// A steady stream of writes in every region at once; how soon each region's were folded.
async fn folded(clients: &[Near]) -> Result<Vec<[f64; 2]>> {
    let counted = || async {
        let buckets = clients.iter().map(|client| scrape::folded(&client.node));
        futures::future::try_join_all(buckets).await
    };
    let before: Vec<Buckets> = counted().await?;
    let begun = Instant::now();
    let writers = clients.iter().map(|client| async move {
        let keyspace = client.keyspace.clone().with_level(Level::Causal);
        let mut count = 0;
        while begun.elapsed() < FOLDS_FOR {
            let put = keyspace.put(client.key(count), "to be folded").await;
            put.map_err(|error| anyhow!("{error}"))?;
            count += 1;
            sleep_until(begun + Duration::from_secs(1) * count / FOLDS_PER_SECOND).await;
        }
        Ok::<_, anyhow::Error>(u64::from(count))
    });
    let written = futures::future::try_join_all(writers).await?;
    // The last ones are folded, too.
    sleep(Duration::from_secs(3)).await;
    let after = counted().await?;
    let rows = before.iter().zip(after).zip(written).map(|((before, after), written)| {
        let folded = after.since(before);
        ensure!(
            folded.count() >= written,
            "of {written} writes {} were folded within 3 s",
            folded.count()
        );
        Ok([folded.quantile(0.5) * 1e3, folded.quantile(0.99) * 1e3])
    });
    rows.collect()
}

/// p50 of a strict get by a session that has written nothing, and of one right after a causal put of the session.
async fn strict(client: &Near) -> Result<[f64; 2]> {
    let (mut alone, mut after) = (histogram(), histogram());
    let mut all_seen = true;
    for at in 0..STRICT_READS {
        let key = client.key(at as u32);
        for (writes, took) in [(false, &mut alone), (true, &mut after)] {
            let session = client.keyspace.clone().with_session(Session::new());
            let value = format!("{at}");
            if writes {
                let near = session.clone().with_level(Level::Causal);
                near.put(key.clone(), value.clone()).await.map_err(|error| anyhow!("{error}"))?;
            }
            let asked = Instant::now();
            let got = session.with_level(Level::Strict).get(key.clone()).await;
            took.saturating_record(asked.elapsed().as_micros() as u64);
            let got = got.map_err(|error| anyhow!("{error}"))?.value;
            all_seen &= !writes || got.is_some_and(|got| got.bytes == value.as_bytes());
        }
        sleep(THINKS).await;
    }
    ensure!(all_seen, "a session did not see its own write");
    Ok([ms(&alone, 0.5), ms(&after, 0.5)])
}

/// Sessions that read and write at all levels; a third of the operations at another region's node.
async fn tokens(home: &Near, all: &[Near], seed: u64) -> Result<[u64; 2]> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut lengths = BTreeMap::<u64, u64>::new();
    for _ in 0..SESSIONS {
        let session = Session::new();
        for _ in 0..SESSION_OPERATIONS {
            let at = if rng.random_ratio(1, 3) { all.choose(&mut rng) } else { None };
            let at = at.unwrap_or(home);
            let level = *Level::ALL.choose(&mut rng).expect("there are levels");
            let keyspace = at.keyspace.clone().with_level(level).with_session(session.clone());
            let key = home.key(rng.random_range(0..KEYS));
            let done = match rng.random_ratio(1, 2) {
                true => keyspace.put(key, "by a session").await.map(drop),
                false => keyspace.get(key).await.map(drop),
            };
            done.map_err(|error| anyhow!("{level}: {error}"))?;
            let token = session.token().context("a session that has done something has a token")?;
            *lengths.entry(token.len() as u64).or_default() += 1;
            sleep(THINKS).await;
        }
    }
    let half = lengths.values().sum::<u64>() / 2;
    let mut below = 0;
    let median = lengths.iter().find(|(_, count)| {
        below += **count;
        below > half
    });
    let largest = lengths.last_key_value().map_or(0, |(length, _)| *length);
    Ok([median.map_or(0, |(length, _)| *length), largest])
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3)
        .expect("the bounds are in order and the digits few")
}

fn ms(took: &Histogram<u64>, quantile: f64) -> f64 {
    took.value_at_quantile(quantile) as f64 / 1_000.0
}

//! What a read costs, from each region and at each level, and how old its answer may be: measured while
//! another client writes the keys that are read.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use latitude_client::{Keyspace, Level, NodeId, Receipt, ReceiptDetail, Role, Session, Timestamp};
use tokio::time::{Instant, sleep};

use crate::cost::is_refused;
use crate::latencies::{Latencies, text};
use crate::ledger::Write;
use crate::live::Live;
use crate::screen::table;
use crate::world::{Range, World};

/// Clients' tasks in each region; each has one read under way.
const TASKS: usize = 4;

/// Reads of each task: with the others' a multiple of the ranges, so that each range gets as many.
const READS_PER_TASK: usize = 27;

/// A task's pause between two reads: together they should take long enough for keys to change.
const PAUSE: Duration = Duration::from_millis(40);

/// How reads are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Manner {
    pub(crate) level: Level,
    /// Whether each task's reads are one session.
    pub(crate) in_session: bool,
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.level, if self.in_session { " in a session" } else { "" })
    }
}

/// Reads asked for in one manner from one region.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    manner: Manner,
    /// The region it was asked from.
    from: String,
    latencies: Latencies,
    /// How many the node of each site served, by the site's index.
    by_site: BTreeMap<usize, usize>,
    /// How many were served by a replica that does not lead.
    by_followers: usize,
    /// How old the answers are proved to be, at most.
    ages: Latencies,
    /// How far the closed times of the answers lag behind. All nodes have one clock here, so it can be seen.
    lags: Latencies,
}

/// Measures reads in every manner that the cluster serves, from all regions at once. The last write of
/// each key goes to `ledger`.
///
/// # Errors
/// When an answer breaks a promise of its level or of its receipt.
pub(crate) async fn measure(
    world: &World,
    ranges: &[Range],
    ledger: &mut Vec<Write>,
    progress: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<Vec<Row>> {
    let live = Live::new(ranges);
    let read = async {
        let rows = read_all(world, &live, progress).await;
        live.stop();
        rows
    };
    let (written, rows) = tokio::join!(live.write(world), read);
    ledger.extend(written?);
    rows
}

async fn read_all(
    world: &World,
    live: &Live,
    mut progress: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<Vec<Row>> {
    live.all_written().await;
    let mut rows = Vec::new();
    for level in Level::ALL {
        if !is_served(world, live, level).await? {
            continue;
        }
        // A strict read sees everything, in a session or not.
        let sessions = if level == Level::Strict { &[false][..] } else { &[false, true] };
        for in_session in sessions {
            let manner = Manner { level, in_session: *in_session };
            progress(&format!("{manner} get"))?;
            // Opens the connections that are to be measured, and has replicas refreshed.
            let (sites, once) = (|| 0..world.sites.len(), live.len().div_ceil(TASKS));
            try_join_all(sites().map(|site| read_from(world, live, manner, site, once))).await?;
            let measured = sites().map(|site| read_from(world, live, manner, site, READS_PER_TASK));
            rows.extend(try_join_all(measured).await?);
        }
    }
    Ok(rows)
}

/// Whether the cluster serves reads at a level.
async fn is_served(world: &World, live: &Live, level: Level) -> Result<bool> {
    match world.sites[0].keyspace(level).get(live.name(0)).await {
        Ok(_) => Ok(true),
        Err(error) if is_refused(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn read_from(
    world: &World,
    live: &Live,
    manner: Manner,
    site: usize,
    reads: usize,
) -> Result<Row> {
    let region = &world.sites[site].region;
    let asking = world.sites[site].keyspace(manner.level).with_receipt(ReceiptDetail::Full);
    let task = async |task: usize| -> Result<Vec<Read>> {
        let mut reader = Reader::new(live, asking.clone(), manner);
        let mut all = Vec::new();
        for read in 0..reads {
            let key = (task * reads + read) % live.len();
            let read = reader.read(key).await;
            all.push(read.with_context(|| format!("a {manner} get from {region}"))?);
            sleep(PAUSE).await;
        }
        Ok(all)
    };
    let mut row = Row {
        manner,
        from: region.clone(),
        latencies: Latencies::default(),
        by_site: BTreeMap::new(),
        by_followers: 0,
        ages: Latencies::default(),
        lags: Latencies::default(),
    };
    for read in try_join_all((0..TASKS).map(task)).await?.into_iter().flatten() {
        row.latencies.add(read.latency);
        *row.by_site.entry(world.site_of(read.node)?).or_default() += 1;
        row.by_followers += usize::from(read.role != Some(Role::Leader));
        read.age.into_iter().for_each(|age| row.ages.add(age));
        read.lag.into_iter().for_each(|lag| row.lags.add(lag));
    }
    Ok(row)
}

/// A read that was answered as it must be.
struct Read {
    latency: Duration,
    node: NodeId,
    role: Option<Role>,
    age: Option<Duration>,
    lag: Option<Duration>,
}

/// Reads one key after another and judges what it finds.
struct Reader<'a> {
    live: &'a Live,
    keyspace: Keyspace,
    manner: Manner,
    /// The newest number its session has seen, for each key.
    seen: Vec<u64>,
}

impl<'a> Reader<'a> {
    fn new(live: &'a Live, keyspace: Keyspace, manner: Manner) -> Self {
        let keyspace =
            if manner.in_session { keyspace.with_session(Session::new()) } else { keyspace };
        Self { live, keyspace, manner, seen: vec![0; live.len()] }
    }

    async fn read(&mut self, key: usize) -> Result<Read> {
        let began = Instant::now();
        let answer = self.keyspace.get(self.live.name(key)).await?;
        let receipt = answer.receipt.context("it came without a receipt")?;
        ensure!(
            receipt.level_given == Some(self.manner.level),
            "the receipt says it was given at {:?}",
            receipt.level_given
        );
        let found = answer.value.as_ref().map(|value| &value.bytes[..]);
        let number = self.live.judge(key, found, began, receipt.staleness)?;
        if self.manner.level == Level::Strict {
            ensure!(receipt.staleness == Some(Duration::ZERO), "it is not proved to be fresh");
        }
        let seen = &mut self.seen[key];
        if self.manner.in_session {
            ensure!(
                number >= *seen,
                "{} held {number}, and {} before in the same session",
                self.live.name(key),
                *seen
            );
            *seen = number;
        }
        let Receipt { node, role, staleness, closed, .. } = receipt;
        let lag = closed.map(lag);
        Ok(Read { latency: answer.latency, node, role, age: staleness, lag })
    }
}

/// How far a time lies behind this moment.
#[expect(clippy::disallowed_methods, reason = "the demo measures, nothing is decided by it")]
fn lag(closed: Timestamp) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_millis(closed.unix_ms()))
}

/// The table: `nodes` are their names, in the order of the sites.
pub(crate) fn render(rows: &[Row], nodes: &[String]) -> String {
    let header = ["get", "from", "p50", "p99"].map(str::to_string).into_iter();
    let age = ["followers", "lag p99", "age p50", "at most"].map(str::to_string);
    let header: Vec<String> = header.chain(nodes.iter().cloned()).chain(age).collect();
    let mut lines = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let first = index == 0 || rows[index - 1].manner != row.manner;
        if first && index > 0 {
            lines.push(Vec::new());
        }
        let percentile =
            |some: &Latencies, percent| some.percentile(percent).map_or("–".into(), text);
        let mut line = vec![
            // A group is named once.
            if !first {
                String::new()
            } else if row.manner.in_session {
                "  in a session".to_string()
            } else {
                row.manner.to_string()
            },
            row.from.clone(),
            percentile(&row.latencies, 50),
            percentile(&row.latencies, 99),
        ];
        line.extend((0..nodes.len()).map(|site| match row.by_site.get(&site) {
            Some(count) => count.to_string(),
            None => "–".to_string(),
        }));
        line.push(format!("{} %", row.by_followers * 100 / row.latencies.count().max(1)));
        line.push(percentile(&row.lags, 99));
        line.extend([percentile(&row.ages, 50), percentile(&row.ages, 100)]);
        lines.push(line);
    }
    let right = 2..header.len();
    table(header, right, lines)
}

/// What the table says of sequential reads, in a sentence: from the region where strict ones take longest.
/// `None` if there are no sequential ones.
pub(crate) fn summary(rows: &[Row]) -> Option<String> {
    let of = |level| {
        let manner = Manner { level, in_session: false };
        rows.iter().filter(move |row| row.manner == manner)
    };
    let strict = of(Level::Strict).max_by_key(|row| row.latencies.percentile(50))?;
    let sequential = of(Level::Sequential).find(|row| row.from == strict.from)?;
    Some(format!(
        "Reads in {} took {} instead of {} and were at most {} old.",
        strict.from,
        text(sequential.latencies.percentile(50)?),
        text(strict.latencies.percentile(50)?),
        text(sequential.ages.percentile(100)?)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(values: &[u64]) -> Latencies {
        let mut some = Latencies::default();
        values.iter().for_each(|ms| some.add(Duration::from_millis(*ms)));
        some
    }

    fn row(
        manner: (Level, bool),
        from: &str,
        took: &[u64],
        by_site: &[(usize, usize)],
        by_followers: usize,
        ages: &[u64],
        lags: &[u64],
    ) -> Row {
        Row {
            manner: Manner { level: manner.0, in_session: manner.1 },
            from: from.to_string(),
            latencies: latencies(took),
            by_site: by_site.iter().copied().collect(),
            by_followers,
            ages: latencies(ages),
            lags: latencies(lags),
        }
    }

    fn rows() -> Vec<Row> {
        let sequential = (Level::Sequential, false);
        vec![
            row((Level::Strict, false), "eu", &[81, 80, 84], &[(0, 2), (1, 1)], 0, &[0, 0, 0], &[]),
            row((Level::Strict, false), "ap", &[236, 238], &[(1, 2)], 0, &[0, 0], &[]),
            row(sequential, "eu", &[1, 2, 3], &[(0, 3)], 2, &[0, 90, 120], &[0, 60, 80]),
            row(sequential, "ap", &[2, 2], &[(1, 2)], 2, &[150, 310], &[70, 200]),
            row((Level::Sequential, true), "ap", &[150], &[(1, 1)], 1, &[9], &[9]),
        ]
    }

    #[test]
    fn a_row_shows_who_served_and_how_old_the_answers_were() {
        let expected = "\
get             from     p50     p99  n1 eu  n2 ap  followers  lag p99  age p50  at most
────────────────────────────────────────────────────────────────────────────────────────
strict          eu     81 ms   84 ms      2      1        0 %        –   0.0 ms   0.0 ms
                ap    236 ms  238 ms      –      2        0 %        –   0.0 ms   0.0 ms

sequential      eu    2.0 ms  3.0 ms      3      –       66 %    80 ms    90 ms   120 ms
                ap    2.0 ms  2.0 ms      –      2      100 %   200 ms   150 ms   310 ms

  in a session  ap    150 ms  150 ms      –      1      100 %   9.0 ms   9.0 ms   9.0 ms";
        assert_eq!(render(&rows(), &["n1 eu".to_string(), "n2 ap".to_string()]), expected);
    }

    #[test]
    fn the_summary_is_of_the_region_that_gains_most() {
        let expected = "Reads in ap took 2.0 ms instead of 236 ms and were at most 310 ms old.";
        assert_eq!(summary(&rows()).as_deref(), Some(expected));
        assert_eq!(summary(&rows()[..2]), None);
    }

    #[test]
    fn every_range_gets_as_many_reads() {
        assert_eq!((TASKS * READS_PER_TASK) % 9, 0);
    }
}

//! What a write costs, from each region and at each level the cluster serves.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use latitude_client::{Error, Level, Reason, Receipt};

use crate::latencies::{Latencies, text};
use crate::ledger::{Write, put};
use crate::screen::table;
use crate::world::{Range, World, in_turn};

/// Clients' tasks in each region; each has one request under way.
const TASKS: usize = 4;

/// Requests of each task: with the others' a multiple of the ranges, so that each range gets as many.
const REQUESTS_PER_TASK: usize = 27;

/// What writes of new keys at one level cost from one region.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    level: Level,
    /// The region it was asked from.
    from: String,
    /// By the index of the site whose node served it.
    by_site: BTreeMap<usize, Latencies>,
}

impl Row {
    fn all(&self) -> Latencies {
        let mut all = Latencies::default();
        self.by_site.values().for_each(|some| all.extend(some));
        all
    }
}

/// Measures writes at every level, from all regions at once; levels that the cluster does not serve give
/// no rows. What was written goes to `ledger`.
pub(crate) async fn measure(
    world: &World,
    ranges: &[Range],
    ledger: &mut Vec<Write>,
    mut progress: impl FnMut(&str) -> std::io::Result<()>,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for level in Level::ALL {
        progress(&format!("{level} put"))?;
        if !is_served(world, ranges, level, ledger).await? {
            continue;
        }
        warm_up(world, ranges, level, ledger).await?;
        let sites = (0..world.sites.len()).map(|site| measure_from(world, ranges, level, site));
        for (row, writes) in try_join_all(sites).await? {
            rows.push(row);
            ledger.extend(writes);
        }
    }
    ensure!(!rows.is_empty(), "the cluster serves no level");
    Ok(rows)
}

/// Whether the cluster serves writes at a level.
async fn is_served(
    world: &World,
    ranges: &[Range],
    level: Level,
    ledger: &mut Vec<Write>,
) -> Result<bool> {
    let run = "probe".to_string();
    let request = Request { world, ranges, level, site: 0, turn: 0, run };
    let (result, write) = request.send().await;
    ledger.push(write);
    match result {
        Ok(_) => Ok(true),
        Err(Failure::Refused(error)) if is_refused(&error) => Ok(false),
        Err(failure) => Err(failure.into()),
    }
}

/// Whether an error says that the cluster does not serve the level asked for.
pub(crate) fn is_refused(error: &Error) -> bool {
    error.reason == Reason::LevelUnimplemented
}

/// Asks every range from every region once, which opens the connections that are to be measured.
async fn warm_up(
    world: &World,
    ranges: &[Range],
    level: Level,
    ledger: &mut Vec<Write>,
) -> Result<()> {
    let asked =
        (0..world.sites.len()).flat_map(|site| (0..ranges.len()).map(move |turn| (site, turn)));
    let requests = asked.map(|(site, turn)| async move {
        let run = format!("warm-up/{turn}");
        Request { world, ranges, level, site, turn, run }.send().await
    });
    for (result, write) in join_all(requests).await {
        ledger.push(write);
        result?;
    }
    Ok(())
}

async fn measure_from(
    world: &World,
    ranges: &[Range],
    level: Level,
    site: usize,
) -> Result<(Row, Vec<Write>)> {
    let task = async |task: usize| -> Result<(Vec<_>, Vec<Write>)> {
        let (mut served, mut writes) = (Vec::new(), Vec::new());
        for request in 0..REQUESTS_PER_TASK {
            let turn = task * REQUESTS_PER_TASK + request;
            let run = turn.to_string();
            let request = Request { world, ranges, level, site, turn, run };
            let (result, write) = request.send().await;
            writes.push(write);
            served.push(result?);
        }
        Ok((served, writes))
    };
    let mut row = Row { level, from: world.sites[site].region.clone(), by_site: BTreeMap::new() };
    let mut all_writes = Vec::new();
    for (served, writes) in try_join_all((0..TASKS).map(task)).await? {
        all_writes.extend(writes);
        for (receipt, latency) in served {
            row.by_site.entry(world.site_of(receipt.node)?).or_default().add(latency);
        }
    }
    Ok((row, all_writes))
}

/// One write.
struct Request<'a> {
    world: &'a World,
    ranges: &'a [Range],
    level: Level,
    site: usize,
    turn: usize,
    /// Tells its key from those of others.
    run: String,
}

/// Why a write is not in the table.
enum Failure {
    Refused(Error),
    Wrong(anyhow::Error),
}

impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) => error.into(),
            Failure::Wrong(error) => error,
        }
    }
}

impl Request<'_> {
    /// Sends it. Gives the receipt and the latency, and what is to be remembered of it.
    async fn send(self) -> (Result<(Receipt, Duration), Failure>, Write) {
        let Self { level, site, .. } = self;
        let keyspace = self.world.sites[site].keyspace(level);
        let zone = in_turn(self.ranges, self.turn);
        let region = &self.world.sites[site].region;
        let key = format!("{}#cost/{region}/{level}/put/{}", zone.name, self.run);
        let value = format!("written from {region}, {}", self.run);
        let (write, result) = put(&keyspace, level, site, key, value).await;
        let result = result.map_err(Failure::Refused).and_then(|answer| {
            let receipt = answer.receipt;
            let receipt = receipt.with_context(|| format!("a {level} put came without a receipt"));
            Ok((receipt.map_err(Failure::Wrong)?, answer.latency))
        });
        (result, write)
    }
}

/// The table: `nodes` are their names, in the order of the sites.
pub(crate) fn render(rows: &[Row], nodes: &[String]) -> String {
    let served_by = nodes.iter().map(|node| format!("by {node}"));
    let header = ["put", "from", "p50", "p99"].map(str::to_string);
    let header: Vec<String> = header.into_iter().chain(served_by).collect();
    let mut lines = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let first = index == 0 || rows[index - 1].level != row.level;
        if first && index > 0 {
            lines.push(Vec::new());
        }
        let all = row.all();
        let percentile =
            |some: &Latencies, percent| some.percentile(percent).map_or("–".into(), text);
        let mut line = vec![
            // A group is named once.
            if first { row.level.to_string() } else { String::new() },
            row.from.clone(),
            percentile(&all, 50),
            percentile(&all, 99),
        ];
        line.extend((0..nodes.len()).map(|site| match row.by_site.get(&site) {
            Some(some) => format!("{} × {}", some.count(), percentile(some, 50)),
            None => "–".to_string(),
        }));
        lines.push(line);
    }
    let right = 2..header.len();
    table(header, right, lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(level: Level, from: &str, served: &[(usize, &[u64])]) -> Row {
        let latencies = |values: &[u64]| {
            let mut some = Latencies::default();
            values.iter().for_each(|ms| some.add(Duration::from_millis(*ms)));
            some
        };
        let by_site = served.iter().map(|(site, values)| (*site, latencies(values))).collect();
        Row { level, from: from.to_string(), by_site }
    }

    #[test]
    fn a_row_shows_percentiles_of_all_and_the_median_of_each_node() {
        let rows = [
            row(Level::Strict, "eu", &[(0, &[81, 80, 84]), (1, &[160, 301])]),
            row(Level::Strict, "us", &[(1, &[80])]),
            row(Level::Causal, "eu", &[(0, &[1]), (1, &[1500])]),
        ];
        let expected = "\
put     from     p50     p99    by n1 eu    by n2 us
────────────────────────────────────────────────────
strict  eu     84 ms  301 ms   3 × 81 ms  2 × 160 ms
        us     80 ms   80 ms           –   1 × 80 ms

causal  eu    1.0 ms  1.50 s  1 × 1.0 ms  1 × 1.50 s";
        assert_eq!(render(&rows, &["n1 eu".to_string(), "n2 us".to_string()]), expected);
    }

    #[test]
    fn every_range_gets_as_many_requests() {
        assert_eq!((TASKS * REQUESTS_PER_TASK) % 9, 0);
    }
}

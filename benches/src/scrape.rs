//! What a node counts, from its `/metrics`.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// What a node has counted since it started.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Counts {
    /// Syncs of its store.
    pub(crate) syncs: f64,
    /// Writes those made durable.
    pub(crate) sync_completions: f64,
    /// Log entries it proposed, and the operations in them.
    pub(crate) entries: f64,
    pub(crate) entry_operations: f64,
    /// Sequential reads that had to wait; `None` if it does not count them.
    pub(crate) waits: Option<f64>,
}

impl Counts {
    /// Asks the node at `address` (`host:port`).
    ///
    /// # Errors
    /// When it does not answer as a node does.
    pub(crate) async fn of(address: &str) -> Result<Self> {
        timeout(PATIENCE, ask(address))
            .await
            .map_err(|_| anyhow!("no answer in time"))
            .and_then(|answer| answer)
            .and_then(|answer| parse(&answer).context("it counts other things than a node does"))
            .with_context(|| format!("http://{address}/metrics"))
    }

    /// What was counted since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            syncs: self.syncs - before.syncs,
            sync_completions: self.sync_completions - before.sync_completions,
            entries: self.entries - before.entries,
            entry_operations: self.entry_operations - before.entry_operations,
            waits: self.waits.zip(before.waits).map(|(after, before)| after - before),
        }
    }
}

/// One question needs no library: HTTP/1.0 answers with a body that ends with the connection.
async fn ask(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.lines().next().unwrap_or_default();
    ensure!(status.split(' ').nth(1) == Some("200"), "it answers {status:?}");
    Ok(answer)
}

fn parse(text: &str) -> Option<Counts> {
    let value = |name: &str| -> Option<f64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        rest.split_ascii_whitespace().next()?.parse().ok()
    };
    Some(Counts {
        syncs: value("latitude_store_syncs")?,
        sync_completions: value("latitude_store_sync_completions")?,
        entries: value("latitude_entry_operations_count")?,
        entry_operations: value("latitude_entry_operations_sum")?,
        waits: value("latitude_sequential_waits_total"),
    })
}

/// A cumulative histogram: how many were at most so much.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Buckets(Vec<(f64, u64)>);

impl Buckets {
    fn parse(text: &str, name: &str) -> Self {
        let bucket = |line: &str| {
            let rest = line.strip_prefix(name)?.strip_prefix("_bucket{le=\"")?;
            let (bound, count) = rest.split_once("\"} ")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, count.trim().parse().ok()?))
        };
        Self(text.lines().filter_map(bucket).collect())
    }

    /// What was counted since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let earlier = |at: usize| before.0.get(at).map_or(0, |(_, count)| *count);
        let now = self.0.iter().enumerate();
        Self(now.map(|(at, (bound, count))| (*bound, count - earlier(at))).collect())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.last().map_or(0, |(_, count)| *count)
    }

    /// The bound of the bucket in which this share of all is reached.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let needed = share * self.count() as f64;
        let found = self.0.iter().find(|(_, count)| *count as f64 >= needed);
        found.map_or(f64::NAN, |(bound, _)| *bound)
    }
}

/// How long the local writes which the node at `address` took were on their way into the log, in seconds.
///
/// # Errors
/// When it does not answer as a node does.
pub(crate) async fn folded(address: &str) -> Result<Buckets> {
    let answer = timeout(PATIENCE, ask(address)).await.map_err(|_| anyhow!("no answer in time"));
    let answer = answer.and_then(|answer| answer);
    let answer = answer.with_context(|| format!("http://{address}/metrics"))?;
    let buckets = Buckets::parse(&answer, "latitude_local_write_folded_seconds");
    ensure!(!buckets.0.is_empty(), "the node at {address} does not count what is folded");
    Ok(buckets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let text = "# TYPE x histogram\nx_sum 3.1\nx_count 4\nx_bucket{le=\"0.1\"} 1\n\
                    x_bucket{le=\"0.2\"} 3\nx_bucket{le=\"+Inf\"} 4\n";
        let buckets = Buckets::parse(text, "x");
        assert_eq!(buckets.count(), 4);
        assert_eq!([0.25, 0.5, 0.75].map(|share| buckets.quantile(share)), [0.1, 0.2, 0.2]);
        assert!(buckets.quantile(0.99).is_infinite());
        let earlier = Buckets(vec![(0.1, 1), (0.2, 1), (f64::INFINITY, 1)]);
        assert_eq!(buckets.since(&earlier).quantile(0.5), 0.2);
    }

    #[test]
    fn counts_are_found_by_their_whole_name() {
        let text = "HTTP/1.0 200 OK\r\n\r\n# TYPE latitude_store_syncs gauge\n\
                    latitude_store_syncs 5\nlatitude_store_sync_completions 9\n\
                    latitude_entry_operations_sum 12.0\nlatitude_entry_operations_count 3\n\
                    latitude_entry_operations_bucket{le=\"1.0\"} 0\n";
        let counts = |waits| Counts {
            syncs: 5.0,
            sync_completions: 9.0,
            entries: 3.0,
            entry_operations: 12.0,
            waits,
        };
        assert_eq!(parse(text), Some(counts(None)));
        let more = format!("{text}latitude_sequential_waits_total 7\n");
        let all = parse(&more).unwrap();
        assert_eq!(all, counts(Some(7.0)));
        let since = all.since(all);
        assert_eq!((since.syncs, since.waits), (0.0, Some(0.0)));
        assert_eq!(parse("latitude_store_syncs 5\n"), None);
    }
}

//! A cluster under test, in a directory that is kept when the test fails.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use latitude_client::{Client, NodeId, RangeId, wire};
use latitude_testbed::{AP, Cluster, ClusterBuilder, EU, RoundTrips, US};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

/// How long anything that must happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The clusters of one test executable run one after the other: two would starve each other.
static TURN: Mutex<()> = Mutex::const_new(());

/// The regions of a cluster of three, in the order of its nodes.
pub fn regions() -> [&'static str; 3] {
    [EU, US, AP]
}

/// The program under test.
///
/// # Errors
/// When it was not built; the error names the command that does.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LATITUDE_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "LATITUDE_BIN names {}, which is no file", path.display());
        return Ok(path);
    }
    let here = std::env::current_exe().context("the test cannot find itself")?;
    let beside = here.ancestors().map(|dir| dir.join("latitude")).find(|path| path.is_file());
    beside.with_context(|| {
        format!(
            "there is no program `latitude` beside {}: run `cargo build -p latitude-server --bin latitude`, or \
             name it in LATITUDE_BIN",
            here.display()
        )
    })
}

/// A directory that is kept unless the test says that it passed.
pub struct Kept(Option<TempDir>);

impl Kept {
    /// A new one; `name` is part of its name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix(&format!("latitude-{name}-")).tempdir()?;
        Ok(Self(Some(dir)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.as_ref().expect("it is there until the test passed").path()
    }

    /// The test passed: nobody will look at it.
    pub fn discard(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(dir) = self.0.take() {
            eprintln!("stores and logs are kept in {}", dir.keep().display());
        }
    }
}

/// A cluster under test.
pub struct Bed {
    cluster: Cluster,
    dir: Kept,
    _turn: MutexGuard<'static, ()>,
}

impl Bed {
    /// Three nodes in three regions that are `round_trip` apart, whose elections are quick.
    ///
    /// # Errors
    /// When the cluster does not come up.
    pub async fn three(name: &str, round_trip: Duration) -> Result<Self> {
        let round_trips = RoundTrips::default()
            .with(EU, US, round_trip)
            .with(US, AP, round_trip)
            .with(EU, AP, round_trip);
        Self::start(name, |builder| builder.wan(round_trips).flags(["--round-trip-max", "20ms"]))
            .await
    }

    /// The cluster that `shape` makes of the default one. Waits until it is this cluster's turn.
    ///
    /// # Errors
    /// When the cluster does not come up.
    pub async fn start(
        name: &str,
        shape: impl FnOnce(ClusterBuilder) -> ClusterBuilder,
    ) -> Result<Self> {
        let turn = TURN.lock().await;
        let dir = Kept::new(name)?;
        let builder = ClusterBuilder::new(binary()?, dir.path());
        let cluster = shape(builder).start().await?;
        Ok(Self { cluster, dir, _turn: turn })
    }

    /// The processes and links.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Where stores, logs and histories are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A new client in a region, which reaches nodes as that region does.
    pub fn client(&self, region: &str) -> Client {
        let seeds =
            self.cluster.client_addresses(region).into_iter().map(|address| address.to_string());
        Client::builder().seeds(seeds).region(region).timeout(PATIENCE).build()
    }

    /// The number the cluster knows a node by, counted from 0 here. Cluster and testbed number by
    /// themselves: a process called n1 need not be the node n1.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn number(&self, node: usize) -> Result<u32> {
        let address = self.cluster.node(node).address().to_string();
        Ok(self.client(EU).status_of(&address).await?.node)
    }

    /// Makes a keyspace of registers, of `ranges` ranges. Their leaders are spread over the nodes.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn keyspace(&self, name: &str, ranges: u32) -> Result<wire::KeyspaceStatus> {
        self.keyspace_of(name, ranges, wire::ValueType::Register).await
    }

    /// As [`Bed::keyspace`], of values of any type.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn keyspace_of(
        &self,
        name: &str,
        ranges: u32,
        value_type: wire::ValueType,
    ) -> Result<wire::KeyspaceStatus> {
        let request = wire::CreateKeyspaceRequest {
            name: name.to_owned(),
            ranges,
            r#type: value_type as i32,
            default_level: wire::Level::Strict as i32,
            ..wire::CreateKeyspaceRequest::default()
        };
        let made = self.client(EU).admin().create_keyspace(request).await;
        made.with_context(|| format!("the keyspace {name} could not be made"))
    }

    /// The ranges of a keyspace, as the node of the region nearest to the first says.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn ranges(&self, keyspace: &str) -> Result<Vec<wire::RangeStatus>> {
        Ok(self.client(EU).admin().ranges(keyspace).await?)
    }

    /// Waits until each of the three nodes leads at least a sixth of a keyspace's ranges.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn leaders_spread(&self, keyspace: &str) -> Result<()> {
        eventually("each node leads a sixth of the ranges", async || {
            let ranges = self.ranges(keyspace).await?;
            for node in 1..=3 {
                let led = ranges.iter().filter(|range| range.leader == node).count();
                ensure!(led * 6 >= ranges.len(), "n{node} leads {led} of {}", ranges.len());
            }
            Ok(())
        })
        .await
    }

    /// Hands every range of a keyspace that the node numbered `from` leads to the one numbered `to`,
    /// until it leads none.
    ///
    /// # Errors
    /// When it still leads one in the end.
    pub async fn hand_over(&self, keyspace: &str, from: u32, to: u32) -> Result<()> {
        let admin = self.client(EU).admin();
        eventually(&format!("n{from} leads no range of {keyspace}"), async || {
            let ranges = self.ranges(keyspace).await?;
            let led: Vec<_> = ranges.iter().filter(|range| range.leader == from).collect();
            for range in &led {
                admin.transfer_leader(RangeId(range.range_id), NodeId(to)).await?;
            }
            ensure!(led.is_empty(), "it leads {} ranges", led.len());
            Ok(())
        })
        .await
    }

    /// Waits until no node holds a local write of a keyspace that is not in the log, and every replica has
    /// applied it and holds the same.
    ///
    /// # Errors
    /// When that is not so in time, or replicas differ.
    pub async fn replicas_equal(&self, keyspace: &str) -> Result<()> {
        let client = self.client(EU);
        eventually("every local write is in the log", async || {
            for node in self.cluster.nodes() {
                let held = client.deltas_at(&node.address().to_string(), keyspace).await?;
                ensure!(held.deltas.is_empty(), "{} holds {:?}", node.name(), held.deltas);
            }
            Ok(())
        })
        .await?;
        for range in self.ranges(keyspace).await? {
            let audit = client.admin().audit(RangeId(range.range_id), Some(PATIENCE)).await?;
            ensure!(audit.verdict() == wire::AuditVerdict::Equal, "{audit:?}");
        }
        Ok(())
    }

    /// Waits until every node is live in the eyes of every node.
    ///
    /// # Errors
    /// When not all are in time.
    pub async fn live(&self) -> Result<()> {
        self.cluster.live_within(PATIENCE).await
    }

    /// The test passed: stops the cluster and removes its directory.
    pub fn passed(self) {
        let Self { cluster, dir, _turn } = self;
        drop(cluster);
        dir.discard();
    }
}

/// Tries again until it succeeds.
///
/// # Errors
/// The last failure, when it has not succeeded in time.
pub async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => bail!("waited for: {what}: {error:#}"),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

//! Whose nodes are measured: a cluster brought up for it, or one that runs already.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use latitude_testbed::{AP, Cluster, ClusterBuilder, EU, RoundTrips, US};
use tempfile::TempDir;

use crate::process::Usage;

/// A cluster under measurement.
pub(crate) struct Subject {
    /// What tells it from others of the same run; empty if there is one only.
    pub(crate) label: String,
    /// Where its nodes are reached.
    pub(crate) addresses: Vec<String>,
    /// The regions they are in, where that is known.
    pub(crate) regions: Vec<String>,
    /// None: somebody else's.
    own: Option<Own>,
}

struct Own {
    cluster: Cluster,
    /// Removed when the cluster is gone: fields are dropped in this order.
    _dir: TempDir,
}

/// How nodes of a cluster of our own reach one another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wiring {
    /// Directly.
    Direct,
    /// Through links without delay, which count bytes.
    Counted,
    /// Through links as long as between continents.
    Published,
}

impl Subject {
    /// Somebody else's cluster.
    pub(crate) fn running(addresses: &[String]) -> Self {
        Self { label: String::new(), addresses: addresses.to_vec(), regions: Vec::new(), own: None }
    }

    /// A new cluster of the program `binary` on this machine, its stores in a directory of their own below
    /// `dir` that goes with it.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn start(
        binary: &Path,
        label: String,
        dir: Option<&PathBuf>,
        nodes: usize,
        wiring: Wiring,
    ) -> Result<Self> {
        let mut temp = tempfile::Builder::new();
        temp.prefix("latitude-bench-");
        let temp = match dir {
            Some(dir) => temp.tempdir_in(dir),
            None => temp.tempdir(),
        };
        let temp = temp.context("cannot make a directory for the nodes' stores")?;
        let regions: Vec<&str> = [EU, US, AP].into_iter().cycle().take(nodes).collect();
        let builder = ClusterBuilder::new(binary, temp.path()).nodes_in(&regions);
        let builder = match wiring {
            Wiring::Direct => builder.without_wan(),
            Wiring::Counted => builder.wan(RoundTrips::default()),
            Wiring::Published => builder.wan(RoundTrips::published()),
        };
        let cluster = builder.start().await?;
        let addresses = cluster.nodes().iter().map(|node| node.address().to_string()).collect();
        let regions = regions.into_iter().map(str::to_string).collect();
        Ok(Self { label, addresses, regions, own: Some(Own { cluster, _dir: temp }) })
    }

    /// Where its nodes are reached from a region.
    pub(crate) fn addresses_from(&self, region: &str) -> Vec<String> {
        match &self.own {
            Some(Own { cluster, .. }) => {
                cluster.client_addresses(region).iter().map(ToString::to_string).collect()
            }
            None => self.addresses.clone(),
        }
    }

    /// The longest round trip of the published layout from a region.
    pub(crate) fn round_trip_max(&self, region: &str) -> Duration {
        let trips = RoundTrips::published();
        self.regions.iter().map(|other| trips.between(region, other)).max().unwrap_or_default()
    }

    /// What each node's process has used; `None` if it is somebody else's.
    ///
    /// # Errors
    /// When a node has ended.
    pub(crate) async fn usages(&self) -> Result<Option<Vec<Usage>>> {
        let Some(Own { cluster, .. }) = &self.own else { return Ok(None) };
        let mut usages = Vec::new();
        for node in cluster.nodes() {
            let pid = node.pid().await;
            let pid =
                pid.with_context(|| format!("{} has ended:\n{}", node.name(), node.log_tail(20)))?;
            usages.push(Usage::of(pid)?);
        }
        Ok(Some(usages))
    }

    /// Bytes each node has sent to nodes of other regions, if links count them.
    pub(crate) fn bytes_sent(&self) -> Option<Vec<u64>> {
        let cluster = &self.own.as_ref()?.cluster;
        let wan = cluster.wan()?;
        let sent = |index: usize| {
            let region = cluster.node(index).region();
            let targets = 0..cluster.nodes().len();
            // On connections its region opened, forth; on those others opened to it, back.
            let opened = targets.filter_map(|target| wan.link(region, target));
            let forth = opened.map(|link| link.counts().forth.taken);
            let elsewhere = wan.regions().into_iter().filter(|viewer| *viewer != region);
            let taken = elsewhere.filter_map(|viewer| wan.link(viewer, index));
            let back = taken.map(|link| link.counts().back.taken);
            forth.chain(back).sum()
        };
        Some((0..cluster.nodes().len()).map(sent).collect())
    }
}

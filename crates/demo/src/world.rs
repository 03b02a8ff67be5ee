//! The cluster as the demo uses it: a site for each region, and the ranges of the keyspace.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use latitude_client::wire::{CreateKeyspaceRequest, RangeStatus, RegionReplicas, ValueType};
use latitude_client::{Client, Keyspace, Level, NodeId, RangeId};
use latitude_testbed::{Cluster, ClusterBuilder, Node, RoundTrips};
use tokio::time::{Instant, sleep};

use crate::zones::Zone;

/// The keyspace of the demo.
pub(crate) const KEYSPACE: &str = "zones";

/// Where the keys are cut into ranges: about as many zones in each, with whole continents together
/// where they are small.
const SPLIT_AT: [&str; 8] =
    ["America/", "America/I", "America/P", "Asia/", "Asia/M", "Atlantic/", "Europe/", "Pacific/"];

/// What the nodes plan for: the longest of the published round trips, 220 ms, and some room.
pub(crate) const ROUND_TRIP_MAX: &str = "250ms";

/// How long an operation of the demo may take. Above what an election takes, so that a client rides
/// through it.
const OPERATION_MAX: Duration = Duration::from_secs(20);

/// How long leaders may take to get to where they are preferred; they need not.
const SETTLE_MAX: Duration = Duration::from_secs(15);

/// How long anything else may take that is looked at again and again.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(45);

const POLL: Duration = Duration::from_millis(100);

/// A region: its node, and the client there.
pub(crate) struct Site {
    /// The region's name.
    pub(crate) region: String,
    /// The node there.
    pub(crate) node: NodeId,
    /// A client there; its way to other regions is as long as theirs to it.
    pub(crate) client: Client,
}

impl Site {
    /// The keyspace, asked at a level.
    pub(crate) fn keyspace(&self, level: Level) -> Keyspace {
        self.client.keyspace(KEYSPACE).with_level(level)
    }
}

/// A running cluster of one node in each of three regions.
pub(crate) struct World {
    /// The processes, and the network between them.
    pub(crate) cluster: Cluster,
    /// In the order of the cluster's nodes.
    pub(crate) sites: Vec<Site>,
}

impl World {
    /// Starts a cluster of the program `latitude` with stores and logs below `dir`.
    pub(crate) async fn start(latitude: &Path, dir: &Path) -> Result<Self> {
        let cluster = ClusterBuilder::new(latitude, dir)
            .wan(RoundTrips::published())
            .flags(["--round-trip-max", ROUND_TRIP_MAX])
            .start_within(WAIT_MAX)
            .start()
            .await?;
        let mut sites = Vec::new();
        for node in cluster.nodes() {
            let region = node.region().to_string();
            let client = Client::builder()
                .seeds(cluster.client_addresses(&region).iter().map(ToString::to_string))
                .region(&region)
                .timeout(OPERATION_MAX)
                .build();
            let id = NodeId(client.status_of(&node.address().to_string()).await?.node);
            sites.push(Site { region, node: id, client });
        }
        Ok(Self { cluster, sites })
    }

    /// Makes the keyspace, with a replica of each range in each region.
    pub(crate) async fn create_keyspace(&self) -> Result<()> {
        let place = |site: &Site| RegionReplicas { region: site.region.clone(), replicas: 1 };
        let request = CreateKeyspaceRequest {
            name: KEYSPACE.to_string(),
            r#type: ValueType::Register as i32,
            split_at: SPLIT_AT.iter().map(|key| key.as_bytes().into()).collect(),
            place: self.sites.iter().map(place).collect(),
            ..CreateKeyspaceRequest::default()
        };
        let created = self.sites[0].client.admin().create_keyspace(request).await;
        created.context("the keyspace cannot be made")?;
        Ok(())
    }

    /// The ranges with their zones, once each has a leader: the preferred one, if that does not take
    /// long.
    pub(crate) async fn settled_ranges(&self, zones: &[Zone]) -> Result<Vec<Range>> {
        let began = Instant::now();
        loop {
            let ranges = self.ranges(0).await?;
            let settled = ranges.iter().all(|range| {
                range.replicas.first().is_some_and(|first| first.node == range.leader)
            });
            let led = !ranges.is_empty() && ranges.iter().all(|range| range.leader != 0);
            if led && (settled || began.elapsed() > SETTLE_MAX) {
                return ranges.iter().map(|status| Range::new(status, zones)).collect();
            }
            ensure!(began.elapsed() < WAIT_MAX, "a range found no leader within {WAIT_MAX:?}");
            sleep(POLL).await;
        }
    }

    /// The ranges of the keyspace as the node of a site sees them, in the order of their keys.
    pub(crate) async fn ranges(&self, site: usize) -> Result<Vec<RangeStatus>> {
        // A client that has just been made knows no other node to ask.
        let only = Client::builder()
            .seeds([self.cluster.node(site).address().to_string()])
            .region(&self.sites[site].region)
            .build();
        let mut ranges = only.admin().ranges(KEYSPACE).await?;
        ranges.sort_by(|a, b| a.start.cmp(&b.start));
        Ok(ranges)
    }

    /// The process of a site's node.
    pub(crate) fn process(&self, site: usize) -> &Node {
        self.cluster.node(site)
    }

    /// The site whose node this is.
    pub(crate) fn site_of(&self, node: NodeId) -> Result<usize> {
        match self.sites.iter().position(|site| site.node == node) {
            Some(site) => Ok(site),
            None => bail!("a receipt names {node}, which is none of the cluster"),
        }
    }

    /// A node and its region: `n1 eu`.
    pub(crate) fn name(&self, site: usize) -> String {
        let site = &self.sites[site];
        format!("{} {}", site.node, site.region)
    }

    /// Waits until a restarted node has applied on every range what the node of another site had when
    /// this was called.
    pub(crate) async fn caught_up(&self, site: usize, other: usize) -> Result<()> {
        let began = Instant::now();
        let goal = self.ranges(other).await?;
        loop {
            let ranges = self.ranges(site).await.unwrap_or_default();
            let there = |goal: &RangeStatus| {
                ranges.iter().any(|range| {
                    range.range_id == goal.range_id && range.applied_index >= goal.applied_index
                })
            };
            if goal.iter().all(there) {
                return Ok(());
            }
            ensure!(
                began.elapsed() < WAIT_MAX,
                "{} has not caught up within {WAIT_MAX:?}",
                self.name(site)
            );
            sleep(POLL).await;
        }
    }

    /// Kills every node and waits until they are gone.
    pub(crate) async fn stop(self) -> Result<()> {
        for node in self.cluster.nodes() {
            node.kill9().await?;
        }
        Ok(())
    }
}

/// A range of the keyspace and the zones in it; at least one.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    /// Its id.
    pub(crate) id: RangeId,
    /// Its leader when it was looked at.
    pub(crate) leader: NodeId,
    /// Its zones, by name.
    pub(crate) zones: Vec<Zone>,
}

impl Range {
    fn new(status: &RangeStatus, zones: &[Zone]) -> Result<Self> {
        let inside = |zone: &&Zone| {
            let name = zone.name.as_bytes();
            name >= &status.start[..] && status.end.as_ref().is_none_or(|end| name < &end[..])
        };
        let zones: Vec<Zone> = zones.iter().filter(inside).cloned().collect();
        let id = RangeId(status.range_id);
        ensure!(!zones.is_empty(), "there is no zone in range {id}");
        Ok(Self { id, leader: NodeId(status.leader), zones })
    }

    /// Its first and its last zone.
    pub(crate) fn label(&self) -> String {
        let name = |zone: Option<&Zone>| zone.map_or("", |zone| &zone.name).to_string();
        format!("{} … {}", name(self.zones.first()), name(self.zones.last()))
    }
}

/// The zones to use one after another: each time of the next range, so that all ranges get as many.
pub(crate) fn in_turn(ranges: &[Range], turn: usize) -> &Zone {
    let zones = &ranges[turn % ranges.len()].zones;
    &zones[(turn / ranges.len()) % zones.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zones;

    /// The ranges that the cuts make.
    fn ranges() -> Vec<Range> {
        let zones = zones::all().unwrap();
        (0..=SPLIT_AT.len())
            .map(|index| {
                let status = RangeStatus {
                    range_id: index as u64,
                    start: index.checked_sub(1).map_or("", |i| SPLIT_AT[i]).into(),
                    end: SPLIT_AT.get(index).map(|key| key.as_bytes().into()),
                    ..RangeStatus::default()
                };
                Range::new(&status, &zones).unwrap()
            })
            .collect()
    }

    #[test]
    fn every_zone_is_in_one_range_and_no_range_has_most() {
        let counts: Vec<usize> = ranges().iter().map(|range| range.zones.len()).collect();
        assert_eq!(counts.iter().sum::<usize>(), 312);
        assert!(counts.iter().all(|count| (15..=60).contains(count)), "{counts:?}");
    }

    #[test]
    fn turns_go_through_all_ranges_before_a_second_zone_of_one() {
        let ranges = ranges();
        let names: Vec<&str> = (0..10).map(|turn| &in_turn(&ranges, turn).name[..]).collect();
        assert_eq!((names[0], names[1]), ("Africa/Abidjan", "America/Adak"));
        assert_eq!((names[8], names[9]), ("Pacific/Apia", "Africa/Algiers"));
    }
}

//! A wide-area network between regions: one link for each (region that looks, node of another).
//!
//! ```text
//!   from eu:  n1 direct            n2 by link eu▶n2      n3 by link eu▶n3
//!   from us:  n1 by link us▶n1     n2 direct             n3 by link us▶n3     …
//! ```
//!
//! The region is the unit of distance and of partition, for a node tells each region one address;
//! nodes and clients of a region share it. To part single nodes, give each its own region.
//!
//! The link eu▶n2 carries what n2 answers too, on connections opened in eu. So bytes from eu to us
//! take the way forth of links eu▶us and the way back of links us▶eu, and a cut of one direction cuts
//! both.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::link::{Link, LinkOptions};
use crate::way::Way;

/// Europe, in the published layout.
pub const EU: &str = "eu";
/// The United States, in the published layout.
pub const US: &str = "us";
/// Asia-Pacific, in the published layout.
pub const AP: &str = "ap";

/// Round trips between regions, the same whoever asks. A pair not set, and a region with itself,
/// take no time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RoundTrips(BTreeMap<(String, String), Duration>);

impl RoundTrips {
    /// What Latitude's published numbers are measured with: eu–us 80 ms, us–ap 150 ms, eu–ap 220 ms.
    pub fn published() -> Self {
        Self::default()
            .with(EU, US, Duration::from_millis(80))
            .with(US, AP, Duration::from_millis(150))
            .with(EU, AP, Duration::from_millis(220))
    }

    /// The same, with another round trip between `a` and `b`.
    #[must_use]
    pub fn with(mut self, a: &str, b: &str, round_trip: Duration) -> Self {
        self.0.insert(unordered(a, b), round_trip);
        self
    }

    /// The round trip between `a` and `b`.
    pub fn between(&self, a: &str, b: &str) -> Duration {
        self.0.get(&unordered(a, b)).copied().unwrap_or_default()
    }
}

fn unordered(a: &str, b: &str) -> (String, String) {
    (a.min(b).to_owned(), a.max(b).to_owned())
}

/// A wide-area network, open until it is dropped.
///
/// Methods that take a region panic when no node is in it: the caller chose the regions.
#[derive(Clone, Debug)]
pub struct Wan {
    nodes: Vec<(String, SocketAddr)>,
    /// By viewer's region and target's index; none within a region.
    links: BTreeMap<(String, usize), Link>,
}

impl Wan {
    /// Opens the links between nodes, each given by its region and the address it listens on. Jitter,
    /// if any is set, comes from `seed`.
    ///
    /// # Errors
    /// When a link cannot listen.
    pub async fn open(
        nodes: &[(String, SocketAddr)],
        round_trips: &RoundTrips,
        seed: u64,
    ) -> io::Result<Self> {
        let regions: BTreeSet<&String> = nodes.iter().map(|(region, _)| region).collect();
        let mut links = BTreeMap::new();
        for viewer in regions {
            for (target, (region, address)) in nodes.iter().enumerate() {
                if region == viewer {
                    continue;
                }
                let seed = seed.wrapping_mul(1_000_003).wrapping_add(links.len() as u64);
                let link = Link::open(LinkOptions { seed, ..LinkOptions::to(*address) }).await?;
                link.set_round_trip(round_trips.between(viewer, region));
                links.insert((viewer.clone(), target), link);
            }
        }
        Ok(Self { nodes: nodes.to_vec(), links })
    }

    /// The regions, in order of their names.
    pub fn regions(&self) -> Vec<&str> {
        let regions: BTreeSet<&str> = self.nodes.iter().map(|(region, _)| &region[..]).collect();
        regions.into_iter().collect()
    }

    /// The address by which nodes and clients in `viewer` reach the node `target` (counted from 0).
    pub fn address_of(&self, target: usize, viewer: &str) -> SocketAddr {
        match self.link(viewer, target) {
            Some(link) => link.address(),
            None => self.nodes[target].1,
        }
    }

    /// The link by which `viewer` reaches the node `target` (counted from 0). None within a region.
    pub fn link(&self, viewer: &str, target: usize) -> Option<&Link> {
        self.assert_known(viewer);
        assert!(target < self.nodes.len(), "there is no node {target}");
        self.links.get(&(viewer.to_owned(), target))
    }

    /// Every link between two regions, whoever looks.
    pub fn links_between(&self, a: &str, b: &str) -> Vec<&Link> {
        let mut links = self.links_from(a, b);
        links.extend(self.links_from(b, a));
        links
    }

    /// Sets the round trip between two regions, for bytes under way too.
    pub fn set_round_trip(&self, a: &str, b: &str, round_trip: Duration) {
        for link in self.links_between(a, b) {
            link.set_round_trip(round_trip);
        }
    }

    /// Parts two groups of regions: no byte passes between them either way. Regions in neither still
    /// reach both.
    pub fn partition(&self, these: &[&str], those: &[&str]) {
        for a in these {
            for b in those {
                self.cut_one_way(a, b);
                self.cut_one_way(b, a);
            }
        }
    }

    /// Parts a region from all others.
    pub fn isolate(&self, region: &str) {
        self.assert_known(region);
        let others: Vec<&str> =
            self.regions().into_iter().filter(|other| *other != region).collect();
        self.partition(&[region], &others);
    }

    /// Stops bytes on their way from `from` to `to`, requests and replies alike; the others pass.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        self.ways(from, to).into_iter().for_each(Way::cut);
    }

    /// Heals both directions between two regions.
    pub fn heal(&self, a: &str, b: &str) {
        for way in self.ways(a, b).into_iter().chain(self.ways(b, a)) {
            way.heal();
        }
    }

    /// Heals every cut.
    pub fn heal_all(&self) {
        self.links.values().for_each(Link::heal);
    }

    /// Resets every connection between two regions.
    pub fn reset(&self, a: &str, b: &str) {
        self.links_between(a, b).into_iter().for_each(Link::reset);
    }

    /// The ways bytes take from one region to another.
    fn ways(&self, from: &str, to: &str) -> Vec<&Way> {
        let requests = self.links_from(from, to).into_iter().map(Link::forth);
        let replies = self.links_from(to, from).into_iter().map(Link::back);
        requests.chain(replies).collect()
    }

    /// The links by which `viewer` reaches the nodes of `region`.
    fn links_from(&self, viewer: &str, region: &str) -> Vec<&Link> {
        self.assert_known(viewer);
        self.assert_known(region);
        let here = |from: &str, target: usize| from == viewer && self.nodes[target].0 == region;
        let links = self.links.iter().filter(|((from, target), _)| here(from, *target));
        links.map(|(_, link)| link).collect()
    }

    fn assert_known(&self, region: &str) {
        assert!(self.nodes.iter().any(|(known, _)| known == region), "there is no region {region}");
    }
}

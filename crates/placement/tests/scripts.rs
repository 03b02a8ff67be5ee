//! Runs the golden scripts: what placement decides for small clusters.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p latitude-placement` writes the outputs anew.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use latitude_placement::{
    NodeInfo, PerRegion, Policy, RangeInfo, ReplicaInfo, founders, place, rebalance_leaders,
    split_points,
};
use latitude_types::{NodeId, RangeId};

#[derive(goldenscript::Command)]
enum Command {
    /// Nodes join, or are described anew.
    Nodes {
        ids: Vec<u32>,
        #[arg(key)]
        region: String,
        #[arg(key, optional)]
        zone: String,
        #[arg(key, optional)]
        replicas: usize,
        #[arg(key, optional)]
        leaders: usize,
    },
    /// Nodes are not heard of any more.
    Down { ids: Vec<u32> },
    /// Nodes are heard of again.
    Up { ids: Vec<u32> },
    /// Places new ranges.
    Place {
        ranges: usize,
        #[arg(key)]
        policy: Option<Policy>,
        #[arg(key)]
        learners: Option<PerRegion>,
    },
    /// Cuts a new keyspace.
    Split { ranges: usize },
    /// Chooses the holders of the meta range.
    Founders,
    /// Describes a range: its replicas, the preferred leader first.
    Range {
        id: u64,
        replicas: Vec<u32>,
        #[arg(key)]
        leader: Option<u32>,
        #[arg(key)]
        behind: Option<u32>,
        #[arg(key)]
        learner: Option<u32>,
        #[arg(key, optional)]
        joint: bool,
        #[arg(key)]
        to: Option<u32>,
    },
    /// Proposes transfers and, unless `dry`, carries them out.
    Rebalance {
        #[arg(key)]
        per_node: usize,
        #[arg(key, optional)]
        dry: bool,
    },
}

#[derive(Default)]
struct Runner {
    nodes: BTreeMap<u32, NodeInfo>,
    ranges: BTreeMap<u64, RangeInfo>,
}

impl Runner {
    fn set_live(&mut self, ids: &[u32], live: bool) -> Result<(), Box<dyn Error>> {
        for id in ids {
            self.nodes.get_mut(id).ok_or("no such node")?.live = live;
        }
        Ok(())
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        self.nodes.values().cloned().collect()
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(
        &mut self,
        command: &Command,
        _: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        let mut out = String::new();
        match command {
            Command::Nodes { ids, region, zone, replicas, leaders } => {
                for id in ids {
                    let node = NodeInfo {
                        id: NodeId(*id),
                        region: region.clone(),
                        zone: zone.clone(),
                        live: true,
                        replicas: *replicas,
                        leaders: *leaders,
                    };
                    self.nodes.insert(*id, node);
                }
            }
            Command::Down { ids } => self.set_live(ids, false)?,
            Command::Up { ids } => self.set_live(ids, true)?,
            Command::Place { ranges, policy, learners } => {
                let policy = policy.clone().unwrap_or_default();
                let learners = learners.clone().unwrap_or_default();
                match place(&self.nodes(), &policy, &learners, *ranges) {
                    Ok(sets) => {
                        for set in sets {
                            write!(out, "{:?}", set.voters)?;
                            if !set.learners.is_empty() {
                                write!(out, " learners {:?}", set.learners)?;
                            }
                            writeln!(out)?;
                        }
                    }
                    Err(error) => writeln!(out, "{error}")?,
                }
            }
            Command::Split { ranges } => match split_points(*ranges) {
                Ok(points) => {
                    write!(out, "{} points", points.len())?;
                    for point in points {
                        write!(out, " {}", String::from_utf8_lossy(&point))?;
                    }
                    writeln!(out)?;
                }
                Err(error) => writeln!(out, "{error}")?,
            },
            Command::Founders => writeln!(out, "{:?}", founders(&self.nodes()))?,
            Command::Range { id, replicas, leader, behind, learner, joint, to } => {
                let replica = |node: &u32| ReplicaInfo {
                    node: NodeId(*node),
                    is_voter: *learner != Some(*node),
                    is_caught_up: *behind != Some(*node),
                };
                let range = RangeInfo {
                    id: RangeId(*id),
                    replicas: replicas.iter().map(replica).collect(),
                    leader: leader.map(NodeId),
                    is_joint: *joint,
                    transferring_to: to.map(NodeId),
                };
                self.ranges.insert(*id, range);
            }
            Command::Rebalance { per_node, dry } => {
                let ranges: Vec<_> = self.ranges.values().cloned().collect();
                let transfers = rebalance_leaders(&self.nodes(), &ranges, *per_node);
                for transfer in &transfers {
                    writeln!(out, "{}: {} → {}", transfer.range, transfer.from, transfer.to)?;
                    if !dry {
                        let range =
                            self.ranges.get_mut(&transfer.range.0).ok_or("no such range")?;
                        range.leader = Some(transfer.to);
                    }
                }
                if transfers.is_empty() {
                    writeln!(out, "nothing to move")?;
                }
            }
        }
        Ok(out)
    }
}

fn run(script: &str) {
    let path = Path::new("tests/scripts").join(script);
    goldenscript::run(&mut Runner::default(), path).expect("the script is readable");
}

macro_rules! scripts {
    ($($name:ident = $path:literal;)*) => {
        $(#[test] fn $name() { run($path) })*

        #[test]
        fn every_script_is_run() {
            let mut found = Vec::new();
            for topic in std::fs::read_dir("tests/scripts").unwrap() {
                let topic = topic.unwrap();
                for case in std::fs::read_dir(topic.path()).unwrap() {
                    let (topic, case) = (topic.file_name(), case.unwrap().file_name());
                    found.push(format!("{}/{}", topic.display(), case.display()));
                }
            }
            found.sort();
            assert_eq!(found, [$($path),*]);
        }
    };
}

scripts! {
    the_founders_are_spread = "founders/spread";
    a_node_takes_part_in_few_transfers = "leaders/budget";
    orphaned_leaders_are_spread = "leaders/fair_share";
    leaders_go_to_the_preferred_node = "leaders/preferred";
    learners_stand_beside_the_voters = "place/learners";
    replicas_per_region = "place/per_region";
    replicas_are_spread = "place/spread";
    a_keyspace_is_cut_evenly = "split/even";
}

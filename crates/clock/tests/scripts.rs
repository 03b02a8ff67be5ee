//! Runs the golden scripts: what the clocks of a few nodes do, step by step.
//!
//! A command's prefix is the node. Times are timestamps as they print, `milliseconds.counter` since
//! 2024, or plain milliseconds. `UPDATE_GOLDENFILES=1 cargo test -p latitude-clock` writes the
//! outputs anew.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use latitude_clock::{
    HybridClock, Judge, MAX_CLOCK_OFFSET_DEFAULT, ManualClock, OffsetQuorum, Reading,
};
use latitude_types::{NodeId, Timestamp};

#[derive(goldenscript::Command)]
enum Command {
    /// A new node: its wall clock, and the bound on its disk.
    Node {
        #[arg(key)]
        wall: u64,
        #[arg(key)]
        bound: Option<String>,
    },
    /// kill -9 and start: all but the disk's bound and the wall clock is gone.
    Restart,
    /// Writes the bound the clock asks for, if it does.
    Persist,
    /// Writes a bound that covers a time.
    Cover { time: String },
    /// Gives a timestamp.
    Now,
    /// Shows clock and bound.
    Show,
    /// Merges a time without checks.
    Merge { time: String },
    /// Receives a message from a node as its clocks stand.
    Receive { from: String },
    /// Judges a client's time.
    Admit { time: String },
    /// Time passes everywhere.
    Pass { ms: u64 },
    /// The node's wall clock is set.
    Wall { ms: u64 },
    /// Shows the physical reading.
    Physical,
    /// A verdict: `by` us or peer.
    Verdict {
        peer: u32,
        #[arg(key)]
        by: String,
        #[arg(key)]
        refused: bool,
    },
    /// A peer leaves the cluster.
    Forget { peer: u32 },
    /// Whether the node is unsynced in a cluster of so many.
    Unsynced {
        #[arg(key)]
        of: usize,
    },
}

struct Node {
    physical: Arc<ManualClock>,
    clock: HybridClock,
    disk: Timestamp,
    quorum: OffsetQuorum,
}

#[derive(Default)]
struct Runner {
    nodes: BTreeMap<String, Node>,
}

fn wall_us(ms: u64) -> u64 {
    Timestamp::from_ms(ms).unix_ms() * 1000
}

fn time(text: &str) -> Result<Timestamp, Box<dyn Error>> {
    let (ms, counter) = text.split_once('.').unwrap_or((text, "0"));
    Ok(Timestamp(Timestamp::from_ms(ms.parse()?).0 + counter.parse::<u64>()?))
}

fn start(physical: &Arc<ManualClock>, disk: Timestamp) -> HybridClock {
    HybridClock::start(physical.clone(), disk, MAX_CLOCK_OFFSET_DEFAULT)
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(
        &mut self,
        command: &Command,
        context: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        let name = context.prefix.clone().unwrap_or_default();
        if let Command::Node { wall, bound } = command {
            let disk = bound.as_deref().map(time).transpose()?.unwrap_or_default();
            let physical = Arc::new(ManualClock::new(wall_us(*wall)));
            let clock = start(&physical, disk);
            self.nodes
                .insert(name, Node { physical, clock, disk, quorum: OffsetQuorum::default() });
            return Ok(String::new());
        }
        if let Command::Pass { ms } = command {
            self.nodes.values().for_each(|node| node.physical.advance(Duration::from_millis(*ms)));
            return Ok(String::new());
        }
        let message = match command {
            Command::Receive { from } => {
                Some(self.nodes.get(from).ok_or("no such sender")?.clock.reading())
            }
            _ => None,
        };
        let node = self.nodes.get_mut(&name).ok_or("no such node")?;
        let mut out = String::new();
        match command {
            Command::Node { .. } | Command::Pass { .. } => unreachable!("handled above"),
            Command::Restart => {
                node.clock = start(&node.physical, node.disk);
                writeln!(
                    out,
                    "clock={} settles in {:?}",
                    node.clock.peek(),
                    node.clock.settles_in()
                )?;
            }
            Command::Persist => match node.clock.bound_to_persist() {
                Some(bound) => {
                    node.disk = bound;
                    node.clock.raise_bound(bound);
                    writeln!(out, "bound={bound} on disk")?;
                }
                None => writeln!(out, "bound={} is enough", node.clock.bound())?,
            },
            Command::Cover { time: needed } => {
                node.disk = node.clock.bound_covering(time(needed)?);
                node.clock.raise_bound(node.disk);
                writeln!(out, "bound={} on disk", node.disk)?;
            }
            Command::Now => match node.clock.now() {
                Ok(given) => writeln!(out, "{given}")?,
                Err(error) => writeln!(out, "{error}")?,
            },
            Command::Show => {
                writeln!(out, "clock={} bound={}", node.clock.peek(), node.clock.bound())?;
            }
            Command::Merge { time: remote } => match node.clock.merge(time(remote)?) {
                Ok(()) => writeln!(out, "clock={}", node.clock.peek())?,
                Err(error) => writeln!(out, "{error}")?,
            },
            Command::Receive { .. } => {
                let message: Reading = message.expect("taken above");
                match node.clock.receive(message) {
                    Ok(()) => writeln!(out, "merged; clock={}", node.clock.peek())?,
                    Err(error) => writeln!(out, "{error}; clock={}", node.clock.peek())?,
                }
            }
            Command::Admit { time: brought } => {
                writeln!(out, "{:?}", node.clock.admit(time(brought)?))?;
            }
            Command::Wall { ms } => node.physical.set_wall_us(wall_us(*ms)),
            Command::Physical => {
                let ms = (node.clock.physical_us() - wall_us(0)) / 1000;
                writeln!(out, "physical={ms}")?;
            }
            Command::Verdict { peer, by, refused } => {
                let judge = match by.as_str() {
                    "us" => Judge::Us,
                    "peer" => Judge::Peer,
                    other => return Err(format!("no judge {other}").into()),
                };
                node.quorum.observe(NodeId(*peer), judge, *refused);
            }
            Command::Forget { peer } => node.quorum.forget(NodeId(*peer)),
            Command::Unsynced { of } => {
                let refused: Vec<_> = node.quorum.refused().collect();
                let verdict = if node.quorum.is_unsynced(*of) { "UNSYNCED" } else { "synced" };
                writeln!(out, "{verdict}, at odds with {refused:?} of {of}")?;
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
    the_bound_covers_what_is_given = "bound/given";
    the_bound_covers_what_is_merged = "bound/merged";
    a_reserve_is_kept = "bound/reserve";
    a_restart_never_regresses = "bound/restart";
    a_reply_is_above_its_request = "messages/merged_before_effect";
    a_wrong_clock_is_refused = "messages/refused";
    a_clients_time_is_admitted_or_not = "messages/tokens";
    a_majority_decides_whose_clock_is_wrong = "quorum/unsynced";
    a_wall_clock_stepped_back_slows_down = "wall/stepped_back";
}

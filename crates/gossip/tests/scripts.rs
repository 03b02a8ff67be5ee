//! Runs the scripts under `tests/scripts`: what a few nodes may say of their local writes, what they hold of each
//! other's, and what of it they show.
//!
//! A command's prefix is the node, a letter. Positions and log times are bare numbers.
//!
//! ```text
//! x: give 100 r1 after="y@90 r3@50"  gives a position to a write in r1; it follows y's stream up to 90, and r3's log
//! x: synced 100                      everything given up to there is on the disk
//! x: lift 110                        says that nothing at or below 110 will be given
//! z: base r1 x=40 y=40               the base of r1 here has folded so far; with it z gets to know range and origins
//! z: log r3 50                       r3's log is applied here up to there
//! z: hear x from=40 to=100           a stretch of x's stream is stored and synced here; without from: where z would
//!       ranges="r1 r2" dropped=r1@80 begin; without to: up to D. Of r1 x has dropped what is positioned up to 80
//! z: hear x via=y                    the same by y, as far as y has it; what y does not have from there z goes on from
//!                                    further on, if it can
//! z: kept r1 x                       what is stored here whole of x's stream in r1, beside W
//! z: drop r1 x=80                    what is folded and positioned up to there goes from the store
//! z: leave r1                        the replica has left
//! z: read r1 seen="x@100"            a causal read by a session that has seen so far
//! z: write seen="x@100"              a causal write: every range here must have it
//! z: overlay r1                      the deltas held of r1: those that are shown, those that are not
//! ```
//!
//! Whenever V of an origin changes, it is told, with what holds it back. A stretch up to more than D is refused by
//! the runner: no node says that.
//!
//! `UPDATE_GOLDENFILES=1 cargo test -p latitude-gossip --test scripts` writes the outputs anew.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use goldenscript::{ArgumentConsumer, Command, Context};
use latitude_gossip::{Frontier, Visible, Watermarks};
use latitude_types::{Epoch, NodeId, Past, RangeId, Stamp, Timestamp};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[test]
fn every_script_gives_what_it_says() {
    let scripts = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts"));
    assert!(!scripts.is_empty());
    for script in scripts {
        println!("{}", script.display());
        goldenscript::run(&mut Runner::default(), &script).unwrap();
    }
}

/// Every script below `directory`, in order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the directory can be read");
    let mut paths: Vec<_> =
        entries.map(|entry| entry.expect("the directory can be read").path()).collect();
    paths.sort();
    paths
        .into_iter()
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// A delta, by where it is.
type Place = (RangeId, NodeId, Timestamp);

#[derive(Default)]
struct Runner {
    nodes: BTreeMap<NodeId, Node>,
}

/// A node, and the local writes it has given positions to.
#[derive(Default)]
struct Node {
    frontier: Frontier,
    marks: Watermarks,
    visible: Visible,
    /// How far the logs are applied here.
    logs: BTreeMap<RangeId, Timestamp>,
    /// Its own stream: the range of each write, and what it follows.
    given: BTreeMap<Timestamp, (RangeId, Past)>,
    /// What it holds of others and has not folded.
    overlay: BTreeSet<Place>,
    /// What its store has of others, folded or not.
    stored: BTreeMap<Place, Past>,
    /// V of each origin, as told last.
    told: BTreeMap<NodeId, Timestamp>,
}

/// A piece of an origin's stream.
struct Stretch {
    from: Timestamp,
    to: Timestamp,
    ranges: Vec<RangeId>,
    dropped: BTreeMap<RangeId, Timestamp>,
    deltas: Vec<(Place, Past)>,
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Result<String> {
        let here = node(context.prefix.as_deref().ok_or("at which node?")?)?;
        let mut args = command.consume_args();
        let mut out = String::new();
        if command.name == "hear" {
            let origin = node(args.next_pos().ok_or("whose stream?")?)?;
            let stretch = match args.take_key("via").map(node).transpose()? {
                Some(relay) => self.relayed(here, origin, relay, &mut out)?,
                None => Some(self.stretch(here, origin, &mut args)?),
            };
            if let Some(stretch) = stretch {
                self.at(here).take_in(origin, &stretch, &mut out)?;
            }
        } else {
            self.at(here).run(here, &command.name, &mut args, &mut out)?;
        }
        args.reject_next()?;
        self.at(here).show_what_may_be(here, &mut out)?;
        Ok(out)
    }
}

impl Runner {
    fn at(&mut self, node: NodeId) -> &mut Node {
        self.nodes.entry(node).or_default()
    }

    fn stretch(
        &mut self,
        here: NodeId,
        origin: NodeId,
        args: &mut ArgumentConsumer<'_>,
    ) -> Result<Stretch> {
        let durable = self.at(origin).frontier.durable();
        let marks = &self.at(here).marks;
        let known = (1..=9).map(RangeId).filter(|range| marks.of(*range, origin).is_some());
        let ranges: Vec<_> = match args.take_key("ranges") {
            Some(ranges) => ranges.split(' ').map(range).collect::<Result<_>>()?,
            None => known.collect(),
        };
        let streamed = ranges.iter().filter_map(|range| Some(marks.kept(*range, origin)?.1)).min();
        let from =
            args.take_key("from").map(time).transpose()?.or(streamed).ok_or("from where?")?;
        let to = args.take_key("to").map(time).transpose()?.unwrap_or(durable);
        if to > durable {
            return Err(format!("D of {} is {} only", name(origin), durable.0).into());
        }
        let dropped: BTreeMap<_, _> = pairs(args.take_key("dropped").unwrap_or_default())
            .map(|(of, up_to)| Ok((range(of)?, time(up_to)?)))
            .collect::<Result<_>>()?;
        let stream = self.at(origin).given.range(from.next()..=to.max(from));
        let deltas = stream
            .filter(|(_, (of, _))| ranges.contains(of))
            .filter(|(at, (of, _))| dropped.get(of).is_none_or(|up_to| *at > up_to))
            .map(|(at, (of, past))| ((*of, origin, *at), past.clone()))
            .collect();
        Ok(Stretch { from, to, ranges, dropped, deltas })
    }

    /// What a relay sends of all that it is asked for, or `None`: it refuses some of it.
    fn relayed(
        &mut self,
        here: NodeId,
        origin: NodeId,
        relay: NodeId,
        out: &mut String,
    ) -> Result<Option<Stretch>> {
        let after: BTreeMap<_, _> = (1..=9)
            .filter_map(|range| {
                let range = RangeId(range);
                Some((range, self.at(here).marks.kept(range, origin)?.1))
            })
            .collect();
        let from = *after.values().min().ok_or("nothing is wanted of it")?;
        let of_relay = self.at(relay);
        let mut to = None::<Timestamp>;
        let mut refused = BTreeMap::new();
        for (range, after) in &after {
            match of_relay.marks.kept(*range, origin) {
                Some((above, streamed)) if from.max(*after) >= above => {
                    to = Some(to.map_or(streamed, |to| to.min(streamed)));
                }
                kept => drop(refused.insert(*range, kept.map(|(above, _)| above))),
            }
        }
        if !refused.is_empty() {
            for (range, above) in refused {
                let above = above.unwrap_or_default();
                write!(out, "{} keeps nothing of r{} up to {}: ", name(relay), range.0, above.0)?;
                let goes_on = self.at(here).marks.go_on_from(range, origin, above);
                writeln!(out, "{}", if goes_on { "heard from there" } else { "left out" })?;
            }
            return Ok(None);
        }
        let to = to.unwrap_or(from).max(from);
        let is_sent = |of: RangeId, at: Timestamp| after.contains_key(&of) && at > from && at <= to;
        let deltas = of_relay
            .stored
            .iter()
            .filter(|((of, from, at), _)| *from == origin && is_sent(*of, *at))
            .map(|(place, past)| (*place, past.clone()))
            .collect();
        let ranges = after.into_keys().collect();
        Ok(Some(Stretch { from, to, ranges, dropped: BTreeMap::new(), deltas }))
    }
}

impl Node {
    fn run(
        &mut self,
        here: NodeId,
        command: &str,
        args: &mut ArgumentConsumer<'_>,
        out: &mut String,
    ) -> Result<()> {
        match command {
            "give" => {
                let (position, of) = (next_time(args)?, next_range(args)?);
                let past = past(args.take_key("after").unwrap_or_default())?;
                if self.frontier.give(position) {
                    self.given.insert(position, (of, past));
                    writeln!(out, "D={}", self.frontier.durable().0)?;
                } else {
                    writeln!(out, "not given: it is not above what was given, or said")?;
                }
            }
            "synced" => {
                self.frontier.synced(next_time(args)?);
                writeln!(out, "D={}", self.frontier.durable().0)?;
            }
            "lift" => {
                let durable = self.frontier.lift(next_time(args)?);
                writeln!(out, "D={}", durable.0)?;
            }
            "base" => {
                let of = next_range(args)?;
                while let Some((origin, up_to)) = args.next_key() {
                    let (origin, up_to) = (node(origin)?, time(up_to)?);
                    self.marks.folded(of, origin, up_to);
                    self.visible.folded(of, origin, up_to);
                    self.overlay
                        .retain(|(range, from, at)| (*range, *from) != (of, origin) || *at > up_to);
                }
            }
            "kept" => {
                let (of, origin) = (next_range(args)?, node(args.next_pos().ok_or("of whom?")?)?);
                let (above, streamed) = self.marks.kept(of, origin).ok_or("it is not known")?;
                let held = self.marks.of(of, origin).unwrap_or_default();
                writeln!(out, "({}, {}], W={}", above.0, streamed.0, held.0)?;
            }
            "drop" => {
                let of = next_range(args)?;
                while let Some((origin, up_to)) = args.next_key() {
                    let (origin, up_to) = (node(origin)?, time(up_to)?);
                    self.marks.dropped(of, origin, up_to);
                    self.stored.retain(|(range, from, at), _| {
                        (*range, *from) != (of, origin) || *at > up_to
                    });
                }
            }
            "log" => {
                let of = next_range(args)?;
                self.logs.insert(of, next_time(args)?);
            }
            "leave" => {
                let of = next_range(args)?;
                self.marks.forget(of);
                self.visible.forget(of);
                self.overlay.retain(|(range, ..)| *range != of);
            }
            "read" => {
                let of = next_range(args)?;
                self.ask(here, Some(of), args, out)?;
            }
            "write" => self.ask(here, None, args, out)?,
            "overlay" => {
                let of = next_range(args)?;
                let held = self.overlay.iter().copied().filter(|(range, ..)| *range == of);
                let (shown, hidden): (Vec<_>, Vec<_>) =
                    held.partition(|(_, origin, at)| *at <= self.visible.of(*origin));
                writeln!(out, "shown: {}; not shown: {}", listed(shown), listed(hidden))?;
            }
            other => return Err(format!("unknown command {other}").into()),
        }
        Ok(())
    }

    /// What a node does with a stretch, once its deltas are stored and synced.
    fn take_in(&mut self, origin: NodeId, stretch: &Stretch, out: &mut String) -> Result<()> {
        let Stretch { from, to, ranges, dropped, deltas } = stretch;
        let brought = deltas.iter().map(|(place, _)| *place);
        writeln!(out, "({}, {}]: {}", from.0, to.0, listed(brought))?;
        for (place @ (of, _, at), past) in deltas {
            if self.marks.kept(*of, origin).is_some_and(|(_, streamed)| *at > streamed) {
                self.stored.insert(*place, past.clone());
            }
            if self.marks.of(*of, origin).is_some_and(|mark| *at > mark) {
                self.visible.hold(*of, origin, *at, past.clone());
                self.overlay.insert(*place);
            }
        }
        for range in ranges {
            let begins = dropped.get(range).map_or(*from, |up_to| *up_to.max(from));
            let lifted = self.marks.lift(*range, origin, begins, *to);
            let (of, at) = (range.0, name(origin));
            match self.marks.of(*range, origin) {
                None => writeln!(out, "r{of} does not know {at}")?,
                Some(mark) if lifted => writeln!(out, "r{of}: W[{at}]={}", mark.0)?,
                Some(mark) => {
                    writeln!(out, "r{of}: W[{at}]={}, behind a gap up to {}", mark.0, begins.0)?;
                }
            }
        }
        Ok(())
    }

    fn ask(
        &self,
        here: NodeId,
        of: Option<RangeId>,
        args: &mut ArgumentConsumer<'_>,
        out: &mut String,
    ) -> Result<()> {
        let seen = past(args.take_key("seen").unwrap_or_default())?.seen;
        match self.visible.unreadable(here, of, &seen, &self.marks) {
            None => writeln!(out, "goes on")?,
            Some(unmet) => {
                writeln!(out, "waits for {} up to {}", name(unmet.origin), unmet.up_to.0)?;
            }
        }
        Ok(())
    }

    fn show_what_may_be(&mut self, here: NodeId, out: &mut String) -> Result<()> {
        let Self { frontier, marks, visible, logs, told, .. } = self;
        visible.show_own(here, frontier.durable());
        let applied = |range| logs.get(&range).copied().unwrap_or_default();
        visible.advance(here, marks, |past| {
            past.log.iter().all(|(range, _, stamp)| stamp.time <= applied(*range))
        });
        for origin in marks.origins() {
            let now = visible.of(origin);
            if told.insert(origin, now).unwrap_or_default() == now {
                continue;
            }
            let held = visible.blocked().find(|(blocked, at, _)| {
                *blocked == origin && marks.least(origin).is_some_and(|held| *at <= held)
            });
            let why = held.map(|(_, at, past)| format!("; {} follows {}", at.0, followed(past)));
            writeln!(out, "V[{}]={}{}", name(origin), now.0, why.unwrap_or_default())?;
        }
        Ok(())
    }
}

fn next_time(args: &mut ArgumentConsumer<'_>) -> Result<Timestamp> {
    time(args.next_pos().ok_or("which time?")?)
}

fn next_range(args: &mut ArgumentConsumer<'_>) -> Result<RangeId> {
    range(args.next_pos().ok_or("which range?")?)
}

/// A letter is a node.
fn node(name: &str) -> Result<NodeId> {
    match name.as_bytes() {
        [letter @ b'a'..=b'z'] => Ok(NodeId(u32::from(*letter))),
        _ => Err(format!("{name:?} is no node: a letter is").into()),
    }
}

fn name(node: NodeId) -> char {
    char::from_u32(node.0).unwrap_or('?')
}

fn range(name: &str) -> Result<RangeId> {
    let number = name.strip_prefix('r').ok_or_else(|| format!("{name:?} is no range: r1 is"))?;
    Ok(RangeId(number.parse()?))
}

fn time(text: &str) -> Result<Timestamp> {
    Ok(Timestamp(text.parse()?))
}

/// `a@1 b@2`
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = text.split(' ').filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('@').unwrap_or((part, "")))
}

/// Of nodes positions, of ranges log times.
fn past(text: &str) -> Result<Past> {
    let mut past = Past::default();
    for (of, at) in pairs(text) {
        match range(of) {
            Ok(range) => {
                past.add_log(range, Epoch(1), Stamp { time: time(at)?, node: NodeId(1) });
            }
            Err(_) => past.seen.raise(node(of)?, time(at)?),
        }
    }
    Ok(past)
}

fn followed(past: &Past) -> String {
    let seen = past.seen.by_node.iter().map(|(node, at)| format!("{}@{}", name(*node), at.0));
    let log = past.log.iter().map(|(range, _, stamp)| format!("r{}@{}", range.0, stamp.time.0));
    seen.chain(log).collect::<Vec<_>>().join(", ")
}

fn listed(places: impl IntoIterator<Item = Place>) -> String {
    let places = places.into_iter();
    let places: Vec<_> =
        places.map(|(of, origin, at)| format!("{}@{} in r{}", name(origin), at.0, of.0)).collect();
    if places.is_empty() { "nothing".into() } else { places.join(", ") }
}

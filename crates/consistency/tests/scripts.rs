//! Runs the golden scripts: levels, read-index rounds and ids, step by step.
//!
//! Times are plain milliseconds. `UPDATE_GOLDENFILES=1 cargo test -p latitude-consistency` writes the
//! outputs anew.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use latitude_consistency::{
    Closed, ClosedTimes, KeyspaceLevels, Known, LogPlace, NextRound, Operation, Origin,
    OriginStatus, ROUNDS_IN_FLIGHT_MAX, RoundId, Rounds, SequentialRead, check_id_age,
    local_id_may_be_dropped, log_id_may_be_dropped, may_close, plan, staleness,
};
use latitude_types::{Level, NodeId, Stamp, Timestamp};

#[derive(goldenscript::Command)]
enum Command {
    /// Creates the keyspace that later requests are for.
    Keyspace {
        #[arg(key)]
        default: Level,
        #[arg(key, optional)]
        log_only: bool,
    },
    /// Plans a read, at a level or none.
    Read { level: Option<Level> },
    /// Plans a write.
    Write { level: Option<Level> },
    /// Plans a conditional write.
    Condition { level: Option<Level> },
    /// Reads arrive.
    Join(Vec<String>),
    /// Starts a round if one may start.
    Start,
    /// A round ends: with an index, or failed.
    End {
        round: u64,
        #[arg(key)]
        index: Option<u64>,
    },
    /// A replica applies its log up to an entry, as `term.index`, with this stamp.
    Apply {
        entry: String,
        #[arg(key)]
        stamp: u64,
    },
    /// A replica hears from its leader: up to `term.index` everything stamped up to a time is there.
    Hear {
        entry: String,
        #[arg(key)]
        closed: u64,
        #[arg(key, optional)]
        asked: u64,
    },
    /// Whether a leader may close a time in a range frozen at another.
    Close {
        time: u64,
        #[arg(key)]
        freeze: Option<u64>,
    },
    /// A sequential read of a session that stands at a time, on the monotonic clock `now`.
    Serve {
        #[arg(key, optional)]
        stood: u64,
        #[arg(key, optional)]
        now: u64,
        #[arg(key)]
        max_staleness: Option<u64>,
    },
    /// A read's deadline passes while it waits.
    GiveUp { read: String },
    /// Checks an id's age.
    Age {
        #[arg(key)]
        birth: u64,
        #[arg(key)]
        at: u64,
    },
    /// Whether a log id may be dropped.
    DropLog {
        #[arg(key)]
        birth: u64,
        #[arg(key)]
        last_stamp: u64,
    },
    /// Whether a local id may be dropped; origins as `status=folded`.
    DropLocal {
        birth: u64,
        last_stamp: u64,
        #[arg(key, many, optional)]
        origins: Vec<(String, u64)>,
    },
}

#[derive(Default)]
struct Runner {
    keyspace: Option<KeyspaceLevels>,
    rounds: Rounds<String>,
    started: BTreeMap<u64, RoundId>,
    times: ClosedTimes,
    applied: LogPlace,
    last_stamp: Stamp,
}

fn place(entry: &str) -> Result<LogPlace, Box<dyn Error>> {
    let (term, index) = entry.split_once('.').ok_or("an entry is term.index")?;
    Ok(LogPlace { term: term.parse()?, index: index.parse()? })
}

/// A stamp of node 1.
fn stamp(ms: u64) -> Stamp {
    if ms == 0 { Stamp::ZERO } else { Stamp { time: Timestamp::from_ms(ms), node: NodeId(1) } }
}

/// A stamp as the scripts name it.
fn shown(stamp: Stamp) -> String {
    let all = if stamp.node == NodeId(u32::MAX) { ", whichever node's" } else { "" };
    format!("{}{all}", stamp.time.ms())
}

fn status(name: &str) -> Result<OriginStatus, Box<dyn Error>> {
    // A digit tells origins of the same status apart.
    Ok(match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "active" => OriginStatus::Active,
        "sealed" => OriginStatus::Sealed,
        "lost" => OriginStatus::Lost,
        "forgotten" => OriginStatus::Forgotten,
        other => return Err(format!("no status {other}").into()),
    })
}

impl Runner {
    fn plan(&self, operation: Operation, level: Option<Level>) -> Result<String, Box<dyn Error>> {
        let keyspace = self.keyspace.ok_or("no keyspace")?;
        Ok(match plan(operation, level, keyspace) {
            Ok(plan) => format!("{} {:?}", plan.level, plan.route),
            Err(error) => error.to_string(),
        })
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(
        &mut self,
        command: &Command,
        _: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        let ms = |ms: u64| Timestamp::from_ms(ms);
        let verdict = |may| if may { "may be dropped" } else { "stays" };
        let mut out = String::new();
        match command {
            Command::Keyspace { default, log_only } => {
                self.keyspace = Some(KeyspaceLevels::new(*default, *log_only));
            }
            Command::Read { level } => writeln!(out, "{}", self.plan(Operation::Read, *level)?)?,
            Command::Write { level } => writeln!(out, "{}", self.plan(Operation::Write, *level)?)?,
            Command::Condition { level } => {
                writeln!(out, "{}", self.plan(Operation::ConditionalWrite, *level)?)?;
            }
            Command::Join(reads) => reads.iter().for_each(|read| self.rounds.join(read.clone())),
            Command::Start => match self.rounds.next_round(Duration::ZERO) {
                NextRound::Starts(round) => {
                    self.started.insert(self.started.len() as u64 + 1, round);
                    writeln!(out, "{round} starts; {} wait", self.rounds.waiting())?;
                }
                NextRound::NotBefore(_) | NextRound::No => writeln!(
                    out,
                    "no round starts; {} wait, {} rounds in flight",
                    self.rounds.waiting(),
                    self.rounds.in_flight()
                )?,
            },
            Command::End { round, index } => {
                let round = *self.started.get(round).ok_or("no such round")?;
                let done = self.rounds.completed(round, index.ok_or("no quorum"), Duration::ZERO);
                match done.outcome {
                    Ok(index) => writeln!(out, "{:?} wait for index {index}", done.waiters)?,
                    Err(error) => writeln!(out, "{:?} fail: {error}", done.waiters)?,
                }
            }
            Command::Apply { entry, stamp: last } => {
                (self.applied, self.last_stamp) = (place(entry)?, stamp(*last));
            }
            Command::Hear { entry, closed, asked } => self.times.learn(Closed {
                at: place(entry)?,
                time: ms(*closed),
                asked: Duration::from_millis(*asked),
            }),
            Command::Close { time, freeze } => {
                let may = may_close(ms(*time), freeze.map(ms));
                writeln!(out, "{}", if may { "closed" } else { "not closed" })?;
            }
            Command::Serve { stood, now, max_staleness } => {
                let closed = self.times.reached(self.applied);
                let last_stamp = self.last_stamp;
                let now = Duration::from_millis(*now);
                let staleness = staleness(closed, now, last_stamp, 0, None);
                let known = Known { last_stamp, closed, staleness };
                let most = max_staleness.map(Duration::from_millis);
                match known.sequential_read(stamp(*stood), most) {
                    SequentialRead::Answer { stands_at } => {
                        let age = staleness
                            .map_or("of unknown age".into(), |age| format!("{age:?} old at most"));
                        writeln!(
                            out,
                            "answered, {age}; the session stands at {}",
                            shown(stands_at)
                        )?;
                    }
                    SequentialRead::Behind { up_to } => {
                        writeln!(out, "waits: everything is known up to {}", shown(up_to))?;
                    }
                    SequentialRead::Stale => {
                        let age = staleness.map_or("unknown".into(), |age| format!("{age:?}"));
                        writeln!(out, "waits: its age may be {age}")?;
                    }
                }
            }
            Command::GiveUp { read } => self.rounds.retain(|waiting| waiting != read),
            Command::Age { birth, at } => match check_id_age(ms(*birth), ms(*at)) {
                Ok(()) => writeln!(out, "taken")?,
                Err(error) => writeln!(out, "{error}")?,
            },
            Command::DropLog { birth, last_stamp } => {
                writeln!(out, "{}", verdict(log_id_may_be_dropped(ms(*birth), ms(*last_stamp))))?;
            }
            Command::DropLocal { birth, last_stamp, origins } => {
                let origins = origins
                    .iter()
                    .map(|(name, folded)| Ok(Origin { status: status(name)?, folded: ms(*folded) }))
                    .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
                let may = local_id_may_be_dropped(ms(*birth), ms(*last_stamp), origins);
                writeln!(out, "{}", verdict(may))?;
            }
        }
        Ok(out)
    }
}

fn run(script: &str) {
    let path = Path::new("tests/scripts").join(script);
    let rounds = Rounds::new(ROUNDS_IN_FLIGHT_MAX, Duration::ZERO);
    goldenscript::run(&mut Runner { rounds, ..Runner::default() }, path)
        .expect("the script is readable");
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
    a_frozen_range_closes_nothing_more = "closed/frozen";
    what_a_replica_knows_is_what_it_has_reached = "closed/reached";
    a_session_waits_until_the_replica_knows_enough = "closed/sessions";
    an_answer_is_as_old_as_its_question = "closed/staleness";
    ids_are_dropped_when_no_copy_can_come = "ids/dropped";
    ids_are_taken_for_ten_minutes = "ids/taken";
    a_condition_is_judged_in_the_log = "levels/conditions";
    a_level_is_served_or_refused = "levels/served";
    a_read_joins_a_round_that_starts_later = "rounds/arrival";
    a_lost_round_holds_up_nobody = "rounds/overtaken";
}

//! Runs the golden scripts: levels, read-index rounds and ids, step by step.
//!
//! Times are plain milliseconds. `UPDATE_GOLDENFILES=1 cargo test -p latitude-consistency` writes the
//! outputs anew.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use latitude_consistency::{
    KeyspaceLevels, Operation, Origin, OriginStatus, RoundId, Rounds, check_id_age,
    local_id_may_be_dropped, log_id_may_be_dropped, plan,
};
use latitude_types::{Level, Timestamp};

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
                match KeyspaceLevels::new(*default, *log_only) {
                    Ok(keyspace) => self.keyspace = Some(keyspace),
                    Err(error) => writeln!(out, "{error}")?,
                }
            }
            Command::Read { level } => writeln!(out, "{}", self.plan(Operation::Read, *level)?)?,
            Command::Write { level } => writeln!(out, "{}", self.plan(Operation::Write, *level)?)?,
            Command::Condition { level } => {
                writeln!(out, "{}", self.plan(Operation::ConditionalWrite, *level)?)?;
            }
            Command::Join(reads) => reads.iter().for_each(|read| self.rounds.join(read.clone())),
            Command::Start => match self.rounds.next_round() {
                Some(round) => {
                    self.started.insert(self.started.len() as u64 + 1, round);
                    writeln!(out, "{round} starts; {} wait", self.rounds.waiting())?;
                }
                None => writeln!(
                    out,
                    "no round starts; {} wait, {} rounds in flight",
                    self.rounds.waiting(),
                    self.rounds.in_flight()
                )?,
            },
            Command::End { round, index } => {
                let round = *self.started.get(round).ok_or("no such round")?;
                let done = self.rounds.completed(round, index.ok_or("no quorum"));
                match done.outcome {
                    Ok(index) => writeln!(out, "{:?} wait for index {index}", done.waiters)?,
                    Err(error) => writeln!(out, "{:?} fail: {error}", done.waiters)?,
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
    ids_are_dropped_when_no_copy_can_come = "ids/dropped";
    ids_are_taken_for_ten_minutes = "ids/taken";
    a_condition_is_judged_in_the_log = "levels/conditions";
    a_level_is_served_or_refused = "levels/served";
    a_read_joins_a_round_that_starts_later = "rounds/arrival";
    a_lost_round_holds_up_nobody = "rounds/overtaken";
}

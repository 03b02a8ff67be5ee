//! Bugs planted one after another, and whether the general simulation notices.
//!
//! ```text
//!   build latitude-sim once, with the feature `planted`
//!   each bug:  PLANT=bug latitude-sim --seed 0, 1, 2, ...   until something is found wrong, or time is up
//!   no bug:               latitude-sim --seeds 0..most      must find nothing
//! ```
//!
//! The seeds are the same for every bug and in their order; none was chosen for one. So the table says how much
//! the simulation notices of what nobody has thought of.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cargo::{Metadata, cargo, output, run};

/// How long a bug may go unnoticed.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Bugs at once.
const JOBS: usize = 2;
/// How often a run is asked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What the simulation says of itself shows nothing about the database.
const SIMULATION: &str = "simulation";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    /// These bugs alone; none: all.
    only: Vec<String>,
    limit: Duration,
}

impl Arguments {
    fn parse(args: &[String]) -> Result<Self> {
        let mut parsed = Self { only: Vec::new(), limit: LIMIT };
        let mut args = args.iter();
        while let Some(name) = args.next() {
            let value = args.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--only" => parsed.only.push(value.clone()),
                "--minutes" => {
                    let minutes: f64 =
                        value.parse().with_context(|| format!("--minutes {value}"))?;
                    parsed.limit = Duration::try_from_secs_f64(minutes * 60.0)?;
                }
                _ => bail!("takes --only NAME and --minutes M, got `{name}`"),
            }
        }
        Ok(parsed)
    }
}

/// What became of a bug.
#[derive(Debug)]
struct Row {
    bug: String,
    /// How many seeds were run.
    seeds: u64,
    wall: Duration,
    caught: Option<Caught>,
}

#[derive(Debug, PartialEq)]
struct Caught {
    seed: u64,
    check: String,
    simulated: Duration,
}

/// Plants every bug, and fails if one is not noticed, or if something is wrong without one.
pub(crate) fn planted(args: &[String]) -> Result<()> {
    let Arguments { only, limit } = Arguments::parse(args)?;
    let program = build()?;
    let listed = output(Command::new(&program).arg("--plants"))?;
    let bugs: Vec<String> = listed.lines().map(str::to_owned).collect();
    if let Some(unknown) = only.iter().find(|name| !bugs.contains(name)) {
        bail!("there is no bug `{unknown}`, only {}", bugs.join(", "));
    }
    let wanted = |bug: &String| only.is_empty() || only.contains(bug);
    let bugs: Vec<_> = bugs.into_iter().filter(wanted).collect();
    let rows = in_parallel(bugs, |bug| hunt(&program, bug, limit))?;
    let most = rows.iter().map(|row| row.seeds).max().unwrap_or(0);
    println!("\nwithout a bug, seeds 0..{most}:");
    let seeds = ["--seeds".to_owned(), format!("0..{most}")];
    let sound = run(without_plant(&program).args(&seeds).args(["--jobs", &JOBS.to_string()]));
    println!("\n{}", table(&rows));
    sound.context("something is wrong without a planted bug")?;
    let missed: Vec<_> =
        rows.iter().filter(|row| row.caught.is_none()).map(|row| row.bug.as_str()).collect();
    ensure!(missed.is_empty(), "not caught: {}", missed.join(", "));
    Ok(())
}

/// Builds the simulation with the bugs in it. Returns where a copy lies that no other build replaces.
fn build() -> Result<PathBuf> {
    let built = ["build", "-p", "latitude-sim", "--bin", "latitude-sim", "--features", "planted"];
    run(&mut cargo(&built))?;
    let target = Metadata::load()?.target_dir()?;
    let program = target.join("planted").join("latitude-sim");
    fs::create_dir_all(target.join("planted"))?;
    fs::copy(target.join("debug").join("latitude-sim"), &program)
        .with_context(|| format!("cannot write {}", program.display()))?;
    Ok(program)
}

/// Does something with each bug, two at a time; the rows in the order of the bugs.
fn in_parallel(bugs: Vec<String>, hunt: impl Fn(&str) -> Result<Row> + Sync) -> Result<Vec<Row>> {
    let waiting = Mutex::new(bugs.iter().enumerate());
    let rows: Mutex<Vec<(usize, Result<Row>)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((at, bug)) = next else { return };
                    let row = hunt(bug);
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push((at, row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(at, _)| *at);
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Runs seed after seed with a bug, until something is wrong or the time is up.
fn hunt(program: &Path, bug: &str, limit: Duration) -> Result<Row> {
    let begun = now();
    let mut row = Row { bug: bug.into(), seeds: 0, wall: Duration::ZERO, caught: None };
    while row.caught.is_none() && begun.elapsed() < limit {
        let mut command = without_plant(program);
        command.env("PLANT", bug).args(["--json", "--seed", &row.seeds.to_string()]);
        let Some(told) = output_within(&mut command, limit.saturating_sub(begun.elapsed()))? else {
            break;
        };
        row.caught = caught(row.seeds, &told);
        row.seeds += 1;
        row.wall = begun.elapsed();
    }
    match &row.caught {
        Some(Caught { seed, check, .. }) => println!("{bug}: caught by {check}, seed {seed}"),
        None => println!("{bug}: NOT caught, {} seeds", row.seeds),
    }
    Ok(row)
}

fn without_plant(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("PLANT");
    command
}

/// What a program prints, if it ends in time.
fn output_within(command: &mut Command, limit: Duration) -> Result<Option<Vec<u8>>> {
    let mut child: Child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start a run")?;
    let begun = now();
    // A report is shorter than what a pipe holds, so it is written whether it is read or not.
    while child.try_wait().context("a run")?.is_none() {
        if begun.elapsed() >= limit {
            child.kill().context("a run")?;
            child.wait().context("a run")?;
            return Ok(None);
        }
        pause();
    }
    Ok(Some(child.wait_with_output().context("a run")?.stdout))
}

/// What the report of a run says was wrong. A process that died without a report has panicked.
fn caught(seed: u64, report: &[u8]) -> Option<Caught> {
    let Ok(report) = serde_json::from_slice::<Value>(report) else {
        return Some(Caught { seed, check: "panic".into(), simulated: Duration::ZERO });
    };
    let wrong = &report["wrong"];
    let check = wrong["check"].as_str().filter(|check| *check != SIMULATION)?.to_owned();
    let simulated = Duration::from_millis(wrong["simulated_ms"].as_u64().unwrap_or(0));
    Some(Caught { seed, check, simulated })
}

/// The rows, as a table of Markdown.
fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| bug | caught | by | seed | seeds run | simulated until then | took |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for Row { bug, seeds, wall, caught } in rows {
        let (said, check, seed, simulated) = match caught {
            Some(Caught { seed, check, simulated }) => (
                "yes",
                check.as_str(),
                seed.to_string(),
                format!("{:.1} s", simulated.as_secs_f64()),
            ),
            None => ("**no**", "", String::new(), String::new()),
        };
        let wall = wall.as_secs();
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "| `{bug}` | {said} | {check} | {seed} | {seeds} | {simulated} | {wall} s |"
        );
    }
    table
}

#[expect(clippy::disallowed_methods, reason = "shows a person how long a bug went unnoticed")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "waits for a process; nothing here is simulated")]
fn pause() {
    thread::sleep(LOOK_EVERY);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_arguments_name_bugs_and_a_limit() {
        let all = Arguments { only: vec![], limit: LIMIT };
        assert_eq!(Arguments::parse(&[]).unwrap(), all);
        let some = Arguments::parse(&words("--only a --minutes 1.5 --only b")).unwrap();
        assert_eq!((some.only, some.limit), (words("a b"), Duration::from_secs(90)));
        for wrong in ["--only", "--minutes x", "--minutes -1", "--all yes"] {
            assert!(Arguments::parse(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bug_is_caught_by_a_check_and_not_by_a_fault_of_the_simulation() {
        let told = r#"{"seed":3,"wrong":{"check":"INV-3","message":"m","simulated_ms":1500}}"#;
        let inv_3 =
            Caught { seed: 3, check: "INV-3".into(), simulated: Duration::from_millis(1500) };
        assert_eq!(caught(3, told.as_bytes()), Some(inv_3));
        let simulation = r#"{"seed":3,"wrong":{"check":"simulation","message":"m"}}"#;
        assert_eq!(caught(3, simulation.as_bytes()), None);
        assert_eq!(caught(3, br#"{"seed":3,"wrong":null}"#), None);
        assert_eq!(caught(3, b"").map(|caught| caught.check), Some("panic".into()));
    }

    #[test]
    fn the_table_tells_what_was_not_caught() {
        let rows = in_parallel(words("a b c"), |bug| {
            let caught = (bug != "b").then(|| caught(1, b"").unwrap());
            Ok(Row { bug: bug.into(), seeds: 2, wall: Duration::from_secs(3), caught })
        });
        let table = table(&rows.unwrap());
        let rows: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(rows[0], "| `a` | yes | panic | 1 | 2 | 0.0 s | 3 s |");
        assert_eq!(rows[1], "| `b` | **no** |  |  | 2 |  | 3 s |");
        assert_eq!(rows.len(), 3);
    }

    #[test]
    fn a_run_that_does_not_end_is_ended() {
        let mut sleeps = Command::new("/bin/sh");
        sleeps.args(["-c", "exec sleep 60"]);
        assert_eq!(output_within(&mut sleeps, Duration::from_millis(50)).unwrap(), None);
        let mut speaks = Command::new("/bin/sh");
        speaks.args(["-c", "echo a"]);
        let told = output_within(&mut speaks, Duration::from_secs(60)).unwrap();
        assert_eq!(told, Some(b"a\n".to_vec()));
    }
}

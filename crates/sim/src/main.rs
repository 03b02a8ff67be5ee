//! `latitude-sim` runs seeds and says what it found.
//!
//! ```text
//!   --seeds 0..200            each of them, a line each, then a summary
//!   --seeds 0.. --minutes 90  as many as there is time for
//!   --long --seeds 0..20      quarters of an hour, in which what is kept for ten minutes is dropped
//!   --seed 17 --trace t.txt   one of them again, with every event
//! ```
//!
//! A seed runs on one thread, and seeds know nothing of each other, so `--jobs` runs several side by side, each in
//! a process of its own.
//!
//! Exit status: 0 if nothing wrong was found, 1 if something was, 2 if the arguments are wrong.

#![expect(clippy::print_stdout, reason = "a command-line tool talks on its standard output")]

mod tally;

use std::fs::File;
use std::io::{self, BufWriter};
use std::ops::RangeFrom;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use std::{env, thread};

use anyhow::{Context, Result, bail};
use clap::Parser;
use latitude_probe::{PLANTED, Plant};
use latitude_sim::scenario::{self, Length, Ran, STANDARD};
use latitude_sim::{Check, Trace};
use tally::{Report, Tally};
use tracing_subscriber::EnvFilter;

/// How long a nightly run lasts.
const NIGHTLY_MINUTES: f64 = 240.0;

/// Simulates clusters, each from a seed, and says what was wrong.
#[derive(Parser, Debug)]
#[command(name = "latitude-sim")]
struct Arguments {
    /// The seeds to run: `A..B` (B excluded), or `A..` together with `--minutes`.
    #[arg(long, value_name = "A..B", default_value = "0..60", conflicts_with = "seed")]
    seeds: Seeds,
    /// Runs this one seed.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Prints every event of the seed, to FILE if one is named.
    #[arg(long, value_name = "FILE", num_args = 0..=1, requires = "seed")]
    trace: Option<Option<PathBuf>>,
    /// Quarters of an hour instead of half minutes, with fewer operations a second.
    #[arg(long)]
    long: bool,
    /// Begins no seed after this many minutes.
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// Runs seeds that no other run is likely to have had, for four hours unless `--minutes` says otherwise, and
    /// prints where they began.
    #[arg(long, conflicts_with_all = ["seed", "seeds"])]
    nightly: bool,
    /// How many seeds run side by side.
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: u32,
    /// Runs each seed twice, and demands that both runs are the same to the last event.
    #[arg(long)]
    twice: bool,
    /// Begins no seed once something was wrong.
    #[arg(long)]
    stop: bool,
    /// Prints the report of the seed as JSON.
    #[arg(long, requires = "seed")]
    json: bool,
    /// Prints the names of the bugs that `PLANT` can plant in this build, one a line.
    #[arg(long, exclusive = true)]
    plants: bool,
    /// Prints what nodes and clients log, filtered like `latitude_node=debug,openraft=info`.
    #[arg(long, value_name = "FILTER", requires = "seed")]
    log: Option<String>,
}

impl Arguments {
    fn length(&self) -> Length {
        if self.long { Length::Long } else { Length::Short }
    }
}

/// Seeds in a row; without an end they are as many as there is time for.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seeds {
    from: u64,
    until: Option<u64>,
}

impl std::str::FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.trim().parse::<u64>().map_err(|error| format!("{text:?} is no seed: {error}"))
        };
        let (from, until) = text.split_once("..").ok_or("seeds are A..B, or A.. with --minutes")?;
        let until = (!until.is_empty()).then(|| number(until)).transpose()?;
        Ok(Self { from: number(from)?, until })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(filter) = &arguments.log {
        let filter = EnvFilter::new(filter);
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .without_time()
            .init();
    }
    if arguments.plants {
        let plants = Plant::ALL.iter().filter(|_| PLANTED);
        plants.for_each(|plant| println!("{}", plant.name()));
        return ExitCode::SUCCESS;
    }
    let found = match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None => many(&arguments),
    };
    match found {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("latitude-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs one seed; whether it was right.
fn one(seed: u64, arguments: &Arguments) -> Result<bool> {
    let ran = run(seed, arguments.length(), arguments.twice);
    if let Some(file) = &arguments.trace {
        write_trace(ran.trace.as_ref(), file.as_ref())?;
    }
    let report = Report::new(seed, arguments.length(), &ran);
    if arguments.json {
        println!("{}", serde_json::to_string(&report).context("a report is always JSON")?);
    } else {
        println!("{report}");
    }
    Ok(report.is_right())
}

fn write_trace(trace: Option<&Trace>, file: Option<&PathBuf>) -> Result<()> {
    let trace = trace.context("the run did not begin: there is no trace")?;
    match file {
        Some(path) => {
            let shown = || format!("cannot write {}", path.display());
            trace.write(BufWriter::new(File::create(path).with_context(shown)?)).with_context(shown)
        }
        None => trace.write(io::stdout().lock()).context("cannot write the trace"),
    }
}

/// Runs many seeds, each in a process of its own; whether all were right.
///
/// Tokio numbers tasks through the whole process, so two runs at once in one would disturb each other.
fn many(arguments: &Arguments) -> Result<bool> {
    let Seeds { from, until } = match arguments.nightly {
        true => nightly(),
        false => arguments.seeds.clone(),
    };
    if until.is_none() && arguments.minutes.is_none() && !arguments.nightly {
        bail!("seeds without an end need --minutes");
    }
    let program = env::current_exe().context("this program has no path")?;
    let begun = now();
    let minutes = arguments.minutes.or(arguments.nightly.then_some(NIGHTLY_MINUTES));
    let limit = minutes.map(|minutes| Duration::from_secs_f64(minutes.max(0.0) * 60.0));
    let is_over = |next: u64, tally: &Tally| {
        until.is_some_and(|until| next >= until)
            || limit.is_some_and(|limit| begun.elapsed() >= limit)
            || (arguments.stop && tally.wrong() > 0)
    };
    let state: Mutex<(RangeFrom<u64>, Tally)> = Mutex::new((from.., Tally::default()));
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || -> Result<()> {
        loop {
            let seed = {
                let (seeds, tally) = &mut *lock();
                if is_over(seeds.start, tally) {
                    return Ok(());
                }
                seeds.next().context("seeds do not run out")?
            };
            let report = run_apart(&program, seed, arguments)?;
            let (_, tally) = &mut *lock();
            tally.count(&report, if arguments.twice { 2 } else { 1 });
            println!("{report}");
        }
    };
    let worked: Vec<Result<()>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    worked.into_iter().collect::<Result<()>>()?;
    let (_, tally) = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{}", tally.summary(begun.elapsed()));
    // Fewer seeds owe nothing, and a bug that was planted keeps from what lies behind it.
    let owes_marks = !arguments.long
        && from == STANDARD.start
        && until.is_none_or(|until| until >= STANDARD.end);
    let misses = owes_marks && !PLANTED && tally.wrong() == 0 && !tally.missed().is_empty();
    Ok(tally.wrong() == 0 && !misses)
}

/// Seeds that begin with the second of now, far above those that people name.
#[expect(clippy::disallowed_methods, reason = "chooses the seeds of a run, outside of any")]
fn nightly() -> Seeds {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let from = now.as_secs() << 20;
    println!("seeds from {from}");
    Seeds { from, until: None }
}

/// Runs a seed in a process of its own.
fn run_apart(program: &Path, seed: u64, arguments: &Arguments) -> Result<Report> {
    let mut command = Command::new(program);
    command
        .args(["--json", "--seed", &seed.to_string()])
        .args(arguments.twice.then_some("--twice"))
        .args(arguments.long.then_some("--long"));
    let output = command.stderr(Stdio::piped()).output().context("cannot start a run")?;
    let report = serde_json::from_slice(&output.stdout);
    Ok(report.unwrap_or_else(|_| {
        let last = String::from_utf8_lossy(&output.stderr);
        let last = last.trim_end().rsplit('\n').next().unwrap_or_default();
        let what = format!("the process of the run died ({}): {last}", output.status);
        let result = Err(Check::Panic.found(what));
        Report::new(seed, arguments.length(), &Ran { result, trace: None, marks: Vec::new() })
    }))
}

/// Runs a seed, twice if that is asked for.
fn run(seed: u64, length: Length, twice: bool) -> Ran {
    let mut ran = scenario::run_traced(seed, length);
    if twice {
        let again = scenario::run_traced(seed, length);
        let difference = match (&ran.trace, &again.trace) {
            (Some(one), Some(other)) => one.first_difference(other),
            // What kept them from beginning is told already.
            (None, None) => None,
            (..) => Some("one of the two runs did not begin".into()),
        };
        if let Some(difference) = difference {
            ran.result = Err(Check::Determinism.found(difference));
        }
    }
    ran
}

#[expect(clippy::disallowed_methods, reason = "shows a person how long the seeds took")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_with_or_without_an_end() {
        assert_eq!("3..9".parse(), Ok(Seeds { from: 3, until: Some(9) }));
        assert_eq!("3..".parse(), Ok(Seeds { from: 3, until: None }));
        assert!("3".parse::<Seeds>().is_err());
        assert!("a..b".parse::<Seeds>().is_err());
    }

    #[test]
    fn the_arguments_fit_together() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        assert!(Arguments::try_parse_from(["sim", "--trace"]).is_err(), "of which seed?");
        let one = Arguments::try_parse_from(["sim", "--seed", "7", "--trace"]).unwrap();
        assert_eq!((one.seed, one.trace), (Some(7), Some(None)));
    }
}

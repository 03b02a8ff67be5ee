//! `latitude-checker [--level LEVEL] [--check CHECK] FILE...` judges recorded histories.
//!
//! Without `--check` a history is held against its level:
//! - `strict`, the default: every key, a register, counter or list, is linearizable, and its versions do not go
//!   down;
//! - `sequential`: the whole store is sequentially consistent;
//! - `causal`: the whole store is causally convergent, over operations of all levels.
//!
//! With `--check` it is held against one promise, and the level (`eventual` too) is what operations are taken
//! for that name none: `sessions` (the four session guarantees), `counter`, `set`, `durability` (the final reads
//! show every acknowledged write), `convergence` (the final reads are the same on all nodes).
//!
//! Exit status: 0 if every file is as consistent as asked, 1 if one is not, else 2 if one could not be read or
//! judged, or if the arguments are wrong.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use latitude_checker::history::Operation;
use latitude_checker::linearizable::{self, Budget, monitor};
use latitude_checker::promise::{Report, Verdict};
use latitude_checker::{History, Level};
use latitude_checker::{causal, convergence, counter, durability, sequential, sessions, set};

const USAGE: &str = "\
usage: latitude-checker [--level strict|sequential|causal] FILE...
       latitude-checker [--level strict|sequential|causal|eventual]
                        --check sessions|counter|set|durability|convergence FILE...";

fn main() -> ExitCode {
    let Some((asked, files)) = arguments(std::env::args_os().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(UNKNOWN);
    };
    let mut worst = HOLDS;
    for file in files {
        let (status, text) = judge(asked, &file);
        say(&format!("{}: {text}", file.to_string_lossy()));
        // A violation outweighs a file nobody could judge.
        if worst != VIOLATION && status != HOLDS {
            worst = status;
        }
    }
    ExitCode::from(worst)
}

const HOLDS: u8 = 0;
const VIOLATION: u8 = 1;
const UNKNOWN: u8 = 2;

/// What a history is held against.
#[derive(Clone, Copy)]
struct Asked {
    /// `None`: what the check takes it to be.
    level: Option<Level>,
    /// `None`: the level.
    check: Option<Check>,
}

/// One promise.
#[derive(Clone, Copy)]
enum Check {
    Sessions,
    Counter,
    Set,
    Durability,
    Convergence,
}

impl Check {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "sessions" => Self::Sessions,
            "counter" => Self::Counter,
            "set" => Self::Set,
            "durability" => Self::Durability,
            "convergence" => Self::Convergence,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Counter => "counter",
            Self::Set => "set",
            Self::Durability => "durability",
            Self::Convergence => "convergence",
        }
    }
}

/// What is asked and the files; `None` if that is not what the arguments are.
fn arguments(arguments: impl Iterator<Item = OsString>) -> Option<(Asked, Vec<OsString>)> {
    let (mut asked, mut files) = (Asked { level: None, check: None }, Vec::new());
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        if argument == "--level" {
            asked.level = Some(arguments.next()?.to_str()?.parse().ok()?);
        } else if argument == "--check" {
            asked.check = Some(Check::of(arguments.next()?.to_str()?)?);
        } else if argument.to_string_lossy().starts_with("--") {
            return None;
        } else {
            files.push(argument);
        }
    }
    // As a whole, eventual operations promise nothing.
    let nothing = asked.level == Some(Level::Eventual) && asked.check.is_none();
    (!files.is_empty() && !nothing).then_some((asked, files))
}

fn judge(asked: Asked, file: &OsStr) -> (u8, String) {
    let history = match File::open(file) {
        Ok(opened) => History::read(BufReader::new(opened)),
        Err(error) => return (UNKNOWN, format!("unreadable: {error}")),
    };
    let operations = match history {
        Ok(history) => history.operations(),
        Err(error) => return (UNKNOWN, format!("unreadable: {error}")),
    };
    let level = asked.level.unwrap_or(Level::Strict);
    match (asked.check, level) {
        (Some(check), _) => judge_promise(&operations, check, asked.level),
        (None, Level::Strict) => judge_strict(&operations),
        (None, Level::Sequential) => judge_sequential(&operations),
        (None, Level::Causal | Level::Eventual) => judge_causal(&operations),
    }
}

fn judge_promise(operations: &[Operation], check: Check, level: Option<Level>) -> (u8, String) {
    let strict = level.unwrap_or(Level::Strict);
    let report: Report = match check {
        // The guarantees are parts of causal consistency.
        Check::Sessions => sessions::check_operations(operations, level.unwrap_or(Level::Causal)),
        Check::Counter => counter::check_operations(operations, strict),
        Check::Set => set::check_operations(operations, strict),
        Check::Durability => durability::check_operations(operations, strict),
        Check::Convergence => convergence::check_operations(operations),
    };
    let status = match report.verdict {
        Verdict::Violation(_) => VIOLATION,
        Verdict::Kept => HOLDS,
        Verdict::Unknown(_) => UNKNOWN,
    };
    (status, format!("{}: {}: {}", report.counts, check.name(), report.verdict))
}

fn judge_causal(operations: &[Operation]) -> (u8, String) {
    use causal::{Budget, Verdict};
    let report = causal::check_operations(operations, Budget::default());
    let status = match report.verdict {
        Verdict::Violation(..) => VIOLATION,
        Verdict::Causal => HOLDS,
        Verdict::Unknown(_) => UNKNOWN,
    };
    (status, format!("{}: {}", report.counts, report.verdict))
}

fn judge_strict(operations: &[Operation]) -> (u8, String) {
    use linearizable::Verdict;
    let report = linearizable::check_operations(operations, Budget::default());
    let text = format!("{}: {}", report.counts, report.verdict);
    match (report.verdict, monitor::check(operations)) {
        (Verdict::Violation(_), _) => (VIOLATION, text),
        (_, Some(violation)) => (VIOLATION, format!("{text}, but\n{violation}")),
        (Verdict::Linearizable, None) => (HOLDS, text),
        (Verdict::Unknown { .. }, None) => (UNKNOWN, text),
    }
}

fn judge_sequential(operations: &[Operation]) -> (u8, String) {
    use sequential::Verdict;
    let report = sequential::check_operations(operations, Budget::default());
    let status = match report.verdict {
        Verdict::Violation(_) => VIOLATION,
        Verdict::Sequential => HOLDS,
        Verdict::Unknown(_) => UNKNOWN,
    };
    (status, format!("{}: {report}", report.counts))
}

#[expect(clippy::print_stdout, reason = "the verdict is what this program is for")]
fn say(text: &str) {
    println!("{text}");
}

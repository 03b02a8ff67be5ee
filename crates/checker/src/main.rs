//! `latitude-checker [--level strict|sequential] FILE...` judges recorded histories.
//!
//! `strict`, the default: every key is linearizable, and its versions do not go down. `sequential`: the
//! whole store is sequentially consistent.
//!
//! Exit status: 0 if every file is as consistent as its level asks, 1 if one is not, else 2 if one could
//! not be read or judged, or if the arguments are wrong.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use latitude_checker::History;
use latitude_checker::history::Operation;
use latitude_checker::linearizable::{self, Budget, monitor};
use latitude_checker::sequential;

const USAGE: &str = "usage: latitude-checker [--level strict|sequential] FILE...";

fn main() -> ExitCode {
    let Some((level, files)) = arguments(std::env::args_os().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(UNKNOWN);
    };
    let mut worst = HOLDS;
    for file in files {
        let (status, text) = judge(level, &file);
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
enum Level {
    Strict,
    Sequential,
}

/// The level and the files; `None` if that is not what the arguments are.
fn arguments(arguments: impl Iterator<Item = OsString>) -> Option<(Level, Vec<OsString>)> {
    let (mut level, mut files) = (Level::Strict, Vec::new());
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        if argument == "--level" {
            level = match arguments.next()?.to_str()? {
                "strict" => Level::Strict,
                "sequential" => Level::Sequential,
                _ => return None,
            };
        } else if argument.to_string_lossy().starts_with("--") {
            return None;
        } else {
            files.push(argument);
        }
    }
    (!files.is_empty()).then_some((level, files))
}

fn judge(level: Level, file: &OsStr) -> (u8, String) {
    let history = match File::open(file) {
        Ok(opened) => History::read(BufReader::new(opened)),
        Err(error) => return (UNKNOWN, format!("unreadable: {error}")),
    };
    let operations = match history {
        Ok(history) => history.operations(),
        Err(error) => return (UNKNOWN, format!("unreadable: {error}")),
    };
    match level {
        Level::Strict => judge_strict(&operations),
        Level::Sequential => judge_sequential(&operations),
    }
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

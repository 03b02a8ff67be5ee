//! `latitude-checker FILE...` judges recorded histories.
//!
//! Exit status: 0 if every file is linearizable, 1 if one is not, else 2 if one could not be read or
//! judged.

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use latitude_checker::History;
use latitude_checker::linearizable::{self, Budget, Verdict, monitor};

fn main() -> ExitCode {
    let files: Vec<_> = std::env::args_os().skip(1).collect();
    if files.is_empty() {
        eprintln!("usage: latitude-checker FILE...");
        return ExitCode::from(UNKNOWN);
    }
    let mut worst = HOLDS;
    for file in files {
        let (status, text) = judge(&file);
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

fn judge(file: &std::ffi::OsStr) -> (u8, String) {
    let history = match File::open(file) {
        Ok(opened) => History::read(BufReader::new(opened)),
        Err(error) => return (UNKNOWN, format!("unreadable: {error}")),
    };
    let operations = match history {
        Ok(history) => history.operations(),
        Err(error) => return (UNKNOWN, format!("unreadable: {error}")),
    };
    let report = linearizable::check_operations(&operations, Budget::default());
    let text = format!("{}: {}", report.counts, report.verdict);
    match (report.verdict, monitor::check(&operations)) {
        (Verdict::Violation(_), _) => (VIOLATION, text),
        (_, Some(violation)) => (VIOLATION, format!("{text}, but\n{violation}")),
        (Verdict::Linearizable, None) => (HOLDS, text),
        (Verdict::Unknown { .. }, None) => (UNKNOWN, text),
    }
}

#[expect(clippy::print_stdout, reason = "the verdict is what this program is for")]
fn say(text: &str) {
    println!("{text}");
}

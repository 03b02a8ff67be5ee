//! Committed histories and the verdicts on them: what must be rejected, and why in words a person can
//! follow, and what looks wrong and is not.

use std::error::Error;
use std::fs;
use std::path::Path;

use latitude_checker::causal::{self, Pattern};
use latitude_checker::linearizable::{self, Verdict};
use latitude_checker::sequential::{self, Method};
use latitude_checker::{History, promise};
use latitude_checker::{convergence, counter, durability, sessions, set};

/// A report as the text beside a history, and what it says.
fn strict(history: &History) -> (String, Verdict) {
    let report = linearizable::check(history);
    (format!("{}\n{}\n", report.counts, report.verdict), report.verdict)
}

/// As [`strict`], for the other judge.
fn sequential(history: &History) -> (String, sequential::Report) {
    let report = sequential::check(history);
    (format!("{}\n{report}\n", report.counts), report)
}

/// As [`strict`], for causal convergence.
fn causal_verdict(history: &History) -> (String, causal::Verdict) {
    let report = causal::check(history);
    (format!("{}\n{}\n", report.counts, report.verdict), report.verdict)
}

/// Judges the histories whose names begin with that of a promise.
fn promises(
    kind: &str,
    name: &str,
    judge: impl Fn(&History) -> promise::Report,
) -> Vec<promise::Verdict> {
    let judge = |history: &History| {
        let report = judge(history);
        (format!("{}\n{}\n", report.counts, report.verdict), report.verdict)
    };
    verdicts_of(&format!("promises/{kind}"), name, judge)
        .expect("the histories are there to be read")
}

/// Judges every history below `tests/histories/<kind>`, compares the verdict with the text beside it
/// and returns the verdicts. To see what changed, write the new texts with `UPDATE_EXPECTED=1`, and read
/// the difference before committing it.
fn verdicts<V>(
    kind: &str,
    judge: impl Fn(&History) -> (String, V),
) -> Result<Vec<V>, Box<dyn Error>> {
    verdicts_of(kind, "", judge)
}

/// As [`verdicts`], for the files whose names begin so.
fn verdicts_of<V>(
    kind: &str,
    begins: &str,
    judge: impl Fn(&History) -> (String, V),
) -> Result<Vec<V>, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories").join(kind);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder)? {
        files.push(entry?.path());
    }
    files.retain(|file| {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with(begins) && name.ends_with(".jsonl"))
    });
    files.sort();
    let mut verdicts = Vec::new();
    for file in files {
        let text = fs::read(&file)?;
        let history = History::read(text.as_slice())?;
        let mut written = Vec::new();
        history.write(&mut written)?;
        assert!(written == text, "{} is not as the recorder writes it", file.display());

        let (seen, verdict) = judge(&history);
        let expected = file.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &seen)?;
        }
        let expected = fs::read_to_string(&expected)?;
        assert_eq!(seen, expected, "{}", file.display());
        verdicts.push(verdict);
    }
    Ok(verdicts)
}

#[test]
fn every_bad_history_is_rejected_for_the_reason_beside_it() {
    let verdicts = verdicts("bad", strict).unwrap();
    assert!(verdicts.len() >= 24, "{} bad histories", verdicts.len());
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Violation(_))));
}

#[test]
fn every_good_history_is_linearizable() {
    let verdicts = verdicts("good", strict).unwrap();
    assert!(verdicts.len() >= 13, "{} good histories", verdicts.len());
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Linearizable));
}

#[test]
fn every_bad_history_of_many_keys_is_rejected_for_the_reason_beside_it() {
    let reports = verdicts("sequential/bad", sequential).unwrap();
    for method in [Method::Evident, Method::Versions, Method::Search] {
        let count = reports.iter().filter(|report| report.method == Some(method)).count();
        assert!(count >= 2, "{count} bad histories are judged {method}");
    }
    let violation =
        |report: &sequential::Report| matches!(report.verdict, sequential::Verdict::Violation(_));
    assert!(reports.iter().all(violation));
}

#[test]
fn every_good_history_of_many_keys_is_sequentially_consistent() {
    let reports = verdicts("sequential/good", sequential).unwrap();
    assert!(reports.len() >= 8, "{} good histories", reports.len());
    assert!(reports.iter().all(|report| report.verdict == sequential::Verdict::Sequential));
}

#[test]
fn every_history_that_is_not_causal_is_rejected_for_the_reason_beside_it() {
    let verdicts = verdicts("causal/bad", causal_verdict).unwrap();
    assert!(verdicts.len() >= 10, "{} bad histories", verdicts.len());
    let patterns: Vec<Pattern> = verdicts
        .iter()
        .map(|verdict| match verdict {
            causal::Verdict::Violation(pattern, _) => *pattern,
            other => panic!("{other}"),
        })
        .collect();
    use Pattern::{CyclicCF, CyclicCO, ThinAirRead, WriteCOInitRead, WriteCORead};
    for pattern in [ThinAirRead, CyclicCO, WriteCOInitRead, WriteCORead, CyclicCF] {
        assert!(patterns.contains(&pattern), "{pattern}");
    }
}

#[test]
fn every_good_history_of_all_levels_is_causal() {
    let verdicts = verdicts("causal/good", causal_verdict).unwrap();
    assert!(verdicts.len() >= 6, "{} good histories", verdicts.len());
    assert!(verdicts.iter().all(|verdict| *verdict == causal::Verdict::Causal));
}

#[test]
fn every_broken_promise_is_told_for_the_reason_beside_it_and_no_kept_one() {
    type Judge = fn(&History) -> promise::Report;
    let judges: [(&str, Judge); 5] = [
        ("sessions", sessions::check),
        ("counter", counter::check),
        ("set", set::check),
        ("durability", durability::check),
        ("convergence", convergence::check),
    ];
    for (name, judge) in judges {
        let bad = promises("bad", name, judge);
        assert!(bad.len() >= 2, "{} bad histories: {name}", bad.len());
        assert!(bad.iter().all(|verdict| matches!(verdict, promise::Verdict::Violation(_))));
        let good = promises("good", name, judge);
        assert!(!good.is_empty(), "{name}");
        assert!(good.iter().all(|verdict| *verdict == promise::Verdict::Kept), "{name}");
    }
}

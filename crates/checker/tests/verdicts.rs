//! Committed histories and the verdicts on them: what must be rejected, and why in words a person can
//! follow, and what looks wrong and is not.

use std::error::Error;
use std::fs;
use std::path::Path;

use latitude_checker::History;
use latitude_checker::linearizable::{self, Verdict};
use latitude_checker::sequential::{self, Method};

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

/// Judges every history below `tests/histories/<kind>`, compares the verdict with the text beside it
/// and returns the verdicts. To see what changed, write the new texts with `UPDATE_EXPECTED=1`, and read
/// the difference before committing it.
fn verdicts<V>(
    kind: &str,
    judge: impl Fn(&History) -> (String, V),
) -> Result<Vec<V>, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories").join(kind);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder)? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
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
    assert!(verdicts.len() >= 10, "{} bad histories", verdicts.len());
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Violation(_))));
}

#[test]
fn every_good_history_is_linearizable() {
    let verdicts = verdicts("good", strict).unwrap();
    assert!(verdicts.len() >= 5, "{} good histories", verdicts.len());
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

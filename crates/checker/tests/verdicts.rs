//! Committed histories and the verdicts on them: what must be rejected, and why in words a person can
//! follow, and what looks wrong and is not.

use std::error::Error;
use std::fs;
use std::path::Path;

use latitude_checker::History;
use latitude_checker::linearizable::{self, Verdict};

/// Judges every history below `tests/histories/<kind>`, compares the verdict with the text beside it
/// and returns the verdicts. To see what changed, write the new texts with `UPDATE_EXPECTED=1`, and read
/// the difference before committing it.
fn verdicts(kind: &str) -> Result<Vec<Verdict>, Box<dyn Error>> {
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

        let report = linearizable::check(&history);
        let seen = format!("{}\n{}\n", report.counts, report.verdict);
        let expected = file.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected, &seen)?;
        }
        let expected = fs::read_to_string(&expected)?;
        assert_eq!(seen, expected, "{}", file.display());
        verdicts.push(report.verdict);
    }
    Ok(verdicts)
}

#[test]
fn every_bad_history_is_rejected_for_the_reason_beside_it() {
    let verdicts = verdicts("bad").unwrap();
    assert!(verdicts.len() >= 10, "{} bad histories", verdicts.len());
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Violation(_))));
}

#[test]
fn every_good_history_is_linearizable() {
    let verdicts = verdicts("good").unwrap();
    assert!(verdicts.len() >= 5, "{} good histories", verdicts.len());
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Linearizable));
}

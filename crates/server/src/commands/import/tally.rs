//! What became of an import's rows.

use std::collections::BTreeMap;

use latitude_types::Error;
use serde_json::{Value as Json, json};

use crate::exit::Exit;
use crate::rows::Damage;

/// Counts of an import.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Lines read.
    pub(super) lines: u64,
    /// Rows written.
    pub(super) written: u64,
    /// By what is certain of them and why, in an order of its own.
    failures: BTreeMap<(Fate, &'static str), Failures>,
    /// The last line that was tried, if the import stopped and did not look whether others follow.
    pub(super) stopped_after: Option<u64>,
}

/// What is certain of a row that was not written, or of a line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fate {
    /// It may have been written, or may be yet.
    Unknown,
    /// It certainly was not.
    NotApplied,
    /// The line is no row.
    Malformed,
}

impl Fate {
    fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NotApplied => "not_applied",
            Self::Malformed => "malformed",
        }
    }
}

/// Those that failed for one reason.
#[derive(Debug)]
struct Failures {
    count: u64,
    first_line: u64,
    /// What was wrong with the first.
    message: String,
    exit: Exit,
}

impl Tally {
    pub(super) fn failed(&mut self, line: u64, error: &Error) {
        let fate = if error.may_have_applied() { Fate::Unknown } else { Fate::NotApplied };
        self.count((fate, error.reason.name()), line, &error.message, Exit::of(error));
    }

    pub(super) fn damaged(&mut self, line: u64, damage: &Damage) {
        self.count((Fate::Malformed, damage.name()), line, &damage.to_string(), Exit::Refused);
    }

    fn count(&mut self, why: (Fate, &'static str), line: u64, message: &str, exit: Exit) {
        let of = |line| Failures { count: 0, first_line: line, message: message.to_string(), exit };
        let failures = self.failures.entry(why).or_insert_with(|| of(line));
        // Answers do not come in the order of the lines.
        if line < failures.first_line {
            *failures = Failures { count: failures.count, ..of(line) };
        }
        failures.count += 1;
    }

    fn sum(&self, fate: Fate) -> u64 {
        let of_fate = self.failures.iter().filter(|((of, _), _)| *of == fate);
        of_fate.map(|(_, failures)| failures.count).sum()
    }

    /// How the import ended: as its worst row did.
    pub(super) fn exit(&self) -> Exit {
        let worst = [Exit::OutcomeUnknown, Exit::Fault, Exit::Refused, Exit::Unavailable];
        let ended = |exit: &Exit| self.failures.values().any(|failures| failures.exit == *exit);
        worst.into_iter().find(ended).unwrap_or(Exit::Success)
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{} rows written of {} lines", self.written, self.lines);
        for (fate, what) in [
            (Fate::Unknown, "with an unknown outcome (run the import again)"),
            (Fate::NotApplied, "not written"),
            (Fate::Malformed, "malformed"),
        ] {
            match self.sum(fate) {
                0 => {}
                count => text += &format!(", {count} {what}"),
            }
        }
        for ((_, reason), Failures { count, first_line, message, .. }) in &self.failures {
            text += &format!("\n{count:>9}  {reason}, first in line {first_line}: {message}");
        }
        if let Some(line) = self.stopped_after {
            text += &format!("\nstopped: what follows line {line} was not tried");
        }
        text
    }

    pub(super) fn json(&self) -> Json {
        let reasons: Vec<Json> = self
            .failures
            .iter()
            .map(|((fate, reason), failures)| {
                json!({
                    "reason": reason,
                    "outcome": fate.name(),
                    "count": failures.count,
                    "first_line": failures.first_line,
                    "message": failures.message,
                })
            })
            .collect();
        json!({
            "lines": self.lines,
            "written": self.written,
            "unknown": self.sum(Fate::Unknown),
            "not_applied": self.sum(Fate::NotApplied),
            "malformed": self.sum(Fate::Malformed),
            "stopped_after_line": self.stopped_after,
            "reasons": reasons,
        })
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::Reason;

    use super::*;

    fn tally() -> Tally {
        let mut tally = Tally { lines: 9, written: 4, ..Tally::default() };
        tally.failed(7, &Error::new(Reason::ValueTooLarge, "the value of line 7 is too large"));
        tally.failed(3, &Error::new(Reason::ValueTooLarge, "the value of line 3 is too large"));
        tally.damaged(5, &Damage::NoTab);
        tally
    }

    #[test]
    fn failures_are_counted_by_reason_with_the_first_line_of_each() {
        let mut tally = tally();
        tally.failed(6, &Error::unknown(Reason::Unreachable, "nobody answers"));
        tally.stopped_after = Some(9);
        assert_eq!(
            tally.text(),
            "\
4 rows written of 9 lines, 1 with an unknown outcome (run the import again), 2 not written, 1 malformed
        1  UNREACHABLE, first in line 6: nobody answers
        2  VALUE_TOO_LARGE, first in line 3: the value of line 3 is too large
        1  LINE_TABS, first in line 5: there is no tab: write KEY<TAB>VALUE
stopped: what follows line 9 was not tried"
        );
        let json = tally.json();
        assert_eq!((&json["unknown"], &json["malformed"]), (&json!(1), &json!(1)));
        assert_eq!(
            json["reasons"][1],
            json!({
                "reason": "VALUE_TOO_LARGE",
                "outcome": "not_applied",
                "count": 2,
                "first_line": 3,
                "message": "the value of line 3 is too large",
            })
        );
    }

    #[test]
    fn an_import_ends_as_its_worst_row() {
        let with = |errors: &[Error]| {
            let mut tally = Tally::default();
            errors.iter().for_each(|error| tally.failed(1, error));
            tally.exit()
        };
        let refused = Error::new(Reason::KeyEmpty, "");
        let unavailable = Error::new(Reason::NoQuorum, "");
        let fault = Error::new(Reason::Internal, "");
        let unknown = Error::unknown(Reason::NoQuorum, "");
        assert_eq!(with(&[]), Exit::Success);
        assert_eq!(with(std::slice::from_ref(&unavailable)), Exit::Unavailable);
        assert_eq!(with(&[unavailable.clone(), refused.clone()]), Exit::Refused);
        assert_eq!(with(&[refused.clone(), fault.clone()]), Exit::Fault);
        assert_eq!(with(&[unknown, fault, refused, unavailable]), Exit::OutcomeUnknown);
        assert_eq!(tally().exit(), Exit::Refused);
    }
}

//! What a run comes to, and what many do.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use latitude_probe::Mark;
use latitude_sim::Trace;
use latitude_sim::scenario::{Length, Ran};
use serde::{Deserialize, Serialize};

/// What is told of a run.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Report {
    seed: u64,
    /// Whether it was a long run.
    long: bool,
    /// What was wrong, if anything was.
    wrong: Option<Wrong>,
    /// What it was, if nothing was wrong.
    run: Option<Run>,
    /// How often each mark was hit that was.
    marks: BTreeMap<String, u64>,
}

#[derive(Serialize, Deserialize, Debug)]
struct Wrong {
    /// The name of the check that found it.
    check: String,
    message: String,
    /// How long the run had lasted.
    simulated_ms: u64,
}

#[derive(Serialize, Deserialize, Debug)]
struct Run {
    ok: u64,
    unknown: u64,
    failed: u64,
    simulated_ms: u64,
    faults: Vec<String>,
    looked_at: u64,
    snapshots: u64,
    elections: u64,
    receipts: u64,
    causality_open: bool,
    trace: String,
}

impl Report {
    pub(crate) fn new(seed: u64, length: Length, ran: &Ran) -> Self {
        let Ran { result, trace, marks } = ran;
        let lasted = trace.as_ref().map(Trace::lasted).unwrap_or_default();
        let wrong = result.as_ref().err().map(|found| Wrong {
            check: found.check.name().into(),
            message: found.message.clone(),
            simulated_ms: lasted.as_millis() as u64,
        });
        let hit = marks.iter().filter(|(_, count)| *count > 0);
        let marks = hit.map(|(mark, count)| (mark.name().into(), *count)).collect();
        let run = result.as_ref().ok().map(|outcome| {
            let [ok, failed, unknown] = outcome.summary.outcomes.map(|count| count as u64);
            Run {
                ok,
                unknown,
                failed,
                simulated_ms: outcome.lasted.as_millis() as u64,
                faults: outcome.faults.iter().map(|fault| fault.to_string()).collect(),
                looked_at: outcome.invariants_looked_at,
                snapshots: outcome.snapshots_installed,
                elections: outcome.elections,
                receipts: outcome.receipts,
                causality_open: outcome.summary.causality_open,
                trace: format!("{:016x}", outcome.trace.hash()),
            }
        });
        Self { seed, long: length == Length::Long, wrong, run, marks }
    }

    pub(crate) fn is_right(&self) -> bool {
        self.wrong.is_none()
    }
}

/// The lines of one run.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.seed;
        if let Some(Run { ok, unknown, failed, simulated_ms, faults, trace, .. }) = &self.run {
            let (simulated, faults) = (*simulated_ms as f64 / 1e3, faults.join(", "));
            write!(f, "seed {seed}: right; {ok} ok, {unknown} unknown, {failed} failed; ")?;
            write!(f, "{simulated:.1} s; {faults}; trace {trace}")?;
        }
        if let Some(Wrong { check, message, simulated_ms }) = &self.wrong {
            let simulated = *simulated_ms as f64 / 1e3;
            write!(f, "seed {seed}: WRONG, found by: {check}, at {simulated:.1} s\n  ")?;
            write!(f, "{message}\n  ")?;
            let long = if self.long { " --long" } else { "" };
            write!(f, "replay: cargo xtask sim{long} --seed {seed} --trace")?;
        }
        Ok(())
    }
}

/// Runs so far.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    right: u64,
    /// How many were wrong, by the name of the check.
    wrong: BTreeMap<String, u64>,
    simulated: Duration,
    ok: u64,
    unknown: u64,
    failed: u64,
    faults: BTreeMap<String, u64>,
    looked_at: u64,
    snapshots: u64,
    marks: BTreeMap<String, u64>,
    elections: u64,
    receipts: u64,
    /// Runs of which the judge of causality could not say.
    causality_open: u64,
}

impl Tally {
    /// Counts a seed that ran so many times.
    pub(crate) fn count(&mut self, report: &Report, times: u64) {
        if let Some(wrong) = &report.wrong {
            *self.wrong.entry(wrong.check.clone()).or_default() += 1;
        }
        for (mark, count) in &report.marks {
            *self.marks.entry(mark.clone()).or_default() += count;
        }
        let Some(run) = &report.run else { return };
        self.right += 1;
        self.simulated += Duration::from_millis(times * run.simulated_ms);
        self.ok += times * run.ok;
        self.unknown += times * run.unknown;
        self.failed += times * run.failed;
        for fault in &run.faults {
            *self.faults.entry(fault.clone()).or_default() += times;
        }
        self.looked_at += times * run.looked_at;
        self.snapshots += times * run.snapshots;
        self.elections += times * run.elections;
        self.receipts += times * run.receipts;
        self.causality_open += u64::from(run.causality_open);
    }

    /// How many seeds were wrong.
    pub(crate) fn wrong(&self) -> u64 {
        self.wrong.values().sum()
    }

    /// The marks that were never hit.
    pub(crate) fn missed(&self) -> Vec<Mark> {
        let missed = |mark: &Mark| !self.marks.contains_key(mark.name());
        Mark::ALL.iter().copied().filter(missed).collect()
    }

    /// All of it, after so much time of this machine.
    pub(crate) fn summary(&self, took: Duration) -> String {
        let Self { right, ok, unknown, failed, looked_at, elections, receipts, snapshots, .. } =
            self;
        let (seeds, wrong, operations) =
            (right + self.wrong(), self.wrong(), ok + unknown + failed);
        let simulated = self.simulated.as_secs_f64();
        let took = took.as_secs_f64().max(1e-9);
        let counted = |(name, count): (&String, &u64)| format!("{name} {count}");
        let faults = self.faults.iter().map(counted).collect::<Vec<_>>().join(", ");
        let mut lines = vec![
            format!("\n{seeds} seeds, {wrong} wrong, in {took:.0} s"),
            format!("simulated: {:.2} h, {:.1} s per s", simulated / 3600.0, simulated / took),
            format!(
                "operations checked: {operations} ({ok} ok, {unknown} unknown, {failed} failed), \
                 {:.0} per s",
                operations as f64 / took
            ),
            format!(
                "looked at: {looked_at} applied batches, {elections} elections, {receipts} receipts; \
                 snapshots installed: {snapshots}"
            ),
            format!("causality could not be judged: {} seeds", self.causality_open),
            format!("faults: {faults}"),
            format!("marks: {}", self.marks.iter().map(counted).collect::<Vec<_>>().join(", ")),
        ];
        lines.extend(
            self.missed()
                .iter()
                .map(|mark| format!("mark never hit: {} ({})", mark.name(), mark.meaning())),
        );
        lines.extend(
            self.wrong.iter().map(|(check, count)| format!("WRONG, found by {check}: {count}")),
        );
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use latitude_sim::Check;

    use super::*;

    #[test]
    fn a_wrong_seed_is_told_with_its_check_and_the_command_that_replays_it() {
        let result = Err(Check::Stamps.found("r4 applies 3 after 5"));
        let marks = vec![(Mark::SessionClosesTime, 3), (Mark::ReadWaitsForApply, 0)];
        let ran = Ran { result, trace: None, marks };
        let long = Report::new(17, Length::Long, &ran).to_string();
        assert!(long.contains("cargo xtask sim --long --seed 17 --trace"), "{long}");
        let report = Report::new(17, Length::Short, &ran);
        let json = serde_json::to_string(&report).unwrap();
        let report: Report = serde_json::from_str(&json).unwrap();
        assert!(!report.is_right());
        let told = report.to_string();
        assert!(told.contains("found by: INV-3"), "{told}");
        assert!(told.contains("cargo xtask sim --seed 17 --trace"), "{told}");
        let mut tally = Tally::default();
        tally.count(&report, 1);
        assert_eq!(tally.wrong(), 1);
        let summary = tally.summary(Duration::from_secs(2));
        assert!(summary.contains("1 seeds, 1 wrong"), "{summary}");
        assert!(summary.contains("WRONG, found by INV-3: 1"), "{summary}");
        assert!(summary.contains("session-closes-time 3"), "{summary}");
        assert!(summary.contains("never hit: read-waits-for-apply"), "{summary}");
        assert_eq!(tally.missed().len(), Mark::ALL.len() - 1);
    }
}

//! How fast a judge is, for the tests that are run by hand.

use std::time::Instant;

use crate::history::Operation;

/// Prints the verdict on a history and how many operations a second were judged.
#[expect(
    clippy::disallowed_methods,
    reason = "it measures this machine, and nothing depends on it"
)]
pub(crate) fn report(name: &str, operations: &[Operation], judge: impl Fn(&[Operation]) -> String) {
    let began = Instant::now();
    let verdict = judge(operations);
    let took = began.elapsed();
    let rate = operations.len() as f64 / took.as_secs_f64();
    let (count, verdict) = (operations.len(), verdict.lines().next().unwrap_or_default());
    println!("{name}: {count} operations in {took:?}, {rate:.0} a second: {verdict}");
}

//! The two verbs for a change: `test` looks and never writes, `fix` writes.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cargo::{cargo, run};
use crate::{graph, setup};

type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("setup", setup::setup),
    ("format", || run(&mut cargo(&["fmt", "--all", "--check"]))),
    ("graph", graph::check),
    ("lints", || {
        let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        run(&mut cargo(&clippy))
    }),
    // Builds everything before it runs anything, the programs that tests start as processes among it.
    ("tests", || run(&mut cargo(&["test", "--workspace"]))),
];

/// Everything a commit must pass. Ends at the first step that fails.
pub(crate) fn test() -> Result<()> {
    in_turn(STEPS)
}

/// Mends what needs no thought. Formats last, for what clippy writes is not formatted.
pub(crate) fn fix() -> Result<()> {
    setup::setup()?;
    graph::fix()?;
    let clippy = ["clippy", "--fix", "--allow-dirty", "--allow-staged"];
    run(cargo(&clippy).args(["--workspace", "--all-targets"]))?;
    run(&mut cargo(&["fmt", "--all"]))
}

fn in_turn(steps: &[Step]) -> Result<()> {
    let start = now();
    let mut summary = String::new();
    for (name, step) in steps {
        println!("\n── {name} ── at {}", shown(start.elapsed()));
        let step_start = now();
        let result = step();
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        summary += &format!("  {name:<10} {verdict:<6} {:>8}\n", shown(step_start.elapsed()));
        if let Err(error) = result {
            println!("\n{summary}");
            return Err(error.context(format!("{name} failed")));
        }
    }
    println!("\n{summary}  {:<17} {:>8}", "all passed", shown(start.elapsed()));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "shows a person how long a step took")]
fn now() -> Instant {
    Instant::now()
}

fn shown(time: Duration) -> String {
    match time.as_secs() {
        secs @ 60.. => format!("{} min {:02} s", secs / 60, secs % 60),
        _ => format!("{:.1} s", time.as_secs_f32()),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn the_first_step_that_fails_ends_the_run() {
        let steps: &[Step] =
            &[("one", || Ok(())), ("two", || bail!("broken")), ("three", || unreachable!())];
        let error = in_turn(steps).unwrap_err();
        assert_eq!(format!("{error:#}"), "two failed: broken");
    }

    #[test]
    fn times_read_in_seconds_and_then_in_minutes() {
        assert_eq!(shown(Duration::from_millis(59_940)), "59.9 s");
        assert_eq!(shown(Duration::from_secs(605)), "10 min 05 s");
    }
}

//! Rows go in from a file and come out as they were, through a kill on the way; a shell run by a script.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use latitude_client::{Level, Scan};
use latitude_tests::bed::{PATIENCE, binary};
use latitude_tests::{Bed, eventually};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use serde_json::Value;

const KEYSPACE: &str = "carried";
const ROWS: usize = 3000;

/// Values as they stand in a file: plain, empty, and with every kind of escape.
const VALUES: [&str; 4] = ["plain", "", "größe \\\\ \\t \\n \\r", "\\x00\\x1b\\xff\\xfe"];

/// The program, in a region. Calls of it block: the cluster's links live on other threads.
struct Cli<'a> {
    bed: &'a Bed,
    region: &'static str,
}

impl Cli<'_> {
    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let addresses = self.bed.cluster().client_addresses(self.region);
        let to = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new(binary()?);
        command.args(arguments).env("LATITUDE_TO", to).env("LATITUDE_REGION", self.region);
        command.env_remove("LATITUDE_KEYSPACE").env_remove("LATITUDE_LOG");
        Ok(command)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments)?.stdin(Stdio::null()).output()?)
    }

    /// Runs what must succeed, and gives what it printed as one JSON object.
    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.run(&[arguments, &["--output", "json"]].concat())?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn spawn(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command(arguments)?;
        Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    /// Runs a script in a shell.
    fn shell(&self, flags: &[&str], script: &str) -> Result<(i32, String, String)> {
        let mut command = self.command(&[&["shell"], flags].concat())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shell = command.spawn()?;
        shell.stdin.take().context("it has a stdin")?.write_all(script.as_bytes())?;
        let Output { status, stdout, stderr } = shell.wait_with_output()?;
        let code = status.code().context("the shell was killed")?;
        Ok((code, String::from_utf8(stdout)?, String::from_utf8(stderr)?))
    }
}

fn path<'a>(dir: &Path, name: &str, buffer: &'a mut String) -> &'a str {
    *buffer = dir.join(name).to_string_lossy().into_owned();
    buffer
}

/// A file to import and what its export must be: the lines in the order of their keys, of those with one
/// key the last.
fn files() -> (String, String) {
    let mut keys: Vec<usize> = (0..ROWS).collect();
    keys.shuffle(&mut SmallRng::seed_from_u64(7));
    // A tenth of the keys has a line of before, some right beside the one that counts.
    let mut lines = Vec::new();
    for (place, key) in keys.iter().enumerate() {
        if place % 10 == 0 {
            lines.push((*key, format!("key/{key:05}\tout of date\n")));
        }
        lines.push((*key, format!("key/{key:05}\t{} {key}\n", VALUES[key % VALUES.len()])));
    }
    let sorted: BTreeMap<_, _> = lines.iter().cloned().collect();
    let text = |lines: Vec<String>| lines.concat();
    (text(lines.into_iter().map(|(_, line)| line).collect()), text(sorted.into_values().collect()))
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_in_through_a_kill_and_come_out_as_they_were() -> Result<()> {
    let bed = Bed::three("import", std::time::Duration::from_millis(2)).await?;
    bed.keyspace(KEYSPACE, 4).await?;
    bed.keyspace("copied", 1).await?;
    let cli = Cli { bed: &bed, region: "eu" };
    let (file, expected) = files();
    let (mut buffer, mut second, mut third) = (String::new(), String::new(), String::new());
    let rows = path(bed.dir(), "rows.tsv", &mut buffer);
    std::fs::write(rows, &file)?;
    let import = ["import", rows, "--keyspace", KEYSPACE];

    let mut killed = cli.spawn(&[&import[..], &["--concurrency", "2"]].concat())?;
    let present = present_at_kill(&bed, &mut killed).await?;
    ensure!(present < ROWS, "all {present} rows were there before the kill");
    let report = cli.json(&import)?;
    let lines = file.lines().count();
    ensure!(report["written"] == lines && report["lines"] == lines, "{report}");

    let out = path(bed.dir(), "out.tsv", &mut second);
    let report = cli.json(&["export", "--keyspace", KEYSPACE, "--out", out])?;
    ensure!(report["rows"] == ROWS && report["bytes"] == expected.len(), "{report}");
    ensure!(std::fs::read_to_string(out)? == expected, "the export is not what was imported");

    // By the other format, to another keyspace, and to stdout.
    let json = path(bed.dir(), "out.jsonl", &mut third);
    cli.json(&["export", "--keyspace", KEYSPACE, "--out", json])?;
    cli.json(&["import", json, "--keyspace", "copied"])?;
    let copied = cli.run(&["export", "--keyspace", "copied"])?;
    ensure!(copied.stdout == expected.as_bytes(), "the copy differs: {:?}", copied.status);

    lines_that_cannot_be_written_are_counted_and_kept(&cli, bed.dir())?;
    a_script_runs_in_a_shell(&cli)?;
    a_session_goes_on_in_another_shell_elsewhere(&bed)?;
    bed.passed();
    Ok(())
}

/// Kills an import on its way, and gives how many rows had come so far.
async fn present_at_kill(bed: &Bed, import: &mut Child) -> Result<usize> {
    let client = bed.client("eu");
    let keyspace = client.keyspace(KEYSPACE).with_level(Level::Strict).with_timeout(PATIENCE);
    let scan = Scan::all().keys_only().limit(2 * ROWS);
    eventually("a part of the rows is imported", async || {
        let present = keyspace.scan(scan.clone()).await?.value.rows.len();
        ensure!(present >= 50, "{present} are");
        Ok(())
    })
    .await?;
    // SIGKILL.
    import.kill()?;
    let status = import.wait()?;
    ensure!(status.code().is_none(), "the import had ended by itself: {status}");
    Ok(keyspace.scan(scan).await?.value.rows.len())
}

fn lines_that_cannot_be_written_are_counted_and_kept(cli: &Cli<'_>, dir: &Path) -> Result<()> {
    let large = format!("large\t{}\n", "x".repeat((1 << 20) + 1));
    let long = format!("{}\tv\n", "k".repeat(4097));
    let bad = ["no tab\n", "\tempty\n", &long, &large, "escape\t\\q\n"];
    let text = format!("good/1\t1\n{}good/2\t2\n", bad.concat());
    let (mut buffer, mut second) = (String::new(), String::new());
    let (file, rejects) =
        (path(dir, "bad.tsv", &mut buffer), path(dir, "rejects.tsv", &mut second));
    std::fs::write(file, text)?;
    let arguments = ["import", file, "--keyspace", KEYSPACE, "--output", "json"];
    let output =
        cli.run(&[&arguments[..], &["--on-error", "continue", "--rejects", rejects]].concat())?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["written"] == 2 && report["malformed"] == 2, "{report}");
    let reasons = report["reasons"].as_array().context("there are reasons")?;
    let mut found: Vec<String> = reasons
        .iter()
        .map(|r| format!("{} {} {}", r["reason"], r["count"], r["first_line"]))
        .collect();
    found.sort_unstable();
    ensure!(
        found
            == [
                "\"KEY_EMPTY\" 1 3",
                "\"KEY_TOO_LONG\" 1 4",
                "\"LINE_ESCAPE\" 1 6",
                "\"LINE_TABS\" 1 2",
                "\"VALUE_TOO_LARGE\" 1 5",
            ],
        "{found:?}"
    );
    let kept = std::fs::read_to_string(rejects)?;
    let mut kept: Vec<&str> = kept.split_inclusive('\n').collect();
    let mut bad = bad.to_vec();
    kept.sort_unstable();
    bad.sort_unstable();
    ensure!(kept == bad, "the rejected lines are not kept as they were");

    // Unless told so, it does not go on.
    let stopped = cli.run(&arguments)?;
    let report: Value = serde_json::from_slice(&stopped.stdout)?;
    ensure!(stopped.status.code() == Some(2) && report["stopped_after_line"] == 2, "{report}");
    Ok(())
}

fn a_script_runs_in_a_shell(cli: &Cli<'_>) -> Result<()> {
    let script = "\
use carried
level strict
put 'shell/a b' \"a value\"   # and a comment
get 'shell/a b'
get nothing
cas 'shell/a b' --expect 'a value' another
scan --prefix shell/
get good/1 -k default --output json
delete 'shell/a b'
scan --prefix shell/
";
    let (code, out, err) = cli.shell(&[], script)?;
    ensure!(code == 0, "{code}: {err}");
    let lines: Vec<&str> = out.lines().collect();
    let [_, got, _, row, elsewhere, _] = lines[..] else { anyhow::bail!("{out}") };
    ensure!((got, row) == ("a value", "shell/a b\tanother"), "{out}");
    ensure!(elsewhere == r#"{"key":"good/1","found":false}"#, "{elsewhere}");
    ensure!(err == "not found: nothing\n", "{err}");

    let script = "get k --keyspace nowhere\nput after x\n";
    let (code, out, err) = cli.shell(&[], script)?;
    ensure!(code == 2 && out.lines().count() == 1, "{code}: {out}");
    ensure!(err.contains("KEYSPACE_UNKNOWN") && err.contains("that was line 1"), "{err}");
    let (code, out, _) = cli.shell(&["--stop-on-error"], script)?;
    ensure!((code, out.as_str()) == (2, ""), "{code}: {out}");
    Ok(())
}

fn a_session_goes_on_in_another_shell_elsewhere(bed: &Bed) -> Result<()> {
    let (here, there) = (Cli { bed, region: "eu" }, Cli { bed, region: "ap" });
    let mut buffer = String::new();
    let token = path(bed.dir(), "session", &mut buffer);
    let at = ["--keyspace", KEYSPACE, "--level", "sequential"];
    for round in 0..5 {
        let script = format!("put carried {round}\nsession save {token}\n");
        let (code, _, err) = here.shell(&at, &script)?;
        ensure!(code == 0, "{code}: {err}");
        let (code, out, err) = there.shell(&at, &format!("session load {token}\nget carried\n"))?;
        ensure!((code, out) == (0, format!("{round}\n")), "{code}: {err}");
    }
    Ok(())
}

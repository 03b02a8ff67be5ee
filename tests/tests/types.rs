//! Every type of value through the program, as a person types it: on a node by itself, through the log and, for
//! what may be written locally, beside it.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use latitude_tests::bed::{Kept, binary};
use latitude_tests::single::Single;
use serde_json::{Value, json};

/// The program, asking one node.
struct Cli {
    to: String,
}

impl Cli {
    /// Runs a line of words: its exit code, what it printed, and what it said beside.
    fn run(&self, line: &str) -> Result<(i32, String, String)> {
        let mut command = Command::new(binary()?);
        command.args(line.split_whitespace()).stdin(Stdio::null()).env("LATITUDE_TO", &self.to);
        for name in ["LATITUDE_REGION", "LATITUDE_KEYSPACE", "LATITUDE_LOG"] {
            command.env_remove(name);
        }
        let Output { status, stdout, stderr } = command.output()?;
        let code = status.code().context("the command was killed")?;
        Ok((code, String::from_utf8(stdout)?, String::from_utf8(stderr)?))
    }

    /// What a line prints that must succeed.
    fn ok(&self, line: &str) -> Result<String> {
        let (code, out, err) = self.run(line)?;
        ensure!(code == 0, "{line}: exit {code}, {err}");
        Ok(out.trim_end().to_string())
    }

    /// What a line prints as one JSON object, however it exits.
    fn json(&self, line: &str) -> Result<Value> {
        let (_, out, err) = self.run(&format!("{line} --output json"))?;
        serde_json::from_str(&out).with_context(|| format!("{line}: {out}, {err}"))
    }

    /// A line must fail for this reason.
    fn refused(&self, line: &str, reason: &str) -> Result<()> {
        let (code, out, err) = self.run(line)?;
        ensure!(code == 2 && err.contains(reason), "{line}: exit {code}, {out}, {err}");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_written_and_read_as_what_it_is_and_as_nothing_else() -> Result<()> {
    let dir = Kept::new("types")?;
    let node = Single::start(&dir.path().join("store"), Single::free_address()?, &[])?;
    node.serves().await?;
    let cli = Cli { to: node.address().to_string() };
    for (name, value_type) in [
        ("counters", "counter"),
        ("sets", "set"),
        ("maps", "map"),
        ("flags", "flag"),
        ("notes", "siblings"),
    ] {
        let line =
            format!("admin keyspace create {name} --type {value_type} --default-level strict");
        let created = cli.json(&line)?;
        ensure!(created["type"] == value_type, "{created}");
    }
    counters(&cli)?;
    sets(&cli)?;
    maps(&cli)?;
    flags(&cli)?;
    siblings(&cli)?;
    wrong_types(&cli)?;
    let file = dir.path().join("session");
    local_writes(&cli, file.to_str().context("the path is UTF-8")?)?;
    audits(&cli)?;
    node.stop().await?;
    dir.discard();
    Ok(())
}

fn counters(cli: &Cli) -> Result<()> {
    ensure!(cli.run("get likes -k counters")?.0 == 1, "a counter nobody has added to");
    ensure!(cli.ok("add likes 3 -k counters")? == "3");
    ensure!(cli.ok("add likes -1 -k counters --level sequential")? == "2");
    ensure!(cli.ok("add likes -2 --min 0 -k counters")? == "0");
    let (code, out, err) = cli.run("add likes -1 --min 0 -k counters")?;
    ensure!(code == 1 && out == "0\n" && err.contains("not added"), "{code}, {out}, {err}");
    let refused = cli.json("add likes 9 --max 8 -k counters")?;
    ensure!(refused == json!({ "key": "likes", "applied": false, "sum": 0 }), "{refused}");
    cli.ok("add likes 40 -k counters")?;
    cli.ok("reset likes -k counters")?;
    ensure!(cli.ok("get likes -k counters")? == "0");
    cli.ok("add likes 7 -k counters")?;
    let got = cli.json("get likes -k counters")?;
    ensure!(got["type"] == "counter" && got["value"] == 7, "{got}");
    cli.ok("delete likes -k counters")?;
    ensure!(cli.run("get likes -k counters")?.0 == 1, "a counter that was deleted");
    ensure!(cli.ok("add likes 1 -k counters")? == "1", "it begins at zero");
    Ok(())
}

fn sets(cli: &Cli) -> Result<()> {
    let versions = cli.ok("set add cart milk bread milk -k sets")?;
    ensure!(versions.lines().count() == 3, "{versions}");
    ensure!(cli.ok("get cart -k sets")? == "bread\nmilk");
    cli.ok("set remove cart bread eggs -k sets")?;
    ensure!(cli.json("get cart -k sets")?["value"] == json!(["milk"]));
    ensure!(cli.ok("scan -k sets")? == "cart\tmilk");
    cli.ok("set remove cart milk -k sets")?;
    let (code, out, err) = cli.run("get cart -k sets")?;
    ensure!(code == 1 && out.is_empty() && err == "not found: cart\n", "{code}, {out}, {err}");
    ensure!(cli.ok("scan -k sets")?.is_empty(), "an empty set does not exist");
    Ok(())
}

fn maps(cli: &Cli) -> Result<()> {
    cli.ok("map put ada city London -k maps")?;
    cli.ok("map put ada born 1815 -k maps")?;
    cli.ok("map put ada city Ockham -k maps")?;
    ensure!(cli.ok("get ada -k maps")? == "born\t1815\ncity\tOckham");
    ensure!(cli.ok("scan -k maps")? == "ada\tborn=1815\tcity=Ockham");
    cli.ok("map remove ada born -k maps")?;
    let fields = json!([{ "field": "city", "value": "Ockham" }]);
    ensure!(cli.json("get ada -k maps")?["value"] == fields);
    let rows = cli.json("scan -k maps")?;
    ensure!(rows["value"] == fields && rows["type"] == "map", "{rows}");
    let keys = cli.json("scan -k maps --keys-only")?;
    ensure!(keys["key"] == "ada" && keys.get("value").is_none(), "{keys}");
    Ok(())
}

fn flags(cli: &Cli) -> Result<()> {
    ensure!(cli.run("get dark -k flags")? == (1, "off\n".into(), String::new()));
    cli.ok("flag enable dark -k flags")?;
    ensure!(cli.ok("get dark -k flags")? == "on");
    ensure!(cli.json("scan -k flags")?["value"] == true);
    cli.ok("flag disable dark -k flags")?;
    ensure!(cli.json("get dark -k flags")?["value"] == false);
    Ok(())
}

fn siblings(cli: &Cli) -> Result<()> {
    let keyspace = "-k notes";
    // Neither has read the other.
    cli.ok(&format!("put note one {keyspace}"))?;
    cli.ok(&format!("put note two {keyspace}"))?;
    let read = cli.json(&format!("get note {keyspace}"))?;
    let values = |read: &Value| -> Vec<String> {
        let values = read["value"].as_array().into_iter().flatten();
        values.map(|sibling| sibling["value"].as_str().unwrap_or_default().to_string()).collect()
    };
    let mut both = values(&read);
    both.sort();
    ensure!(both == ["one", "two"], "{read}");
    let context = read["context"].as_str().context("a context")?;
    cli.ok(&format!("put note three {keyspace}"))?;
    cli.ok(&format!("put note both {keyspace} --context {context}"))?;
    let mut left = values(&cli.json(&format!("get note {keyspace}"))?);
    left.sort();
    ensure!(left == ["both", "three"], "what was not read stays: {left:?}");
    let (_, _, said) = cli.run(&format!("get note {keyspace}"))?;
    let context = said.trim_end().strip_prefix("context: ").context("a context on stderr")?;
    cli.ok(&format!("put note late {keyspace}"))?;
    cli.ok(&format!("delete note {keyspace} --context {context}"))?;
    ensure!(cli.ok(&format!("get note {keyspace}"))? == "late", "what was not read stays");
    cli.ok(&format!("delete note {keyspace}"))?;
    ensure!(cli.run(&format!("get note {keyspace}"))?.0 == 1, "siblings that were deleted");
    cli.refused(&format!("put note x {keyspace} --context AQID"), "ARGUMENT_INVALID")
}

/// One replica is equal to itself; what is said of it is what is there.
fn audits(cli: &Cli) -> Result<()> {
    let found = cli.json("admin audit -k maps")?;
    ensure!(found["verdict"] == "equal" && found["keyspace"] == "maps", "{found}");
    let replica = &found["replicas"][0];
    ensure!(replica["role"] == "leader" && replica["keys"] == 1, "{found}");
    let range = found["range"].as_u64().context("a range is a number")?;
    let again = cli.ok(&format!("admin audit --range r{range}"))?;
    ensure!(
        again.starts_with(&format!("r{range}e1 of maps at ")) && again.contains(": equal\n"),
        "{again}"
    );
    let all = cli.ok("admin audit")?;
    ensure!(all.matches(": equal\n").count() >= 7 && all.contains("(meta)"), "{all}");
    cli.refused("admin audit --range r99999", "ARGUMENT_INVALID")
}

fn wrong_types(cli: &Cli) -> Result<()> {
    for line in [
        "put k v -k counters",
        "cas k --expect-absent v -k counters",
        "add k 1",
        "add k 1 -k sets",
        "reset k -k maps",
        "set add k v -k maps",
        "map put k f v -k sets",
        "flag enable k -k notes",
        "delete k -k flags",
        "put k v --context AQID",
        "import /dev/null --format tsv -k counters",
        "export -k maps",
    ] {
        cli.refused(line, "TYPE_MISMATCH")?;
    }
    cli.refused("add k 1 --min 0 -k counters --level causal", "LEVEL_NOT_FOR_CONDITION")?;
    cli.refused("reset k -k counters --level eventual", "LEVEL_NOT_FOR_CONDITION")?;
    cli.refused("add k 1 --min 2 --max 1 -k counters", "ARGUMENT_INVALID")
}

/// Local writes and log writes on the same keys, in one session.
fn local_writes(cli: &Cli, session: &str) -> Result<()> {
    let in_session = format!("--session {session}");
    cli.ok(&format!("add visits 5 -k counters --level causal {in_session}"))?;
    ensure!(cli.ok(&format!("get visits -k counters --level causal {in_session}"))? == "5");
    ensure!(cli.ok(&format!("get visits -k counters --level strict {in_session}"))? == "5");
    ensure!(cli.ok(&format!("add visits 1 -k counters --level strict {in_session}"))? == "6");
    cli.ok(&format!("set add basket milk -k sets --level causal {in_session}"))?;
    cli.ok(&format!("set remove basket milk -k sets --level strict {in_session}"))?;
    let (code, out, _) = cli.run(&format!("get basket -k sets --level causal {in_session}"))?;
    ensure!(code == 1, "removed through the log what was added beside it: {out}");
    Ok(())
}

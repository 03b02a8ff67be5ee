//! The binary as a script sees it: what it prints where, and how it exits.

use std::path::Path;
use std::process::Command;

/// Nothing listens on port 1 of a machine that runs tests.
const NOBODY: &str = "127.0.0.1:1";

/// Exit code, stdout, stderr.
fn latitude(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latitude"));
    for name in ["LATITUDE_TO", "LATITUDE_LOG", "LATITUDE_REGION", "LATITUDE_KEYSPACE"] {
        command.env_remove(name);
    }
    let output = command.args(arguments).output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("the binary prints UTF-8");
    let code = output.status.code().expect("the binary exits");
    (code, text(output.stdout), text(output.stderr))
}

fn start_with(config: &str, path: &Path) -> (i32, String, String) {
    std::fs::write(path, config).expect("the file can be written");
    let path = path.to_str().expect("the path is UTF-8");
    latitude(&["start", "--print-config", "--config", path])
}

#[test]
fn help_about_exit_codes_lists_them() {
    let (code, out, _) = latitude(&["help", "exit-codes"]);
    assert_eq!(code, 0);
    assert!(out.contains("  4  The outcome of a write is unknown"), "{out}");
    assert_eq!(latitude(&["exit-codes"]).0, 0);
}

#[test]
fn a_command_line_that_makes_no_sense_exits_with_2_and_prints_no_answer() {
    for arguments in [
        &["put", "k"][..],
        &["get"],
        &["no-such-command"],
        &["get", ""],
        &["add", "k", "many"],
        &["set", "add", "k"],
        &["set", "empty", "k"],
        &["map", "put", "k", "f"],
        &["map", "remove", "k", "f", "v"],
        &["flag", "enable"],
        &["put", "k", "v", "--context", "no context"],
        &["delete", "k", "l", "--context", "AQ=="],
    ] {
        let (code, out, err) = latitude(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(err.starts_with("error: "), "{err}");
    }
}

#[test]
fn a_write_that_reaches_nobody_exits_with_3_because_it_had_no_effect() {
    let (code, out, err) = latitude(&["put", "k", "v", "--to", NOBODY, "--timeout", "200ms"]);
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.starts_with("error: ") && err.contains("\nhint: "), "{err}");
}

#[test]
fn with_json_an_error_is_one_object_on_stderr() {
    let arguments = ["get", "k", "--output", "json", "--to", NOBODY, "--timeout", "200ms"];
    let (code, out, err) = latitude(&arguments);
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    let error: serde_json::Value = serde_json::from_str(&err).expect("stderr is one JSON object");
    assert_eq!(error["error"]["outcome"], "not_applied");
    assert_eq!(error["error"]["exit_code"], 3);
}

#[test]
fn what_start_prints_as_its_configuration_it_also_takes() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("node.toml");
    let (code, first, err) = start_with("[node]\nregion = \"eu\"\njoin = [\"a:1\"]\n", &path);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(first.contains("round_trip_max = \"300ms\""), "{first}");
    assert_eq!(start_with(&first, &path), (0, first, String::new()));
}

#[test]
fn a_configuration_that_cannot_be_used_exits_with_2_and_names_file_and_line() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("node.toml");
    let (code, out, err) = start_with("[raft]\n\nheartbeat_interval = 5\n", &path);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("node.toml, line 3: heartbeat_interval is 5ms"), "{err}");
}

#[test]
fn an_import_that_cannot_begin_says_why_and_exits_with_2() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let file = dir.path().join("rows.csv");
    std::fs::write(&file, "a,b\n").expect("the file can be written");
    let file = file.to_str().expect("the path is UTF-8");
    for (arguments, why) in [
        (&["import", file][..], "say --format tsv or --format jsonl"),
        (&["import", file, "--format", "csv"], "[possible values: tsv, jsonl]"),
        (&["import", "no/such/file.tsv"], "no/such/file.tsv cannot be read: No such file"),
        (&["import", "/", "--format", "tsv"], "/ cannot be read: is a directory"),
        (&["import", file, "--format", "tsv", "--rejects", file], "name another --rejects"),
        (&["import", file, "--format", "tsv", "--concurrency", "0"], "--concurrency"),
        (&["export", "--out", "rows.csv"], "say --format tsv or --format jsonl"),
        (&["export", "--out", "no/such/rows.tsv"], "no/such/rows.tsv cannot be written"),
        (&["export", "--prefix", "zz", "--hex"], "hexadecimal"),
    ] {
        let (code, out, err) = latitude(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains(why), "{arguments:?}: {err}");
    }
}

#[test]
fn a_damaged_line_is_counted_with_its_number_and_reason() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let file = dir.path().join("rows.jsonl");
    std::fs::write(&file, "{\"key\":\"a\"}\n").expect("the file can be written");
    let file = file.to_str().expect("the path is UTF-8");
    let (code, out, _) = latitude(&["import", file, "--to", NOBODY]);
    assert_eq!(code, 2);
    assert!(out.contains("LINE_FIELDS, first in line 1: write one of \"value\""), "{out}");
}

#[test]
fn an_import_that_reaches_nobody_exits_with_3() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let file = dir.path().join("rows.tsv");
    std::fs::write(&file, "a\t1\nb\t2\n").expect("the file can be written");
    let file = file.to_str().expect("the path is UTF-8");
    let arguments = ["import", file, "--to", NOBODY, "--timeout", "200ms", "--output", "json"];
    let (code, out, err) = latitude(&arguments);
    assert_eq!((code, err.as_str()), (3, ""), "{out}");
    let report: serde_json::Value = serde_json::from_str(&out).expect("a report in JSON");
    assert_eq!((&report["written"], &report["not_applied"]), (&0.into(), &2.into()));
}

#[test]
fn an_export_that_fails_leaves_no_file() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let file = dir.path().join("rows.tsv");
    let file = file.to_str().expect("the path is UTF-8");
    let (code, ..) = latitude(&["export", "--out", file, "--to", NOBODY, "--timeout", "200ms"]);
    assert_eq!(code, 3);
    let left = std::fs::read_dir(dir.path()).expect("the directory is there").count();
    assert_eq!(left, 0);
}

/// A session that has stood at 1300 of cluster 07…07: the layout of version 1 never changes.
const TOKEN: &str =
    "AQcHBwcHBwcHBwcHBwcHBwcBFAUAAAAAAAAB6AcCAAABBAEB6AcCAAABAwGwCQAAq0fAxK7kxRLsCPJDn4gxdQ==";

#[test]
fn a_session_or_a_demand_that_makes_no_sense_exits_with_2_and_asks_nobody() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let damaged = dir.path().join("damaged");
    std::fs::write(&damaged, &TOKEN[4..]).expect("the file can be written");
    let damaged = damaged.to_str().expect("the path is UTF-8");
    for (arguments, why) in [
        (&["--session", damaged][..], "holds no session"),
        (&["--session", "/dev/null"], "no regular file"),
        (&["--session", "/no/such/directory/mine"], "does not exist"),
        (&["--token", "bm8gdG9rZW4="], "TOKEN_INVALID"),
        (&["--token", TOKEN, "--session", damaged], "cannot be used with"),
        (&["--max-staleness", "-5ms"], "is not a duration"),
        (&["--max-staleness", "5"], "is not a duration"),
        (&["--accept", "strict"], "sequential, causal, eventual"),
        (&["--level", "causal", "--accept", "sequential"], "not weaker than causal"),
        (&["--level", "sequential", "--accept", "causal,sequential"], "not weaker"),
    ] {
        let (code, out, err) = latitude(&[&["get", "k", "--to", NOBODY], arguments].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(why), "{arguments:?}: {err}");
    }
    assert_eq!(std::fs::read_to_string(damaged).expect("it is there"), TOKEN[4..]);
}

#[test]
fn a_session_whose_command_failed_is_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let (new, old) = (dir.path().join("new"), dir.path().join("old"));
    std::fs::write(&old, TOKEN).expect("the file can be written");
    for path in [&new, &old] {
        let path = path.to_str().expect("the path is UTF-8");
        let arguments = ["put", "k", "v", "--session", path, "--to", NOBODY, "--timeout", "200ms"];
        assert_eq!(latitude(&arguments).0, 3);
    }
    assert!(!new.exists());
    assert_eq!(std::fs::read_to_string(&old).expect("it is there"), TOKEN);
}

#[test]
fn the_tokens_of_sessions_can_be_looked_into_and_joined() {
    let (code, out, err) = latitude(&["session", "show", TOKEN]);
    assert_eq!((code, err.as_str()), (0, ""));
    for line in
        ["cluster            07070707070707070707070707070707", "log                r4e1 0.1000@n2"]
    {
        assert!(out.contains(line), "{out}");
    }
    let (code, out, _) = latitude(&["session", "show", TOKEN, "--output", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&out).expect("stdout is one JSON object");
    assert_eq!((code, &shown["incarnation"]), (0, &serde_json::json!(1)));
    assert_eq!(
        latitude(&["session", "join", TOKEN, TOKEN]),
        (0, format!("{TOKEN}\n"), String::new())
    );
    let (code, out, err) = latitude(&["session", "show", "no-such-file"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("TOKEN_INVALID") && err.contains("hint: "), "{err}");
}

//! The exit status of `latitude-checker`, which scripts rely on.

use std::path::Path;
use std::process::Command;

/// Judges files below `tests/histories`; returns the exit status and what was said.
fn run(files: &[&str]) -> (Option<i32>, String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories");
    let mut command = Command::new(env!("CARGO_BIN_EXE_latitude-checker"));
    let output = command.current_dir(folder).args(files).output().expect("the binary was built");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

const GOOD: &str = "good/keys_do_not_order_each_other.jsonl";
const BAD: &str = "bad/thin_air_read.jsonl";
const NO_HISTORY: &str = "bad/thin_air_read.expected";
const VERSIONS: &str = "version_goes_down.jsonl";

#[test]
fn a_linearizable_history_exits_with_0() {
    let (status, said) = run(&[GOOD]);
    assert_eq!(said, format!("{GOOD}: 5 ok, 0 failed, 0 unknown, 2 keys: linearizable\n"));
    assert_eq!(status, Some(0));
}

#[test]
fn a_violation_exits_with_1_whatever_the_other_files_are() {
    let (status, said) = run(&[GOOD, BAD, NO_HISTORY]);
    assert!(said.contains("key k: a value from thin air"), "{said}");
    assert_eq!(status, Some(1));
    assert_eq!(run(&[NO_HISTORY, BAD]).0, Some(1));
}

#[test]
fn versions_that_go_down_are_a_violation_though_the_values_fit() {
    let (status, said) = run(&[VERSIONS]);
    assert!(said.contains("linearizable, but\nkey k: the version went down"), "{said}");
    assert_eq!(status, Some(1));
}

#[test]
fn what_cannot_be_read_exits_with_2() {
    let (status, said) = run(&[GOOD, NO_HISTORY]);
    assert!(said.contains("unreadable: line 1: not an event"), "{said}");
    assert_eq!(status, Some(2));
    assert_eq!(run(&["missing.jsonl"]).0, Some(2));
    assert_eq!(run(&[]).0, Some(2));
}

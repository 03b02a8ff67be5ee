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
const STALE: &str = "stale_read.jsonl";
const OBJECTS: &str = "good/objects_beside_one_another.jsonl";
const SEVERAL: &str = "several_objects_on_a_key.jsonl";
const FORK: &str = "sequential/bad/two_observers_see_two_writes_in_opposite_orders.jsonl";
const LOCAL: &str = "local_write.jsonl";

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
fn counters_and_lists_are_judged_beside_registers() {
    let (status, said) = run(&[OBJECTS]);
    assert_eq!(said, format!("{OBJECTS}: 6 ok, 0 failed, 0 unknown, 3 keys: linearizable\n"));
    assert_eq!(status, Some(0));
    let (status, said) = run(&["--level", "strict", SEVERAL]);
    assert!(said.contains("unknown\nkey c: line 3: `write 1` is no operation of"), "{said}");
    assert_eq!(status, Some(2));
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

#[test]
fn the_level_says_what_a_history_is_held_against() {
    assert_eq!(run(&[STALE]).0, Some(1));
    assert_eq!(run(&["--level", "strict", STALE]).0, Some(1));
    let (status, said) = run(&["--level", "sequential", STALE]);
    let report = "2 ok, 0 failed, 0 unknown, 1 keys: sequentially consistent (by search)";
    assert_eq!(said, format!("{STALE}: {report}\n"));
    assert_eq!(status, Some(0));
}

#[test]
fn an_order_that_two_observers_do_not_share_exits_with_1_at_level_sequential() {
    let (status, said) = run(&["--level", "sequential", LOCAL, FORK]);
    assert!(said.contains("not sequentially consistent (by search)\nkey "), "{said}");
    assert_eq!(status, Some(1));
}

#[test]
fn what_the_level_cannot_judge_exits_with_2() {
    let (status, said) = run(&["--level", "sequential", STALE, LOCAL]);
    assert!(said.contains("unknown\nline 1: nobody knows the place"), "{said}");
    assert_eq!(status, Some(2));
}

#[test]
fn two_observers_in_opposite_orders_are_causal() {
    let (status, said) = run(&["--level", "causal", FORK, STALE]);
    assert!(
        said.contains(&format!("{FORK}: 6 ok, 0 failed, 0 unknown, 2 keys: causally convergent\n")),
        "{said}"
    );
    assert_eq!(status, Some(0));
    let (status, said) = run(&["--level", "causal", BAD]);
    assert!(
        said.contains("not causally convergent (ThinAirRead)\nkey k: a value from thin air"),
        "{said}"
    );
    assert_eq!(status, Some(1));
}

#[test]
fn one_promise_is_judged_by_its_name() {
    for (check, bad, rule) in [
        ("sessions", "promises/bad/sessions_message_passing.jsonl", "monotonic writes is broken"),
        (
            "counter",
            "promises/bad/counter_counts_a_retry_twice.jsonl",
            "a counter ends above its additions",
        ),
        (
            "set",
            "promises/bad/set_brings_a_removed_element_back.jsonl",
            "a removed element is back",
        ),
        (
            "durability",
            "promises/bad/durability_write_missing_at_the_end.jsonl",
            "an acknowledged write is missing",
        ),
        (
            "convergence",
            "promises/bad/convergence_two_nodes_differ.jsonl",
            "replicas differ at the end",
        ),
    ] {
        let (status, said) = run(&["--check", check, bad]);
        assert!(
            said.contains(&format!(" keys: {check}: broken\nkey k")) && said.contains(rule),
            "{said}"
        );
        assert_eq!(status, Some(1), "{check}");
    }
    let (status, said) = run(&["--check", "sessions", STALE]);
    assert_eq!(said, format!("{STALE}: 2 ok, 0 failed, 0 unknown, 1 keys: sessions: kept\n"));
    assert_eq!(status, Some(0));
    let (status, said) = run(&["--check", "durability", STALE]);
    assert!(said.contains("durability: unknown\nthere are no final reads"), "{said}");
    assert_eq!(status, Some(2));
}

#[test]
fn the_level_of_operations_that_name_none_decides_what_they_promise() {
    let unnamed = "promises/levels/counter_read_by_another_session.jsonl";
    assert_eq!(run(&["--check", "counter", unnamed]).0, Some(1));
    assert_eq!(run(&["--check", "counter", "--level", "causal", unnamed]).0, Some(0));
}

#[test]
fn wrong_arguments_exit_with_2() {
    for arguments in [
        &["--level", "eventual", STALE][..],
        &["--level", "linear", STALE],
        &["--check", "linear", STALE],
        &[STALE, "--level"],
        &[STALE, "--check"],
        &["--lvl", STALE],
    ] {
        assert_eq!(run(arguments), (Some(2), String::new()), "{arguments:?}");
    }
    assert_eq!(run(&["--level", "sequential"]).0, Some(2));
}

//! Processes: signals reach the one meant, and none outlives its handle.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use latitude_testbed::{Binary, Process};

fn sleep_long() -> Binary {
    Binary::new("/bin/sleep").args(["1000"])
}

/// The state letter of a process, as `ps` shows it; `-` once it is gone.
fn state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('-')
}

#[tokio::test]
async fn output_is_appended_to_the_log_and_the_exit_status_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let shell = Binary::new("/bin/sh").args(["-c", "echo out $WHO; echo err >&2; exit 3"]);
    for who in ["first", "second"] {
        let mut process = Process::spawn(&shell.clone().env("WHO", who), &log).unwrap();
        assert_eq!(process.wait().await.unwrap().code(), Some(3));
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), "out first\nerr\nout second\nerr\n");
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_named_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = Process::spawn(&Binary::new("/no/such"), &dir.path().join("log")).unwrap_err();
    assert!(error.to_string().contains("/no/such"), "{error:#}");
}

#[tokio::test]
async fn a_paused_process_is_stopped_until_it_is_resumed_and_can_be_paused_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::spawn(&sleep_long(), &dir.path().join("log")).unwrap();
    for _ in 0..3 {
        process.pause().await.unwrap();
        assert_eq!(state(process.pid()), 'T');
        process.resume().unwrap();
        while state(process.pid()) == 'T' {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(process.exit_status().unwrap(), None);
    }
}

#[tokio::test]
async fn kill_9_ends_even_a_paused_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::spawn(&sleep_long(), &dir.path().join("log")).unwrap();
    process.pause().await.unwrap();
    assert_eq!(process.kill9().await.unwrap().signal(), Some(9));
    assert_eq!(state(process.pid()), '-');
    // A second kill must not reach whoever has the pid by now.
    assert_eq!(process.kill9().await.unwrap().signal(), Some(9));
    assert!(process.pause().await.is_err());
}

#[tokio::test]
async fn terminate_lets_a_process_end_in_its_own_way() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let mut process = Process::spawn(&Binary::new("/bin/sh").args(["-c", script]), &log).unwrap();
    while !fs::read_to_string(&log).unwrap().contains("ready") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    process.terminate().unwrap();
    assert_eq!(process.wait().await.unwrap().code(), Some(7));
    assert!(fs::read_to_string(&log).unwrap().ends_with("bye\n"));
}

#[tokio::test]
async fn a_dropped_process_dies() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::spawn(&sleep_long(), &dir.path().join("log")).unwrap();
    let pid = process.pid();
    drop(process);
    // Dead, though perhaps not yet waited for.
    while !matches!(state(pid), '-' | 'Z') {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

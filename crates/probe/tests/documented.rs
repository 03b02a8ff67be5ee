//! `docs/testing.md` lists what there is, no more and no less, and where it is in the code.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use latitude_probe::{Mark, Plant};

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.expect("this crate lies in crates/probe").to_owned()
}

/// The files of our code that hold `text`, relative to the root; not those of this crate, nor tests.
fn files_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![root().join("crates")];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !matches!(&*name, "probe" | "sim" | "tests" | "target") {
                left.push(path);
            } else if name.ends_with(".rs") && fs::read_to_string(&path).unwrap().contains(text) {
                found.push(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// A table of what is said of each, and where it is; it must be in the code, and in one place.
fn table<'a>(title: &str, all: impl Iterator<Item = (&'a str, &'a str, String)>) -> String {
    let mut table = format!("| {title} | what it means | where |\n| --- | --- | --- |\n");
    for (name, meaning, code) in all {
        let places = files_with(&code);
        assert!(!places.is_empty(), "{code} is nowhere in the code");
        let places: Vec<_> = places.iter().map(|place| format!("`{place}`")).collect();
        table += &format!("| `{name}` | {meaning} | {} |\n", places.join(", "));
    }
    table
}

fn is_documented(table: &str) {
    let documented = fs::read_to_string(root().join("docs/testing.md")).unwrap();
    assert!(documented.contains(table), "docs/testing.md should have this table:\n\n{table}");
}

#[test]
fn every_mark_is_listed_with_its_place() {
    let marks =
        Mark::ALL.iter().map(|mark| (mark.name(), mark.meaning(), format!("Mark::{mark:?}")));
    is_documented(&table("mark", marks));
}

#[test]
fn every_planted_bug_is_listed_with_its_place() {
    let plants = Plant::ALL.iter();
    let plants =
        plants.map(|plant| (plant.name(), plant.meaning(), format!("Plant::{plant:?}.is_on()")));
    is_documented(&table("bug", plants));
}

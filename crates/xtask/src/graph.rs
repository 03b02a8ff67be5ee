//! The arrows between our crates, as a golden file: a new one shows in a diff and is discussed.
//!
//! ```text
//!   sim -> node types; dev: checker
//!   types
//! ```
//!
//! One line per crate, sorted, without the prefix `latitude-`. Behind `dev:` stands what only its
//! tests use. Libraries of others are not shown: the root `Cargo.toml` lists those.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Result, bail};

use crate::cargo::{self, Metadata};

/// The golden file, relative to the root of the workspace.
const PATH: &str = "docs/graph.txt";

/// Prints the graph as it is.
pub(crate) fn print() -> Result<()> {
    print!("{}", render(&Metadata::load()?));
    Ok(())
}

/// Fails, with the difference, unless the golden file shows the graph as it is.
pub(crate) fn check() -> Result<()> {
    let Ok(golden) = fs::read_to_string(cargo::root().join(PATH)) else {
        bail!("{PATH} does not exist: run `cargo xtask fix`");
    };
    let graph = render(&Metadata::load()?);
    if golden == graph {
        return Ok(());
    }
    bail!(
        "the crates depend on each other otherwise than {PATH} says\n\n{}\n\
         If that is meant, run `cargo xtask fix` and commit the file.",
        difference(&golden, &graph)
    );
}

/// Rewrites the golden file.
pub(crate) fn fix() -> Result<()> {
    let path = cargo::root().join(PATH);
    fs::create_dir_all(path.parent().expect("the golden file lies in a directory"))?;
    if cargo::write_if_different(&path, &render(&Metadata::load()?))? {
        println!("wrote {PATH}");
    }
    Ok(())
}

fn render(metadata: &Metadata) -> String {
    let ours: BTreeMap<_, _> = metadata.packages().collect();
    let mut lines = BTreeSet::new();
    for (name, dependencies) in &ours {
        let arrows = |dev| -> BTreeSet<&str> {
            let kept = dependencies.iter().filter(|to| to.dev == dev && ours.contains_key(to.name));
            kept.map(|to| short(to.name)).collect()
        };
        let (normal, dev) = (arrows(false), arrows(true));
        let mut line = short(name).to_owned();
        if !(normal.is_empty() && dev.is_empty()) {
            line += " ->";
        }
        for to in &normal {
            line += &format!(" {to}");
        }
        // What the crate itself uses, its tests may use as well: that is no arrow of its own.
        let dev: Vec<_> = dev.difference(&normal).copied().collect();
        if !dev.is_empty() {
            let separator = if normal.is_empty() { "" } else { ";" };
            line += &format!("{separator} dev: {}", dev.join(" "));
        }
        lines.insert(line);
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

fn short(package: &str) -> &str {
    package.strip_prefix("latitude-").unwrap_or(package)
}

/// The lines only one of the two has: `-` before those that are gone, `+` before those that are new.
fn difference(old: &str, new: &str) -> String {
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (old.lines().collect(), new.lines().collect());
    let gone = old.difference(&new).map(|line| (*line, '-'));
    let come = new.difference(&old).map(|line| (*line, '+'));
    // Side by side by crate: `-` sorts after `+`, and the old line should stand first.
    let mut lines: Vec<_> = gone.chain(come).collect();
    lines.sort_by_key(|(line, sign)| (line.split(' ').next(), std::cmp::Reverse(*sign)));
    lines.into_iter().map(|(line, sign)| format!("{sign} {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_shows_its_arrows_to_our_crates_only_and_those_of_its_tests_apart() {
        let json = r#"{"packages": [
            {"name": "xtask", "dependencies": [{"name": "anyhow", "kind": null}]},
            {"name": "latitude-sim", "dependencies": [
                {"name": "latitude-types", "kind": null},
                {"name": "latitude-node", "kind": null},
                {"name": "latitude-node", "kind": "dev"},
                {"name": "latitude-checker", "kind": "dev"}
            ]},
            {"name": "latitude-checker", "dependencies": [{"name": "latitude-types", "kind": "dev"}]},
            {"name": "latitude-node", "dependencies": [{"name": "latitude-types", "kind": "build"}]},
            {"name": "latitude-types", "dependencies": [{"name": "serde", "kind": null}]}
        ]}"#;
        assert_eq!(
            render(&Metadata::parse(json).unwrap()),
            "checker -> dev: types\nnode -> types\nsim -> node types; dev: checker\ntypes\nxtask\n"
        );
    }

    #[test]
    fn a_difference_shows_the_old_line_of_a_crate_above_its_new_one() {
        let old = "a -> b\nb\nc\n";
        let new = "a -> b c\nb\nd\n";
        assert_eq!(difference(old, new), "- a -> b\n+ a -> b c\n- c\n+ d\n");
    }
}

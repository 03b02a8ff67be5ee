//! Calls to cargo from below cargo, and what cargo says about the workspace.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    // Cargo sets it for the process too. What was compiled in is the second choice only, because a
    // target directory may be shared by several clones.
    let crate_dir = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    crate_dir.ancestors().nth(2).expect("this crate lies in crates/xtask").to_owned()
}

/// Cargo in the root of the workspace, as if it were called from a shell.
///
/// `cargo run` hands down variables of its own: those that describe this crate, and the `[env]` of
/// the configuration. Build scripts that watch one of them would run again each time a shell and
/// `cargo xtask` take turns.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    for (name, _) in env::vars_os() {
        if is_handed_down(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command
}

fn is_handed_down(name: &str) -> bool {
    matches!(name, "CARGO" | "CARGO_MANIFEST_DIR" | "CARGO_MANIFEST_PATH")
        || matches!(name, "ROCKSDB_LIB_DIR" | "ROCKSDB_STATIC")
        || name.starts_with("CARGO_PKG_")
}

/// Runs a command to its end, its output going where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", shown(command));
    Ok(())
}

/// What a command prints on its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    ensure!(output.status.success(), "`{}` failed ({})", shown(command), output.status);
    String::from_utf8(output.stdout).with_context(|| format!("output of {}", shown(command)))
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// What `cargo metadata` says about our own packages.
pub(crate) struct Metadata(Value);

/// One package's wish to use another.
pub(crate) struct Dependency<'a> {
    /// The name of the package that is used.
    pub(crate) name: &'a str,
    /// Whether only tests, examples and benchmarks use it.
    pub(crate) dev: bool,
    /// The features asked for, `default` among them unless switched off.
    pub(crate) features: Vec<&'a str>,
}

impl Metadata {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self> {
        Self::parse(&output(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?)
    }

    /// Reads the answer of cargo.
    pub(crate) fn parse(json: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(json).context("cargo metadata")?;
        ensure!(metadata["packages"].is_array(), "cargo metadata names no packages");
        Ok(Self(metadata))
    }

    /// The names of our packages, each with what it depends on.
    pub(crate) fn packages(&self) -> impl Iterator<Item = (&str, Vec<Dependency<'_>>)> {
        elements(&self.0["packages"]).map(|package| {
            let dependencies = elements(&package["dependencies"]).map(Dependency::of);
            (text(&package["name"]), dependencies.collect())
        })
    }

    /// Where cargo puts what it compiles.
    pub(crate) fn target_dir(&self) -> Result<PathBuf> {
        match text(&self.0["target_directory"]) {
            "" => bail!("cargo metadata names no target directory"),
            dir => Ok(dir.into()),
        }
    }
}

impl<'a> Dependency<'a> {
    fn of(json: &'a Value) -> Self {
        let default = json["uses_default_features"].as_bool().unwrap_or(true).then_some("default");
        Self {
            name: text(&json["name"]),
            dev: text(&json["kind"]) == "dev",
            features: default.into_iter().chain(elements(&json["features"]).map(text)).collect(),
        }
    }
}

fn elements(json: &Value) -> impl Iterator<Item = &Value> {
    json.as_array().into_iter().flatten()
}

fn text(json: &Value) -> &str {
    json.as_str().unwrap_or_default()
}

/// Writes a file unless that is what it holds, so that nothing is rebuilt for a newer time stamp.
/// Says whether it wrote.
pub(crate) fn write_if_different(path: &Path, content: &str) -> Result<bool> {
    if fs::read_to_string(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_the_content_already_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(write_if_different(&path, "a").unwrap());
        assert!(!write_if_different(&path, "a").unwrap());
        assert!(write_if_different(&path, "b").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "b");
    }

    #[test]
    fn the_features_of_a_dependency_name_default_unless_it_is_switched_off() {
        let json = r#"{"packages": [{"name": "a", "dependencies": [
            {"name": "b", "kind": null, "uses_default_features": true, "features": ["x"]},
            {"name": "c", "kind": "dev", "uses_default_features": false, "features": ["y"]}
        ]}]}"#;
        let metadata = Metadata::parse(json).unwrap();
        let (name, dependencies) = metadata.packages().next().unwrap();
        assert_eq!(name, "a");
        assert_eq!(
            (dependencies[0].dev, &dependencies[0].features[..]),
            (false, &["default", "x"][..])
        );
        assert_eq!((dependencies[1].dev, &dependencies[1].features[..]), (true, &["y"][..]));
    }

    #[test]
    fn a_command_that_fails_is_shown_as_it_would_be_typed() {
        let error = run(Command::new("/bin/sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c exit 3` failed (exit status: 3)");
    }
}

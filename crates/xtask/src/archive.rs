//! RocksDB, compiled once per machine into a static archive that every tree and profile links.
//!
//! ```text
//!   ~/.cache/latitude/rocksdb/<version>-<hash of key.txt>/
//!     key.txt        what the archive was made from and with
//!     librocksdb.a   complete, if it exists
//!     lock           held while the archive is made
//!     build-<pid>/   where it is made; gone afterwards
//! ```
//!
//! Two setups at once would each compile for ten minutes and slow one another down, so the second
//! waits for the lock. The kernel gives it back when its holder dies: a lock is never stale. The
//! archive is moved into place at the end, so whoever looks without the lock sees all of it or nothing.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt, io, process};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cargo::{self, Metadata, cargo, output};

const NAME: &str = "librocksdb.a";

/// The features of RocksDB that our crates ask for; `None` when none uses it.
pub(crate) fn features(metadata: &Metadata) -> Option<BTreeSet<String>> {
    let mut uses = metadata
        .packages()
        .flat_map(|(_, dependencies)| dependencies)
        .filter(|to| to.name == "rocksdb")
        .peekable();
    uses.peek()?;
    Some(uses.flat_map(|to| to.features).map(str::to_owned).collect())
}

/// All that decides what is in the archive. Not in it are the versions of lz4 and zstd: RocksDB sees
/// their stable functions only, and they are linked from their own crates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    /// Of the package `librocksdb-sys`, which carries the source.
    version: String,
    /// How the compiler names itself.
    compiler: String,
    /// The target triple.
    target: String,
    /// Of the package `rocksdb`.
    features: BTreeSet<String>,
    /// Given to rustc; those that choose a processor reach the C++ compiler too.
    rustflags: Vec<String>,
    /// The user's own flags for the C++ compiler; most often empty.
    cxxflags: String,
}

impl Key {
    /// The key of the tree as it is, on this machine.
    pub(crate) fn of_workspace(features: &BTreeSet<String>) -> Result<Self> {
        let read = |path| {
            fs::read_to_string(cargo::root().join(path))
                .with_context(|| format!("cannot read {path}"))
        };
        let target = host()?;
        Ok(Self {
            version: locked_version(&read("Cargo.lock")?, "librocksdb-sys")
                .context("librocksdb-sys is not in Cargo.lock")?
                .to_owned(),
            compiler: Compiler::find()?.name,
            rustflags: rustflags(&read(".cargo/config.toml")?, &target),
            target,
            features: features.clone(),
            cxxflags: env::var("CXXFLAGS").unwrap_or_default(),
        })
    }

    /// The name of the archive's directory.
    pub(crate) fn dir_name(&self) -> String {
        format!("{}-{:016x}", self.version, fnv1a(self.to_string().as_bytes()))
    }
}

/// The content of `key.txt`: a change to it moves every archive.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let features: Vec<_> = self.features.iter().map(String::as_str).collect();
        writeln!(f, "librocksdb-sys {}", self.version)?;
        writeln!(f, "compiler {}", self.compiler)?;
        writeln!(f, "target {}", self.target)?;
        writeln!(f, "features {}", features.join(" "))?;
        writeln!(f, "rustflags {}", self.rustflags.join(" "))?;
        if !self.cxxflags.is_empty() {
            writeln!(f, "cxxflags {}", self.cxxflags)?;
        }
        Ok(())
    }
}

/// The C++ compiler that build scripts use.
pub(crate) struct Compiler {
    /// The first line of what it says about its version.
    name: String,
}

impl Compiler {
    /// Asks the compiler that `CXX` names, or `c++`.
    pub(crate) fn find() -> Result<Self> {
        let cxx = env::var("CXX").unwrap_or_else(|_| "c++".into());
        // It may stand behind a wrapper: `ccache g++`.
        let mut words = cxx.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or("c++"));
        let text = output(command.args(words).arg("--version"))?;
        let name = text.lines().next().with_context(|| format!("{cxx} tells no version"))?;
        Ok(Self { name: name.to_owned() })
    }
}

fn host() -> Result<String> {
    let text = output(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// The version a lock file gives to a package.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

/// The flags a configuration of cargo gives to rustc for a target: the strings of the array
/// `rustflags` below the target's heading. Comments stand on lines of their own.
fn rustflags(config: &str, target: &str) -> Vec<String> {
    let section = config
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != format!("[target.{target}]"))
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    let text: String = section.filter(|line| !line.starts_with('#')).collect();
    let array = text.split_once("rustflags").and_then(|(_, rest)| rest.split_once(']'));
    let strings = array.map_or("", |(array, _)| array).split('"').skip(1).step_by(2);
    strings.map(str::to_owned).collect()
}

/// A hash that stays the same from one compiler and machine to the next, which the one of the
/// standard library does not promise.
///
/// Source: Fowler, Noll, Vo: FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Sees to it that `dir` holds the archive of `key`. If it does not, `compile` makes one below the
/// directory it is given and returns its path.
pub(crate) fn ensure(
    dir: &Path,
    key: &Key,
    compile: impl FnOnce(&Path, &Key) -> Result<PathBuf>,
) -> Result<()> {
    let archive = dir.join(NAME);
    if archive.exists() {
        return Ok(());
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let _lock = lock(&dir.join("lock"))?;
    if archive.exists() {
        return Ok(());
    }
    remove_builds(dir)?;
    fs::write(dir.join("key.txt"), key.to_string())?;
    // By process, for a cargo whose setup was killed may still be writing to the last one.
    let made = compile(&dir.join(format!("build-{}", process::id())), key)?;
    // On the disk before its name is: a crash must not leave a name without content.
    File::open(&made)?.sync_all()?;
    fs::rename(&made, &archive).with_context(|| format!("cannot move {}", made.display()))?;
    remove_builds(dir)
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the archive"),
    }
    println!("setup: another setup is compiling RocksDB, waiting for it");
    file.lock().context("cannot lock the archive")?;
    Ok(file)
}

fn remove_builds(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Compiles RocksDB as the workspace would, in a target directory of its own: nothing else is
/// disturbed. Returns the archive.
pub(crate) fn compile(target_dir: &Path, key: &Key) -> Result<PathBuf> {
    println!("setup: compiling RocksDB once for this machine, about ten minutes on two cores");
    // Of the workspace's own lock file and features, so there is no second list of either.
    let mut build = cargo(&["build", "--release", "-p", "librocksdb-sys"]);
    build.args(["--message-format", "json-render-diagnostics", "--target-dir"]).arg(target_dir);
    // Compile it, though an older `.cargo/rocksdb.toml` may name an archive.
    build.env("ROCKSDB_COMPILE", "1");
    // The flags in the key and no others, whatever else the environment or the user's own
    // configuration of cargo says; for this machine, whatever target they build for.
    build.env("CARGO_ENCODED_RUSTFLAGS", key.rustflags.join("\x1f"));
    build.env_remove("CARGO_BUILD_TARGET");
    build.env("CARGO_BUILD_BUILD_DIR", target_dir);

    let mut child = build.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let messages = io::read_to_string(child.stdout.take().context("cargo has no output")?)?;
    let status = child.wait()?;
    ensure!(status.success(), "RocksDB does not compile ({status})");
    match out_dir(&messages) {
        Some(dir) => Ok(dir.join(NAME)),
        None => bail!("cargo does not say where it put RocksDB"),
    }
}

/// Where the build script of `librocksdb-sys` wrote, from cargo's messages, one JSON object a line.
fn out_dir(messages: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(
        |message| {
            let is =
                |name: &str, part: &str| message[name].as_str().is_some_and(|v| v.contains(part));
            let found = is("reason", "build-script-executed") && is("package_id", "librocksdb-sys");
            found.then(|| message["out_dir"].as_str().map(PathBuf::from))?
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            version: "0.19.0+11.8.1".into(),
            compiler: "c++ 12.2.0".into(),
            target: "x86_64-unknown-linux-gnu".into(),
            features: ["lz4".into(), "zstd".into()].into(),
            rustflags: vec!["-C".into(), "target-cpu=x86-64-v3".into()],
            cxxflags: String::new(),
        }
    }

    /// A compiler that makes an archive which names itself.
    fn compile_as(content: &str) -> impl FnOnce(&Path, &Key) -> Result<PathBuf> {
        move |dir, _| {
            fs::create_dir_all(dir)?;
            let made = dir.join("made");
            fs::write(&made, content)?;
            Ok(made)
        }
    }

    fn names(dir: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_archive_is_compiled_once_and_its_build_directory_removed() {
        let cache = tempfile::tempdir().unwrap();
        let dir = cache.path().join("of-this-key");
        ensure(&dir, &key(), compile_as("first")).unwrap();
        ensure(&dir, &key(), compile_as("second")).unwrap();
        assert_eq!(fs::read_to_string(dir.join(NAME)).unwrap(), "first");
        assert_eq!(fs::read_to_string(dir.join("key.txt")).unwrap(), key().to_string());
        let expected = ["key.txt", NAME, "lock"].map(str::to_owned);
        assert_eq!(names(&dir), expected.into());
    }

    #[test]
    fn a_failed_compilation_leaves_no_archive_and_the_next_one_starts_clean() {
        let cache = tempfile::tempdir().unwrap();
        let dir = cache.path();
        let result = ensure(dir, &key(), |build, key| {
            compile_as("half")(build, key)?;
            bail!("out of memory")
        });
        assert_eq!(result.unwrap_err().to_string(), "out of memory");
        assert!(!dir.join(NAME).exists());
        ensure(dir, &key(), |build, key| {
            assert!(!build.exists(), "what the failure left is removed");
            compile_as("whole")(build, key)
        })
        .unwrap();
        assert_eq!(fs::read_to_string(dir.join(NAME)).unwrap(), "whole");
    }

    #[test]
    fn each_part_of_the_key_moves_the_archive() {
        let changes: [fn(&mut Key); 6] = [
            |key| key.version = "0.20.0".into(),
            |key| key.compiler = "c++ 13.0.0".into(),
            |key| key.target = "aarch64-unknown-linux-gnu".into(),
            |key| key.features = ["lz4".into()].into(),
            |key| key.rustflags.clear(),
            |key| key.cxxflags = "-g".into(),
        ];
        let mut dirs = BTreeSet::from([key().dir_name()]);
        for change in changes {
            let mut key = key();
            change(&mut key);
            assert!(dirs.insert(key.dir_name()), "{key}");
        }
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn the_flags_of_this_workspace_are_found() {
        let config = fs::read_to_string(cargo::root().join(".cargo/config.toml")).unwrap();
        let flags = rustflags(&config, "x86_64-unknown-linux-gnu");
        assert!(flags.contains(&"target-cpu=x86-64-v3".into()), "{flags:?}");
        assert!(flags.contains(&"target-feature=+pclmulqdq".into()), "{flags:?}");
    }

    #[test]
    fn flags_are_those_of_the_target_and_not_of_comments() {
        let config = "\
            [target.one]\nlinker = \"ld\"\nrustflags = [\n  # \"-no\"\n  \"-a\", \"b c\",\n]\n\
            [target.two]\nrustflags = [\"-d\"]\n[alias]\nrustflags = [\"-e\"]\n";
        assert_eq!(rustflags(config, "one"), ["-a", "b c"]);
        assert_eq!(rustflags(config, "two"), ["-d"]);
        assert!(rustflags(config, "three").is_empty());
    }

    #[test]
    fn the_locked_version_is_the_one_of_the_package_by_its_whole_name() {
        let lock = "[[package]]\nname = \"rocksdb-sys\"\nversion = \"1.0.0\"\n\n\
                    [[package]]\nname = \"rocksdb\"\nversion = \"2.0.0\"\nsource = \"x\"\n";
        assert_eq!(locked_version(lock, "rocksdb"), Some("2.0.0"));
        assert_eq!(locked_version(lock, "librocksdb"), None);
    }

    #[test]
    fn features_are_collected_from_all_crates_and_none_means_unused() {
        let json = |dependency: &str| {
            format!(
                r#"{{"packages": [
                    {{"name": "a", "dependencies": [{{"name": "{dependency}",
                        "uses_default_features": false, "features": ["zstd", "lz4"]}}]}},
                    {{"name": "b", "dependencies": [{{"name": "{dependency}",
                        "uses_default_features": false, "features": ["lz4", "snappy"]}}]}}
                ]}}"#
            )
        };
        let of = |dependency| features(&Metadata::parse(&json(dependency)).unwrap());
        assert_eq!(of("rocksdb").unwrap(), ["lz4", "snappy", "zstd"].map(str::to_owned).into());
        assert_eq!(of("sled"), None);
    }

    #[test]
    fn the_directory_is_the_one_of_the_build_script_of_rocksdb() {
        let messages = r#"{"reason":"build-script-executed","package_id":"x#zstd-sys@2","out_dir":"/z"}
{"reason":"compiler-artifact","package_id":"x#librocksdb-sys@0.19.0"}
not json
{"reason":"build-script-executed","package_id":"x#librocksdb-sys@0.19.0","out_dir":"/r"}"#;
        assert_eq!(out_dir(messages), Some("/r".into()));
        assert_eq!(out_dir("{}"), None);
    }
}

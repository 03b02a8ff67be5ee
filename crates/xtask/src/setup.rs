//! Makes this machine able to build: system packages, RocksDB's archive, and the file that tells
//! cargo where it is.
//!
//! With that file every cargo call in the tree uses the archive, a plain `cargo build` and an editor's
//! too. Without it cargo compiles RocksDB from source, which is slower and otherwise the same.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::archive::{self, Key};
use crate::cargo::{self, Metadata};
use crate::packages;

/// Prepares the machine; takes no time when it is prepared.
pub(crate) fn setup() -> Result<()> {
    let metadata = Metadata::load()?;
    let Some(features) = archive::features(&metadata) else {
        println!("setup: no crate uses RocksDB, nothing to prepare");
        return Ok(());
    };
    packages::ensure()?;

    let key = Key::of_workspace(&features)?;
    let dir = cache_dir()?.join("rocksdb").join(key.dir_name());
    archive::ensure(&dir, &key, archive::compile)?;
    let config = cargo::root().join(".cargo/rocksdb.toml");
    if cargo::write_if_different(&config, &config_text(&dir)?)? {
        println!("setup: wrote .cargo/rocksdb.toml");
    }
    println!("setup: RocksDB is at {}", dir.display());
    Ok(())
}

/// Where this user's machine keeps what can be made again.
fn cache_dir() -> Result<PathBuf> {
    // A relative path there is to be ignored, says the XDG base directory specification.
    let xdg = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache"));
    let base = xdg.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(base.join("latitude"))
}

fn config_text(dir: &Path) -> Result<String> {
    let dir = dir.to_str().context("the cache directory is not UTF-8")?;
    ensure!(!dir.contains(['"', '\\']), "quotes and backslashes cannot be in {dir}");
    Ok(format!(
        "# Written by `cargo xtask setup`: where this machine keeps its compiled RocksDB.\n\
         [env]\n\
         ROCKSDB_LIB_DIR = \"{dir}\"\n\
         ROCKSDB_STATIC = \"1\"\n"
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_path_that_would_break_the_file_is_refused() {
        assert!(config_text(Path::new("/cache")).unwrap().contains("\"/cache\"\n"));
        assert!(config_text(Path::new("/ca\"che")).is_err());
    }

    #[test]
    fn the_file_is_the_one_that_the_configuration_of_cargo_includes() {
        let config = fs::read_to_string(cargo::root().join(".cargo/config.toml")).unwrap();
        assert!(config.contains("path = \"rocksdb.toml\", optional = true"), "{config}");
    }
}

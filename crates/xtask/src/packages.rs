//! What the system must have: a C++ compiler, and libclang, which reads RocksDB's header when its
//! bindings are made. On Debian and its kin they are installed here; elsewhere we say what is missing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Result, bail};

use crate::archive::Compiler;
use crate::cargo::{output, run};

/// Sees to it that both are there.
pub(crate) fn ensure() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !(is_on_path("apt-get") && is_root()) {
        bail!(
            "RocksDB needs a C++ compiler and libclang; run\n\n  \
             sudo apt-get update && sudo apt-get install -y {packages}\n\n\
             (or what installs them on this system) and try again"
        );
    }
    println!("setup: installing {packages}");
    run(&mut apt_get(&["update"]))?;
    run(apt_get(&["install", "-y"]).args(&missing))?;
    if !self::missing().is_empty() {
        bail!("{packages} installed, but not where they are looked for; set CXX and LIBCLANG_PATH");
    }
    Ok(())
}

/// The Debian packages that bring what is not there.
fn missing() -> Vec<&'static str> {
    let compiler = Compiler::find().is_err().then_some("g++");
    let libclang =
        (!libclang_dirs().iter().any(|dir| holds_libclang(dir))).then_some("libclang-dev");
    compiler.into_iter().chain(libclang).collect()
}

fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
    command
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Where libclang may be, the places of the crate `clang-sys` that occur in practice.
fn libclang_dirs() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Some(path) = env::var_os("LIBCLANG_PATH").map(PathBuf::from) {
        // It may name the library or its directory.
        dirs.extend(path.parent().map(Path::to_owned));
        dirs.push(path);
    }
    if is_on_path("llvm-config")
        && let Ok(dir) = output(Command::new("llvm-config").arg("--libdir"))
    {
        dirs.push(dir.trim().into());
    }
    dirs.extend(["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from));
    for below in names(Path::new("/usr/lib")) {
        if below.starts_with("llvm") {
            dirs.push(Path::new("/usr/lib").join(below).join("lib"));
        } else if below.ends_with("-linux-gnu") {
            dirs.push(Path::new("/usr/lib").join(below));
        }
    }
    dirs
}

fn holds_libclang(dir: &Path) -> bool {
    names(dir).iter().any(|name| is_libclang(name))
}

/// `libclang.so`, `libclang.so.1`, `libclang-14.so.13`; not `libclang-cpp.so.14`, another library.
fn is_libclang(name: &str) -> bool {
    let Some((stem, version)) = name.split_once(".so") else { return false };
    let numeric = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '.');
    stem.strip_prefix("libclang").is_some_and(|rest| {
        rest.is_empty()
            || rest.strip_prefix('-').is_some_and(|llvm| !llvm.is_empty() && numeric(llvm))
    }) && numeric(version)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libclang_is_told_from_its_siblings() {
        for name in ["libclang.so", "libclang.so.1", "libclang-14.so", "libclang-14.so.14.0.6"] {
            assert!(is_libclang(name), "{name}");
        }
        for name in
            ["libclang-cpp.so.14", "libclang.a", "libclangAST.so", "libclang-.so", "libLLVM.so"]
        {
            assert!(!is_libclang(name), "{name}");
        }
    }

    #[test]
    fn a_directory_that_does_not_exist_holds_no_libclang() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!holds_libclang(&dir.path().join("none")));
        fs::write(dir.path().join("libclang.so"), "").unwrap();
        assert!(holds_libclang(dir.path()));
    }
}

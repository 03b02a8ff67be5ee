//! Every developer verb, as `cargo xtask <verb>`.
//!
//! ```text
//!   test  fix  demo  bench ──▶ setup ──▶ packages   libclang and a C++ compiler
//!     │    │                       └───▶ archive    RocksDB, compiled once per machine
//!     └────┴──▶ graph ──▶ docs/graph.txt
//! ```
//!
//! It must compile in seconds, for it runs before anything else is built: it knows no crate of ours
//! and has no dependency beyond the two it names.

#![expect(clippy::print_stdout, reason = "a command-line tool talks on its standard output")]

mod archive;
mod cargo;
mod graph;
mod packages;
mod planted;
mod run;
mod setup;
mod sim;
mod test;

use std::env;
use std::process::ExitCode;

use anyhow::{Result, ensure};

const HELP: &str = "\
cargo xtask <verb>

  setup         Makes this machine able to build: checks for a C++ compiler and libclang
                (installs them when root on a machine with apt-get), compiles RocksDB once into
                ~/.cache/latitude/rocksdb and tells cargo where it is, in .cargo/rocksdb.toml.
                The first time takes about ten minutes on two cores; afterwards, no time.
                Every verb below that compiles does this first.

  test          All there is to pass before a commit: format, lints, the graph of crates, all
                tests. Stops at the first step that fails. Never changes a tracked file; CI runs
                this and nothing else.
  fix           Mends what can be mended without thinking: rewrites docs/graph.txt, applies the
                fixes clippy is sure of, formats. Look at the diff.

  graph         Prints which of our crates depends on which. `test` compares it with
                docs/graph.txt, so a new arrow between crates shows in a diff.

  demo [args]   Builds the database and the demo in release and runs the demo; `demo --help`
                shows its arguments.
  bench [args]  Builds the database in release and runs `latitude bench` with the arguments.

  sim [args]    Simulates clusters from seeds, in the profile of the tests: `sim --seeds 0..200`,
                `sim --seed 17 --trace`; `sim --help` shows its arguments.
  planted       Plants bugs, one at a time, and fails if the simulation does not notice one within
                20 minutes. `--only NAME` takes that bug alone, `--minutes M` is another limit.

  help          This text.
";

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let verb = args.next().unwrap_or_else(|| "help".into());
    match dispatch(&verb, args.collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ncargo xtask {verb}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(verb: &str, args: Vec<String>) -> Result<()> {
    let takes_args = matches!(verb, "demo" | "bench" | "sim" | "planted");
    ensure!(takes_args || args.is_empty(), "takes no arguments, got `{}`", args.join(" "));
    match verb {
        "setup" => setup::setup(),
        "test" => test::test(),
        "fix" => test::fix(),
        "graph" => graph::print(),
        "demo" => run::demo(&args),
        "bench" => run::bench(&args),
        "sim" => sim::sim(&args),
        "planted" => planted::planted(&args),
        "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(())
        }
        _ => anyhow::bail!("no such verb; `cargo xtask help` lists them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_verb_is_an_error_that_points_to_the_help() {
        let error = dispatch("tset", vec![]).unwrap_err();
        assert!(error.to_string().contains("cargo xtask help"), "{error}");
    }

    #[test]
    fn a_verb_without_arguments_refuses_them_before_it_does_anything() {
        let error = dispatch("fix", vec!["--all".into()]).unwrap_err();
        assert!(error.to_string().contains("`--all`"), "{error}");
    }
}

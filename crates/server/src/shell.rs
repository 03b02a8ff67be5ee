//! The shell: commands line by line, with a state that stays from one to the next.
//!
//! ```text
//!   terminal ─▶ terminal (prompt, history, completion) ─┐
//!                                                       ├─▶ line (words ─▶ clap) ─▶ commands ─▶ output
//!   stdin, if it is none ───────────────────────────────┘     ▲
//!                                                       state: what flags are unless the line says
//! ```
//!
//! A line has the grammar of the command line: the same parsers read it. The state is nothing but other
//! defaults for its flags.

mod completion;
mod line;
mod session;
mod state;
mod terminal;

use std::io::{BufRead, IsTerminal};
use std::rc::Rc;

use latitude_client::Session;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::args::ShellArgs;
use crate::commands::{self, Context};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use line::{Line, Parsed};
use state::State;
use terminal::{Read, Terminal};

/// Runs a shell until its lines end.
pub fn run(args: ShellArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    // Not on this thread: connections live on while it waits for a line.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| anyhow::anyhow!("the runtime cannot be started: {error}"))?;
    let stop_on_error = args.stop_on_error;
    let mut shell = Shell::new(State::of(args), &runtime);
    let exit = if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        shell.converse(output)
    } else {
        shell.run_lines(std::io::stdin().lock(), stop_on_error, output)
    };
    drop(shell);
    runtime.shutdown_background();
    exit
}

struct Shell<'a> {
    state: State,
    context: Rc<Context>,
    runtime: &'a Runtime,
}

/// What a line came to.
enum Done {
    /// The shell goes on.
    Next(Exit),
    Quit,
}

impl<'a> Shell<'a> {
    fn new(state: State, runtime: &'a Runtime) -> Self {
        let context = Context::of_shell();
        context.begin_session(state.to.clone(), Session::new());
        Self { state, context: Rc::new(context), runtime }
    }

    /// Reads lines from a person.
    fn converse(&mut self, output: &mut Output<'_>) -> Result<Exit, Failure> {
        let lookup =
            completion::Lookup::new(self.runtime.handle().clone(), Rc::clone(&self.context));
        let mut terminal = Terminal::open(lookup, output)?;
        output.error_line("`help` lists the commands; Tab completes; Ctrl-D leaves")?;
        loop {
            output.flush()?;
            match terminal.read(&self.state)? {
                Read::Line(line) => match self.run_line(&line, true, output) {
                    Ok(Done::Next(_)) => {}
                    Ok(Done::Quit) => return Ok(Exit::Success),
                    Err(failure) => drop(failure.report(&mut output.of(self.state.format))),
                },
                Read::Interrupted => {}
                Read::End => return Ok(Exit::Success),
            }
        }
    }

    /// Runs the lines of a script.
    fn run_lines(
        &mut self,
        mut lines: impl BufRead,
        stop_on_error: bool,
        output: &mut Output<'_>,
    ) -> Result<Exit, Failure> {
        let mut first_failure = Exit::Success;
        let mut bytes = Vec::new();
        for number in 1u64.. {
            bytes.clear();
            let read = lines.read_until(b'\n', &mut bytes);
            if read.map_err(|error| anyhow::anyhow!("stdin cannot be read: {error}"))? == 0 {
                break;
            }
            let done = match std::str::from_utf8(&bytes) {
                Ok(line) => self.run_line(line, false, output),
                Err(_) => Err(Failure::Usage("the line is no UTF-8".to_string())),
            };
            let exit = match done {
                Ok(Done::Next(exit)) => exit,
                Ok(Done::Quit) => break,
                Err(failure) => {
                    let exit = failure.report(&mut output.of(self.state.format));
                    output.of(self.state.format).note(&format!("that was line {number}"))?;
                    exit
                }
            };
            // What was answered is there before the next line is run, whatever becomes of that.
            output.flush()?;
            // "No" is an answer.
            if !matches!(exit, Exit::Success | Exit::No) {
                if first_failure == Exit::Success {
                    first_failure = exit;
                }
                if stop_on_error {
                    break;
                }
            }
        }
        Ok(first_failure)
    }

    fn run_line(
        &mut self,
        text: &str,
        cancellable: bool,
        output: &mut Output<'_>,
    ) -> Result<Done, Failure> {
        let started = Instant::now();
        let command = match line::parse(text, &self.state)? {
            Parsed::Nothing => return Ok(Done::Next(Exit::Success)),
            Parsed::Help(help) => {
                output.raw(help.as_bytes())?;
                return Ok(Done::Next(Exit::Success));
            }
            Parsed::Line(command) => command,
        };
        let exit = match *command {
            Line::Quit => return Ok(Done::Quit),
            Line::Ask(ask) => {
                let format = ask.format();
                let mut output = output.of(format);
                let run = commands::ask(ask, &self.context, &mut output);
                let exit = self.runtime.block_on(async {
                    tokio::select! {
                        exit = run => exit.map(Some),
                        () = interrupted(), if cancellable => Ok(None),
                    }
                });
                match exit {
                    Ok(Some(exit)) => exit,
                    Ok(None) => {
                        let note =
                            "cancelled: a write that was under way may have happened, or may yet";
                        output.note(note)?;
                        Exit::Success
                    }
                    // In the format of its own line.
                    Err(failure) if format != self.state.format => failure.report(&mut output),
                    Err(failure) => return Err(failure),
                }
            }
            Line::Use { keyspace } => {
                self.state.keyspace = keyspace;
                Exit::Success
            }
            Line::Level { level } => {
                self.state.level = level.0;
                Exit::Success
            }
            Line::Session(command) => {
                let mut output = output.of(self.state.format);
                session::run(command, &self.context, &self.state, &mut output)?;
                Exit::Success
            }
            Line::Receipt { detail } => {
                self.state.receipt = detail;
                Exit::Success
            }
            Line::Timing { switch } => {
                self.state.timing = switch.is_on();
                return Ok(Done::Next(Exit::Success));
            }
        };
        if self.state.timing {
            let ms = started.elapsed().as_micros() as f64 / 1000.0;
            output.of(self.state.format).note(&format!("took {ms:.3} ms"))?;
        }
        Ok(Done::Next(exit))
    }
}

/// Waits for Ctrl-C.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler Ctrl-C ends the process, as everywhere else.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};
    use crate::output::Format;

    /// Runs a script against nobody: exit, stdout, stderr, and the state it leaves.
    fn run_script(flags: &str, script: &str) -> (Exit, String, String, State) {
        let line = format!("latitude shell --to 127.0.0.1:1 --timeout 100ms {flags}");
        let command = Cli::try_parse_from(line.split_whitespace()).unwrap().command;
        let Command::Shell(args) = command else { panic!("{command:?} is no shell") };
        let runtime = Runtime::new().unwrap();
        let stop = args.stop_on_error;
        let mut shell = Shell::new(State::of(args), &runtime);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut output = Output::new(Format::Text, &mut out, &mut err);
        let exit = shell.run_lines(script.as_bytes(), stop, &mut output).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (exit, text(out), text(err), shell.state)
    }

    #[test]
    fn lines_change_the_state_and_blank_lines_and_comments_nothing() {
        let script = "use users\nlevel causal\n\n  # a comment\nreceipt short\n";
        let (exit, out, err, state) = run_script("", script);
        assert_eq!((exit, out.as_str(), err.as_str()), (Exit::Success, "", ""));
        assert_eq!(state.keyspace, "users");
        assert_eq!(state.level, Some(latitude_types::Level::Causal));
        let (.., state) = run_script("--level strict", "level default\nquit\nuse never\n");
        assert_eq!((state.keyspace.as_str(), state.level), ("default", None));
    }

    #[test]
    fn every_line_is_run_and_the_first_failure_is_the_exit() {
        let (exit, _, err, state) = run_script("", "get k\nnonsense\nuse users\n");
        assert_eq!((exit, state.keyspace.as_str()), (Exit::Unavailable, "users"));
        assert!(err.contains("that was line 1\n") && err.contains("that was line 2\n"), "{err}");
        assert!(err.contains("error: UNREACHABLE"), "{err}");
    }

    #[test]
    fn told_so_it_stops_at_the_first_failure() {
        let (exit, _, err, state) = run_script("--stop-on-error", "nonsense\nuse users\n");
        assert_eq!((exit, state.keyspace.as_str()), (Exit::Refused, "default"));
        assert!(err.contains("unrecognized subcommand 'nonsense'"), "{err}");
    }

    #[test]
    fn a_command_does_not_eat_the_lines_after_it() {
        for line in ["put k -", "import - --format tsv"] {
            let (exit, _, err, _) = run_script("", &format!("{line}\nk\tv\n"));
            assert_eq!(exit, Exit::Refused);
            assert!(err.contains("name a file"), "{err}");
        }
    }

    #[test]
    fn errors_are_printed_as_the_shell_was_told_or_as_the_line_says() {
        let (_, _, err, _) = run_script("--output json", "get k\n");
        assert!(err.starts_with("{\"error\":"), "{err}");
        let (_, _, err, _) = run_script("", "get k --output json\n");
        assert!(err.starts_with("{\"error\":"), "{err}");
    }

    #[test]
    fn a_session_is_shown_saved_and_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("session").to_str().unwrap().to_string();
        let (exit, out, err, _) = run_script("", &format!("session show\nsession save {file}\n"));
        assert_eq!((exit, out.as_str()), (Exit::Success, ""));
        assert_eq!(err, "the session has seen nothing yet\n");
        let (exit, ..) = run_script("", &format!("session load {file}\nsession new\n"));
        assert_eq!(exit, Exit::Success);
        std::fs::write(&file, "no token").unwrap();
        let (exit, _, err, _) = run_script("", &format!("session load {file}\n"));
        assert_eq!(exit, Exit::Refused);
        assert!(err.contains("TOKEN_INVALID"), "{err}");
        let (exit, ..) = run_script("", "session load no/such/file\n");
        assert_eq!(exit, Exit::Refused);
    }

    #[test]
    fn help_lists_the_commands_and_explains_each() {
        let (exit, out, ..) = run_script("", "help\n");
        assert_eq!(exit, Exit::Success);
        for word in ["get", "import", "use", "level", "timing", "quit"] {
            assert!(out.contains(&format!("\n  {word} ")), "{word}: {out}");
        }
        let (_, out, ..) = run_script("", "help put\nput --help\n");
        assert!(out.contains("put photo --file photo.jpg"), "{out}");
        assert!(!out.contains("latitude put"), "{out}");
    }
}

//! A line: words as a Unix shell splits them, then the grammar of the command line.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use latitude_types::Level;

use super::state::State;
use crate::args::{Ask, ReceiptArg};
use crate::failure::Failure;

/// Stands for the keyspace's own level.
const LEVEL_DEFAULT: &str = "default";

#[derive(Parser, Debug)]
#[command(name = "shell", multicall = true, disable_version_flag = true, max_term_width = 100)]
#[command(help_template = "Commands:\n{subcommands}\n", subcommand_required = true)]
struct Grammar {
    #[command(subcommand)]
    line: Line,
}

/// What a line says.
#[derive(Subcommand, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(super) enum Line {
    /// What asks the cluster.
    #[command(flatten)]
    Ask(Ask),
    /// Go to another keyspace
    Use {
        /// Its name
        #[arg(value_name = "NAME")]
        keyspace: String,
    },
    /// Ask at another level from now on
    Level {
        /// The level; `default` is each keyspace's own
        #[arg(value_name = "LEVEL", value_parser = level())]
        level: LevelChoice,
    },
    /// What commands have seen and done here, which each later one takes into account
    #[command(subcommand)]
    Session(SessionCommand),
    /// Print receipts from now on, or no more
    Receipt {
        /// How much of them
        #[arg(value_name = "DETAIL")]
        detail: ReceiptArg,
    },
    /// Say how long each command took, or no more
    Timing {
        /// Whether to
        #[arg(value_name = "SWITCH")]
        switch: Switch,
    },
    /// Leave the shell
    #[command(alias = "exit")]
    Quit,
}

/// What is done with the session.
#[derive(Subcommand, Debug)]
pub(super) enum SessionCommand {
    /// Begin one that has seen nothing
    New,
    /// Print its token, with which another program goes on from here
    Show,
    /// Write its token to a file
    Save {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Go on from where the token in a file was made
    Load {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// A level, or `None` for the keyspace's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct LevelChoice(pub(super) Option<Level>);

fn level() -> impl TypedValueParser<Value = LevelChoice> {
    let names = Level::ALL.map(Level::name).into_iter().chain([LEVEL_DEFAULT]);
    // Of these names only the last is no level.
    PossibleValuesParser::new(names).map(|name| LevelChoice(name.parse().ok()))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Switch {
    /// From now on.
    On,
    /// No more.
    Off,
}

impl Switch {
    pub(super) fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

/// A line, read.
#[derive(Debug)]
pub(super) enum Parsed {
    /// It is empty, or a comment.
    Nothing,
    /// It asks for this text.
    Help(String),
    Line(Box<Line>),
}

pub(super) fn parse(text: &str, state: &State) -> Result<Parsed, Failure> {
    let words = shlex::split(text).ok_or_else(|| {
        let message = "a quotation mark has no second, or the line ends in a backslash";
        Failure::Usage(message.to_string())
    })?;
    if words.is_empty() {
        return Ok(Parsed::Nothing);
    }
    let matches = grammar(state).try_get_matches_from(words);
    match matches.and_then(|matches| Grammar::from_arg_matches(&matches)) {
        Ok(Grammar { line }) => Ok(Parsed::Line(Box::new(line))),
        Err(error) if !error.use_stderr() => Ok(Parsed::Help(error.render().to_string())),
        // Clap would print all of the help, which is no error message.
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Failure::Usage("the command lacks an argument: `help` explains it".to_string()))
        }
        Err(error) => {
            let text = error.render().to_string();
            let end = text.find("\n\nFor more information").unwrap_or(text.len());
            Err(Failure::Usage(text[..end].trim_start_matches("error: ").trim_end().to_string()))
        }
    }
}

/// The grammar, with the state as the defaults of flags.
pub(super) fn grammar(state: &State) -> Command {
    let mut grammar = Grammar::command();
    let names: Vec<String> =
        grammar.get_subcommands().map(|command| command.get_name().to_string()).collect();
    for name in names {
        grammar = grammar.mut_subcommand(&name, |command| {
            let patient = matches!(name.as_str(), "import" | "export");
            let command = match command.get_after_help().map(ToString::to_string) {
                Some(examples) => command.after_help(as_typed_here(&examples)),
                None => command,
            };
            command.mut_args(|arg| with_default(arg, state, patient))
        });
    }
    grammar
}

/// Examples without the name of the program, and without those that need pipes and redirections.
fn as_typed_here(examples: &str) -> String {
    let of_unix = |line: &&str| [" | ", " < ", " > "].iter().any(|sign| line.contains(sign));
    let lines: Vec<&str> = examples.lines().filter(|line| !of_unix(line)).collect();
    lines.join("\n").replace("  latitude ", "  ")
}

fn with_default(arg: Arg, state: &State, patient: bool) -> Arg {
    // A positional keyspace or level is what the line is about.
    if arg.is_positional() {
        return arg;
    }
    // The environment has had its say when the shell was started.
    let no_env = None::<&'static str>;
    match arg.get_id().as_str() {
        "keyspace" => arg.env(no_env).default_value(state.keyspace.clone()),
        "level" => match state.level {
            Some(level) => arg.default_value(level.name()),
            None => arg,
        },
        "receipt" => arg.default_value(name_of(state.receipt)),
        "output" => arg.default_value(name_of(state.format)),
        "to" => {
            let to: Vec<String> = state.to.iter().map(ToString::to_string).collect();
            arg.env(no_env).default_values(to)
        }
        "region" => match &state.region {
            Some(region) => arg.env(no_env).default_value(region.as_str().to_string()),
            None => arg.env(no_env),
        },
        "timeout" if !patient => arg.default_value(format!("{}ms", state.timeout.as_millis())),
        _ => arg,
    }
}

fn name_of<V: ValueEnum>(value: V) -> String {
    let possible = value.to_possible_value().expect("no value is hidden");
    possible.get_name().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command as CliCommand, GetArgs};
    use crate::output::Format;

    fn state(flags: &str) -> State {
        let line = format!("latitude shell {flags}");
        match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
            CliCommand::Shell(args) => State::of(args),
            other => panic!("{other:?} is no shell"),
        }
    }

    fn get(line: &str, state: &State) -> GetArgs {
        let parsed = parse(line, state).unwrap();
        let Parsed::Line(parsed) = parsed else { panic!("{line:?} is no command") };
        let Line::Ask(Ask::Get(args)) = *parsed else { panic!("{line:?} is no get") };
        args
    }

    #[test]
    fn the_grammar_holds_together() {
        grammar(&state("")).debug_assert();
        grammar(&state("--region eu --level causal --to a:1,b:2")).debug_assert();
    }

    #[test]
    fn the_state_is_what_a_line_does_not_say() {
        let state = state("-k users --level causal --to a:1,b:2 --timeout 7s --output json");
        let args = get("get alice", &state);
        assert_eq!(args.data.at.keyspace, "users");
        assert_eq!(args.data.at.level, Some(Level::Causal));
        assert_eq!((&args.data.connect.to, args.data.connect.timeout), (&state.to, state.timeout));
        assert_eq!(args.data.output.output, Format::Json);
        let args = get("get alice -k other --level strict --receipt --timeout 1s", &state);
        assert_eq!(args.data.at.keyspace, "other");
        assert_eq!(args.data.at.level, Some(Level::Strict));
        assert_eq!(args.data.receipt, ReceiptArg::Full);
    }

    #[test]
    fn words_are_split_as_a_unix_shell_does() {
        let args = get(r#"get 'a b' "c d" e\ f "" # and a comment"#, &state(""));
        assert_eq!(args.keys, ["a b", "c d", "e f", ""]);
        assert!(matches!(parse("  # only a comment", &state("")), Ok(Parsed::Nothing)));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_refused_in_a_sentence() {
        for line in ["get 'a", "get a\\", "get", "frobnicate", "level weak", "timing", "admin"] {
            let refused = parse(line, &state("")).err();
            let Some(Failure::Usage(message)) = refused else { panic!("{line}: {refused:?}") };
            assert!(!message.is_empty() && !message.starts_with("error"), "{line}: {message}");
        }
    }
}

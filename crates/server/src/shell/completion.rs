//! What may stand at the cursor.
//!
//! ```text
//!   line up to the cursor ─▶ words ─▶ grammar ─▶ Wanted: words known here │ keyspaces │ keys │ files
//!                                                                       └── Lookup asks the cluster
//! ```

use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use clap::{Arg, Command};
use latitude_client::{ReceiptDetail, Scan};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::state::State;
use crate::args::KeyspaceArgs;
use crate::commands::Context;

/// A person who pressed Tab does not wait longer than this.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(500);
/// More keys are no help.
const KEYS_MAX: usize = 50;

/// What the word at the cursor is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    /// Where it begins, in bytes.
    pub(super) start: usize,
    /// As far as it is written, without quotation marks.
    pub(super) word: String,
    pub(super) kind: Kind,
}

/// What it can become.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// One of these.
    OneOf(Vec<String>),
    Keyspace,
    /// A key of the line's keyspace, if the line names one.
    Key {
        keyspace: Option<String>,
    },
    File,
    /// Nobody can tell.
    Anything,
}

/// What the last word of a line is. `grammar` is what lines are parsed by.
pub(super) fn wanted(grammar: &Command, line: &str) -> Wanted {
    let (words, start, word) = split(line);
    let mut context = WordsRead { command: grammar, positionals: 0, open: None, keyspace: None };
    for before in &words {
        if context.read(before).is_break() {
            return Wanted { start, word, kind: Kind::Anything };
        }
    }
    context.at_cursor(start, word)
}

/// What the words before the cursor have settled.
struct WordsRead<'a> {
    /// The innermost command named.
    command: &'a Command,
    /// How many of its positional arguments are given.
    positionals: usize,
    /// The flag whose value comes next.
    open: Option<&'a Arg>,
    keyspace: Option<String>,
}

impl<'a> WordsRead<'a> {
    /// Breaks when no such command exists.
    fn read(&mut self, word: &str) -> ControlFlow<()> {
        if let Some(flag) = self.open.take() {
            if flag.get_id() == "keyspace" {
                self.keyspace = Some(word.to_string());
            }
        } else if let Some((flag, value)) = self.flag(word) {
            match value {
                Some(value) if flag.get_id() == "keyspace" => {
                    self.keyspace = Some(value.to_string());
                }
                Some(_) => {}
                None => {
                    let takes = flag.get_action().takes_values() && !flag.is_require_equals_set();
                    self.open = takes.then_some(flag);
                }
            }
        } else if self.command.has_subcommands() {
            let Some(command) = self.command.find_subcommand(word) else {
                return ControlFlow::Break(());
            };
            self.command = command;
        } else {
            self.positionals += 1;
        }
        ControlFlow::Continue(())
    }

    /// The flag a word names, and the value it has by `=`.
    fn flag<'w>(&self, word: &'w str) -> Option<(&'a Arg, Option<&'w str>)> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let named = |arg: &&Arg| match name.strip_prefix("--") {
            Some(long) => arg.get_long() == Some(long),
            None => arg.get_short().is_some_and(|short| name == format!("-{short}")),
        };
        Some((self.command.get_arguments().find(named)?, value))
    }

    fn at_cursor(self, start: usize, word: String) -> Wanted {
        if let Some(flag) = self.open {
            return Wanted { kind: self.values(flag), start, word };
        }
        if word.starts_with('-') {
            if let Some((flag, Some(value))) = self.flag(&word) {
                // Only what follows the `=` is replaced.
                let start = start + word.len() - value.len();
                return Wanted { kind: self.values(flag), start, word: value.to_string() };
            }
            let flags = self.command.get_arguments().filter_map(Arg::get_long);
            let mut flags: Vec<String> = flags.map(|long| format!("--{long}")).collect();
            flags.push("--help".to_string());
            return Wanted { start, word, kind: Kind::OneOf(flags) };
        }
        if self.command.has_subcommands() {
            let mut names: Vec<String> =
                self.command.get_subcommands().map(|command| command.get_name().into()).collect();
            names.push("help".to_string());
            return Wanted { start, word, kind: Kind::OneOf(names) };
        }
        let positionals: Vec<&Arg> = self.command.get_positionals().collect();
        let last = positionals.last().filter(|arg| arg.get_action().takes_values());
        let repeated = last.filter(|arg| matches!(arg.get_action(), clap::ArgAction::Append));
        let kind = match positionals.get(self.positionals).or(repeated) {
            Some(positional) => self.values(positional),
            None => Kind::Anything,
        };
        Wanted { start, word, kind }
    }

    fn values(&self, arg: &Arg) -> Kind {
        let possible = arg.get_possible_values();
        if !possible.is_empty() {
            return Kind::OneOf(possible.iter().map(|value| value.get_name().into()).collect());
        }
        match arg.get_id().as_str() {
            "keyspace" => Kind::Keyspace,
            "key" | "keys" | "prefix" | "start" | "end" => {
                Kind::Key { keyspace: self.keyspace.clone() }
            }
            "file" | "out" | "rejects" => Kind::File,
            _ => Kind::Anything,
        }
    }
}

/// The words before the last one, where that begins, and what it says so far.
fn split(line: &str) -> (Vec<String>, usize, String) {
    let (mut start, mut quote, mut escaped) = (0, None, false);
    for (at, character) in line.char_indices() {
        match (quote, character) {
            _ if escaped => escaped = false,
            (None | Some('"'), '\\') => escaped = true,
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, blank) if blank.is_whitespace() => start = at + blank.len_utf8(),
            _ => {}
        }
    }
    let words = shlex::split(&line[..start]).unwrap_or_default();
    let mut last = line[start..].to_string();
    if escaped {
        last.pop();
    }
    last.extend(quote);
    let word = shlex::split(&last).and_then(|words| words.into_iter().next());
    (words, start, word.unwrap_or_default())
}

/// Asks the cluster what there is.
pub(super) struct Lookup {
    runtime: Handle,
    context: Rc<Context>,
}

impl Lookup {
    pub(super) fn new(runtime: Handle, context: Rc<Context>) -> Self {
        Self { runtime, context }
    }

    /// The keyspaces there are; none if nobody answers at once.
    pub(super) fn keyspaces(&self, state: &State) -> Vec<String> {
        let admin = self.context.client(&state.connect()).admin();
        let keyspaces =
            self.runtime.block_on(async { timeout(LOOKUP_TIMEOUT, admin.keyspaces()).await });
        let Ok(Ok(keyspaces)) = keyspaces else { return Vec::new() };
        keyspaces.into_iter().map(|keyspace| keyspace.name).collect()
    }

    /// Some keys that begin with `prefix`, of those that can be typed; none if nobody answers at once.
    pub(super) fn keys(
        &self,
        state: &State,
        keyspace: Option<String>,
        prefix: &str,
    ) -> Vec<String> {
        let keyspace = keyspace.unwrap_or_else(|| state.keyspace.clone());
        let at = KeyspaceArgs { keyspace, level: state.level };
        let keyspace = self
            .context
            .keyspace(&at, &state.connect())
            .with_receipt(ReceiptDetail::None)
            .with_timeout(LOOKUP_TIMEOUT);
        let scan = Scan::prefix(prefix).keys_only().limit(KEYS_MAX);
        let Ok(page) = self.runtime.block_on(keyspace.scan(scan)) else { return Vec::new() };
        let typed = |row: latitude_client::Row| {
            let key = std::str::from_utf8(&row.key).ok()?;
            (!key.chars().any(char::is_control)).then(|| key.to_string())
        };
        page.value.rows.into_iter().filter_map(typed).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::line::grammar;
    use super::*;
    use crate::args::{Cli, Command as CliCommand};

    fn wants(line: &str) -> Wanted {
        let CliCommand::Shell(args) = Cli::try_parse_from(["latitude", "shell"]).unwrap().command
        else {
            panic!("it is a shell")
        };
        wanted(&grammar(&State::of(args)), line)
    }

    fn one_of(line: &str) -> Vec<String> {
        match wants(line).kind {
            Kind::OneOf(words) => words,
            other => panic!("{line:?} wants {other:?}"),
        }
    }

    #[test]
    fn the_first_word_is_a_command() {
        let commands = one_of("ge");
        assert!(
            ["get", "admin", "use", "quit", "help"]
                .iter()
                .all(|c| commands.contains(&(*c).to_string()))
        );
        assert_eq!(
            wants("  ge"),
            Wanted { start: 2, word: "ge".into(), kind: Kind::OneOf(commands) }
        );
        assert!(one_of("admin keyspace ").contains(&"create".to_string()));
    }

    #[test]
    fn a_word_that_begins_with_a_dash_is_a_flag_of_its_command() {
        let flags = one_of("scan --p");
        assert!(flags.contains(&"--prefix".to_string()) && flags.contains(&"--level".to_string()));
        assert!(!one_of("get -").contains(&"--prefix".to_string()));
    }

    #[test]
    fn a_flag_is_followed_by_what_it_takes() {
        assert!(one_of("get k --level ").contains(&"causal".to_string()));
        assert!(one_of("get k -l ").contains(&"causal".to_string()));
        let by_equals = wants("get k --level=ca");
        assert_eq!((by_equals.start, by_equals.word.as_str()), (14, "ca"));
        assert_eq!(wants("get -k us").kind, Kind::Keyspace);
        assert_eq!(wants("scan --prefix u").kind, Kind::Key { keyspace: None });
        assert_eq!(wants("put k --file ph").kind, Kind::File);
        // A flag whose value is optional takes it by `=` only.
        assert_eq!(wants("get --receipt a").kind, Kind::Key { keyspace: None });
    }

    #[test]
    fn arguments_are_what_their_place_says() {
        assert_eq!(wants("get a b c").kind, Kind::Key { keyspace: None });
        let elsewhere = Kind::Key { keyspace: Some("users".into()) };
        assert_eq!(wants("get -k users a").kind, elsewhere);
        assert_eq!(wants("get --keyspace=users a").kind, elsewhere);
        assert_eq!(wants("put k").kind, Kind::Key { keyspace: None });
        assert_eq!(wants("put k v").kind, Kind::Anything);
        assert_eq!(wants("import ").kind, Kind::File);
        assert_eq!(wants("use ").kind, Kind::Keyspace);
        assert!(one_of("level ").contains(&"default".to_string()));
        assert_eq!(one_of("timing o"), ["on", "off"]);
        assert_eq!(one_of("set "), ["add", "remove"]);
        assert_eq!(wants("flag enable d -k flags").kind, Kind::Keyspace);
        assert_eq!(wants("flag enable d").kind, Kind::Key { keyspace: None });
        assert_eq!(wants("map put k f").kind, Kind::Anything);
        assert_eq!(wants("nonsense a").kind, Kind::Anything);
        assert_eq!(wants("quit now").kind, Kind::Anything);
    }

    #[test]
    fn a_word_in_quotation_marks_is_one_word() {
        for (line, start, word) in [
            ("get 'a b", 4, "a b"),
            ("get \"a b\\\"c", 4, "a b\"c"),
            ("get a\\ b", 4, "a b"),
            ("get a\\", 4, "a"),
            ("get 'it' x", 9, "x"),
            ("get é ü", 7, "ü"),
        ] {
            let wanted = wants(line);
            assert_eq!((wanted.start, wanted.word.as_str()), (start, word), "{line}");
        }
    }
}

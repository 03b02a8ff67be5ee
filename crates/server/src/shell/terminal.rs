//! A person's terminal: prompt, history, completion.

use std::borrow::Cow;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hinter, HistoryHinter};
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Editor, Helper};

use super::completion::{Kind, Lookup, wanted};
use super::line::grammar;
use super::state::State;
use crate::failure::Failure;
use crate::output::Output;

/// Lines kept from one shell to the next.
const HISTORY_LINES: usize = 10_000;

/// The terminal of a shell.
pub(super) struct Terminal {
    editor: Editor<Assistant, DefaultHistory>,
    history: Option<PathBuf>,
}

/// What a person did at the prompt.
pub(super) enum Read {
    Line(String),
    /// Ctrl-C: the line is thrown away.
    Interrupted,
    /// Ctrl-D: no more lines.
    End,
}

impl Terminal {
    pub(super) fn open(lookup: Lookup, output: &mut Output<'_>) -> Result<Self, Failure> {
        let config = Config::builder()
            .max_history_size(HISTORY_LINES)
            .map_err(broken)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .build();
        let mut editor = Editor::with_config(config).map_err(broken)?;
        editor.set_helper(Some(Assistant {
            lookup,
            state: None,
            files: FilenameCompleter::new(),
            hinter: HistoryHinter::new(),
        }));
        let mut history = history_file();
        if let Some(path) = &history {
            let made = path.parent().map_or(Ok(()), make_private);
            let loaded = match editor.load_history(path) {
                Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                loaded => loaded,
            };
            if let Err(error) = made.map_err(ReadlineError::from).and(loaded) {
                output.note(&format!("no history: {}: {error}", path.display()))?;
                history = None;
            }
        }
        Ok(Self { editor, history })
    }

    /// Asks for a line.
    pub(super) fn read(&mut self, state: &State) -> Result<Read, Failure> {
        if let Some(assistant) = self.editor.helper_mut() {
            assistant.state = Some(state.clone());
        }
        let line = match self.editor.readline(&state.prompt()) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => return Ok(Read::Interrupted),
            Err(ReadlineError::Eof) => return Ok(Read::End),
            Err(error) => return Err(broken(error)),
        };
        let added = self.editor.add_history_entry(line.as_str()).map_err(broken)?;
        if let Some(path) = self.history.as_deref().filter(|_| added) {
            // At once, so that it is there however the shell ends. A disk that is full keeps nobody from
            // working.
            let _ = self.editor.append_history(path);
        }
        Ok(Read::Line(line))
    }
}

fn broken(error: ReadlineError) -> Failure {
    anyhow::anyhow!("the terminal cannot be used: {error}").into()
}

/// Where history is kept; `None` if the environment names no place.
fn history_file() -> Option<PathBuf> {
    let directory =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let state =
        directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")));
    Some(state?.join("latitude").join("history"))
}

/// Values are typed into a shell: nobody else need read them.
fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Completes and hints.
struct Assistant {
    lookup: Lookup,
    /// The shell's state at the prompt.
    state: Option<State>,
    files: FilenameCompleter,
    hinter: HistoryHinter,
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let Some(state) = &self.state else { return Ok((pos, Vec::new())) };
        let wanted = wanted(&grammar(state), &line[..pos]);
        let words = match wanted.kind {
            Kind::OneOf(words) => words,
            Kind::Keyspace => self.lookup.keyspaces(state),
            Kind::Key { keyspace } => self.lookup.keys(state, keyspace, &wanted.word),
            Kind::File => return self.files.complete_path(line, pos),
            Kind::Anything => Vec::new(),
        };
        Ok((wanted.start, candidates(words, &wanted.word)))
    }
}

/// The words that begin as the one at the cursor does, quoted so that each is one word.
fn candidates(words: Vec<String>, begun: &str) -> Vec<Pair> {
    let fits = words.into_iter().filter(|word| word.starts_with(begun));
    let mut candidates: Vec<Pair> = fits
        .filter_map(|word| {
            let replacement = shlex::try_quote(&word).ok()?.into_owned();
            Some(Pair { display: word, replacement })
        })
        .collect();
    if let [only] = candidates.as_mut_slice() {
        only.replacement.push(' ');
    }
    candidates
}

impl Hinter for Assistant {
    type Hint = String;

    fn hint(&self, line: &str, pos: usize, context: &rustyline::Context<'_>) -> Option<String> {
        self.hinter.hint(line, pos, context)
    }
}

impl Highlighter for Assistant {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        // Dim.
        Cow::Owned(format!("\x1b[2m{hint}\x1b[0m"))
    }
}

impl Validator for Assistant {}

impl Helper for Assistant {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_quoted_and_the_only_one_ends_its_word() {
        let words = || vec!["a b".to_string(), "a'c".to_string(), "b".to_string()];
        let of = |begun| -> Vec<String> {
            candidates(words(), begun).into_iter().map(|pair| pair.replacement).collect()
        };
        assert_eq!(of("b"), ["b "]);
        let two = of("a");
        assert_eq!(two.len(), 2);
        for (candidate, word) in two.iter().zip(words()) {
            assert_eq!(shlex::split(candidate), Some(vec![word]));
        }
    }
}

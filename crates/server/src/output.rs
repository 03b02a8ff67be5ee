//! Where commands print: answers on stdout, everything said about them on stderr, each as text or as
//! JSON. Writers are handed in, so that a test reads what a person would.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

/// How answers and errors are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// For people, and for scripts that want one value.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// A pair of writers and how to write to them.
pub struct Output<'a> {
    format: Format,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("format", &self.format).finish_non_exhaustive()
    }
}

impl<'a> Output<'a> {
    /// An output that prints answers to `out` and the rest to `err`.
    pub fn new(format: Format, out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self { format, out, err }
    }

    /// The same writers, written to in another format.
    pub fn of(&mut self, format: Format) -> Output<'_> {
        Output { format, out: &mut *self.out, err: &mut *self.err }
    }

    /// How it prints.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Prints bytes of an answer as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Prints a line of an answer.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// Prints an answer as one line of JSON.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut *self.out, value)?;
        writeln!(self.out)
    }

    /// Says something about an answer, on stderr.
    pub fn note(&mut self, note: &str) -> io::Result<()> {
        match self.format {
            Format::Text => self.error_line(note),
            Format::Json => self.error_line(&serde_json::json!({ "note": note }).to_string()),
        }
    }

    /// Prints a line on stderr, whatever the format.
    pub fn error_line(&mut self, line: &str) -> io::Result<()> {
        // On a terminal, what was printed first stands first. If stdout is gone the next flush says so;
        // that must not keep an error from being printed.
        let _ = self.out.flush();
        writeln!(self.err, "{line}")
    }

    /// Hands everything printed so far to the operating system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }
}

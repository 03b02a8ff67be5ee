//! What a person sees: headings, lines below them, tables, and a line that tells how far we are.

use std::io::{self, IsTerminal, Stdout, Write};

use comfy_table::{CellAlignment, Row, Table, presets};

/// What stands before every line below a heading.
const INDENT: &str = "   ";
/// Columns of a heading's rule.
const WIDTH: usize = 78;

/// The screen. Progress is shown on a terminal only: elsewhere every line written stays.
pub(crate) struct Screen<W = Stdout> {
    out: W,
    terminal: bool,
}

impl Screen {
    /// This process's stdout.
    pub(crate) fn stdout() -> Self {
        let out = io::stdout();
        let terminal = out.is_terminal();
        Self { out, terminal }
    }
}

impl<W: Write> Screen<W> {
    /// Begins a part.
    pub(crate) fn heading(&mut self, text: &str) -> io::Result<()> {
        let rule = "─".repeat(WIDTH.saturating_sub(text.chars().count() + 4));
        self.clear()?;
        if self.terminal {
            writeln!(self.out, "\n── \x1b[1m{text}\x1b[0m {rule}\n")?;
        } else {
            writeln!(self.out, "\n── {text} {rule}\n")?;
        }
        self.out.flush()
    }

    /// Writes text, of one line or several.
    pub(crate) fn text(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        self.clear()?;
        for line in text.as_ref().lines() {
            writeln!(self.out, "{}", format!("{INDENT}{line}").trim_end())?;
        }
        self.out.flush()
    }

    /// Leaves a line empty.
    pub(crate) fn space(&mut self) -> io::Result<()> {
        self.clear()?;
        writeln!(self.out)
    }

    /// Says what is going on, until the next line is written.
    pub(crate) fn progress(&mut self, text: impl AsRef<str>) -> io::Result<()> {
        if self.terminal {
            write!(self.out, "\r\x1b[2K{INDENT}\x1b[2m{}\x1b[0m", text.as_ref())?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// Takes progress away.
    fn clear(&mut self) -> io::Result<()> {
        if self.terminal { write!(self.out, "\r\x1b[2K") } else { Ok(()) }
    }
}

/// A table without borders, a rule below its header. Columns of `right` are aligned to the right.
pub(crate) fn table<R: Into<Row>>(
    header: impl Into<Row>,
    right: impl IntoIterator<Item = usize>,
    rows: impl IntoIterator<Item = R>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    for column in right {
        let column = table.column_mut(column).expect("a column to align is one of the header's");
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines: Vec<String> = table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_string())
        .collect();
    let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
    lines.insert(1, "─".repeat(width));
    lines.join("\n")
}

/// A number and what it counts: `1 range`, `2 ranges`, `1,021 writes`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let plural = if number == 1 { "" } else { "s" };
    format!("{grouped} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(terminal: bool) -> String {
        let mut screen = Screen { out: Vec::new(), terminal };
        screen.heading("Import").unwrap();
        screen.progress("half").unwrap();
        screen.text("done\n\nall of it").unwrap();
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn off_a_terminal_there_is_neither_progress_nor_color() {
        let rule = "─".repeat(68);
        assert_eq!(written(false), format!("\n── Import {rule}\n\n   done\n\n   all of it\n"));
    }

    #[test]
    fn on_a_terminal_progress_makes_way_for_the_next_line() {
        assert!(written(true).contains("half\x1b[0m\r\x1b[2K   done\n"), "{:?}", written(true));
    }

    #[test]
    fn a_table_aligns_numbers_to_the_right() {
        let rows = [["eu".to_string(), "9 ms".to_string()], ["ap".to_string(), "110 ms".into()]];
        let expected = "from     p50\n────────────\neu      9 ms\nap    110 ms";
        assert_eq!(table(["from", "p50"], [1], rows), expected);
    }

    #[test]
    fn what_is_counted_is_one_or_many_and_grouped_by_thousands() {
        let counts = [0, 1, 312, 1021, 1_234_567].map(|number| count(number, "write"));
        let expected = ["0 writes", "1 write", "312 writes", "1,021 writes", "1,234,567 writes"];
        assert_eq!(counts, expected);
    }
}

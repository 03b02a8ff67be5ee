//! From lines to writes: many at once, in memory that is bounded.
//!
//! ```text
//!   lines ─▶ a row waits ─▶ in flight: at most N rows, 32 MiB, each key once ─▶ tally, rejects
//!            until there is room and its key is free
//! ```
//!
//! Invariant: two lines of one key are written one after the other, in their order, so the later one wins.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::{self, Write};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use latitude_types::{Error, Kind, Reason};
use tokio::io::AsyncBufRead;

use super::tally::Tally;
use crate::args::OnError;
use crate::progress::Progress;
use crate::rows::{Damage, Ending, Lines, Piece, RowFormat, VALUE_LEN_MAX};

/// About the most bytes of lines and rows in flight; one row alone may have more.
const BYTES_IN_FLIGHT: usize = 32 << 20;

/// How to import.
pub(super) struct Options<'a> {
    pub(super) format: RowFormat,
    pub(super) concurrency: usize,
    pub(super) on_error: OnError,
    /// Where lines that failed go.
    pub(super) rejects: Option<&'a mut dyn Write>,
    pub(super) progress: &'a Progress,
}

/// What ended an import before its lines did.
#[derive(Debug)]
pub(super) enum Broken {
    /// The file cannot be read on.
    Source(io::Error),
    /// The file for rejected lines cannot be written.
    Rejects(io::Error),
}

/// Writes the rows of all lines by `put`, and counts into `tally` what became of them.
pub(super) async fn run<'a, R, P, F>(
    lines: &mut Lines<R>,
    options: Options<'a>,
    put: P,
    tally: &'a mut Tally,
) -> Result<(), Broken>
where
    R: AsyncBufRead + Unpin,
    P: Fn(Bytes, Bytes) -> F,
    F: Future<Output = Result<(), Error>>,
{
    let mut pipeline = Pipeline {
        options,
        tally,
        waiting: None,
        keys: BTreeSet::new(),
        bytes: 0,
        mid_line: false,
        ended: false,
        stopped: false,
        broken: None,
    };
    let mut flying = FuturesUnordered::new();
    loop {
        if let Some(row) = pipeline.next_to_fly(flying.len()) {
            let answer = put(row.key.clone(), row.value.clone());
            flying.push(async move { (row, answer.await) });
        }
        tokio::select! {
            biased;
            Some((row, answer)) = flying.next() => pipeline.answered(row, answer),
            piece = lines.next(), if pipeline.reads() => pipeline.take(piece),
            else => break,
        }
        pipeline.options.progress.set(pipeline.tally.written, lines.bytes_read());
    }
    pipeline.broken.map_or(Ok(()), Err)
}

struct Row {
    /// Of its line.
    number: u64,
    key: Bytes,
    value: Bytes,
    /// The line as it was, if it may be wanted for the rejects.
    line: Bytes,
}

impl Row {
    fn size(&self) -> usize {
        self.key.len() + self.value.len() + self.line.len()
    }
}

struct Pipeline<'a> {
    options: Options<'a>,
    tally: &'a mut Tally,
    /// Read, and not in flight yet.
    waiting: Option<Row>,
    /// The keys in flight.
    keys: BTreeSet<Bytes>,
    /// The size of all in flight.
    bytes: usize,
    /// Whether the last piece was not the end of its line.
    mid_line: bool,
    /// Whether there are no more lines.
    ended: bool,
    stopped: bool,
    broken: Option<Broken>,
}

impl Pipeline<'_> {
    /// Whether it wants the next piece. A line too long is read to its end even when stopped.
    fn reads(&self) -> bool {
        self.waiting.is_none() && !self.ended && (!self.stopped || self.mid_line)
    }

    /// The row that waits, if there is room for it.
    fn next_to_fly(&mut self, flying: usize) -> Option<Row> {
        let row = self.waiting.take_if(|row| {
            flying < self.options.concurrency
                && !self.keys.contains(&row.key)
                && (flying == 0 || self.bytes + row.size() <= BYTES_IN_FLIGHT)
        })?;
        self.keys.insert(row.key.clone());
        self.bytes += row.size();
        Some(row)
    }

    fn answered(&mut self, row: Row, answer: Result<(), Error>) {
        self.keys.remove(&row.key);
        self.bytes -= row.size();
        match answer {
            Ok(()) => self.tally.written += 1,
            Err(error) => self.failed(row.number, &row.line, &error),
        }
    }

    fn take(&mut self, piece: io::Result<Option<Piece>>) {
        let piece = match piece {
            Ok(Some(piece)) => piece,
            Ok(None) => {
                self.ended = true;
                return;
            }
            Err(error) => {
                self.ended = true;
                self.broken.get_or_insert(Broken::Source(error));
                return;
            }
        };
        self.mid_line = piece.ending == Ending::Limit;
        let Piece { number, begins, ending, .. } = piece;
        if !begins {
            self.reject(&line_of(piece));
            return;
        }
        self.tally.lines = number;
        match self.read(&piece) {
            Ok((key, value)) => {
                let keeps_lines = self.options.rejects.is_some();
                let line = if keeps_lines { line_of(piece) } else { Bytes::new() };
                if value.len() > VALUE_LEN_MAX {
                    let message = format!(
                        "the value has {} bytes, and no keyspace takes more than {VALUE_LEN_MAX}",
                        value.len()
                    );
                    self.failed(number, &line, &Error::new(Reason::ValueTooLarge, message));
                } else {
                    self.waiting = Some(Row { number, key, value, line });
                }
            }
            Err(damage) => {
                self.tally.damaged(number, &damage);
                self.reject(&line_of(piece));
                self.stop_if(self.options.on_error == OnError::Stop);
            }
        }
        // A file that ends in the middle of a line ends here.
        self.ended |= ending == Ending::FileEnd;
    }

    fn read(&self, piece: &Piece) -> Result<(Bytes, Bytes), Damage> {
        match (piece.ending, self.options.format) {
            (Ending::Limit, _) => Err(Damage::TooLong),
            // A value that was cut off cannot be told from a shorter one. JSON says where it ends.
            (Ending::FileEnd, RowFormat::Tsv) => Err(Damage::CutOff),
            (_, format) => format.read(&piece.bytes),
        }
    }

    fn failed(&mut self, number: u64, line: &[u8], error: &Error) {
        self.tally.failed(number, error);
        self.reject(line);
        self.stop_if(self.options.on_error == OnError::Stop || befalls_every_row(error));
    }

    fn reject(&mut self, line: &[u8]) {
        if let Some(rejects) = &mut self.options.rejects
            && let Err(error) = rejects.write_all(line)
        {
            self.broken.get_or_insert(Broken::Rejects(error));
            self.stop_if(true);
        }
    }

    fn stop_if(&mut self, stop: bool) {
        if !stop || self.stopped {
            return;
        }
        self.stopped = true;
        match self.waiting.take() {
            Some(row) => {
                // It was read and will not be tried.
                self.tally.lines = row.number - 1;
                self.tally.stopped_after = Some(row.number - 1);
            }
            None if self.ended => {}
            None => self.tally.stopped_after = Some(self.tally.lines),
        }
    }
}

/// A piece as it was in the file.
fn line_of(piece: Piece) -> Bytes {
    let mut line = piece.bytes;
    if piece.ending == Ending::LineEnd {
        line.push(b'\n');
    }
    line.into()
}

/// Whether it is not the row's fault nor the moment's: going on would give the same answer each time.
fn befalls_every_row(error: &Error) -> bool {
    matches!(error.kind(), Kind::NotFound | Kind::Unimplemented)
        || matches!(
            error.reason,
            Reason::KeyspaceChanged
                | Reason::TypeMismatch
                | Reason::NotInitialized
                | Reason::LevelUnknown
                | Reason::LevelNotForCondition
        )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use tokio::io::BufReader;

    use super::*;
    use crate::exit::Exit;
    use crate::output::Format;

    /// Keeps what is written. A value that names a reason is refused with it, `?` before it means that
    /// the outcome is unknown; one with `@N` takes N turns, any other five.
    #[derive(Default)]
    struct Store {
        rows: RefCell<BTreeMap<Bytes, Bytes>>,
        /// How many are under way, and the most that ever were.
        busy: RefCell<(usize, usize)>,
    }

    impl Store {
        async fn put(&self, key: Bytes, value: Bytes) -> Result<(), Error> {
            {
                let mut busy = self.busy.borrow_mut();
                busy.0 += 1;
                busy.1 = busy.1.max(busy.0);
            }
            let text = String::from_utf8_lossy(&value).into_owned();
            let turns = text.split_once('@').map_or(5, |(_, turns)| turns.parse().unwrap());
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            self.busy.borrow_mut().0 -= 1;
            if let Some(reason) = Reason::from_name(text.trim_start_matches('?')) {
                let error = if text.starts_with('?') { Error::unknown } else { Error::new };
                return Err(error(reason, &text));
            }
            self.rows.borrow_mut().insert(key, value);
            Ok(())
        }

        fn get(&self, key: &'static str) -> Option<String> {
            let rows = self.rows.borrow();
            rows.get(key.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned())
        }
    }

    async fn import(
        text: &str,
        store: &Store,
        on_error: OnError,
        concurrency: usize,
    ) -> (Tally, String) {
        let (mut tally, mut rejects) = (Tally::default(), Vec::new());
        let options = Options {
            format: RowFormat::Tsv,
            concurrency,
            on_error,
            rejects: Some(&mut rejects),
            progress: &Progress::new(None, Format::Json),
        };
        let mut lines = Lines::new(BufReader::with_capacity(7, text.as_bytes()), 40);
        let put = |key, value| store.put(key, value);
        run(&mut lines, options, put, &mut tally).await.unwrap();
        (tally, String::from_utf8(rejects).unwrap())
    }

    #[tokio::test]
    async fn rows_are_written_together_and_never_more_than_allowed() {
        let text: String = (0..100).map(|n| format!("k{n}\tv{n}\n")).collect();
        let store = Store::default();
        let (tally, rejects) = import(&text, &store, OnError::Stop, 8).await;
        assert_eq!((tally.written, tally.lines, tally.exit()), (100, 100, Exit::Success));
        assert_eq!((store.busy.borrow().1, rejects.as_str()), (8, ""));
        assert_eq!(store.get("k99").as_deref(), Some("v99"));
    }

    #[tokio::test]
    async fn of_two_lines_with_one_key_the_later_one_wins_however_slow_the_first_is() {
        let store = Store::default();
        let text = "a\tfirst@900\nb\tother\na\tsecond@1\nc\tother\n";
        let (tally, _) = import(text, &store, OnError::Stop, 64).await;
        assert_eq!(tally.written, 4);
        assert_eq!(store.get("a").as_deref(), Some("second@1"));
    }

    #[tokio::test]
    async fn with_continue_every_good_line_is_written_and_every_other_is_counted_and_rejected() {
        let store = Store::default();
        let bad = "b\tVALUE_TOO_LARGE\nno tab\n\tKEY_EMPTY\n";
        let long = format!("{}\n", "x".repeat(95));
        let text = format!("a\t1\n{bad}{long}c\t?NO_QUORUM\nd\t4\ncut\toff");
        let (tally, rejects) = import(&text, &store, OnError::Continue, 1).await;
        assert_eq!((tally.lines, tally.written, tally.exit()), (8, 2, Exit::OutcomeUnknown));
        assert_eq!(store.get("d").as_deref(), Some("4"));
        // Lines that are none are known at once, the others when they are answered.
        let mut rejected: Vec<_> = rejects.split_inclusive('\n').collect();
        rejected.sort_unstable();
        let mut expected: Vec<_> = text.split_inclusive('\n').collect();
        expected.retain(|line| !["a\t1\n", "d\t4\n"].contains(line));
        expected.sort_unstable();
        assert_eq!(rejected, expected);
        let json = tally.json();
        let reasons: Vec<_> = json["reasons"].as_array().unwrap().iter().collect();
        let found: Vec<_> =
            reasons.iter().map(|r| format!("{} {}", r["reason"], r["first_line"])).collect();
        assert_eq!(
            found,
            [
                "\"NO_QUORUM\" 6",
                "\"KEY_EMPTY\" 4",
                "\"VALUE_TOO_LARGE\" 2",
                "\"LINE_CUT_OFF\" 8",
                "\"LINE_TABS\" 3",
                "\"LINE_TOO_LONG\" 5",
            ]
        );
    }

    #[tokio::test]
    async fn with_stop_nothing_is_tried_after_a_failure_is_known_and_what_is_under_way_ends() {
        let store = Store::default();
        let text = "a\tslow@900\nb\tKEY_TOO_LONG\nc\t3@900\nd\t4@900\n";
        let (tally, rejects) = import(text, &store, OnError::Stop, 2).await;
        assert_eq!((tally.lines, tally.written, tally.stopped_after), (2, 1, Some(2)));
        assert_eq!((store.get("a").is_some(), store.get("c")), (true, None));
        assert_eq!(rejects, "b\tKEY_TOO_LONG\n");
    }

    #[tokio::test]
    async fn what_befalls_every_row_stops_in_any_case() {
        let store = Store::default();
        let text = "a\tKEYSPACE_UNKNOWN\n".repeat(10);
        let (tally, _) = import(&text, &store, OnError::Continue, 1).await;
        assert_eq!((tally.lines, tally.exit()), (1, Exit::Refused));
    }

    #[tokio::test]
    async fn a_file_for_rejects_that_is_full_stops_the_import() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (store, mut tally) = (Store::default(), Tally::default());
        let options = Options {
            format: RowFormat::Tsv,
            concurrency: 1,
            on_error: OnError::Continue,
            rejects: Some(&mut Full),
            progress: &Progress::new(None, Format::Json),
        };
        let mut lines = Lines::new(&b"damaged\na\t1\n"[..], 40);
        let put = |key, value| store.put(key, value);
        let broken = run(&mut lines, options, put, &mut tally).await;
        assert!(matches!(broken, Err(Broken::Rejects(_))), "{broken:?}");
        assert_eq!((tally.lines, tally.written), (1, 0));
    }
}

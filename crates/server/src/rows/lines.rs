//! Lines of a file, in memory that is bounded whatever the file holds.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// How a piece of a file ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// With a line end.
    LineEnd,
    /// With the file.
    FileEnd,
    /// Where a line became too long; the next piece is the rest of it.
    Limit,
}

/// A line, or a part of one that is too long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The line's number, from 1.
    pub number: u64,
    /// Without the line end.
    pub bytes: Vec<u8>,
    /// Whether this is the beginning of its line.
    pub begins: bool,
    /// How it ended.
    pub ending: Ending,
}

/// Reads a file line by line.
#[derive(Debug)]
pub struct Lines<R> {
    source: R,
    /// What has been read of the current piece.
    piece: Vec<u8>,
    /// The longest piece.
    limit: usize,
    /// The current line, from 1.
    number: u64,
    /// Whether the current piece is the beginning of its line.
    begins: bool,
    /// How much has been read, in bytes.
    read: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// The lines of a source; those longer than `limit` come in pieces.
    pub fn new(source: R, limit: usize) -> Self {
        Self { source, piece: Vec::new(), limit, number: 1, begins: true, read: 0 }
    }

    /// How many bytes have been read.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// The next piece; `None` when the file has ended. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> io::Result<Option<Piece>> {
        loop {
            let chunk = self.source.fill_buf().await?;
            if chunk.is_empty() {
                if self.piece.is_empty() && self.begins {
                    return Ok(None);
                }
                let piece = self.take(Ending::FileEnd);
                self.begins = true;
                return Ok(Some(piece));
            }
            let room = self.limit - self.piece.len();
            let line_end = chunk.iter().take(room + 1).position(|byte| *byte == b'\n');
            let taken = line_end.unwrap_or(chunk.len().min(room));
            self.piece.extend_from_slice(&chunk[..taken]);
            let used = taken + usize::from(line_end.is_some());
            let more = chunk.len() > taken;
            self.source.consume(used);
            self.read += used as u64;
            if line_end.is_some() {
                let piece = self.take(Ending::LineEnd);
                self.number += 1;
                self.begins = true;
                return Ok(Some(piece));
            }
            // Full, and what comes next is known to be no line end.
            if more {
                let piece = self.take(Ending::Limit);
                self.begins = false;
                return Ok(Some(piece));
            }
        }
    }

    fn take(&mut self, ending: Ending) -> Piece {
        let bytes = std::mem::take(&mut self.piece);
        Piece { number: self.number, bytes, begins: self.begins, ending }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    /// Pieces as `number:bytes` and how they end: `.` line, `$` file, `…` limit; `+` continues a line.
    async fn pieces(text: &str, buffer: usize) -> Vec<String> {
        let mut lines = Lines::new(BufReader::with_capacity(buffer, text.as_bytes()), 4);
        let mut pieces = Vec::new();
        while let Some(Piece { number, bytes, begins, ending }) = lines.next().await.unwrap() {
            let bytes = String::from_utf8(bytes).unwrap();
            let end = match ending {
                Ending::LineEnd => '.',
                Ending::FileEnd => '$',
                Ending::Limit => '…',
            };
            pieces.push(format!("{number}{}{bytes}{end}", if begins { ':' } else { '+' }));
        }
        assert_eq!(lines.bytes_read(), text.len() as u64);
        pieces
    }

    #[tokio::test]
    async fn a_file_is_its_lines_however_it_is_read() {
        for buffer in 1..9 {
            let pieces = async |text| pieces(text, buffer).await;
            assert_eq!(pieces("").await, [""; 0]);
            assert_eq!(pieces("\n").await, ["1:."]);
            assert_eq!(pieces("a\nbcde\n\nf").await, ["1:a.", "2:bcde.", "3:.", "4:f$"]);
        }
    }

    #[tokio::test]
    async fn a_line_too_long_comes_in_pieces_and_the_next_one_is_whole() {
        for buffer in 1..12 {
            let pieces = async |text| pieces(text, buffer).await;
            assert_eq!(pieces("abcdef\ng\n").await, ["1:abcd…", "1+ef.", "2:g."]);
            assert_eq!(pieces("abcdefgh\n").await, ["1:abcd…", "1+efgh."]);
            assert_eq!(pieces("abcdefghi").await, ["1:abcd…", "1+efgh…", "1+i$"]);
        }
    }
}

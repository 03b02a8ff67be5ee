//! Bytes that arrive later than the simulated network brings them: turmoil knows one latency for both directions of
//! a link, so what makes one direction slow waits here, at the end that receives it.
//!
//! ```text
//!   turmoil ─▶ taken in, each piece with when it is due ─▶ due, and the link not held ─▶ read
//! ```
//!
//! Pieces keep their order: one is due no sooner than the one before it, also when the delay has ended meanwhile.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The most that is taken in at once.
const PIECE_MAX: usize = 16 << 10;
/// How often is looked whether a link is still held.
const HELD_FOR: Duration = Duration::from_millis(5);

/// What has come and is not to be read yet.
#[derive(Default)]
pub(crate) struct Late {
    /// When it is due. An empty piece is the end.
    pieces: VecDeque<(Instant, Vec<u8>)>,
    wakes: Option<Pin<Box<Sleep>>>,
}

impl Late {
    /// Whether everything that came has been read.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Takes in what has come, due `delay` from now, and reads what is due, unless the link is held.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        delay: Duration,
        is_held: impl Fn() -> bool,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<()>> {
        if let Err(error) = self.take_in(cx, delay, from) {
            return Poll::Ready(Err(error));
        }
        loop {
            // Then the other end wakes this one.
            let Some((due, piece)) = self.pieces.front_mut() else { return Poll::Pending };
            let now = Instant::now();
            let due = if *due <= now && is_held() { now + HELD_FOR } else { *due };
            if due <= now {
                let some = piece.len().min(buf.remaining());
                buf.put_slice(&piece[..some]);
                piece.drain(..some);
                let ended = some == 0;
                // The end stays: it is read again and again.
                if piece.is_empty() && !ended {
                    self.pieces.pop_front();
                }
                return Poll::Ready(Ok(()));
            }
            let wakes = self.wakes.get_or_insert_with(|| Box::pin(sleep_until(due)));
            wakes.as_mut().reset(due);
            if wakes.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn take_in(
        &mut self,
        cx: &mut Context<'_>,
        delay: Duration,
        from: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<()> {
        loop {
            if self.pieces.back().is_some_and(|(_, piece)| piece.is_empty()) {
                return Ok(());
            }
            let mut piece = vec![0; PIECE_MAX];
            let mut buf = ReadBuf::new(&mut piece);
            match Pin::new(&mut *from).poll_read(cx, &mut buf) {
                Poll::Pending => return Ok(()),
                Poll::Ready(result) => result?,
            }
            let len = buf.filled().len();
            piece.truncate(len);
            let due = Instant::now() + delay;
            let due = self.pieces.back().map_or(due, |(last, _)| due.max(*last));
            self.pieces.push_back((due, piece));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;

    const DELAY: Duration = Duration::from_millis(100);

    async fn read(late: &mut Late, from: &mut tokio::io::DuplexStream, delay: Duration) -> Vec<u8> {
        let mut bytes = [0; 4];
        let mut buf = ReadBuf::new(&mut bytes);
        poll_fn(|cx| late.poll_read(cx, &mut buf, delay, || false, from)).await.unwrap();
        buf.filled().to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_is_read_later_in_its_order_and_then_its_end() {
        let (mut there, mut here) = tokio::io::duplex(64);
        let (began, mut late) = (Instant::now(), Late::default());
        there.write_all(b"slowly").await.unwrap();
        assert_eq!(read(&mut late, &mut here, DELAY).await, b"slow");
        assert_eq!(began.elapsed(), DELAY);
        there.write_all(b", late").await.unwrap();
        drop(there);
        assert_eq!(read(&mut late, &mut here, DELAY).await, b"ly");
        assert_eq!(began.elapsed(), DELAY);
        // The delay has ended for what comes now, and not for what has come.
        assert_eq!(read(&mut late, &mut here, Duration::ZERO).await, b", la");
        assert_eq!(read(&mut late, &mut here, Duration::ZERO).await, b"te");
        assert_eq!(began.elapsed(), 2 * DELAY);
        assert_eq!(read(&mut late, &mut here, Duration::ZERO).await, b"");
        assert_eq!(read(&mut late, &mut here, Duration::ZERO).await, b"");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_waits_while_the_link_is_held() {
        let (mut there, mut here) = tokio::io::duplex(64);
        let (began, mut late) = (Instant::now(), Late::default());
        there.write_all(b"held").await.unwrap();
        let mut bytes = [0; 4];
        let mut buf = ReadBuf::new(&mut bytes);
        let held = || began.elapsed() < 3 * DELAY;
        poll_fn(|cx| late.poll_read(cx, &mut buf, DELAY, held, &mut here)).await.unwrap();
        assert_eq!(buf.filled(), b"held");
        assert!((3 * DELAY..3 * DELAY + HELD_FOR * 2).contains(&began.elapsed()));
    }
}

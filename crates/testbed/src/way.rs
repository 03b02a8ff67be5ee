//! One direction of a link: how long bytes take, how many pass, and whether any do.
//!
//! A byte that leaves at `t` arrives at `max(t, last heal) + latency + jitter`, after every byte that
//! left before it on its connection, and not while the way is cut. A cut swallows nothing: TCP would
//! send again what a partition drops, so bytes wait and arrive one latency after the heal.

use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::tcp::WriteHalf;
use tokio::sync::watch;
use tokio::time::Instant;

/// A paced way lets bytes through in pieces of this much time, so that a slow one drips.
const PIECES_PER_SECOND: u64 = 20;

/// One direction of a link, and the handle to change it while bytes are under way.
#[derive(Clone, Debug)]
pub struct Way(Arc<State>);

/// Bytes of all connections of one way since the link was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WayCounts {
    /// Bytes taken from their sender.
    pub taken: u64,
    /// Bytes handed to their receiver. `delivered ≤ taken`; the rest is under way, held or lost by a
    /// reset.
    pub delivered: u64,
}

#[derive(Debug)]
struct State {
    shape: watch::Sender<Shape>,
    /// Held while bytes are handed over, so that none passes after [`Way::cut`] has returned.
    gate: Mutex<Gate>,
    taken: AtomicU64,
    delivered: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    latency: Duration,
    /// Zero: none.
    jitter: Duration,
    /// Bytes per second over all connections. None: as fast as the machine.
    rate: Option<NonZeroU64>,
    cut: bool,
    /// When the last cut ended. None: never cut.
    healed_at: Option<Instant>,
}

#[derive(Debug)]
struct Gate {
    /// Bytes that may pass before the connection of the next one is reset. None: all.
    reset_after: Option<u64>,
    /// When the last byte that has reserved its place on a paced way will have passed.
    free_at: Instant,
}

/// What became of bytes handed to the gate.
pub(crate) enum Passage {
    /// This many passed.
    Passed(usize),
    /// None passed: the way is cut, or the receiver takes no more for now.
    Held,
    /// None passed, and the connection must be reset.
    Reset,
}

/// A connection's view of a way: sees every change of it.
#[derive(Clone)]
pub(crate) struct Traveller {
    way: Way,
    shape: watch::Receiver<Shape>,
}

impl Way {
    pub(crate) fn new() -> Self {
        let shape = Shape {
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            cut: false,
            healed_at: None,
        };
        Self(Arc::new(State {
            shape: watch::Sender::new(shape),
            gate: Mutex::new(Gate { reset_after: None, free_at: Instant::now() }),
            taken: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
        }))
    }

    /// Sets how long a byte takes, for bytes under way too. Timers add up to a millisecond.
    pub fn set_latency(&self, latency: Duration) {
        self.0.shape.send_modify(|shape| shape.latency = latency);
    }

    /// Adds between nothing and `most` to the latency of each chunk, drawn evenly from the link's
    /// seed. Bytes keep their order: a chunk also waits for those before it.
    pub fn set_jitter(&self, most: Duration) {
        self.0.shape.send_modify(|shape| shape.jitter = most);
    }

    /// Lets at most so many bytes a second through, over all connections. None: no limit.
    pub fn set_rate(&self, bytes_per_second: Option<NonZeroU64>) {
        self.gate().free_at = Instant::now();
        self.0.shape.send_modify(|shape| shape.rate = bytes_per_second);
    }

    /// Stops every byte from the moment it returns, as a partition does: connections stay open, new
    /// ones hang, and bytes wait for the heal. Once a connection holds its fill of them
    /// (`LinkOptions::in_flight_max`), its sender's socket fills up and blocks.
    pub fn cut(&self) {
        let _gate = self.gate();
        self.0.shape.send_modify(|shape| shape.cut = true);
    }

    /// Ends a cut: what was held arrives one latency from now. Nothing happens to a way not cut.
    pub fn heal(&self) {
        self.0.shape.send_if_modified(|shape| {
            let was_cut = std::mem::replace(&mut shape.cut, false);
            if was_cut {
                shape.healed_at = Some(Instant::now());
            }
            was_cut
        });
    }

    /// Whether the way is cut.
    pub fn is_cut(&self) -> bool {
        self.0.shape.borrow().cut
    }

    /// Lets `bytes` more bytes through and resets, in place of the next one, the connection it is
    /// of, once. On the way back, zero loses the next reply whole after the request was served.
    pub fn reset_after_bytes(&self, bytes: u64) {
        self.gate().reset_after = Some(bytes);
    }

    /// Bytes so far.
    pub fn counts(&self) -> WayCounts {
        // Delivered first, so that it cannot exceed what was taken.
        let delivered = self.0.delivered.load(Ordering::Acquire);
        WayCounts { taken: self.0.taken.load(Ordering::Acquire), delivered }
    }

    pub(crate) fn traveller(&self) -> Traveller {
        Traveller { way: self.clone(), shape: self.0.shape.subscribe() }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.0.gate.lock().expect("nothing panics while it holds the gate")
    }
}

impl Traveller {
    /// Counts bytes taken from their sender.
    pub(crate) fn count_taken(&self, bytes: usize) {
        self.way.0.taken.fetch_add(bytes as u64, Ordering::Release);
    }

    /// Waits until what left at `left_at` has arrived. `luck`, in 0..1, is its share of the jitter.
    pub(crate) async fn arrival(&mut self, left_at: Instant, luck: f64) {
        loop {
            let shape = *self.shape.borrow_and_update();
            if shape.cut {
                self.change().await;
                continue;
            }
            let left_at = shape.healed_at.map_or(left_at, |healed_at| left_at.max(healed_at));
            let due = left_at + shape.latency + shape.jitter.mul_f64(luck);
            if due <= Instant::now() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.change() => {}
            }
        }
    }

    /// Waits for the turn of the next bytes, at most `bytes` of them, on a paced way; answers how
    /// many have it.
    pub(crate) async fn turn(&mut self, bytes: usize) -> usize {
        loop {
            let Some(rate) = self.shape.borrow_and_update().rate else { return bytes };
            let piece = (rate.get() / PIECES_PER_SECOND).clamp(1, bytes as u64);
            let turn = {
                let mut gate = self.way.gate();
                let takes = Duration::from_secs_f64(piece as f64 / rate.get() as f64);
                gate.free_at = gate.free_at.max(Instant::now()) + takes;
                gate.free_at
            };
            tokio::select! {
                () = tokio::time::sleep_until(turn) => return piece as usize,
                // The pace may have changed: reserve a place anew.
                () = self.change() => {}
            }
        }
    }

    /// Hands bytes over to their receiver, unless the way is cut or lets no more through.
    pub(crate) fn pass(&self, bytes: &[u8], receiver: &WriteHalf<'_>) -> io::Result<Passage> {
        let mut gate = self.way.gate();
        if self.way.is_cut() {
            return Ok(Passage::Held);
        }
        let may_pass = match gate.reset_after {
            Some(0) => {
                gate.reset_after = None;
                return Ok(Passage::Reset);
            }
            Some(left) => bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)),
            None => bytes.len(),
        };
        let passed = match receiver.try_write(&bytes[..may_pass]) {
            Ok(passed) => passed,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Passage::Held),
            Err(error) => return Err(error),
        };
        if let Some(left) = &mut gate.reset_after {
            *left -= passed as u64;
        }
        self.way.0.delivered.fetch_add(passed as u64, Ordering::Release);
        Ok(Passage::Passed(passed))
    }

    async fn change(&mut self) {
        self.shape.changed().await.expect("a traveller keeps its way, and so the sender, alive");
    }
}

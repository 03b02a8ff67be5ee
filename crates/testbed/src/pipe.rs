//! One direction of one connection: a queue in which bytes wait until they are due.
//!
//! ```text
//!   sender ──▶ take: note when each chunk left ──▶ queue, bounded in bytes ──▶ hand over when due ──▶ receiver
//! ```
//!
//! The end of the sender's bytes (a half-close) and a reset travel in the queue like bytes, so they
//! arrive as late as bytes do, after those before them, and not through a cut.

use std::convert::Infallible;
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Barrier, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::way::{Passage, Traveller};

/// Most bytes taken at once.
const CHUNK_LEN_MAX: usize = 64 * 1024;

/// What a chunk costs beside its bytes, so that a drip of single bytes is bounded too.
const CHUNK_OVERHEAD: usize = 128;

/// The least room a queue needs to take a chunk at all.
pub(crate) const ROOM_MIN: usize = CHUNK_LEN_MAX + CHUNK_OVERHEAD;

/// The connection must be reset at both ends.
#[derive(Debug)]
pub(crate) struct Broken;

/// One direction of a connection.
pub(crate) struct Pipe<'a> {
    pub(crate) traveller: Traveller,
    pub(crate) sender: ReadHalf<'a>,
    pub(crate) receiver: WriteHalf<'a>,
    /// Notified by the other direction when it finds the sender gone.
    pub(crate) sender_gone: &'a Notify,
    /// Tells the other direction that the receiver is gone.
    pub(crate) receiver_gone: &'a Notify,
    /// Both directions meet here once each has delivered its end.
    pub(crate) both_ended: &'a Barrier,
    /// Bytes the queue may hold, at least [`ROOM_MIN`].
    pub(crate) room: usize,
    pub(crate) luck: SmallRng,
}

enum Item {
    Chunk(Chunk),
    /// The sender sends no more.
    End {
        left_at: Instant,
    },
    /// The sender is gone.
    Reset {
        left_at: Instant,
    },
}

struct Chunk {
    bytes: Vec<u8>,
    left_at: Instant,
    _room: OwnedSemaphorePermit,
}

impl Pipe<'_> {
    /// Carries bytes until both directions have ended, or the connection breaks.
    pub(crate) async fn carry(self) -> Result<(), Broken> {
        let (queue, waiting) = unbounded_channel();
        let room = Arc::new(Semaphore::new(self.room.clamp(ROOM_MIN, Semaphore::MAX_PERMITS)));
        let way_in = self.traveller.clone();
        tokio::select! {
            never = take(self.sender, way_in, queue, room, self.sender_gone) => match never {},
            ended = hand_over(
                self.traveller,
                waiting,
                self.receiver,
                self.luck,
                self.receiver_gone,
                self.both_ended,
            ) => ended,
        }
    }
}

/// Takes what the sender sends. Never returns: the end is for the receiver to see.
async fn take(
    mut sender: ReadHalf<'_>,
    traveller: Traveller,
    queue: UnboundedSender<Item>,
    room: Arc<Semaphore>,
    sender_gone: &Notify,
) -> Infallible {
    let put = |item| {
        queue.send(item).expect("the receiving half lives in the same task, as long as this one");
    };
    let take_all = async {
        let mut buffer = vec![0; CHUNK_LEN_MAX];
        loop {
            let Ok(len) = sender.read(&mut buffer).await else { return };
            let left_at = Instant::now();
            if len == 0 {
                put(Item::End { left_at });
                // A later write to it may find out that it did more than end.
                return std::future::pending().await;
            }
            traveller.count_taken(len);
            let cost = u32::try_from(len + CHUNK_OVERHEAD).expect("a chunk is small");
            let room = room.clone().acquire_many_owned(cost).await.expect("never closed");
            put(Item::Chunk(Chunk { bytes: buffer[..len].to_vec(), left_at, _room: room }));
        }
    };
    tokio::select! {
        () = take_all => {}
        () = sender_gone.notified() => {}
    }
    put(Item::Reset { left_at: Instant::now() });
    std::future::pending().await
}

/// Hands the receiver what is due.
async fn hand_over(
    mut traveller: Traveller,
    mut waiting: UnboundedReceiver<Item>,
    mut receiver: WriteHalf<'_>,
    mut luck: SmallRng,
    receiver_gone: &Notify,
    both_ended: &Barrier,
) -> Result<(), Broken> {
    loop {
        let item = next(&mut waiting).await;
        let luck = luck.random();
        match item {
            Item::Chunk(chunk) => {
                traveller.arrival(chunk.left_at, luck).await;
                if !deliver(&mut traveller, &chunk, luck, &receiver).await? {
                    break;
                }
            }
            Item::End { left_at } => {
                traveller.arrival(left_at, luck).await;
                if receiver.shutdown().await.is_err() {
                    break;
                }
                tokio::select! {
                    _ = both_ended.wait() => return Ok(()),
                    // Nothing follows an end but a reset.
                    reset = next(&mut waiting) => {
                        if let Item::Reset { left_at } = reset {
                            traveller.arrival(left_at, luck).await;
                        }
                        return Err(Broken);
                    }
                }
            }
            Item::Reset { left_at } => {
                traveller.arrival(left_at, luck).await;
                return Err(Broken);
            }
        }
    }
    // The receiver is gone. Its host would answer with a reset, which takes the way back to the
    // sender; what the sender sends until then falls on the floor.
    receiver_gone.notify_one();
    loop {
        if let Item::Reset { .. } = next(&mut waiting).await {
            return Err(Broken);
        }
    }
}

/// Hands over one chunk that is due; answers whether the receiver is still there.
async fn deliver(
    traveller: &mut Traveller,
    chunk: &Chunk,
    luck: f64,
    receiver: &WriteHalf<'_>,
) -> Result<bool, Broken> {
    let mut rest = &chunk.bytes[..];
    while !rest.is_empty() {
        let mut piece = traveller.turn(rest.len()).await;
        while piece > 0 {
            if receiver.writable().await.is_err() {
                return Ok(false);
            }
            // Waits, if the way was cut since.
            traveller.arrival(chunk.left_at, luck).await;
            match traveller.pass(&rest[..piece], receiver) {
                Ok(Passage::Passed(passed)) => {
                    rest = &rest[passed..];
                    piece -= passed;
                }
                Ok(Passage::Held) => {}
                Ok(Passage::Reset) => return Err(Broken),
                Err(_) => return Ok(false),
            }
        }
    }
    Ok(true)
}

async fn next(waiting: &mut UnboundedReceiver<Item>) -> Item {
    waiting.recv().await.expect("the sending half lives in the same task, as long as this one")
}

//! A link: a TCP proxy that is as slow, or as broken, as a network far wider than this machine.
//!
//! ```text
//!   opener ── forth ─▶ target        the opener dials the link's address; each connection of the
//!          ◀─ back ───               opener is one connection to the target
//! ```
//!
//! The kernel answers a dial to the link at once. The link makes up for it: it dials the target one
//! latency later, as if the SYN had travelled, and takes the first byte another latency later, as if
//! the answer had. The first reply on a new connection so takes two round trips, as it should.
//!
//! HAZARD: an opener may give up on a connection that hangs in a cut. Over a real network none of
//! its bytes would be delivered; here the kernel has accepted them, and they arrive after the heal,
//! as a very late request. Servers must bear those anyway.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::pipe::{Broken, Pipe};
use crate::way::{Way, WayCounts};

/// How to open a link.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// Where openers dial. Port 0: any free one.
    pub listen: SocketAddr,
    /// Whom the link dials for them.
    pub target: SocketAddr,
    /// Bytes each connection may have under way or held in each direction. A sender that is further
    /// ahead of its receiver blocks. Less than a chunk (64 KiB and a little) counts as one chunk.
    pub in_flight_max: usize,
    /// Where jitter comes from.
    pub seed: u64,
}

impl LinkOptions {
    /// A link to `target` from any free loopback port, with room for 64 MiB in each direction.
    pub fn to(target: SocketAddr) -> Self {
        Self { listen: (Ipv4Addr::LOCALHOST, 0).into(), target, in_flight_max: 64 << 20, seed: 0 }
    }
}

/// A link, and the handle to change it. It closes, with its connections, when the last clone of the
/// handle is dropped.
#[derive(Clone, Debug)]
pub struct Link {
    core: Arc<Core>,
    _accepting: Arc<AbortOnDrop>,
}

/// A link's connections and bytes since it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkCounts {
    /// Connections accepted.
    pub connections: u64,
    /// Those of them that have not ended.
    pub connections_open: u64,
    /// Bytes from openers to the target.
    pub forth: WayCounts,
    /// Bytes from the target to openers.
    pub back: WayCounts,
}

#[derive(Debug)]
struct Core {
    address: SocketAddr,
    options: LinkOptions,
    forth: Way,
    back: Way,
    /// Counts resets: every connection ends when it changes.
    resets: watch::Sender<u64>,
    accepted: AtomicU64,
    ended: AtomicU64,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// Opens a link that adds nothing yet.
    ///
    /// # Errors
    /// When `options.listen` cannot be listened on.
    pub async fn open(options: LinkOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let core = Arc::new(Core {
            address: listener.local_addr()?,
            options,
            forth: Way::new(),
            back: Way::new(),
            resets: watch::Sender::new(0),
            accepted: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, core.clone()));
        Ok(Self { core, _accepting: Arc::new(AbortOnDrop(accepting)) })
    }

    /// The address openers dial.
    pub fn address(&self) -> SocketAddr {
        self.core.address
    }

    /// The address the link dials for them.
    pub fn target(&self) -> SocketAddr {
        self.core.options.target
    }

    /// The way from opener to target: requests.
    pub fn forth(&self) -> &Way {
        &self.core.forth
    }

    /// The way from target to opener: replies.
    pub fn back(&self) -> &Way {
        &self.core.back
    }

    /// Sets the latency of each way to half of `round_trip`.
    pub fn set_round_trip(&self, round_trip: Duration) {
        let latency = round_trip / 2;
        self.core.forth.set_latency(latency);
        self.core.back.set_latency(round_trip - latency);
    }

    /// Cuts both ways.
    pub fn cut(&self) {
        self.core.forth.cut();
        self.core.back.cut();
    }

    /// Heals both ways.
    pub fn heal(&self) {
        self.core.forth.heal();
        self.core.back.heal();
    }

    /// Resets (RST) every connection accepted so far, at both ends and at once, cut or not. What was
    /// under way is lost.
    pub fn reset(&self) {
        self.core.resets.send_modify(|resets| *resets += 1);
    }

    /// Connections and bytes so far.
    pub fn counts(&self) -> LinkCounts {
        let ended = self.core.ended.load(Ordering::Acquire);
        let connections = self.core.accepted.load(Ordering::Acquire);
        LinkCounts {
            connections,
            connections_open: connections - ended,
            forth: self.core.forth.counts(),
            back: self.core.back.counts(),
        }
    }
}

async fn accept(listener: TcpListener, core: Arc<Core>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((opener, _)) => {
                let number = core.accepted.fetch_add(1, Ordering::Release);
                // Subscribed before anyone can see the connection, or reset it.
                let resets = core.resets.subscribe();
                connections.spawn(connection(core.clone(), opener, number, resets));
            }
            Err(error) => {
                // No file descriptors, mostly: some may be free soon.
                tracing::warn!(%error, link = %core.address, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn connection(
    core: Arc<Core>,
    mut opener: TcpStream,
    number: u64,
    mut resets: watch::Receiver<u64>,
) {
    let _counted = CountEnd(&core.ended);
    let mut target = None;
    let ended = tokio::select! {
        ended = Box::pin(converse(&core, &mut opener, &mut target, number)) => ended,
        _ = resets.changed() => Err(Broken),
    };
    if ended.is_err() {
        // Closing a socket that does not linger sends RST. It fails only if the socket is dead.
        opener.set_zero_linger().ok();
        if let Some(target) = &target {
            target.set_zero_linger().ok();
        }
    }
    // Closed before the end is counted.
    drop((opener, target));
}

struct CountEnd<'a>(&'a AtomicU64);

impl Drop for CountEnd<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

async fn converse(
    core: &Core,
    opener: &mut TcpStream,
    target: &mut Option<TcpStream>,
    number: u64,
) -> Result<(), Broken> {
    let mut seeds = SmallRng::seed_from_u64(core.options.seed ^ number.rotate_left(32));
    let (mut forth, mut back) = (core.forth.traveller(), core.back.traveller());
    forth.arrival(Instant::now(), seeds.random()).await;
    let dialled = TcpStream::connect(core.options.target).await;
    // The answer, yes or no, travels back.
    back.arrival(Instant::now(), seeds.random()).await;
    let target = target.insert(dialled.map_err(|_| Broken)?);
    opener.set_nodelay(true).map_err(|_| Broken)?;
    target.set_nodelay(true).map_err(|_| Broken)?;

    let (opener_gone, target_gone) = (Notify::new(), Notify::new());
    let both_ended = Barrier::new(2);
    let (from_opener, to_opener) = opener.split();
    let (from_target, to_target) = target.split();
    let forth = Pipe {
        traveller: forth,
        sender: from_opener,
        receiver: to_target,
        sender_gone: &opener_gone,
        receiver_gone: &target_gone,
        both_ended: &both_ended,
        room: core.options.in_flight_max,
        luck: SmallRng::from_rng(&mut seeds),
    };
    let back = Pipe {
        traveller: back,
        sender: from_target,
        receiver: to_opener,
        sender_gone: &target_gone,
        receiver_gone: &opener_gone,
        both_ended: &both_ended,
        room: core.options.in_flight_max,
        luck: SmallRng::from_rng(&mut seeds),
    };
    tokio::try_join!(forth.carry(), back.carry())?;
    Ok(())
}

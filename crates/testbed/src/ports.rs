//! Loopback ports for processes that are told where to listen, and come back to the same place.
//!
//! A port must stay its process's own while that is down. Two things would take it:
//!
//! * The kernel, for any outgoing connection, even one to that very port, which then connects to
//!   itself. So ports are drawn from below the range it takes them from.
//! * Another testbed, in this process or another. So each keeps a listener on the same port of a
//!   loopback address nobody else uses, for as long as it needs the port.
//!
//! Binding the port itself to keep it would not do: whatever another thread spawns has a copy of the
//! listener until it runs its program, so the port is not free at once when we give it up.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::net::TcpStream;

/// The least port drawn: below live well-known services.
const PORT_MIN: u16 = 16_000;

/// The least number of ports to draw from; with fewer, the kernel's choice must do.
const PORTS_MIN: u16 = 1_000;

/// Where Linux keeps the range outgoing connections take their ports from.
const EPHEMERAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Where that range starts unless Linux says otherwise.
const EPHEMERAL_START: u16 = 32_768;

/// The loopback address whose ports stand for claims on those of 127.0.0.1.
const CLAIMS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Draws before giving up: some ports are taken, not hundreds.
const DRAWS: u32 = 1_000;

/// A port of 127.0.0.1 that no other testbed takes until this is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    address: SocketAddr,
    _claim: TcpListener,
}

impl Port {
    /// Draws a port that nobody listens on.
    pub(crate) async fn draw() -> io::Result<Self> {
        let end = fs::read_to_string(EPHEMERAL_RANGE).ok();
        let end = end.as_deref().and_then(ephemeral_start).unwrap_or(EPHEMERAL_START);
        let mut random = rand::make_rng::<SmallRng>();
        let mut refusal = None;
        for _ in 0..DRAWS {
            let has_room = end >= PORT_MIN + PORTS_MIN;
            let port = if has_room { random.random_range(PORT_MIN..end) } else { 0 };
            match Self::claim(port).await {
                Ok(Some(port)) => return Ok(port),
                Ok(None) => {}
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
    }

    /// Claims a port, or any when it is 0. None: somebody listens there.
    async fn claim(port: u16) -> io::Result<Option<Self>> {
        let claim = TcpListener::bind((CLAIMS, port))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, claim.local_addr()?.port()));
        let is_free = TcpStream::connect(address).await.is_err();
        Ok(is_free.then_some(Self { address, _claim: claim }))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn ephemeral_start(range: &str) -> Option<u16> {
    range.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ports_are_distinct_and_can_be_listened_on_while_they_are_claimed() {
        let mut held = Vec::new();
        for _ in 0..50 {
            let port = Port::draw().await.unwrap();
            let listener = tokio::net::TcpListener::bind(port.address()).await.unwrap();
            held.push((port, listener));
        }
    }

    #[tokio::test]
    async fn a_port_claimed_or_listened_on_is_not_claimed_again() {
        let port = Port::draw().await.unwrap();
        let number = port.address().port();
        Port::claim(number).await.unwrap_err();
        let _listener = tokio::net::TcpListener::bind(port.address()).await.unwrap();
        drop(port);
        // Others may be spawning processes, which hold a copy of the claim for a moment.
        let claimed = loop {
            match Port::claim(number).await {
                Ok(claimed) => break claimed,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert!(claimed.is_none(), "somebody listens there");
    }

    #[test]
    fn the_ephemeral_range_is_read_as_linux_writes_it() {
        assert_eq!(ephemeral_start("32768\t60999\n"), Some(32_768));
        assert_eq!(ephemeral_start(""), None);
    }
}

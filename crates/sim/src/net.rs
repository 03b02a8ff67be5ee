//! The network port over turmoil's: addresses are `host:port`, every byte sent is in the trace.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use latitude_rpc::net::{Connection, Incoming, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::invariants::Invariants;
use crate::late::Late;
use crate::links::{Breaker, Half, Links, Way};
use crate::tap::Tap;
use crate::trace::{Kind, Trace};

/// How often an attempt to connect into a partition is made again, as TCP sends its first packet again.
const DIAL_AGAIN: Duration = Duration::from_millis(200);

/// A connection, as both its ends know it: who dialled, from which port.
pub(crate) type Wire = (Arc<str>, u16);

/// The network as one host sees it.
#[derive(Clone, Debug)]
pub(crate) struct SimNet {
    host: Arc<str>,
    links: Links,
    trace: Trace,
    /// Who looks at what is said to other nodes.
    watch: Option<Invariants>,
}

impl SimNet {
    pub(crate) fn new(host: Arc<str>, links: Links, trace: Trace) -> Self {
        Self { host, links, trace, watch: None }
    }

    /// The network as a node sees it: what it says to others is looked at.
    pub(crate) fn of_node(self, invariants: Invariants) -> Self {
        Self { watch: Some(invariants), ..self }
    }

    /// Connects. turmoil refuses at once what a partition swallows; here it takes as long as the partition
    /// lasts, and the caller's patience ends it.
    async fn connect(self, address: String) -> io::Result<Connection> {
        let peer: Arc<str> = address.as_str().into();
        let name = host_of(&address);
        loop {
            self.trace.note(Kind::Dialled, &self.host, &peer, b"");
            match TcpStream::connect(address.clone()).await {
                Ok(stream) => {
                    let port = stream.local_addr()?.port();
                    let wire = (Arc::clone(&self.host), port);
                    return Ok(self.connection(stream, peer, wire));
                }
                Err(_) if self.is_cut_off(name) => tokio::time::sleep(DIAL_AGAIN).await,
                Err(error) => return Err(error),
            }
        }
    }

    fn is_cut_off(&self, name: &str) -> bool {
        self.links.is_cut(&self.host, name) || self.links.is_cut(name, &self.host)
    }

    fn connection(&self, stream: TcpStream, peer: Arc<str>, wire: Wire) -> Connection {
        let (host, from): (_, Arc<str>) = (Arc::clone(&self.host), host_of(&peer).into());
        let breaker = self.links.connected(&host, &from);
        let watch = self.watch.clone().filter(|_| from.starts_with("node-"));
        let tap = watch.map(|watch| (Tap::default(), watch));
        let way = (from, Arc::clone(&host));
        let (links, trace) = (self.links.clone(), self.trace.clone());
        Connection::new(Stream {
            stream,
            breaker,
            links,
            way,
            late: Late::default(),
            host,
            peer,
            trace,
            wire,
            tap,
        })
    }
}

impl Net for SimNet {
    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Connection>> {
        Box::pin(self.clone().connect(address.to_string()))
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<(String, Incoming)>> {
        let (net, address) = (self.clone(), address.to_string());
        Box::pin(async move {
            let port = address.rsplit(':').next().unwrap_or_default();
            let listener = TcpListener::bind(format!("0.0.0.0:{port}")).await?;
            let incoming = futures::stream::unfold((listener, net), |(listener, net)| async move {
                let accepted =
                    listener.accept().await.map(|(stream, from)| net.accept(stream, from));
                Some((accepted, (listener, net)))
            });
            Ok((address, Box::pin(incoming) as Incoming))
        })
    }
}

impl SimNet {
    fn accept(&self, stream: TcpStream, from: SocketAddr) -> Connection {
        let name = turmoil::reverse_lookup(from.ip()).unwrap_or_else(|| from.ip().to_string());
        let peer: Arc<str> = format!("{name}:{}", from.port()).into();
        self.trace.note(Kind::Accepted, &self.host, &peer, b"");
        self.connection(stream, peer, (name.into(), from.port()))
    }
}

/// The host of an address.
fn host_of(address: &str) -> &str {
    address.split(':').next().unwrap_or_default()
}

/// A connection whose sent bytes are in the trace, and which can be reset.
struct Stream {
    stream: TcpStream,
    breaker: Arc<Breaker>,
    links: Links,
    /// From the other end to this one.
    way: Way,
    /// What has come, and is not to be here yet.
    late: Late,
    host: Arc<str>,
    peer: Arc<str>,
    trace: Trace,
    wire: Wire,
    /// Reads what one node says to another here, for whoever looks at it.
    tap: Option<(Tap, Invariants)>,
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, breaker, links, way, late, .. } = self.get_mut();
        breaker.guard(Half::Read, cx, |cx| {
            let delay = links.delay_of(way);
            if delay.is_zero() && late.is_empty() {
                return Pin::new(stream).poll_read(cx, buf);
            }
            late.poll_read(cx, buf, delay, || links.is_held(&way.0, &way.1), stream)
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, breaker, host, peer, trace, way, wire, tap, .. } = self.get_mut();
        let sent =
            ready!(breaker.guard(Half::Write, cx, |cx| Pin::new(stream).poll_write(cx, buf)))?;
        trace.note(Kind::Sent, host, peer, &buf[..sent]);
        if let Some((tap, watch)) = tap {
            for told in tap.sent(&buf[..sent]) {
                watch.said(host, &way.0, wire, &told);
            }
        }
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, breaker, .. } = self.get_mut();
        breaker.guard(Half::Write, cx, |cx| Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, breaker, .. } = self.get_mut();
        breaker.guard(Half::Write, cx, |cx| Pin::new(stream).poll_shutdown(cx))
    }
}

//! The network port over turmoil's: addresses are `host:port`, every byte sent is in the trace.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use latitude_rpc::net::{Connection, Incoming, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::trace::{Kind, Trace};

/// How often an attempt to connect into a partition is made again, as TCP sends its first packet again.
const DIAL_AGAIN: Duration = Duration::from_millis(200);

/// From one host to another.
type Way = (Arc<str>, Arc<str>);

/// Which ways are cut. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cuts(Arc<Mutex<BTreeSet<Way>>>);

impl Cuts {
    pub(crate) fn cut(&self, from: &Arc<str>, to: &Arc<str>) {
        self.lock().insert((Arc::clone(from), Arc::clone(to)));
    }

    pub(crate) fn heal(&self, from: &Arc<str>, to: &Arc<str>) {
        self.lock().remove(&(Arc::clone(from), Arc::clone(to)));
    }

    /// Whether nothing gets from one to the other.
    pub(crate) fn is_cut(&self, from: &str, to: &str) -> bool {
        self.lock().iter().any(|(cut_from, cut_to)| (&**cut_from, &**cut_to) == (from, to))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<Way>> {
        self.0.lock().expect("nothing panics while it holds the cuts")
    }
}

/// The network as one host sees it.
#[derive(Clone, Debug)]
pub(crate) struct SimNet {
    host: Arc<str>,
    cuts: Cuts,
    trace: Trace,
}

impl SimNet {
    pub(crate) fn new(host: Arc<str>, cuts: Cuts, trace: Trace) -> Self {
        Self { host, cuts, trace }
    }

    /// Connects. turmoil refuses at once what a partition swallows; here it takes as long as the partition
    /// lasts, and the caller's patience ends it.
    async fn connect(self, address: String) -> io::Result<Connection> {
        let peer: Arc<str> = address.as_str().into();
        let name = address.split(':').next().unwrap_or_default();
        loop {
            self.trace.note(Kind::Dialled, &self.host, &peer, b"");
            match TcpStream::connect(address.clone()).await {
                Ok(stream) => return Ok(self.connection(stream, peer)),
                Err(_) if self.is_cut_off(name) => tokio::time::sleep(DIAL_AGAIN).await,
                Err(error) => return Err(error),
            }
        }
    }

    fn is_cut_off(&self, name: &str) -> bool {
        self.cuts.is_cut(&self.host, name) || self.cuts.is_cut(name, &self.host)
    }

    fn connection(&self, stream: TcpStream, peer: Arc<str>) -> Connection {
        Connection::new(Stream {
            stream,
            host: Arc::clone(&self.host),
            peer,
            trace: self.trace.clone(),
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
        self.connection(stream, peer)
    }
}

/// A connection whose sent bytes are in the trace.
struct Stream {
    stream: TcpStream,
    host: Arc<str>,
    peer: Arc<str>,
    trace: Trace,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.trace.note(Kind::Sent, &self.host, &self.peer, &buf[..sent]);
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

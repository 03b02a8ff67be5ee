//! The network as a port: dialling and listening, with gRPC on top.
//!
//! ```text
//!   tonic client ── channel() ─┐                    ┌─ incoming() ── tonic server
//!                              ▼                    ▲
//!                        Net::dial ══ byte stream ══ Net::listen
//! ```
//!
//! The real adapter is TCP; a simulation puts its own network here, and everything above is the same
//! code.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};

/// A connection's bytes, both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// A connection.
pub struct Connection(Box<dyn Io>);

impl Connection {
    /// A connection over these bytes.
    pub fn new(io: impl Io) -> Self {
        Self(Box::new(io))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// Connections as they come in. Ends when the listener is closed.
pub type Incoming = BoxStream<'static, io::Result<Connection>>;

/// The network.
pub trait Net: Send + Sync + 'static {
    /// Opens a connection to `host:port`.
    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Connection>>;

    /// Listens on `host:port`; also says the address it got, for port 0.
    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<(String, Incoming)>>;
}

/// A gRPC channel to `host:port` over the port. Connects when first used, and again when it breaks; a
/// connection that does not come about within `connect_timeout` fails.
pub fn channel(
    net: Arc<dyn Net>,
    address: &str,
    connect_timeout: Duration,
) -> Result<Channel, http::Error> {
    let uri = Uri::builder().scheme("http").authority(address).path_and_query("/").build()?;
    let address = address.to_string();
    let connector = tower::service_fn(move |_: Uri| {
        let dialled = net.dial(&address);
        async move { dialled.await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from(uri)
        .connect_timeout(connect_timeout)
        // Windows for values of megabytes over links of hundreds of milliseconds: the default 64 KiB
        // would move 64 KiB in each round trip.
        .initial_stream_window_size(16 << 20)
        .initial_connection_window_size(32 << 20)
        .tcp_nodelay(true);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// The real network: TCP without delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Net for Tcp {
    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Connection>> {
        let address = address.to_string();
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Connection::new(stream))
        })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<(String, Incoming)>> {
        let address = address.to_string();
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind(address).await?;
            let bound = listener.local_addr()?.to_string();
            let incoming = futures::stream::unfold(listener, |listener| async move {
                let accepted = listener.accept().await.and_then(|(stream, _)| {
                    stream.set_nodelay(true)?;
                    Ok(Connection::new(stream))
                });
                Some((accepted, listener))
            });
            Ok((bound, Box::pin(incoming) as Incoming))
        })
    }
}

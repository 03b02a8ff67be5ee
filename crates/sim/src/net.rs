//! The network port over turmoil, with every write in the trace.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use latitude_rpc::net::{Connection, Incoming, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::clock::virtual_now;
use crate::trace::Trace;

/// The simulated network, as one host sees it.
#[derive(Clone)]
pub(crate) struct SimNet {
    pub(crate) host: String,
    pub(crate) trace: Trace,
}

impl SimNet {
    fn note(&self, what: &[u8]) {
        self.trace.add(virtual_now().as_micros() as u64, &self.host, what);
    }
}

impl Net for SimNet {
    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Connection>> {
        let (net, address) = (self.clone(), address.to_string());
        async move {
            let (host, port) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
            let port: u16 = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
            net.note(format!("dial {address}").as_bytes());
            let stream = TcpStream::connect((host, port)).await?;
            Ok(Connection::new(Traced { stream, net }))
        }
        .boxed()
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<(String, Incoming)>> {
        let (net, address) = (self.clone(), address.to_string());
        async move {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            let listener =
                TcpListener::bind(("0.0.0.0", port.ok_or(io::ErrorKind::InvalidInput)?)).await?;
            let incoming = futures::stream::unfold((listener, net), |(listener, net)| async move {
                let accepted = listener.accept().await;
                let connection = accepted
                    .map(|(stream, _)| Connection::new(Traced { stream, net: net.clone() }));
                Some((connection, (listener, net)))
            });
            Ok((address, Box::pin(incoming) as Incoming))
        }
        .boxed()
    }
}

/// A connection whose writes are in the trace: how long, when and by whom.
struct Traced {
    stream: TcpStream,
    net: SimNet,
}

impl AsyncRead for Traced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Traced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(len)) = &written {
            self.net.note(&buf[..*len]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! A network in memory: connections that can be cut or held.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::future::BoxFuture;
use latitude_rpc::net::{Connection, Incoming, Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

/// The network. Bytes pass through a task per direction, which a test may stop or end.
#[derive(Default)]
pub(crate) struct MemoryNet {
    listeners: Mutex<BTreeMap<String, mpsc::UnboundedSender<Connection>>>,
    carriers: Mutex<BTreeMap<String, Vec<AbortHandle>>>,
    held: Arc<Held>,
    refused: Mutex<BTreeSet<String>>,
    /// How often an address's connections were lost.
    lost: watch::Sender<BTreeMap<String, u32>>,
}

struct Held(watch::Sender<BTreeSet<String>>);

impl Default for Held {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeSet::new()))
    }
}

impl MemoryNet {
    /// Ends every connection to an address.
    pub(crate) fn cut(&self, address: &str) {
        for carrier in self.carriers.lock().unwrap().remove(address).unwrap_or_default() {
            carrier.abort();
        }
    }

    /// Swallows all that is sent on the connections there are, without closing them.
    pub(crate) fn lose(&self, address: &str) {
        self.lost.send_modify(|lost| *lost.entry(address.to_string()).or_default() += 1);
    }

    /// From now on nothing passes to or from the address, and nobody is told.
    pub(crate) fn hold(&self, address: &str) {
        self.held.0.send_if_modified(|held| held.insert(address.to_string()));
    }

    /// What was held passes again.
    pub(crate) fn release(&self, address: &str) {
        self.held.0.send_if_modified(|held| held.remove(address));
    }

    /// Cuts the address off: new connections are refused.
    pub(crate) fn refuse(&self, address: &str) {
        self.refused.lock().unwrap().insert(address.to_string());
        self.cut(address);
    }

    /// Takes connections to the address again.
    pub(crate) fn accept(&self, address: &str) {
        self.refused.lock().unwrap().remove(address);
    }
}

/// Carries bytes one way until either end closes.
async fn carry(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
    mut held: watch::Receiver<BTreeSet<String>>,
    lost: watch::Receiver<BTreeMap<String, u32>>,
    address: String,
) {
    let born = lost.borrow().get(&address).copied();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 || held.wait_for(|held| !held.contains(&address)).await.is_err() {
            break;
        }
        if lost.borrow().get(&address).copied() != born {
            continue;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    drop(to.shutdown().await);
}

impl Net for MemoryNet {
    fn dial(&self, address: &str) -> BoxFuture<'static, io::Result<Connection>> {
        let refused = self.refused.lock().unwrap().contains(address);
        let listener = self.listeners.lock().unwrap().get(address).cloned();
        let Some(listener) = listener.filter(|_| !refused) else {
            return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
        };
        let (near, near_inner) = tokio::io::duplex(1 << 20);
        let (far, far_inner) = tokio::io::duplex(1 << 20);
        let (near_read, near_write) = tokio::io::split(near_inner);
        let (far_read, far_write) = tokio::io::split(far_inner);
        let held = || self.held.0.subscribe();
        let lost = || self.lost.subscribe();
        let there = carry(near_read, far_write, held(), lost(), address.to_string());
        let back = carry(far_read, near_write, held(), lost(), address.to_string());
        let (there, back) = (tokio::spawn(there), tokio::spawn(back));
        let handles = [there.abort_handle(), back.abort_handle()];
        self.carriers.lock().unwrap().entry(address.to_string()).or_default().extend(handles);
        Box::pin(async move {
            listener.send(Connection::new(far)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Connection::new(near))
        })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, io::Result<(String, Incoming)>> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        self.listeners.lock().unwrap().insert(address.to_string(), sender);
        let incoming = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).map(Ok);
        let bound = (address.to_string(), incoming.boxed() as Incoming);
        Box::pin(async move { Ok(bound) })
    }
}

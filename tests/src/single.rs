//! A node by itself, started with whatever flags and on whatever store a test wants.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use latitude_client::{Client, Level};
use latitude_testbed::{Binary, Process};

use crate::bed::{PATIENCE, binary, eventually};

/// A process of the program under test.
pub struct Single {
    process: Process,
    address: SocketAddr,
    log: PathBuf,
}

impl Single {
    /// An address to start a node at. Free now; that somebody else takes it before the node does fails
    /// the test, clearly.
    ///
    /// # Errors
    /// When there is none.
    pub fn free_address() -> Result<SocketAddr> {
        Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
    }

    /// Starts a node on a store, where it listened before if it did; its output goes beside the store.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(store: &Path, address: SocketAddr, flags: &[&str]) -> Result<Self> {
        let log = store.with_extension(format!("{}.log", address.port()));
        let start = Binary::new(binary()?)
            .args(["start".into(), "--store".into(), store.as_os_str().to_owned()])
            .args(["--listen".to_owned(), address.to_string()])
            .args(flags.iter().copied());
        Ok(Self { process: Process::spawn(&start, &log)?, address, log })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::builder().seeds([self.address.to_string()]).timeout(PATIENCE).build()
    }

    /// All it has written.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn output(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// Waits until it serves, as a cluster of its own.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn serves(&self) -> Result<()> {
        let keyspace = self.client().keyspace("default").with_level(Level::Strict);
        let serves = eventually("the node serves", async || {
            keyspace.get("k").await?;
            Ok(())
        });
        serves.await.with_context(|| self.output().unwrap_or_default())
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Errors
    /// When it does not, or not well.
    pub async fn stop(mut self) -> Result<()> {
        self.process.terminate()?;
        let ended = tokio::time::timeout(PATIENCE, self.process.wait()).await;
        let status = ended.context("it does not end")??;
        ensure!(status.success(), "it ended with {status}: {}", self.output()?);
        Ok(())
    }

    /// Waits until it has ended by itself, unsuccessfully; returns what it said.
    ///
    /// # Errors
    /// When it goes on, or ends as if all were well.
    pub async fn refused(mut self) -> Result<String> {
        match tokio::time::timeout(PATIENCE, self.process.wait()).await {
            Ok(status) if !status.as_ref().is_ok_and(|status| status.success()) => self.output(),
            Ok(status) => bail!("it ended with {status:?}: {}", self.output()?),
            Err(_) => bail!("it goes on: {}", self.output()?),
        }
    }
}

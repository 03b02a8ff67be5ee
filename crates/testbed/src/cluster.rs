//! A cluster of `latitude` processes: started, formed, hurt and healed.
//!
//! ```text
//!   start: claim ports ─▶ open links ─▶ spawn every node ─▶ init once ─▶ every node sees every node live
//! ```
//!
//! A node listens on its own port, which its own region dials directly; every other region dials a
//! link of the [`Wan`] in front of it, and is told so by `--advertise-from`.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use crate::ports::Port;
use crate::process::{Binary, Process, tail};
use crate::wan::{AP, EU, RoundTrips, US, Wan};

/// How long to wait before asking the same again.
const POLL: Duration = Duration::from_millis(50);

/// How long one question to a node may take before it is asked again.
const QUESTION_MAX: Duration = Duration::from_secs(10);

/// Lines of a node's log that go into an error: enough to show a panic above its backtrace.
const LOG_LINES: usize = 80;

/// What a cluster is to be. By default: a node in each of eu, us and ap, at the published distances.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    binary: PathBuf,
    dir: PathBuf,
    /// A node's region, for each node.
    regions: Vec<String>,
    zone: String,
    /// None: no links, every node is dialled directly.
    wan: Option<RoundTrips>,
    seed: u64,
    flags: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    start_within: Duration,
}

impl ClusterBuilder {
    /// A cluster of the program `binary` that keeps its stores and logs below the directory `dir`.
    pub fn new(binary: impl Into<PathBuf>, dir: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            dir: dir.into(),
            regions: [EU, US, AP].map(str::to_owned).into(),
            zone: "a".to_owned(),
            wan: Some(RoundTrips::published()),
            seed: 0,
            flags: Vec::new(),
            env: Vec::new(),
            start_within: Duration::from_secs(120),
        }
    }

    /// One node for each region named, in this order; name a region twice for two nodes in it.
    #[must_use]
    pub fn nodes_in(mut self, regions: &[&str]) -> Self {
        self.regions = regions.iter().map(|&region| region.to_owned()).collect();
        self
    }

    /// The zone of every node; `a` unless set.
    #[must_use]
    pub fn zone(mut self, zone: &str) -> Self {
        self.zone = zone.to_owned();
        self
    }

    /// Links between regions, this long.
    #[must_use]
    pub fn wan(mut self, round_trips: RoundTrips) -> Self {
        self.wan = Some(round_trips);
        self
    }

    /// No links: nodes and clients dial every node directly, and nothing can be cut.
    #[must_use]
    pub fn without_wan(mut self) -> Self {
        self.wan = None;
        self
    }

    /// Where the links' jitter comes from, if any is set.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// More flags for `start`, after our own.
    #[must_use]
    pub fn flags(mut self, flags: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// An environment variable for every node.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// How long the whole start may take; two minutes unless set.
    #[must_use]
    pub fn start_within(mut self, most: Duration) -> Self {
        self.start_within = most;
        self
    }

    /// Starts the nodes, forms the cluster, and waits until every node sees every node live.
    ///
    /// # Errors
    /// When a node's store exists already, a process does not start or ends, forming the cluster
    /// fails, or it takes too long; with the end of the log of the node in question. Every process
    /// started is killed.
    pub async fn start(self) -> Result<Cluster> {
        ensure!(!self.regions.is_empty(), "a cluster has at least one node");
        fs::create_dir_all(&self.dir)
            .with_context(|| format!("cannot make {}", self.dir.display()))?;
        let deadline = Instant::now() + self.start_within;

        let mut ports = Vec::new();
        for _ in &self.regions {
            ports.push(Port::draw().await.context("cannot find a free port")?);
        }
        // The cluster numbers its founders in the order of their addresses' text: so n1 is n1 there too.
        ports.sort_by_key(|port| port.address().to_string());
        let addresses: Vec<SocketAddr> = ports.iter().map(Port::address).collect();
        let places: Vec<_> = self.regions.iter().cloned().zip(addresses.iter().copied()).collect();
        let wan = match &self.wan {
            Some(round_trips) => Some(Wan::open(&places, round_trips, self.seed).await?),
            None => None,
        };
        let plans = self.plans(&addresses, wan.as_ref());
        for plan in &plans {
            fs::create_dir(&plan.store)
                .with_context(|| format!("cannot make the store {}", plan.store.display()))?;
        }

        let nodes =
            plans.into_iter().zip(ports).map(|(plan, port)| self.node(plan, port)).collect();
        let cluster = Cluster { nodes, wan, binary: self.binary.clone(), dir: self.dir };
        for node in &cluster.nodes {
            node.start().await?;
        }
        for node in &cluster.nodes {
            node.await_listening(deadline).await?;
        }
        cluster.init(deadline).await?;
        cluster.await_live(deadline).await?;
        Ok(cluster)
    }

    fn plans(&self, addresses: &[SocketAddr], wan: Option<&Wan>) -> Vec<Plan> {
        let reach = |target: usize, viewer: &str| match wan {
            Some(wan) => wan.address_of(target, viewer),
            None => addresses[target],
        };
        let plan = |(index, region): (usize, &String)| {
            let elsewhere = wan.into_iter().flat_map(Wan::regions).filter(|other| other != region);
            Plan {
                name: format!("n{}", index + 1),
                region: region.clone(),
                zone: self.zone.clone(),
                store: self.dir.join(format!("n{}", index + 1)),
                listen: addresses[index],
                advertise_from: elsewhere
                    .map(|other| (other.to_owned(), reach(index, other)))
                    .collect(),
                join: (0..addresses.len()).map(|target| reach(target, region)).collect(),
            }
        };
        self.regions.iter().enumerate().map(plan).collect()
    }

    fn node(&self, plan: Plan, port: Port) -> Node {
        let start = Binary {
            path: self.binary.clone(),
            args: start_args(&plan).into_iter().chain(self.flags.iter().cloned()).collect(),
            env: self.env.clone(),
        };
        let log = self.dir.join(format!("{}.log", plan.name));
        Node { plan, start, log, process: Mutex::new(None), _port: port }
    }
}

/// A node, before it is a process.
#[derive(Debug)]
struct Plan {
    name: String,
    region: String,
    zone: String,
    store: PathBuf,
    listen: SocketAddr,
    /// The address to dial from each other region.
    advertise_from: Vec<(String, SocketAddr)>,
    /// Every node's address as seen from this one, its own included.
    join: Vec<SocketAddr>,
}

/// The command line that starts a node: the one place that knows its flags.
fn start_args(plan: &Plan) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["start".into()];
    let mut flag = |name: &str, value: OsString| args.extend([name.into(), value]);
    flag("--region", plan.region.clone().into());
    flag("--zone", plan.zone.clone().into());
    flag("--store", plan.store.clone().into());
    flag("--listen", plan.listen.to_string().into());
    flag("--advertise", plan.listen.to_string().into());
    for (region, address) in &plan.advertise_from {
        flag("--advertise-from", format!("{region}={address}").into());
    }
    let join: Vec<String> = plan.join.iter().map(SocketAddr::to_string).collect();
    flag("--join", join.join(",").into());
    args
}

/// How many nodes a node's answer to `admin status --output json` calls live: those of its array
/// `nodes` whose `live` is true. None: the answer is not of that form.
fn live_nodes(status: &[u8]) -> Option<usize> {
    let status: serde_json::Value = serde_json::from_slice(status).ok()?;
    let nodes = status.get("nodes")?.as_array()?;
    Some(nodes.iter().filter(|node| node.get("live") == Some(&true.into())).count())
}

/// A running cluster. Dropping it kills its nodes and closes its links; stores and logs stay.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    wan: Option<Wan>,
    binary: PathBuf,
    dir: PathBuf,
}

impl Cluster {
    /// The node `index`, counted from 0; its name counts from 1. Panics when there is none.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// Every node.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The links between regions. None: the cluster was built without.
    pub fn wan(&self) -> Option<&Wan> {
        self.wan.as_ref()
    }

    /// Where stores and logs are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The addresses by which a client in `region` reaches every node, in the order of the nodes: its
    /// own region's directly, others through links. Panics when the cluster has links and no node is
    /// in `region`.
    pub fn client_addresses(&self, region: &str) -> Vec<SocketAddr> {
        let address = |index: usize| match &self.wan {
            Some(wan) => wan.address_of(index, region),
            None => self.nodes[index].address(),
        };
        (0..self.nodes.len()).map(address).collect()
    }

    /// Waits until every node answers and sees every node live.
    ///
    /// # Errors
    /// When a node's process has ended, or not all are live within `most`; with what the node in
    /// question said last and the end of its log.
    pub async fn live_within(&self, most: Duration) -> Result<()> {
        self.await_live(Instant::now() + most).await
    }

    async fn init(&self, deadline: Instant) -> Result<()> {
        let first = &self.nodes[0];
        let init = Binary::new(&self.binary).args(["init", "--to", &first.address().to_string()]);
        let output = match timeout_at(deadline, init.command().output()).await {
            Ok(output) => {
                output.with_context(|| format!("cannot run {}", self.binary.display()))?
            }
            Err(_) => return Err(first.explain(anyhow!("init did not end in time"))),
        };
        if !output.status.success() {
            return Err(first.explain(anyhow!("init failed: {}", said(&output))));
        }
        Ok(())
    }

    async fn await_live(&self, deadline: Instant) -> Result<()> {
        for node in &self.nodes {
            loop {
                node.ensure_running().await?;
                let Err(short) = self.all_live_at(node).await else { break };
                if Instant::now() >= deadline {
                    return Err(node.explain(short.context("not every node is live in time")));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Asks a node once whether every node is live.
    async fn all_live_at(&self, node: &Node) -> Result<()> {
        let to = node.address().to_string();
        let status =
            Binary::new(&self.binary).args(["admin", "status", "--to", &to, "--output", "json"]);
        let output = timeout(QUESTION_MAX, status.command().output())
            .await
            .map_err(|_| anyhow!("status did not answer"))??;
        ensure!(output.status.success(), "status failed: {}", said(&output));
        let live = live_nodes(&output.stdout)
            .with_context(|| format!("status is not as expected: {}", said(&output)))?;
        ensure!(live == self.nodes.len(), "{live} of {} nodes are live", self.nodes.len());
        Ok(())
    }
}

/// What a command that ended said, for an error.
fn said(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    format!("{}: {} {}", output.status, stdout.trim(), stderr.trim())
}

/// A node: where it is, and its process, which comes and goes.
#[derive(Debug)]
pub struct Node {
    plan: Plan,
    start: Binary,
    log: PathBuf,
    /// None: not started, or ended and waited for.
    process: Mutex<Option<Process>>,
    /// Kept through its lives, so that it can come back to its address.
    _port: Port,
}

impl Node {
    /// Its name: `n1`, `n2`, …
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Its region.
    pub fn region(&self) -> &str {
        &self.plan.region
    }

    /// The address it listens on, by which its own region reaches it.
    pub fn address(&self) -> SocketAddr {
        self.plan.listen
    }

    /// The directory of its store.
    pub fn store(&self) -> &Path {
        &self.plan.store
    }

    /// The file its output is appended to, over all its lives.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last `lines` lines of its output.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Its pid. None: it is not running.
    pub async fn pid(&self) -> Option<u32> {
        let mut process = self.process.lock().await;
        let process = process.as_mut()?;
        process.exit_status().ok()?.is_none().then(|| process.pid())
    }

    /// Starts it; it need not be listening yet when this returns.
    ///
    /// # Errors
    /// When it is running, or cannot be started.
    pub async fn start(&self) -> Result<()> {
        self.spawn(&self.start).await
    }

    async fn spawn(&self, start: &Binary) -> Result<()> {
        let mut process = self.process.lock().await;
        if let Some(process) = process.as_mut() {
            ensure!(process.exit_status()?.is_some(), "{} is running", self.name());
        }
        *process = Some(Process::spawn(start, &self.log)?);
        Ok(())
    }

    /// Starts it with a variable in its environment, for this life only.
    ///
    /// # Errors
    /// When it is running, or cannot be started.
    pub async fn start_with(&self, name: &str, value: &str) -> Result<()> {
        let mut process = self.process.lock().await;
        if let Some(process) = process.as_mut() {
            ensure!(process.exit_status()?.is_some(), "{} is running", self.name());
        }
        let start = self.start.clone().env(name, value);
        *process = Some(Process::spawn(&start, &self.log)?);
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it is not running, or has not ended within `most`.
    pub async fn ended(&self, most: Duration) -> Result<ExitStatus> {
        let mut slot = self.process.lock().await;
        let Some(process) = slot.as_mut() else { bail!("{} is not running", self.name()) };
        match timeout(most, process.wait()).await {
            Ok(ended) => {
                let ended = ended?;
                *slot = None;
                Ok(ended)
            }
            Err(_) => Err(self.explain(anyhow!("it did not end by itself within {most:?}"))),
        }
    }

    /// Kills it (SIGKILL) and waits until it is gone. Nothing happens to a node that is not running.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub async fn kill9(&self) -> Result<()> {
        if let Some(mut process) = self.process.lock().await.take() {
            process.kill9().await?;
        }
        Ok(())
    }

    /// Stops all of its threads (SIGSTOP), and returns once they have.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn pause(&self) -> Result<()> {
        match self.process.lock().await.as_mut() {
            Some(process) => process.pause().await,
            None => bail!("{} is not running", self.name()),
        }
    }

    /// Lets it go on after a pause (SIGCONT).
    ///
    /// # Errors
    /// When it is not running.
    pub async fn resume(&self) -> Result<()> {
        match self.process.lock().await.as_mut() {
            Some(process) => process.resume(),
            None => bail!("{} is not running", self.name()),
        }
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it is not running, or has not ended within `most`: it is left running then.
    pub async fn terminate(&self, most: Duration) -> Result<ExitStatus> {
        let mut slot = self.process.lock().await;
        let Some(process) = slot.as_mut() else { bail!("{} is not running", self.name()) };
        process.terminate()?;
        match timeout(most, process.wait()).await {
            Ok(ended) => {
                let ended = ended?;
                *slot = None;
                Ok(ended)
            }
            Err(_) => Err(self.explain(anyhow!("it did not end within {most:?} of SIGTERM"))),
        }
    }

    /// Kills it if it is running, starts it again on the same store and address, and waits until it
    /// listens.
    ///
    /// # Errors
    /// When it cannot be started, ends again, or does not listen within `most`.
    pub async fn restart(&self, most: Duration) -> Result<()> {
        self.restart_with(&[], most).await
    }

    /// As [`Node::restart`], with more flags for `start` after all others, in this life only.
    ///
    /// # Errors
    /// As [`Node::restart`].
    pub async fn restart_with(&self, flags: &[&str], most: Duration) -> Result<()> {
        self.kill9().await?;
        self.spawn(&self.start.clone().args(flags)).await?;
        self.await_listening(Instant::now() + most).await
    }

    async fn await_listening(&self, deadline: Instant) -> Result<()> {
        loop {
            self.ensure_running().await?;
            match timeout_at(deadline, TcpStream::connect(self.address())).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(_)) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
                _ => return Err(self.explain(anyhow!("it does not listen in time"))),
            }
        }
    }

    async fn ensure_running(&self) -> Result<()> {
        let ended = match self.process.lock().await.as_mut() {
            Some(process) => process.exit_status()?,
            None => bail!("{} is not running", self.name()),
        };
        match ended {
            Some(status) => Err(self.explain(anyhow!("its process has ended ({status})"))),
            None => Ok(()),
        }
    }

    /// Adds to an error which node it is about, and the end of its log.
    fn explain(&self, error: Error) -> Error {
        let log = self.log.display();
        anyhow!("{}: {error:#}\n{log} ends:\n{}", self.name(), self.log_tail(LOG_LINES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_started_with_its_address_as_every_region_sees_it() {
        let plan = Plan {
            name: "n1".to_owned(),
            region: "eu".to_owned(),
            zone: "a".to_owned(),
            store: "/tmp/n1".into(),
            listen: ([127, 0, 0, 1], 7001).into(),
            advertise_from: vec![
                ("ap".to_owned(), ([127, 0, 0, 1], 8003).into()),
                ("us".to_owned(), ([127, 0, 0, 1], 8002).into()),
            ],
            join: vec![([127, 0, 0, 1], 7001).into(), ([127, 0, 0, 1], 9002).into()],
        };
        let args: Vec<String> =
            start_args(&plan).into_iter().map(|arg| arg.into_string().unwrap()).collect();
        assert_eq!(
            args.join(" "),
            "start --region eu --zone a --store /tmp/n1 --listen 127.0.0.1:7001 \
             --advertise 127.0.0.1:7001 --advertise-from ap=127.0.0.1:8003 \
             --advertise-from us=127.0.0.1:8002 --join 127.0.0.1:7001,127.0.0.1:9002"
        );
    }

    #[test]
    fn only_nodes_said_to_be_live_count_as_live() {
        let status = br#"{"nodes": [{"live": true}, {"live": false}, {"id": 3}, {"live": true}]}"#;
        assert_eq!(live_nodes(status), Some(2));
        assert_eq!(live_nodes(b"{}"), None);
        assert_eq!(live_nodes(b"not initialized"), None);
    }
}

//! Once all is whole and everything is folded, every replica answers local reads as strict ones are answered.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use latitude_client::{Error, Held, Level, Reason, TypedValue, wire};
use latitude_rpc::{FromWire, ToWire};

use super::{KEYSPACE, Shared, others, types};
use crate::cluster::ClientHost;
use crate::violation::Check;

/// How long a read may take, with all its attempts.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Voters that every range has at least.
const REPLICAS_MIN: usize = 3;

impl Shared {
    /// Reads every key strictly, and at every node that has a replica, from its own state.
    pub(super) async fn read_everywhere(&self, host: &ClientHost, nodes: u32) -> Result<()> {
        let registers = (0..self.workload.keys).map(|at| (KEYSPACE, self.workload.key(at)));
        let typed = types::keys().filter(|_| self.workload.typed > 0);
        let others = others::keys().filter(|_| self.workload.typed > 0 && self.workload.others > 0);
        try_join_all(registers.map(|(keyspace, key)| agree(host, nodes, keyspace, key))).await?;
        let typed = typed.map(|(keyspace, key)| async move {
            let held = agree(host, nodes, keyspace, key.clone()).await?;
            self.typed.ends_as(host, &key, &held)
        });
        try_join_all(typed).await?;
        let others = others.map(|(keyspace, key)| async move {
            self.others.ends_as(agree(host, nodes, keyspace, key).await?)
        });
        try_join_all(others).await?;
        Ok(())
    }
}

/// What all replicas of a key hold, at whatever level it is read.
async fn agree(host: &ClientHost, nodes: u32, keyspace: &str, key: String) -> Result<Held> {
    let strict = host.client.keyspace(keyspace).with_timeout(READ_WITHIN);
    let strict = strict.with_level(Level::Strict).get_any(&key).await;
    let unserved = |level: Level, error: &Error| {
        Check::Served.found(format!("{key} of {keyspace} cannot be read {level}: {error}"))
    };
    let strict = strict.map_err(|error| unserved(Level::Strict, &error))?.value;
    let mut replicas = 0;
    for node in 1..=nodes {
        for level in [Level::Causal, Level::Eventual] {
            let read = read_at(host, node, level, keyspace, &key).await;
            let reply = match read {
                Ok(reply) => reply,
                Err(error) if error.reason == Reason::RangeNotHere => break,
                Err(error) => bail!(unserved(level, &error)),
            };
            let Some(wire::reply::Result::Get(got)) = reply.result else {
                bail!(Check::Answers.found(format!("a read of {key} got {:?}", reply.result)))
            };
            let near = Held::from_wire(got).context("a node answers what a client can read")?;
            let unfolded = reply.receipt.is_none_or(|receipt| !receipt.unfolded.is_empty());
            if unfolded || comparable(near.clone()) != comparable(strict.clone()) {
                bail!(Check::Convergence.found(format!(
                    "{key} of {keyspace} is {strict:?} strictly and {near:?} {level} at node {node}; \
                     not folded: {unfolded}"
                )));
            }
        }
        replicas += 1;
    }
    if replicas < REPLICAS_MIN {
        bail!(
            Check::Served.found(format!("{replicas} nodes have a replica of {key} of {keyspace}"))
        );
    }
    Ok(strict)
}

/// Reads a key at one node and at no other.
async fn read_at(
    host: &ClientHost,
    node: u32,
    level: Level,
    keyspace: &str,
    key: &str,
) -> Result<wire::Reply, Error> {
    let get = wire::Get { key: key.as_bytes().to_vec().into() };
    let command = wire::Command {
        keyspace: keyspace.into(),
        level: level.to_wire(),
        timeout_ms: 3_000,
        receipt: wire::ReceiptDetail::Full as i32,
        no_forward: true,
        operation: Some(wire::command::Operation::Get(get)),
        ..wire::Command::default()
    };
    let deadline = host.now() + READ_WITHIN;
    loop {
        match host.send(node, command.clone()).await {
            Err(error)
                if error.is_retryable()
                    && error.reason != Reason::RangeNotHere
                    && host.now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answered => return answered,
        }
    }
}

/// Siblings are in no order, and what names them is made anew by each read.
fn comparable(held: Held) -> Held {
    let value = match held.value {
        TypedValue::Siblings(mut siblings) => {
            siblings.context.clear();
            siblings.values.sort_by_key(|one| one.version);
            TypedValue::Siblings(siblings)
        }
        value => value,
    };
    Held { value, ..held }
}

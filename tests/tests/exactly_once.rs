//! A write whose reply was lost and which is sent again with its id has one effect.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use latitude_client::{NodeId, RangeId, wire as v1};
use latitude_tests::bed::PATIENCE;
use latitude_tests::raw::{self, Ids, Raw};
use latitude_tests::{Bed, eventually};
use v1::command::Operation;

const KEYSPACE: &str = "once";

fn with_id(operation: Operation, id: &v1::OperationId) -> v1::Command {
    v1::Command { id: Some(id.clone()), ..raw::command(KEYSPACE, operation) }
}

/// A write, its id, and another value that came after it.
struct Lost {
    key: &'static str,
    operation: Operation,
    id: v1::OperationId,
    version: Option<v1::Version>,
}

const LATER: &str = "later";

impl Lost {
    /// Sends it again at every node that runs: each answers as the first time, and the later value stays.
    async fn again(&mut self, bed: &Bed, when: &str) -> Result<()> {
        for node in bed.cluster().nodes() {
            if node.pid().await.is_none() {
                continue;
            }
            let raw = Raw::to(node.address())?;
            let what = || format!("{} at {} {when}", self.key, node.name());
            let reply = eventually(&what(), async || {
                Ok(raw.execute(with_id(self.operation.clone(), &self.id)).await?)
            })
            .await?;
            let receipt = reply.receipt.with_context(what)?;
            ensure!(receipt.duplicate() == v1::Duplicate::Yes, "{}: {receipt:?}", what());
            let version = match reply.result {
                Some(v1::reply::Result::Write(done)) => done.version,
                Some(v1::reply::Result::CompareAndSet(done)) => {
                    ensure!(done.applied, "{}: it had found what it expected", what());
                    done.version
                }
                other => anyhow::bail!("{}: {other:?}", what()),
            };
            ensure!(version.is_some(), "{}: no version", what());
            let first = self.version.get_or_insert_with(|| version.clone().unwrap_or_default());
            ensure!(version.as_ref() == Some(first), "{}: {version:?}, not {first:?}", what());
            let found = read(&raw, self.key).await.with_context(what)?;
            ensure!(found.as_deref() == Some(LATER), "{}: {found:?}", what());
        }
        Ok(())
    }
}

async fn read(raw: &Raw, key: &str) -> Result<Option<String>> {
    let reply = raw.execute(raw::command(KEYSPACE, raw::get(key))).await?;
    let Some(v1::reply::Result::Get(found)) = reply.result else { anyhow::bail!("{reply:?}") };
    Ok(found.value.map(|value| String::from_utf8(value.to_vec())).transpose()?)
}

/// Sends a write through a link that carries the request and never the reply; returns once it has taken
/// effect, and somebody else has written over it.
async fn lose(bed: &Bed, ids: &Ids, key: &'static str, operation: Operation) -> Result<Lost> {
    let wan = bed.cluster().wan().context("the cluster has links")?;
    let link = wan.link("eu", 1).context("n2 is not in eu")?;
    // The same node directly, and through the link that will be cut.
    let (near, far) = (Raw::to(bed.cluster().node(1).address())?, Raw::to(link.address())?);
    // The connection stands before its way back is cut.
    let id = ids.next(far.clock().await?);
    link.back().cut();
    let command = with_id(operation.clone(), &id);
    let asked = tokio::spawn(async move { far.execute(command).await });
    eventually("the write whose reply is held has taken effect", async || {
        ensure!(read(&near, key).await?.is_some(), "not yet");
        Ok(())
    })
    .await?;
    link.reset();
    link.back().heal();
    let error = asked.await?.err().context("the reply came through a cut")?;
    ensure!(error.may_have_applied(), "{error:?}");
    near.execute(raw::command(KEYSPACE, raw::put(key, LATER))).await?;
    Ok(Lost { key, operation, id, version: None })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_sent_again_after_its_reply_was_lost_has_one_effect_whoever_leads_meanwhile()
-> Result<()> {
    let bed = Bed::three("once", Duration::from_millis(2)).await?;
    bed.keyspace(KEYSPACE, 1).await?;
    let ids = Ids::new();
    let mut lost = [
        lose(&bed, &ids, "put", raw::put("put", "first")).await?,
        lose(&bed, &ids, "swap", raw::swap("swap", None, "first")).await?,
    ];
    for write in &mut lost {
        write.again(&bed, "while nothing happened").await?;
    }

    let admin = bed.client("eu").admin();
    let range = bed.ranges(KEYSPACE).await?.pop().context("one range")?;
    let to = range.leader % 3 + 1;
    admin.transfer_leader(RangeId(range.range_id), NodeId(to)).await?;
    for write in &mut lost {
        write.again(&bed, "after another leader took over").await?;
    }

    try_join_all(bed.cluster().nodes().iter().map(|node| node.kill9())).await?;
    try_join_all(bed.cluster().nodes().iter().map(|node| node.restart(PATIENCE))).await?;
    bed.live().await?;
    for write in &mut lost {
        write.again(&bed, "after all were killed").await?;
    }

    // The leader dies with a write under way: whether or not it had happened, it happens once.
    let leader = bed.ranges(KEYSPACE).await?.pop().context("one range")?.leader;
    let mut dies = 0;
    for node in 0..3 {
        if bed.number(node).await? == leader {
            dies = node;
        }
    }
    let (dying, other) = (bed.cluster().node(dies), bed.cluster().node((dies + 1) % 3));
    let (last, other) = (Raw::to(dying.address())?, Raw::to(other.address())?);
    let id = ids.next(last.clock().await?);
    let command = with_id(raw::swap("dies", None, "first"), &id);
    let (answer, killed) = tokio::join!(last.execute(command.clone()), dying.kill9());
    killed?;
    let again = eventually("the write is answered without its first leader", async || {
        Ok(other.execute(command.clone()).await?)
    })
    .await?;
    let Some(v1::reply::Result::CompareAndSet(done)) = &again.result else {
        anyhow::bail!("{again:?}")
    };
    ensure!(done.applied, "it found its own effect: {answer:?}, then {again:?}");
    if answer.is_ok() {
        let receipt = again.receipt.context("a full receipt")?;
        ensure!(receipt.duplicate() == v1::Duplicate::Yes, "{receipt:?}");
    }
    for write in &mut lost {
        write.again(&bed, "after the leader died").await?;
    }
    bed.passed();
    Ok(())
}

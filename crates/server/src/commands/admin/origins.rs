//! Who takes local writes, and that a node stops or goes on.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use latitude_client::Client;
use latitude_client::wire::{OriginState, OriginStatus};
use latitude_types::{NodeId, RangeId};

use crate::args::SetOriginArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::render;

/// Of each range what the node says that has applied most of its log; nodes that do not answer are named.
pub(super) async fn list(
    client: &Client,
    keyspace: &str,
    output: &mut Output<'_>,
) -> Result<Vec<OriginStatus>, Failure> {
    let mut ranges: BTreeMap<u64, Vec<OriginStatus>> = BTreeMap::new();
    let (mut heard, mut last) = (false, None);
    for node in client.admin().nodes().await? {
        match client.origins_at(&node.address, keyspace).await {
            Ok(reply) => {
                heard = true;
                let mut of_node: BTreeMap<u64, Vec<OriginStatus>> = BTreeMap::new();
                for origin in reply.origins {
                    of_node.entry(origin.range_id).or_default().push(origin);
                }
                for (range, origins) in of_node {
                    let known = ranges.entry(range).or_default();
                    if applied(&origins) > applied(known) {
                        *known = origins;
                    }
                }
            }
            Err(error) => {
                output.error_line(&format!("{} cannot be asked: {error}", NodeId(node.node)))?;
                last = Some(error);
            }
        }
    }
    match last.filter(|_| !heard) {
        Some(error) => Err(error.into()),
        None => Ok(ranges.into_values().flatten().collect()),
    }
}

/// How far whoever says this has applied the range's log.
fn applied(origins: &[OriginStatus]) -> Option<u64> {
    origins.iter().map(|origin| origin.applied_index).max()
}

/// Has a node sealed, or admitted again, in all ranges that were asked for at once; each is printed as it is done.
pub(super) async fn set(
    client: &Client,
    wanted: OriginState,
    args: SetOriginArgs,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let SetOriginArgs { node, range, keyspace, wait } = args;
    let ranges: Vec<RangeId> = match range {
        Some(range) => vec![range],
        None => {
            let listed = list(client, &keyspace.unwrap_or_default(), output).await?;
            let of_node = listed.into_iter().filter(|origin| NodeId(origin.node) == node);
            of_node.map(|origin| RangeId(origin.range_id)).collect()
        }
    };
    if ranges.is_empty() {
        let message = format!("{node} takes no local writes there, and never did");
        return Err(Failure::Usage(message));
    }
    let admin = client.admin();
    let one = |range| {
        let admin = &admin;
        async move {
            let set = match wanted {
                OriginState::Sealed => admin.seal(range, node, wait).await,
                _ => admin.admit(range, node, wait).await,
            };
            set.map_err(|error| (range, error))
        }
    };
    let mut under_way: FuturesUnordered<_> = ranges.into_iter().map(one).collect();
    let mut exit = Exit::Success;
    while let Some(set) = under_way.next().await {
        match (set, output.format()) {
            (Ok(origin), Format::Text) => output.line(&render::origin_line(&origin))?,
            (Ok(origin), Format::Json) => output.json(&render::origin_json(&origin))?,
            (Err((range, error)), _) => {
                output.error_line(&format!("{range}: {error}"))?;
                exit = Exit::of(&error);
            }
        }
    }
    Ok(exit)
}

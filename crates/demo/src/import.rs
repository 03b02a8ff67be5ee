//! The zones go in: one key each, in batches.

use anyhow::{Result, ensure};
use futures::{StreamExt, stream};
use latitude_client::{Level, Operation};

use crate::ledger::{Fate, Write};
use crate::world::World;
use crate::zones::Zone;

/// Operations of a batch.
const BATCH: usize = 26;

/// Batches under way at a time.
const BATCHES: usize = 4;

/// Writes every zone from a site, and tells how many are done after each batch.
pub(crate) async fn import(
    world: &World,
    site: usize,
    zones: &[Zone],
    mut progress: impl FnMut(usize) -> std::io::Result<()>,
) -> Result<Vec<Write>> {
    let level = Level::Strict;
    let keyspace = world.sites[site].keyspace(level);
    let mut batches = stream::iter(zones.chunks(BATCH))
        .map(|zones| {
            let put = |zone: &Zone| Operation::put(&zone.name, zone.description.clone());
            let operations = zones.iter().map(put).collect();
            let keyspace = &keyspace;
            async move { (zones, keyspace.batch(operations).await) }
        })
        .buffer_unordered(BATCHES);
    let mut writes = Vec::with_capacity(zones.len());
    while let Some((zones, results)) = batches.next().await {
        for (zone, result) in zones.iter().zip(results) {
            let (key, value) = (zone.name.clone(), zone.description.clone());
            let write = Write::new(key, value, level, site, &result);
            ensure!(
                write.fate == Fate::Acknowledged,
                "{} was not imported: {}",
                zone.name,
                result.map_or_else(|error| error.to_string(), |_| String::new())
            );
            writes.push(write);
        }
        progress(writes.len())?;
    }
    Ok(writes)
}

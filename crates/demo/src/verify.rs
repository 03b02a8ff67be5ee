//! Every write is looked for, by a client of another region than the one that made it.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use latitude_client::Level;
use tokio::time::{Instant, sleep};

use crate::ledger::Write;
use crate::world::World;

/// Reads under way at a time.
const READS: usize = 96;

/// How long a write that did not go through the log may take until a strict read finds it.
const LATE_MAX: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(200);

/// Reads every write at the level strict. Returns a line for each that is not as its client was told.
pub(crate) async fn verify(
    world: &World,
    ledger: &[Write],
    mut progress: impl FnMut(usize) -> std::io::Result<()>,
) -> Result<Vec<String>> {
    let began = Instant::now();
    let mut reads = stream::iter(ledger)
        .map(|write| differs(world, write, began + LATE_MAX))
        .buffer_unordered(READS);
    let mut differences = Vec::new();
    let mut done = 0;
    while let Some(difference) = reads.next().await {
        differences.extend(difference?);
        done += 1;
        progress(done)?;
    }
    differences.sort();
    Ok(differences)
}

async fn differs(world: &World, write: &Write, late: Instant) -> Result<Option<String>> {
    let reader = &world.sites[(write.site + 1) % world.sites.len()];
    let keyspace = reader.keyspace(Level::Strict);
    loop {
        let answer = keyspace.get(&write.key).await;
        let answer = answer
            .with_context(|| format!("{} cannot be read from {}", write.key, reader.region))?;
        let found = answer.value.as_ref().map(|value| &value.bytes[..]);
        if write.fits(found) {
            return Ok(None);
        }
        if write.may_appear_late() && found.is_none() && Instant::now() < late {
            sleep(POLL).await;
            continue;
        }
        let found = found.map_or("nothing".into(), String::from_utf8_lossy);
        return Ok(Some(format!(
            "{}: a {} write of {:?} from {}, {:?}, and {} reads {found:?}",
            write.key,
            write.level,
            write.value,
            world.sites[write.site].region,
            write.fate,
            reader.region,
        )));
    }
}

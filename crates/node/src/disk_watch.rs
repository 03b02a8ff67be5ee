//! Refuses writes while the disk is nearly full, so that what must be written still can be.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::shared::Shared;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches the free space for as long as the node runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    let floor = shared.config.limits.free_space_floor;
    loop {
        match shared.engine.free_space() {
            Ok(free) => {
                shared.disk_full.send_if_modified(|full| {
                    // Back only with an eighth more than the floor, so that it does not flutter.
                    let now_full = if *full { free < floor + floor / 8 } else { free < floor };
                    let changed = now_full != *full;
                    *full = now_full;
                    if changed {
                        tracing::warn!(free, floor, refused = now_full, "writes and free space");
                    }
                    changed
                });
            }
            Err(error) => tracing::warn!(%error, "the free space cannot be read"),
        }
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

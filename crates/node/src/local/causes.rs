//! Whether what a past follows is here: the causes of a delta before it is shown, of a session before it reads or
//! writes.

use std::cell::OnceCell;
use std::sync::Arc;

use latitude_consistency::{Demand, closed_up_to, demand};
use latitude_directory::Directory;
use latitude_types::{Past, RangeId, Stamp};

use crate::range_handle::RangeHandle;
use crate::shared::Shared;

/// The replicas here that do not have yet what `past` follows of the logs.
pub(crate) fn unmet_logs(shared: &Shared, past: &Past) -> Vec<RangeHandle> {
    if past.log.is_empty() && past.log_floor == Stamp::ZERO {
        return Vec::new();
    }
    Logs::here(shared).unmet(past).collect()
}

/// The logs of the replicas here, for questions about many pasts.
struct Logs<'a> {
    shared: &'a Shared,
    directory: Arc<Directory>,
    /// Looked up once the first past asks for all of them.
    all: OnceCell<Vec<RangeHandle>>,
}

impl<'a> Logs<'a> {
    fn here(shared: &'a Shared) -> Self {
        Self { shared, directory: shared.catalog.current(), all: OnceCell::new() }
    }

    fn are_met(&self, past: &Past) -> bool {
        self.unmet(past).next().is_none()
    }

    fn unmet<'b>(&'b self, past: &'b Past) -> Box<dyn Iterator<Item = RangeHandle> + 'b> {
        let (shared, directory): (&Shared, &'b Directory) = (self.shared, &self.directory);
        let known =
            move |range: RangeId| directory.range(range).map(|record| (record.epoch, &record.span));
        let is_known = |(range, epoch)| known(range).is_some_and(|(known, _)| known >= epoch);
        // Ranges that are known as they were met share no keys with others: each entry is its own range's affair.
        let exact = past.log_floor == Stamp::ZERO
            && past.log.iter().all(|(range, epoch, _)| is_known((*range, *epoch)));
        if exact {
            let here = past
                .log
                .iter()
                .filter_map(move |(range, _, stamp)| Some((shared.range(*range)?, *stamp)));
            let unmet = here.filter(|(handle, stamp)| {
                !has_logs(handle, Demand { own: *stamp, floor: Stamp::ZERO })
            });
            return Box::new(unmet.map(|(handle, _)| handle));
        }
        let all = self.all.get_or_init(|| shared.all_ranges()).iter();
        let unmet = all.filter(move |handle| {
            !has_logs(handle, demand(past, handle.id(), &handle.record.span, known))
        });
        Box::new(unmet.cloned())
    }
}

/// The replicas here that do not have yet what an earlier life of this node has told of their logs, so that no past need say
/// it.
pub(crate) fn behind_told(shared: &Shared) -> Vec<RangeHandle> {
    let told = shared.local().logs_told().into_iter();
    let told = told.filter_map(|(range, told)| Some((shared.range(range)?, told)));
    told.filter(|(handle, told)| !has_logs(handle, Demand { own: *told, floor: Stamp::ZERO }))
        .map(|(handle, _)| handle)
        .collect()
}

/// Whether a replica has what is demanded of its log and knows that nothing else can come below.
pub(crate) fn has_logs(handle: &RangeHandle, Demand { own, floor }: Demand) -> bool {
    let needed = own.max(floor);
    let (at, applied) = handle.group.applied_position();
    if needed <= applied {
        return true;
    }
    let closed = handle.closing.reached(at);
    let met = needed <= closed_up_to(applied, closed);
    if met && let Some(closed) = closed {
        handle.group.rely_on_closed(closed.time);
    }
    met
}

impl Shared {
    /// Shows the deltas of others whose causes are met by now.
    pub(crate) fn show_what_may_be(&self) {
        if !behind_told(self).is_empty() {
            return;
        }
        let logs = Logs::here(self);
        self.local().advance(|past| logs.are_met(past));
    }
}

/// Follows what happens to a replica's base: what is folded leaves the overlay, and may let others be shown.
/// [`Local::open_range`](super::Local::open_range) was called before anybody could ask the replica.
pub(crate) async fn follow_base(shared: Arc<Shared>, handle: RangeHandle) {
    let mut origins = handle.group.origins();
    // What an earlier life held, which nothing else may announce: the others may be out of reach.
    shared.show_what_may_be();
    loop {
        let next = handle.group.applied_position().0.index + 1;
        tokio::select! {
            changed = origins.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = Arc::clone(&origins.borrow_and_update());
                shared.local().folded(handle.id(), &now);
                shared.show_what_may_be();
            }
            applied = handle.group.applied(next) => {
                if applied.is_err() {
                    return;
                }
                if shared.local().is_blocked() {
                    shared.show_what_may_be();
                }
            }
        }
    }
}

/// Asks for what keeps deltas from being shown, for as long as the node runs: closed times that no entry brings.
pub(crate) async fn keep(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let blocked = shared.local().blocked();
        if blocked.is_empty() {
            continue;
        }
        let logs = Logs::here(&shared);
        let unmet = blocked.iter().flat_map(|past| logs.unmet(past));
        unmet.chain(behind_told(&shared)).for_each(|handle| handle.closing.nudge());
        shared.show_what_may_be();
    }
}

/// How often a node looks whether a delta that waits for a closed time may be shown.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(50);

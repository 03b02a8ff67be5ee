//! Seeds from one seed.

use std::future;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The seed of one user of randomness, named by what it is: adding another changes none.
pub(crate) fn derive(seed: u64, name: &str) -> u64 {
    xxh3_64_with_seed(name.as_bytes(), seed)
}

/// Tokio keeps a runtime's tasks in this many lists or fewer, by the number of the task, and ends them list by
/// list.
const TASK_LISTS_MAX: u64 = 64;

/// Makes the order in which a crash ends a host's tasks a function of the run, and not of what ran in this
/// process before: tokio counts tasks through the whole process.
///
/// HAZARD: another runtime that spawns tasks on another thread meanwhile undoes this. A run that is to be
/// repeated must be alone in its process.
pub(crate) fn align_task_ids() {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime without I/O takes nothing of the system");
    loop {
        let task = runtime.spawn(future::ready(()));
        let id = task.id().to_string().parse::<u64>();
        if id.expect("a task's name is its number").is_multiple_of(TASK_LISTS_MAX) {
            break;
        }
    }
}

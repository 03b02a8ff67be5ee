//! What happened, as one number.

use std::sync::{Arc, Mutex};

use xxhash_rust::xxh3::Xxh3;

/// A running hash over everything a simulation does that others can see. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Trace {
    state: Arc<Mutex<(Xxh3, u64)>>,
}

impl Trace {
    /// Adds an event: when, who, what.
    pub(crate) fn add(&self, at_us: u64, who: &str, what: &[u8]) {
        let mut state = self.state.lock().expect("nothing panics while it holds the trace");
        state.0.update(&at_us.to_le_bytes());
        state.0.update(who.as_bytes());
        state.0.update(what);
        state.1 += 1;
    }

    /// The hash so far, and how many events are in it.
    pub fn digest(&self) -> (u64, u64) {
        let state = self.state.lock().expect("nothing panics while it holds the trace");
        (state.0.digest(), state.1)
    }
}

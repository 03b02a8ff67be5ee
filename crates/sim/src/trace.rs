//! What happened, as a fingerprint: two runs are the same if theirs are.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use std::{fmt, io};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::clock::SimClock;

/// What kind of thing happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A connection was asked for.
    Dialled,
    /// A connection was taken.
    Accepted,
    /// Bytes were given to the network.
    Sent,
    /// A batch was written to a store.
    Wrote,
    /// A store was synced.
    Synced,
    /// A fault was made or healed.
    Fault,
    /// A client did something, or was told something.
    Client,
}

#[derive(Clone, PartialEq, Eq)]
struct Event {
    at_us: u64,
    kind: Kind,
    from: Arc<str>,
    to: Arc<str>,
    len: usize,
    hash: u64,
    /// What it was, where a person can read it.
    text: Option<Arc<str>>,
}

/// What happened so far. Clones are the same trace.
#[derive(Clone)]
pub struct Trace {
    clock: SimClock,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    digest: Xxh3,
    events: Vec<Event>,
}

impl Trace {
    pub(crate) fn new(clock: SimClock) -> Self {
        Self { clock, inner: Arc::default() }
    }

    pub(crate) fn note(&self, kind: Kind, from: &Arc<str>, to: &Arc<str>, what: &[u8]) {
        self.push(kind, from, to, what, None);
    }

    /// Notes what a person can read.
    pub(crate) fn say(&self, kind: Kind, from: &Arc<str>, to: &Arc<str>, what: &str) {
        self.push(kind, from, to, what.as_bytes(), Some(what.into()));
    }

    fn push(
        &self,
        kind: Kind,
        from: &Arc<str>,
        to: &Arc<str>,
        what: &[u8],
        text: Option<Arc<str>>,
    ) {
        let (from, to) = (Arc::clone(from), Arc::clone(to));
        let event = Event {
            at_us: self.clock.elapsed_us(),
            kind,
            from,
            to,
            len: what.len(),
            hash: xxh3_64(what),
            text,
        };
        let mut inner = self.lock();
        inner.digest.update(&event.at_us.to_le_bytes());
        inner.digest.update(&[event.kind as u8]);
        for name in [&event.from, &event.to] {
            inner.digest.update(name.as_bytes());
            inner.digest.update(&[0]);
        }
        inner.digest.update(&event.hash.to_le_bytes());
        inner.events.push(event);
    }

    /// The fingerprint of everything so far, in its order.
    pub fn hash(&self) -> u64 {
        self.lock().digest.digest()
    }

    /// How long the run has lasted, in simulated time.
    pub fn lasted(&self) -> Duration {
        Duration::from_micros(self.clock.elapsed_us())
    }

    /// How many things happened.
    pub fn len(&self) -> usize {
        self.lock().events.len()
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes all events, one a line, as a person reads them: bytes as their number and hash.
    pub fn write(&self, mut output: impl io::Write) -> io::Result<()> {
        self.lock().events.iter().try_for_each(|event| writeln!(output, "{event}"))
    }

    /// The first event in which two runs differ, as each has it, after the few before it; `None` if they
    /// are the same. This is where to look for what is not a function of the seed.
    pub fn first_difference(&self, other: &Self) -> Option<String> {
        // One lock after the other: the two may be the same trace.
        let ours = self.lock().events.clone();
        let theirs = other.lock().events.clone();
        let same = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
        if same == ours.len() && same == theirs.len() {
            return None;
        }
        let show = |event: Option<&Event>| event.map_or("nothing".into(), ToString::to_string);
        let mut text = format!("the first {same} events are the same; the last of them:\n");
        for event in &ours[same.saturating_sub(5)..same] {
            text.push_str(&format!("    {event}\n"));
        }
        text.push_str(&format!("  one: {}\n", show(ours.get(same))));
        text.push_str(&format!("other: {}", show(theirs.get(same))));
        Some(text)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the trace")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_us, kind, from, to, len, hash, text } = self;
        write!(f, "{at_us:>10} us {kind:?} {from} -> {to}: ")?;
        match text {
            Some(text) => f.write_str(text),
            None => write!(f, "{len} bytes, {hash:016x}"),
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("events", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(events: &[(&str, &str, &[u8])]) -> Trace {
        let trace = Trace::new(SimClock::default());
        for (from, to, bytes) in events {
            trace.note(Kind::Sent, &(*from).into(), &(*to).into(), bytes);
        }
        trace
    }

    #[test]
    fn the_same_events_have_the_same_hash_and_others_or_another_order_do_not() {
        let run = trace(&[("a", "b", b"1"), ("b", "a", b"2")]);
        assert_eq!(run.hash(), trace(&[("a", "b", b"1"), ("b", "a", b"2")]).hash());
        assert_ne!(run.hash(), trace(&[("b", "a", b"2"), ("a", "b", b"1")]).hash());
        assert_ne!(run.hash(), trace(&[("a", "b", b"1"), ("b", "a", b"3")]).hash());
        assert_ne!(run.hash(), trace(&[("a", "b", b"1"), ("ba", "", b"2")]).hash());
    }

    #[test]
    fn what_can_be_read_is_written_out_and_counts_as_its_bytes_do() {
        let said = Trace::new(SimClock::default());
        said.say(Kind::Sent, &"a".into(), &"b".into(), "hello");
        assert_eq!(said.hash(), trace(&[("a", "b", b"hello")]).hash());
        let mut text = Vec::new();
        said.write(&mut text).unwrap();
        assert_eq!(String::from_utf8_lossy(&text), "         0 us Sent a -> b: hello\n");
    }

    #[test]
    fn the_first_difference_is_named() {
        let run = trace(&[("a", "b", b"1"), ("b", "a", b"2")]);
        assert_eq!(run.first_difference(&run), None);
        let shorter = trace(&[("a", "b", b"1")]);
        let difference = run.first_difference(&shorter).unwrap();
        assert!(difference.contains("the first 1 events are the same"), "{difference}");
        assert!(difference.contains("other: nothing"), "{difference}");
    }
}

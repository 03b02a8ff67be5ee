//! What is wrong with the ways between hosts: cut, held back, slow, and which connections can be reset.
//!
//! Faults overlap, so everything is counted: a way is whole again when the last fault that cut it is over.
//!
//! | fault | what is sent meanwhile |
//! | --- | --- |
//! | cut (one way) | is lost, and its connection is of no more use: nothing is sent again |
//! | hold (both ways) | arrives when the last hold is over, all at once |
//! | delay (one way) | arrives so much later, in its order |
//! | reset | the connection breaks at one end; the other end gets what was under way, then hears of it |
//!
//! While a link is held, cuts wait: what is sent is kept, and a cut that is still there at the end swallows it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A host's name.
pub(crate) type Host = Arc<str>;
/// From one host to another.
pub(crate) type Way = (Host, Host);

/// The ways between all hosts of a cluster. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// How many faults cut a way.
    cuts: BTreeMap<Way, u32>,
    /// How many hold a link, by its ends in order.
    holds: BTreeMap<Way, u32>,
    /// How much longer what is sent is on its way, by all faults together.
    delays: BTreeMap<Way, Duration>,
    /// Open connections, by the end that holds this and the other.
    connections: BTreeMap<Way, Vec<Weak<Breaker>>>,
}

impl Links {
    /// Counts one more cut. Whether it is the first.
    pub(crate) fn cut(&self, from: &Host, to: &Host) -> bool {
        count(&mut self.lock().cuts, (Arc::clone(from), Arc::clone(to)))
    }

    /// Counts one cut less. Whether it was the last.
    pub(crate) fn mend(&self, from: &Host, to: &Host) -> bool {
        discount(&mut self.lock().cuts, &(Arc::clone(from), Arc::clone(to)))
    }

    /// Forgets every cut; returns the ways that had one.
    pub(crate) fn mend_all(&self) -> Vec<Way> {
        std::mem::take(&mut self.lock().cuts).into_keys().collect()
    }

    /// Counts one more hold. Whether it is the first.
    pub(crate) fn hold(&self, a: &Host, b: &Host) -> bool {
        count(&mut self.lock().holds, link(a, b))
    }

    /// Counts one hold less. Whether it was the last.
    pub(crate) fn release(&self, a: &Host, b: &Host) -> bool {
        discount(&mut self.lock().holds, &link(a, b))
    }

    /// Forgets every hold; returns the links that had one.
    pub(crate) fn release_all(&self) -> Vec<Way> {
        std::mem::take(&mut self.lock().holds).into_keys().collect()
    }

    /// Makes everything sent from one to the other arrive that much later still.
    pub(crate) fn delay(&self, from: &Host, to: &Host, more: Duration) {
        *self.lock().delays.entry((Arc::clone(from), Arc::clone(to))).or_default() += more;
    }

    /// Takes back that much of the delay.
    pub(crate) fn hasten(&self, from: &Host, to: &Host, less: Duration) {
        let (mut state, way) = (self.lock(), (Arc::clone(from), Arc::clone(to)));
        if let Some(delay) = state.delays.get_mut(&way) {
            *delay = delay.saturating_sub(less);
            if delay.is_zero() {
                state.delays.remove(&way);
            }
        }
    }

    /// Forgets every delay; whether there was one.
    pub(crate) fn hasten_all(&self) -> bool {
        !std::mem::take(&mut self.lock().delays).is_empty()
    }

    /// How much later than it should what is sent on this way arrives.
    pub(crate) fn delay_of(&self, way: &Way) -> Duration {
        self.lock().delays.get(way).copied().unwrap_or_default()
    }

    /// Whether nothing gets from one to the other.
    pub(crate) fn is_cut(&self, from: &str, to: &str) -> bool {
        self.lock().cuts.keys().any(|(cut_from, cut_to)| (&**cut_from, &**cut_to) == (from, to))
    }

    pub(crate) fn is_held(&self, a: &Host, b: &Host) -> bool {
        self.lock().holds.contains_key(&link(a, b))
    }

    /// A connection was made; `host` holds this end of it.
    pub(crate) fn connected(&self, host: &Host, peer: &Host) -> Arc<Breaker> {
        let breaker = Arc::new(Breaker::default());
        let way = (Arc::clone(host), Arc::clone(peer));
        let mut state = self.lock();
        let open = state.connections.entry(way).or_default();
        open.retain(|breaker| breaker.strong_count() > 0);
        open.push(Arc::downgrade(&breaker));
        breaker
    }

    /// Breaks the end at `host` of all its connections to `peer`. Returns how many there were.
    pub(crate) fn reset(&self, host: &Host, peer: &Host) -> usize {
        let broken = self.lock().connections.remove(&(Arc::clone(host), Arc::clone(peer)));
        let broken = broken.into_iter().flatten().filter_map(|breaker| breaker.upgrade());
        broken.map(|breaker| breaker.trip()).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the links")
    }
}

fn link(a: &Host, b: &Host) -> Way {
    let (a, b) = if a <= b { (a, b) } else { (b, a) };
    (Arc::clone(a), Arc::clone(b))
}

/// One more; whether it is the first.
fn count(counts: &mut BTreeMap<Way, u32>, way: Way) -> bool {
    let count = counts.entry(way).or_default();
    *count += 1;
    *count == 1
}

/// One less; whether it was the last.
fn discount(counts: &mut BTreeMap<Way, u32>, way: &Way) -> bool {
    match counts.get_mut(way) {
        Some(count) if *count > 1 => {
            *count -= 1;
            false
        }
        Some(_) => counts.remove(way).is_some(),
        None => false,
    }
}

/// One end of a connection, as seen by whoever wants to break it.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    broken: AtomicBool,
    /// Who waits to read, and who to write.
    waiting: Mutex<[Option<Waker>; 2]>,
}

/// Which half of a connection.
#[derive(Clone, Copy)]
pub(crate) enum Half {
    Read = 0,
    Write = 1,
}

impl Breaker {
    fn trip(&self) {
        self.broken.store(true, Ordering::Relaxed);
        let mut waiting = self.waiting.lock().expect("nothing panics while it holds the wakers");
        waiting.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }

    /// Passes a poll on unless the connection is broken.
    pub(crate) fn guard<T>(
        &self,
        half: Half,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.broken.load(Ordering::Relaxed) {
            let reset = io::Error::new(io::ErrorKind::ConnectionReset, "the connection was reset");
            return Poll::Ready(Err(reset));
        }
        let polled = poll(cx);
        if polled.is_pending() {
            let mut waiting =
                self.waiting.lock().expect("nothing panics while it holds the wakers");
            waiting[half as usize] = Some(cx.waker().clone());
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_whole_again_when_the_last_cut_is_mended() {
        let (links, a, b): (_, Host, Host) = (Links::default(), "a".into(), "b".into());
        assert!(links.cut(&a, &b));
        assert!(!links.cut(&a, &b));
        assert!(links.is_cut("a", "b") && !links.is_cut("b", "a"));
        assert!(!links.mend(&a, &b));
        assert!(links.is_cut("a", "b"));
        assert!(links.mend(&a, &b));
        assert!(!links.is_cut("a", "b"));
        assert!(!links.mend(&a, &b), "it was whole");
    }

    #[test]
    fn a_hold_is_of_the_link_whichever_end_is_named_first() {
        let (links, a, b): (_, Host, Host) = (Links::default(), "a".into(), "b".into());
        assert!(links.hold(&a, &b));
        assert!(!links.hold(&b, &a));
        assert!(links.is_held(&b, &a));
        assert!(!links.release(&a, &b));
        assert_eq!(links.release_all(), [(a, b)]);
    }

    #[test]
    fn delays_of_one_way_add_up_and_are_taken_back_one_by_one() {
        let (links, a, b): (_, Host, Host) = (Links::default(), "a".into(), "b".into());
        let (ms, way) = (Duration::from_millis, (Arc::clone(&a), Arc::clone(&b)));
        links.delay(&a, &b, ms(30));
        links.delay(&a, &b, ms(500));
        assert_eq!(links.delay_of(&way), ms(530));
        assert_eq!(links.delay_of(&(Arc::clone(&b), Arc::clone(&a))), ms(0));
        links.hasten(&a, &b, ms(30));
        assert_eq!(links.delay_of(&way), ms(500));
        assert!(links.hasten_all() && !links.hasten_all());
        links.hasten(&a, &b, ms(500));
        assert_eq!(links.delay_of(&way), ms(0), "it was taken back already");
    }

    #[test]
    fn a_reset_breaks_this_end_and_wakes_whoever_waits_there() {
        let (links, a, b): (_, Host, Host) = (Links::default(), "a".into(), "b".into());
        let here = links.connected(&a, &b);
        let there = links.connected(&b, &a);
        let pending = |breaker: &Breaker| {
            let mut cx = Context::from_waker(Waker::noop());
            breaker.guard::<()>(Half::Read, &mut cx, |_| Poll::Pending).is_pending()
        };
        assert!(pending(&here) && pending(&there));
        assert_eq!(links.reset(&a, &b), 1);
        assert!(!pending(&here) && pending(&there));
        assert_eq!(links.reset(&a, &b), 0);
    }
}

//! Does every session see what it did and saw before?
//!
//! Four guarantees, each a part of causal consistency and each checked by itself, on registers whose values are
//! written once. `→` is the order within sessions, tokens included.
//!
//! ```text
//!   read your writes        w x 2 → r x 1 !          1 → 2: older than the session's own write
//!   monotonic reads         r x 2 → r x 1 !          1 → 2: older than what it saw before
//!   monotonic writes        r y 3 → r x 1 !          1 → 2 → 3: it saw the later write, not the earlier one
//!   writes follow reads     r z 4 → r x 1 !          4's session had seen 3 before, and 1 → 2 → 3
//! ```
//!
//! So a read has to show some writes of its key ([`Guarantee`] says which), or one that replaced them. Two
//! tests that it did not:
//! - *by values*: what it saw is certainly older: its writer's session wrote (`→`) what had to be shown later.
//!   Absence is the initial state or any delete of the key, and is wrong if all of these are older;
//! - *by versions*, where replies carry them: the version of the read is below that of a write it has to show.
//!   The version of a write, too, must be above those of the writes of its key that its session did or saw
//!   before (monotonic writes, writes follow reads).
//!
//! What counts: eventual reads are outside. To have seen an eventual write demands nothing more (it carries no
//! past); it is demanded of its own session. Strict and sequential reads see the log alone, and need not show
//! what their session merely saw of local writes. Unknown writes are demanded of nobody, but whoever saw one has
//! seen what its session did before. Failed writes and values from thin air are the causal judge's.
//!
//! Cheaper than [`causal`](crate::causal), and it says by name what is broken; but it looks one session further at
//! most, so a history that keeps all four may still not be causal.
//!
//! HAZARD: versions are compared per key only, and must be those of the values.
//!
//! Sources: Terry and others, "Session guarantees for weakly consistent replicated data" (1994).

#[cfg(test)]
mod definition;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::history::{Operation, Outcome, Version};
use crate::known::Known;
use crate::linearizable::register::{Action, State, action, show};
use crate::promise::{Broken, Doubt, Report};
use crate::session_order::{Clock, Place};
use crate::{Cited, History, Level, Violation};

/// What a session may rely on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Guarantee {
    /// A read shows its session's own writes.
    ReadYourWrites,
    /// A read shows what its session saw before.
    MonotonicReads,
    /// Whoever saw a write is shown what its session wrote before.
    MonotonicWrites,
    /// Whoever saw a write is shown what its session had seen before.
    WritesFollowReads,
}

/// Judges every session of a history; operations that name no level are causal.
pub fn check(history: &History) -> Report {
    check_operations(&history.operations(), Level::Causal)
}

/// As [`check`], for the operations of one history in the order of their invocations; those that name no
/// level are `unnamed`. O(n × sessions), and as much memory for the writes that somebody saw.
pub fn check_operations(operations: &[Operation], unnamed: Level) -> Report {
    Report::new(operations, judge(operations, unnamed))
}

fn judge(operations: &[Operation], unnamed: Level) -> Result<(), Broken> {
    let known = Known::new(operations, unnamed)?;
    let mut sessions = Sessions::new(&known)?;
    sessions.find_pasts();
    sessions.judge().map_or(Ok(()), |violation| Err(violation.into()))
}

/// What a session did and saw, at some point.
#[derive(Clone, Debug)]
struct Past {
    /// What it did.
    own: Clock,
    /// The writes it saw, and what their sessions did before.
    seen: Clock,
    /// What the sessions of those writes had seen before.
    followed: Clock,
}

/// A write on its chain.
#[derive(Clone, Copy, Debug)]
struct Entry {
    write: usize,
    at: u32,
    /// The write up to here whose version is the largest, if any shows one.
    newest: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Writes {
    by_chain: BTreeMap<usize, Vec<Entry>>,
    log_by_chain: BTreeMap<usize, Vec<Entry>>,
    deletes: Vec<usize>,
}

struct Sessions<'k, 'a> {
    known: &'k Known<'a>,
    operations: &'a [Operation],
    /// What happened, to which key.
    actions: Vec<Option<Action>>,
    keys: Vec<usize>,
    /// By key.
    writes: Vec<Writes>,
    /// Of a read that promises something: the write it saw, if that is one only.
    sources: Vec<Option<usize>>,
    /// Of writes that somebody saw or that had to be shown: what their session did before, and saw.
    pasts: Vec<Option<(Clock, Clock)>>,
}

impl<'k, 'a> Sessions<'k, 'a> {
    fn new(known: &'k Known<'a>) -> Result<Self, Broken> {
        let operations = known.operations;
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut writers: HashMap<(usize, i64), usize> = HashMap::new();
        let (mut actions, mut keys, mut writes) = (Vec::new(), Vec::new(), Vec::<Writes>::new());
        for (at, operation) in operations.iter().enumerate() {
            let does = action(operation).ok_or_else(|| Doubt::of_type(operation))?;
            let next = numbers.len();
            let key = *numbers.entry(operation.micro_ops[0].key()).or_insert(next);
            writes.resize_with(numbers.len(), Writes::default);
            let happened = match operation.outcome {
                Outcome::Ok => true,
                Outcome::Fail | Outcome::Mismatch => false,
                Outcome::Info | Outcome::Pending => does.leaves().is_some(),
            };
            actions.push(happened.then_some(does));
            keys.push(key);
            match does.leaves().filter(|_| happened) {
                Some(Some(value)) => {
                    if let Some(other) = writers.insert((key, value), at) {
                        let lines = (operations[other].invoke_line, operation.invoke_line);
                        let key = operation.micro_ops[0].key().to_owned();
                        return Err(Doubt::WrittenTwice { key, lines }.into());
                    }
                }
                Some(None) => writes[key].deletes.push(at),
                None => continue,
            }
            if let Some(Place { chain, at: place }) = known.order.places[at] {
                let push = |by_chain: &mut BTreeMap<usize, Vec<Entry>>| {
                    let entries = by_chain.entry(chain).or_default();
                    let before = entries.last().and_then(|entry| entry.newest);
                    let version = |at: Option<usize>| {
                        at.and_then(|at| operations[at].extras.version.as_ref())
                    };
                    let newest =
                        if version(Some(at)) > version(before) { Some(at) } else { before };
                    entries.push(Entry { write: at, at: place, newest });
                };
                push(&mut writes[key].by_chain);
                if known.levels[at].is_log() {
                    push(&mut writes[key].log_by_chain);
                }
            }
        }
        let source = |at: usize| {
            let found: State = actions[at].and_then(|action: Action| action.finds())?;
            let certain = operations[at].outcome == Outcome::Ok;
            let promises = known.levels[at] != Level::Eventual;
            writers.get(&(keys[at], found?)).copied().filter(|_| certain && promises)
        };
        let sources: Vec<Option<usize>> = (0..operations.len()).map(source).collect();
        let pasts = vec![None; operations.len()];
        Ok(Self { known, operations, actions, keys, writes, sources, pasts })
    }

    /// Whether whoever sees a write sees what its session did before.
    fn carries(&self, write: usize) -> bool {
        self.known.levels[write] != Level::Eventual
    }

    fn empty(&self) -> Clock {
        Clock::new(self.known.order.chains)
    }

    fn find_pasts(&mut self) {
        let order = &self.known.order;
        let mut own_of: Vec<Option<Clock>> = vec![None; self.operations.len()];
        let leaves = |at: usize| self.actions[at].and_then(Action::leaves).is_some();
        order.walk(|at, own| own_of[at] = leaves(at).then(|| own.clone()));
        let mut pasts = vec![None; self.operations.len()];
        order.carry(self.empty(), Clock::join, |at, seen| {
            if let Some(own) = own_of[at].clone() {
                pasts[at] = Some((own, seen.clone()));
            }
            self.see(at, seen, |write| own_of[write].as_ref());
        });
        self.pasts = pasts;
    }

    /// Puts into a clock what a read saw, and what some clock says of it.
    fn see<'c>(&self, at: usize, seen: &mut Clock, of: impl Fn(usize) -> Option<&'c Clock>) {
        let Some(write) = self.sources[at].filter(|&write| self.carries(write)) else { return };
        if let Some(clock) = of(write) {
            seen.join(clock);
        }
        if let Some(place) = self.known.order.places[write] {
            seen.raise(place);
        }
    }

    fn judge(&self) -> Option<Violation> {
        let mut broken = None;
        let empty = Past { own: self.empty(), seen: self.empty(), followed: self.empty() };
        let join = |past: &mut Past, other: &Past| {
            past.own.join(&other.own);
            past.seen.join(&other.seen);
            past.followed.join(&other.followed);
        };
        self.known.order.carry(empty, join, |at, past| {
            if broken.is_none() {
                broken = self.judge_read(at, past).or_else(|| self.judge_write(at, past));
            }
            self.see(at, &mut past.seen, |write| self.pasts[write].as_ref().map(|(own, _)| own));
            if let Some(write) = self.sources[at].filter(|&write| self.carries(write))
                && let Some((_, seen)) = &self.pasts[write]
            {
                past.followed.join(seen);
            }
            if let Some(place) = self.known.order.places[at] {
                past.own.raise(place);
            }
        });
        broken
    }

    fn version(&self, at: usize) -> Option<&'a Version> {
        self.operations[at].extras.version.as_ref()
    }

    /// The last writes of a key in a clock, by chain.
    fn last<'c>(
        by_chain: &'c BTreeMap<usize, Vec<Entry>>,
        clock: &'c Clock,
    ) -> impl Iterator<Item = Entry> + 'c {
        by_chain.iter().filter_map(|(&chain, entries)| {
            let upto = clock.of(chain);
            let count = match (entries.first(), entries.last()) {
                (Some(first), _) if first.at > upto => 0,
                // Most have seen all of a chain that ended.
                (_, Some(last)) if last.at <= upto => entries.len(),
                _ => entries.partition_point(|entry| entry.at <= upto),
            };
            count.checked_sub(1).map(|last| entries[last])
        })
    }

    /// Whether a write's session had done another one before.
    fn is_older(&self, one: usize, other: usize) -> bool {
        let (Some(place), Some((own, _))) = (self.known.order.places[one], &self.pasts[other])
        else {
            return false;
        };
        own.holds(place)
    }

    fn judge_read(&self, at: usize, past: &Past) -> Option<Violation> {
        let found = self.actions[at].and_then(Action::finds)?;
        if self.operations[at].outcome != Outcome::Ok || self.known.levels[at] == Level::Eventual {
            return None;
        }
        let writes = &self.writes[self.keys[at]];
        let log = self.known.levels[at].is_log();
        let others = if log { &writes.log_by_chain } else { &writes.by_chain };
        // The version that a conditional write shows is the one it made.
        let reads = matches!(self.actions[at], Some(Action::Read(_)));
        let version = self.version(at).filter(|_| reads);
        for (by_chain, clock, guarantee) in [
            (&writes.by_chain, &past.own, Guarantee::ReadYourWrites),
            (others, &past.seen, Guarantee::MonotonicWrites),
            (others, &past.followed, Guarantee::WritesFollowReads),
        ] {
            let demanded: Vec<Entry> = Self::last(by_chain, clock).collect();
            let Some(first) = demanded.first() else { continue };
            let replaced_by = |write: usize| {
                demanded.iter().map(|entry| entry.write).find(|&newer| self.is_older(write, newer))
            };
            let newer = match (found, self.sources[at]) {
                (Some(_), Some(source)) => replaced_by(source),
                (Some(_), None) => None,
                (None, _) => {
                    // The latest are the likeliest.
                    let possible = |&delete: &usize| replaced_by(delete).is_none();
                    let explained =
                        writes.deletes.iter().copied().rev().any(|delete| possible(&delete));
                    (!explained).then_some(first.write)
                }
            };
            if let Some(newer) = newer {
                return Some(self.missed(at, newer, guarantee, past));
            }
            let above = |newest: &usize| version.is_some() && self.version(*newest) > version;
            if let Some(newest) = demanded.iter().filter_map(|entry| entry.newest).find(above) {
                return Some(self.missed(at, newest, guarantee, past));
            }
        }
        None
    }

    /// Whether the version of a write is above what its session did and saw before.
    fn judge_write(&self, at: usize, past: &Past) -> Option<Violation> {
        self.actions[at].and_then(Action::leaves)?;
        let version = self.version(at).filter(|_| self.operations[at].outcome == Outcome::Ok)?;
        let by_chain = &self.writes[self.keys[at]].by_chain;
        let mut clocks = vec![(&past.own, Guarantee::MonotonicWrites)];
        if self.carries(at) {
            clocks.push((&past.seen, Guarantee::WritesFollowReads));
        }
        for (clock, guarantee) in clocks {
            let newest = Self::last(by_chain, clock).filter_map(|entry| entry.newest);
            let above = newest.filter(|&newest| self.version(newest) >= Some(version)).min();
            if let Some(newest) = above {
                let did = match guarantee {
                    Guarantee::MonotonicWrites => "done",
                    _ => "seen, or what its session did before,",
                };
                let why = format!(
                    "line {} acknowledged the write as version {version}, though its session had {did} version \
                     {} of line {} before",
                    self.line(at),
                    self.version(newest)?,
                    self.line(newest),
                );
                return Some(self.violation(at, guarantee, &[newest, at], why));
            }
        }
        None
    }

    /// A read did not show a write, nor one that replaced it.
    fn missed(&self, at: usize, newer: usize, by: Guarantee, past: &Past) -> Violation {
        let before = |&read: &usize| {
            let place = self.known.order.places[read];
            self.sources[read].is_some() && place.is_some_and(|place| past.own.holds(place))
        };
        let mut reads = (0..at).filter(before);
        let holds =
            |clock: &Clock| self.known.order.places[newer].is_some_and(|place| clock.holds(place));
        let mut cited = vec![at, newer];
        let (guarantee, how) = match by {
            Guarantee::ReadYourWrites => {
                (by, format!("line {} wrote it in the same session", self.line(newer)))
            }
            Guarantee::WritesFollowReads => {
                let follows = |&read: &usize| {
                    self.sources[read]
                        .and_then(|write| self.pasts[write].as_ref())
                        .is_some_and(|(_, seen)| holds(seen))
                };
                let read = reads.find(follows).unwrap_or(at);
                let write = self.sources[read].unwrap_or(newer);
                cited.extend([read, write]);
                let how = format!(
                    "line {} had shown it the write of line {}, whose session had seen that one, or a later one of \
                     its session, before",
                    self.line(read),
                    self.line(write)
                );
                (by, how)
            }
            Guarantee::MonotonicReads | Guarantee::MonotonicWrites => {
                let shows = |read: usize| {
                    let write = self.sources[read]?;
                    let (own, _) = self.pasts[write].as_ref()?;
                    (write == newer || (self.carries(write) && holds(own))).then_some(write)
                };
                let all: Vec<usize> = reads.filter(|&read| shows(read).is_some()).collect();
                let same_key = all.iter().copied().find(|&read| self.keys[read] == self.keys[at]);
                let read = same_key.or(all.first().copied()).unwrap_or(at);
                let write = shows(read).unwrap_or(newer);
                cited.extend([read, write]);
                match same_key {
                    Some(read) => {
                        let how = format!("line {} had shown it, or one after it", self.line(read));
                        (Guarantee::MonotonicReads, how)
                    }
                    None => {
                        let how = format!(
                            "line {} had shown it the write of line {}, which came after it in one session",
                            self.line(read),
                            self.line(write)
                        );
                        (Guarantee::MonotonicWrites, how)
                    }
                }
            }
        };
        let shown = |at: usize| {
            let version = self.version(at).map(|version| format!(" at version {version}"));
            version.unwrap_or_default()
        };
        let state = |state: Option<State>| state.map_or_else(String::new, show);
        let why = format!(
            "line {} found {}{}, which is older than {}{} of line {}; {how}",
            self.line(at),
            state(self.actions[at].and_then(Action::finds)),
            shown(at),
            state(self.actions[newer].and_then(Action::leaves)),
            shown(newer),
            self.line(newer),
        );
        if let Some(source) = self.sources[at] {
            cited.push(source);
        }
        self.violation(at, guarantee, &cited, why)
    }

    fn violation(&self, at: usize, by: Guarantee, cited: &[usize], why: String) -> Violation {
        let mut operations: Vec<Cited> =
            cited.iter().map(|&at| Cited::across(&self.operations[at])).collect();
        operations.sort();
        operations.dedup();
        let key = self.operations[at].micro_ops[0].key().to_owned();
        Violation { key, rule: by.broken(), operations, why }
    }

    fn line(&self, at: usize) -> usize {
        let operation = &self.operations[at];
        operation.return_line.unwrap_or(operation.invoke_line)
    }
}

impl Guarantee {
    /// The rule of a violation of it.
    pub fn broken(self) -> &'static str {
        match self {
            Self::ReadYourWrites => "read your writes is broken",
            Self::MonotonicReads => "monotonic reads is broken",
            Self::MonotonicWrites => "monotonic writes is broken",
            Self::WritesFollowReads => "writes follow reads is broken",
        }
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.broken().trim_end_matches(" is broken"))
    }
}

#[cfg(test)]
mod sessions_test;

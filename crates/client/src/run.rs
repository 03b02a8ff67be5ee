//! One operation: attempts until it is answered, refused for good, or its deadline passes.
//!
//! ```text
//!            ┌──────────────────────────────────────────────┐
//!            ▼                                              │
//!   route ─▶ choose a node ─▶ attempt ─▶ answered ─▶ done   │
//!                               │                           │
//!                               ├─ Redirect    ─▶ at once, elsewhere (after a few in a row: wait)
//!                               ├─ Unavailable ─▶ elsewhere if possible; wait a little
//!                               ├─ Exhausted   ─▶ wait as long as told
//!                               ├─ TOKEN_FROM_FUTURE ─▶ elsewhere; if all say so: done
//!                               └─ any other   ─▶ done
//! ```
//!
//! What only the leader can serve goes to the leader. A read that any replica can serve goes to the
//! nearest (the client's own region first, then by round trip); one that is behind, silent or gone costs
//! a share of the time left, and the next nearest is asked at once. In each round every replica is asked
//! once, so the leader at the latest as the last.
//!
//! Invariant: once an attempt of a write may have happened, every error of the operation says so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use latitude_probe::Mark;
use latitude_rpc::pb::v1;
use latitude_rpc::{FromWire, ToWire};
use latitude_types::{Error, Kind, Level, NodeId, Outcome, Reason, Result, Timestamp};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use crate::client::{Inner, IntoRead};
use crate::ids::Ticket;
use crate::keyspace::Keyspace;
use crate::link::Link;
use crate::lock;
use crate::receipt::ReceiptDetail;
use crate::routes::{Route, Target};
use crate::session::Session;

/// A silent node is waited for at least so long.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// On top of four round trips: a write is two (to the leader, and on to its quorum), the node works.
const PATIENCE_WORK: Duration = Duration::from_millis(500);
/// Patience doubles at most so often.
const PATIENCE_DOUBLINGS_MAX: u32 = 4;
/// After so many redirections in a row the map is in motion: wait before the next.
const REDIRECTS_AT_ONCE: u32 = 3;
/// So many other nodes are asked for their clocks at most, where one node's is in doubt.
const CLOCKS_ASKED_MAX: usize = 4;
const WAIT_MIN: Duration = Duration::from_millis(20);
const WAIT_MAX: Duration = Duration::from_millis(500);
/// What a round trip counts as before it is measured, in the client's region and elsewhere.
const NEAR: Duration = Duration::from_millis(1);
const FAR: Duration = Duration::from_millis(100);

/// An operation to run.
pub(crate) struct Call<'a> {
    /// Its name, for messages.
    pub(crate) name: &'static str,
    pub(crate) keyspace: &'a Keyspace,
    pub(crate) target: Target,
    pub(crate) write: bool,
    /// Goes through the log whatever its level.
    pub(crate) conditional: bool,
    /// The wire form for a route; a scan asks each range for its own part.
    pub(crate) operation: &'a (dyn Fn(&Route) -> v1::command::Operation + Send + Sync),
}

impl Call<'_> {
    /// The levels at which a write may be tried after its own: a condition is judged in the log alone, and a level
    /// that goes the same way as the one asked for finds the same in its way.
    fn accepted_for_a_write(&self) -> Vec<Level> {
        let options = self.keyspace.options();
        if !self.write || self.conditional {
            return Vec::new();
        }
        let asked_the_log = options.level.is_some_and(Level::writes_through_log);
        let goes_elsewhere = |level: &Level| !(asked_the_log && level.writes_through_log());
        options.accept.iter().copied().filter(goes_elsewhere).collect()
    }
}

/// An answered operation.
pub(crate) struct Served {
    pub(crate) reply: v1::Reply,
    pub(crate) route: Arc<Route>,
    pub(crate) attempts: u32,
}

/// How long a node may be silent before an attempt is given up. A write is then attempted again, with
/// the same id, at another replica, which either leads by now or says who does: so one node that is
/// paused or cut off costs this long and not the whole deadline. Patience doubles with each attempt
/// given up, so that a cluster that is merely slow is not flooded with repetitions.
pub(crate) fn patience(link: &Link, given_up: u32) -> Duration {
    let round_trips = link.round_trip().unwrap_or_default() * 4;
    (round_trips + PATIENCE_WORK).max(PATIENCE_MIN) * 2u32.pow(given_up.min(PATIENCE_DOUBLINGS_MAX))
}

/// What an operation has lived through.
struct Run<'a> {
    client: &'a Inner,
    call: &'a Call<'a>,
    started: Instant,
    deadline: Instant,
    /// The write's id, from its first attempt on.
    ticket: Option<Ticket>,
    attempts: u32,
    /// Whether an attempt of a write may have happened.
    unknown: bool,
    /// What the last attempt failed with, and where.
    last: Option<(Error, String)>,
    /// What a node said last, and which: that another one cannot be reached does not outweigh it.
    told: Option<(Error, String)>,
    /// Redirections since the last wait.
    redirects: u32,
    waits: u32,
    given_up: u32,
    keyspace_changes: u32,
    /// Whether the write was given a second id.
    renamed: bool,
    /// How often the operation had the range located.
    located: usize,
    /// Where a hint sends the next attempt.
    next: Option<Next>,
    /// Replicas that were asked in this round.
    asked: BTreeSet<NodeId>,
    /// Whether the last attempt was given only a share of the time left.
    shared: bool,
    /// Whether a node found nothing wrong with the session's token.
    token_taken: bool,
}

#[derive(Clone, Copy)]
struct Next {
    node: NodeId,
    /// The node is to pass the command on to a leader that we cannot reach.
    forward: bool,
}

/// What to do after a failed attempt.
enum Step {
    Fail(Error),
    AtOnce,
    Wait(Option<Duration>),
}

impl Inner {
    /// Runs an operation until its deadline: at its level or, if that cannot be had, at one accepted instead.
    ///
    /// A read gives way at the servers, which know best. A write does so here, because at another level it is
    /// another write, with another id: so only once it has certainly not happened.
    pub(crate) async fn run(
        &self,
        call: &Call<'_>,
        started: Instant,
        deadline: Instant,
    ) -> Result<Served> {
        let accept = call.accepted_for_a_write();
        if accept.is_empty() {
            return self.run_at_level(call, started, deadline).await;
        }
        // No attempt has been made yet.
        call.keyspace.check()?;
        let mut keyspace = call.keyspace.clone().with_accept([]);
        let mut accept = accept.into_iter();
        let mut gave_way: Option<Reason> = None;
        let mut began = started;
        loop {
            let next = accept.next();
            let left = deadline.saturating_duration_since(began);
            // What is left must be enough for the weaker level.
            let until = if next.is_some() { deadline - left / 4 } else { deadline };
            let at = Call { keyspace: &keyspace, target: call.target.clone(), ..*call };
            let error = match self.run_at_level(&at, began, until).await {
                Ok(mut served) => {
                    if let (Some(why), Some(receipt)) = (gave_way, &mut served.reply.receipt) {
                        let asked = call.keyspace.options().level.or(served.route.default_level);
                        receipt.level_asked = asked.map_or(receipt.level_asked, |l| l.to_wire());
                        receipt.fallback_reason = why.name().into();
                    }
                    return Ok(served);
                }
                Err(error) => error,
            };
            let may_give_way = matches!(error.kind(), Kind::Unavailable | Kind::Deadline)
                && !error.may_have_applied();
            let Some(level) = next.filter(|_| may_give_way) else { return Err(error) };
            debug!(operation = call.name, %error, %level, "gives way");
            gave_way = gave_way.or(Some(error.reason));
            keyspace = keyspace.with_level(level);
            began = Instant::now();
        }
    }

    async fn run_at_level(
        &self,
        call: &Call<'_>,
        started: Instant,
        deadline: Instant,
    ) -> Result<Served> {
        let mut run = Run {
            client: self,
            call,
            started,
            deadline,
            ticket: None,
            attempts: 0,
            unknown: false,
            last: None,
            told: None,
            redirects: 0,
            waits: 0,
            given_up: 0,
            keyspace_changes: 0,
            renamed: false,
            located: 0,
            next: None,
            asked: BTreeSet::new(),
            shared: false,
            token_taken: false,
        };
        // No attempt has been made yet.
        call.keyspace.check()?;
        run.run().await.map_err(|error| run.seal(error))
    }
}

impl Run<'_> {
    async fn run(&mut self) -> Result<Served> {
        loop {
            if Instant::now() >= self.deadline {
                return Err(self.timed_out());
            }
            let step = match self.attempt().await {
                Ok(served) => return Ok(served),
                Err((error, place)) => self.judge(error, place),
            };
            match step {
                Step::Fail(error) => return Err(error),
                Step::AtOnce => {}
                Step::Wait(told) => {
                    let wait =
                        self.client.jittered(WAIT_MIN * 2u32.pow(self.waits.min(8)), WAIT_MAX);
                    let wait = told.map_or(wait, |told| told.max(wait));
                    self.waits += 1;
                    self.redirects = 0;
                    sleep(wait.min(self.deadline.saturating_duration_since(Instant::now()))).await;
                }
            }
        }
    }

    /// One attempt; a failure comes with the place it happened at.
    async fn attempt(&mut self) -> Result<Served, (Error, Place)> {
        let keyspace = self.call.keyspace.name();
        let known = lock(&self.client.routes).find(keyspace, &self.call.target);
        let route = match known {
            Some(route) => route,
            None => {
                self.located += 1;
                self.client
                    .locate(keyspace, &self.call.target, self.located - 1, self.deadline)
                    .await
                    .map_err(|error| (error.into_read(), Place::Seeds))?
            }
        };
        let next = self.choose(&route);
        let link = self.client.link_of(next.node).map_err(|error| {
            // The next answer may say where the node is.
            lock(&self.client.routes).forget_range(keyspace, &route);
            (error, Place::Seeds)
        })?;
        if self.call.write && self.ticket.is_none() {
            self.ticket = Some(self.name(&link).await?);
        }
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now);
        let options = self.call.keyspace.options();
        let patience = patience(&link, self.given_up);
        let (time, patience) = match self.share(&route, next.node, left) {
            Some(share) => {
                let time = share.min(patience);
                // The answer that it could not in this time is to arrive before the node is given up.
                (time, time + self.client.distance(next.node).round_trip)
            }
            None => (left, patience),
        };
        self.shared = time < left;
        let read = !self.call.write;
        // A server gives a token to whom it sends a receipt, or who sent one: a session that has none yet
        // must ask for a receipt to get its first.
        let token = options.session.as_ref().map(Session::to_wire).unwrap_or_default();
        let receipt = match options.receipt {
            ReceiptDetail::None if options.session.is_some() && token.is_empty() => {
                ReceiptDetail::Short
            }
            receipt => receipt,
        };
        // A write has given way before it is sent.
        let accept: &[Level] = if read { &options.accept } else { &[] };
        // If the leader cannot be had, any node may find that, and serve a level accepted instead.
        let any_node = read && !accept.is_empty() && self.attempts > 0;
        // Whoever asked all replicas himself leaves the search to them: they may reach each other.
        let may_pass_on = next.forward || any_node || !self.wants_leader(&route) && self.waits > 0;
        let command = v1::Command {
            tag: 0,
            keyspace: keyspace.to_string(),
            keyspace_id: route.keyspace.0,
            range_id: route.range.0,
            range_epoch: route.epoch.0,
            level: options.level.map_or(v1::Level::Unspecified as i32, |level| level.to_wire()),
            accept: accept.iter().map(ToWire::to_wire).collect(),
            id: self.ticket.as_ref().map(Ticket::to_wire),
            token: token.clone(),
            timeout_ms: time.as_millis().clamp(1, u128::from(u32::MAX)) as u32,
            receipt: receipt.to_wire(),
            max_staleness_ms: options.staleness_max.filter(|_| read).map(whole_ms),
            request_id: options.request_id.as_deref().unwrap_or_default().to_string(),
            no_forward: !may_pass_on,
            ack_replicas: if read { 0 } else { options.ack_replicas },
            operation: Some((self.call.operation)(&route)),
        };
        self.attempts += 1;
        if self.unknown {
            Mark::RetriedUnknown.hit();
        }
        let place = Place::Node { node: next.node, route: Arc::clone(&route) };
        let mut reply = match link.send(command, patience, self.deadline).await {
            Ok(reply) => reply,
            Err(error) => return Err((error, place)),
        };
        let refused = matches!(reply.result, Some(v1::reply::Result::Error(_)));
        if let Some(session) = &options.session
            // A refusal may have nothing to add to what the session knows.
            && !(refused && reply.token.is_empty())
        {
            session.meet(&token, &reply.token);
        }
        match reply.result {
            Some(v1::reply::Result::Error(wire)) => {
                let (Ok(error) | Err(error)) = Error::from_wire(wire);
                Err((if may_pass_on { error } else { of_this_attempt(error) }, place))
            }
            _ => {
                if options.receipt == ReceiptDetail::None {
                    reply.receipt = None;
                }
                Ok(Served { reply, route, attempts: self.attempts })
            }
        }
    }

    /// The write's id. Without one the server would make one, which no retry could repeat.
    async fn name(&self, link: &Link) -> Result<Ticket, (Error, Place)> {
        let ids = &self.client.ids;
        let seen = self.call.keyspace.options().session.as_ref().map(Session::clock);
        let above = seen.unwrap_or_default();
        if ids.needs_clock_for(above) {
            // If it fails: an old clock is better than none, and the attempt will tell.
            let _ = self.hear_clock(link).await;
        }
        let begun = match ids.begin(above) {
            // Either the session is wrong, or the estimate, which one node alone does not move so far.
            Err(error) if error.reason == Reason::TokenFromFuture => {
                self.hear_other_clocks(link, above).await;
                ids.begin(above)
            }
            begun => begun,
        };
        begun.map_err(|error| {
            if error.reason == Reason::ClockUnsynced {
                // Asked again when the range is located.
                lock(&self.client.routes).forget_keyspace(self.call.keyspace.name());
            }
            (error, Place::Seeds)
        })
    }

    async fn hear_clock(&self, link: &Link) -> Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        link.hello(patience(link, 0).min(left)).await.map(drop)
    }

    /// Asks nodes for their clocks, but for the one that has just been asked, until what they tell reaches `above`.
    async fn hear_other_clocks(&self, asked: &Link, above: Timestamp) {
        let mut others = self.client.links_to_ask().unwrap_or_default();
        others.retain(|other| other.address() != asked.address());
        others.truncate(CLOCKS_ASKED_MAX);
        for other in others {
            let _ = self.hear_clock(&other).await;
            if !self.client.ids.needs_clock_for(above) {
                return;
            }
        }
    }

    /// How much of the time left an attempt at this node may take, if others can serve the same.
    fn share(&self, route: &Route, node: NodeId, left: Duration) -> Option<Duration> {
        let others = self.unasked(route).filter(|other| *other != node).count() as u32;
        (others > 0 && !self.wants_leader(route)).then(|| left / (others + 1))
    }

    /// The replicas not yet asked in this round, each once.
    fn unasked<'a>(&'a self, route: &'a Route) -> impl Iterator<Item = NodeId> + 'a {
        // A leader outside the known replicas is a newer fact than they are.
        let leader = route.leader.filter(|leader| !route.replicas.contains(leader));
        let candidates = leader.into_iter().chain(route.replicas.iter().copied());
        candidates.filter(|node| !self.asked.contains(node))
    }

    /// Whether only the leader can serve this.
    fn wants_leader(&self, route: &Route) -> bool {
        let level = self.call.keyspace.options().level.or(route.default_level);
        match level {
            None | Some(Level::Strict) => true,
            Some(level) => self.call.conditional || self.call.write && level.writes_through_log(),
        }
    }

    /// The node to ask next.
    fn choose(&mut self, route: &Route) -> Next {
        if let Some(next) = self.next.take() {
            return next;
        }
        if self.unasked(route).next().is_none() {
            self.asked.clear();
        }
        // The preferred leader, if nobody is known to lead.
        let leader = route.leader.or(route.replicas.first().copied());
        let leader = leader.filter(|_| self.wants_leader(route));
        let leads = |node: NodeId| leader == Some(node);
        // Nearly always so, and cheaper than comparing distances.
        if let Some(node) = leader.filter(|node| !self.asked.contains(node))
            && !self.client.distance(node).doubtful
        {
            return Next { node, forward: false };
        }
        let nearest = self.unasked(route).min_by_key(|node| {
            let distance = self.client.distance(*node);
            (distance.doubtful, !leads(*node), distance)
        });
        Next { node: nearest.expect("a route has replicas"), forward: false }
    }

    /// Notes a failure and decides what follows.
    fn judge(&mut self, error: Error, place: Place) -> Step {
        debug!(operation = self.call.name, attempt = self.attempts, %error, at = %place, "attempt failed");
        if self.call.write && error.may_have_applied() && !matches!(place, Place::Seeds) {
            self.unknown = true;
        }
        let step = self.decide(&error, &place);
        let answered = matches!(place, Place::Node { .. }) && error.reason != Reason::Unreachable;
        self.token_taken |= answered && error.reason != Reason::TokenFromFuture;
        if answered {
            self.told = Some((error.clone(), place.to_string()));
        }
        self.last = Some((error, place.to_string()));
        step
    }

    fn decide(&mut self, error: &Error, place: &Place) -> Step {
        let keyspace = self.call.keyspace.name();
        if let (Reason::TokenFromFuture, Place::Node { node, route }) = (error.reason, place) {
            return self.doubted(error, *node, route);
        }
        let routes = || lock(&self.client.routes);
        let kind = match error.kind() {
            // Its share of the time, not ours.
            Kind::Deadline if self.shared && matches!(place, Place::Node { .. }) => {
                Kind::Unavailable
            }
            kind => kind,
        };
        match kind {
            Kind::Invalid | Kind::Unimplemented | Kind::Internal | Kind::Deadline => {
                Step::Fail(error.clone())
            }
            Kind::NotFound => {
                routes().forget_keyspace(keyspace);
                Step::Fail(error.clone())
            }
            Kind::Precondition => {
                // The caller named the keyspace, the number is ours: with the new number the operation
                // is the one he asked for. Unless an attempt may have happened in the old one.
                if error.reason == Reason::KeyspaceChanged {
                    routes().forget_keyspace(keyspace);
                    self.keyspace_changes += 1;
                    if !self.unknown && self.keyspace_changes <= 2 {
                        return Step::AtOnce;
                    }
                }
                // This process stood still (a machine asleep) and its births are of before that. The
                // cluster tells its clock anew; a write that has certainly not happened may take another
                // id.
                if error.reason == Reason::IdExpired && !self.unknown && !self.renamed {
                    self.renamed = true;
                    self.ticket = None;
                    self.client.ids.stood_still();
                    return Step::AtOnce;
                }
                Step::Fail(error.clone())
            }
            Kind::Redirect => {
                if let Place::Node { node, route } = place {
                    self.redirected(error, *node, route);
                }
                self.redirects += 1;
                if self.redirects <= REDIRECTS_AT_ONCE { Step::AtOnce } else { Step::Wait(None) }
            }
            Kind::Unavailable => {
                if let Place::Node { node, route } = place {
                    self.asked.insert(*node);
                    let silent = error.reason == Reason::Unreachable && error.may_have_applied();
                    self.given_up += u32::from(silent);
                    // That a replica is behind says nothing against the map.
                    let behind = matches!(
                        error.reason,
                        Reason::ReplicaBehind | Reason::StalenessUnproved | Reason::NotFolded
                    );
                    if !behind && route.leader == Some(*node) {
                        routes().set_leader(keyspace, route, None);
                    }
                    if !self.wants_leader(route) && self.unasked(route).next().is_some() {
                        return Step::AtOnce;
                    }
                    if !behind {
                        self.end_round(route);
                    }
                }
                Step::Wait(error.retry_after)
            }
            Kind::Exhausted => {
                let left = self.deadline.saturating_duration_since(Instant::now());
                match error.retry_after {
                    // There will be no other attempt: say now, and in the server's words, why.
                    Some(wait) if wait >= left => Step::Fail(error.clone()),
                    wait => Step::Wait(wait),
                }
            }
        }
    }

    /// The session is ahead of a node's clock: the session is wrong, or that clock. The other replicas know.
    fn doubted(&mut self, error: &Error, node: NodeId, route: &Arc<Route>) -> Step {
        self.asked.insert(node);
        if self.unasked(route).next().is_some() {
            return Step::AtOnce;
        }
        if !self.token_taken {
            return Step::Fail(error.clone());
        }
        // Only this node can serve it, as long as it leads: with such a clock that is not long.
        self.end_round(route);
        Step::Wait(error.retry_after)
    }

    fn redirected(&mut self, error: &Error, node: NodeId, route: &Arc<Route>) {
        let keyspace = self.call.keyspace.name();
        if error.reason != Reason::NotLeader {
            // RANGE_MOVED, RANGE_NOT_HERE: the map is wrong.
            lock(&self.client.routes).forget_range(keyspace, route);
            self.asked.clear();
            return;
        }
        self.asked.insert(node);
        let hint = error.leader.as_ref().map(|hint| hint.node).filter(|hint| *hint != node);
        let known = hint.filter(|hint| lock(&self.client.routes).place(*hint).is_some());
        match known {
            Some(leader) if self.client.distance(leader).doubtful => {
                // The leader does not answer us, but it may answer the node that names it.
                Mark::HintToDoubtful.hit();
                self.next = Some(Next { node, forward: true });
            }
            Some(leader) => {
                Mark::HintFollowed.hit();
                let mut routes = lock(&self.client.routes);
                routes.set_leader(keyspace, route, Some(leader));
                drop(routes);
                self.next = Some(Next { node: leader, forward: false });
            }
            None => {
                let mut routes = lock(&self.client.routes);
                if route.leader == Some(node) {
                    routes.set_leader(keyspace, route, None);
                }
                if hint.is_some() {
                    // A node we have never heard of: learn where it is.
                    routes.forget_range(keyspace, route);
                }
                drop(routes);
                // Nobody knows at the moment; an election takes longer than a question.
                self.redirects = REDIRECTS_AT_ONCE;
                self.end_round(route);
            }
        }
    }

    /// When every replica was asked in vain, what is known of the range may be out of date.
    fn end_round(&mut self, route: &Route) {
        if self.unasked(route).next().is_none() {
            Mark::ReplicasAllAsked.hit();
            self.asked.clear();
            let keyspace = self.call.keyspace.name();
            lock(&self.client.routes).forget_range(keyspace, route);
        }
    }

    fn timed_out(&self) -> Error {
        let Call { name, keyspace, .. } = self.call;
        let waited = self.deadline.saturating_duration_since(self.started);
        let mut message = format!(
            "the {name} in keyspace {:?} was not answered within {waited:?}",
            keyspace.name()
        );
        let mut error = Error::new(Reason::DeadlineExceeded, "");
        if let Some((last, place)) = &self.last {
            let attempts = self.attempts;
            message = format!("{message} in {attempts} attempts; the last one, at {place}: {last}");
            let told = self.told.as_ref().filter(|(told, _)| says_why(told.reason));
            let cause = match told {
                Some((told, place)) if last.reason == Reason::Unreachable => {
                    message = format!("{message}; before, at {place}: {told}");
                    told
                }
                _ => last,
            };
            // More time would not have helped: the cause says more than the deadline.
            if says_why(cause.reason) || cause.reason == Reason::Unreachable {
                error.reason = cause.reason;
            }
            error.missing_quorum = cause.missing_quorum.clone();
        }
        Error { message, ..error }
    }

    /// The operation's error: a write of which any attempt may have happened is unknown, and a read has
    /// no effect.
    fn seal(&self, error: Error) -> Error {
        let unknown = self.call.write && (self.unknown || error.may_have_applied());
        let outcome = if unknown { Outcome::Unknown } else { Outcome::NotApplied };
        Error { outcome, ..error }
    }
}

/// Whether a node that gives this reason has said why the operation cannot be served, also later.
fn says_why(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NoQuorum
            | Reason::ReplicaBehind
            | Reason::StalenessUnproved
            | Reason::NotFolded
            | Reason::TokenFromFuture
    )
}

/// What a node's refusal says of the attempt that it answers. A node that refuses an id as too old, or as answered
/// before, cannot know whether an earlier copy of the write took effect. This client knows what became of the earlier
/// ones; and this one was passed on to nobody, so it had no effect.
fn of_this_attempt(error: Error) -> Error {
    match error.reason {
        Reason::IdExpired | Reason::IdRetired => Error { outcome: Outcome::NotApplied, ..error },
        _ => error,
    }
}

/// Where an attempt failed.
enum Place {
    /// Before a node could be chosen: nobody could say where the range is.
    Seeds,
    Node {
        node: NodeId,
        /// What the attempt went by.
        route: Arc<Route>,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Seeds => f.write_str("the search for the range"),
            Self::Node { node, .. } => std::fmt::Display::fmt(node, f),
        }
    }
}

/// In whole milliseconds, rounded down: no staler than asked for.
fn whole_ms(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// How far a node is. The nearest is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Distance {
    /// Lately silent or unreachable.
    pub(crate) doubtful: bool,
    /// In another region than the client.
    pub(crate) elsewhere: bool,
    /// Measured or guessed.
    pub(crate) round_trip: Duration,
}

impl Inner {
    pub(crate) fn distance(&self, node: NodeId) -> Distance {
        let routes = lock(&self.routes);
        let Some(place) = routes.place(node) else {
            return Distance { doubtful: true, elsewhere: true, round_trip: FAR };
        };
        let elsewhere = place.region != self.region;
        let link = self.link_if_started(&place.address);
        let measured = link.as_ref().and_then(|link| link.round_trip());
        Distance {
            doubtful: link.is_some_and(|link| link.is_doubtful()),
            elsewhere,
            round_trip: measured.unwrap_or(if elsewhere { FAR } else { NEAR }),
        }
    }

    /// Finds the target's range by asking nodes, nearest first, then the seeds. `turn` counts the times
    /// the same operation asked: each time another node begins, because one that lags would repeat
    /// itself.
    pub(crate) async fn locate(
        &self,
        keyspace: &str,
        target: &Target,
        turn: usize,
        deadline: Instant,
    ) -> Result<Arc<Route>> {
        let located = timeout_at(deadline, async {
            // One at a time; the others go on, all at once, as soon as it has learnt what they need.
            let _alone = loop {
                let learnt = self.learnt.notified();
                if let Some(route) = lock(&self.routes).find(keyspace, target) {
                    return Ok(route);
                }
                tokio::select! {
                    biased;
                    () = learnt => {}
                    alone = self.locating.lock() => break alone,
                }
            };
            if let Some(route) = lock(&self.routes).find(keyspace, target) {
                return Ok(route);
            }
            let mut links = self.links_to_ask()?;
            let first = turn % links.len();
            links.rotate_left(first);
            let mut told = None;
            for link in links {
                match self.locate_at(&link, keyspace, target).await {
                    Ok(route) => {
                        self.learnt.notify_waiters();
                        return Ok(route);
                    }
                    // What a node says outweighs that another one cannot be reached; but it may not have
                    // heard yet of a keyspace just made, so ask on.
                    Err(error) => {
                        let better = |told: &Error| told.is_retryable() && !error.is_retryable();
                        if told.as_ref().is_none_or(better) {
                            told = Some(error);
                        }
                    }
                }
            }
            Err(told.unwrap_or_else(|| Error::new(Reason::Unreachable, "there is no node to ask")))
        });
        located.await.unwrap_or_else(|_| {
            Err(Error::new(Reason::Unreachable, "no node said in time where the range is"))
        })
    }

    async fn locate_at(&self, link: &Link, keyspace: &str, target: &Target) -> Result<Arc<Route>> {
        let patience = patience(link, 0);
        if self.ids.needs_clock() {
            link.hello(patience).await?;
        }
        // Of a keyspace not known at all, learn as much as comes in one answer.
        let (mut start, end, limit) = match target {
            Target::At(_) if !lock(&self.routes).knows(keyspace) => (Bytes::new(), None, 0),
            Target::At(key) => (key.clone(), None, 16),
            Target::Below { start, end } => (start.clone(), end.clone(), 0),
        };
        loop {
            let request = v1::LocateRequest {
                keyspace: keyspace.to_string(),
                start: start.clone(),
                end: end.clone(),
                region: self.region.clone(),
                limit,
            };
            let reply = link.locate(request, patience).await?;
            let reached = reply.ranges.last().and_then(|range| range.end.clone());
            lock(&self.routes).learn(keyspace, reply)?;
            if let Some(route) = lock(&self.routes).find(keyspace, target) {
                return Ok(route);
            }
            // More ranges than one answer holds: go on where it ended, or straight at the key.
            start = match (reached, target) {
                (Some(reached), Target::At(key)) if *key >= reached && *key > start => key.clone(),
                (Some(reached), Target::Below { .. }) if reached > start => reached,
                _ => {
                    let message = "the node asked knows no range that holds the key";
                    return Err(Error::new(Reason::RangeNotHere, message));
                }
            };
        }
    }
}

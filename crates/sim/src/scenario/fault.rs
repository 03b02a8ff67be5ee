//! Kinds of faults, and what each of them does when.
//!
//! A fault is drawn whole: which hosts it hits, from when to when, and every step of it. Its steps are simple
//! [`Action`]s that are counted where they last, so faults may overlap in any way.

use std::time::Duration;

use latitude_consensus::Step;
use rand::RngExt;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::cluster::Crash;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// A node is killed, and starts again after a while.
    Kill,
    /// A node loses its power.
    PowerLoss,
    /// All nodes are killed or lose their power at the same moment.
    AllDown,
    /// A sync fails: the node must stop, and starts again after a while.
    FailedSync,
    /// A disk has little space left, or none, and has some again later.
    DiskFull,
    /// Syncs take long.
    SlowDisk,
    /// A node is cut from the others.
    Isolate,
    /// The nodes are cut into two parts.
    Split,
    /// One way between two nodes is cut.
    OneWay,
    /// Nobody hears a node, neither nodes nor clients, and it hears all: what it is asked to do it does, and its clients
    /// ask another.
    Mute,
    /// No client hears a node, for long or again and again, and it goes on; it or another node is cut from the others. What
    /// clients have asked of the one they ask again where nobody can know of it.
    AskedAgain,
    /// Every node hears a majority, and no two the same one.
    Ring,
    /// Two halves that only one node can talk to both of.
    Bridge,
    /// What two nodes say to each other is held back.
    Hold,
    /// Nodes are held back from all others one after another, and let go in another order.
    Swizzle,
    /// A node is paused.
    Pause,
    /// Messages from and to a node take long.
    Latency,
    /// What a node says takes long to arrive, or what it is told, and what goes the other way does not. Often it leads
    /// when that begins, and others take over meanwhile.
    SlowWay,
    /// Connections between two hosts break, again and again.
    Reset,
    /// Requests of a client get to a node, and its answers do not get back.
    ReplyLost,
    /// A clock is wrong within what is tolerated.
    Skew,
    /// A clock is wrong by 10 s: its node must be fenced, not obeyed.
    FarSkew,
    /// A clock jumps to and fro.
    Strobe,
    /// A clock runs at a wrong rate.
    Drift,
    /// A range is led by another node.
    Transfer,
    /// Ranges change their leaders all the time.
    TransferStorm,
    /// A node is cut off until it needs snapshots, and time and again whoever gets to some step of one loses its
    /// power there.
    CrashInSnapshot,
}

impl Kind {
    pub(crate) const ALL: [Self; 27] = [
        Self::Kill,
        Self::PowerLoss,
        Self::AllDown,
        Self::FailedSync,
        Self::DiskFull,
        Self::SlowDisk,
        Self::Isolate,
        Self::Split,
        Self::OneWay,
        Self::Mute,
        Self::AskedAgain,
        Self::Ring,
        Self::Bridge,
        Self::Hold,
        Self::Swizzle,
        Self::Pause,
        Self::Latency,
        Self::SlowWay,
        Self::Reset,
        Self::ReplyLost,
        Self::Skew,
        Self::FarSkew,
        Self::Strobe,
        Self::Drift,
        Self::Transfer,
        Self::TransferStorm,
        Self::CrashInSnapshot,
    ];

    /// Its name, in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::PowerLoss => "power loss",
            Self::AllDown => "all down",
            Self::FailedSync => "failed sync",
            Self::DiskFull => "disk full",
            Self::SlowDisk => "slow disk",
            Self::Isolate => "isolate",
            Self::Split => "split",
            Self::OneWay => "one way",
            Self::Mute => "mute",
            Self::AskedAgain => "asked again",
            Self::Ring => "ring",
            Self::Bridge => "bridge",
            Self::Hold => "hold",
            Self::Swizzle => "swizzle",
            Self::Pause => "pause",
            Self::Latency => "latency",
            Self::SlowWay => "slow way",
            Self::Reset => "reset",
            Self::ReplyLost => "reply lost",
            Self::Skew => "skew",
            Self::FarSkew => "far skew",
            Self::Strobe => "strobe",
            Self::Drift => "drift",
            Self::Transfer => "transfer",
            Self::TransferStorm => "transfer storm",
            Self::CrashInSnapshot => "crash in snapshot",
        }
    }
}

/// A host, as the plan of a run knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Party {
    Node(u32),
    /// A client of the workload, counted from 0.
    Client(u32),
}

/// A step of a fault.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Action {
    /// The node goes down, and stays so until as many `Up` have come.
    Down(u32, Crash),
    Up(u32),
    /// Its next sync fails; it may stop by itself.
    FailSync(u32),
    /// So much space is left; it may stop by itself.
    LeaveFree(u32, u64),
    /// There is enough space, no sync fails any more, and it starts again if it has stopped.
    DiskRight(u32),
    /// It starts again if it has stopped by itself or at a step of a snapshot.
    Revive(u32),
    SlowDisk(u32, Duration),
    Cut(Party, Party),
    Mend(Party, Party),
    Hold(u32, u32),
    Release(u32, u32),
    Pause(u32),
    Resume(u32),
    Latency(u32, u32, Duration),
    LatencyRight(u32, u32),
    /// What the first sends the second arrives that much later still, until it is hastened by as much.
    Delay(u32, u32, Duration),
    Hasten(u32, u32, Duration),
    Reset(Party, Party),
    Skew(u32, i64),
    Drift(u32, i64),
    ClockRight(u32),
    /// Some range is to be led by this node.
    Transfer(u32),
    /// So many nodes lose their power at that step of a snapshot.
    CrashAt(Step, u32),
}

/// Who there is to be hit.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    pub(crate) nodes: u32,
    pub(crate) clients: u32,
    /// The one node whose clock may be far off: two that agree on a wrong time would be believed.
    pub(crate) liar: u32,
    /// The node that most faults hit, if they are not spread evenly.
    pub(crate) victim: Option<u32>,
    /// Into how many regions the nodes are put in turn.
    pub(crate) regions: u32,
    /// The longest election timeout.
    pub(crate) timeout: Duration,
}

impl Targets {
    /// The nodes in a random order; often the victim is the first.
    fn shuffled(&self, random: &mut SmallRng) -> Vec<u32> {
        let mut nodes: Vec<u32> = (1..=self.nodes).collect();
        nodes.shuffle(random);
        if let Some(victim) = self.victim.filter(|_| random.random_ratio(3, 4)) {
            nodes.sort_by_key(|node| *node != victim);
        }
        nodes
    }

    /// Whether a node is in the region of another.
    fn are_near(&self, a: u32, b: u32) -> bool {
        a % self.regions == b % self.regions
    }
}

/// Draws the steps of a fault that begins at `from` and lasts so long: each with its time.
pub(crate) fn draw(
    kind: Kind,
    from: Duration,
    lasts: Duration,
    targets: &Targets,
    random: &mut SmallRng,
) -> Vec<(Duration, Action)> {
    let nodes = targets.shuffled(random);
    let (one, other) = (nodes[0], nodes[1]);
    let client = Party::Client(random.random_range(0..targets.clients));
    // Half of the cuts last until both sides have somebody who led, and he that was cut off speaks again: a leader
    // that has lost its quorum is silent for two election timeouts after its lease, and then not for two.
    let cuts = matches!(
        kind,
        Kind::Isolate | Kind::Split | Kind::OneWay | Kind::Bridge | Kind::AskedAgain
    );
    let longer = match kind {
        _ if cuts && random.random() => 3 * targets.timeout + between(random, 500, 4_000),
        Kind::SlowWay if random.random() => between(random, 500, 8_000),
        _ => Duration::ZERO,
    };
    let until = from + lasts + longer;
    let how = if random.random() { Crash::Killed } else { Crash::PowerLost };
    let mut steps = Steps { from, until, actions: Vec::new() };
    match kind {
        Kind::Kill => steps.lasting(Action::Down(one, Crash::Killed), Action::Up(one)),
        Kind::PowerLoss => steps.lasting(Action::Down(one, Crash::PowerLost), Action::Up(one)),
        Kind::AllDown => {
            for node in nodes {
                steps.at(from, Action::Down(node, how));
                steps.at(until + between(random, 0, 500), Action::Up(node));
            }
        }
        Kind::FailedSync => steps.lasting(Action::FailSync(one), Action::DiskRight(one)),
        Kind::DiskFull => {
            // Below the floor writes are refused; below a few bytes nothing at all can be written.
            let free = if random.random_ratio(2, 3) { 1 << 20 } else { 16 };
            steps.lasting(Action::LeaveFree(one, free), Action::DiskRight(one));
        }
        Kind::SlowDisk => {
            // All of them at once is what a loss of power must meet: much is written and not synced.
            let (more, slow) =
                (between(random, 10, 800), if random.random() { 1 } else { nodes.len() });
            for node in &nodes[..slow] {
                steps.lasting(
                    Action::SlowDisk(*node, more),
                    Action::SlowDisk(*node, Duration::ZERO),
                );
            }
        }
        Kind::Isolate => nodes[1..].iter().for_each(|other| steps.partition(one, *other)),
        Kind::Split => {
            // As often as not a region is cut off, where there are several: who is near hears each other.
            let (left, right): (Vec<u32>, Vec<u32>) = if targets.regions > 1 && random.random() {
                nodes.iter().partition(|node| targets.are_near(**node, one))
            } else {
                let (left, right) = nodes.split_at(random.random_range(1..nodes.len()));
                (left.to_vec(), right.to_vec())
            };
            for one in left {
                right.iter().for_each(|other| steps.partition(one, *other));
            }
        }
        Kind::OneWay => steps.one_way(one, other),
        Kind::Mute => {
            nodes[1..].iter().for_each(|other| steps.one_way(one, *other));
            steps.unanswering(one, targets.clients);
        }
        Kind::AskedAgain => {
            nodes[1..].iter().for_each(|node| steps.partition(one, *node));
            // Who is cut off takes the second copies, or the first.
            let unheard = if random.random() { other } else { one };
            if random.random_ratio(1, 3) {
                steps.unanswering(unheard, targets.clients);
            } else {
                // Whoever is not heard for long is asked no more: it is heard again and again.
                let clients: Vec<_> = (0..targets.clients).map(Party::Client).collect();
                steps.losing_answers(unheard, &clients, random);
            }
        }
        Kind::Ring => {
            // Of five, neighbours in the ring hear each other. Of three any two are a majority, so one pair
            // apart makes two of them.
            let (pairs, apart) = if nodes.len() == 3 { (1, 1) } else { (nodes.len(), 2) };
            for at in 0..pairs {
                steps.partition(nodes[at], nodes[(at + apart) % nodes.len()]);
            }
        }
        Kind::Bridge => {
            let half = (nodes.len() - 1) / 2;
            for left in &nodes[1..=half] {
                nodes[half + 1..].iter().for_each(|right| steps.partition(*left, *right));
            }
        }
        Kind::Hold => steps.lasting(Action::Hold(one, other), Action::Release(one, other)),
        Kind::Swizzle => {
            let some = random.random_range(1..=nodes.len());
            for node in &nodes[..some] {
                let (begin, end) = (steps.moment(random), steps.moment(random));
                for other in nodes.iter().filter(|other| *other != node) {
                    steps.at(begin.min(end), Action::Hold(*node, *other));
                    steps.at(begin.max(end), Action::Release(*node, *other));
                }
            }
        }
        Kind::Pause => steps.lasting(Action::Pause(one), Action::Resume(one)),
        Kind::Latency => {
            let latency = between(random, 50, 600);
            for other in &nodes[1..] {
                let slow = Action::Latency(one, *other, latency);
                steps.lasting(slow, Action::LatencyRight(one, *other));
            }
        }
        Kind::SlowWay => {
            let most = if random.random() { 250 } else { 1_000 };
            let more = between(random, 30, most);
            // Towards it twice as often: then it hears late of what the others have long done.
            let towards = random.random_ratio(2, 3);
            for other in &nodes[1..] {
                let (from, to) = if towards { (*other, one) } else { (one, *other) };
                steps.lasting(Action::Delay(from, to, more), Action::Hasten(from, to, more));
            }
            // On what a node hears that leads nothing nobody depends.
            if random.random() {
                let before = from.saturating_sub(between(random, 100, 500));
                (0..3).for_each(|_| steps.at(before, Action::Transfer(one)));
                if random.random() {
                    steps.again_and_again(random, 200, 1_500, |_| Action::Transfer(other));
                }
            }
        }
        Kind::Reset => {
            let other = if random.random() { Party::Node(other) } else { client };
            let (a, b) = (Party::Node(one), other);
            steps.again_and_again(random, 50, 800, |random| {
                if random.random() { Action::Reset(a, b) } else { Action::Reset(b, a) }
            });
        }
        Kind::ReplyLost => steps.losing_answers(one, &[client], random),
        Kind::Skew => {
            let ahead = random.random_range(-200..=200);
            steps.lasting(Action::Skew(one, ahead), Action::ClockRight(one));
        }
        Kind::FarSkew => {
            let ahead = if random.random() { 10_000 } else { -10_000 };
            steps.lasting(Action::Skew(targets.liar, ahead), Action::ClockRight(targets.liar));
        }
        Kind::Strobe => {
            let far = *[150, 600, 5_000].choose(random).unwrap_or(&150);
            let liar = targets.liar;
            steps.again_and_again(random, 50, 500, |random| {
                Action::Skew(liar, random.random_range(-far..=far))
            });
            steps.at(until, Action::ClockRight(liar));
        }
        Kind::Drift => {
            let ppm = random.random_range(-50_000..=50_000);
            steps.lasting(Action::Drift(targets.liar, ppm), Action::ClockRight(targets.liar));
        }
        Kind::Transfer => steps.at(from, Action::Transfer(one)),
        Kind::TransferStorm => {
            let nodes = targets.nodes;
            steps.again_and_again(random, 50, 700, |random| {
                Action::Transfer(random.random_range(1..=nodes))
            });
        }
        Kind::CrashInSnapshot => {
            // Half of them where the old rows give way to the new.
            let install = [Step::Mark, Step::Replace, Step::Apply, Step::Cleanup];
            let mut step = || {
                let steps = if random.random() { &install[..] } else { &Step::ALL[..] };
                *steps.choose(random).unwrap_or(&Step::Mark)
            };
            let steps_hit = [step(), step(), step()];
            let needs = from + between(random, 3_000, 6_000);
            steps.until = needs;
            nodes[1..].iter().for_each(|other| steps.partition(one, *other));
            steps.at(needs, Action::CrashAt(steps_hit[0], 2));
            for (times, step) in (1..).zip(steps_hit) {
                steps.at(needs + times * lasts, Action::CrashAt(step, 2));
                for node in &nodes {
                    steps.at(needs + times * lasts, Action::Revive(*node));
                }
            }
            for node in &nodes {
                steps.at(needs + 4 * lasts, Action::Revive(*node));
            }
            steps.at(needs + 4 * lasts, Action::CrashAt(steps_hit[0], 0));
        }
    }
    steps.actions
}

/// A time of so many milliseconds.
fn between(random: &mut SmallRng, from_ms: u64, to_ms: u64) -> Duration {
    Duration::from_millis(random.random_range(from_ms..=to_ms))
}

struct Steps {
    from: Duration,
    until: Duration,
    actions: Vec<(Duration, Action)>,
}

impl Steps {
    fn at(&mut self, at: Duration, action: Action) {
        self.actions.push((at, action));
    }

    fn lasting(&mut self, begin: Action, end: Action) {
        self.at(self.from, begin);
        self.at(self.until, end);
    }

    fn one_way(&mut self, from: u32, to: u32) {
        let (from, to) = (Party::Node(from), Party::Node(to));
        self.lasting(Action::Cut(from, to), Action::Mend(from, to));
    }

    fn partition(&mut self, a: u32, b: u32) {
        self.one_way(a, b);
        self.one_way(b, a);
    }

    /// Clients do not hear what a node answers.
    fn unanswering(&mut self, node: u32, clients: u32) {
        let node = Party::Node(node);
        for client in (0..clients).map(Party::Client) {
            self.lasting(Action::Cut(node, client), Action::Mend(node, client));
            // Answers are missing from the connection: else the client would wait for its deadline.
            self.at(self.until, Action::Reset(client, node));
        }
    }

    /// Again and again clients do not hear for a while what a node answers.
    fn losing_answers(&mut self, node: u32, clients: &[Party], random: &mut SmallRng) {
        let node = Party::Node(node);
        let mut at = self.from;
        while at < self.until {
            let lost = between(random, 20, 400);
            for client in clients {
                self.at(at, Action::Cut(node, *client));
                self.at(at + lost, Action::Mend(node, *client));
                // Else the client would wait for its deadline: the answer is missing from the connection.
                self.at(at + lost, Action::Reset(*client, node));
            }
            at += lost + between(random, 50, 600);
        }
    }

    fn moment(&self, random: &mut SmallRng) -> Duration {
        let lasts = self.until.saturating_sub(self.from).as_millis() as u64;
        self.from + between(random, 0, lasts)
    }

    fn again_and_again(
        &mut self,
        random: &mut SmallRng,
        from_ms: u64,
        to_ms: u64,
        mut action: impl FnMut(&mut SmallRng) -> Action,
    ) {
        let mut at = self.from;
        while at < self.until {
            let action = action(random);
            self.at(at, action);
            at += between(random, from_ms, to_ms);
        }
    }
}

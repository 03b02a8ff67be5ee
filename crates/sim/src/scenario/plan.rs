//! What the run of a seed is to be: drawn whole before it begins.
//!
//! Swarm testing: each run has only some kinds of faults, and they are drawn with the cluster, its timing and the
//! mix of operations. A kind that would hide another's mistakes (who is always down never lags) is missing in
//! many runs. In half of the runs most faults hit one node, in half of them most begin about the same time:
//! troubles that meet find more than troubles that come one by one.
//!
//! Sources: Groce et al., "Swarm testing" (ISSTA 2012); for which kinds are drawn more often, Alquraan et al., "An
//! analysis of network-partitioning failures in cloud systems" (OSDI 2018), where most failures take a cut that isolates
//! a leader, and what clients do on both sides of it.

use std::collections::BTreeSet;
use std::time::Duration;

use latitude_consensus::Step;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use super::Length;
use super::fault::{self, Action, Kind, Targets};
use crate::cluster::Layout;
use crate::seeds::derive;
use crate::workload::Workload;

/// Faults that begin about the same time begin within so many milliseconds.
const TOGETHER_MS: u64 = 3_000;

/// The run of a seed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) layout: Layout,
    pub(crate) leases: bool,
    pub(crate) workload: Workload,
    /// The faults, in the order of their beginnings.
    pub(crate) faults: Vec<Kind>,
    /// Every step of every fault, in order; times are from the beginning of the phase of faults.
    pub(crate) steps: Vec<(Duration, Action)>,
    /// How long the phase of faults lasts.
    pub(crate) lasts: Duration,
    /// The nodes that stay away when the others are whole again: so few that every range has a quorum.
    pub(crate) away: Vec<Away>,
}

/// A node that stays away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Away {
    pub(crate) node: u32,
    /// It is down; else it is cut from the others.
    pub(crate) down: bool,
}

impl Plan {
    pub(crate) fn of(seed: u64, length: Length) -> Self {
        let random = |name| random_of(seed, name);
        let leases = derive(seed, "read mode").is_multiple_of(3);
        let layout = layout(seed, length, leases, &mut random("layout"));
        let workload = with_local(workload(&layout, &mut random("workload")), &mut random("local"));
        // What all clients want every node is to be asked for.
        let everywhere = workload.one_element && layout.nodes > 3;
        let workload = Workload {
            on_all_nodes: workload.on_all_nodes || everywhere,
            learners: workload.learners && !everywhere,
            ..workload
        };
        let workload = match length {
            Length::Short => hurried(workload, &mut random("hurry")),
            Length::Long => unhurried(workload, &mut random("long")),
        };
        let random = &mut random("faults");
        let liar = random.random_range(1..=layout.nodes);
        let targets = Targets {
            nodes: layout.nodes,
            clients: workload.clients,
            liar,
            victim: random.random::<bool>().then(|| random.random_range(1..=layout.nodes)),
            regions: layout.regions.len().max(1) as u32,
            timeout: layout.settings().election_timeout_max,
        };
        let mut kinds = kinds(random);
        // Where clients hardly pause, much happens before a node hears of it that hears late.
        if workload.pause_ms.0 == 0 && random.random() && !kinds.contains(&Kind::SlowWay) {
            kinds.push(Kind::SlowWay);
        }
        let (count, lasts, long) = match length {
            Length::Short => (3..=10, 12_000..25_000, 8_000),
            Length::Long => (15..=50, 600_000..1_500_000, 60_000),
        };
        let count = random.random_range(count);
        let lasts = Duration::from_millis(random.random_range(lasts));
        let most = lasts.as_millis() as u64;
        let together = random.random::<bool>().then(|| random.random_range(0..most));
        let mut drawn: Vec<_> = (0..count)
            .filter_map(|_| {
                // What all clients want differs from node to node, so copies of a write do.
                let kind = match workload.one_element && random.random() {
                    true => Kind::AskedAgain,
                    false => *kinds.choose(random)?,
                };
                let from = match together {
                    Some(about) if random.random_ratio(2, 3) => {
                        about + random.random_range(0..TOGETHER_MS)
                    }
                    _ => random.random_range(0..most),
                };
                let from = Duration::from_millis(from);
                let long = if random.random_ratio(1, 4) { long } else { 3_000 };
                let for_ms = Duration::from_millis(random.random_range(100..long));
                Some((from, kind, fault::draw(kind, from, for_ms, &targets, random)))
            })
            .collect();
        drawn.sort_by_key(|(from, ..)| *from);
        let faults = drawn.iter().map(|(_, kind, _)| *kind).collect();
        let mut steps: Vec<_> = drawn.into_iter().flat_map(|(.., steps)| steps).collect();
        steps.extend(losses_in_snapshots(layout.nodes, lasts, &mut random_of(seed, "losses")));
        steps.sort_by_key(|(at, _)| *at);
        let away = away(&layout, &workload, liar, random);
        Self { layout, leases, workload, faults, steps, lasts, away }
    }
}

fn random_of(seed: u64, name: &str) -> SmallRng {
    SmallRng::seed_from_u64(derive(seed, name))
}

/// In half of the runs whoever gets to some step of a snapshot loses its power there, whatever made it need one.
fn losses_in_snapshots(
    nodes: u32,
    lasts: Duration,
    random: &mut SmallRng,
) -> Vec<(Duration, Action)> {
    let mut steps = Vec::new();
    if random.random() {
        let step = *[Step::Receive, Step::Stage, Step::Mark, Step::Replace, Step::Apply]
            .choose(random)
            .unwrap_or(&Step::Mark);
        steps.push((Duration::ZERO, Action::CrashAt(step, 6)));
        let mut at = Duration::ZERO;
        while at < lasts {
            at += Duration::from_millis(random.random_range(500..2_000));
            steps.extend((1..=nodes).map(|node| (at, Action::Revive(node))));
        }
        steps.push((at, Action::CrashAt(step, 0)));
    }
    steps
}

fn layout(seed: u64, length: Length, leases: bool, random: &mut SmallRng) -> Layout {
    let mut layout =
        if random.random() { Layout::small(seed) } else { Layout::three_regions(seed) };
    if random.random_ratio(1, 2) {
        layout.nodes = 5;
    }
    let ms = Duration::from_millis;
    // Long steps are quicker to simulate; short ones let hosts meet in more ways. Drawn apart, so that the rest of
    // a seed's plan does not depend on it.
    let ticks = match length {
        Length::Short => [1, 2, 4, 8],
        Length::Long => [4, 8, 8, 16],
    };
    let tick = *ticks.choose(&mut random_of(seed, "tick")).unwrap_or(&1);
    layout.tick = ms(tick);
    let near = random.random_range(0..5).max(tick);
    layout.near = (ms(near), ms(near + random.random_range(0..10)));
    // All times of Raft grow with the distance: what is near has seen more elections when a run ends.
    let most = if random.random() { 35 } else { 100 };
    let far = random.random_range(10..most);
    layout.far = (ms(far), ms(far + random.random_range(0..20)));
    // Over the wide area the times of Raft are longer, and a quarter of an hour is simulated sooner.
    if length == Length::Long {
        let random = &mut random_of(seed, "distances");
        if random.random() {
            layout.regions = Layout::three_regions(seed).regions;
        }
        let far = random.random_range(35..150);
        layout.far = (ms(far), ms(far + random.random_range(0..20)));
    }
    // Often so short that a node which was down for a while needs snapshots.
    layout.snapshots.log_bytes_max =
        *[1 << 10, 2 << 10, 4 << 10, 64 << 10].choose(random).unwrap_or(&4096);
    // In some runs so few local writes may be unfolded that they are slowed and refused.
    let quotas = &mut random_of(seed, "quota");
    if quotas.random_ratio(1, 4) {
        layout.limits.unfolded_bytes_max = quotas.random_range(1 << 8..2 << 10);
    }
    if leases { layout.with_leases() } else { layout }
}

fn workload(layout: &Layout, random: &mut SmallRng) -> Workload {
    let keys = random.random_range(2..=10);
    let on_all_nodes = layout.nodes > 3 && random.random_ratio(1, 5);
    Workload {
        clients: random.random_range(3..=6),
        keys,
        ranges: random.random_range(1..=keys.min(4)),
        on_all_nodes,
        learners: layout.nodes > 3 && !on_all_nodes && random.random_ratio(4, 5),
        strict: random.random_range(2..=8),
        local: 0,
        typed: 0,
        others: 0,
        one_element: false,
        reads: random.random_range(2..=7),
        compares: random.random_range(1..=2),
        deletes: *[0, 0, 1, 3].choose(random).unwrap_or(&0),
        scans: *[0, 0, 1, 3].choose(random).unwrap_or(&0),
        chases: random.random_range(0..=8),
        forgets: *[0, 0, 1, 3].choose(random).unwrap_or(&0),
        unlike: random.random_ratio(3, 4),
        pause_ms: if random.random_ratio(1, 3) { (1, 30) } else { (20, 150) },
        padding: if random.random_ratio(1, 4) { random.random_range(0..400) } else { 0 },
    }
}

/// Two thirds of the runs have operations at local levels too, and two thirds of these counters and sets; in half of
/// those all clients want the same element of the same set, mostly without the log.
fn with_local(workload: Workload, random: &mut SmallRng) -> Workload {
    let local = if random.random_ratio(2, 3) { random.random_range(1..=9) } else { 0 };
    let typed = if local > 0 && random.random_ratio(2, 3) { random.random_range(1..=8) } else { 0 };
    let one_element = typed > 0 && random.random();
    let (local, typed) = if one_element {
        (random.random_range(6..=9), random.random_range(6..=9))
    } else {
        (local, typed)
    };
    let others = typed > 0 && !one_element && random.random();
    let others = if others { random.random_range(2..=8) } else { 0 };
    Workload { local, typed, others, one_element, ..workload }
}

/// In half of the runs more clients hardly pause: what takes several of them within one round trip takes that.
fn hurried(workload: Workload, random: &mut SmallRng) -> Workload {
    if random.random() {
        return workload;
    }
    Workload {
        clients: random.random_range(6..=10),
        ranges: workload.keys.min(4),
        pause_ms: (0, random.random_range(1..=10)),
        ..workload
    }
}

/// As many operations in a long run as fit into what its judges can hold.
fn unhurried(workload: Workload, random: &mut SmallRng) -> Workload {
    let most = *[1_000, 3_000, 8_000].choose(random).unwrap_or(&3_000);
    Workload { pause_ms: (100, most), chases: workload.chases.min(1), ..workload }
}

/// The kinds of faults of this run.
fn kinds(random: &mut SmallRng) -> Vec<Kind> {
    let mut kinds = Kind::ALL.to_vec();
    kinds.shuffle(random);
    let some = *[2, 4, 8, Kind::ALL.len()].choose(random).unwrap_or(&4);
    kinds.truncate(some);
    // Most of what can go wrong takes somebody who believes that he leads, and another who does; and copies of a write
    // at two nodes that do not hear each other.
    for often in [Kind::Split, Kind::SlowWay, Kind::TransferStorm, Kind::AskedAgain] {
        if random.random_ratio(2, 5) && !kinds.contains(&often) {
            kinds.push(often);
        }
    }
    kinds
}

fn away(layout: &Layout, workload: &Workload, liar: u32, random: &mut SmallRng) -> Vec<Away> {
    let quorum_is_of_all = layout.nodes == 3 || workload.on_all_nodes;
    let many = if quorum_is_of_all { (layout.nodes - 1) / 2 } else { 1 };
    // A clock that was far ahead runs slow until it is right, and until then its node takes part in nothing.
    let mut away = BTreeSet::from([liar]);
    while away.len() < many as usize {
        away.insert(random.random_range(1..=layout.nodes));
    }
    away.into_iter().map(|node| Away { node, down: random.random() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_the_first_runs_have_local_writes_and_little_room_for_what_is_not_folded() {
        let plans = (0..60).map(|seed| Plan::of(seed, Length::Short));
        let quota = |plan: &Plan| plan.layout.limits.unfolded_bytes_max;
        let tight = plans.filter(|plan| quota(plan) < 2 << 10 && plan.workload.local > 0);
        let tight: Vec<_> = tight.map(|plan| (plan.layout.seed, quota(&plan))).collect();
        assert!(tight.len() > 4, "{tight:?}");
        println!("{tight:?}");
    }

    #[test]
    fn every_kind_of_fault_is_drawn_and_whatever_begins_ends() {
        let mut drawn = BTreeSet::new();
        for seed in 0..300 {
            let plan = Plan::of(seed, Length::Short);
            drawn.extend(plan.faults.iter().copied());
            assert!(plan.steps.is_sorted_by_key(|(at, _)| *at));
            let count = |what: fn(&Action) -> bool| {
                plan.steps.iter().filter(|(_, action)| what(action)).count()
            };
            let downs = count(|action| matches!(action, Action::Down(..)));
            assert_eq!(downs, count(|action| matches!(action, Action::Up(_))), "seed {seed}");
            let cuts = count(|action| matches!(action, Action::Cut(..)));
            assert_eq!(cuts, count(|action| matches!(action, Action::Mend(..))), "seed {seed}");
            let holds = count(|action| matches!(action, Action::Hold(..)));
            assert_eq!(holds, count(|action| matches!(action, Action::Release(..))), "seed {seed}");
            let delays = count(|action| matches!(action, Action::Delay(..)));
            assert_eq!(delays, count(|action| matches!(action, Action::Hasten(..))), "seed {seed}");
            let away = plan.away.len() as u32;
            assert!(2 * away < plan.layout.nodes && away > 0, "seed {seed}");
        }
        assert_eq!(drawn.len(), Kind::ALL.len());
    }
}

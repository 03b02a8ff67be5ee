//! What a past demands of a replica of one range.

use latitude_types::{Epoch, KeySpan, Past, RangeId, Stamp};

/// What a replica must have of the logs before it shows something that follows a past.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Demand {
    /// Entries of its own range up to here: applied is enough.
    pub own: Stamp,
    /// Entries up to here, whichever range they are of: they must be closed.
    pub floor: Stamp,
}

/// What `past` demands of a replica of `range`, which holds `span`.
///
/// `known` says what this node knows of another range: its epoch and its span. An exact entry of a range
/// concerns this replica only if their keys meet. But a range named by its number may have been another one
/// when the session met it: after a merge that this replica has not applied, the entry is of a range that
/// holds this replica's keys by now (pitfall B11). So it is left out only if this node knows the range at the
/// entry's epoch, or a later one, and the spans do not meet; else it counts as a floor.
pub fn demand<'a>(
    past: &Past,
    range: RangeId,
    span: &KeySpan,
    known: impl Fn(RangeId) -> Option<(Epoch, &'a KeySpan)>,
) -> Demand {
    let mut demand = Demand { own: Stamp::ZERO, floor: past.log_floor };
    for (of, epoch, stamp) in &past.log {
        let known = known(*of).filter(|(known, _)| known >= epoch);
        match known {
            Some(_) if *of == range => demand.own = demand.own.max(*stamp),
            Some((_, held)) if held.intersection(span).is_none() => {}
            _ => demand.floor = demand.floor.max(*stamp),
        }
    }
    demand
}

#[cfg(test)]
mod tests {
    use latitude_types::{NodeId, Timestamp};

    use super::*;

    const LEFT: RangeId = RangeId(4);
    const RIGHT: RangeId = RangeId(5);

    fn stamp(time: u64) -> Stamp {
        Stamp { time: Timestamp(time), node: NodeId(1) }
    }

    fn span(start: &str, end: &str) -> KeySpan {
        KeySpan::new(start.as_bytes(), Some(end.as_bytes())).unwrap()
    }

    fn past(entries: &[(RangeId, u32, u64)]) -> Past {
        let mut past = Past::default();
        for (range, epoch, time) in entries {
            past.add_log(*range, Epoch(*epoch), stamp(*time));
        }
        past
    }

    /// Pitfall B11: the left range has taken in the right one, and a replica of the right one has not applied
    /// that yet.
    #[test]
    fn b11_an_entry_of_a_range_as_it_is_not_known_here_counts_for_every_range() {
        let (left, right) = (span("a", "m"), span("m", "z"));
        let before = |range| match range {
            LEFT => Some((Epoch(1), &left)),
            RIGHT => Some((Epoch(1), &right)),
            _ => None,
        };
        let merged = past(&[(LEFT, 2, 310)]);
        let needed = demand(&merged, RIGHT, &right, before);
        assert_eq!(needed, Demand { own: Stamp::ZERO, floor: stamp(310) });
        // The mirror: a split that is not applied here made the range of the entry.
        let child = past(&[(RangeId(9), 1, 300)]);
        assert_eq!(demand(&child, RIGHT, &right, before).floor, stamp(300));
    }

    #[test]
    fn an_entry_of_a_range_that_shares_no_key_is_nobody_else_s_business() {
        let (left, right) = (span("a", "m"), span("m", "z"));
        let known = |range| match range {
            LEFT => Some((Epoch(2), &left)),
            RIGHT => Some((Epoch(2), &right)),
            _ => None,
        };
        let past = past(&[(LEFT, 2, 310), (RIGHT, 1, 200)]);
        let needed = demand(&past, RIGHT, &right, known);
        assert_eq!(needed, Demand { own: stamp(200), floor: Stamp::ZERO });
    }
}

//! What a session's token holds, for people and for machines.

use latitude_consistency::Token;
use latitude_types::{Positions, Stamp, Timestamp};
use serde_json::{Value as Json, json};

use crate::text::date;

/// What a session has seen and done: as an aligned block.
pub fn session(token: &Token) -> String {
    let past = token.past();
    let mut block = String::new();
    let mut say = |label: &str, text: String| block += &format!("{label:<18} {text}\n");
    say("cluster", token.cluster.id.to_string());
    say("incarnation", token.cluster.incarnation.to_string());
    say("clock", time(token.clock()));
    say("stands at", stamp(token.stood()));
    for (range, epoch, met) in &past.log {
        say("log", format!("{range}{epoch} {}", stamp(*met)));
    }
    say("log, others", stamp(past.log_floor));
    for (label, positions) in [("seen", &past.seen), ("own writes", token.own())] {
        for (node, position) in &positions.by_node {
            say(label, format!("{node} {}", time(*position)));
        }
        say(&format!("{label}, others"), time(positions.floor));
    }
    block.truncate(block.trim_end().len());
    block
}

/// The same for machines.
pub fn session_json(token: &Token) -> Json {
    let past = token.past();
    let log: Vec<_> = past
        .log
        .iter()
        .map(|(range, epoch, stamp)| {
            json!({ "range": range.0, "epoch": epoch.0, "stamp": stamp_json(*stamp) })
        })
        .collect();
    json!({
        "cluster": token.cluster.id.to_string(),
        "incarnation": token.cluster.incarnation,
        "clock": time_json(token.clock()),
        "stands_at": stamp_json(token.stood()),
        "log": log,
        "log_others": stamp_json(past.log_floor),
        "seen": positions_json(&past.seen),
        "own_writes": positions_json(token.own()),
    })
}

fn time(time: Timestamp) -> String {
    match time {
        Timestamp::ZERO => "nothing".to_string(),
        time => format!("{time} ({})", date(time.unix_ms())),
    }
}

fn stamp(stamp: Stamp) -> String {
    match stamp {
        Stamp::ZERO => "nothing".to_string(),
        stamp => format!("{stamp} ({})", date(stamp.time.unix_ms())),
    }
}

fn time_json(time: Timestamp) -> Json {
    match time {
        Timestamp::ZERO => Json::Null,
        time => json!({ "time": time.to_string(), "utc": date(time.unix_ms()) }),
    }
}

fn stamp_json(stamp: Stamp) -> Json {
    let mut object = time_json(stamp.time);
    if !object.is_null() {
        object["node"] = json!(stamp.node.0);
    }
    object
}

fn positions_json(positions: &Positions) -> Json {
    let nodes: Vec<_> = positions
        .by_node
        .iter()
        .map(|(node, position)| json!({ "node": node.0, "position": time_json(*position) }))
        .collect();
    json!({ "nodes": nodes, "others": time_json(positions.floor) })
}

#[cfg(test)]
mod tests {
    use latitude_types::{ClusterId, ClusterIdentity, Epoch, NodeId, Past, RangeId};

    use super::*;

    fn token() -> Token {
        let mut token = Token::new(ClusterIdentity { id: ClusterId([7; 16]), incarnation: 2 });
        let stamp = Stamp { time: Timestamp::from_ms(1000), node: NodeId(2) };
        token.meet_entry(RangeId(4), Epoch(1), stamp);
        let mut past = Past::default();
        past.seen.raise(NodeId(3), Timestamp::from_ms(900));
        token.meet_past(&past);
        token.meet_clock(Timestamp::from_ms(1300));
        token
    }

    #[test]
    fn a_session_is_shown_with_dates_and_says_where_it_holds_nothing() {
        assert_eq!(
            session(&token()),
            "\
cluster            07070707070707070707070707070707
incarnation        2
clock              1300.0 (2024-01-01T00:00:01.300Z)
stands at          1000.0@n2 (2024-01-01T00:00:01.000Z)
log                r4e1 1000.0@n2 (2024-01-01T00:00:01.000Z)
log, others        nothing
seen               n3 900.0 (2024-01-01T00:00:00.900Z)
seen, others       nothing
own writes, others nothing"
        );
    }

    #[test]
    fn machines_get_the_same_as_fields() {
        let json = session_json(&token());
        assert_eq!(json["stands_at"]["node"], 2);
        assert_eq!(json["log"][0]["range"], 4);
        assert_eq!(json["clock"]["utc"], "2024-01-01T00:00:01.300Z");
        assert_eq!(json["seen"]["nodes"][0]["position"]["time"], "900.0");
        assert_eq!(json["own_writes"]["others"], Json::Null);
    }
}

//! Answers about the cluster: tables for people, objects for machines.

use comfy_table::{Table, presets};
use latitude_client::wire::{
    AuditReply, AuditVerdict, HeldBack, InitReply, KeyspaceStatus, NodeStatus, OriginState,
    OriginStatus, RangeStatus, RegionReplicas, ReplicaAudit, Role, StatusReply, UnfoldedDeltas,
    ValueType,
};
use latitude_rpc::FromWire;
use latitude_types::{Epoch, Generation, KeyspaceId, Level, NodeId, RangeId, ReplicaId, Timestamp};
use serde_json::{Value as Json, json};

use crate::text::{one_line, to_base64, to_hex};
use crate::units::ByteCount;

fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    rows.for_each(|row| {
        table.add_row(row);
    });
    // Without borders, the padding at the margins is only noise.
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().into())
        .collect();
    lines.join("\n")
}

fn yes(flag: bool) -> String {
    if flag { "yes" } else { "no" }.to_string()
}

/// Nodes as a table.
pub fn nodes(nodes: &[NodeStatus]) -> String {
    let header = ["NODE", "ADDRESS", "REGION", "ZONE", "LIVE", "ROUND TRIP", "CLOCK OFFSET"];
    let row = |node: &NodeStatus| {
        let round_trip = match node.round_trip_us {
            0 => "-".to_string(),
            us => format!("{:.1} ms", us as f64 / 1000.0),
        };
        [
            NodeId(node.node).to_string(),
            node.address.clone(),
            node.region.clone(),
            node.zone.clone(),
            yes(node.live),
            round_trip,
            format!("{:+} ms", node.clock_offset_ms),
        ]
    };
    table(header, nodes.iter().map(row))
}

/// A node as JSON.
pub fn node_json(node: &NodeStatus) -> Json {
    json!({
        "node": node.node,
        "address": node.address,
        "region": node.region,
        "zone": node.zone,
        "live": node.live,
        "round_trip_us": (node.round_trip_us != 0).then_some(node.round_trip_us),
        "clock_offset_ms": node.clock_offset_ms,
        "store": to_hex(&node.store_id),
    })
}

/// What `latitude init` says when it is done.
pub fn cluster_made(reply: &InitReply) -> String {
    let id = to_hex(&reply.cluster_id);
    let first = match (reply.created, reply.nodes.len()) {
        (true, 1) => format!("Made cluster {id} of 1 node."),
        (true, count) => format!("Made cluster {id} of {count} nodes."),
        (false, _) => format!("Cluster {id} exists already."),
    };
    format!("{first}\n{}", nodes(&reply.nodes))
}

/// What `latitude init` says when it is done, as JSON.
pub fn cluster_made_json(reply: &InitReply) -> Json {
    json!({
        "cluster": to_hex(&reply.cluster_id),
        "created": reply.created,
        "nodes": reply.nodes.iter().map(node_json).collect::<Vec<_>>(),
    })
}

/// A node's status as an aligned block, and the nodes it sees.
pub fn status(status: &StatusReply) -> String {
    let cluster = if status.cluster_id.is_empty() {
        "none yet: make one with `latitude init`".to_string()
    } else {
        format!("{} (incarnation {})", to_hex(&status.cluster_id), status.cluster_incarnation)
    };
    let place = format!("{} (zone {})", status.region, status.zone);
    let store = format!("{} (start {})", to_hex(&status.store_id), status.store_starts);
    let replicas = format!("{}, leading {}", status.replicas, status.leaders);
    let mut free = format!("{} MiB", ByteCount(status.free_bytes).0 >> 20);
    if status.writes_refused {
        free += ", below the floor: writes are refused";
    }
    let snapshots =
        format!("{} sent, {} installed", status.snapshots_sent, status.snapshots_installed);
    let quarantine = match status.quarantine.as_str() {
        "" => "none",
        why => why,
    };
    let fields = [
        ("cluster", cluster),
        ("node", NodeId(status.node).to_string()),
        ("region", place),
        ("version", status.version.clone()),
        ("store", store),
        ("replicas", replicas),
        ("free space", free),
        ("quarantine", quarantine.to_string()),
        ("clock", Timestamp(status.clock).to_string()),
        ("read mode", status.read_mode.clone()),
        ("snapshots", snapshots),
        ("up", format!("{} s", status.uptime_ms / 1000)),
    ];
    let mut text = String::new();
    for (name, value) in fields {
        text += &format!("{name:<11} {value}\n");
    }
    if status.nodes.is_empty() {
        text.truncate(text.trim_end().len());
        text
    } else {
        format!("{text}\n{}", nodes(&status.nodes))
    }
}

/// A node's status as JSON.
pub fn status_json(status: &StatusReply) -> Json {
    json!({
        "cluster": (!status.cluster_id.is_empty()).then(|| to_hex(&status.cluster_id)),
        "cluster_incarnation": status.cluster_incarnation,
        "node": status.node,
        "region": status.region,
        "zone": status.zone,
        "version": status.version,
        "store": to_hex(&status.store_id),
        "store_starts": status.store_starts,
        "replicas": status.replicas,
        "leaders": status.leaders,
        "free_bytes": status.free_bytes,
        "writes_refused": status.writes_refused,
        "quarantine": (!status.quarantine.is_empty()).then_some(&status.quarantine),
        "clock": Timestamp(status.clock).to_string(),
        "physical_unix_ms": status.physical_unix_ms,
        "uptime_ms": status.uptime_ms,
        "read_mode": status.read_mode,
        "snapshots_sent": status.snapshots_sent,
        "snapshots_installed": status.snapshots_installed,
        "nodes": status.nodes.iter().map(node_json).collect::<Vec<_>>(),
    })
}

/// Ranges as a table.
pub fn ranges(ranges: &[RangeStatus]) -> String {
    let header = ["RANGE", "KEYSPACE", "START", "END", "REPLICAS", "LEADER", "TERM", "APPLIED"];
    let row = |range: &RangeStatus| {
        let replicas: Vec<String> = range.replicas.iter().map(replica).collect();
        [
            format!("{}{}", RangeId(range.range_id), Epoch(range.epoch)),
            range.keyspace.clone(),
            if range.start.is_empty() { "-".to_string() } else { one_line(&range.start) },
            range.end.as_ref().map_or("-".to_string(), |end| one_line(end)),
            replicas.join(" "),
            leader(range).map_or("?".to_string(), |node| node.to_string()),
            range.term.to_string(),
            range.applied_index.to_string(),
        ]
    };
    table(header, ranges.iter().map(row))
}

fn replica(replica: &latitude_client::wire::ReplicaStatus) -> String {
    let (node, generation) = (NodeId(replica.node), Generation(replica.generation));
    let learner = if replica.learner { " (learner)" } else { "" };
    format!("{}{learner}", ReplicaId { node, generation })
}

fn leader(range: &RangeStatus) -> Option<NodeId> {
    (range.leader != 0).then_some(NodeId(range.leader))
}

/// A range as JSON. Its bounds are bytes of any value, so beside the text there is always base64.
pub fn range_json(range: &RangeStatus) -> Json {
    let replica = |replica: &latitude_client::wire::ReplicaStatus| {
        json!({
            "node": replica.node,
            "generation": replica.generation,
            "learner": replica.learner,
        })
    };
    json!({
        "range": range.range_id,
        "epoch": range.epoch,
        "keyspace": range.keyspace,
        "start": one_line(&range.start),
        "start_base64": to_base64(&range.start),
        "end": range.end.as_ref().map(|end| one_line(end)),
        "end_base64": range.end.as_ref().map(|end| to_base64(end)),
        "replicas": range.replicas.iter().map(replica).collect::<Vec<_>>(),
        "leader": leader(range),
        "term": range.term,
        "applied_index": range.applied_index,
    })
}

/// Unfolded local writes, with the node that holds them, as a table.
pub fn deltas(rows: &[(NodeId, UnfoldedDeltas)]) -> String {
    let header = ["RANGE", "KEYSPACE", "TAKEN BY", "HELD BY", "WRITES", "BYTES", "OLDEST", "WHY"];
    let row = |(node, of): &(NodeId, UnfoldedDeltas)| {
        [
            RangeId(of.range_id).to_string(),
            of.keyspace.clone(),
            NodeId(of.origin).to_string(),
            node.to_string(),
            of.count.to_string(),
            of.bytes.to_string(),
            format!("{:.1} s", of.oldest_ms as f64 / 1000.0),
            why_unfolded(of),
        ]
    };
    table(header, rows.iter().map(row))
}

fn why_unfolded(of: &UnfoldedDeltas) -> String {
    let nodes: Vec<_> = of.held_back_by.iter().map(|node| NodeId(*node).to_string()).collect();
    let nodes = nodes.join(", ");
    match of.held_back() {
        HeldBack::Unspecified => "-".into(),
        HeldBack::BeingFolded => "being folded".into(),
        HeldBack::NoQuorum => format!("no quorum: {nodes} silent"),
        HeldBack::NoLeader if nodes.is_empty() => "no leader".into(),
        HeldBack::NoLeader => format!("no leader: {nodes} silent"),
        HeldBack::LeaderSilent => format!("the leader {nodes} is silent"),
        HeldBack::OnItsWay => format!("on its way to the leader {nodes}"),
        HeldBack::AtLeader => format!("at the leader {nodes}"),
    }
}

/// Unfolded local writes as JSON.
pub fn deltas_json((node, of): &(NodeId, UnfoldedDeltas)) -> Json {
    json!({
        "range": of.range_id,
        "keyspace": of.keyspace,
        "origin": of.origin,
        "node": node.0,
        "writes": of.count,
        "bytes": of.bytes,
        "oldest_ms": of.oldest_ms,
        "folded": of.folded,
        "held_back": of.held_back().as_str_name(),
        "held_back_by": of.held_back_by,
    })
}

/// What an audit of one range found: a line of it all, and a table of the replicas.
pub fn audit(found: &AuditReply) -> String {
    let range = format!("{}{}", RangeId(found.range_id), Epoch(found.epoch));
    let replicas = found.replicas.iter();
    let named = |which: fn(&ReplicaAudit) -> bool| {
        let nodes = replicas.clone().filter(|replica| which(replica));
        nodes.map(|replica| NodeId(replica.node).to_string()).collect::<Vec<_>>().join(", ")
    };
    let missing = named(|replica| replica.checksum.is_none() && !replica.differs);
    let mut verdict = match found.verdict() {
        AuditVerdict::Equal => "equal".to_string(),
        AuditVerdict::Differs => format!("DIFFERS: {}", named(|replica| replica.differs)),
        AuditVerdict::Incomplete | AuditVerdict::Unspecified => "incomplete".into(),
    };
    if !missing.is_empty() {
        verdict += &format!("; not compared: {missing}");
    }
    let first = format!("{range} of {} at {}: {verdict}", found.keyspace, found.index);
    let header = ["NODE", "REGION", "ROLE", "KEYS", "ROWS", "CHECKSUM", ""];
    let row = |replica: &ReplicaAudit| {
        let (node, generation) = (NodeId(replica.node), Generation(replica.generation));
        let count = |count: u64| replica.checksum.map_or("-".to_string(), |_| count.to_string());
        let remark = match (replica.differs, replica.checksum) {
            (true, Some(_)) => "DIFFERS".to_string(),
            (true, None) => format!("CANNOT BE READ: {}", replica.why),
            (false, Some(_)) => String::new(),
            (false, None) => format!("not compared: {}", replica.why),
        };
        [
            ReplicaId { node, generation }.to_string(),
            replica.region.clone(),
            role(replica).unwrap_or("-").to_string(),
            count(replica.keys),
            count(replica.rows),
            replica.checksum.map_or("-".to_string(), |checksum| format!("{checksum:016x}")),
            remark,
        ]
    };
    format!("{first}\n{}", table(header, found.replicas.iter().map(row)))
}

fn role(replica: &ReplicaAudit) -> Option<&'static str> {
    match replica.role() {
        Role::Unspecified => None,
        Role::Leader => Some("leader"),
        Role::Follower => Some("follower"),
        Role::Learner => Some("learner"),
    }
}

/// What an audit of one range found, as JSON. Checksums are text: they do not fit a number of every reader.
pub fn audit_json(found: &AuditReply) -> Json {
    let replica = |replica: &ReplicaAudit| {
        let counted = |count: u64| replica.checksum.map(|_| count);
        json!({
            "node": replica.node,
            "generation": replica.generation,
            "region": replica.region,
            "role": role(replica),
            "differs": replica.differs,
            "checksum": replica.checksum.map(|checksum| format!("{checksum:016x}")),
            "rows": counted(replica.rows),
            "keys": counted(replica.keys),
            "why": (!replica.why.is_empty()).then_some(&replica.why),
        })
    };
    json!({
        "range": found.range_id,
        "epoch": found.epoch,
        "keyspace": found.keyspace,
        "index": found.index,
        "verdict": match found.verdict() {
            AuditVerdict::Equal => "equal",
            AuditVerdict::Differs => "differs",
            AuditVerdict::Incomplete | AuditVerdict::Unspecified => "incomplete",
        },
        "replicas": found.replicas.iter().map(replica).collect::<Vec<_>>(),
    })
}

/// Who takes local writes, as a table.
pub fn origins(origins: &[OriginStatus]) -> String {
    let header = ["RANGE", "KEYSPACE", "NODE", "STATE", "IN THE LOG UP TO", "AGE", "LAST"];
    let row = |of: &OriginStatus| {
        [
            RangeId(of.range_id).to_string(),
            of.keyspace.clone(),
            NodeId(of.node).to_string(),
            origin_state(of),
            Timestamp(of.folded).to_string(),
            format!("{:.1} s", of.folded_age_ms as f64 / 1000.0),
            of.last.map_or("-".to_string(), |last| Timestamp(last).to_string()),
        ]
    };
    table(header, origins.iter().map(row))
}

/// Where it stands, and for what a seal waits.
fn origin_state(of: &OriginStatus) -> String {
    match (of.state(), of.last) {
        (OriginState::Unspecified, _) => "-".into(),
        (OriginState::Active, _) => "active".into(),
        (OriginState::Sealing, Some(_)) => "sealing: being folded".into(),
        (OriginState::Sealing, None) if of.live => "sealing: it has not stopped yet".into(),
        (OriginState::Sealing, None) => format!("sealing: {} is silent", NodeId(of.node)),
        (OriginState::Sealed, _) => "sealed".into(),
        (OriginState::Lost, _) => "lost".into(),
    }
}

/// An origin that has been changed, as a line.
pub fn origin_line(of: &OriginStatus) -> String {
    let (node, range, keyspace) = (NodeId(of.node), RangeId(of.range_id), &of.keyspace);
    match (of.state(), of.last) {
        (OriginState::Sealed, Some(last)) => {
            let last = Timestamp(last);
            format!(
                "{node} is sealed in {range} of {keyspace}: all it took, up to {last}, is in the log."
            )
        }
        _ => format!("{node} is {} in {range} of {keyspace}.", origin_state(of)),
    }
}

/// An origin as JSON.
pub fn origin_json(of: &OriginStatus) -> Json {
    json!({
        "range": of.range_id,
        "keyspace": of.keyspace,
        "node": of.node,
        "state": of.state().as_str_name(),
        "folded": of.folded,
        "folded_age_ms": of.folded_age_ms,
        "last": of.last,
        "live": of.live,
    })
}

/// Keyspaces as a table.
pub fn keyspaces(keyspaces: &[KeyspaceStatus]) -> String {
    let header = [
        "KEYSPACE",
        "ID",
        "TYPE",
        "RANGES",
        "PLACE",
        "LEARNERS",
        "LOG ONLY",
        "LEVEL",
        "VALUE LIMIT",
    ];
    let row = |keyspace: &KeyspaceStatus| {
        [
            keyspace.name.clone(),
            KeyspaceId(keyspace.keyspace_id).to_string(),
            value_type(keyspace).to_string(),
            keyspace.ranges.to_string(),
            regions(&keyspace.place),
            regions(&keyspace.learners),
            yes(keyspace.log_only),
            level(keyspace).map_or("-", Level::name).to_string(),
            ByteCount(keyspace.value_len_max.into()).to_string(),
        ]
    };
    table(header, keyspaces.iter().map(row))
}

fn regions(regions: &[RegionReplicas]) -> String {
    let region = |place: &RegionReplicas| format!("{}={}", place.region, place.replicas);
    match regions {
        [] => "-".to_string(),
        _ => regions.iter().map(region).collect::<Vec<_>>().join(","),
    }
}

/// A keyspace as JSON.
pub fn keyspace_json(keyspace: &KeyspaceStatus) -> Json {
    let region =
        |place: &RegionReplicas| json!({ "region": place.region, "replicas": place.replicas });
    json!({
        "keyspace": keyspace.name,
        "id": keyspace.keyspace_id,
        "type": value_type(keyspace),
        "ranges": keyspace.ranges,
        "place": keyspace.place.iter().map(region).collect::<Vec<_>>(),
        "learners": keyspace.learners.iter().map(region).collect::<Vec<_>>(),
        "log_only": keyspace.log_only,
        "default_level": level(keyspace).map(Level::name),
        "value_len_max": keyspace.value_len_max,
    })
}

/// The name of a keyspace's type.
pub fn value_type(keyspace: &KeyspaceStatus) -> &'static str {
    match keyspace.r#type() {
        ValueType::Register | ValueType::Unspecified => "register",
        ValueType::Siblings => "siblings",
        ValueType::Counter => "counter",
        ValueType::Set => "set",
        ValueType::Map => "map",
        ValueType::Flag => "flag",
    }
}

/// `None` also for a level this version does not know.
fn level(keyspace: &KeyspaceStatus) -> Option<Level> {
    Option::<Level>::from_wire(keyspace.default_level).ok().flatten()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use latitude_client::wire::ReplicaStatus;

    use super::*;

    fn two_nodes() -> Vec<NodeStatus> {
        let node = |node, region: &str, round_trip_us, clock_offset_ms| NodeStatus {
            node,
            address: format!("10.0.0.{node}:7400"),
            region: region.to_string(),
            zone: "a".to_string(),
            live: true,
            round_trip_us,
            clock_offset_ms,
            store_id: Bytes::from_static(&[0xab; 16]),
        };
        vec![node(1, "eu", 0, 0), node(2, "us", 81_250, -3)]
    }

    #[test]
    fn local_writes_are_told_with_what_holds_them_back() {
        let of = |held_back: HeldBack, held_back_by: &[u32]| UnfoldedDeltas {
            range_id: 7,
            keyspace: "carts".into(),
            origin: 3,
            count: 12,
            bytes: 2048,
            oldest_ms: 61_500,
            held_back: held_back as i32,
            held_back_by: held_back_by.to_vec(),
            ..UnfoldedDeltas::default()
        };
        let rows = [
            (NodeId(3), of(HeldBack::NoLeader, &[1, 2])),
            (NodeId(1), of(HeldBack::AtLeader, &[2])),
        ];
        let table = deltas(&rows);
        assert!(
            table.lines().any(|line| line.ends_with("61.5 s  no leader: n1, n2 silent")),
            "{table}"
        );
        assert!(table.lines().any(|line| line.ends_with("at the leader n2")), "{table}");
        assert_eq!(deltas_json(&rows[0])["held_back"], "HELD_BACK_NO_LEADER");
    }

    #[test]
    fn origins_are_told_with_what_a_seal_waits_for() {
        let of = |state: OriginState, last, live| OriginStatus {
            range_id: 7,
            keyspace: "carts".into(),
            node: 2,
            state: state as i32,
            folded: Timestamp::from_ms(5_000).0,
            folded_age_ms: 1_500,
            last,
            applied_index: 9,
            live,
        };
        let table = origins(&[
            of(OriginState::Sealing, None, false),
            of(OriginState::Sealed, Some(Timestamp::from_ms(4_000).0), true),
        ]);
        assert!(table.contains("sealing: n2 is silent"), "{table}");
        assert!(table.lines().any(|line| line.ends_with("1.5 s  4000.0")), "{table}");
        let sealed = of(OriginState::Sealed, Some(Timestamp::from_ms(4_000).0), true);
        assert_eq!(
            origin_line(&sealed),
            "n2 is sealed in r7 of carts: all it took, up to 4000.0, is in the log."
        );
        let active = of(OriginState::Active, None, true);
        assert_eq!(origin_line(&active), "n2 is active in r7 of carts.");
        assert_eq!(origin_json(&sealed)["state"], "ORIGIN_STATE_SEALED");
    }

    #[test]
    fn nodes_are_a_table_without_borders() {
        assert_eq!(
            nodes(&two_nodes()),
            "\
NODE  ADDRESS        REGION  ZONE  LIVE  ROUND TRIP  CLOCK OFFSET
n1    10.0.0.1:7400  eu      a     yes   -           +0 ms
n2    10.0.0.2:7400  us      a     yes   81.2 ms     -3 ms"
        );
    }

    #[test]
    fn an_unmeasured_round_trip_is_null_and_not_zero() {
        let [one, two] = &two_nodes()[..] else { panic!("two nodes") };
        assert_eq!(node_json(one)["round_trip_us"], Json::Null);
        assert_eq!(node_json(two)["round_trip_us"], 81_250);
        assert_eq!(node_json(two)["store"], "ab".repeat(16));
    }

    #[test]
    fn a_range_shows_its_bounds_replicas_and_leader() {
        let replica =
            |node, generation| ReplicaStatus { node, generation, learner: generation == 3 };
        let range = RangeStatus {
            range_id: 7,
            epoch: 2,
            keyspace: "users".to_string(),
            start: Bytes::new(),
            end: Some(Bytes::from_static(b"m\xff")),
            replicas: vec![replica(1, 1), replica(2, 3)],
            leader: 0,
            term: 4,
            applied_index: 99,
        };
        assert_eq!(
            ranges(std::slice::from_ref(&range)),
            "\
RANGE  KEYSPACE  START  END    REPLICAS             LEADER  TERM  APPLIED
r7e2   users     -      m\\xff  n1g1 n2g3 (learner)  ?       4     99"
        );
        let json = range_json(&range);
        assert_eq!((&json["leader"], &json["end_base64"]), (&Json::Null, &json!("bf8=")));
    }

    #[test]
    fn an_audit_says_who_differs_and_who_was_not_compared() {
        let replica = |node, checksum| ReplicaAudit {
            node,
            generation: 1,
            region: "eu".into(),
            role: Role::Follower as i32,
            checksum,
            rows: 12,
            keys: 10,
            ..ReplicaAudit::default()
        };
        let gone = |node| ReplicaAudit { role: 0, why: "n4 is gone".into(), ..replica(node, None) };
        let damaged = ReplicaAudit { differs: true, ..gone(5) };
        let mut found = AuditReply {
            range_id: 7,
            epoch: 2,
            keyspace: "users".into(),
            index: 99,
            replicas: vec![replica(1, Some(0xab)), replica(2, Some(0xab)), gone(4)],
            verdict: AuditVerdict::Incomplete as i32,
        };
        assert_eq!(
            audit(&found),
            "\
r7e2 of users at 99: incomplete; not compared: n4
NODE  REGION  ROLE      KEYS  ROWS  CHECKSUM
n1g1  eu      follower  10    12    00000000000000ab
n2g1  eu      follower  10    12    00000000000000ab
n4g1  eu      -         -     -     -                 not compared: n4 is gone"
        );
        found.replicas[1] = ReplicaAudit { differs: true, ..replica(2, Some(0xac)) };
        found.replicas.push(damaged);
        found.set_verdict(AuditVerdict::Differs);
        let text = audit(&found);
        assert!(
            text.starts_with("r7e2 of users at 99: DIFFERS: n2, n5; not compared: n4"),
            "{text}"
        );
        assert!(text.contains("00000000000000ac  DIFFERS"), "{text}");
        assert!(text.ends_with("CANNOT BE READ: n4 is gone"), "{text}");
        let json = audit_json(&found);
        assert_eq!(json["verdict"], "differs");
        assert_eq!(json["replicas"][1]["checksum"], "00000000000000ac");
        assert_eq!(
            (&json["replicas"][2]["checksum"], &json["replicas"][2]["rows"]),
            (&Json::Null, &Json::Null)
        );
    }

    #[test]
    fn a_keyspace_shows_where_it_lives_and_its_limit() {
        let keyspace = KeyspaceStatus {
            keyspace_id: 16,
            name: "users".to_string(),
            r#type: ValueType::Register as i32,
            ranges: 4,
            place: vec![
                RegionReplicas { region: "eu".to_string(), replicas: 2 },
                RegionReplicas { region: "us".to_string(), replicas: 1 },
            ],
            learners: vec![RegionReplicas { region: "ap".to_string(), replicas: 1 }],
            log_only: true,
            default_level: latitude_client::wire::Level::Strict as i32,
            value_len_max: 1 << 20,
        };
        assert_eq!(
            keyspaces(std::slice::from_ref(&keyspace)),
            "\
KEYSPACE  ID   TYPE      RANGES  PLACE      LEARNERS  LOG ONLY  LEVEL   VALUE LIMIT
users     k16  register  4       eu=2,us=1  ap=1      yes       strict  1MiB"
        );
        assert_eq!(keyspace_json(&keyspace)["default_level"], "strict");
    }

    #[test]
    fn a_node_of_no_cluster_says_how_to_make_one() {
        let text = status(&StatusReply::default());
        assert!(
            text.starts_with("cluster     none yet: make one with `latitude init`\n"),
            "{text}"
        );
        assert_eq!(status_json(&StatusReply::default())["cluster"], Json::Null);
    }

    #[test]
    fn a_node_that_refuses_writes_says_so() {
        let full = StatusReply { free_bytes: 5 << 20, writes_refused: true, ..Default::default() };
        assert!(status(&full).contains("free space  5 MiB, below the floor: writes are refused"));
    }

    #[test]
    fn making_a_cluster_twice_is_told_from_making_it() {
        let reply = InitReply {
            cluster_id: Bytes::from_static(&[1; 16]),
            nodes: two_nodes(),
            created: true,
        };
        let id = "01".repeat(16);
        assert!(cluster_made(&reply).starts_with(&format!("Made cluster {id} of 2 nodes.\nNODE")));
        let again = InitReply { created: false, ..reply };
        assert!(cluster_made(&again).starts_with(&format!("Cluster {id} exists already.")));
        assert_eq!(cluster_made_json(&again)["created"], false);
    }
}

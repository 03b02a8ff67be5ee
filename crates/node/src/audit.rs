//! Audits: whether the replicas of a range hold the same.
//!
//! ```text
//!   operator ─▶ any node ── "begin one" ──▶ leader ─▶ an entry of the log, at index i ─▶ every replica: a checksum
//!                  │                                                                     of its base right after i
//!                  └─ "what came of i?" ──▶ every replica, again and again, until it says or time is up
//! ```
//!
//! Nothing here decides what is compared ([`latitude_range::Auditor`]) nor who is wrong
//! ([`latitude_range::differing`]). A replica that is found to differ is reported and nothing else: it goes on
//! serving until a person has it rebuilt.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use latitude_consensus::AuditOutcome;
use latitude_directory::RangeRecord;
use latitude_range::{Audited, differing};
use latitude_rpc::pb::peer::audit_answer::Outcome;
use latitude_rpc::pb::peer::{self as pb};
use latitude_rpc::pb::v1;
use latitude_types::{Error, KeyspaceId, NodeId, RangeId, Reason, ReplicaId};
use prost::Message as _;
use tokio::time::{Instant, sleep, timeout_at};

use crate::shared::{NO_PANIC, Shared};

/// How long an audit may take unless the operator says.
const PATIENCE: Duration = Duration::from_secs(30);
/// A replica that says nothing for so long is waited for no more.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Pause before a replica is asked again: doubles up to the last.
const ASK_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// What one replica came to, or why it was not compared.
struct Found {
    replica: ReplicaId,
    role: i32,
    outcome: Result<Audited, Missing>,
}

enum Missing {
    /// Its base is damaged.
    Unreadable(String),
    NotCompared(String),
}

/// Compares the replicas of a range.
///
/// # Errors
/// There is no such range, or no leader of it has begun the audit in time. Replicas that were not compared are no
/// error: the reply names them.
pub(crate) async fn run(
    shared: &Shared,
    request: v1::AuditRequest,
) -> Result<v1::AuditReply, Error> {
    shared.node()?;
    let range = RangeId(request.range_id);
    let record = shared.catalog.current().range(range).cloned();
    let record = record
        .ok_or_else(|| Error::new(Reason::ArgumentInvalid, format!("there is no range {range}")))?;
    let patience = match request.timeout_ms {
        0 => PATIENCE,
        ms => Duration::from_millis(u64::from(ms)),
    };
    let deadline = Instant::now() + patience;
    let index = begin(shared, &record, deadline).await?;
    let replicas = record.replicas().map(|replica| look(shared, range, replica, index, deadline));
    let reply = reply(shared, &record, index, join_all(replicas).await);
    tell(shared, &reply);
    Ok(reply)
}

/// Answers another node: begins an audit, or says what came of one here.
pub(crate) async fn answer(
    shared: &Shared,
    range: RangeId,
    question: Bytes,
) -> Result<pb::AuditAnswer, Error> {
    let malformed = |error: prost::DecodeError| Error::new(Reason::Malformed, error.to_string());
    let question = pb::AuditQuestion::decode(question).map_err(malformed)?;
    answer_here(shared, range, question).await
}

async fn answer_here(
    shared: &Shared,
    range: RangeId,
    question: pb::AuditQuestion,
) -> Result<pb::AuditAnswer, Error> {
    let Some(handle) = shared.range(range) else {
        let quarantined = shared.quarantined.lock().expect(NO_PANIC).get(&range).cloned();
        return Err(match quarantined {
            Some(why) => Error::new(Reason::ReplicaQuarantined, why),
            None => Error::new(Reason::RangeNotHere, format!("no replica of range {range} here")),
        });
    };
    let index = match question.index {
        Some(index) => index,
        None => handle.proposer.audit().await?.index,
    };
    // Looked at first: an entry that is told to be applied has its outcome by then, or will have none.
    let applied_index = handle.group.applied_position().0.index;
    let outcome = match handle.group.audit(index) {
        Some(AuditOutcome::Done(Audited { checksum, rows, keys })) => {
            Some(Outcome::Sum(pb::AuditSum { checksum, rows, keys }))
        }
        Some(AuditOutcome::Unreadable(why)) => Some(Outcome::Unreadable(why)),
        Some(AuditOutcome::NotMade(why)) => Some(Outcome::NotMade(why)),
        None if applied_index >= index => Some(Outcome::NotMade(
            "it was started meanwhile, or took a snapshot of what came later".into(),
        )),
        Some(AuditOutcome::UnderWay) | None => None,
    };
    Ok(pb::AuditAnswer { index, applied_index, role: handle.role() as i32, outcome })
}

async fn ask(
    shared: &Shared,
    node: NodeId,
    range: RangeId,
    index: Option<u64>,
) -> Result<pb::AuditAnswer, String> {
    let question = pb::AuditQuestion { index };
    if shared.node() == Ok(node) {
        answer_here(shared, range, question).await.map_err(|error| error.to_string())
    } else {
        shared.peers().audit(node, range, question).await.map_err(|error| error.0)
    }
}

/// Has whoever leads the range begin an audit; says where it stands in the log.
async fn begin(shared: &Shared, record: &RangeRecord, deadline: Instant) -> Result<u64, Error> {
    let mut refusals = BTreeMap::new();
    loop {
        let handle = shared.range(record.id);
        let leader = handle.and_then(|handle| handle.group.leadership().leader);
        let voters = record.voters.iter().map(|replica| replica.node);
        for node in leader.map(|leader| leader.node).into_iter().chain(voters) {
            let until = deadline.min(Instant::now() + SILENCE_MAX);
            let asked = timeout_at(until, ask(shared, node, record.id, None)).await;
            match asked.unwrap_or_else(|_| Err("no answer in time".into())) {
                Ok(answer) => return Ok(answer.index),
                Err(why) => refusals.insert(node, why),
            };
        }
        if Instant::now() + ASK_PAUSE.1 >= deadline {
            let whys: Vec<_> =
                refusals.iter().map(|(node, why)| format!("{node}: {why}")).collect();
            let message = format!(
                "nobody has begun an audit of range {} in time: {}",
                record.id,
                whys.join("; ")
            );
            return Err(Error::new(Reason::DeadlineExceeded, message));
        }
        sleep(ASK_PAUSE.1).await;
    }
}

/// What came of the audit at one replica, as soon as that is known there.
async fn look(
    shared: &Shared,
    range: RangeId,
    replica: ReplicaId,
    index: u64,
    deadline: Instant,
) -> Found {
    let mut role = v1::Role::Unspecified as i32;
    let mut why = "it did not answer in time".to_string();
    let (mut heard, mut pause) = (Instant::now(), ASK_PAUSE.0);
    let outcome = loop {
        let until = deadline.min(heard + SILENCE_MAX);
        match timeout_at(until, ask(shared, replica.node, range, Some(index))).await {
            Err(_) => break Err(Missing::NotCompared(why)),
            Ok(Err(refused)) => why = refused,
            Ok(Ok(answer)) => {
                (heard, role) = (Instant::now(), answer.role);
                match answer.outcome {
                    Some(Outcome::Sum(pb::AuditSum { checksum, rows, keys })) => {
                        break Ok(Audited { checksum, rows, keys });
                    }
                    Some(Outcome::Unreadable(why)) => break Err(Missing::Unreadable(why)),
                    Some(Outcome::NotMade(why)) => break Err(Missing::NotCompared(why)),
                    None if answer.applied_index < index => {
                        why = format!("its log is applied up to {} in time", answer.applied_index);
                    }
                    None => why = "its rows were not read in time".into(),
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(ASK_PAUSE.1);
    };
    Found { replica, role, outcome }
}

fn reply(shared: &Shared, record: &RangeRecord, index: u64, found: Vec<Found>) -> v1::AuditReply {
    let directory = shared.catalog.current();
    let region = |node| directory.node(node).map_or_else(String::new, |node| node.region.clone());
    let keyspace = directory.keyspaces().find(|keyspace| keyspace.id == record.keyspace);
    let keyspace = match keyspace {
        Some(keyspace) => keyspace.name.clone(),
        None if record.keyspace == KeyspaceId::META => "(meta)".into(),
        None => String::new(),
    };
    let audited = found.iter().filter_map(|of| Some((of.replica, *of.outcome.as_ref().ok()?)));
    let differ = differing(&audited.collect());
    let replicas = found.into_iter().map(|Found { replica, role, outcome }| {
        let mut audit = v1::ReplicaAudit {
            node: replica.node.0,
            generation: replica.generation.0,
            region: region(replica.node),
            role,
            differs: differ.contains(&replica),
            ..v1::ReplicaAudit::default()
        };
        match outcome {
            Ok(Audited { checksum, rows, keys }) => {
                (audit.checksum, audit.rows, audit.keys) = (Some(checksum), rows, keys);
            }
            Err(Missing::Unreadable(why)) => (audit.differs, audit.why) = (true, why),
            Err(Missing::NotCompared(why)) => audit.why = why,
        }
        audit
    });
    let mut reply = v1::AuditReply {
        range_id: record.id.0,
        epoch: record.epoch.0,
        keyspace,
        index,
        replicas: replicas.collect(),
        ..v1::AuditReply::default()
    };
    let verdict = if reply.replicas.iter().any(|replica| replica.differs) {
        v1::AuditVerdict::Differs
    } else if reply.replicas.iter().any(|replica| replica.checksum.is_none()) {
        v1::AuditVerdict::Incomplete
    } else {
        v1::AuditVerdict::Equal
    };
    reply.set_verdict(verdict);
    reply
}

/// Counts what was found; and says it if a person must look.
fn tell(shared: &Shared, reply: &v1::AuditReply) {
    shared.metrics.observe_audit(match reply.verdict() {
        v1::AuditVerdict::Equal => "equal",
        v1::AuditVerdict::Differs => "differs",
        v1::AuditVerdict::Incomplete | v1::AuditVerdict::Unspecified => "incomplete",
    });
    for replica in reply.replicas.iter().filter(|replica| replica.differs) {
        tracing::error!(
            range = %RangeId(reply.range_id),
            node = %NodeId(replica.node),
            index = reply.index,
            checksum = ?replica.checksum,
            why = replica.why,
            "ALARM: an audit found that a replica does not hold what the others hold"
        );
    }
}

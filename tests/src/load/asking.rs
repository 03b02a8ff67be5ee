//! One operation of the load: asked of the SDK, and what it answered as histories have it.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use latitude_checker::history::{MicroOp, Value, Version};
use latitude_client::{Answer, CasOutcome, Error, Expected, Keyspace, Receipt, WriteTime};
use latitude_rpc::FromWire;
use latitude_rpc::pb::v1;
use latitude_types::Writer;

use super::Subject;

/// What became of an operation.
pub(super) enum Ended {
    /// It took effect: as invoked, with what a read saw.
    Ok {
        done: MicroOp,
        /// Of the value written or found; a read that found nothing has none.
        version: Option<Version>,
        receipt: Option<Box<Receipt>>,
    },
    /// The condition did not hold.
    Mismatch {
        /// Of the value found instead.
        version: Option<Version>,
    },
    Failed(Error),
}

/// Asks the SDK for what a step on a key of this subject says.
pub(super) async fn ask(
    subject: Subject,
    keyspace: &Keyspace,
    micro_op: &MicroOp,
) -> Result<Ended> {
    let written = |answer: Answer<WriteTime>| Ended::Ok {
        done: micro_op.clone(),
        version: version(&answer.value),
        receipt: answer.receipt.map(Box::new),
    };
    let compared = |answer: Answer<CasOutcome>| match answer.value {
        CasOutcome::Applied { version } => written(answer.map(|_| version)),
        CasOutcome::Mismatch { found } => {
            Ended::Mismatch { version: found.as_ref().and_then(version) }
        }
    };
    let ended = match micro_op {
        MicroOp::Read { key, .. } if subject == Subject::Counters => {
            keyspace.counter(key).await.map(|answer| Ended::Ok {
                done: read(key, Value::Integer(answer.value)),
                version: None,
                receipt: answer.receipt.map(Box::new),
            })
        }
        MicroOp::Read { key, .. } if subject == Subject::Sets => {
            match keyspace.members(key).await {
                Ok(answer) => {
                    let members = answer.value.iter().map(|member| value_of(member));
                    Ok(Ended::Ok {
                        done: read(key, Value::List(members.collect::<Result<_>>()?)),
                        version: None,
                        receipt: answer.receipt.map(Box::new),
                    })
                }
                Err(error) => Err(error),
            }
        }
        MicroOp::Add { key, amount } if subject == Subject::Counters => {
            keyspace.add(key, *amount).await.map(|answer| written(answer.map(|of| of.version)))
        }
        MicroOp::Add { key, amount } => keyspace.set_add(key, bytes_of(*amount)).await.map(written),
        MicroOp::Remove { key, element } => {
            keyspace.set_remove(key, bytes_of(*element)).await.map(written)
        }
        MicroOp::Read { key, .. } => match keyspace.get(key).await {
            Ok(Answer { value: Some(found), receipt, .. }) => Ok(Ended::Ok {
                done: read(key, Value::Integer(value_of(&found.bytes)?)),
                version: version(&found.version),
                receipt: receipt.map(Box::new),
            }),
            Ok(Answer { value: None, receipt, .. }) => Ok(Ended::Ok {
                done: read(key, Value::Absent),
                version: None,
                receipt: receipt.map(Box::new),
            }),
            Err(error) => Err(error),
        },
        MicroOp::Write { key, value } => keyspace.put(key, bytes_of(*value)).await.map(written),
        MicroOp::Delete { key } => keyspace.delete(key).await.map(written),
        MicroOp::PutIfAbsent { key, value } => {
            keyspace.put_if_absent(key, bytes_of(*value)).await.map(compared)
        }
        MicroOp::CompareAndSet { key, from, to } => {
            let expected = from.map_or(Expected::Absent, |from| Expected::Value(bytes_of(from)));
            keyspace.compare_and_set(key, expected, Some(bytes_of(*to))).await.map(compared)
        }
        other => bail!("the load does not know {other}"),
    };
    Ok(ended.unwrap_or_else(Ended::Failed))
}

/// The value and version of a bare answer.
pub(super) fn found(got: v1::GetResult) -> Result<(Value, Option<Version>)> {
    let Some(bytes) = got.value else { return Ok((Value::Absent, None)) };
    let wire = got.version.context("a value without a version")?;
    Ok((Value::Integer(value_of(&bytes)?), version(&WriteTime::from_wire(&wire)?)))
}

/// As histories have it: comparable over all keys, and as the store compares them.
fn version(version: &WriteTime) -> Option<Version> {
    let WriteTime { time, writer, sequence } = *version;
    Some(Version(match writer {
        // At equal times the log is above.
        Writer::Node(node) => vec![time.0, 1, u64::from(node.0), sequence],
        Writer::Client(client) => {
            let client = u128::from_be_bytes(client.0);
            vec![time.0, 0, (client >> 64) as u64, client as u64, sequence]
        }
    }))
}

fn read(key: &str, value: Value) -> MicroOp {
    MicroOp::Read { key: key.to_owned(), value }
}

fn bytes_of(value: i64) -> Bytes {
    value.to_string().into()
}

fn value_of(bytes: &[u8]) -> Result<i64> {
    let text = std::str::from_utf8(bytes).context("a value nobody wrote")?;
    text.parse().with_context(|| format!("a value nobody wrote: {text:?}"))
}

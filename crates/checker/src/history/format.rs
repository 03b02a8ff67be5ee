//! An event as a line of JSON. A field the format does not have is an error: a judge that ignored it
//! might judge another history than the one recorded.

use std::io::{self, Write};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::{Body, Event, Extras, MicroOp, Phase, Version};

/// The fields of a line, in the order in which they are written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<V> {
    index: u64,
    #[serde(rename = "type")]
    phase: Phase,
    process: Process,
    time: u64,
    f: String,
    value: V,
    // The fields of `Extras` once more: unknown fields cannot be denied through a flattened struct.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    level: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_from: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receipt: Option<serde_json::Value>,
    #[serde(default, rename = "final", skip_serializing_if = "std::ops::Not::not")]
    is_final: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum Process {
    Client(u64),
    Nemesis(Nemesis),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Nemesis {
    #[serde(rename = "nemesis")]
    Nemesis,
}

impl Event {
    /// Writes the event and the end of its line in one call, so that lines of a shared file are whole.
    pub(crate) fn write_line(&self, output: &mut impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        output.write_all(&line)
    }

    fn line<V>(&self, phase: Phase, process: Process, value: V, extras: &Extras) -> Line<V> {
        let Extras { node, level, version, retry, token_from, receipt, is_final } = extras.clone();
        let (index, time, f) = (self.index, self.time_nanos, self.f.clone());
        Line {
            index,
            phase,
            process,
            time,
            f,
            value,
            node,
            level,
            version,
            retry,
            token_from,
            receipt,
            is_final,
        }
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.body {
            Body::Client { process, phase, micro_ops, extras } => self
                .line(*phase, Process::Client(*process), micro_ops, extras)
                .serialize(serializer),
            Body::Nemesis { value } => {
                let process = Process::Nemesis(Nemesis::Nemesis);
                self.line(Phase::Info, process, value, &Extras::default()).serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let line = Line::<serde_json::Value>::deserialize(deserializer)?;
        let body = match line.process {
            Process::Client(process) => Body::Client {
                process,
                phase: line.phase,
                micro_ops: Vec::<MicroOp>::deserialize(line.value).map_err(D::Error::custom)?,
                extras: Extras {
                    node: line.node,
                    level: line.level,
                    version: line.version,
                    retry: line.retry,
                    token_from: line.token_from,
                    receipt: line.receipt,
                    is_final: line.is_final,
                },
            },
            Process::Nemesis(_) if line.phase == Phase::Info => Body::Nemesis { value: line.value },
            Process::Nemesis(_) => return Err(D::Error::custom("the nemesis writes `info` only")),
        };
        Ok(Self { index: line.index, time_nanos: line.time, f: line.f, body })
    }
}

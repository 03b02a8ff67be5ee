//! What came out, for people and for tools.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value as Json, json};

mod wide_area;

use crate::keys::Distribution;
use crate::manner::Manner;
use crate::wide_area::WideAreaRow;
use crate::workload::Workload;

/// What a run found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Report {
    pub(crate) rounds: Vec<Round>,
    pub(crate) idle: Vec<IdleRow>,
    pub(crate) wide_area: Vec<WideAreaRow>,
}

/// How a report is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Tables of medians.
    Table,
    /// A JSON object a line: every round, then the medians.
    JsonLines,
}

/// What rounds have in common that are repetitions of each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Case {
    pub(crate) label: String,
    pub(crate) workload: Workload,
    pub(crate) manner: Manner,
    pub(crate) distribution: Distribution,
    pub(crate) clients: u32,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, workload, manner, clients, .. } = self;
        let space = if label.is_empty() { "" } else { " " };
        write!(f, "{label}{space}{} with {clients} clients, {manner}", workload.name())
    }
}

/// One round, or the median of several: each figure for itself.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Round {
    pub(crate) case: Case,
    /// Counted from 1; how many there were, for a median.
    pub(crate) round: u32,
    pub(crate) seconds: f64,
    pub(crate) operations: u64,
    pub(crate) per_second: f64,
    /// p50, p95, p99, p99.9.
    pub(crate) latency_us: [f64; 4],
    pub(crate) latency_max_us: f64,
    /// p50 and p99 of reads, if there were any.
    pub(crate) read_latency_us: Option<[f64; 2]>,
    /// The share of reads that were served by a replica that does not lead, of those that told.
    pub(crate) by_followers: Option<f64>,
    /// The share of reads that waited until their replica knew enough.
    pub(crate) waited: Option<f64>,
    /// CPU time of all nodes for an operation.
    pub(crate) server_us: Option<f64>,
    /// CPU time of this process for an operation.
    pub(crate) client_us: Option<f64>,
    /// Of each node; empty if nothing was written.
    pub(crate) syncs_per_1000_writes: Vec<f64>,
    pub(crate) operations_per_entry: Option<f64>,
    /// Cores that were busy with something else.
    pub(crate) other_cores: Option<f64>,
    /// By reason; in a median, the sum.
    pub(crate) errors: BTreeMap<&'static str, u64>,
}

/// A cluster at rest; figures are of each node.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct IdleRow {
    /// Ranges made for it.
    pub(crate) ranges: u32,
    /// Ranges the cluster has in all.
    pub(crate) ranges_led: usize,
    pub(crate) seconds: f64,
    /// Of one core.
    pub(crate) cpu_percent: Vec<f64>,
    pub(crate) resident: Vec<u64>,
    /// Bytes, to other nodes.
    pub(crate) sent_per_second: Vec<f64>,
}

impl Report {
    /// The report as lines without a last line end.
    pub fn render(&self, style: Style) -> String {
        match style {
            Style::Table => {
                let parts = [
                    self.load_table(),
                    self.errors(),
                    self.idle_table(),
                    wide_area::near_table(&self.wide_area),
                    wide_area::session_table(&self.wide_area),
                ];
                parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
            }
            Style::JsonLines => {
                let rounds = self.rounds.iter().map(|round| round.to_json("round"));
                let medians = self.medians();
                let medians = medians.iter().map(|median| median.to_json("median"));
                let idle = self.idle.iter().map(IdleRow::to_json);
                let wide_area = self.wide_area.iter().map(wide_area::to_json);
                let lines = rounds.chain(medians).chain(idle).chain(wide_area);
                lines.map(|line| line.to_string()).collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// The medians of the rounds of each case, in the order in which the cases first came.
    pub(crate) fn medians(&self) -> Vec<Round> {
        let mut cases: Vec<&Case> = Vec::new();
        for round in &self.rounds {
            if !cases.contains(&&round.case) {
                cases.push(&round.case);
            }
        }
        let median_of = |case: &Case| {
            let rounds: Vec<_> = self.rounds.iter().filter(|round| round.case == *case).collect();
            Round::median(&rounds)
        };
        cases.into_iter().map(median_of).collect()
    }

    fn load_table(&self) -> Option<String> {
        if self.rounds.is_empty() {
            return None;
        }
        let labelled = self.rounds.iter().any(|round| !round.case.label.is_empty());
        let mut header =
            vec!["WORKLOAD", "LEVEL", "CLIENTS", "OPS/S", "MIN-MAX", "P50", "P95", "P99"];
        header.extend([
            "P99.9",
            "MAX ms",
            "SERVER",
            "CLIENT us/op",
            "SYNCS/1000 W",
            "OPS/ENTRY",
            "OTHERS",
            "READ P50",
            "READ P99",
            "FOLLOWERS %",
            "WAITS %",
        ]);
        if labelled {
            header.insert(0, "BINARY");
        }
        let rows = self.medians().into_iter().map(|median| {
            let same = self.rounds.iter().filter(|round| round.case == median.case);
            let rates: Vec<f64> = same.map(|round| round.per_second).collect();
            let (least, most) =
                rates.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), rate| {
                    (least.min(*rate), most.max(*rate))
                });
            let mut row = vec![
                median.case.workload.name().to_string(),
                median.case.manner.to_string(),
                median.case.clients.to_string(),
                format!("{:.0}", median.per_second),
                format!("{least:.0}-{most:.0}"),
            ];
            row.extend(median.latency_us.map(|us| format!("{:.2}", us / 1000.0)));
            row.push(format!("{:.0}", median.latency_max_us / 1000.0));
            let optional = |value: Option<f64>, digits: usize| {
                value.map_or_else(|| "-".to_string(), |value| format!("{value:.digits$}"))
            };
            row.push(optional(median.server_us, 0));
            row.push(optional(median.client_us, 0));
            row.push(list(&median.syncs_per_1000_writes, 0));
            row.push(optional(median.operations_per_entry, 1));
            row.push(optional(median.other_cores, 2));
            for at in [0, 1] {
                row.push(optional(median.read_latency_us.map(|read| read[at] / 1000.0), 2));
            }
            row.push(optional(median.by_followers.map(|share| share * 100.0), 0));
            row.push(optional(median.waited.map(|share| share * 100.0), 1));
            if labelled {
                row.insert(0, median.case.label);
            }
            row
        });
        Some(table(&header, rows))
    }

    fn errors(&self) -> Option<String> {
        let lines: Vec<String> = self
            .medians()
            .iter()
            .filter(|median| !median.errors.is_empty())
            .map(|median| {
                let of = median.errors.iter().map(|(reason, count)| format!("{reason} {count}"));
                format!("errors: {}: {}", median.case, of.collect::<Vec<_>>().join(", "))
            })
            .collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn idle_table(&self) -> Option<String> {
        if self.idle.is_empty() {
            return None;
        }
        let header = ["IDLE RANGES", "IN ALL", "CPU % OF A CORE", "RSS MiB", "SENT KiB/s"];
        let rows = self.idle.iter().map(|row| {
            let resident: Vec<f64> =
                row.resident.iter().map(|bytes| *bytes as f64 / 1_048_576.0).collect();
            let sent: Vec<f64> = row.sent_per_second.iter().map(|bytes| bytes / 1024.0).collect();
            vec![
                row.ranges.to_string(),
                row.ranges_led.to_string(),
                list(&row.cpu_percent, 1),
                list(&resident, 0),
                list(&sent, 1),
            ]
        });
        Some(table(&header, rows))
    }
}

impl Round {
    /// The median of each figure. There must be a round.
    fn median(rounds: &[&Self]) -> Self {
        let first = rounds.first().expect("a case comes from a round");
        let of = |figure: &dyn Fn(&Self) -> f64| {
            median(rounds.iter().map(|round| figure(round)).collect()).unwrap_or_default()
        };
        let of_known = |figure: &dyn Fn(&Self) -> Option<f64>| {
            median(rounds.iter().filter_map(|round| figure(round)).collect())
        };
        let nodes = rounds.iter().map(|round| round.syncs_per_1000_writes.len()).max();
        let syncs = |node: usize| {
            of_known(&|round| round.syncs_per_1000_writes.get(node).copied()).unwrap_or_default()
        };
        let read = |at: usize| of_known(&|round| round.read_latency_us.map(|read| read[at]));
        let mut errors = BTreeMap::new();
        for (reason, count) in rounds.iter().flat_map(|round| &round.errors) {
            *errors.entry(*reason).or_default() += count;
        }
        Self {
            case: first.case.clone(),
            round: rounds.len() as u32,
            seconds: of(&|round| round.seconds),
            operations: of(&|round| round.operations as f64) as u64,
            per_second: of(&|round| round.per_second),
            latency_us: std::array::from_fn(|at| of(&|round| round.latency_us[at])),
            latency_max_us: of(&|round| round.latency_max_us),
            read_latency_us: read(0).zip(read(1)).map(|(p50, p99)| [p50, p99]),
            by_followers: of_known(&|round| round.by_followers),
            waited: of_known(&|round| round.waited),
            server_us: of_known(&|round| round.server_us),
            client_us: of_known(&|round| round.client_us),
            syncs_per_1000_writes: (0..nodes.unwrap_or(0)).map(syncs).collect(),
            operations_per_entry: of_known(&|round| round.operations_per_entry),
            other_cores: of_known(&|round| round.other_cores),
            errors,
        }
    }

    fn to_json(&self, kind: &str) -> Json {
        let [p50, p95, p99, p999] = self.latency_us;
        let of = if kind == "median" { "rounds" } else { "round" };
        let mut line = json!({
            "kind": kind,
            "binary": self.case.label,
            "workload": self.case.workload.name(),
            "level": self.case.manner.level.name(),
            "in_sessions": self.case.manner.in_session,
            "receipts": self.case.manner.receipt_name(),
            "distribution": self.case.distribution.name(),
            "clients": self.case.clients,
            "seconds": self.seconds,
            "operations": self.operations,
            "operations_per_second": self.per_second,
            "latency_us": {
                "p50": p50, "p95": p95, "p99": p99, "p99.9": p999, "max": self.latency_max_us,
            },
            "read_latency_us": self.read_latency_us.map(|[p50, p99]| json!({ "p50": p50, "p99": p99 })),
            "reads_by_followers": self.by_followers,
            "reads_that_waited": self.waited,
            "server_cpu_us_per_operation": self.server_us,
            "client_cpu_us_per_operation": self.client_us,
            "syncs_per_1000_writes_by_node": self.syncs_per_1000_writes,
            "operations_per_entry": self.operations_per_entry,
            "other_cores_busy": self.other_cores,
            "errors": self.errors,
        });
        line[of] = json!(self.round);
        line
    }
}

impl IdleRow {
    fn to_json(&self) -> Json {
        json!({
            "kind": "idle",
            "idle_ranges": self.ranges,
            "ranges": self.ranges_led,
            "seconds": self.seconds,
            "cpu_percent_by_node": self.cpu_percent,
            "resident_bytes_by_node": self.resident,
            "sent_bytes_per_second_by_node": self.sent_per_second,
        })
    }
}

/// The upper one of the two in the middle, where there are two; `None` of nothing.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

/// A figure of each node: `12 11 13`.
fn list(figures: &[f64], digits: usize) -> String {
    if figures.is_empty() {
        return "-".to_string();
    }
    figures.iter().map(|figure| format!("{figure:.digits$}")).collect::<Vec<_>>().join(" ")
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    rows.for_each(|row| {
        table.add_row(row);
    });
    table.column_iter_mut().for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_string()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use latitude_client::{Level, ReceiptDetail};

    use super::*;

    fn round(round: u32, clients: u32, per_second: f64) -> Round {
        Round {
            case: Case {
                label: String::new(),
                workload: Workload::Put,
                manner: Manner {
                    level: Level::Sequential,
                    in_session: true,
                    receipt: ReceiptDetail::Short,
                },
                distribution: Distribution::Uniform,
                clients,
            },
            round,
            seconds: 10.0,
            operations: 1,
            per_second,
            latency_us: [100.0, 200.0, 300.0, 4000.0],
            latency_max_us: 5000.0,
            read_latency_us: None,
            by_followers: Some(per_second / 1000.0),
            waited: None,
            server_us: Some(per_second / 100.0),
            client_us: None,
            syncs_per_1000_writes: vec![per_second, 7.0],
            operations_per_entry: None,
            other_cores: None,
            errors: BTreeMap::from([("NO_QUORUM", 1)]),
        }
    }

    fn report() -> Report {
        let rounds = [(1, 64, 500.0), (1, 1, 9.0), (2, 64, 900.0), (2, 1, 7.0), (3, 64, 800.0)];
        Report {
            rounds: rounds.map(|(at, clients, rate)| round(at, clients, rate)).into(),
            wide_area: Vec::new(),
            idle: vec![IdleRow {
                ranges: 64,
                ranges_led: 66,
                seconds: 20.0,
                cpu_percent: vec![1.25, 2.0],
                resident: vec![100 << 20, 1 << 20],
                sent_per_second: vec![2048.0, 0.0],
            }],
        }
    }

    #[test]
    fn rounds_of_a_case_make_one_median_in_the_order_of_the_run() {
        let medians = report().medians();
        let found: Vec<_> = medians
            .iter()
            .map(|median| (median.case.clients, median.round, median.per_second))
            .collect();
        assert_eq!(found, [(64, 3, 800.0), (1, 2, 9.0)]);
        assert_eq!(medians[0].syncs_per_1000_writes, [800.0, 7.0]);
        assert_eq!(medians[0].server_us, Some(8.0));
        assert_eq!((medians[0].by_followers, medians[0].waited), (Some(0.8), None));
        assert_eq!(medians[0].errors, BTreeMap::from([("NO_QUORUM", 3)]));
    }

    #[test]
    fn a_table_shows_medians_errors_and_nodes_at_rest() {
        let text = report().render(Style::Table);
        for part in [
            "sequential in sessions",
            "500-900",
            "800 7",
            "errors: put with 64 clients, sequential in sessions: NO_QUORUM 3",
            "1.2 2.0",
            "100 1",
        ] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    }

    #[test]
    fn json_has_a_line_for_every_round_and_every_median() {
        let text = report().render(Style::JsonLines);
        let lines: Vec<Json> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, [["round"; 5].as_slice(), &["median"; 2], &["idle"]].concat());
        assert_eq!(lines[0]["round"], 1);
        assert_eq!(lines[5]["rounds"], 3);
        assert_eq!(lines[5]["latency_us"]["p99.9"], 4000.0);
        assert_eq!(lines[5]["client_cpu_us_per_operation"], Json::Null);
    }
}

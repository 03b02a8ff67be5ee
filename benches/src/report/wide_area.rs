//! What was measured over a wide area, for people and for tools.

use serde_json::{Value as Json, json};

use super::table;
use crate::wide_area::WideAreaRow;

/// What operations cost near by.
pub(super) fn near_table(rows: &[WideAreaRow]) -> Option<String> {
    let header = [
        "REGION",
        "OPERATION",
        "P50 ms SIDE BY SIDE",
        "P99",
        "P50 ms FAR APART",
        "P99",
        "P99 MORE",
    ];
    let of_row = |row: &WideAreaRow| {
        let region = row.region.clone();
        let row = row.near.clone().into_iter();
        row.map(move |(name, near, far)| {
            let figures = [near[0], near[1], far[0], far[1], far[1] - near[1]];
            let figures = figures.map(|ms| format!("{ms:.2}"));
            [region.clone(), name].into_iter().chain(figures).collect()
        })
    };
    (!rows.is_empty()).then(|| table(&header, rows.iter().flat_map(of_row)))
}

/// What folding and sessions cost over the wide area.
pub(super) fn session_table(rows: &[WideAreaRow]) -> Option<String> {
    let header = [
        "REGION",
        "ROUND TRIP ms",
        "FOLDED P50 ms",
        "P99",
        "STRICT GET P50 ms",
        "AFTER A CAUSAL PUT",
        "TOKEN P50 CHARS",
        "MAX",
    ];
    let rows_of = rows.iter().map(|row| {
        let times = [row.round_trip, row.folded[0], row.folded[1], row.strict[0], row.strict[1]];
        let times = times.map(|ms| format!("{ms:.0}"));
        let lengths = row.token.map(|length| length.to_string());
        [row.region.clone()].into_iter().chain(times).chain(lengths).collect()
    });
    (!rows.is_empty()).then(|| table(&header, rows_of))
}

pub(super) fn to_json(row: &WideAreaRow) -> Json {
    let near = row.near.iter().map(|(operation, near, far)| {
        json!({
            "operation": operation,
            "side_by_side_ms": { "p50": near[0], "p99": near[1] },
            "far_apart_ms": { "p50": far[0], "p99": far[1] },
        })
    });
    json!({
        "kind": "wide_area",
        "region": row.region,
        "near": near.collect::<Vec<_>>(),
        "round_trip_max_ms": row.round_trip,
        "folded_ms": { "p50": row.folded[0], "p99": row.folded[1] },
        "strict_get_ms": { "p50": row.strict[0], "p50_after_causal_put": row.strict[1] },
        "token_chars": { "p50": row.token[0], "max": row.token[1] },
    })
}

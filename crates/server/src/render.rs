//! Answers as text and as JSON: from values to what is printed, without printing it.

mod admin;
mod data;
mod session;
mod typed;

pub use admin::{
    audit, audit_json, cluster_made, cluster_made_json, deltas, deltas_json, keyspace_json,
    keyspaces, node_json, nodes, origin_json, origin_line, origins, range_json, ranges, status,
    status_json, value_type,
};
pub use data::{KeyForm, cas_json, receipt, row_json, row_line, write_json};
pub use session::{session, session_json};
pub use typed::{add_json, value_json, value_lines, value_row};

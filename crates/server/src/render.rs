//! Answers as text and as JSON: from values to what is printed, without printing it.

mod admin;
mod data;
mod session;

pub use admin::{
    cluster_made, cluster_made_json, keyspace_json, keyspaces, node_json, nodes, range_json,
    ranges, status, status_json,
};
pub use data::{KeyForm, cas_json, receipt, row_json, row_line, write_json};
pub use session::{session, session_json};

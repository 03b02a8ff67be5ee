//! The engine of production: RocksDB behind the ports of `latitude-storage`. Nothing else knows RocksDB,
//! and nothing here knows Raft.
//!
//! ```text
//!   store directory (0700)
//!   ├── LATITUDE     what this directory is: format, store id. Written once, before all else
//!   ├── SYNCED       how far the store is known to be durable, noted outside the log it speaks of
//!   ├── staging/     rows that are to replace others: table files, outside the database until then
//!   └── db/          RocksDB: five column families, one write-ahead log
//!
//!   write ──▶ log buffer + memtable          no system call
//!   sync  ──▶ write the buffer, fdatasync    one for all writers since the last
//! ```
//!
//! Whoever opens the store locks the directory, so that a second process is refused before it reads a
//! byte.
//!
//! RocksDB recovers its log up to the first record that does not check (point-in-time recovery). That is
//! right for what a crash tears off and silent about what rots: therefore the marker in `SYNCED`, against
//! which each opening compares what was recovered. It is noted at most a second after a sync, and on
//! closing.
//!
//! HAZARD: Damage that begins after the last noted sync, thus in writes synced less than a second before
//! the end of the process, is not noticed.

mod directory;
mod engine;
mod marker;
mod options;
mod staging;
#[cfg(test)]
mod tests;

pub use engine::RocksEngine;
pub use options::Options;

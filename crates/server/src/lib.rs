//! The binary `latitude`: flags, configuration file, telemetry, and the commands of users and operators.
pub mod address;
pub mod config;
pub mod exit;
pub mod failure;
pub mod output;
pub mod settings;
pub mod start;
pub mod telemetry;
pub mod units;

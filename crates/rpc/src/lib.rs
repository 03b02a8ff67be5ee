//! The wire between clients, nodes and operators.
//!
//! ```text
//!   /proto ──build.rs──▶ pb (generated) ◀── convert ──▶ latitude-types
//!                                        ◀── status ───▶ tonic::Status
//!   Net (port) ──▶ channel() for clients, incoming() for servers
//! ```
//!
//! Nothing inside Latitude speaks protobuf: a value is parsed here, once, at the edge. This crate does
//! not know what a command does, nor how it is stored.

mod commands;
mod convert;
pub mod net;
mod status;

pub use commands::{COMMANDS_MAX, Commands};
pub use convert::{FromWire, ToWire};
pub use status::{error_from_status, error_to_pb, status_from_error};

/// Code generated from `/proto`; documented there.
pub mod pb {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        reason = "generated code"
    )]

    /// `latitude.v1`: what clients and operators say.
    pub mod v1 {
        tonic::include_proto!("latitude.v1");

        pub use crate::commands::{Commands as BatchRequest, Commands as CommandFrame};
    }

    /// `latitude.peer.v1`: what nodes say to each other.
    pub mod peer {
        tonic::include_proto!("latitude.peer.v1");
    }
}

/// The descriptors of every service in `/proto`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The largest message a node or a client takes, in bytes: an 8 MiB value with its key and the rest of
/// its frame, or a full batch.
pub const MESSAGE_LEN_MAX: usize = 20 << 20;

//! One node by bare gRPC: nothing is retried, routed or filled in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use bytes::Bytes;
use latitude_client::{Error, Tcp};
use latitude_rpc::pb::v1;
use latitude_rpc::pb::v1::command::Operation;
use latitude_rpc::pb::v1::latitude_client::LatitudeClient;
use latitude_rpc::{MESSAGE_LEN_MAX, error_from_status, net};
use tonic::transport::Channel;

/// A connection to one node.
#[derive(Clone)]
pub struct Raw {
    channel: Channel,
}

impl Raw {
    /// To the node at an address; connects when it is first used.
    ///
    /// # Errors
    /// When the address is none.
    pub fn to(address: SocketAddr) -> Result<Self> {
        let patience = std::time::Duration::from_secs(5);
        Ok(Self { channel: net::channel(Arc::new(Tcp), &address.to_string(), patience)? })
    }

    /// The channel, for calls this does not know.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The generated client.
    pub fn client(&self) -> LatitudeClient<Channel> {
        LatitudeClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX)
    }

    /// One command, once.
    ///
    /// # Errors
    /// As the node refuses it, or gRPC does.
    pub async fn execute(&self, command: v1::Command) -> Result<v1::Reply, Error> {
        let reply = self.client().execute(command).await;
        reply.map(tonic::Response::into_inner).map_err(|status| error_from_status(&status))
    }

    /// The cluster's clock at this node, from which ids are born.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn clock(&self) -> Result<u64> {
        let hello = self.client().hello(v1::HelloRequest::default()).await;
        Ok(hello.context("the node does not say hello")?.into_inner().clock)
    }
}

/// A command at level strict that asks for a full receipt.
pub fn command(keyspace: &str, operation: Operation) -> v1::Command {
    v1::Command {
        keyspace: keyspace.to_owned(),
        level: v1::Level::Strict as i32,
        receipt: v1::ReceiptDetail::Full as i32,
        timeout_ms: 10_000,
        operation: Some(operation),
        ..v1::Command::default()
    }
}

/// The operation that reads a key.
pub fn get(key: &str) -> Operation {
    Operation::Get(v1::Get { key: Bytes::copy_from_slice(key.as_bytes()) })
}

/// The operation that writes a key.
pub fn put(key: &str, value: impl Into<Bytes>) -> Operation {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Operation::Put(v1::Put { key, value: value.into(), ..v1::Put::default() })
}

/// The operation that writes a key which holds `expected`, or nothing.
pub fn swap(key: &str, expected: Option<&str>, new: &str) -> Operation {
    use v1::compare_and_set::Expected;
    let expected = match expected {
        Some(value) => Expected::Value(Bytes::copy_from_slice(value.as_bytes())),
        None => Expected::Absent(true),
    };
    Operation::CompareAndSet(v1::CompareAndSet {
        key: Bytes::copy_from_slice(key.as_bytes()),
        expected: Some(expected),
        new_value: Some(Bytes::copy_from_slice(new.as_bytes())),
    })
}

/// Gives a write the id of a client that nobody else is.
pub struct Ids {
    client: [u8; 16],
    sequence: AtomicU64,
}

impl Ids {
    /// A new client.
    pub fn new() -> Self {
        use rand::RngExt;
        let client = rand::make_rng::<rand::rngs::SmallRng>().random();
        Self { client, sequence: AtomicU64::new(1) }
    }

    /// The next id, born at `birth`.
    pub fn next(&self, birth: u64) -> v1::OperationId {
        v1::OperationId {
            birth,
            client: Bytes::copy_from_slice(&self.client),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            answered_below: 0,
        }
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::new()
    }
}

//! The administration: what an operator does, through any node that answers.

use std::time::Duration;

use futures::future::BoxFuture;
use latitude_rpc::pb::v1;
use latitude_rpc::pb::v1::admin_client::AdminClient;
use latitude_types::{Error, KeyspaceId, NodeId, RangeId, Reason, Result};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::answer::unfitting;
use crate::client::{Client, IntoRead};
use crate::lock;
use crate::run::patience;

/// How long `init` waits for the other nodes, and `audit` for the replicas, unless told.
const WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// What is allowed to the way there and back.
const WAIT_MARGIN: Duration = Duration::from_secs(5);

/// The administration of a cluster. Every node serves every call, so nodes are tried in turn until one
/// answers. A call that changes something goes to another node only if it certainly has not happened;
/// nothing here carries an id.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

/// Whether a call may be repeated when its outcome is unknown.
#[derive(Clone, Copy, PartialEq)]
enum Repeat {
    Safe,
    Unsafe,
    /// It has waited as long as it was to: only a node that was not reached is passed over.
    Once,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Makes a cluster of the first node that answers and of all it was told to join. Waits for them for
    /// `wait`, or 30 s. Safe to repeat.
    pub async fn init(&self, wait: Option<Duration>) -> Result<v1::InitReply> {
        let wait = wait.unwrap_or(WAIT_DEFAULT);
        let request = v1::InitRequest { timeout_ms: to_ms(wait) };
        self.ask(Repeat::Safe, wait + WAIT_MARGIN, request, |mut admin, request| {
            Box::pin(async move { admin.init(request).await })
        })
        .await
    }

    /// What the first node that answers is, holds and knows; of a certain node:
    /// [`Client::status_of`].
    pub async fn status(&self) -> Result<v1::StatusReply> {
        self.read(v1::StatusRequest {}, |mut admin, request| {
            Box::pin(async move { admin.status(request).await })
        })
        .await
    }

    /// Every node of the cluster, as the node asked sees them.
    pub async fn nodes(&self) -> Result<Vec<v1::NodeStatus>> {
        let reply = self.read(v1::ListNodesRequest {}, |mut admin, request| {
            Box::pin(async move { admin.list_nodes(request).await })
        });
        Ok(reply.await?.nodes)
    }

    /// Every range of a keyspace; of all keyspaces if the name is empty.
    pub async fn ranges(&self, keyspace: &str) -> Result<Vec<v1::RangeStatus>> {
        let request = v1::ListRangesRequest { keyspace: keyspace.to_string() };
        let reply = self.read(request, |mut admin, request| {
            Box::pin(async move { admin.list_ranges(request).await })
        });
        Ok(reply.await?.ranges)
    }

    /// Creates a keyspace. Fields that are left at their default are filled in by the server.
    pub async fn create_keyspace(
        &self,
        request: v1::CreateKeyspaceRequest,
    ) -> Result<v1::KeyspaceStatus> {
        let reply = self.change(Repeat::Unsafe, request, |mut admin, request| {
            Box::pin(async move { admin.create_keyspace(request).await })
        });
        reply.await?.keyspace.ok_or_else(|| unfitting("create_keyspace", true))
    }

    /// Every keyspace.
    pub async fn keyspaces(&self) -> Result<Vec<v1::KeyspaceStatus>> {
        let reply = self.read(v1::ListKeyspacesRequest {}, |mut admin, request| {
            Box::pin(async move { admin.list_keyspaces(request).await })
        });
        Ok(reply.await?.keyspaces)
    }

    /// Removes a keyspace and all its keys, for good.
    pub async fn drop_keyspace(&self, name: &str) -> Result<KeyspaceId> {
        let request = v1::DropKeyspaceRequest { name: name.to_string() };
        let reply = self.change(Repeat::Unsafe, request, |mut admin, request| {
            Box::pin(async move { admin.drop_keyspace(request).await })
        });
        let dropped = KeyspaceId(reply.await?.keyspace_id);
        lock(&self.client.inner.routes).forget_keyspace(name);
        Ok(dropped)
    }

    /// Hands the leadership of a range to the node's replica.
    pub async fn transfer_leader(&self, range: RangeId, to: NodeId) -> Result<()> {
        let request = v1::TransferLeaderRequest { range_id: range.0, to_node: to.0 };
        let reply = self.change(Repeat::Safe, request, |mut admin, request| {
            Box::pin(async move { admin.transfer_leader(request).await })
        });
        reply.await.map(drop)
    }

    /// Compares what the replicas of a range hold, at one place in its log. Waits for them for `wait`, or 30 s; those
    /// that were not compared by then are named in the reply, and are no error.
    pub async fn audit(&self, range: RangeId, wait: Option<Duration>) -> Result<v1::AuditReply> {
        let wait = wait.unwrap_or(WAIT_DEFAULT);
        let request = v1::AuditRequest { range_id: range.0, timeout_ms: to_ms(wait) };
        let reply = self.ask(Repeat::Safe, wait + WAIT_MARGIN, request, |mut admin, request| {
            Box::pin(async move { admin.audit(request).await })
        });
        reply.await.map_err(IntoRead::into_read)
    }

    /// Has a node stop taking local writes of a range, and waits until it has and all it took is in the log. Safe to
    /// repeat; if it is not done `within`, it goes on all the same.
    pub async fn seal(
        &self,
        range: RangeId,
        node: NodeId,
        within: Duration,
    ) -> Result<v1::OriginStatus> {
        self.set_origin(range, node, v1::OriginState::Sealed, within).await
    }

    /// Has a node that was sealed take local writes of a range again.
    pub async fn admit(
        &self,
        range: RangeId,
        node: NodeId,
        within: Duration,
    ) -> Result<v1::OriginStatus> {
        self.set_origin(range, node, v1::OriginState::Active, within).await
    }

    async fn set_origin(
        &self,
        range: RangeId,
        node: NodeId,
        wanted: v1::OriginState,
        within: Duration,
    ) -> Result<v1::OriginStatus> {
        let timeout_ms = within.as_millis().clamp(1, u128::from(u32::MAX)) as u32;
        let wanted = wanted as i32;
        let request = v1::SetOriginRequest { range_id: range.0, node: node.0, wanted, timeout_ms };
        let patience = within + WAIT_MARGIN;
        let reply = self.ask(Repeat::Once, patience, request, |mut admin, request| {
            Box::pin(async move { admin.set_origin(request).await })
        });
        reply.await?.origin.ok_or_else(|| unfitting("set_origin", true))
    }

    async fn read<R: Clone, T>(&self, request: R, call: impl Ask<R, T>) -> Result<T> {
        let reply = self.ask(Repeat::Safe, self.client.inner.timeout, request, call).await;
        reply.map_err(IntoRead::into_read)
    }

    async fn change<R: Clone, T>(
        &self,
        repeat: Repeat,
        request: R,
        call: impl Ask<R, T>,
    ) -> Result<T> {
        self.ask(repeat, self.client.inner.timeout, request, call).await
    }

    /// Asks one node after another. A node that does not even say hello is passed over, so the outcome of
    /// the call proper is unknown only if it broke on the way.
    async fn ask<R: Clone, T>(
        &self,
        repeat: Repeat,
        timeout: Duration,
        request: R,
        call: impl Ask<R, T>,
    ) -> Result<T> {
        let mut last: Option<Error> = None;
        for link in self.client.inner.links_to_ask()? {
            if let Err(error) = link.hello(patience(&link, 0)).await {
                last = last.or(Some(error.into_read()));
                continue;
            }
            let error = match link.unary(timeout, call(link.admin(), request.clone())).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let elsewhere = match repeat {
                Repeat::Safe => true,
                Repeat::Unsafe => !error.may_have_applied(),
                Repeat::Once => error.reason == Reason::Unreachable,
            };
            if !error.is_retryable() || !elsewhere {
                return Err(error);
            }
            last = Some(error);
        }
        Err(last.unwrap_or_else(|| Error::new(Reason::Unreachable, "there is no node to ask")))
    }
}

/// As the wire has it; 0 would mean that nothing was said.
fn to_ms(wait: Duration) -> u32 {
    wait.as_millis().clamp(1, u128::from(u32::MAX)) as u32
}

/// One call of the administration.
trait Ask<R, T>:
    Fn(AdminClient<Channel>, R) -> BoxFuture<'static, Result<Response<T>, Status>> + Send + Sync
{
}

impl<R, T, F> Ask<R, T> for F where
    F: Fn(AdminClient<Channel>, R) -> BoxFuture<'static, Result<Response<T>, Status>> + Send + Sync
{
}

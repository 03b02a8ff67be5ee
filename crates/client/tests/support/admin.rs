//! The administration of the fake cluster: says who was asked, or fails as told.

use bytes::Bytes;
use latitude_rpc::pb::v1;
use latitude_rpc::pb::v1::admin_server::Admin;
use tonic::{Request, Response, Status};

use super::{Cluster, NODES, address};

/// A node's administration.
pub(crate) struct FakeAdmin {
    pub(crate) node: u32,
    pub(crate) cluster: Cluster,
}

impl FakeAdmin {
    fn asked(&self, call: &'static str) -> Result<(), Status> {
        let mut state = self.cluster.state.lock().unwrap();
        state.admin_calls.push((self.node, call));
        match state.admin_failures.get(&self.node) {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    fn nodes(&self) -> Vec<v1::NodeStatus> {
        let status = |node| v1::NodeStatus { node, address: address(node), ..Default::default() };
        NODES.map(status).to_vec()
    }
}

#[tonic::async_trait]
impl Admin for FakeAdmin {
    async fn init(
        &self,
        request: Request<v1::InitRequest>,
    ) -> Result<Response<v1::InitReply>, Status> {
        self.asked("init")?;
        assert!(request.into_inner().timeout_ms > 0);
        let cluster_id = Bytes::from(vec![9; 16]);
        Ok(Response::new(v1::InitReply { cluster_id, nodes: self.nodes(), created: true }))
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        self.asked("status")?;
        Ok(Response::new(v1::StatusReply { node: self.node, ..Default::default() }))
    }

    async fn list_nodes(
        &self,
        _: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesReply>, Status> {
        self.asked("list_nodes")?;
        Ok(Response::new(v1::ListNodesReply { nodes: self.nodes() }))
    }

    async fn list_ranges(
        &self,
        request: Request<v1::ListRangesRequest>,
    ) -> Result<Response<v1::ListRangesReply>, Status> {
        self.asked("list_ranges")?;
        let keyspace = request.into_inner().keyspace;
        let range = v1::RangeStatus { range_id: 7, keyspace, ..Default::default() };
        Ok(Response::new(v1::ListRangesReply { ranges: vec![range] }))
    }

    async fn list_deltas(
        &self,
        _: Request<v1::ListDeltasRequest>,
    ) -> Result<Response<v1::ListDeltasReply>, Status> {
        self.asked("list_deltas")?;
        Ok(Response::new(v1::ListDeltasReply::default()))
    }

    async fn create_keyspace(
        &self,
        request: Request<v1::CreateKeyspaceRequest>,
    ) -> Result<Response<v1::CreateKeyspaceReply>, Status> {
        self.asked("create_keyspace")?;
        let name = request.into_inner().name;
        let keyspace = v1::KeyspaceStatus { keyspace_id: 16, name, ..Default::default() };
        Ok(Response::new(v1::CreateKeyspaceReply { keyspace: Some(keyspace) }))
    }

    async fn list_keyspaces(
        &self,
        _: Request<v1::ListKeyspacesRequest>,
    ) -> Result<Response<v1::ListKeyspacesReply>, Status> {
        self.asked("list_keyspaces")?;
        Ok(Response::new(v1::ListKeyspacesReply::default()))
    }

    async fn drop_keyspace(
        &self,
        _: Request<v1::DropKeyspaceRequest>,
    ) -> Result<Response<v1::DropKeyspaceReply>, Status> {
        self.asked("drop_keyspace")?;
        Ok(Response::new(v1::DropKeyspaceReply { keyspace_id: 16 }))
    }

    async fn audit(
        &self,
        request: Request<v1::AuditRequest>,
    ) -> Result<Response<v1::AuditReply>, Status> {
        self.asked("audit")?;
        let v1::AuditRequest { range_id, timeout_ms } = request.into_inner();
        assert!(timeout_ms > 0);
        Ok(Response::new(v1::AuditReply { range_id, ..Default::default() }))
    }

    async fn list_origins(
        &self,
        _: Request<v1::ListOriginsRequest>,
    ) -> Result<Response<v1::ListOriginsReply>, Status> {
        self.asked("list_origins")?;
        Ok(Response::new(v1::ListOriginsReply::default()))
    }

    async fn set_origin(
        &self,
        _: Request<v1::SetOriginRequest>,
    ) -> Result<Response<v1::SetOriginReply>, Status> {
        self.asked("set_origin")?;
        Ok(Response::new(v1::SetOriginReply { origin: Some(v1::OriginStatus::default()) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderReply>, Status> {
        self.asked("transfer_leader")?;
        self.cluster.set_leader(request.into_inner().to_node);
        Ok(Response::new(v1::TransferLeaderReply {}))
    }
}

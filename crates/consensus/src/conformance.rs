//! openraft's own storage suite against our log and state machine.
//!
//! The suite makes replica ids from numbers, so it runs under a configuration of its own, whose ids are
//! numbers; an adapter translates to ours and back and adds nothing.
//!
//! Not everything in `test_store` can pass, and what can is listed one by one. Left out are
//!
//! * `last_applied_state`, `transfer_snapshot`: they apply entry 3 after entry 1 or 5 after 3, which our
//!   state machine refuses;
//! * those `get_initial_state_*` whose state machine is ahead of the log (`last_log_lt_sm`,
//!   `membership_from_*`, `log_ids`): openraft purges the log up to what is applied. Such a replica has lost
//!   part of its log, and refusing to open it is what we want (`tests/durability.rs`), unless it was
//!   installing a snapshot, which ends before openraft sees it (`tests/snapshots.rs`).

use std::fmt;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use latitude_range::{Applied, Range, RangeMeta, Staged};
use latitude_storage::Engine;
use latitude_storage::memory::{MemoryDisk, MemoryEngine};
use latitude_types::{Generation, KeySpan, KeyspaceId, NodeId, RangeId, ReplicaId};
use openraft::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, IOFlushed, LogState, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{
    EmptyNode, EntryPayload, OptionalSend, RaftLogReader, RaftSnapshotBuilder, Snapshot,
    StorageError,
};
use serde::{Deserialize, Serialize};

use crate::audit::Audits;
use crate::committer::{Committer, FlushInline};
use crate::log::RangeLog;
use crate::machine::{Built, StateMachine};
use crate::runtime::NodeRuntime;
use crate::snapshot::install::Place;
use crate::snapshot::{NoFailpoints, SnapshotData, SnapshotSettings, Snapshots};
use crate::types::{self, Proposal, TypeConfig};

/// A replica id as the suite makes them.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
struct Number(u64);

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

openraft::declare_raft_types!(
    /// The suite's configuration: ours, but for the replica ids.
    Numbered:
        D = Proposal,
        R = Applied,
        NodeId = Number,
        Node = EmptyNode,
        AsyncRuntime = NodeRuntime,
);

type LogId = openraft::alias::LogIdOf<Numbered>;
type LeaderId = openraft::alias::LeaderIdOf<Numbered>;
type Vote = openraft::alias::VoteOf<Numbered>;
type Entry = openraft::alias::EntryOf<Numbered>;
type Membership = openraft::Membership<Number, EmptyNode>;
type StoredMembership = openraft::alias::StoredMembershipOf<Numbered>;

fn replica(Number(number): Number) -> ReplicaId {
    ReplicaId { node: NodeId(number as u32), generation: Generation(1) }
}

fn number(replica: ReplicaId) -> Number {
    Number(replica.node.0.into())
}

fn our_id(id: LogId) -> types::LogId {
    let leader_id =
        types::LeaderId { term: id.leader_id.term, node_id: replica(id.leader_id.node_id) };
    types::LogId { leader_id, index: id.index }
}

fn their_id(id: types::LogId) -> LogId {
    let leader_id = LeaderId { term: id.leader_id.term, node_id: number(id.leader_id.node_id) };
    LogId { leader_id, index: id.index }
}

fn our_membership(membership: &Membership) -> types::Membership {
    let configs = membership.get_joint_config().iter();
    types::Membership::new_with_defaults(
        configs.map(|voters| voters.iter().copied().map(replica).collect()).collect(),
        membership.nodes().map(|(id, _)| replica(*id)),
    )
}

fn their_membership(membership: &types::Membership) -> Membership {
    let configs = membership.get_joint_config().iter();
    Membership::new_with_defaults(
        configs.map(|voters| voters.iter().copied().map(number).collect()).collect(),
        membership.nodes().map(|(id, _)| number(*id)),
    )
}

fn our_entry(entry: Entry) -> types::Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => EntryPayload::Blank,
        EntryPayload::Normal(proposal) => EntryPayload::Normal(proposal),
        EntryPayload::Membership(membership) => {
            EntryPayload::Membership(our_membership(&membership))
        }
    };
    RaftEntry::new(our_id(entry.log_id), payload)
}

fn their_entry(entry: types::Entry) -> Entry {
    let payload = match entry.payload {
        EntryPayload::Blank => EntryPayload::Blank,
        EntryPayload::Normal(proposal) => EntryPayload::Normal(proposal),
        EntryPayload::Membership(membership) => {
            EntryPayload::Membership(their_membership(&membership))
        }
    };
    RaftEntry::new(their_id(entry.log_id), payload)
}

struct Log(RangeLog);

impl RaftLogReader<Numbered> for Log {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend,
    {
        let entries = self.0.try_get_log_entries(range).await?;
        Ok(entries.into_iter().map(their_entry).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let entries = self.0.limited_get_log_entries(start, end).await?;
        Ok(entries.into_iter().map(their_entry).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.0.read_vote().await?.map(|vote| Vote {
            leader_id: LeaderId {
                term: vote.leader_id.term,
                node_id: number(vote.leader_id.node_id),
            },
            committed: vote.committed,
        }))
    }
}

impl RaftLogStorage<Numbered> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Numbered>> {
        let state = self.0.get_log_state().await?;
        Ok(LogState {
            last_purged_log_id: state.last_purged_log_id.map(their_id),
            last_log_id: state.last_log_id.map(their_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        Self(self.0.clone())
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let leader_id =
            types::LeaderId { term: vote.leader_id.term, node_id: replica(vote.leader_id.node_id) };
        self.0.save_vote(&types::Vote { leader_id, committed: vote.committed }).await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Numbered>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().map(our_entry).collect();
        let (sender, flushed) = TypeConfig::oneshot();
        self.0.append(entries, IOFlushed::signal(sender)).await?;
        callback
            .io_completed(flushed.await.expect("the log keeps its callback until it is called"));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.0.truncate_after(last.map(our_id)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.0.purge(our_id(upto)).await
    }
}

struct Machine(StateMachine);

struct Builder(Built);

fn their_snapshot(
    snapshot: SnapshotOf<TypeConfig, SnapshotData>,
) -> SnapshotOf<Numbered, SnapshotData> {
    let stored = snapshot.meta.last_membership;
    let membership = their_membership(stored.membership());
    let meta = SnapshotMetaOf::<Numbered> {
        last_log_id: snapshot.meta.last_log_id.map(their_id),
        last_membership: StoredMembership::new(stored.log_id().map(their_id), membership),
    };
    Snapshot { meta, snapshot: snapshot.snapshot }
}

impl RaftSnapshotBuilder<Numbered> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Numbered, SnapshotData>> {
        Ok(their_snapshot(self.0.build_snapshot().await?))
    }
}

impl RaftStateMachine<Numbered> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let (applied, stored) = self.0.applied_state().await?;
        let membership = their_membership(stored.membership());
        let stored = StoredMembership::new(stored.log_id().map(their_id), membership);
        Ok((applied.map(their_id), stored))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Numbered>>> + Unpin + OptionalSend,
    {
        let entries = entries.map(|item| {
            item.map(|(entry, responder)| {
                assert!(responder.is_none(), "the suite waits for no reply");
                (our_entry(entry), None)
            })
        });
        self.0.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder(self.0.get_snapshot_builder().await)
    }

    async fn install_snapshot(
        &mut self,
        _: &SnapshotMetaOf<Numbered>,
        _: SnapshotData,
    ) -> io::Result<()> {
        // The suite hands over what was built; here only what was sent can be installed.
        Err(io::Error::other("nothing was received"))
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<SnapshotOf<Numbered, SnapshotData>>> {
        Ok(self.0.get_current_snapshot().await?.map(their_snapshot))
    }
}

/// A range that has a base and no log yet, on an empty disk.
struct Empty;

impl StoreBuilder<Numbered, Log, Machine, ()> for Empty {
    async fn build(&self) -> Result<((), Log, Machine), StorageError<Numbered>> {
        let range = RangeId(7);
        let engine: Arc<dyn Engine> =
            Arc::new(MemoryEngine::open(&MemoryDisk::new()).expect("nobody else has it open"));
        let meta = RangeMeta::new(range, KeyspaceId::DEFAULT, KeySpan::all(), 1 << 20, true);
        let mut staged = Staged::new(&*engine);
        Range::create(&meta, &mut staged);
        engine.write(staged.into_batch()).expect("the disk has space");
        let (committer, run) = Committer::new(FlushInline(Arc::clone(&engine)));
        tokio::spawn(run);
        let settings = SnapshotSettings::default();
        let snapshots = Snapshots::open(&*engine, settings, Arc::new(NoFailpoints));
        let place = Place {
            engine: Arc::clone(&engine),
            committer: committer.clone(),
            range,
            generation: Generation(1),
            snapshots: snapshots.expect("the disk is empty"),
        };
        let log = RangeLog::open(engine, committer, range, Generation(1), u64::MAX);
        let log = log.expect("an empty log is whole");
        let audits = Audits::new(Arc::clone(&place.snapshots.pace));
        let (machine, _) = StateMachine::open(place, log.clone(), Arc::default(), audits)
            .expect("the base was just written");
        Ok(((), Log(log), Machine(machine)))
    }
}

type OurSuite = Suite<Numbered, Log, Machine, Empty, ()>;

macro_rules! suite {
    ($($test:ident)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $test() {
            let ((), log, machine) = Empty.build().await.expect("an empty disk opens");
            OurSuite::$test(log, machine).await.expect("the store does what the suite asks");
        }
    )*};
}

suite! {
    last_membership_in_log_initial
    last_membership_in_log
    last_membership_in_log_multi_step
    get_membership_initial
    get_membership_from_log_and_empty_sm
    get_membership_from_empty_log_and_sm
    get_membership_from_log_le_sm_last_applied
    get_membership_from_log_gt_sm_last_applied_1
    get_membership_from_log_gt_sm_last_applied_2
    get_initial_state_without_init
    get_initial_state_with_state
    get_initial_state_last_log_gt_sm
    get_initial_state_inverted_log_order
    get_initial_state_conflict_at_same_index
    get_initial_state_re_apply_committed
    save_vote
    get_log_entries
    limited_get_log_entries
    leader_bounded_stream
    entries_stream
    try_get_log_entry
    log_reader_reads_new_entries
    initial_logs
    get_log_state
    get_log_id
    last_id_in_log
    purge_logs_upto_0
    purge_logs_upto_5
    purge_logs_upto_20
    delete_logs_after_11
    delete_logs_after_5
    delete_logs_after_0
    delete_logs_after_none
    append_to_log
    snapshot_meta
    snapshot_meta_optional
    apply_single
    apply_multiple
}

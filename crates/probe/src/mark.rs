//! Rare branches, and how often each was taken.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! marks {
    ($($(#[doc = $meaning:literal])+ $mark:ident = $name:literal,)+) => {
        /// A rare branch whose being taken says something.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Mark {
            $($(#[doc = $meaning])+ $mark,)+
        }

        impl Mark {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$mark,)+];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$mark => $name,)+
                }
            }

            /// What has happened where it is hit, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$mark => concat!($($meaning,)+).trim(),)+
                }
            }
        }
    };
}

marks! {
    /// A write whose id is in the table is answered as its first copy was, and not done again.
    DuplicateAnswered = "duplicate-answered",
    /// A copy of a write comes after its client had the answer, and is refused.
    IdRetired = "id-retired",
    /// Several entries are applied in one batch.
    BatchApplied = "batch-applied",
    /// Entries of a leader that nobody else had are cut off.
    LogTruncated = "log-truncated",
    /// A leader that has not heard from a quorum lately takes no entry.
    ProposalWithoutQuorum = "proposal-without-quorum",
    /// Another leader takes over while an entry is under way: nobody knows what became of it.
    ProposalLost = "proposal-lost",
    /// A strict read finds that too few voters answer.
    RoundWithoutQuorum = "round-without-quorum",
    /// A lease is not relied on, because a quorum's acknowledgements are too old.
    LeaseTooOld = "lease-too-old",
    /// A node that has just started refuses its vote, because its life before may have promised it.
    SilentVoteRefused = "silent-vote-refused",
    /// A replica may campaign from now on, a lease after its node's start.
    SilenceEnded = "silence-ended",
    /// A log is cut less than it could be, because a follower still reads it.
    LogCutWaits = "log-cut-waits",
    /// A leader that closes a time waits for entries it has stamped before.
    SectionWaits = "section-waits",
    /// A session stands above what is applied, and the lease and its settled entries answer it all the same.
    LeaseAfterSettling = "lease-after-settling",
    /// A strict read's session stands above what is applied, and a time is closed for it.
    SessionClosesTime = "session-closes-time",
    /// A read has its index before the replica has applied it.
    ReadWaitsForApply = "read-waits-for-apply",
    /// As many rounds of questions are under way as may be: a read waits to begin the next.
    RoundsFull = "rounds-full",
    /// A round's answer comes before that of an earlier one, and answers the reads of both.
    RoundOvertaken = "round-overtaken",
    /// A sequential read's session stands above what the replica knows, and the leader is asked.
    ClosedOnDemand = "closed-on-demand",
    /// A leader knows too little for a sequential read, and serves it as a strict one.
    LeaderReadsStrictly = "leader-reads-strictly",
    /// A replica does not get to know enough for a session, and the read goes to another one.
    ReadMovedOn = "read-moved-on",
    /// A closed time is known, and its place in the log is not applied here yet.
    ClosedNotReached = "closed-not-reached",
    /// The clock stands at its durable bound, and whoever wants a time waits for the disk.
    BoundRaisedOnDemand = "bound-raised-on-demand",
    /// A client's time is further ahead than good clocks are, and is waited for.
    ClientTimeWaitedFor = "client-time-waited-for",
    /// A client's time is so far ahead that no good clock gave it.
    ClientTimeRefused = "client-time-refused",
    /// A peer's message is refused, because its physical clock is too far ahead.
    PeerRefused = "peer-refused",
    /// A node waits at its start until real time has come near its clock.
    ClockSettles = "clock-settles",
    /// A node finds its clock at odds with those of most nodes, and gives up what it leads.
    NodeFenced = "node-fenced",
    /// A node's clock agrees with those of most nodes again.
    NodeUnfenced = "node-unfenced",
    /// Wall and monotonic clock have parted: no acknowledgement counts any more for a lease.
    ClocksParted = "clocks-parted",
    /// A voter speaks in another life: what it promised in the last one counts no more.
    VoterRestarted = "voter-restarted",
    /// A leader that reads by its lease hands over.
    TransferUnderLease = "transfer-under-lease",
    /// A leadership is not handed over, because the other node has not caught up.
    TransferRefused = "transfer-refused",
    /// A write is refused by a node whose clock is at odds with those of most nodes.
    FencedWriteRefused = "fenced-write-refused",
    /// A node passes a command on to the one that leads.
    PassedOn = "passed-on",
    /// A node that a command is passed on to does not answer.
    PassedOnInVain = "passed-on-in-vain",
    /// A write is refused because the disk is nearly full.
    DiskFull = "disk-full",
    /// A sync fails, and the node stops.
    SyncFailed = "sync-failed",
    /// A connection owes an answer for too long, and is given up.
    ConnectionSilent = "connection-silent",
    /// A client is told who leads, and asks there.
    HintFollowed = "hint-followed",
    /// A client is told of a leader that does not answer it, and asks to be passed on.
    HintToDoubtful = "hint-to-doubtful",
    /// A client sends a write again, with the same id, that may have happened.
    RetriedUnknown = "retried-unknown",
    /// A client has asked every replica in vain, and learns anew where they are.
    ReplicasAllAsked = "replicas-all-asked",
    /// A node is asked for a stream from where it does not keep it any more, or not yet.
    StreamRefused = "stream-refused",
    /// A node sends what it holds of a third one's stream.
    StreamRelayed = "stream-relayed",
    /// Local writes arrive that the base has already, and are stored to be relayed.
    StreamBehindLog = "stream-behind-log",
    /// A stream is followed from further on than where it ended, because its sender does not have what is between; the base does.
    StreamGoesOnFurther = "stream-goes-on-further",
    /// Local writes have arrived, and wait to be shown until what they follow is there.
    HeldAndNotShown = "held-and-not-shown",
    /// An entry folds from below what is folded, and only the rest of it counts.
    SegmentFoldedInPart = "segment-folded-in-part",
    /// A local write is ended in the base before it has come.
    IdSpent = "id-spent",
    /// A strict read has its session's local writes folded first.
    FoldedForRead = "folded-for-read",
    /// A log write has its session's local writes folded ahead of it.
    FoldedForWrite = "folded-for-write",
    /// A causal request waits for local writes that its session follows.
    WaitsForStream = "waits-for-stream",
    /// A causal request waits for log entries that its session follows.
    WaitsForLogs = "waits-for-logs",
    /// A local write is refused by an origin that is sealed, or about to be.
    SealedOriginRefuses = "sealed-origin-refuses",
    /// A local write waits because much of its range is not folded.
    QuotaSlowed = "quota-slowed",
    /// A local write is refused because as much of its range is not folded as may be.
    QuotaRefused = "quota-refused",
}

/// How often each was hit since the process started.
static COUNTS: [AtomicU64; Mark::ALL.len()] = [const { AtomicU64::new(0) }; Mark::ALL.len()];

impl Mark {
    /// Counts one.
    #[inline]
    pub fn hit(self) {
        COUNTS[self as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was hit since the process started.
    pub fn count(self) -> u64 {
        COUNTS[self as usize].load(Ordering::Relaxed)
    }
}

/// The counts of all marks at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Marks(Vec<u64>);

impl Marks {
    /// As they are now. Of the whole process: of all clusters that are simulated in it.
    pub fn now() -> Self {
        Self(Mark::ALL.iter().map(|mark| mark.count()).collect())
    }

    /// What was hit since an earlier moment, in the order of [`Mark::ALL`].
    pub fn since<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = (Mark, u64)> + 'a {
        let counts = self.0.iter().zip(&earlier.0);
        Mark::ALL.iter().zip(counts).map(|(mark, (now, before))| (*mark, now - before))
    }
}

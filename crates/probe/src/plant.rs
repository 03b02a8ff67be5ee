//! Bugs that can be planted: each at the place where somebody could have made it.

macro_rules! plants {
    ($($(#[doc = $meaning:literal])+ $plant:ident = $name:literal,)+) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Plant {
            $($(#[doc = $meaning])+ $plant,)+
        }

        impl Plant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$plant,)+];

            /// Its name, as the environment variable `PLANT` has it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$plant => $name,)+
                }
            }

            /// What is done wrong, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$plant => concat!($($meaning,)+).trim(),)+
                }
            }
        }
    };
}

plants! {
    /// A follower answers a strict read from what it has applied.
    FollowerAnswersStrict = "follower-answers-strict",
    /// A leader answers a strict read without asking a quorum whether it still leads.
    NoReadIndex = "no-read-index",
    /// A strict read takes part in a round of questions that had begun before the read came.
    JoinsRoundUnderWay = "joins-round-under-way",
    /// A write counts as durable before the sync that makes it so.
    AckBeforeSync = "ack-before-sync",
    /// A snapshot is sent without the ids of the writes in it.
    SnapshotWithoutIds = "snapshot-without-ids",
    /// A write is stamped when it comes, before the section in which entries and closed times take their turns.
    StampOutsideSection = "stamp-outside-section",
    /// A leader closes a time without a quorum having confirmed that it leads.
    ClosedWithoutQuorum = "closed-without-quorum",
    /// What a replica without a vote acknowledges counts for the quorum that confirms a leader.
    LearnerCounted = "learner-counted",
    /// An answer that names a higher vote counts as an acknowledgement of the leader that is asking.
    AckWithoutVote = "acknowledged-without-vote",
    /// A peer's clock is looked at, and not taken in.
    PeerNotMerged = "peer-not-merged",
    /// The clock's bound is raised without being written.
    BoundNotPersisted = "bound-not-persisted",
    /// A snapshot's installation first removes what there was, with no note of what it is about to do.
    SnapshotWipesFirst = "snapshot-wipes-first",
    /// A replica answers a sequential read without looking at where the session stands.
    SessionIgnored = "session-ignored",
    /// A sequential read takes the value from one snapshot of the store and its place in the log from a later one.
    TwoSnapshots = "two-snapshots",
    /// A local write's position counts as durable as soon as it is given.
    PublishedEarly = "position-published-early",
    /// A subscription begins where the furthest range is, and a stretch behind a gap lifts the watermark all the same.
    LiftOverGap = "lift-over-gap",
    /// A delta of another node is shown as soon as it is held, whatever it follows.
    CausesIgnored = "causes-ignored",
    /// A causal read is answered without a look at what its session has seen.
    SeenIgnored = "seen-ignored",
    /// A strict or sequential operation does without its session's own local writes.
    OwnIgnored = "own-ignored",
    /// A log write does not say what it follows.
    LogPastDropped = "log-past-dropped",
    /// A leader goes on above what it has proposed to fold in vain, and a fold that begins above what is folded is applied.
    FoldGap = "fold-gap",
    /// A leader proposes to fold from what is applied whatever is under way, and what is folded already is folded again.
    FoldTwice = "fold-twice",
    /// An overlay drops what has been proposed for folding, before it is folded.
    OverlayDropped = "overlay-dropped",
    /// Folding an element into the base forgets the id under which others end it.
    LiveIdsDropped = "live-ids-dropped",
    /// A copy of a local write that is known is skipped, and what it alone names is not ended.
    RemoveSkipped = "retried-remove-skipped",
    /// The record of a deleted key is dropped at once.
    TombstoneEarly = "tombstone-early",
    /// A session's own writes count as in the base once they are shown.
    OwnCut = "own-cut",
    /// A node that has dropped part of a stream sends the rest as if it were all.
    RelayForgets = "relay-forgets",
    /// A snapshot that is installed wipes local writes as well.
    InstallWipes = "install-wipes-overlay",
    /// A node goes on taking local writes of a range after it has said up to where it took any.
    SealIgnored = "seal-ignored",
    /// A local write that was sent again to another node counts again.
    CountedTwice = "retry-counted-twice",
}

impl Plant {
    /// Whether this bug is there: the constant `false` in every build without the feature `planted`.
    #[cfg(not(feature = "planted"))]
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        false
    }

    /// Whether this bug is there: the one that the environment variable `PLANT` names; without it, none.
    ///
    /// # Panics
    /// It names no bug.
    #[cfg(feature = "planted")]
    pub fn is_on(self) -> bool {
        static PICKED: std::sync::OnceLock<Option<Plant>> = std::sync::OnceLock::new();
        *PICKED.get_or_init(|| {
            let name = std::env::var("PLANT").unwrap_or_default();
            if name.is_empty() {
                return None;
            }
            let names: Vec<_> = Self::ALL.iter().map(|plant| plant.name()).collect();
            let named = Self::named(&name);
            assert!(named.is_some(), "PLANT={name} is none of {}", names.join(", "));
            named
        }) == Some(self)
    }

    /// The bug of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|plant| plant.name() == name)
    }
}

//! What a run found wrong, and which check found it.

use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// A check of a run. Its name is stable: tables of planted bugs and old reports name checks by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Check {
    /// No clock is above its durable bound.
    Bound,
    /// A question's clock is merged before it has an effect, an answer's read after all it tells.
    Merged,
    /// Applied stamps rise.
    Stamps,
    /// What was closed stays closed.
    Closed,
    /// What is said and acknowledged of local writes is durable.
    Frontier,
    /// Marks are over what is held.
    Held,
    /// What is shown is shown with its causes.
    Shown,
    /// Each id takes effect once.
    Ids,
    /// The base is a function of the log alone.
    Replicas,
    /// What is applied is durable on a quorum.
    Committed,
    /// One place of a range's logs is one entry.
    LogMatching,
    /// Whoever leads has what was applied before.
    Leader,
    /// Whoever leads cuts nothing off its log.
    AppendOnly,
    /// What was applied anywhere stays in every log until it is applied there.
    Kept,
    /// A vote never goes back.
    Vote,
    /// What is applied at an index is the same entry everywhere.
    StateMachine,
    /// What was acknowledged was applied, and stays.
    Durability,
    /// A clock that is far ahead is refused.
    Clocks,
    /// Strict operations are linearizable, key by key.
    Linearizable,
    /// All operations fit into one order over all keys.
    Sequential,
    /// No effect is seen without its causes, over keys and sessions.
    Causal,
    /// A session sees its own writes, and what it saw before.
    Sessions,
    /// A read sees what was acknowledged before the bound it asked for.
    Staleness,
    /// What no fault explains: an answer nobody can have given, an error of the wrong kind.
    Answers,
    /// Reads are proved as the cluster is set up.
    Proofs,
    /// Once faults are over, everything is served in time.
    Served,
    /// An operation ends by its deadline.
    Deadline,
    /// Replicas become the same once faults are over.
    ReplicasEqual,
    /// Local reads at every node end up with what strict ones see, and nothing is left to be folded.
    Convergence,
    /// A counter is the sum of what was added to it.
    Counter,
    /// A set holds what was added and not removed.
    Set,
    /// A node raised one of its alarms: it found its own rules broken.
    Alarm,
    /// A node stopped by itself, and no fault is a reason to.
    Stopped,
    /// Something panicked.
    Panic,
    /// The same seed is the same run.
    Determinism,
    /// The simulation itself: nothing is shown about the database.
    Simulation,
}

impl Check {
    /// Its short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bound => "INV-1",
            Self::Merged => "INV-2",
            Self::Stamps => "INV-3",
            Self::Closed => "INV-4",
            Self::Frontier => "INV-5",
            Self::Held => "INV-6",
            Self::Shown => "INV-7",
            Self::Ids => "INV-8",
            Self::Replicas => "INV-9",
            Self::Committed => "committed",
            Self::LogMatching => "log matching",
            Self::Leader => "leader completeness",
            Self::AppendOnly => "leader append-only",
            Self::Kept => "committed stays",
            Self::Vote => "vote",
            Self::StateMachine => "state machine safety",
            Self::Durability => "durability",
            Self::Clocks => "clocks",
            Self::Linearizable => "linearizable",
            Self::Sequential => "sequential",
            Self::Causal => "causal",
            Self::Sessions => "sessions",
            Self::Staleness => "staleness",
            Self::Answers => "answers",
            Self::Proofs => "proofs",
            Self::Served => "served",
            Self::Deadline => "deadline",
            Self::ReplicasEqual => "replicas equal",
            Self::Convergence => "convergence",
            Self::Counter => "counter",
            Self::Set => "set",
            Self::Alarm => "alarm",
            Self::Stopped => "stopped",
            Self::Panic => "panic",
            Self::Determinism => "determinism",
            Self::Simulation => "simulation",
        }
    }

    /// What is wrong, as this check found it.
    pub fn found(self, message: impl Into<String>) -> Violation {
        Violation { check: self, message: message.into() }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which check found it.
    pub check: Check,
    /// What it found.
    pub message: String,
}

impl Violation {
    /// The violation at the root of an error, with what was said around it; any other error is one of the
    /// simulation.
    pub fn of(error: &anyhow::Error) -> Self {
        let mut check = Check::Simulation;
        let told = error.chain().map(|part| match part.downcast_ref::<Self>() {
            Some(found) => {
                check = found.check;
                found.message.clone()
            }
            None => part.to_string(),
        });
        let message = told.collect::<Vec<_>>().join(": ");
        check.found(message)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.message)
    }
}

impl std::error::Error for Violation {}

thread_local! {
    /// What the first panic on this thread said, while panics are caught.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs something that may panic anywhere, also in a task of a simulated host; the first panic is told as a
/// violation.
pub(crate) fn catch<T>(run: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // A host that panics makes its runtime panic, which would hide the reason.
            PANIC.with_borrow_mut(|first| first.get_or_insert_with(|| info.to_string()).len());
            before(info);
        }));
    });
    PANIC.take();
    match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(_) => Err(Check::Panic.found(PANIC.take().unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn an_error_keeps_the_check_it_is_about_under_whatever_is_said_around_it() {
        let found = Check::Stamps.found("r4 applies 3 after 5");
        let plain = anyhow::Error::new(found.clone());
        assert_eq!(Violation::of(&plain), found);
        let more = Err::<(), _>(plain).context("after 3 s").unwrap_err();
        let told = Violation::of(&more);
        assert_eq!(
            (told.check, &*told.message),
            (Check::Stamps, "after 3 s: r4 applies 3 after 5")
        );
        assert_eq!(told.to_string(), "INV-3: after 3 s: r4 applies 3 after 5");
        assert_eq!(Violation::of(&anyhow!("no host")).check, Check::Simulation);
    }

    #[test]
    fn a_panic_is_a_violation_that_says_what_panicked_first() {
        let caught = catch::<()>(|| {
            let _ = panic::catch_unwind(|| panic!("the cause"));
            panic!("the consequence");
        });
        let found = caught.unwrap_err();
        assert_eq!(found.check, Check::Panic);
        assert!(found.message.contains("the cause"), "{found}");
        assert_eq!(catch(|| Ok(1)), Ok(1));
    }
}

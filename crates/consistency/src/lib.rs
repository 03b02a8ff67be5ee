//! The consistency levels: what each implies for a request, and the rules that keep the promises.
//!
//! ```text
//!   request ──▶ plan ──┬─ ThroughLog ── ids: taken once, remembered as long as a copy may come
//!      │               ├─ ReadIndex ─── rounds: many reads share one question to a quorum
//!    token             └─ ClosedTime ── closed: up to which time a replica knows everything
//! ```
//!
//! What the rules keep:
//!
//! - No request is served at a weaker level than it asked for: [`plan`] says how, or says no.
//! - A strict read sees every log write acknowledged before it arrived: it takes part only in a round
//!   that starts after its arrival ([`Rounds`]), or is answered by a lease that holds after it ([`LeaseRule`]).
//! - INV-4: a replica takes for known only what a leader closed for it ([`ClosedTimes`]).
//! - A session never goes back in the one total order of log entries ([`Token::stood`]).
//! - INV-8 (each id takes effect once): an id is forgotten only when every later copy of it will be
//!   refused for its age ([`check_id_age`], [`log_id_may_be_dropped`], [`local_id_may_be_dropped`]).
//!
//! Nothing here knows how a read is executed or where the log is.

mod closed;
mod ids;
mod lease;
mod level;
mod past;
mod rounds;
mod serving;
mod token;

pub use closed::{Closed, ClosedTimes, LogPlace, closed_up_to, may_close, staleness};
pub use ids::{Origin, OriginStatus, check_id_age, local_id_may_be_dropped, log_id_may_be_dropped};
pub use lease::{ClockLook, Grant, LeaseRule, lease_usable, silence_after_start};
pub use level::{KeyspaceLevels, Operation, Plan, Route, plan};
pub use past::{Demand, demand};
pub use rounds::{Completed, NextRound, ROUNDS_APART_MIN, ROUNDS_IN_FLIGHT_MAX, RoundId, Rounds};
pub use serving::{Known, SequentialRead, answers_strict_reads};
pub use token::{TOKEN_LEN_MAX, Token};

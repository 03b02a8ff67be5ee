//! Which operation ids have taken effect, and with what answer.
//!
//! ```text
//!   client ─▶ window:   answered_below = 4        5 ─▶ Written      7 ─▶ Mismatch
//!                       (below: dropped,          (kept, for a retry to find)
//!                        a late copy is refused)
//! ```
//!
//! One window per client, kept as one row of the base, so that an entry with many operations of one
//! client writes one row. A window goes once the range's last stamp is ten minutes past the newest
//! birth in it: from then on apply refuses every id it could hold. The window of a client that goes on
//! writing stays, but whenever it is written it loses the answers to ids that are refused by now: a
//! client that never says what it was answered costs ten minutes of answers, not all of them. What is
//! dropped is a function of the base and the entry, so that all replicas drop alike (INV-9).
//!
//! Copies may arrive in any order. A sequence below `answered_below` is refused also if no copy of it
//! was seen before: its client has said that it sends none again, so this one is a straggler, of a
//! write that failed elsewhere or was given up.

use std::collections::{BTreeMap, BTreeSet};

use latitude_types::{ClientId, OPERATION_ID_LIFETIME, OperationId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::range::Done;

const VERSION: u8 = 1;

/// The ids of log writes of one range.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IdTable {
    windows: BTreeMap<ClientId, Window>,
    /// The same clients by when their window goes.
    by_expiry: BTreeSet<(Timestamp, ClientId)>,
    /// Windows that differ from their rows.
    dirty: BTreeSet<ClientId>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Window {
    answered_below: u64,
    newest_birth: Timestamp,
    /// By sequence.
    answers: BTreeMap<u64, Kept>,
}

impl Window {
    fn expires_at(&self) -> Timestamp {
        expires_at(self.newest_birth)
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Kept {
    birth: Timestamp,
    answer: Answer,
}

fn expires_at(birth: Timestamp) -> Timestamp {
    birth.plus_ms(OPERATION_ID_LIFETIME.as_millis() as u64)
}

/// What a write was answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// What it did.
    pub done: Done,
}

/// What is known of an id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// It has not taken effect here.
    New,
    /// It has, with this answer.
    Known(Answer),
    /// The client had its answer, and it is no longer kept.
    Retired,
}

impl IdTable {
    /// What is known of `id`.
    pub fn look_up(&self, id: &OperationId) -> Lookup {
        match self.windows.get(&id.client) {
            Some(window) if id.sequence < window.answered_below => Lookup::Retired,
            Some(window) => match window.answers.get(&id.sequence) {
                Some(kept) => Lookup::Known(kept.answer.clone()),
                None => Lookup::New,
            },
            None => Lookup::New,
        }
    }

    /// Notes that `id` has taken effect with this answer, and that the client has had its answers to
    /// every sequence below `answered_below`.
    pub fn record(&mut self, id: &OperationId, answered_below: u64, answer: Answer) {
        let window = self.windows.entry(id.client).or_default();
        self.by_expiry.remove(&(window.expires_at(), id.client));
        window.newest_birth = window.newest_birth.max(id.birth);
        window.answers.insert(id.sequence, Kept { birth: id.birth, answer });
        // Never past this operation itself: it is being answered only now.
        window.answered_below = window.answered_below.max(answered_below.min(id.sequence));
        window.answers = window.answers.split_off(&window.answered_below);
        self.by_expiry.insert((window.expires_at(), id.client));
        self.dirty.insert(id.client);
    }

    /// Drops the windows in which no id is accepted any more in an entry stamped `now`.
    pub fn expire(&mut self, now: Timestamp) {
        while let Some((expires_at, client)) = self.by_expiry.first().copied() {
            if now <= expires_at {
                break;
            }
            self.by_expiry.pop_first();
            self.windows.remove(&client);
            self.dirty.insert(client);
        }
    }

    /// The rows that changed since this was last asked, without the answers to ids that no entry
    /// stamped `now` or later can bring; `None`: the row goes.
    pub(crate) fn take_dirty(
        &mut self,
        now: Timestamp,
    ) -> impl Iterator<Item = (ClientId, Option<Vec<u8>>)> {
        std::mem::take(&mut self.dirty).into_iter().map(move |client| {
            let row = self.windows.get_mut(&client).map(|window| {
                window.answers.retain(|_, kept| now <= expires_at(kept.birth));
                codec::encode(VERSION, window)
            });
            (client, row)
        })
    }

    /// Takes in a row of the base.
    pub(crate) fn load(&mut self, client: ClientId, row: &[u8]) -> Result<(), DecodeError> {
        let window: Window = codec::decode("id window", VERSION, row)?;
        self.by_expiry.insert((window.expires_at(), client));
        self.windows.insert(client, window);
        Ok(())
    }

    /// What is kept: each client, below which sequence it was answered, and the sequences it may still
    /// ask about.
    pub fn kept(&self) -> impl Iterator<Item = (ClientId, u64, impl Iterator<Item = u64>)> {
        self.windows.iter().map(|(client, window)| {
            (*client, window.answered_below, window.answers.keys().copied())
        })
    }

    /// How many clients have a window.
    pub fn clients(&self) -> usize {
        self.windows.len()
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::{NodeId, OperationKind, Stamp, WriteTime};
    use proptest::prelude::*;

    use super::*;

    fn id(client: u8, sequence: u64, birth_ms: u64) -> OperationId {
        OperationId {
            birth: Timestamp::from_ms(birth_ms),
            client: ClientId([client; 16]),
            sequence,
            kind: OperationKind::Log,
        }
    }

    fn answer(ms: u64) -> Answer {
        let stamp = Stamp { time: Timestamp::from_ms(ms), node: NodeId(1) };
        Answer { done: Done::Written { version: WriteTime::of_log_write(stamp, 0) } }
    }

    #[test]
    fn an_answer_is_kept_until_the_client_says_it_has_it() {
        let mut ids = IdTable::default();
        ids.record(&id(1, 1, 10), 1, answer(10));
        ids.record(&id(1, 2, 11), 1, answer(11));
        assert_eq!(ids.look_up(&id(1, 1, 10)), Lookup::Known(answer(10)));
        ids.record(&id(1, 3, 12), 2, answer(12));
        assert_eq!(ids.look_up(&id(1, 1, 10)), Lookup::Retired);
        assert_eq!(ids.look_up(&id(1, 2, 11)), Lookup::Known(answer(11)));
        assert_eq!(ids.look_up(&id(1, 4, 13)), Lookup::New);
    }

    #[test]
    fn an_operation_never_retires_itself() {
        let mut ids = IdTable::default();
        ids.record(&id(1, 5, 10), u64::MAX, answer(10));
        assert_eq!(ids.look_up(&id(1, 5, 10)), Lookup::Known(answer(10)));
    }

    #[test]
    fn a_window_goes_ten_minutes_after_its_newest_birth_and_not_before() {
        let mut ids = IdTable::default();
        ids.record(&id(1, 1, 10), 1, answer(10));
        ids.record(&id(2, 1, 1_000), 1, answer(1_000));
        ids.expire(Timestamp::from_ms(600_010));
        assert_eq!(ids.clients(), 2, "an id is accepted up to its last instant");
        ids.expire(Timestamp::from_ms(600_011));
        assert_eq!(ids.look_up(&id(1, 1, 10)), Lookup::New);
        assert_eq!(ids.look_up(&id(2, 1, 1_000)), Lookup::Known(answer(1_000)));
    }

    #[test]
    fn a_client_that_never_says_what_it_was_answered_costs_ten_minutes_of_answers() {
        let mut ids = IdTable::default();
        for minute in 0..60 {
            let now = Timestamp::from_ms(minute * 60_000);
            ids.expire(now);
            ids.record(&id(1, minute + 1, now.ms()), 0, answer(now.ms()));
            ids.take_dirty(now).for_each(drop);
        }
        let (_, _, sequences) = ids.kept().next().unwrap();
        // The one born exactly ten minutes ago is still accepted, hence still known.
        assert_eq!(sequences.collect::<Vec<_>>(), (50..=60).collect::<Vec<_>>());
    }

    #[test]
    fn a_straggler_below_what_its_client_was_answered_is_refused_though_never_seen() {
        let mut ids = IdTable::default();
        ids.record(&id(1, 5, 10), 4, answer(10));
        assert_eq!(ids.look_up(&id(1, 3, 9)), Lookup::Retired);
        assert_eq!(ids.look_up(&id(1, 4, 9)), Lookup::New, "late, but its client waits for it");
    }

    /// The bytes on disk. If this changes, [`VERSION`] must.
    #[test]
    fn the_layout_of_version_1_never_changes() {
        let mut ids = IdTable::default();
        ids.record(&id(1, 3, 5), 2, answer(9));
        ids.record(&id(1, 4, 6), 2, Answer { done: Done::Mismatch { found: None } });
        let (_, row) = ids.take_dirty(Timestamp::from_ms(9)).next().unwrap();
        let hex: String = row.unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "01028080800c02038080800a0080808012010100048080800c0100");
    }

    proptest! {
        #[test]
        fn a_damaged_row_never_panics(row in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = IdTable::default().load(ClientId([1; 16]), &row);
            let _ = IdTable::default().load(ClientId([1; 16]), &[&[VERSION], &row[..]].concat());
        }
    }

    #[test]
    fn a_table_loaded_from_its_rows_is_the_same_table() {
        let mut ids = IdTable::default();
        ids.record(&id(1, 1, 10), 1, answer(10));
        ids.record(&id(1, 2, 11), 2, answer(11));
        ids.record(&id(2, 9, 12), 9, answer(12));
        let mut loaded = IdTable::default();
        for (client, row) in ids.take_dirty(Timestamp::from_ms(12)) {
            loaded.load(client, &row.unwrap()).unwrap();
        }
        assert_eq!(loaded, ids);
    }
}

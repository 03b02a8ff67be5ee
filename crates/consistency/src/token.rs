//! The session token: what a client has seen and done, so that its next operation, anywhere, takes it
//! into account. Opaque to clients; made and read by servers, and joined by client libraries.
//!
//! ```text
//!   version │ cluster, incarnation │ clock │ s │ seen, floor │ log × 16, floor │ own, floor │ key id │ checksum
//!      1           16 + 4              8     └─ everything here relative to the clock ────────┘      16
//! ```
//!
//! What holds:
//!
//! - No part of a token exceeds its clock, so whoever merges the clock is above all of it
//!   (`consistency.md` part 2, Clocks). The encoding cannot even say otherwise.
//! - Tokens are a lattice ([`Token::join`]): parallel requests of one session are joined in any order.
//! - A token of another cluster, or of this one before it was restored from a backup, is refused
//!   (pitfall B19): its times mean nothing here.
//!
//! The checksum finds damage, not malice; its key id leaves room for one that does.

use latitude_types::{
    ClusterId, ClusterIdentity, Epoch, Error, NodeId, Past, Positions, RangeId, Reason, Stamp,
    Timestamp,
};
use xxhash_rust::xxh3::xxh3_128;

const VERSION: u8 = 1;
/// The tag is a checksum. Other ids will name keys of a message authentication code.
const CHECKSUM: u8 = 0;
const TAG_LEN: usize = 1 + 16;
/// More than any token has: a client that sends more sends something else.
pub const TOKEN_LEN_MAX: usize = 64 * 1024;

/// What a session has seen and done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// Whose times these are.
    pub cluster: ClusterIdentity,
    clock: Timestamp,
    stood: Stamp,
    past: Past,
    own: Positions,
}

impl Token {
    /// A session that has seen nothing.
    pub fn new(cluster: ClusterIdentity) -> Self {
        Self {
            cluster,
            clock: Timestamp::ZERO,
            stood: Stamp::ZERO,
            past: Past::default(),
            own: Positions::default(),
        }
    }

    /// A time that no part of the token exceeds: a node merges it before the request has any effect.
    pub fn clock(&self) -> Timestamp {
        self.clock
    }

    /// s: the session's place in the one total order of log entries. No strict or sequential operation
    /// of it stands below.
    pub fn stood(&self) -> Stamp {
        self.stood
    }

    /// What the session's next write follows.
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// The session's own local writes: what a strict or sequential operation must find folded.
    pub fn own(&self) -> &Positions {
        &self.own
    }

    /// Every node whose local writes the token names.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        let named = self.past.seen.by_node.iter().chain(&self.own.by_node);
        named.map(|(node, _)| *node)
    }

    /// The session has met the clock of a node.
    pub fn meet_clock(&mut self, clock: Timestamp) {
        self.clock = self.clock.max(clock);
    }

    /// The session has been served at this place of the total order.
    pub fn stand_at(&mut self, stamp: Stamp) {
        self.stood = self.stood.max(stamp);
        self.meet_clock(self.stood.time);
    }

    /// The session has met an entry of a range's log: its own write, or one whose value it read.
    pub fn meet_entry(&mut self, range: RangeId, epoch: Epoch, stamp: Stamp) {
        self.past.add_log(range, epoch, stamp);
        self.stand_at(stamp);
    }

    /// The session has had a local write taken by a node, at this position.
    pub fn meet_own_write(&mut self, node: NodeId, position: Timestamp) {
        self.own.raise(node, position);
        self.past.seen.raise(node, position);
        self.meet_clock(position);
    }

    /// The session has read something that follows `past`.
    pub fn meet_past(&mut self, past: &Past) {
        self.past.join(past);
        self.meet_clock(self.past.seen.highest().max(self.past.log_highest().time));
        // Every log stamp a session meets, at whatever level, raises its place.
        self.stand_at(past.log_highest());
    }

    /// The session need not say any more that it has seen local writes at or below these positions: every node
    /// shows them, and none forgets. What it has done itself it goes on saying: held everywhere is not folded.
    ///
    /// Nor that it follows an entry which every replica of its range has applied: `is_applied` says so of a range at an epoch,
    /// and a stamp.
    pub fn forget_stable(
        &mut self,
        stable: &Positions,
        is_applied: impl Fn(RangeId, Epoch, Stamp) -> bool,
    ) {
        self.past.forget_stable(stable, is_applied);
    }

    /// What either of two tokens of one session knows.
    ///
    /// # Errors
    /// [`Reason::TokenForeign`] if they are of different clusters, or of two lives of one.
    pub fn join(&mut self, other: &Self) -> Result<(), Error> {
        if self.cluster != other.cluster {
            return Err(foreign(other.cluster, self.cluster));
        }
        self.clock = self.clock.max(other.clock);
        self.stood = self.stood.max(other.stood);
        self.past.join(&other.past);
        self.own.join(&other.own);
        Ok(())
    }

    /// The token's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer { bytes: Vec::with_capacity(96), clock: self.clock };
        out.bytes.push(VERSION);
        out.bytes.extend_from_slice(&self.cluster.id.0);
        out.number(u64::from(self.cluster.incarnation));
        out.bytes.extend_from_slice(&self.clock.0.to_le_bytes());
        out.stamp(self.stood);
        out.positions(&self.past.seen);
        out.number(self.past.log.len() as u64);
        let mut before = 0;
        for (range, epoch, stamp) in &self.past.log {
            out.number(range.0 - before);
            before = range.0;
            out.number(u64::from(epoch.0));
            out.stamp(*stamp);
        }
        out.stamp(self.past.log_floor);
        out.positions(&self.own);
        let sum = xxh3_128(&out.bytes);
        out.bytes.push(CHECKSUM);
        out.bytes.extend_from_slice(&sum.to_le_bytes());
        out.bytes
    }

    /// The token of these bytes, whichever cluster's.
    ///
    /// # Errors
    /// [`Reason::TokenInvalid`]: damaged, or of a version this one does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > TOKEN_LEN_MAX {
            return Err(invalid("it is longer than any token"));
        }
        match bytes.first() {
            Some(&VERSION) => {}
            Some(other) => return Err(invalid(&format!("it is of version {other}"))),
            None => return Err(invalid("it is empty")),
        }
        let body_len =
            bytes.len().checked_sub(TAG_LEN).ok_or_else(|| invalid("it is cut short"))?;
        let (body, tag) = bytes.split_at(body_len);
        if tag[0] != CHECKSUM || tag[1..] != xxh3_128(body).to_le_bytes() {
            return Err(invalid("its checksum is wrong"));
        }
        read(&body[1..]).ok_or_else(|| invalid("its parts do not fit together"))
    }

    /// The token of a request to this cluster.
    ///
    /// # Errors
    /// As [`Token::decode`]; [`Reason::TokenForeign`] for another cluster's, or another life's.
    pub fn decode_for(bytes: &[u8], cluster: ClusterIdentity) -> Result<Self, Error> {
        let token = Self::decode(bytes)?;
        if token.cluster == cluster { Ok(token) } else { Err(foreign(token.cluster, cluster)) }
    }
}

fn invalid(why: &str) -> Error {
    Error::new(
        Reason::TokenInvalid,
        format!(
            "the session token cannot be read: {why}. Send the token of an earlier reply unchanged, or none"
        ),
    )
}

fn foreign(theirs: ClusterIdentity, ours: ClusterIdentity) -> Error {
    Error::new(
        Reason::TokenForeign,
        format!("the session token is of cluster {theirs}; this is {ours}: begin a new session"),
    )
}

struct Writer {
    bytes: Vec<u8>,
    clock: Timestamp,
}

impl Writer {
    /// LEB128.
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// As one more than its milliseconds below the clock's, and its counter; zero is "none".
    fn time(&mut self, time: Timestamp) {
        if time == Timestamp::ZERO {
            self.number(0);
        } else {
            // Every way to change a part raises the clock to it.
            self.number(self.clock.ms().saturating_sub(time.ms()) + 1);
            self.number(u64::from(time.counter()));
        }
    }

    fn stamp(&mut self, stamp: Stamp) {
        self.time(stamp.time);
        self.number(u64::from(stamp.node.0));
    }

    fn positions(&mut self, positions: &Positions) {
        self.number(positions.by_node.len() as u64);
        for (node, position) in &positions.by_node {
            self.number(u64::from(node.0));
            self.time(*position);
        }
        self.time(positions.floor);
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    clock: Timestamp,
}

fn read(body: &[u8]) -> Option<Token> {
    let (id, rest) = body.split_first_chunk::<16>()?;
    let mut reader = Reader { rest, clock: Timestamp::ZERO };
    let incarnation = u32::try_from(reader.number()?).ok()?;
    let (clock, rest) = reader.rest.split_first_chunk::<8>()?;
    reader = Reader { rest, clock: Timestamp(u64::from_le_bytes(*clock)) };
    let stood = reader.stamp()?;
    let seen = reader.positions()?;
    let mut past = Past { seen, ..Past::default() };
    let mut before = 0u64;
    for _ in 0..reader.number()? {
        before = before.checked_add(reader.number()?)?;
        let range = RangeId(before);
        let epoch = Epoch(u32::try_from(reader.number()?).ok()?);
        past.add_log(range, epoch, reader.stamp()?);
    }
    let log_floor = reader.stamp()?;
    past.join(&Past { log_floor, ..Past::default() });
    let own = reader.positions()?;
    let cluster = ClusterIdentity { id: ClusterId(*id), incarnation };
    reader.rest.is_empty().then_some(Token { cluster, clock: reader.clock, stood, past, own })
}

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn time(&mut self) -> Option<Timestamp> {
        match self.number()? {
            0 => Some(Timestamp::ZERO),
            below => {
                let ms = self.clock.ms().checked_sub(below - 1)?;
                let counter = self.number()?;
                let time = Timestamp(Timestamp::from_ms(ms).0.checked_add(counter)?);
                (time <= self.clock && time.ms() == ms).then_some(time)
            }
        }
    }

    fn stamp(&mut self) -> Option<Stamp> {
        let time = self.time()?;
        Some(Stamp { time, node: self.node()? })
    }

    fn node(&mut self) -> Option<NodeId> {
        u32::try_from(self.number()?).ok().map(NodeId)
    }

    fn positions(&mut self) -> Option<Positions> {
        let mut positions = Positions::default();
        for _ in 0..self.number()? {
            let node = self.node()?;
            positions.raise(node, self.time()?);
        }
        let floor = self.time()?;
        positions.join(&Positions { by_node: Vec::new(), floor });
        Some(positions)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: ClusterIdentity = ClusterIdentity { id: ClusterId([7; 16]), incarnation: 1 };

    #[derive(Clone, Debug)]
    enum Step {
        Clock(u64),
        Stand(u64, u32),
        Entry(u64, u32, u64, u32),
        Past(u64, u64),
        Own(u32, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let time = || prop_oneof![1u64..50, any::<u64>()];
        let step = prop_oneof![
            time().prop_map(Step::Clock),
            (time(), 1u32..4).prop_map(|(time, node)| Step::Stand(time, node)),
            (1u64..30, 1u32..3, time(), 1u32..4).prop_map(|(r, e, t, n)| Step::Entry(r, e, t, n)),
            (1u64..30, time()).prop_map(|(range, time)| Step::Past(range, time)),
            (1u32..5, time()).prop_map(|(node, time)| Step::Own(node, time)),
        ];
        prop::collection::vec(step, 0..40)
    }

    fn token(steps: &[Step]) -> Token {
        let mut token = Token::new(CLUSTER);
        let stamp = |time: u64, node: u32| Stamp { time: Timestamp(time), node: NodeId(node) };
        for step in steps {
            match step {
                Step::Clock(time) => token.meet_clock(Timestamp(*time)),
                Step::Stand(time, node) => token.stand_at(stamp(*time, *node)),
                Step::Entry(range, epoch, time, node) => {
                    token.meet_entry(RangeId(*range), Epoch(*epoch), stamp(*time, *node));
                }
                Step::Past(range, time) => {
                    let mut past = Past::default();
                    past.add_log(RangeId(*range), Epoch(1), stamp(*time, 1));
                    past.seen.raise(NodeId(1), Timestamp(*time));
                    token.meet_past(&past);
                }
                Step::Own(node, time) => {
                    token.own.raise(NodeId(*node), Timestamp(*time));
                    token.meet_clock(Timestamp(*time));
                }
            }
        }
        token
    }

    fn tokens() -> impl Strategy<Value = Token> {
        steps().prop_map(|steps| token(&steps))
    }

    fn joined(a: &Token, b: &Token) -> Token {
        let mut joined = a.clone();
        joined.join(b).unwrap();
        joined
    }

    proptest! {
        #[test]
        fn a_token_decodes_to_itself(token in tokens()) {
            prop_assert_eq!(Token::decode_for(&token.encode(), CLUSTER), Ok(token));
        }

        #[test]
        fn no_part_of_a_token_exceeds_its_clock(token in tokens()) {
            prop_assert!(token.stood.time <= token.clock);
            prop_assert!(token.past.log_highest().time <= token.clock);
            prop_assert!(token.past.seen.highest().max(token.own.highest()) <= token.clock);
            prop_assert!(token.past.log_highest() <= token.stood);
        }

        #[test]
        fn tokens_are_a_lattice(a in tokens(), b in tokens(), c in tokens()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a.clone());
            prop_assert!(joined(&a, &b).stood >= a.stood && joined(&a, &b).clock >= b.clock);
        }

        #[test]
        fn a_damaged_token_is_refused(token in tokens(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = token.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Token::decode(&bytes).unwrap_err().reason, Reason::TokenInvalid);
            let cut = &token.encode()[..at];
            prop_assert_eq!(Token::decode(cut).unwrap_err().reason, Reason::TokenInvalid);
        }

        /// What a forger with the right checksum could send.
        #[test]
        fn bytes_that_no_server_made_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = [&[VERSION], &body[..]].concat();
            let sum = xxh3_128(&bytes);
            bytes.push(CHECKSUM);
            bytes.extend_from_slice(&sum.to_le_bytes());
            if let Ok(token) = Token::decode(&bytes) {
                prop_assert!(token.stood.time <= token.clock);
            }
        }
    }

    /// Pitfall B19.
    #[test]
    fn a_token_of_another_cluster_or_of_an_earlier_life_is_refused() {
        let bytes = token(&[Step::Stand(9, 1)]).encode();
        let restored = ClusterIdentity { incarnation: 2, ..CLUSTER };
        let other = ClusterIdentity { id: ClusterId([8; 16]), ..CLUSTER };
        for cluster in [restored, other] {
            let error = Token::decode_for(&bytes, cluster).unwrap_err();
            assert_eq!(error.reason, Reason::TokenForeign);
            assert!(Token::new(cluster).join(&token(&[])).is_err());
        }
    }

    /// Eight nodes, sixteen ranges, times spread over ten minutes: at most 400 bytes of base64.
    #[test]
    fn a_full_token_is_small() {
        let now = Timestamp::from_ms(90_000_000_000);
        let ago = |i: u64| Timestamp(Timestamp::from_ms(now.ms() - i * 37_000).0 + i * 9);
        let mut token = Token::new(CLUSTER);
        for i in 0..16 {
            let stamp = Stamp { time: ago(i), node: NodeId(i as u32 % 8 + 1) };
            token.meet_entry(RangeId(1000 + i), Epoch(3), stamp);
        }
        for node in 0..8 {
            token.past.seen.raise(NodeId(node as u32 + 1), ago(node));
            token.own.raise(NodeId(node as u32 + 1), ago(node + 3));
        }
        let base64 = token.encode().len().div_ceil(3) * 4;
        assert!(base64 <= 400, "{base64} bytes");
    }

    /// Tokens outlive servers. If this changes, [`VERSION`] must.
    #[test]
    fn the_layout_of_version_1_never_changes() {
        let token = token(&[Step::Entry(4, 1, 1000, 2), Step::Clock(1300), Step::Own(3, 1200)]);
        let hex: String = token.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "010707070707070707070707070707070701140500000000000001e80702000001040101e807020000010301b0090000ab47c0c4aee4c512ec08f2439f883175"
        );
    }
}

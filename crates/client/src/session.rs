//! A session: what its operations have seen and done, carried from each reply to the next command.
//!
//! ```text
//!   command ◀── token ── Session ◀── join ── token of every reply
//!                          │  ▲
//!                  token() ▼  │ from_token()      another process, another service, later
//! ```
//!
//! Invariants:
//!
//! - A session never loses what one of its replies knew: tokens of operations that run side by side are
//!   joined, in whatever order they come.
//! - A reply whose token cannot be taken in leaves its operation what it is, a success, and breaks the
//!   session: it no longer knows all it has seen, so its next operation fails before it is sent.

use std::str::FromStr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use latitude_consistency::Token;
use latitude_types::{Error, Reason, Result, Timestamp};

use crate::lock;

/// What a row of operations has seen and done, so that each takes all earlier ones into account,
/// whichever nodes serve them. Cheap to clone; all clones are one session, in whatever tasks they are.
///
/// Operations that one task runs one after the other are in that order. Operations that run side by side
/// are not: none of them is sure to see another.
///
/// - **A write of unknown outcome** leaves no trace in the session: it does not know whether the write
///   happened, and a later read of it may see the write or not. Read at level strict to find out.
/// - **Births**: a write is born above all its session has seen, also if that was elsewhere
///   ([`Session::from_token`]).
/// - **One cluster**: the token of another, or of this one before it was restored from a backup, is
///   refused with [`Reason::TokenForeign`]. Then begin a new session.
///
/// ```
/// # use latitude_client::{Client, Level, Result, Session};
/// # async fn example(client: Client) -> Result<()> {
/// let session = Session::new();
/// let zones = client.keyspace("zones").with_level(Level::Sequential).with_session(session.clone());
/// zones.put("berlin", "UTC+2").await?;
/// // Served by the nearest replica, and never without the put.
/// zones.get("berlin").await?;
///
/// // The next request of the same user may come to another process: it goes on from here.
/// let cookie = session.token();
/// # let cookie = cookie.unwrap_or_default();
/// let session = Session::from_token(&cookie)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Session {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// `None`: nothing has been seen.
    known: Option<Token>,
    /// The token as it is sent; `None`: to be encoded.
    encoded: Option<Bytes>,
    /// Why the session no longer knows all it has seen.
    broken: Option<Error>,
}

impl State {
    fn encoded(&mut self) -> Bytes {
        match (&self.encoded, &self.known) {
            (Some(encoded), _) => encoded.clone(),
            (None, Some(known)) => {
                let encoded = Bytes::from(known.encode());
                self.encoded = Some(encoded.clone());
                encoded
            }
            (None, None) => Bytes::new(),
        }
    }

    /// A reply's token says all that the one sent with the command said, but for what need not be said any more. So
    /// it takes that one's place, unless the session has met something else meanwhile.
    fn follow(&mut self, sent: &[u8], token: Token) -> Result<()> {
        let is_sent = !sent.is_empty() && self.encoded() == sent;
        match &mut self.known {
            Some(known) if is_sent && known.cluster == token.cluster => {
                *known = token;
                self.encoded = None;
                Ok(())
            }
            _ => self.join(token),
        }
    }

    fn join(&mut self, token: Token) -> Result<()> {
        match &mut self.known {
            Some(known) => known.join(&token)?,
            None => self.known = Some(token),
        }
        self.encoded = None;
        Ok(())
    }
}

impl Session {
    /// A session that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The session whose token this is, as [`Session::token`] gave it; white space around it does not
    /// count. From here on the two are different sessions.
    ///
    /// # Errors
    /// [`Reason::TokenInvalid`], with what is wrong with it.
    pub fn from_token(text: &str) -> Result<Self> {
        let bytes = BASE64.decode(text.trim()).map_err(|error| {
            let message = format!(
                "the session token is not in base64: {error}. Give it as it was handed out"
            );
            Error::new(Reason::TokenInvalid, message)
        })?;
        let session = Self::new();
        lock(&session.state).known = Some(Token::decode(&bytes)?);
        Ok(session)
    }

    /// All the session has seen and done, in base64 (standard alphabet, at most a few hundred characters);
    /// `None` while that is nothing. Whoever goes on with it takes into account what was answered here
    /// until now.
    pub fn token(&self) -> Option<String> {
        let mut state = lock(&self.state);
        state.known.is_some().then(|| BASE64.encode(state.encoded()))
    }

    /// From now on this session also knows what `other` knows now: for instance when work done side by
    /// side in several sessions is put together.
    ///
    /// # Errors
    /// [`Reason::TokenForeign`] if they are of different clusters, and what [`Session::check`] says of
    /// `other`; the session is unchanged then.
    pub fn join(&self, other: &Self) -> Result<()> {
        other.check()?;
        // Two statements, for two locks that are never held together.
        let known = lock(&other.state).known.clone();
        match known {
            Some(known) => lock(&self.state).join(known),
            None => Ok(()),
        }
    }

    /// Whether the session knows all it has seen. An operation of one that does not fails with this
    /// error before it is sent.
    ///
    /// # Errors
    /// [`Reason::TokenInvalid`] or [`Reason::TokenForeign`]: an earlier reply's token could not be taken
    /// in, because the server is broken, is too new for this library, or its cluster has been replaced by
    /// another.
    pub fn check(&self) -> Result<()> {
        lock(&self.state).broken.clone().map_or(Ok(()), Err)
    }

    /// The token for the next command; empty if nothing has been seen.
    pub(crate) fn to_wire(&self) -> Bytes {
        lock(&self.state).encoded()
    }

    /// A time that nothing the session has seen exceeds. Whatever it writes from here on is above it.
    pub fn clock(&self) -> Timestamp {
        lock(&self.state).known.as_ref().map_or(Timestamp::ZERO, Token::clock)
    }

    /// Takes in the token of the reply to a command that was sent with the token `sent`.
    pub(crate) fn meet(&self, sent: &[u8], token: &[u8]) {
        let decoded = Token::decode(token);
        let mut state = lock(&self.state);
        if let Err(error) = decoded.and_then(|token| state.follow(sent, token)) {
            let message = format!(
                "the session no longer knows all it has seen: the token of an earlier reply could not be \
                 taken in ({}). Begin a new session",
                error.message
            );
            state.broken.get_or_insert(Error { message, ..error });
        }
    }
}

impl FromStr for Session {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::from_token(text)
    }
}

#[cfg(test)]
mod tests {
    use latitude_types::{ClusterId, ClusterIdentity, Epoch, NodeId, RangeId, Stamp};

    use super::*;

    const CLUSTER: ClusterIdentity = ClusterIdentity { id: ClusterId([7; 16]), incarnation: 1 };

    fn met(range: u64, ms: u64) -> Token {
        let mut token = Token::new(CLUSTER);
        let stamp = Stamp { time: Timestamp::from_ms(ms), node: NodeId(1) };
        token.meet_entry(RangeId(range), Epoch(1), stamp);
        token
    }

    #[test]
    fn a_session_knows_what_any_of_its_replies_knew_in_whatever_order_they_came() {
        let (a, b) = (met(4, 1000), met(5, 900));
        let mut both = a.clone();
        both.join(&b).unwrap();
        for order in [[&a, &b], [&b, &a]] {
            let session = Session::new();
            assert_eq!((session.token(), session.to_wire()), (None, Bytes::new()));
            let clone = session.clone();
            order.iter().for_each(|token| clone.meet(&[], &token.encode()));
            assert_eq!(session.to_wire(), both.encode());
            assert_eq!(session.clock(), Timestamp::from_ms(1000));
        }
    }

    #[test]
    fn what_a_reply_no_longer_says_is_forgotten_unless_something_came_between() {
        let mut long = met(4, 1000);
        long.meet_own_write(NodeId(1), Timestamp::from_ms(900));
        let mut short = long.clone();
        short.forget_stable(&long.past().seen.clone(), |_, _, _| false);
        assert!(short.encode().len() < long.encode().len());
        let session = Session::new();
        session.meet(&[], &long.encode());
        let sent = session.to_wire();
        let other = session.clone();
        session.meet(&sent, &short.encode());
        assert_eq!(session.to_wire(), short.encode());
        // Two at once: what the other reply said counts as well.
        let sent = session.to_wire();
        other.meet(&sent, &long.encode());
        session.meet(&sent, &met(5, 950).encode());
        let mut both = long.clone();
        both.join(&met(5, 950)).unwrap();
        assert_eq!(session.to_wire(), both.encode());
    }

    #[test]
    fn a_token_handed_over_is_another_session_that_knows_the_same() {
        let first = Session::new();
        first.meet(&[], &met(4, 1000).encode());
        let text = first.token().unwrap();
        let second: Session = format!("  {text}\n").parse().unwrap();
        assert_eq!(second.token(), Some(text.clone()));
        second.meet(&[], &met(5, 2000).encode());
        assert_eq!(first.token(), Some(text));
        first.join(&second).unwrap();
        assert_eq!(first.token(), second.token());
    }

    #[test]
    fn what_is_no_token_is_refused_with_what_is_wrong() {
        let whole = BASE64.encode(met(4, 1000).encode());
        let mut damaged = met(4, 1000).encode();
        damaged[20] ^= 1;
        for (text, why) in [
            ("", "it is empty"),
            ("so/not*base64", "not in base64"),
            (&whole[..whole.len() - 4], "checksum"),
            (&BASE64.encode(damaged), "checksum"),
        ] {
            let error = Session::from_token(text).unwrap_err();
            assert_eq!((error.reason, error.may_have_applied()), (Reason::TokenInvalid, false));
            assert!(error.message.contains(why), "{error}");
        }
    }

    #[test]
    fn a_reply_that_cannot_be_taken_in_breaks_the_session_and_loses_nothing_else() {
        let foreign = Token::new(ClusterIdentity { incarnation: 2, ..CLUSTER }).encode();
        for (token, reason) in
            [(&b""[..], Reason::TokenInvalid), (&foreign[..], Reason::TokenForeign)]
        {
            let session = Session::new();
            session.meet(&[], &met(4, 1000).encode());
            session.check().unwrap();
            session.meet(&[], token);
            session.meet(&[], &met(5, 2000).encode());
            assert_eq!(session.check().unwrap_err().reason, reason);
            assert_eq!(session.clock(), Timestamp::from_ms(2000));
            assert!(Session::new().join(&session).is_err());
        }
    }
}

//! Sessions: the one a command goes on with, and the commands on tokens.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use latitude_client::{Keyspace, Session};
use latitude_consistency::Token;
use latitude_types::{Error, Reason};
use serde_json::json;

use crate::args::{DurabilityFlags, FreshnessFlags, SessionArgs, SessionCommand, SessionFlags};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::render;
use crate::session_file::{SessionFile, session_of};

/// The session that a command goes on with, if any.
#[derive(Debug)]
pub(super) struct InSession {
    file: Option<SessionFile>,
    session: Option<Session>,
}

impl InSession {
    /// # Errors
    /// If what is named is no session.
    pub(super) fn of(flags: &SessionFlags) -> Result<Self, Failure> {
        let file = flags.session.as_deref().map(SessionFile::open).transpose()?;
        let session = match (&file, &flags.token) {
            (Some(file), _) => Some(file.session().clone()),
            (None, Some(token)) => Some(Session::from_token(token)?),
            (None, None) => None,
        };
        Ok(Self { file, session })
    }

    /// The same keyspace, asked as the flags say.
    pub(super) fn on(&self, keyspace: Keyspace, flags: &SessionFlags) -> Keyspace {
        let keyspace = keyspace.with_accept(flags.accept.iter().copied());
        match &self.session {
            Some(session) => keyspace.with_session(session.clone()),
            None => keyspace,
        }
    }

    /// Keeps what the session knows now. To be called before an answer is printed, so that what was seen
    /// is in the session; the answer is printed all the same.
    pub(super) fn save(&mut self) -> Result<(), Failure> {
        match &mut self.file {
            Some(file) => file.save(),
            None => Ok(()),
        }
    }
}

/// The same keyspace, with what a read demands.
pub(super) fn fresh(keyspace: Keyspace, flags: &FreshnessFlags) -> Keyspace {
    match flags.max_staleness {
        Some(staleness) => keyspace.with_max_staleness(staleness),
        None => keyspace,
    }
}

/// The keyspace with what a write demands.
pub(super) fn durable(keyspace: Keyspace, flags: &DurabilityFlags) -> Keyspace {
    match flags.ack_replicas {
        Some(replicas) => keyspace.with_ack_replicas(replicas),
        None => keyspace,
    }
}

pub(super) fn run(args: &SessionArgs, output: &mut Output<'_>) -> Result<Exit, Failure> {
    match &args.command {
        SessionCommand::Show { session } => {
            let token = known(&session_of(session)?)?;
            match (output.format(), token) {
                (Format::Text, Some(token)) => output.line(&render::session(&token))?,
                (Format::Text, None) => output.note("the session has seen nothing yet")?,
                (Format::Json, token) => {
                    output.json(&token.as_ref().map(render::session_json))?;
                }
            }
        }
        SessionCommand::Join { sessions } => {
            let joined = Session::new();
            for session in sessions {
                joined.join(&session_of(session)?)?;
            }
            match (output.format(), joined.token()) {
                (Format::Text, Some(token)) => output.line(&token)?,
                (Format::Text, None) => output.note("the sessions have seen nothing yet")?,
                (Format::Json, token) => output.json(&json!({ "token": token }))?,
            }
        }
    }
    Ok(Exit::Success)
}

/// What a session knows; `None` if that is nothing.
fn known(session: &Session) -> Result<Option<Token>, Failure> {
    let Some(text) = session.token() else { return Ok(None) };
    let bytes = BASE64
        .decode(text)
        .map_err(|_| Error::new(Reason::Internal, "a session's token is base64: report it"))?;
    Ok(Some(Token::decode(&bytes)?))
}

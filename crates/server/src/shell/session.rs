//! The shell's session: shown, begun anew, carried to and from files as its token.

use std::io;
use std::path::Path;

use latitude_client::Session;
use serde_json::json;

use super::line::SessionCommand;
use super::state::State;
use crate::commands::Context;
use crate::failure::Failure;
use crate::output::{Format, Output};

pub(super) fn run(
    command: SessionCommand,
    context: &Context,
    state: &State,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    // `None` while it has seen nothing.
    let token = context.session().and_then(|session| session.token());
    match command {
        SessionCommand::New => context.begin_session(state.to.clone(), Session::new()),
        SessionCommand::Show => match (output.format(), token) {
            (Format::Json, token) => output.json(&json!({ "token": token }))?,
            (Format::Text, Some(token)) => output.line(&token)?,
            (Format::Text, None) => output.note("the session has seen nothing yet")?,
        },
        SessionCommand::Save { file } => {
            let line = token.map_or_else(String::new, |token| token + "\n");
            std::fs::write(&file, line).map_err(|error| cannot("written", &file, &error))?;
        }
        SessionCommand::Load { file } => {
            let token =
                std::fs::read_to_string(&file).map_err(|error| cannot("read", &file, &error))?;
            // That of a session that had seen nothing is empty.
            let session = match token.trim() {
                "" => Session::new(),
                token => Session::from_token(token)?,
            };
            context.begin_session(state.to.clone(), session);
        }
    }
    Ok(())
}

fn cannot(what: &str, file: &Path, error: &io::Error) -> Failure {
    Failure::Usage(format!("{} cannot be {what}: {error}", file.display()))
}

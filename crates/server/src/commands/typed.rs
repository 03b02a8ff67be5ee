//! Writes to counters, sets, maps and flags.

use latitude_client::{AddOutcome, Added, Answer};

use super::Context;
use super::data::{key_form, keyspace, print_json, print_receipt, print_written, value};
use super::session::{InSession, durable};
use crate::args::{
    AddArgs, DataArgs, FlagAction, FlagArgs, MapAction, MapArgs, ResetArgs, SetAction, SetArgs,
};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::{render, text};

pub(super) async fn add(
    args: AddArgs,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let AddArgs { amount, min, max, data, .. } = &args;
    let key = text::key(&args.key, data.hex)?;
    let mut session = InSession::of(&data.session)?;
    let keyspace = durable(keyspace(data, context), &args.durability);
    let keyspace = session.on(keyspace, &data.session);
    let answer = if min.is_none() && max.is_none() {
        keyspace.add(&key, *amount).await?.map(AddOutcome::Applied)
    } else {
        keyspace.add_within(&key, *amount, *min, *max).await?
    };
    let saved = session.save();
    match output.format() {
        Format::Json => {
            let outcome = render::add_json(key_form(data), &key, &answer.value);
            print_json(outcome, &answer, data.receipt.is_wanted(), output)?;
        }
        Format::Text => print_added(&answer, data, output)?,
    }
    saved?;
    Ok(if answer.value.is_applied() { Exit::Success } else { Exit::No })
}

fn print_added(
    answer: &Answer<AddOutcome>,
    args: &DataArgs,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    match answer.value {
        AddOutcome::Applied(Added { sum: Some(sum), .. }) => output.line(&sum.to_string())?,
        AddOutcome::Applied(Added { sum: None, version }) => output.line(&version.to_string())?,
        AddOutcome::OutOfBounds { found } => {
            output.line(&found.to_string())?;
            output.note("not added: the sum, which is the one above, would leave the bounds")?;
        }
    }
    print_receipt(answer, args.receipt.is_wanted(), output)
}

pub(super) async fn reset(
    args: ResetArgs,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let key = text::key(&args.key, args.data.hex)?;
    let mut session = InSession::of(&args.data.session)?;
    let keyspace = durable(keyspace(&args.data, context), &args.durability);
    let keyspace = session.on(keyspace, &args.data.session);
    let answer = keyspace.reset(&key).await?;
    let saved = session.save();
    print_written(&key, &answer, true, &args.data, output)?;
    saved?;
    Ok(Exit::Success)
}

pub(super) async fn set(
    args: SetArgs,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let key = text::key(&args.key, args.data.hex)?;
    let mut session = InSession::of(&args.data.session)?;
    let keyspace = durable(keyspace(&args.data, context), &args.durability);
    let keyspace = session.on(keyspace, &args.data.session);
    let alone = args.elements.len() == 1;
    // One after the other, so that a failure leaves no doubt about the others.
    for element in &args.elements {
        let written = match args.action {
            SetAction::Add => keyspace.set_add(&key, element).await,
            SetAction::Remove => keyspace.set_remove(&key, element).await,
        };
        let answer = written.inspect_err(|_| {
            if !alone {
                let element = text::one_line(element.as_bytes());
                let note = format!("failed at element {element}: those before it are done, those after it were not tried");
                let _ = output.note(&note);
            }
        })?;
        let saved = session.save();
        print_written(&key, &answer, true, &args.data, output)?;
        saved?;
    }
    Ok(Exit::Success)
}

pub(super) async fn map(
    args: MapArgs,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let key = text::key(&args.key, args.data.hex)?;
    let mut session = InSession::of(&args.data.session)?;
    let keyspace = durable(keyspace(&args.data, context), &args.durability);
    let keyspace = session.on(keyspace, &args.data.session);
    let answer = match args.action {
        MapAction::Put => {
            let value = value(args.value.as_deref(), None, context)?
                .ok_or_else(|| Failure::Usage("say what to write: VALUE".to_string()))?;
            keyspace.map_put(&key, &args.field, value).await?
        }
        MapAction::Remove if args.value.is_some() => {
            let message = "a field is removed whatever it holds: leave VALUE out".to_string();
            return Err(Failure::Usage(message));
        }
        MapAction::Remove => keyspace.map_remove(&key, &args.field).await?,
    };
    let saved = session.save();
    print_written(&key, &answer, true, &args.data, output)?;
    saved?;
    Ok(Exit::Success)
}

pub(super) async fn flag(
    args: FlagArgs,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let key = text::key(&args.key, args.data.hex)?;
    let mut session = InSession::of(&args.data.session)?;
    let keyspace = durable(keyspace(&args.data, context), &args.durability);
    let keyspace = session.on(keyspace, &args.data.session);
    let answer = match args.action {
        FlagAction::Enable => keyspace.enable(&key).await?,
        FlagAction::Disable => keyspace.disable(&key).await?,
    };
    let saved = session.save();
    print_written(&key, &answer, true, &args.data, output)?;
    saved?;
    Ok(Exit::Success)
}

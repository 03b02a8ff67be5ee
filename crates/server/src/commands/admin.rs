//! What an operator does.

mod origins;

use std::io::{BufRead, IsTerminal};

use bytes::Bytes;
use futures::StreamExt;
use latitude_client::wire::{
    AuditVerdict, CreateKeyspaceRequest, OriginState, RegionReplicas, ValueType,
};
use latitude_client::{Admin, Client};
use latitude_rpc::ToWire;
use latitude_types::{NodeId, RangeId};
use serde_json::{Value as Json, json};

use super::Context;
use crate::args::{
    AdminArgs, AdminCommand, AuditArgs, CreateKeyspaceArgs, KeyspaceCommand, ValueTypeArg,
};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::render;

/// Ranges audited at the same time.
const AUDITS_AT_ONCE: usize = 4;

pub(super) async fn run(
    args: AdminArgs,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let client = context.client(&args.connect);
    let admin = client.admin();
    match args.command {
        AdminCommand::Status => {
            let status = admin.status().await?;
            match output.format() {
                Format::Text => output.line(&render::status(&status))?,
                Format::Json => output.json(&render::status_json(&status))?,
            }
        }
        AdminCommand::Nodes => {
            let nodes = admin.nodes().await?;
            print_all(&nodes, render::nodes, render::node_json, output)?;
        }
        AdminCommand::Ranges { keyspace } => {
            let ranges = admin.ranges(keyspace.as_deref().unwrap_or_default()).await?;
            print_all(&ranges, render::ranges, render::range_json, output)?;
        }
        AdminCommand::Deltas { keyspace } => {
            return deltas(&client, &keyspace.unwrap_or_default(), output).await;
        }
        AdminCommand::Audit(args) => return audit(args, &admin, output).await,
        AdminCommand::Origins { keyspace } => {
            let rows = origins::list(&client, &keyspace.unwrap_or_default(), output).await?;
            print_all(&rows, render::origins, render::origin_json, output)?;
        }
        AdminCommand::Seal(args) => {
            return origins::set(&client, OriginState::Sealed, args, output).await;
        }
        AdminCommand::Admit(args) => {
            return origins::set(&client, OriginState::Active, args, output).await;
        }
        AdminCommand::Keyspace(command) => run_keyspace(command, &admin, output).await?,
        AdminCommand::TransferLeader { range, to_node } => {
            admin.transfer_leader(range, to_node).await?;
            match output.format() {
                Format::Text => output.line(&format!("{to_node} is to lead {range}."))?,
                Format::Json => output.json(&json!({ "range": range, "to_node": to_node }))?,
            }
        }
    }
    Ok(Exit::Success)
}

/// What each node holds: none sees all of it.
async fn deltas(client: &Client, keyspace: &str, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let mut rows = Vec::new();
    let mut exit = Exit::Success;
    for node in client.admin().nodes().await? {
        match client.deltas_at(&node.address, keyspace).await {
            Ok(reply) => rows.extend(reply.deltas.into_iter().map(|of| (NodeId(reply.node), of))),
            Err(error) => {
                // What the others hold is worth as much as without it.
                exit = Exit::Unavailable;
                output.error_line(&format!("{} cannot be asked: {error}", NodeId(node.node)))?;
            }
        }
    }
    rows.sort_by_key(|(node, of)| (of.range_id, of.origin, *node));
    if rows.is_empty() && exit == Exit::Success && output.format() == Format::Text {
        output.note("every local write is in the log")?;
        return Ok(exit);
    }
    print_all(&rows, render::deltas, render::deltas_json, output)?;
    Ok(exit)
}

/// Audits ranges, some at a time, and prints each as it is known, in order.
async fn audit(args: AuditArgs, admin: &Admin, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let AuditArgs { keyspace, range: only, wait } = args;
    let ranges = match only {
        Some(range) => vec![range],
        None => {
            let ranges = admin.ranges(keyspace.as_deref().unwrap_or_default()).await?;
            ranges.into_iter().map(|range| RangeId(range.range_id)).collect()
        }
    };
    let audits = ranges.into_iter().map(|range| async move {
        let found = admin.audit(range, Some(wait)).await;
        (range, found)
    });
    let mut audits = futures::stream::iter(audits).buffered(AUDITS_AT_ONCE);
    let mut exit = Exit::Success;
    while let Some((range, found)) = audits.next().await {
        match found {
            Ok(found) => {
                exit = worse(exit, of_verdict(found.verdict()));
                match output.format() {
                    Format::Text => output.line(&render::audit(&found))?,
                    Format::Json => output.json(&render::audit_json(&found))?,
                }
            }
            Err(error) if only.is_some() => return Err(error.into()),
            Err(error) => {
                // What the other ranges hold is worth as much without it.
                exit = worse(exit, Exit::of(&error));
                output.error_line(&format!("{range} is not audited: {error}"))?;
            }
        }
    }
    Ok(exit)
}

/// What a script must know of an audit.
fn of_verdict(verdict: AuditVerdict) -> Exit {
    match verdict {
        AuditVerdict::Equal => Exit::Success,
        AuditVerdict::Differs => Exit::No,
        AuditVerdict::Incomplete | AuditVerdict::Unspecified => Exit::Unavailable,
    }
}

/// Of two ranges' exits the one to be told: that replicas differ before that something was not looked at.
fn worse(one: Exit, other: Exit) -> Exit {
    match (one, other) {
        (Exit::No, _) | (_, Exit::No) => Exit::No,
        (Exit::Success, other) => other,
        (one, _) => one,
    }
}

async fn run_keyspace(
    command: KeyspaceCommand,
    admin: &Admin,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    match command {
        KeyspaceCommand::Create(args) => {
            let keyspace = admin.create_keyspace(create_request(args)?).await?;
            print_all(&[keyspace], render::keyspaces, render::keyspace_json, output)
        }
        KeyspaceCommand::List => {
            let keyspaces = admin.keyspaces().await?;
            print_all(&keyspaces, render::keyspaces, render::keyspace_json, output)
        }
        KeyspaceCommand::Drop { name, yes } => {
            if !yes {
                let mut stdin = std::io::stdin().lock();
                let person = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
                confirm_drop(&name, person.then_some(&mut stdin as &mut dyn BufRead), output)?;
            }
            let id = admin.drop_keyspace(&name).await?;
            match output.format() {
                Format::Text => output.line(&format!("Dropped keyspace {name} ({id})."))?,
                Format::Json => output.json(&json!({ "keyspace": name, "id": id }))?,
            }
            Ok(())
        }
    }
}

/// A table, or an object to a line.
fn print_all<T>(
    items: &[T],
    text: fn(&[T]) -> String,
    json: fn(&T) -> Json,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    match output.format() {
        Format::Text => output.line(&text(items))?,
        Format::Json => items.iter().try_for_each(|item| output.json(&json(item)))?,
    }
    Ok(())
}

fn create_request(args: CreateKeyspaceArgs) -> Result<CreateKeyspaceRequest, Failure> {
    let value_len_max = args.value_limit.map_or(0, |limit| limit.0);
    let value_len_max = u32::try_from(value_len_max)
        .map_err(|_| Failure::Usage("--value-limit is at most 8MiB".to_string()))?;
    let r#type = match args.value_type {
        ValueTypeArg::Register => ValueType::Register,
        ValueTypeArg::Siblings => ValueType::Siblings,
        ValueTypeArg::Counter => ValueType::Counter,
        ValueTypeArg::Set => ValueType::Set,
        ValueTypeArg::Map => ValueType::Map,
        ValueTypeArg::Flag => ValueType::Flag,
    };
    let place = |(region, replicas): (crate::address::PlaceName, u32)| RegionReplicas {
        region: region.into(),
        replicas,
    };
    Ok(CreateKeyspaceRequest {
        name: args.name,
        r#type: r#type as i32,
        ranges: args.ranges.unwrap_or(0),
        split_at: args.split_at.into_iter().map(Bytes::from).collect(),
        place: args.place.into_iter().map(place).collect(),
        learners: args.learners.into_iter().map(place).collect(),
        log_only: args.log_only,
        default_level: args.default_level.map_or(0, |level| level.to_wire()),
        value_len_max,
    })
}

/// Asks a person to type the keyspace's name; without a person, refuses.
fn confirm_drop(
    name: &str,
    person: Option<&mut dyn BufRead>,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let Some(person) = person else {
        let message = format!("dropping {name} removes all its keys, for good: say --yes");
        return Err(Failure::Usage(message));
    };
    output.error_line(&format!(
        "This removes keyspace {name} and all its keys, for good. Type its name to go on:"
    ))?;
    let mut typed = String::new();
    person.read_line(&mut typed)?;
    if typed.trim() != name {
        return Err(Failure::Usage(format!("keyspace {name} is not dropped")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Ask, Cli, Command};

    fn request(line: &str) -> Result<CreateKeyspaceRequest, Failure> {
        match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
            Command::Ask(Ask::Admin(AdminArgs {
                command: AdminCommand::Keyspace(KeyspaceCommand::Create(args)),
                ..
            })) => create_request(args),
            other => panic!("{other:?} creates no keyspace"),
        }
    }

    fn confirm(person: Option<&str>) -> (Result<(), Failure>, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut output = Output::new(Format::Text, &mut out, &mut err);
        let mut typed = person.map(str::as_bytes);
        let typed = typed.as_mut().map(|typed| typed as &mut dyn BufRead);
        let confirmed = confirm_drop("users", typed, &mut output);
        (confirmed, String::from_utf8(err).unwrap())
    }

    #[test]
    fn that_replicas_differ_is_told_whatever_else_was_found() {
        let exits = |verdicts: &[AuditVerdict]| {
            verdicts.iter().map(|verdict| of_verdict(*verdict)).fold(Exit::Success, worse)
        };
        use AuditVerdict::{Differs, Equal, Incomplete};
        assert_eq!(exits(&[Equal, Equal]), Exit::Success);
        assert_eq!(exits(&[Equal, Incomplete, Equal]), Exit::Unavailable);
        assert_eq!(exits(&[Incomplete, Differs, Equal]), Exit::No);
        assert_eq!(exits(&[Differs, Incomplete]), Exit::No);
    }

    #[test]
    fn what_is_not_said_of_a_keyspace_is_left_to_the_cluster() {
        let request = request("latitude admin keyspace create users").unwrap();
        let expected = CreateKeyspaceRequest {
            name: "users".to_string(),
            r#type: ValueType::Register as i32,
            ..Default::default()
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn everything_said_of_a_keyspace_is_asked_for() {
        let request = request(
            "latitude admin keyspace create users --split-at g --split-at n --place eu=2,us=1 \
             --log-only --default-level strict --value-limit 2MiB",
        )
        .unwrap();
        assert_eq!(request.split_at, ["g", "n"]);
        assert_eq!(request.place[0], RegionReplicas { region: "eu".to_string(), replicas: 2 });
        assert_eq!(request.place[1], RegionReplicas { region: "us".to_string(), replicas: 1 });
        assert!(request.log_only);
        assert_eq!(request.default_level(), latitude_client::wire::Level::Strict);
        assert_eq!(request.value_len_max, 2 << 20);
    }

    #[test]
    fn a_value_limit_that_does_not_fit_the_request_is_refused() {
        let error = request("latitude admin keyspace create users --value-limit 8GiB").unwrap_err();
        assert!(error.to_string().contains("8MiB"), "{error}");
    }

    #[test]
    fn a_script_cannot_drop_a_keyspace_by_accident() {
        let (confirmed, _) = confirm(None);
        let error = confirmed.unwrap_err();
        assert_eq!(error.exit(), Exit::Refused);
        assert!(error.to_string().contains("--yes"), "{error}");
    }

    #[test]
    fn a_person_drops_a_keyspace_by_typing_its_name() {
        let (confirmed, asked) = confirm(Some("users\n"));
        assert!(confirmed.is_ok());
        assert!(asked.contains("users and all its keys"), "{asked}");
        assert!(confirm(Some("user\n")).0.is_err());
        assert!(confirm(Some("")).0.is_err());
    }
}

//! Reads and writes.

use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use futures::StreamExt;
use latitude_client::{Answer, CasOutcome, Expected, Held, Keyspace, Row, Scan, TypedValue, Value};
use latitude_types::{KEY_LEN_MAX, WriteTime};
use serde_json::{Value as Json, json};

use super::Context;
use super::session::{InSession, durable, fresh};
use crate::args::{CasArgs, DataArgs, DeleteArgs, GetArgs, PutArgs, ScanArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::render::{self, KeyForm};
use crate::text;

/// Reads in flight at once when several keys are asked for: hides the round trip, and is far below what
/// one node takes.
const GETS_IN_FLIGHT: usize = 64;

pub(super) async fn get(
    args: GetArgs,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let form = key_form(&args.data);
    let keys = keys(&args.keys, &args.data)?;
    let mut session = InSession::of(&args.data.session)?;
    let keyspace =
        session.on(fresh(keyspace(&args.data, context), &args.freshness), &args.data.session);
    let alone = keys.len() == 1;
    let mut exit = Exit::Success;
    let mut answers = futures::stream::iter(keys)
        .map(|key| {
            let keyspace = keyspace.clone();
            async move {
                let answer = keyspace.get_any(&key).await;
                (key, answer)
            }
        })
        .buffered(GETS_IN_FLIGHT);
    while let Some((key, answer)) = answers.next().await {
        let answer = answer.inspect_err(|_| {
            if !alone {
                // The failure itself is printed by the caller, and is what counts.
                let _ = output.note(&format!("failed at key {}", form.line(&key)));
            }
        })?;
        if answer.value.version.is_none() {
            exit = Exit::No;
        }
        let saved = session.save();
        print_got(&key, &answer, form, alone, args.data.receipt.is_wanted(), output)?;
        saved?;
    }
    Ok(exit)
}

fn print_got(
    key: &Bytes,
    answer: &Answer<Held>,
    form: KeyForm,
    alone: bool,
    receipt: bool,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let Held { value, version } = &answer.value;
    match output.format() {
        Format::Json => {
            let row = match (value, version) {
                (TypedValue::Register(Some(bytes)), Some(version)) => {
                    let value = Value { bytes: bytes.clone(), version: *version };
                    render::row_json(form, key, Some(&value), true)
                }
                (TypedValue::Register(_), _) => render::row_json(form, key, None, true),
                _ => render::value_json(form, key, &answer.value),
            };
            print_json(row, answer, receipt, output)?;
        }
        Format::Text => {
            match value {
                TypedValue::Register(Some(bytes)) if alone => {
                    output.raw(bytes)?;
                    output.raw(b"\n")?;
                }
                TypedValue::Flag(_) if alone => print_lines(value, output)?,
                _ if version.is_none() => output.note(&format!("not found: {}", form.line(key)))?,
                _ if alone => print_lines(value, output)?,
                _ => output.line(&render::value_row(form, key, value))?,
            }
            if let TypedValue::Siblings(siblings) = value
                && !siblings.context.is_empty()
            {
                output.note(&format!("context: {}", text::to_base64(&siblings.context)))?;
            }
            print_receipt(answer, receipt, output)?;
        }
    }
    Ok(())
}

fn print_lines(value: &TypedValue, output: &mut Output<'_>) -> Result<(), Failure> {
    render::value_lines(value).iter().try_for_each(|line| output.line(line))?;
    Ok(())
}

pub(super) async fn put(
    args: PutArgs,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let key = text::key(&args.key, args.data.hex)?;
    let value = value(args.value.as_deref(), args.file.as_deref(), context)?
        .ok_or_else(|| Failure::Usage("say what to write: VALUE or --file".to_string()))?;
    let mut session = InSession::of(&args.data.session)?;
    let keyspace = durable(keyspace(&args.data, context), &args.durability);
    let keyspace = session.on(keyspace, &args.data.session);
    let answer = match args.context {
        Some(context) => keyspace.put_sibling(&key, value, context).await?,
        None => keyspace.put(&key, value).await?,
    };
    let saved = session.save();
    print_written(&key, &answer, true, &args.data, output)?;
    saved?;
    Ok(Exit::Success)
}

pub(super) async fn delete(
    args: DeleteArgs,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let form = key_form(&args.data);
    let keys = keys(&args.keys, &args.data)?;
    let mut session = InSession::of(&args.data.session)?;
    let keyspace = durable(keyspace(&args.data, context), &args.durability);
    let keyspace = session.on(keyspace, &args.data.session);
    let alone = keys.len() == 1;
    if args.context.is_some() && !alone {
        let message = "a context is that of one key: remove one at a time".to_string();
        return Err(Failure::Usage(message));
    }
    // One after the other, so that a failure leaves no doubt about the others.
    for key in keys {
        let deleted = match &args.context {
            Some(context) => keyspace.delete_siblings(&key, context.clone()).await,
            None => keyspace.delete(&key).await,
        };
        let answer = deleted.inspect_err(|_| {
            if !alone {
                let key = form.line(&key);
                let note = format!("failed at key {key}: those before it are removed, those after it were not tried");
                let _ = output.note(&note);
            }
        })?;
        let saved = session.save();
        print_written(&key, &answer, alone, &args.data, output)?;
        saved?;
    }
    Ok(Exit::Success)
}

pub(super) fn print_written(
    key: &Bytes,
    answer: &Answer<WriteTime>,
    alone: bool,
    args: &DataArgs,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let form = key_form(args);
    match output.format() {
        Format::Json => {
            let written = render::write_json(form, key, answer.value);
            print_json(written, answer, args.receipt.is_wanted(), output)?;
        }
        Format::Text => {
            if alone {
                output.line(&answer.value.to_string())?;
            } else {
                output.line(&format!("{}\t{}", form.line(key), answer.value))?;
            }
            print_receipt(answer, args.receipt.is_wanted(), output)?;
        }
    }
    Ok(())
}

pub(super) async fn cas(
    args: CasArgs,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let key = text::key(&args.key, args.data.hex)?;
    let expected = match (args.expect, args.expect_version) {
        (Some(value), _) => Expected::Value(value.into()),
        (None, Some(version)) => Expected::Version(version),
        // The command line demands one of the three.
        (None, None) => Expected::Absent,
    };
    // `--delete` excludes the other two, so that nothing to write means it.
    let new = value(args.new.as_deref(), args.file.as_deref(), context)?;
    let mut session = InSession::of(&args.data.session)?;
    let keyspace = durable(keyspace(&args.data, context), &args.durability);
    let keyspace = session.on(keyspace, &args.data.session);
    let answer = keyspace.compare_and_set(&key, expected, new).await?;
    let saved = session.save();
    match output.format() {
        Format::Json => {
            let outcome = render::cas_json(key_form(&args.data), &key, &answer.value);
            print_json(outcome, &answer, args.data.receipt.is_wanted(), output)?;
        }
        Format::Text => {
            match &answer.value {
                CasOutcome::Applied { version } => output.line(&version.to_string())?,
                CasOutcome::Mismatch { found: Some(version) } => {
                    output.line(&version.to_string())?;
                    output
                        .note("not written: the key holds something else, of the version above")?;
                }
                CasOutcome::Mismatch { found: None } => {
                    output.note("not written: the key does not exist")?;
                }
            }
            print_receipt(&answer, args.data.receipt.is_wanted(), output)?;
        }
    }
    saved?;
    Ok(if answer.value.is_applied() { Exit::Success } else { Exit::No })
}

/// Rows asked for at once: many, so that a long scan takes few round trips.
pub(super) const PAGE_ROWS: u64 = 10_000;
/// A page ends when it has so many bytes, so that it fits in memory whatever the rows are.
pub(super) const PAGE_BYTES: usize = 8 << 20;

pub(super) async fn scan(
    args: ScanArgs,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let form = key_form(&args.data);
    let mut session = InSession::of(&args.data.session)?;
    let keyspace =
        session.on(fresh(keyspace(&args.data, context), &args.freshness), &args.data.session);
    let mut next = Some(span(&args)?);
    // How many rows are still wanted; `--all` wants more than there can be.
    let mut left = if args.all { u64::MAX } else { args.limit };
    while let Some(scan) = next.take().filter(|_| left > 0) {
        let answer =
            keyspace.scan(scan.limit(left.min(PAGE_ROWS) as usize).page_bytes(PAGE_BYTES)).await?;
        let saved = session.save();
        for row in &answer.value.rows {
            print_row(row, form, args.keys_only, output)?;
        }
        print_page_receipt(&answer, args.data.receipt.is_wanted(), output)?;
        saved?;
        left = left.saturating_sub(answer.value.rows.len() as u64);
        next = answer.value.next;
    }
    if next.is_some() {
        output.note("more keys may follow: raise --limit, or read --all")?;
    }
    Ok(Exit::Success)
}

/// What to scan.
fn span(args: &ScanArgs) -> Result<Scan, Failure> {
    let [prefix, start, end] = [&args.prefix, &args.start, &args.end].map(Option::as_deref);
    let mut scan = span_of(prefix, start, end, args.data.hex)?;
    if args.reverse {
        scan = scan.reverse();
    }
    if args.keys_only {
        scan = scan.keys_only();
    }
    Ok(scan)
}

/// The keys of a prefix, or between bounds of which either may be missing.
pub(super) fn span_of(
    prefix: Option<&str>,
    start: Option<&str>,
    end: Option<&str>,
    hex: bool,
) -> Result<Scan, Failure> {
    let bound = |text: Option<&str>| text.map(|text| text::bytes(text, hex)).transpose();
    Ok(match (bound(prefix)?, bound(start)?, bound(end)?) {
        (Some(prefix), ..) => Scan::prefix(prefix),
        (None, None, None) => Scan::all(),
        // No key is as long as this, so no key is above it.
        (None, Some(start), None) => Scan::span(start, [0xff; KEY_LEN_MAX + 1]),
        (None, start, Some(end)) => Scan::span(start.unwrap_or_default(), end),
    })
}

fn print_row(
    row: &Row,
    form: KeyForm,
    keys_only: bool,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    match (output.format(), &row.typed) {
        (Format::Json, Some(typed)) => {
            let held = Held { value: typed.clone(), version: Some(row.version) };
            output.json(&render::value_json(form, &row.key, &held))?;
        }
        (Format::Json, None) => {
            let value = Value { bytes: row.value.clone(), version: row.version };
            output.json(&render::row_json(form, &row.key, Some(&value), !keys_only))?;
        }
        (Format::Text, Some(typed)) => {
            output.line(&render::value_row(form, &row.key, typed))?;
        }
        (Format::Text, None) => {
            let value = (!keys_only).then_some(row.value.as_ref());
            output.line(&render::row_line(form, &row.key, value))?;
        }
    }
    Ok(())
}

/// A page's receipt stands beside its rows, on stderr also in JSON: it belongs to none of them.
fn print_page_receipt<T>(
    answer: &Answer<T>,
    wanted: bool,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    if wanted {
        let (block, json) = render::receipt(answer);
        match output.format() {
            Format::Text => output.error_line(&block)?,
            Format::Json => output.error_line(&json!({ "receipt": json }).to_string())?,
        }
    }
    Ok(())
}

pub(super) fn print_receipt<T>(
    answer: &Answer<T>,
    wanted: bool,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    if wanted {
        output.error_line(&render::receipt(answer).0)?;
    }
    Ok(())
}

pub(super) fn print_json<T>(
    mut object: Json,
    answer: &Answer<T>,
    receipt: bool,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    if receipt {
        object["receipt"] = render::receipt(answer).1;
    }
    Ok(output.json(&object)?)
}

pub(super) fn keyspace(args: &DataArgs, context: &Context) -> Keyspace {
    context.keyspace(&args.at, &args.connect).with_receipt(args.receipt.detail())
}

pub(super) fn key_form(args: &DataArgs) -> KeyForm {
    if args.hex { KeyForm::Hex } else { KeyForm::Text }
}

/// All keys, or the first one that is none: nothing is asked before every key is known to be one.
fn keys(texts: &[String], args: &DataArgs) -> Result<Vec<Bytes>, Failure> {
    Ok(texts.iter().map(|text| text::key(text, args.hex)).collect::<Result<_, _>>()?)
}

/// A value given on the command line, on stdin (`-`) or in a file; `None` if none of them is.
pub(super) fn value(
    text: Option<&str>,
    file: Option<&Path>,
    context: &Context,
) -> Result<Option<Bytes>, Failure> {
    match (text, file) {
        (_, Some(file)) => match std::fs::read(file) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) => {
                Err(Failure::Usage(format!("{} cannot be read: {error}", file.display())))
            }
        },
        (Some("-"), None) => {
            context.take_stdin()?;
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|error| Failure::Usage(format!("stdin cannot be read: {error}")))?;
            Ok(Some(bytes.into()))
        }
        (Some(text), None) => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use latitude_types::{NodeId, Stamp, Timestamp};

    use super::*;
    use crate::args::{Ask, Cli, Command};

    fn version() -> WriteTime {
        WriteTime::of_log_write(Stamp { time: Timestamp::from_ms(70), node: NodeId(1) }, 0)
    }

    fn answer<T>(value: T) -> Answer<T> {
        let latency = std::time::Duration::from_millis(1);
        Answer { value, receipt: None, token: Bytes::new(), attempts: 1, latency }
    }

    fn printed(
        format: Format,
        print: impl FnOnce(&mut Output<'_>) -> Result<(), Failure>,
    ) -> (Vec<u8>, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        print(&mut Output::new(format, &mut out, &mut err)).unwrap();
        (out, String::from_utf8(err).unwrap())
    }

    fn got(bytes: Option<&'static [u8]>) -> Answer<Held> {
        let value = TypedValue::Register(bytes.map(Bytes::from_static));
        answer(Held { value, version: bytes.map(|_| version()) })
    }

    fn scan_args(line: &str) -> ScanArgs {
        match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
            Command::Ask(Ask::Scan(args)) => args,
            other => panic!("{other:?} is no scan"),
        }
    }

    #[test]
    fn one_value_is_printed_as_it_is() {
        let key = Bytes::from_static(b"k");
        let (out, err) = printed(Format::Text, |output| {
            print_got(&key, &got(Some(b"a\tb\xff")), KeyForm::Text, true, false, output)
        });
        assert_eq!((out.as_slice(), err.as_str()), (&b"a\tb\xff\n"[..], ""));
    }

    #[test]
    fn one_of_several_values_is_printed_with_its_key_on_one_line() {
        let key = Bytes::from_static(b"k");
        let (out, _) = printed(Format::Text, |output| {
            print_got(&key, &got(Some(b"a\tb")), KeyForm::Text, false, false, output)
        });
        assert_eq!(out, b"k\ta\\tb\n");
    }

    #[test]
    fn an_absent_key_prints_nothing_a_script_could_take_for_a_value() {
        let key = Bytes::from_static(b"k");
        let (out, err) = printed(Format::Text, |output| {
            print_got(&key, &got(None), KeyForm::Text, true, false, output)
        });
        assert_eq!((out.as_slice(), err.as_str()), (&b""[..], "not found: k\n"));
    }

    #[test]
    fn a_flag_that_is_off_says_so_and_an_empty_set_is_not_found() {
        let key = Bytes::from_static(b"k");
        let print = |value: TypedValue, alone| {
            printed(Format::Text, |output| {
                let held = answer(Held { value, version: None });
                print_got(&key, &held, KeyForm::Text, alone, false, output)
            })
        };
        assert_eq!(print(TypedValue::Flag(false), true), (b"off\n".to_vec(), String::new()));
        let not_found = (Vec::new(), "not found: k\n".to_string());
        assert_eq!(print(TypedValue::Set(vec![]), true), not_found);
        assert_eq!(print(TypedValue::Flag(false), false), not_found);
    }

    #[test]
    fn siblings_are_lines_and_their_context_is_beside_them() {
        let key = Bytes::from_static(b"k");
        let siblings = latitude_client::Siblings {
            values: vec![latitude_client::Sibling { value: "a".into(), version: version() }],
            context: Bytes::from_static(b"\x01"),
        };
        let held = Held { value: TypedValue::Siblings(siblings), version: Some(version()) };
        let (out, err) = printed(Format::Text, |output| {
            print_got(&key, &answer(held), KeyForm::Text, true, false, output)
        });
        assert_eq!((out.as_slice(), err.as_str()), (&b"a\n"[..], "context: AQ==\n"));
    }

    #[test]
    fn a_receipt_goes_to_stderr_as_text_and_into_the_object_as_json() {
        let key = Bytes::from_static(b"k");
        let (out, err) = printed(Format::Text, |output| {
            print_got(&key, &got(Some(b"v")), KeyForm::Text, true, true, output)
        });
        assert_eq!(out, b"v\n");
        assert!(err.contains("attempts        1"), "{err}");
        let (out, err) = printed(Format::Json, |output| {
            print_got(&key, &got(Some(b"v")), KeyForm::Text, true, true, output)
        });
        let object: Json = serde_json::from_slice(&out).unwrap();
        assert_eq!((&object["value"], &object["receipt"]["attempts"]), (&json!("v"), &json!(1)));
        assert_eq!(err, "");
    }

    #[test]
    fn a_scan_reads_the_span_its_arguments_name() {
        let of = |line: &str| span(&scan_args(line)).unwrap();
        assert_eq!(of("latitude scan"), Scan::all());
        assert_eq!(of("latitude scan --prefix a --reverse"), Scan::prefix("a").reverse());
        assert_eq!(of("latitude scan --start a --end b"), Scan::span("a", "b"));
        assert_eq!(of("latitude scan --end b --keys-only"), Scan::span("", "b").keys_only());
        assert_eq!(of("latitude scan --hex --prefix ff00"), Scan::prefix([0xff, 0]));
        let above = vec![0xff; KEY_LEN_MAX + 1];
        assert_eq!(of("latitude scan --start a"), Scan::span("a", above));
    }

    #[test]
    fn a_value_comes_from_the_command_line_or_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\x00from a file").unwrap();
        let context = Context::default();
        let read = |text, file| value(text, file, &context).unwrap();
        assert_eq!(read(Some("v"), None).as_deref(), Some(&b"v"[..]));
        assert_eq!(read(None, Some(file.path())).as_deref(), Some(&b"\x00from a file"[..]));
        assert_eq!(read(None, None), None);
        let missing = value(None, Some(Path::new("no/such/file")), &context).unwrap_err();
        assert_eq!(missing.exit(), Exit::Refused);
    }
}

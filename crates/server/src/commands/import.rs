//! `import`: the rows of a file, written to a keyspace.

mod pipeline;
mod tally;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::anyhow;
use latitude_client::{Client, ReceiptDetail};
use tokio::io::{AsyncRead, BufReader};

use super::Context;
use crate::args::ImportArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::progress::Progress;
use crate::render;
use crate::rows::{LINE_LEN_MAX, Lines, RowFormat};
use pipeline::Broken;
use tally::Tally;

/// How much of a file is read at once.
const READ_BYTES: usize = 256 << 10;

pub(super) async fn run(
    args: ImportArgs,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let format = args.format.or_else(|| RowFormat::of_path(&args.file));
    let format = format.ok_or_else(|| super::format_unknown(&args.file))?;
    let (source, size) = open(&args.file, context).await?;
    check_type(&context.client(&args.connect), &args.at.keyspace).await?;
    let mut rejects = args.rejects.as_deref().map(|path| create(path, &args.file)).transpose()?;
    let keyspace = context.keyspace(&args.at, &args.connect).with_receipt(ReceiptDetail::None);

    let mut tally = Tally::default();
    let progress = Progress::new(size, output.format());
    let options = pipeline::Options {
        format,
        concurrency: args.concurrency.get(),
        on_error: args.on_error,
        rejects: rejects.as_mut().map(|file| file as &mut dyn Write),
        progress: &progress,
    };
    let put = |key, value| {
        let keyspace = &keyspace;
        async move { keyspace.put(key, value).await.map(drop) }
    };
    let mut lines = Lines::new(BufReader::with_capacity(READ_BYTES, source), LINE_LEN_MAX);
    let mut done = pipeline::run(&mut lines, options, put, &mut tally).await;
    drop(progress);
    if let Some(rejects) = &mut rejects {
        done = done.and(rejects.flush().map_err(Broken::Rejects));
    }

    // Also when it broke: what was written by then is written.
    match output.format() {
        Format::Text => output.line(&tally.text())?,
        Format::Json => output.json(&tally.json())?,
    }
    match done {
        Ok(()) => Ok(tally.exit()),
        Err(Broken::Source(error)) => {
            Err(anyhow!("{} cannot be read to its end: {error}", args.file.display()).into())
        }
        Err(Broken::Rejects(error)) => {
            let path = args.rejects.unwrap_or_default();
            Err(anyhow!("{} cannot be written: {error}", path.display()).into())
        }
    }
}

/// Refuses to import into a keyspace of another type than register, if it can be found out. If not, there is a
/// reason that the first row will tell.
async fn check_type(client: &Client, keyspace: &str) -> Result<(), Failure> {
    let Ok(keyspaces) = client.admin().keyspaces().await else { return Ok(()) };
    let found = keyspaces.iter().find(|found| found.name == keyspace);
    match found.map(render::value_type) {
        None | Some("register") => Ok(()),
        Some(other) => Err(super::not_registers(keyspace, other)),
    }
}

/// The file to read, and its size if it has one.
async fn open(
    path: &Path,
    context: &Context,
) -> Result<(Box<dyn AsyncRead + Unpin>, Option<u64>), Failure> {
    if path == Path::new("-") {
        context.take_stdin()?;
        return Ok((Box::new(tokio::io::stdin()), None));
    }
    let cannot =
        |error: io::Error| Failure::Usage(format!("{} cannot be read: {error}", path.display()));
    let file = tokio::fs::File::open(path).await.map_err(cannot)?;
    let found = file.metadata().await.map_err(cannot)?;
    if found.is_dir() {
        return Err(cannot(io::ErrorKind::IsADirectory.into()));
    }
    Ok((Box::new(file), found.is_file().then_some(found.len())))
}

/// The file for rejected lines.
fn create(path: &Path, source: &Path) -> Result<BufWriter<File>, Failure> {
    let identity = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    if identity(path).is_some_and(|rejects| identity(source) == Some(rejects)) {
        let path = path.display();
        return Err(Failure::Usage(format!(
            "{path} is the file to import: name another --rejects"
        )));
    }
    let file = File::create(path).map_err(|error| {
        Failure::Usage(format!("{} cannot be written: {error}", path.display()))
    })?;
    Ok(BufWriter::new(file))
}

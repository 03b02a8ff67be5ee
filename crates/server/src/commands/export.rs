//! `export`: every row of a span to a file, in key order, page by page.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use latitude_client::ReceiptDetail;
use serde_json::json;
use tempfile::NamedTempFile;

use super::Context;
use super::data::{PAGE_BYTES, PAGE_ROWS, span_of};
use crate::args::ExportArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::progress::Progress;
use crate::rows::RowFormat;

pub(super) async fn run(
    args: ExportArgs,
    context: &Context,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let to_stdout = args.out == Path::new("-");
    let format = match args.format.or_else(|| RowFormat::of_path(&args.out)) {
        Some(format) => format,
        None if to_stdout => RowFormat::Tsv,
        None => return Err(super::format_unknown(&args.out)),
    };
    let [prefix, start, end] = [&args.prefix, &args.start, &args.end].map(Option::as_deref);
    let mut next = Some(span_of(prefix, start, end, args.hex)?);
    let keyspace = context.keyspace(&args.at, &args.connect).with_receipt(ReceiptDetail::None);
    let mut sink = if to_stdout { Sink::Stdout } else { Sink::create(&args.out)? };
    let progress = Progress::new(None, output.format());
    let (mut rows, mut bytes) = (0u64, 0u64);
    let mut line = Vec::new();
    while let Some(scan) = next {
        let page = keyspace.scan(scan.limit(PAGE_ROWS as usize).page_bytes(PAGE_BYTES)).await?;
        for row in &page.value.rows {
            if let Some(typed) = &row.typed {
                return Err(super::not_registers(&args.at.keyspace, typed.type_name()));
            }
            line.clear();
            format.write(&row.key, &row.value, &mut line);
            sink.write(&line, output)?;
            rows += 1;
            bytes += line.len() as u64;
        }
        progress.set(rows, bytes);
        next = page.value.next;
    }
    sink.finish()?;
    drop(progress);
    let summary = format!("{rows} rows exported, {bytes} bytes");
    match output.format() {
        Format::Json if !to_stdout => {
            output.json(&json!({ "rows": rows, "bytes": bytes, "file": args.out }))?;
        }
        _ => output.note(&summary)?,
    }
    Ok(Exit::Success)
}

/// Where rows go.
enum Sink {
    Stdout,
    /// A file that gets its name when it is whole.
    New {
        file: BufWriter<NamedTempFile>,
        path: PathBuf,
    },
    /// What cannot be replaced: a device, a pipe with a name.
    Special {
        file: BufWriter<File>,
        path: PathBuf,
    },
}

impl Sink {
    fn create(path: &Path) -> Result<Self, Failure> {
        let refused = |error: io::Error| {
            Failure::Usage(format!("{} cannot be written: {error}", path.display()))
        };
        // A link is followed: what it points at is replaced, not the link.
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
            Err(error) => return Err(refused(error)),
        };
        match path.metadata() {
            Ok(found) if found.is_dir() => {
                return Err(refused(io::ErrorKind::IsADirectory.into()));
            }
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(&path).map_err(refused)?;
                return Ok(Self::Special { file: BufWriter::new(file), path });
            }
            _ => {}
        }
        // As any program makes files: the process's mask says who may read it.
        let file = tempfile::Builder::new()
            .prefix(".latitude-export-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory(&path))
            .map_err(refused)?;
        Ok(Self::New { file: BufWriter::new(file), path })
    }

    fn write(&mut self, line: &[u8], output: &mut Output<'_>) -> Result<(), Failure> {
        let (written, path) = match self {
            Self::Stdout => return Ok(output.raw(line)?),
            Self::New { file, path } => (file.write_all(line), path),
            Self::Special { file, path } => (file.write_all(line), path),
        };
        Ok(written.with_context(|| cannot_be_written(path))?)
    }

    /// All rows are written: makes them durable, and then shows the file under its name.
    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Stdout => Ok(()),
            Self::New { file, path } => {
                let named = || -> io::Result<()> {
                    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                    file.as_file().sync_all()?;
                    file.persist(&path)?;
                    File::open(directory(&path))?.sync_all()
                };
                Ok(named().with_context(|| cannot_be_written(&path))?)
            }
            Self::Special { mut file, path } => {
                Ok(file.flush().with_context(|| cannot_be_written(&path))?)
            }
        }
    }
}

fn cannot_be_written(path: &Path) -> String {
    format!("{} cannot be written", path.display())
}

/// The directory a file is in.
fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output<T>(run: impl FnOnce(&mut Output<'_>) -> T) -> T {
        run(&mut Output::new(Format::Text, &mut Vec::new(), &mut Vec::new()))
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_has_its_name_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.tsv");
        let mut sink = Sink::create(&path).unwrap();
        output(|output| sink.write(b"a\tb\n", output)).unwrap();
        assert!(!path.exists());
        sink.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a\tb\n");
        assert_eq!(names(dir.path()), ["rows.tsv"]);
    }

    #[test]
    fn an_export_given_up_leaves_the_file_of_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.tsv");
        std::fs::write(&path, "before").unwrap();
        let mut sink = Sink::create(&path).unwrap();
        output(|output| sink.write(b"a\tb\n", output)).unwrap();
        drop(sink);
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
        assert_eq!(names(dir.path()), ["rows.tsv"]);
    }

    #[test]
    fn what_a_link_points_at_is_replaced_and_a_device_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("rows.tsv"), dir.path().join("link"));
        std::fs::write(&target, "before").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        Sink::create(&link).unwrap().finish().unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&target).unwrap(), b"");
        assert!(matches!(Sink::create(Path::new("/dev/null")), Ok(Sink::Special { .. })));
    }

    #[test]
    fn a_file_that_cannot_be_is_refused_before_anything_is_read() {
        for path in ["no/such/directory/rows.tsv", "/"] {
            let refused = Sink::create(Path::new(path)).err().expect("it cannot be written");
            assert_eq!(refused.exit(), Exit::Refused, "{refused}");
        }
    }
}

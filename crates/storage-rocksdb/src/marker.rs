//! How far the store is known to be durable, kept outside the log it speaks of.
//!
//! ```text
//!   offset    0: [count u64][sequence u64][crc32c u32]     the two slots are written in turn, in place:
//!   offset 4096: [count u64][sequence u64][crc32c u32]     a torn write spoils one, the other holds
//! ```
//!
//! The slot with the higher count is the newer. Not the one with the higher sequence: after damage, the
//! store goes on from a lower one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const NAME: &str = "SYNCED";
/// Slots lie in different pages of the disk.
const SLOT_DISTANCE: u64 = 4096;
const SLOT_LEN: usize = 8 + 8 + 4;

pub(crate) struct Marker {
    file: File,
    /// How often it has been noted: the next slot is the one with this parity.
    count: u64,
}

impl Marker {
    /// The name of the marker's file.
    pub(crate) const NAME: &str = NAME;

    /// Writes a marker that says 0. The caller syncs the directory.
    pub(crate) fn create(directory: &Path) -> io::Result<()> {
        let file = File::create(directory.join(NAME))?;
        // Both slots get their blocks now, so that noting never finds the disk full.
        file.write_all_at(&[0; 2 * SLOT_DISTANCE as usize], 0)?;
        Self { file, count: 0 }.note(0)
    }

    /// Opens the marker, and reads what it says: `None` if it is missing or damaged. It stays so until
    /// something is noted.
    pub(crate) fn open(directory: &Path) -> io::Result<(Self, Option<u64>)> {
        let path = directory.join(NAME);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut newest = None;
        for slot in 0..2 {
            newest = newest.max(read_slot(&file, slot)?);
        }
        let count = newest.map_or(0, |(count, _)| count + 1);
        Ok((Self { file, count }, newest.map(|(_, sequence)| sequence)))
    }

    /// Notes that everything up to `sequence` is durable. Durable itself once it returns.
    pub(crate) fn note(&mut self, sequence: u64) -> io::Result<()> {
        let mut slot = [0; SLOT_LEN];
        slot[..8].copy_from_slice(&self.count.to_be_bytes());
        slot[8..16].copy_from_slice(&sequence.to_be_bytes());
        let checksum = crc32c::crc32c(&slot[..16]);
        slot[16..].copy_from_slice(&checksum.to_be_bytes());
        self.file.write_all_at(&slot, self.count % 2 * SLOT_DISTANCE)?;
        self.file.sync_data()?;
        self.count += 1;
        Ok(())
    }
}

/// The count and sequence in a slot, if it is whole.
fn read_slot(file: &File, slot: u64) -> io::Result<Option<(u64, u64)>> {
    let mut bytes = [0; SLOT_LEN];
    match file.read_exact_at(&mut bytes, slot * SLOT_DISTANCE) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let number = |at: usize| {
        u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight bytes"))
    };
    let whole = crc32c::crc32c(&bytes[..16]).to_be_bytes() == bytes[16..];
    Ok(whole.then(|| (number(0), number(8))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(directory: &Path) -> Option<u64> {
        Marker::open(directory).unwrap().1
    }

    fn spoil(directory: &Path, slot: u64) {
        let file = OpenOptions::new().write(true).open(directory.join(NAME)).unwrap();
        file.write_all_at(b"?", slot * SLOT_DISTANCE + 15).unwrap();
    }

    #[test]
    fn it_says_what_was_noted_last_even_if_that_is_less() {
        let directory = tempfile::tempdir().unwrap();
        Marker::create(directory.path()).unwrap();
        assert_eq!(read(directory.path()), Some(0));
        for sequence in [5, 9, 4] {
            Marker::open(directory.path()).unwrap().0.note(sequence).unwrap();
            assert_eq!(read(directory.path()), Some(sequence));
        }
    }

    #[test]
    fn with_the_newer_slot_torn_the_older_one_holds_and_with_both_none() {
        let directory = tempfile::tempdir().unwrap();
        Marker::create(directory.path()).unwrap();
        let (mut marker, _) = Marker::open(directory.path()).unwrap();
        marker.note(5).unwrap(); // slot 1
        marker.note(9).unwrap(); // slot 0
        spoil(directory.path(), 0);
        assert_eq!(read(directory.path()), Some(5));
        spoil(directory.path(), 1);
        assert_eq!(read(directory.path()), None);
        Marker::open(directory.path()).unwrap().0.note(7).unwrap();
        assert_eq!(read(directory.path()), Some(7));
    }

    #[test]
    fn a_missing_marker_is_still_missing_after_it_was_opened() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), None);
        assert_eq!(read(directory.path()), None);
    }
}

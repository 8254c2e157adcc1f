//! What is noted beside a segment after it was written: which of its events have left, how much of it was
//! confirmed, why an event was set aside.
//!
//! A file of notes of 16 bytes: three numbers, and a CRC-32 of them and of the segment's id, so that notes of
//! another segment of the same name do not count. Each life of the process begins a file of its own.

use std::collections::{HashMap, HashSet};
use std::io;

use super::disk::{Disk, DiskFile};

const LENGTH: usize = 16;

/// One note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// The event at this place, of this length, has left the segment.
    Left { place: u32, length: u32 },
    /// So many events, and so many bytes of the file, were synced.
    Synced { events: u32, length: u32 },
    /// The event at this place was refused with this code of the Kafka client.
    Refused { place: u32, code: u32 },
}

/// All notes of a segment.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Where events were that have left, and how long they were.
    pub left: HashMap<u32, u32>,
    /// How many events, and bytes, are known to have been synced.
    pub synced: (u32, u32),
    pub refused: HashMap<u32, u32>,
}

/// The file that this life of the process writes.
pub(super) struct NotesFile {
    file: Box<dyn DiskFile>,
    length: u64,
}

impl NotesFile {
    /// Begins the next file for this segment.
    pub fn begin(disk: &dyn Disk, number: u64) -> io::Result<NotesFile> {
        let taken: HashSet<String> = disk.names()?.into_iter().collect();
        let name = (0_u32..).map(|life| format!("{}{life}", prefix(number)));
        let name = name.into_iter().find(|name| !taken.contains(name)).unwrap_or_default();
        let file = disk.create(&name)?;
        disk.sync()?;
        Ok(NotesFile { file, length: 0 })
    }

    /// Writes notes; they are durable after the next sync.
    pub fn write(&mut self, id: u64, notes: &[Note]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(notes.len() * LENGTH);
        for note in notes {
            let numbers = note.numbers();
            numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
            bytes.extend(checksum(id, numbers).to_le_bytes());
        }
        self.file.write(self.length, &bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    pub fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// Reads all notes of a segment. What is not whole is no note: at worst an event is delivered twice.
pub(super) fn read(disk: &dyn Disk, names: &[String], number: u64, id: u64) -> io::Result<Noted> {
    let mut noted = Noted::default();
    for name in names_of(names, number) {
        let file = disk.open(name)?;
        let length = usize::try_from(file.length()?).unwrap_or(0);
        for bytes in file.read(0, length)?.chunks_exact(LENGTH) {
            let number = |index: usize| {
                let field = bytes.get(4 * index..).and_then(|bytes| bytes.first_chunk());
                field.map_or(0, |field| u32::from_le_bytes(*field))
            };
            let numbers = [number(0), number(1), number(2)];
            if number(3) == checksum(id, numbers) {
                noted.add(numbers);
            }
        }
    }
    Ok(noted)
}

/// Removes the notes of a segment that is gone.
pub(super) fn remove(disk: &dyn Disk, number: u64) -> io::Result<()> {
    let names = disk.names()?;
    names_of(&names, number).try_for_each(|name| disk.remove(name))
}

/// How many bytes the notes of a segment have.
pub(super) fn size(disk: &dyn Disk, names: &[String], number: u64) -> io::Result<u64> {
    names_of(names, number).map(|name| disk.open(name)?.length()).sum()
}

fn names_of(names: &[String], number: u64) -> impl Iterator<Item = &String> {
    let prefix = prefix(number);
    names.iter().filter(move |name| name.starts_with(&prefix))
}

fn prefix(number: u64) -> String {
    format!("{number:012}.notes-")
}

fn checksum(id: u64, numbers: [u32; 3]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&id.to_le_bytes());
    numbers.iter().for_each(|number| hash.update(&number.to_le_bytes()));
    hash.finalize()
}

impl Note {
    fn numbers(self) -> [u32; 3] {
        match self {
            Note::Left { place, length } => [1, place, length],
            Note::Synced { events, length } => [2, events, length],
            Note::Refused { place, code } => [3, place, code],
        }
    }
}

impl Noted {
    fn add(&mut self, numbers: [u32; 3]) {
        match numbers {
            [1, place, length] => drop(self.left.insert(place, length)),
            [2, events, length] => self.synced = self.synced.max((events, length)),
            [3, place, code] => drop(self.refused.insert(place, code)),
            // Of a later version: nothing that would have to be known here.
            _ => {}
        }
    }
}

//! A record in two slots, so that no crash and no unreadable file brings back a superseded one.
//!
//! Each slot is a file of its own with a counter and a checksum, replaced as a whole. A write goes to one and then to the other,
//! and only then does it return; so when the caller publishes, *both* hold the new record, and one that becomes unreadable
//! later is made good from the other.

use std::marker::PhantomData;
use std::path::PathBuf;

use cutover_formats::FormatError;
use cutover_formats::codec::{self, RecordType};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::dir::Dir;
use crate::error::{Error, ErrorKind, Result};

/// The two slots of one record.
pub(crate) struct Slots<T> {
    dir: Dir,
    names: [String; 2],
    kind: RecordType,
    counter: u64,
    /// A write failed: what is on disk is unknown until it is read again.
    doubtful: bool,
    /// What was read and is not in both.
    unmended: Option<Vec<u8>>,
    record: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Slots<T> {
    /// Slots `<stem>.a` and `<stem>.b` in `dir`, and what they hold: `None` if neither exists. Changes nothing: see [`mend`](Self::mend).
    pub(crate) fn open(dir: &Dir, stem: &str, kind: RecordType) -> Result<(Self, Option<T>)> {
        let mut slots = Self::of(dir, stem, kind);
        let record = slots.read()?;
        Ok((slots, record))
    }

    /// Slots of which both are lost or unreadable, as `bytes`, which an earlier [`seal`](Self::seal) gave, says that they were.
    pub(crate) fn restored(dir: &Dir, stem: &str, kind: RecordType, bytes: &[u8]) -> Result<(Self, T)> {
        let mut slots = Self::of(dir, stem, kind);
        let (counter, record) = codec::open_slot(kind, bytes).map_err(|err| slots.unreadable(0, err))?;
        (slots.counter, slots.unmended) = (counter, Some(bytes.to_vec()));
        Ok((slots, record))
    }

    /// Makes sure that both slots hold what was read.
    pub(crate) fn mend(&mut self) -> Result<()> {
        let Some(bytes) = &self.unmended else { return Ok(()) };
        for name in self.in_turn(self.counter + 1) {
            self.dir.replace(name, bytes)?;
        }
        self.unmended = None;
        Ok(())
    }

    /// What the slots of `<stem>` hold, for whoever only looks: nothing is mended.
    pub(crate) fn look(dir: &Dir, stem: &str, kind: RecordType) -> Result<Option<T>> {
        Ok(Self::open(dir, stem, kind)?.1)
    }

    /// The slots of `<stem>`, not read yet.
    pub(crate) fn of(dir: &Dir, stem: &str, kind: RecordType) -> Self {
        let names = [format!("{stem}.a"), format!("{stem}.b")];
        Self {
            dir: dir.clone(),
            names,
            kind,
            counter: 0,
            doubtful: false,
            unmended: None,
            record: PhantomData,
        }
    }

    /// Makes `record` durable in both slots. Returns what had been found there, if an earlier write had failed and
    /// is now known to have happened after all: then `record` was *not* written and the caller starts from that.
    pub(crate) fn write(&mut self, record: &T) -> Result<Option<T>> {
        if let Some(found) = self.settle()? {
            return Ok(Some(found));
        }
        let bytes = self.seal(record)?;
        self.write_sealed(&bytes)?;
        Ok(None)
    }

    /// The bytes of both slots after the next write of this record.
    pub(crate) fn seal(&self, record: &T) -> Result<Vec<u8>> {
        Ok(codec::seal_slot(self.kind, self.counter + 1, record)?)
    }

    /// The bytes of both slots as they are, with this record.
    pub(crate) fn sealed(&self, record: &T) -> Result<Vec<u8>> {
        Ok(codec::seal_slot(self.kind, self.counter, record)?)
    }

    /// Makes what [`seal`](Self::seal) gave durable in both slots. No earlier write is in doubt.
    pub(crate) fn write_sealed(&mut self, bytes: &[u8]) -> Result<()> {
        self.mend()?;
        let counter = self.counter + 1;
        self.doubtful = true;
        for name in self.in_turn(counter) {
            self.dir.replace(name, bytes)?;
        }
        self.doubtful = false;
        self.counter = counter;
        Ok(())
    }

    /// After a failed write: reads what is there. Returns it if that write turns out to have happened after all.
    pub(crate) fn settle(&mut self) -> Result<Option<T>> {
        if !self.doubtful {
            return Ok(None);
        }
        let before = self.counter;
        let found = self.read()?;
        self.mend()?;
        self.doubtful = false;
        Ok(found.filter(|_| self.counter != before))
    }

    /// The files.
    pub(crate) fn paths(&self) -> [PathBuf; 2] {
        self.names.each_ref().map(|name| self.dir.path().join(name))
    }

    /// Removes both files, durably.
    pub(crate) fn remove(&self) -> Result<()> {
        self.names.iter().try_for_each(|name| self.dir.remove(name))?;
        self.dir.sync()
    }

    fn in_turn(&self, counter: u64) -> [&String; 2] {
        let [a, b] = &self.names;
        if counter.is_multiple_of(2) { [a, b] } else { [b, a] }
    }

    /// Reads both and takes the later one.
    fn read(&mut self) -> Result<Option<T>> {
        let Some(latest) = self.latest()? else { return Ok(None) };
        // After a write that failed even what is in both may not be durable in both.
        self.unmended = (!latest.in_both || self.doubtful).then_some(latest.bytes);
        self.counter = latest.counter;
        Ok(Some(latest.record))
    }

    /// Reads both and takes the later one. A slot of a newer version is not one that damage has made: its checksum is right. What
    /// it holds may be later than the other, so the other does not stand in for it.
    fn latest(&self) -> Result<Option<Latest<T>>> {
        let [a, b] = [self.read_slot(&self.names[0])?, self.read_slot(&self.names[1])?];
        let in_both = matches!((&a, &b), (Slot::Good(one, ..), Slot::Good(other, ..)) if one == other);
        let (counter, record, bytes) = match (a, b) {
            (Slot::Missing, Slot::Missing) => return Ok(None),
            (Slot::Bad(err @ FormatError::Newer { .. }), _) => return Err(self.unreadable(0, err)),
            (_, Slot::Bad(err @ FormatError::Newer { .. })) => return Err(self.unreadable(1, err)),
            (Slot::Good(one, record, bytes), Slot::Good(other, ..)) if one >= other => (one, record, bytes),
            (_, Slot::Good(counter, record, bytes)) | (Slot::Good(counter, record, bytes), _) => {
                (counter, record, bytes)
            }
            (Slot::Bad(err), _) => return Err(self.unreadable(0, err).context(self.both_lost())),
            (_, Slot::Bad(err)) => return Err(self.unreadable(1, err).context(self.both_lost())),
        };
        Ok(Some(Latest { counter, record, bytes, in_both }))
    }

    fn both_lost(&self) -> String {
        let [a, b] = &self.names;
        format!("neither {a} nor {b} in {} can be read", self.dir.path().display())
    }

    fn unreadable(&self, slot: usize, err: FormatError) -> Error {
        let kind = match err {
            FormatError::Newer { .. } => ErrorKind::Foreign,
            _ => ErrorKind::Corrupt,
        };
        let path = self.names.get(slot).map(|name| self.dir.path().join(name)).unwrap_or_default();
        Error::with_source(kind, path.display().to_string(), err)
    }

    fn read_slot(&self, name: &str) -> Result<Slot<T>> {
        let Some(bytes) = self.dir.read(name)? else { return Ok(Slot::Missing) };
        Ok(match codec::open_slot(self.kind, &bytes) {
            Ok((counter, record)) => Slot::Good(counter, record, bytes),
            Err(err) => Slot::Bad(err),
        })
    }
}

/// The later of two slots.
struct Latest<T> {
    counter: u64,
    record: T,
    bytes: Vec<u8>,
    in_both: bool,
}

enum Slot<T> {
    Missing,
    Bad(FormatError),
    Good(u64, T, Vec<u8>),
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use cutover_formats::meta::EngineRecord;

    use super::*;
    use crate::files::SystemFiles;

    type Engine = Slots<EngineRecord>;

    fn record(incarnation: u64) -> EngineRecord {
        EngineRecord { incarnation, clock_ms: 7, clean: false }
    }

    fn system(path: &Path) -> Dir {
        Dir::new(Arc::new(SystemFiles), path)
    }

    fn open(path: &Path) -> Result<(Engine, Option<EngineRecord>)> {
        let (mut slots, record) = Engine::open(&system(path), "engine", RecordType::Engine)?;
        slots.mend()?;
        Ok((slots, record))
    }

    #[test]
    fn the_last_write_is_found_in_both_slots() {
        let dir = tempfile::tempdir().unwrap();
        let (mut slots, found) = open(dir.path()).unwrap();
        assert_eq!(found, None);
        for n in 1..=5 {
            slots.write(&record(n)).unwrap();
        }
        let [a, b] = ["engine.a", "engine.b"].map(|name| fs::read(dir.path().join(name)).unwrap());
        assert_eq!(a, b);
        assert_eq!(open(dir.path()).unwrap().1, Some(record(5)));
    }

    #[test]
    fn any_damage_to_one_slot_is_made_good_from_the_other() {
        for broken in ["engine.a", "engine.b"] {
            let dir = tempfile::tempdir().unwrap();
            let (mut slots, _) = open(dir.path()).unwrap();
            slots.write(&record(1)).unwrap();
            slots.write(&record(2)).unwrap();
            let path = dir.path().join(broken);
            let whole = fs::read(&path).unwrap();
            for at in 0..whole.len() {
                let mut flipped = whole.clone();
                flipped[at] ^= 0x10;
                fs::write(&path, &flipped).unwrap();
                assert_eq!(open(dir.path()).unwrap().1, Some(record(2)), "flipped byte {at} of {broken}");
                assert_eq!(fs::read(&path).unwrap(), whole, "and mended");
                fs::write(&path, &whole[..at]).unwrap();
                assert_eq!(open(dir.path()).unwrap().1, Some(record(2)), "cut off at {at} of {broken}");
            }
            fs::remove_file(&path).unwrap();
            assert_eq!(open(dir.path()).unwrap().1, Some(record(2)));
        }
    }

    #[test]
    fn a_crash_between_the_slots_leaves_the_new_record() {
        let dir = tempfile::tempdir().unwrap();
        let (mut slots, _) = open(dir.path()).unwrap();
        slots.write(&record(1)).unwrap();
        let old = fs::read(dir.path().join("engine.a")).unwrap();
        slots.write(&record(2)).unwrap();
        fs::write(dir.path().join("engine.a"), old).unwrap();
        let (mut slots, found) = open(dir.path()).unwrap();
        assert_eq!(found, Some(record(2)));
        slots.write(&record(3)).unwrap();
        assert_eq!(open(dir.path()).unwrap().1, Some(record(3)));
    }

    #[test]
    fn damage_to_both_is_an_error_and_not_an_empty_engine() {
        let dir = tempfile::tempdir().unwrap();
        let (mut slots, _) = open(dir.path()).unwrap();
        slots.write(&record(1)).unwrap();
        for name in ["engine.a", "engine.b"] {
            fs::write(dir.path().join(name), b"nonsense").unwrap();
        }
        assert_eq!(open(dir.path()).err().map(|err| err.kind()), Some(ErrorKind::Corrupt));
    }

    #[test]
    fn a_slot_of_a_newer_version_is_not_overwritten_from_the_other() {
        for newer in ["engine.a", "engine.b"] {
            let dir = tempfile::tempdir().unwrap();
            let (mut slots, _) = open(dir.path()).unwrap();
            slots.write(&record(1)).unwrap();
            let path = dir.path().join(newer);
            let mut bytes = fs::read(&path).unwrap();
            // The frame: magic 8, type, version, two zeros, counter 8, length 4, then the checksum of these and the body.
            bytes[9] = 2;
            let crc = crc32c(&[&bytes[..24], &bytes[28..]].concat());
            bytes[24..28].copy_from_slice(&crc.to_le_bytes());
            fs::write(&path, &bytes).unwrap();
            let err = open(dir.path()).err().unwrap();
            assert_eq!(err.kind(), ErrorKind::Foreign);
            assert!(err.to_string().contains(newer) && err.to_string().contains("format version 2"), "{err}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "unchanged");
        }
    }

    /// CRC32C bit by bit: of a few bytes, in a test.
    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0_u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0x82F6_3B78 & 0_u32.wrapping_sub(crc & 1))
            })
        })
    }

    #[test]
    fn who_only_looks_mends_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (mut slots, _) = open(dir.path()).unwrap();
        slots.write(&record(1)).unwrap();
        fs::write(dir.path().join("engine.a"), b"nonsense").unwrap();
        assert_eq!(Engine::look(&system(dir.path()), "engine", RecordType::Engine).unwrap(), Some(record(1)));
        assert_eq!(fs::read(dir.path().join("engine.a")).unwrap(), b"nonsense");
        assert_eq!(Engine::look(&system(dir.path()), "catalog", RecordType::Engine).unwrap(), None);
    }

    #[test]
    fn after_a_failed_write_the_next_one_first_reads_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (mut slots, _) = open(dir.path()).unwrap();
        slots.write(&record(1)).unwrap();
        // Directories where the slots' new files go: nothing can be written there.
        let [first, second] = ["engine.a.new", "engine.b.new"].map(|name| dir.path().join(name));
        for blocked in [&first, &second] {
            fs::create_dir(blocked).unwrap();
        }
        assert!(slots.write(&record(2)).is_err(), "neither slot could be written");
        fs::remove_dir(&first).unwrap();
        assert!(slots.write(&record(2)).is_err(), "what is there cannot be made durable in both");
        fs::remove_dir(&second).unwrap();
        assert_eq!(slots.write(&record(2)).unwrap(), None, "it did not happen");
        fs::create_dir(&first).unwrap();
        assert!(slots.write(&record(3)).is_err(), "one of them could");
        fs::remove_dir(&first).unwrap();
        assert_eq!(slots.write(&record(9)).unwrap(), Some(record(3)), "it did happen after all");
        assert_eq!(slots.write(&record(9)).unwrap(), None);
        assert_eq!(open(dir.path()).unwrap().1, Some(record(9)));
    }
}

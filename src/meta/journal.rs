//! A journal: one line of JSON for each change of a record, for people and programs, and a third copy of the record. A tenant has one for its
//! status and, once a runner was named, another one for its access.
//!
//! The record in the slots decides, the journal tells. Each line holds the record after the change, sealed, and is durable *before* the
//! slots are written; so the journal is never behind them, and when both slots are unreadable its last line gives the record back. A line
//! whose record did not come to be is cut off again: at once if the write of the slots failed, at opening if a crash came between.

use std::collections::BTreeMap;

use cutover_formats::journal::{self, Entry, Line};
use cutover_formats::meta::JournalLine;

use super::dir::Dir;
use crate::error::Result;

/// A journal. No file stays open: a thousand tenants would hold a thousand.
pub(crate) struct Journal {
    dir: Dir,
    name: String,
    /// Bytes of the lines whose records came to be. What lies behind them is cut off before the next line.
    len: usize,
    /// The length with the line whose record is being written.
    tried: Option<usize>,
}

/// A journal as it was found.
pub(crate) struct Found<L = JournalLine> {
    dir: Dir,
    name: String,
    len: usize,
    /// By their numbers.
    entries: BTreeMap<u64, Entry<L>>,
    /// Pieces that are no lines.
    unreadable: usize,
    /// Whether it ends with a whole line.
    whole: bool,
}

impl<L: Line> Found<L> {
    /// Reads the journal of this name; an empty one if there is none. Changes nothing.
    pub(crate) fn read(dir: &Dir, name: &str) -> Result<Self> {
        let text = dir.read(name)?.unwrap_or_default();
        let (mut entries, mut unreadable, mut whole) = (BTreeMap::new(), 0, text.ends_with(b"\n"));
        for line in journal::lines(&text) {
            let entry = journal::open_as::<L>(line);
            whole &= text.ends_with(b"\n") && entry.is_ok();
            match entry {
                Ok(entry) => drop(entries.insert(entry.line.seq(), entry)),
                Err(_) => unreadable += 1,
            }
        }
        let (dir, name) = (dir.clone(), name.to_owned());
        Ok(Self { dir, name, len: text.len(), entries, unreadable, whole })
    }

    /// The slot of the record after the last change, if the journal is whole and has it.
    pub(crate) fn last_record(&self) -> Option<&[u8]> {
        let last = self.entries.values().next_back().filter(|_| self.whole)?;
        last.record.as_deref()
    }

    /// Every line that can be read, oldest first.
    pub(crate) fn into_lines(self) -> Vec<L> {
        self.entries.into_values().map(|entry| entry.line).collect()
    }

    /// Makes the file end with `last`, the line of the record that decides, whose slot is `record`: adds it if it is missing, cuts off
    /// what comes after it or is torn, and writes damaged lines again. Says, in words, which lines are lost.
    pub(crate) fn mend(self, last: &L, record: &[u8]) -> Result<(Journal, Option<String>)> {
        let Self { dir, name, len, mut entries, unreadable, whole } = self;
        let before = entries.len();
        entries.retain(|seq, entry| *seq < last.seq() || entry.line == *last);
        let newest = entries.keys().next_back().copied().unwrap_or(0);
        let damaged = entries.values().any(|entry| entry.damaged);
        // A piece behind the last line is one that was being written.
        let torn = usize::from(!whole && unreadable == 1 && newest + 1 >= last.seq());
        let missing = missing(&entries, last.seq());
        let lost = (unreadable > torn || newest + 1 < last.seq()) && !missing.is_empty();
        let mut journal = Journal { dir, name, len, tried: None };
        if damaged || unreadable > 0 || entries.len() != before || !whole || newest < last.seq() {
            let entry = Entry { line: last.clone(), record: Some(record.to_vec()), damaged: false };
            entries.insert(last.seq(), entry);
            journal.rewrite(entries.values())?;
        }
        Ok((journal, lost.then(|| format!("lines {missing} of the journal could not be read and are lost"))))
    }
}

/// The numbers up to `last` that are not there, as `3 to 5, 8`, but the last one, which the record has.
fn missing<L>(entries: &BTreeMap<u64, Entry<L>>, last: u64) -> String {
    let mut ranges = Vec::new();
    let mut next = 1;
    for there in entries.keys().copied().chain(std::iter::once(last)) {
        if next < there {
            let to = there - 1;
            ranges.push(if next == to { next.to_string() } else { format!("{next} to {to}") });
        }
        next = next.max(there.saturating_add(1));
    }
    ranges.join(", ")
}

impl Journal {
    /// A new journal, still without a line.
    pub(crate) fn new(dir: &Dir, name: &str) -> Self {
        Self { dir: dir.clone(), name: name.to_owned(), len: 0, tried: None }
    }

    /// Adds a line and makes it durable. It counts from [`keep`](Self::keep) on.
    pub(crate) fn append<L: Line>(&mut self, line: &L, record: &[u8]) -> Result<()> {
        self.append_all(std::slice::from_ref(line), record)
    }

    /// The same for several lines at once, of which each is sealed with this record.
    pub(crate) fn append_all<L: Line>(&mut self, lines: &[L], record: &[u8]) -> Result<()> {
        // What an earlier try has left.
        self.cut()?;
        let mut text = String::new();
        for line in lines {
            text += &journal::seal(line, Some(record))?;
            text.push('\n');
        }
        self.tried = Some(self.len + text.len());
        self.dir.append(&self.name, text.as_bytes())?;
        // The name of a new file.
        if self.len == 0 { self.dir.sync() } else { Ok(()) }
    }

    /// The record of the line that was added last came to be.
    pub(crate) fn keep(&mut self) {
        self.len = self.tried.take().unwrap_or(self.len);
    }

    /// It did not: the line goes.
    pub(crate) fn cut(&mut self) -> Result<()> {
        if self.tried.is_some() {
            match self.len {
                // It may not even be there.
                0 => self.dir.remove(&self.name)?,
                len => self.dir.truncate(&self.name, len)?,
            }
            self.tried = None;
        }
        Ok(())
    }

    /// Every line, oldest first. Lines that cannot be read are left out.
    pub(crate) fn read<L: Line>(&self) -> Result<Vec<L>> {
        let mut lines = Found::<L>::read(&self.dir, &self.name)?.into_lines();
        if self.tried.is_some() {
            // Whether its record came to be is not known.
            lines.pop();
        }
        Ok(lines)
    }

    fn rewrite<'e, L: Line + 'e>(&mut self, entries: impl Iterator<Item = &'e Entry<L>>) -> Result<()> {
        let mut text = String::new();
        for entry in entries {
            text.push_str(&journal::seal(&entry.line, entry.record.as_deref())?);
            text.push('\n');
        }
        self.dir.replace(&self.name, text.as_bytes())?;
        self.len = text.len();
        Ok(())
    }

    /// Removes it.
    pub(crate) fn remove(&self) -> Result<()> {
        self.dir.remove(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use cutover_formats::codec::{self, RecordType};
    use cutover_formats::meta::{Retention, Status, TenantRecord};
    use cutover_formats::{Phase, StoreId, TenantId};

    use super::*;
    use crate::files::SystemFiles;

    const NAME: &str = "j.jsonl";

    fn in_dir(path: &Path) -> Dir {
        Dir::new(Arc::new(SystemFiles), path.parent().unwrap())
    }

    fn found(path: &Path) -> Found {
        Found::read(&in_dir(path), NAME).unwrap()
    }

    fn line(seq: u64) -> JournalLine {
        JournalLine {
            epoch: seq,
            seq,
            at_ms: 1,
            who: "test".into(),
            from: Phase::Stable,
            to: Phase::PreMigration,
            why: "because \"quoted\",\"record\":\"0".into(),
        }
    }

    fn record(seq: u64) -> Vec<u8> {
        let record = TenantRecord {
            id: TenantId(1),
            name: "acme".into(),
            deleting: false,
            status: Status::stable(seq, StoreId(1)),
            entered_ms: 1,
            migration: None,
            ended: Vec::new(),
            retire: Vec::new(),
            retention: Retention { instance_ms: 1, key_ms: 1, request_ms: 1 },
            scopes: Vec::new(),
            journal: line(seq),
        };
        codec::seal_slot(RecordType::Tenant, seq, &record).unwrap()
    }

    /// A journal of so many lines, and its bytes.
    fn journal(path: &Path, lines: u64) -> (Journal, Vec<u8>) {
        let mut journal = Journal::new(&in_dir(path), NAME);
        for seq in 1..=lines {
            journal.append(&line(seq), &record(seq)).unwrap();
            journal.keep();
        }
        (journal, fs::read(path).unwrap())
    }

    /// Thousands of openings, each with its syncs: in memory, if the machine has some to write to, they cost nothing.
    fn dir() -> tempfile::TempDir {
        let shm = Path::new("/dev/shm");
        let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        dir.unwrap()
    }

    fn mend(path: &Path, last: u64) -> (Vec<JournalLine>, Option<String>) {
        let (journal, lost) = found(path).mend(&line(last), &record(last)).unwrap();
        (journal.read().unwrap(), lost)
    }

    #[test]
    fn every_flipped_byte_is_made_good() {
        let dir = dir();
        let path = dir.path().join("j.jsonl");
        let (_, whole) = journal(&path, 3);
        for at in 0..whole.len() {
            for flip in [1_u8, 2, 0x20, 0x80, 0xFF, whole[at] ^ b'\n', whole[at] ^ b'"'] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                fs::write(&path, &bytes).unwrap();
                let (lines, lost) = mend(&path, 3);
                assert_eq!(lines, [line(1), line(2), line(3)], "byte {at} flipped by {flip:#x}");
                assert_eq!(lost, None, "byte {at} flipped by {flip:#x}");
                let found = found(&path);
                assert!(found.whole && found.entries.values().all(|entry| !entry.damaged), "and mended");
                assert!(flip == 0 || fs::read(&path).unwrap() != bytes, "byte {at} flipped by {flip:#x}");
            }
        }
    }

    #[test]
    fn every_cut_is_seen_and_what_is_lost_is_said() {
        let dir = dir();
        let path = dir.path().join("j.jsonl");
        let (_, whole) = journal(&path, 3);
        let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').map(|at| at + 1).collect();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (lines, lost) = mend(&path, 3);
            assert_eq!(lines.last(), Some(&line(3)), "cut at {cut}");
            // A line is whole without its line break, and without the brace and the quote that end it its fields are.
            let there = ends.iter().filter(|end| cut + 1 >= **end).count();
            let expected = match there {
                0 if lines.len() == 1 => Some("1 to 2"),
                0 | 1 if lines.len() == 2 => Some("2"),
                _ => None,
            };
            let expected =
                expected.map(|lines| format!("lines {lines} of the journal could not be read and are lost"));
            assert_eq!(lost, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_whose_record_did_not_come_to_be_goes() {
        let dir = dir();
        let path = dir.path().join("j.jsonl");
        let (mut journal, whole) = journal(&path, 2);
        journal.append(&line(3), &record(3)).unwrap();
        assert_eq!(journal.read::<JournalLine>().unwrap().len(), 2, "not yet");
        journal.cut().unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
        journal.append(&line(3), &record(3)).unwrap();
        // A crash here: the slots still say 2.
        assert_eq!(mend(&path, 2), (vec![line(1), line(2)], None));
        assert_eq!(fs::read(&path).unwrap(), whole);
    }

    #[test]
    fn the_last_record_is_given_back_by_a_whole_journal_only() {
        let dir = dir();
        let path = dir.path().join("j.jsonl");
        let (_, whole) = journal(&path, 2);
        assert_eq!(found(&path).last_record(), Some(&record(2)[..]));
        let end = whole.len() - 1;
        fs::write(&path, &whole[..end]).unwrap();
        assert_eq!(found(&path).last_record(), None, "there may have been more");
        fs::write(&path, [&whole[..], b"garbage\n"].concat()).unwrap();
        assert_eq!(found(&path).last_record(), None);
    }

    #[test]
    fn lines_of_earlier_versions_have_no_seal() {
        let dir = dir();
        let path = dir.path().join("j.jsonl");
        let text: Vec<String> = (1..=2).map(|seq| journal::encode(&line(seq)).unwrap() + "\n").collect();
        fs::write(&path, text.concat()).unwrap();
        assert_eq!(found(&path).last_record(), None);
        assert_eq!(mend(&path, 2), (vec![line(1), line(2)], None));
        assert_eq!(fs::read_to_string(&path).unwrap(), text.concat(), "nothing to mend");
        assert_eq!(mend(&path, 3), (vec![line(1), line(2), line(3)], None));
    }
}

//! A tenant's journal: one line of JSON for each change of its status, for people and programs. The record decides, the journal
//! only tells; opening mends one that lacks the line which the record names.

use std::collections::VecDeque;

use cutover_formats::journal;
use cutover_formats::meta::JournalLine;

use super::dir::Dir;
use crate::error::{Error, ErrorKind, Result};

/// Most lines that wait for a disk that takes them.
const MISSING: usize = 1000;

/// A journal. No file stays open: a thousand tenants would hold a thousand.
pub(crate) struct Journal {
    dir: Dir,
    name: String,
    /// Lines that could not be written, oldest first. The file may end with a part of one.
    missing: VecDeque<JournalLine>,
}

impl Journal {
    /// Opens the journal, cuts off a torn last line, and adds `last` if it is missing.
    pub(crate) fn open(dir: &Dir, name: &str, last: &JournalLine) -> Result<Self> {
        let mut journal = Self::look(dir, name);
        journal.missing.push_back(last.clone());
        journal.catch_up()?;
        Ok(journal)
    }

    /// The journal as it is, to be read.
    pub(crate) fn look(dir: &Dir, name: &str) -> Self {
        Self { dir: dir.clone(), name: name.to_owned(), missing: VecDeque::new() }
    }

    /// Adds a line and makes it durable. If that fails, the next one brings it along.
    pub(crate) fn append(&mut self, line: &JournalLine) -> Result<()> {
        self.missing.push_back(line.clone());
        if self.missing.len() > 1 {
            self.missing.drain(..self.missing.len().saturating_sub(MISSING));
            return self.catch_up();
        }
        self.write()
    }

    /// Cuts off a torn last line and adds what is missing.
    fn catch_up(&mut self) -> Result<()> {
        let text = self.dir.read(&self.name)?.unwrap_or_default();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            self.dir.truncate(&self.name, whole)?;
        }
        let lines = text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
        let last = lines.rev().find_map(parse).map_or(0, |line| line.seq);
        self.missing.retain(|line| line.seq > last);
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        let mut text = String::new();
        for line in &self.missing {
            text.push_str(&journal::encode(line)?);
            text.push('\n');
        }
        if !text.is_empty() {
            self.dir.append(&self.name, text.as_bytes())?;
        }
        self.missing.clear();
        Ok(())
    }

    /// Every line, oldest first. Lines that cannot be read are left out.
    pub(crate) fn read(&self) -> Result<Vec<JournalLine>> {
        let text = self.dir.read(&self.name)?.ok_or_else(|| {
            let shown = self.dir.path().join(&self.name);
            Error::new(ErrorKind::Io, format!("the journal {} is missing", shown.display()))
        })?;
        Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
    }

    /// Removes it.
    pub(crate) fn remove(&self) -> Result<()> {
        self.dir.remove(&self.name)
    }
}

fn parse(line: &[u8]) -> Option<JournalLine> {
    journal::decode(line).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use cutover_formats::Phase;

    use super::*;
    use crate::files::SystemFiles;

    fn line(seq: u64) -> JournalLine {
        JournalLine {
            epoch: seq,
            seq,
            at_ms: 1,
            who: "test".into(),
            from: Phase::Stable,
            to: Phase::PreMigration,
            why: "because \"quoted\"".into(),
        }
    }

    #[test]
    fn a_missing_or_torn_last_line_is_mended() {
        let home = tempfile::tempdir().unwrap();
        let (dir, path) = (Dir::new(Arc::new(SystemFiles), home.path()), home.path().join("j.jsonl"));
        let mut journal = Journal::open(&dir, "j.jsonl", &line(1)).unwrap();
        journal.append(&line(2)).unwrap();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let lines = Journal::open(&dir, "j.jsonl", &line(2)).unwrap().read().unwrap();
            assert_eq!(lines.last(), Some(&line(2)), "cut at {cut}");
            assert!(lines.len() <= 2);
        }
    }

    /// A directory in the file's place stands for a disk that takes no writes.
    #[test]
    fn lines_that_could_not_be_written_come_with_the_next_one() {
        let home = tempfile::tempdir().unwrap();
        let (dir, path) = (Dir::new(Arc::new(SystemFiles), home.path()), home.path().join("j.jsonl"));
        let mut journal = Journal::open(&dir, "j.jsonl", &line(1)).unwrap();
        let mut text = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(journal.append(&line(2)).is_err());
        assert!(journal.append(&line(3)).is_err());
        fs::remove_dir(&path).unwrap();
        // What a full disk leaves of the second line.
        text.extend(b"{\"epoch\":2,");
        fs::write(&path, &text).unwrap();
        journal.append(&line(4)).unwrap();
        journal.append(&line(5)).unwrap();
        let seqs: Vec<u64> = journal.read().unwrap().iter().map(|line| line.seq).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 5, "and nothing torn is left");
    }
}

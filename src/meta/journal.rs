//! A tenant's journal: one line of JSON for each change of its status, for people and programs. The record decides, the journal
//! only tells; opening mends one that lacks the line which the record names.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use cutover_formats::journal;
use cutover_formats::meta::JournalLine;

use super::dir::{self, private_append};
use crate::error::{Error, Result};

/// A journal. No file stays open: a thousand tenants would hold a thousand.
pub(crate) struct Journal {
    path: PathBuf,
}

impl Journal {
    /// Opens the journal, cuts off a torn last line, and adds `last` if it is missing.
    pub(crate) fn open(path: &Path, last: &JournalLine) -> Result<Self> {
        let doing = || format!("opening the journal {}", path.display());
        let mut file = private_append(path).map_err(|err| Error::io(doing(), err))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(|err| Error::io(doing(), err))?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            file.set_len(whole as u64).map_err(|err| Error::io(doing(), err))?;
        }
        drop(file);
        let journal = Self { path: path.to_path_buf() };
        let seq = text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').rev().find_map(parse);
        if seq.is_none_or(|line| line.seq < last.seq) {
            journal.append(last)?;
        }
        Ok(journal)
    }

    /// The journal at this path as it is, to be read.
    pub(crate) fn look(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    /// Adds a line and makes it durable.
    pub(crate) fn append(&self, line: &JournalLine) -> Result<()> {
        let text = journal::encode(line)?;
        private_append(&self.path)
            .and_then(|mut file| {
                file.write_all(format!("{text}\n").as_bytes()).and_then(|()| file.sync_data())
            })
            .map_err(|err| Error::io(format!("writing the journal {}", self.path.display()), err))
    }

    /// Every line, oldest first. Lines that cannot be read are left out.
    pub(crate) fn read(&self) -> Result<Vec<JournalLine>> {
        let text = dir::read(&self.path)
            .map_err(|err| Error::io(format!("reading the journal {}", self.path.display()), err))?;
        Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
    }
}

fn parse(line: &[u8]) -> Option<JournalLine> {
    journal::decode(line).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cutover_formats::Phase;

    use super::*;

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
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        let journal = Journal::open(&path, &line(1)).unwrap();
        journal.append(&line(2)).unwrap();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let lines = Journal::open(&path, &line(2)).unwrap().read().unwrap();
            assert_eq!(lines.last(), Some(&line(2)), "cut at {cut}");
            assert!(lines.len() <= 2);
        }
    }
}

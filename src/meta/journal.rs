//! A tenant's journal: one line of JSON for each change of its status, for people and programs. The record decides, the journal
//! only tells; opening mends one that lacks the line which the record names.

use cutover_formats::journal;
use cutover_formats::meta::JournalLine;

use super::dir::Dir;
use crate::error::{Error, ErrorKind, Result};

/// A journal. No file stays open: a thousand tenants would hold a thousand.
pub(crate) struct Journal {
    dir: Dir,
    name: String,
}

impl Journal {
    /// Opens the journal, cuts off a torn last line, and adds `last` if it is missing.
    pub(crate) fn open(dir: &Dir, name: &str, last: &JournalLine) -> Result<Self> {
        let journal = Self::look(dir, name);
        let text = dir.read(name)?.unwrap_or_default();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            dir.truncate(name, whole)?;
        }
        let seq = text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').rev().find_map(parse);
        if seq.is_none_or(|line| line.seq < last.seq) {
            journal.append(last)?;
        }
        Ok(journal)
    }

    /// The journal as it is, to be read.
    pub(crate) fn look(dir: &Dir, name: &str) -> Self {
        Self { dir: dir.clone(), name: name.to_owned() }
    }

    /// Adds a line and makes it durable.
    pub(crate) fn append(&self, line: &JournalLine) -> Result<()> {
        let text = journal::encode(line)?;
        self.dir.append(&self.name, format!("{text}\n").as_bytes())
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
        let journal = Journal::open(&dir, "j.jsonl", &line(1)).unwrap();
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
}

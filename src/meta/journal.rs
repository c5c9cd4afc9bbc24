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
    /// Lines of which it is not known whether they are in the file: writing them failed.
    untold: Vec<JournalLine>,
}

impl Journal {
    /// Opens the journal, cuts off a torn last line, and adds `last` if it is missing.
    pub(crate) fn open(dir: &Dir, name: &str, last: &JournalLine) -> Result<Self> {
        let mut journal = Self::look(dir, name);
        journal.untold.push(last.clone());
        journal.mend()?;
        Ok(journal)
    }

    /// The journal as it is, to be read.
    pub(crate) fn look(dir: &Dir, name: &str) -> Self {
        Self { dir: dir.clone(), name: name.to_owned(), untold: Vec::new() }
    }

    /// Adds a line and makes it durable. If that fails, the next one brings it along.
    pub(crate) fn append(&mut self, line: &JournalLine) -> Result<()> {
        let torn = !self.untold.is_empty();
        self.untold.push(line.clone());
        if torn { self.mend() } else { self.tell() }
    }

    /// Cuts off what is torn, and adds what is missing.
    fn mend(&mut self) -> Result<()> {
        let text = self.dir.read(&self.name)?.unwrap_or_default();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            self.dir.truncate(&self.name, whole)?;
        }
        let last = text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n').rev().find_map(parse);
        self.untold.retain(|line| last.as_ref().is_none_or(|last| last.seq < line.seq));
        self.tell()
    }

    fn tell(&mut self) -> Result<()> {
        let mut text = String::new();
        for line in &self.untold {
            text.push_str(&journal::encode(line)?);
            text.push('\n');
        }
        if !text.is_empty() {
            self.dir.append(&self.name, text.as_bytes())?;
        }
        self.untold.clear();
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
    use std::path::Path;
    use std::sync::Arc;

    use cutover_formats::Phase;

    use super::*;
    use crate::fault::{Effect, Fault, Faults};
    use crate::files::{MemoryFiles, SystemFiles};

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

    /// Found by the sweep of I/O errors: a line that could not be written was never told, nor one that came after a torn one.
    #[test]
    fn a_line_that_could_not_be_written_comes_with_the_next_one() {
        for effect in [Effect::Nothing, Effect::Half, Effect::Holes, Effect::Whole] {
            let faults = Faults::new();
            let dir = Dir::new(faults.files(Arc::new(MemoryFiles::new())), Path::new("/"));
            let mut journal = Journal::open(&dir, "j.jsonl", &line(1)).unwrap();
            faults.at(2, Fault::Fail(effect));
            assert!(journal.append(&line(2)).is_err());
            journal.append(&line(3)).unwrap();
            assert_eq!(journal.read().unwrap(), [line(1), line(2), line(3)], "{effect:?}");
        }
    }
}

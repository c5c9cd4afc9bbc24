//! A commit that was acknowledged as `Synced` is followed by `fsync` or `fdatasync` on every file that was written, seen
//! from outside by strace.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::child::{self, SIZES, Task};
#[cfg(feature = "sled")]
use crate::child::{LONG_KEYS, LONG_KEYS_AT_ONCE};
use crate::{dir, drivers};

const CALLS: &str = "trace=openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,\
                     write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync";

/// Runs the task under strace and reads the trace; `None`, saying why, where that cannot be done.
fn traced(driver: &str, task: Task, path: &Path) -> Option<Files> {
    let root = path.parent().unwrap();
    let trace = root.join("trace");
    let child = child::command(task, driver, path);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "16", "-e", CALLS, "-o"]).arg(&trace).arg("--");
    strace.arg(child.get_program()).args(child.get_args());
    strace.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let Ok(output) = strace.output() else {
        eprintln!("skipped: strace is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let text = fs::read_to_string(&trace).unwrap_or_default();
    if !output.status.success() && text.is_empty() {
        eprintln!("skipped: strace may not trace here: {said}");
        return None;
    }
    assert!(output.status.success(), "{driver}: {said}");
    let mut files = Files::new(root);
    text.lines().for_each(|line| files.see(line));
    assert!(files.unsynced.is_empty(), "{driver}: acknowledged before a sync: {:#?}", files.unsynced);
    Some(files)
}

#[test]
fn a_synced_commit_is_synced_in_every_file_that_was_written() {
    for driver in drivers() {
        let dir = dir();
        let path = dir.path().join("store");
        let Some(files) = traced(driver.name(), Task::Sizes, &path) else { return };
        assert_eq!(files.acks, SIZES.len(), "{}: not every commit was acknowledged", driver.name());
        assert!(files.written > SIZES.iter().sum(), "{}: {} bytes were seen", driver.name(), files.written);
        assert_eq!(files.blobs, 0, "{}: pages went to files of their own", driver.name());
    }
}

/// The one way left to make sled put pages into files of their own: then they are synced as well.
#[cfg(feature = "sled")]
#[test]
fn pages_in_files_of_their_own_are_synced() {
    let dir = dir();
    let Some(files) = traced("sled", Task::LongKeys, &dir.path().join("store")) else { return };
    assert_eq!(files.acks, LONG_KEYS / LONG_KEYS_AT_ONCE);
    assert!(files.blobs > 0, "nothing went to files of their own, so nothing was shown");
}

/// What is written and not synced, read from the trace line by line.
#[derive(Default)]
struct Files {
    root: String,
    /// Per file or directory: how often it was changed, and that number when the newest sync that has ended began.
    state: HashMap<String, (u64, u64)>,
    /// Per thread: the sync that it is in, and the number of changes when it began.
    syncing: HashMap<String, (String, u64)>,
    /// Per thread: the file that it is changing.
    changing: HashMap<String, String>,
    acks: usize,
    /// Files that were made in sled's `blobs`.
    blobs: usize,
    written: usize,
    unsynced: Vec<String>,
}

impl Files {
    fn new(root: &Path) -> Self {
        Self { root: root.canonicalize().unwrap().display().to_string(), ..Self::default() }
    }

    fn see(&mut self, line: &str) {
        let Some((thread, call)) = line.split_once(' ') else { return };
        let call = call.trim_start();
        if call.starts_with("<...") {
            return self.resumed(thread, call);
        }
        let Some((name, rest)) = call.split_once('(') else { return };
        match name {
            "write" if rest.starts_with("1<") && rest.contains("ack ") => self.ack(line),
            "fsync" | "fdatasync" => {
                let Some(file) = self.file(rest) else { return };
                let changes = self.state.entry(file.clone()).or_default().0;
                self.syncing.insert(thread.to_owned(), (file, changes));
                if !call.ends_with("<unfinished ...>") {
                    self.synced(thread, call);
                }
            }
            "openat" | "open" | "creat" | "mkdir" | "mkdirat" => {
                let path = rest.split('"').nth(1);
                if name.starts_with("mkdir") || rest.contains("O_CREAT") {
                    self.entry_changed(path);
                    self.blobs += usize::from(path.is_some_and(|path| path.contains("/store/blobs/")));
                }
            }
            "unlink" | "unlinkat" => {
                rest.split('"').nth(1).and_then(|path| self.state.remove(path));
            }
            "rename" | "renameat" | "renameat2" => {
                let mut paths = rest.split('"').skip(1).step_by(2);
                let (from, to) = (paths.next(), paths.next());
                let moved = from.and_then(|from| self.state.remove(from));
                if let (Some(state), Some(to)) = (moved, to) {
                    self.state.insert(to.to_owned(), state);
                }
                self.entry_changed(to);
            }
            _ => {
                let Some(file) = self.file(rest) else { return };
                self.state.entry(file.clone()).or_default().0 += 1;
                if call.ends_with("<unfinished ...>") {
                    self.changing.insert(thread.to_owned(), file);
                } else {
                    self.count(call);
                }
            }
        }
    }

    /// A new name changes the directory that it is in: the store's or, for the store's own, the one above.
    fn entry_changed(&mut self, path: Option<&str>) {
        if let Some((parent, _)) = path.and_then(|path| path.rsplit_once('/'))
            && parent.starts_with(&self.root)
            && path.is_some_and(|path| !path.ends_with("/LOG"))
        {
            self.state.entry(parent.to_owned()).or_default().0 += 1;
        }
    }

    fn resumed(&mut self, thread: &str, call: &str) {
        self.synced(thread, call);
        // It may have taken place at any time since it began.
        if let Some(file) = self.changing.remove(thread) {
            self.state.entry(file).or_default().0 += 1;
            self.count(call);
        }
    }

    fn synced(&mut self, thread: &str, call: &str) {
        if let Some((file, changes)) = self.syncing.remove(thread)
            && call.trim_end().ends_with("= 0")
        {
            let state = self.state.entry(file).or_default();
            state.1 = state.1.max(changes);
        }
    }

    fn count(&mut self, call: &str) {
        let result = call.rsplit_once("= ").and_then(|(_, result)| result.trim().parse::<usize>().ok());
        self.written += result.unwrap_or(0);
    }

    fn ack(&mut self, line: &str) {
        self.acks += 1;
        for (file, (changes, synced)) in &self.state {
            if changes > synced {
                self.unsynced.push(format!("{file} before {line}"));
            }
        }
    }

    /// The file of a call's first argument, `5</path>`, if it is one of the store's and holds rows.
    fn file(&self, arguments: &str) -> Option<String> {
        let (_, rest) = arguments.split_once('<')?;
        let (path, _) = rest.split_once('>')?;
        let below = path.strip_prefix(&self.root)?;
        // RocksDB's log for people; and our own trace.
        (!below.ends_with("/LOG") && below != "/trace").then(|| path.to_owned())
    }
}

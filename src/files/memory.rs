//! Files in memory: what the engine keeps beside the stores, for tests that crash it many thousand times.
//!
//! Names and contents are apart, as on a disk: a name stands for a file whose bytes are somewhere else, and each of the two survives
//! power loss only after it was synced.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sync::Mutex;

use super::{Files, Held};

/// Files in memory. Clones share them, so the value is the disk: who opens an engine on it again finds what the last one left.
#[derive(Debug, Clone, Default)]
pub struct MemoryFiles(Arc<Mutex<Disk>>);

#[derive(Debug, Clone, Default)]
struct Disk {
    names: BTreeMap<PathBuf, Node>,
    /// The names that survive power loss.
    synced: BTreeMap<PathBuf, Node>,
    files: BTreeMap<u64, Bytes>,
    next: u64,
    /// How often each file is locked; `usize::MAX` against everybody.
    locks: HashMap<PathBuf, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(u64),
}

#[derive(Debug, Clone, Default)]
struct Bytes {
    now: Vec<u8>,
    /// Those that survive power loss.
    synced: Vec<u8>,
}

impl MemoryFiles {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another disk with the same on it; nobody has a lock there.
    #[must_use]
    pub fn copy(&self) -> Self {
        let disk = Disk { locks: HashMap::new(), ..self.0.lock().clone() };
        Self(Arc::new(Mutex::new(disk)))
    }

    /// Whether power loss would take nothing.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        let disk = self.0.lock();
        disk.names == disk.synced && disk.files.values().all(|bytes| bytes.now == bytes.synced)
    }

    /// What power loss does: takes away everything that was not synced.
    pub fn power_cut(&self) {
        let mut disk = self.0.lock();
        let disk = &mut *disk;
        disk.names = disk.synced.clone();
        // What is in a directory goes with it.
        let there: BTreeSet<PathBuf> = disk.names.keys().cloned().collect();
        let whole = |path: &Path| path.ancestors().all(|above| is_root(above) || there.contains(above));
        disk.names.retain(|path, _| whole(path));
        disk.synced = disk.names.clone();
        let named: BTreeSet<u64> = disk.names.values().filter_map(|node| node.file()).collect();
        disk.files.retain(|file, _| named.contains(file));
        for bytes in disk.files.values_mut() {
            bytes.now = bytes.synced.clone();
        }
    }
}

impl Node {
    fn file(self) -> Option<u64> {
        match self {
            Self::Dir => None,
            Self::File(file) => Some(file),
        }
    }
}

/// Neither has to be made.
fn is_root(path: &Path) -> bool {
    path.parent().is_none() || path.as_os_str().is_empty()
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk {
    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(missing()),
        }
    }

    fn is_dir(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            _ if is_root(path) => Ok(()),
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(missing()),
        }
    }

    fn bytes(&mut self, path: &Path) -> io::Result<&mut Bytes> {
        let file = self.file(path)?;
        self.files.get_mut(&file).ok_or_else(missing)
    }

    /// The bytes of a file, which is made if it is missing.
    fn open(&mut self, path: &Path) -> io::Result<&mut Bytes> {
        self.is_dir(path.parent().ok_or_else(missing)?)?;
        let file = match self.file(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                self.next += 1;
                self.names.insert(path.to_owned(), Node::File(self.next));
                self.next
            }
            found => found?,
        };
        Ok(self.files.entry(file).or_default())
    }

    fn lock(&mut self, path: &Path, alone: bool) -> io::Result<()> {
        let locks = self.locks.entry(path.to_owned()).or_default();
        if *locks == usize::MAX || (alone && *locks > 0) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        *locks = if alone { usize::MAX } else { *locks + 1 };
        Ok(())
    }
}

/// Gives a lock back when it is dropped.
struct Lock(Arc<Mutex<Disk>>, PathBuf);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(locks) = self.0.lock().locks.get_mut(&self.1) {
            *locks = if *locks == usize::MAX { 0 } else { locks.saturating_sub(1) };
        }
    }
}

impl Files for MemoryFiles {
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let disk = self.0.lock();
        disk.is_dir(dir)?;
        let inside = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()).map(OsString::from).collect())
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        self.0.lock().bytes(file).map(|bytes| bytes.now.clone())
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        for above in dir.ancestors().filter(|above| !is_root(above)) {
            if disk.file(above).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            disk.names.entry(above.to_owned()).or_insert(Node::Dir);
        }
        Ok(())
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock();
        *disk.open(file)? = Bytes { now: bytes.to_vec(), synced: bytes.to_vec() };
        Ok(())
    }

    fn append(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock();
        let there = disk.open(file)?;
        there.now.extend_from_slice(bytes);
        there.synced = there.now.clone();
        Ok(())
    }

    fn truncate(&self, file: &Path, len: u64) -> io::Result<()> {
        let mut disk = self.0.lock();
        let bytes = disk.bytes(file)?;
        bytes.now.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        let file = disk.file(from)?;
        disk.is_dir(to.parent().ok_or_else(missing)?)?;
        disk.names.remove(from);
        disk.names.insert(to.to_owned(), Node::File(file));
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.file(file)?;
        disk.names.remove(file);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.is_dir(dir)?;
        let disk = &mut *disk;
        disk.synced.retain(|path, _| path.parent() != Some(dir));
        let inside = disk.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        disk.synced.extend(inside.map(|(path, node)| (path.clone(), *node)));
        Ok(())
    }

    fn lock(&self, file: &Path) -> io::Result<Held> {
        let mut disk = self.0.lock();
        disk.open(file)?;
        disk.lock(file, true)?;
        Ok(Box::new(Lock(Arc::clone(&self.0), file.to_owned())))
    }

    fn share(&self, file: &Path) -> io::Result<Held> {
        let mut disk = self.0.lock();
        disk.file(file)?;
        disk.lock(file, false)?;
        Ok(Box::new(Lock(Arc::clone(&self.0), file.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::SystemFiles;
    use super::*;

    /// The same calls, the same answers: what is tested on files in memory is what the file system does.
    #[test]
    fn files_in_memory_answer_as_those_of_the_system_do() {
        let home = tempfile::tempdir().unwrap();
        let memory = MemoryFiles::new();
        memory.make_dir(home.path()).unwrap();
        let both: [&dyn Files; 2] = [&SystemFiles, &memory];
        let at = |name: &str| home.path().join(name);
        let [system, memory] = both.map(|files| {
            let mut said: Vec<String> = Vec::new();
            let mut say = |what: &str, result: io::Result<String>| {
                said.push(format!("{what}: {:?}", result.map_err(|err| err.kind())));
            };
            let done = |()| String::new();
            let names = |mut names: Vec<OsString>| {
                names.sort();
                format!("{names:?}")
            };
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            say("list nothing", files.list(&at("a")).map(names));
            say("no directory yet", files.write(&at("a/x"), b"1").map(done));
            say("make", files.make_dir(&at("a/b")).map(done));
            say("make again", files.make_dir(&at("a/b")).map(done));
            say("write", files.write(&at("a/x"), b"one").map(done));
            say("over it", files.write(&at("a/x"), b"1").map(done));
            say("append", files.append(&at("a/x"), b"23").map(done));
            say("append to nothing", files.append(&at("a/y"), b"y").map(done));
            say("list", files.list(&at("a")).map(names));
            say("list a file", files.list(&at("a/x")).map(names));
            say("read", files.read(&at("a/x")).map(text));
            say("read nothing", files.read(&at("a/z")).map(text));
            say("read a directory", files.read(&at("a")).map(text));
            say("cut", files.truncate(&at("a/x"), 2).map(done));
            say("cut nothing", files.truncate(&at("a/z"), 2).map(done));
            say("rename", files.rename(&at("a/x"), &at("a/y")).map(done));
            say("rename nothing", files.rename(&at("a/x"), &at("a/y")).map(done));
            say("read it", files.read(&at("a/y")).map(text));
            say("remove", files.remove(&at("a/y")).map(done));
            say("remove nothing", files.remove(&at("a/y")).map(done));
            say("sync", files.sync_dir(&at("a")).map(done));
            say("sync nothing", files.sync_dir(&at("c")).map(done));
            say("share nothing", files.share(&at("a/l")).map(|_| String::new()));
            let held = files.lock(&at("a/l")).unwrap();
            say("lock twice", files.lock(&at("a/l")).map(|_| String::new()));
            say("share what is locked", files.share(&at("a/l")).map(|_| String::new()));
            drop(held);
            let (_one, _two) = (files.share(&at("a/l")).unwrap(), files.share(&at("a/l")).unwrap());
            say("lock what is shared", files.lock(&at("a/l")).map(|_| String::new()));
            said
        });
        assert_eq!(system, memory);
    }

    #[test]
    fn power_loss_takes_names_and_bytes_that_were_not_synced() {
        let files = MemoryFiles::new();
        let dir = Path::new("/a/b");
        files.make_dir(dir).unwrap();
        files.write(&dir.join("x"), b"old").unwrap();
        let lost = files.copy();
        lost.sync_dir(dir).unwrap();
        lost.power_cut();
        assert!(lost.list(dir).is_err(), "the directory itself was not synced");
        for synced in ["/", "/a", "/a/b"] {
            files.sync_dir(Path::new(synced)).unwrap();
        }
        files.write(&dir.join("x.new"), b"new").unwrap();
        files.rename(&dir.join("x.new"), &dir.join("x")).unwrap();
        let kept = files.copy();
        kept.sync_dir(dir).unwrap();
        kept.power_cut();
        assert_eq!(kept.read(&dir.join("x")).unwrap(), b"new");
        files.power_cut();
        assert_eq!(files.read(&dir.join("x")).unwrap(), b"old");
        files.remove(&dir.join("x")).unwrap();
        assert!(files.list(dir).unwrap().is_empty() && !files.is_synced());
        files.power_cut();
        assert!(files.list(dir).unwrap().len() == 1 && files.is_synced());
    }
}

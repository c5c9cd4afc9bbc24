//! The data directory: made once, recognised later, and held by one engine at a time.

use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind as Io};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cutover_formats::marker;

use crate::error::{Error, ErrorKind, Result};
use crate::files::{Files, Held};
use crate::sync::Mutex;

/// Format version of the directory as a whole.
pub(crate) const VERSION: u64 = 1;
const MARKER: &str = "CUTOVER";
const META: &str = "meta";
/// The second copy of the marker, in there, with a checksum.
const COPY: &str = "marker";
const LOCK: &str = "LOCK";

/// A directory of the engine's own, through whatever files it was given.
#[derive(Clone)]
pub(crate) struct Dir {
    files: Arc<dyn Files>,
    path: PathBuf,
}

impl Dir {
    pub(crate) fn new(files: Arc<dyn Files>, path: &Path) -> Self {
        Self { files, path: path.to_path_buf() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// One inside it.
    pub(crate) fn join(&self, name: &str) -> Self {
        Self { files: Arc::clone(&self.files), path: self.path.join(name) }
    }

    /// The names in it.
    pub(crate) fn list(&self) -> Result<Vec<OsString>> {
        self.files.list(&self.path).map_err(|err| Error::io(format!("reading {}", self.path.display()), err))
    }

    /// What a file in it holds; `None` if there is no such file.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match self.files.read(&self.path.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(err) if err.kind() == Io::NotFound => Ok(None),
            Err(err) => Err(self.failed("reading", name, err)),
        }
    }

    /// Replaces a file: write beside it, rename, sync the directory. When it returns the new contents survive power loss; a crash leaves
    /// the old or the new, never a mixture.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (file, beside) = (self.path.join(name), self.path.join(format!("{name}.new")));
        self.files
            .write(&beside, bytes)
            .and_then(|()| self.files.rename(&beside, &file))
            .and_then(|()| self.files.sync_dir(&self.path))
            .map_err(|err| self.failed("writing", name, err))
    }

    /// Adds to the end of a file, durably.
    pub(crate) fn append(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.files.append(&self.path.join(name), bytes).map_err(|err| self.failed("writing", name, err))
    }

    /// Cuts a file down to this length.
    pub(crate) fn truncate(&self, name: &str, len: usize) -> Result<()> {
        self.files
            .truncate(&self.path.join(name), len as u64)
            .map_err(|err| self.failed("cutting off the end of", name, err))
    }

    /// Removes a file; missing already is success. Durable after [`sync`](Self::sync).
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        match self.files.remove(&self.path.join(name)) {
            Err(err) if err.kind() != Io::NotFound => Err(self.failed("removing", name, err)),
            _ => Ok(()),
        }
    }

    /// Makes the names in it survive power loss.
    pub(crate) fn sync(&self) -> Result<()> {
        self.files
            .sync_dir(&self.path)
            .map_err(|err| Error::io(format!("syncing the directory {}", self.path.display()), err))
    }

    fn make(&self) -> Result<()> {
        self.files.make_dir(&self.path).map_err(|err| match err.kind() {
            Io::NotADirectory => {
                Error::new(ErrorKind::Foreign, format!("{} is not a directory: {err}", self.path.display()))
            }
            _ => Error::io(format!("making the directory {}", self.path.display()), err),
        })
    }

    fn failed(&self, doing: &str, name: &str, err: io::Error) -> Error {
        Error::io(format!("{doing} {}", self.path.join(name).display()), err)
    }
}

/// A data directory that this engine holds. Let go of when dropped.
pub(crate) struct DataDir {
    dir: Dir,
    lock: Mutex<Option<Held>>,
}

impl DataDir {
    /// Opens the directory, or makes it if it is missing or empty.
    pub(crate) fn open(dir: Dir) -> Result<Self> {
        make_missing(&dir)?;
        let finished = recognise(&dir)?;
        let lock = dir.files.lock(&dir.path.join(LOCK)).map_err(|err| refused(&dir, err))?;
        match finished {
            false => finish(&dir)?,
            // Whoever made it may have been killed before its marker was durable.
            true => dir.sync()?,
        }
        Ok(Self { dir, lock: Mutex::new(Some(lock)) })
    }

    /// Holds a directory that no engine has open, to look at it: nothing is made, finished or changed. Several may look at
    /// once.
    pub(crate) fn look(dir: Dir) -> Result<Self> {
        let shown = dir.path.display();
        if !is_there(&dir)? {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no directory {shown}")));
        }
        if !recognise(&dir)? {
            let message = format!("{shown} is not a cutover data directory: it has no {MARKER} file");
            return Err(Error::new(ErrorKind::Foreign, message));
        }
        // An engine makes the lock before the directory is whole, so where there is none (in a copy that left it out) there is no engine
        // either.
        let lock = match dir.files.share(&dir.path.join(LOCK)) {
            Ok(lock) => Some(lock),
            Err(err) if err.kind() == Io::NotFound => None,
            Err(err) => return Err(refused(&dir, err)),
        };
        Ok(Self { dir, lock: Mutex::new(lock) })
    }

    /// Writes the marker or its copy again if one of them is not as it should be.
    pub(crate) fn mend(&self) -> Result<()> {
        let meta = self.meta();
        for (dir, name, text) in
            [(&meta, COPY, marker::copy(VERSION)), (&self.dir, MARKER, marker::text(VERSION))]
        {
            if dir.read(name).ok().flatten().as_deref() != Some(text.as_bytes()) {
                dir.replace(name, text.as_bytes())?;
            }
        }
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir.path
    }

    /// Lets another engine have the directory.
    pub(crate) fn unlock(&self) {
        self.lock.lock().take();
    }

    pub(crate) fn meta(&self) -> Dir {
        self.dir.join("meta")
    }
}

fn refused(dir: &Dir, err: io::Error) -> Error {
    match err.kind() {
        Io::WouldBlock => {
            Error::new(ErrorKind::Locked, format!("another engine has {} open", dir.path.display()))
        }
        _ => dir.failed("locking", LOCK, err),
    }
}

/// Whether there is a directory.
fn is_there(dir: &Dir) -> Result<bool> {
    match dir.files.list(&dir.path) {
        Ok(_) => Ok(true),
        Err(err) if err.kind() == Io::NotFound => Ok(false),
        Err(err) if err.kind() == Io::NotADirectory => {
            Err(Error::new(ErrorKind::Foreign, format!("{} is not a directory", dir.path.display())))
        }
        Err(err) if err.kind() == Io::InvalidFilename => {
            let message = format!("{} cannot be a directory's name: {err}", dir.path.display());
            Err(Error::new(ErrorKind::InvalidInput, message))
        }
        Err(err) => Err(Error::io(format!("reading {}", dir.path.display()), err)),
    }
}

/// Makes the directory and those above it that are missing.
fn make_missing(dir: &Dir) -> Result<()> {
    if is_there(dir)? {
        return Ok(());
    }
    dir.make()
}

/// Whether the directory is a whole one of ours (`true`) or one whose making has not come to its end (`false`); anything
/// else is an error.
///
/// The copy of the marker has a checksum, so if it can be read, what it says is true. A program that raises the version writes the copy first.
fn recognise(dir: &Dir) -> Result<bool> {
    let shown = dir.path.display();
    let text = dir.read(MARKER)?;
    let copy = dir.join(META).read(COPY).unwrap_or_default();
    let version = match (&text, copy.and_then(|copy| marker::read_copy(&copy))) {
        (_, Some(version)) => version,
        (Some(text), None) => marker::read_text(text).ok_or_else(|| {
            let message =
                format!("{shown}/{MARKER} does not say what it should, and neither does {META}/{COPY}");
            Error::new(ErrorKind::Foreign, message)
        })?,
        (None, None) => return only_our_beginnings(dir).map(|()| false),
    };
    match version.cmp(&VERSION) {
        std::cmp::Ordering::Equal => Ok(true),
        std::cmp::Ordering::Less => {
            Err(Error::new(ErrorKind::Foreign, format!("{shown}/{MARKER} does not say what it should")))
        }
        std::cmp::Ordering::Greater => Err(Error::new(
            ErrorKind::Foreign,
            format!(
                "{shown} was written by a newer version: its format is {version}, this program reads {VERSION}"
            ),
        )),
    }
}

/// A directory without the marker is ours only if making it was interrupted, before or after its first file: then it has
/// nothing but empty directories and the lock.
fn only_our_beginnings(dir: &Dir) -> Result<()> {
    for name in dir.list()? {
        let is_empty =
            |inside: &OsStr| dir.files.list(&dir.path.join(inside)).is_ok_and(|inside| inside.is_empty());
        let ours = name == LOCK
            || name.to_string_lossy().starts_with("CUTOVER.")
            || (["meta", "stores"].iter().any(|made| name == *made) && is_empty(&name));
        if !ours {
            let shown = dir.path.display();
            return Err(Error::new(
                ErrorKind::Foreign,
                format!("{shown} is not a cutover data directory: it has {name:?} and no {MARKER} file"),
            ));
        }
    }
    Ok(())
}

/// Makes what is missing; the marker comes last. Before it the directories above are synced, for they may be new as well: once the marker
/// is there nobody looks at them again.
fn finish(dir: &Dir) -> Result<()> {
    for inside in ["meta", "stores"] {
        dir.join(inside).make()?;
    }
    for above in dir.path.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match dir.files.sync_dir(above) {
            // One that we may not read is not one that we have made.
            Err(err) if err.kind() != Io::PermissionDenied => {
                return Err(Error::io(format!("syncing the directory {}", above.display()), err));
            }
            _ => {}
        }
    }
    dir.replace(MARKER, marker::text(VERSION).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Act, Effect, Fault, Faults};
    use crate::files::MemoryFiles;

    /// Found by the sweep of crash points: only the directory right above was synced.
    #[test]
    fn a_new_directory_in_new_directories_survives_power_loss() {
        let files = MemoryFiles::new();
        let dir = Dir::new(Arc::new(files.clone()), Path::new("/new/too/data"));
        drop(DataDir::open(dir.clone()).unwrap());
        files.power_cut();
        drop(DataDir::look(dir).unwrap());
    }

    /// Found by the sweep of crash points: a kill between the renaming of the marker and the sync of its name.
    #[test]
    fn a_marker_that_is_found_is_made_durable() {
        let (files, faults) = (MemoryFiles::new(), Faults::new());
        let path = Path::new("/data");
        let dir = Dir::new(faults.files(Arc::new(files.clone())), path);
        faults.script(|step| match (step.act, step.path.ends_with(MARKER)) {
            (Act::Rename, true) => Fault::Crash(Effect::Whole),
            _ => Fault::None,
        });
        assert!(DataDir::open(dir).is_err() && faults.is_dead());
        let dir = Dir::new(Arc::new(files.clone()), path);
        let made = DataDir::open(dir.clone()).unwrap();
        made.meta().replace("record", b"x").unwrap();
        drop(made);
        files.power_cut();
        let again = DataDir::look(dir).unwrap();
        assert!(again.meta().read("record").unwrap().is_some());
    }
}

//! The data directory: made once, recognised later, and held by one engine at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
#[cfg(unix)]
use rustix::fs::OFlags;

use crate::error::{Error, ErrorKind, Result};

/// Format version of the directory as a whole.
pub(crate) const VERSION: u64 = 1;
const MARKER: &str = "CUTOVER";
const LOCK: &str = "LOCK";

/// A data directory that this engine holds. Let go of when dropped.
pub(crate) struct DataDir {
    path: PathBuf,
    lock: Mutex<Option<File>>,
}

impl DataDir {
    /// Opens the directory, or makes it if it is missing or empty.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            if path.is_symlink() {
                let message = format!("{} is a symbolic link that leads nowhere", path.display());
                return Err(Error::new(ErrorKind::Foreign, message));
            }
            create_private(path)?;
        }
        let finished = recognise(path)?;
        let lock = lock(path)?;
        if !finished {
            finish(path)?;
        }
        Ok(Self { path: path.to_path_buf(), lock: Mutex::new(Some(lock)) })
    }

    /// Holds a directory that no engine has open, to look at it: nothing is made, finished or changed. Several may look at
    /// once.
    pub(crate) fn look(path: &Path) -> Result<Self> {
        let shown = path.display();
        if !path.exists() {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no directory {shown}")));
        }
        if !recognise(path)? {
            let message = format!("{shown} is not a cutover data directory: it has no {MARKER} file");
            return Err(Error::new(ErrorKind::Foreign, message));
        }
        Ok(Self { path: path.to_path_buf(), lock: Mutex::new(share(path)?) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets another engine have the directory. Said, and not left to the closing of the file: a process that this one is just starting
    /// on another thread has the file too, until it has become the other program.
    pub(crate) fn unlock(&self) {
        if let Some(lock) = self.lock.lock().take() {
            // If it fails, the closing does it.
            drop(lock.unlock());
        }
    }

    pub(crate) fn meta(&self) -> PathBuf {
        self.path.join("meta")
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        self.unlock();
    }
}

/// Whether the directory is a whole one of ours (`true`) or one whose making has not come to its end (`false`); anything
/// else is an error.
fn recognise(path: &Path) -> Result<bool> {
    let shown = path.display();
    if !path.is_dir() {
        return Err(Error::new(ErrorKind::Foreign, format!("{shown} is not a directory")));
    }
    let text = match read(&path.join(MARKER)) {
        // What is not text does not say what it should either.
        Ok(text) => String::from_utf8(text).unwrap_or_default(),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
            return only_our_beginnings(path).map(|()| false);
        }
        Err(err) => return Err(Error::io(format!("reading {shown}/{MARKER}"), err)),
    };
    let version = text.trim().strip_prefix("cutover data directory, version ");
    match version.and_then(|number| number.parse::<u64>().ok()) {
        Some(VERSION) => Ok(true),
        Some(newer) if newer > VERSION => Err(Error::new(
            ErrorKind::Foreign,
            format!(
                "{shown} was written by a newer version: its format is {newer}, this program reads {VERSION}"
            ),
        )),
        _ => Err(Error::new(ErrorKind::Foreign, format!("{shown}/{MARKER} does not say what it should"))),
    }
}

/// A directory without the marker is ours only if making it was interrupted, before or after its first file: then it has
/// nothing but empty directories and the lock.
fn only_our_beginnings(path: &Path) -> Result<()> {
    let shown = path.display();
    let entries =
        fs::read_dir(path).map_err(|err| Error::io(format!("reading the data directory {shown}"), err))?;
    for entry in entries {
        let entry = entry.map_err(|err| Error::io(format!("reading {shown}"), err))?;
        let name = entry.file_name();
        let ours = name == LOCK
            || name.to_string_lossy().starts_with("CUTOVER.")
            || (["meta", "stores"].iter().any(|dir| name == *dir)
                && fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_none()));
        if !ours {
            return Err(Error::new(
                ErrorKind::Foreign,
                format!("{shown} is not a cutover data directory: it has {name:?} and no {MARKER} file"),
            ));
        }
    }
    Ok(())
}

/// Makes what is missing; the marker comes last.
fn finish(path: &Path) -> Result<()> {
    for inside in ["meta", "stores"] {
        create_private(&path.join(inside))?;
    }
    write_durably(&path.join(MARKER), format!("cutover data directory, version {VERSION}\n").as_bytes())?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

fn lock(path: &Path) -> Result<File> {
    let file = path.join(LOCK);
    let lock = private(OpenOptions::new().create(true).truncate(false).write(true))
        .open(&file)
        .map_err(|err| Error::io(format!("opening {}", file.display()), err))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(in_use(path)),
        Err(TryLockError::Error(err)) => Err(Error::io(format!("locking {}", file.display()), err)),
    }
}

/// Keeps engines out, but nobody who only looks. An engine makes the file before it is whole, so where there is none (in
/// a copy that left it out) there is no engine either.
fn share(path: &Path) -> Result<Option<File>> {
    let file = path.join(LOCK);
    let lock = match File::open(&file) {
        Ok(lock) => lock,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(Error::io(format!("opening {}", file.display()), err)),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(in_use(path)),
        Err(TryLockError::Error(err)) => Err(Error::io(format!("locking {}", file.display()), err)),
    }
}

fn in_use(path: &Path) -> Error {
    Error::new(ErrorKind::Locked, format!("another engine has {} open", path.display()))
}

/// Replaces the file: write beside it, sync, rename, sync the directory. When it returns the new contents survive power loss; a
/// crash leaves the old or the new, never a mixture.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let doing = || format!("writing {}", path.display());
    let mut file = private(OpenOptions::new().create(true).truncate(true).write(true))
        .open(&beside)
        .map_err(|err| Error::io(doing(), err))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|err| Error::io(doing(), err))?;
    fs::rename(&beside, path).map_err(|err| Error::io(doing(), err))?;
    match path.parent() {
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Makes the names in a directory survive power loss.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|err| Error::io(format!("syncing the directory {}", path.display()), err))
}

/// Only the owner may read what is stored. And nothing is written through a symbolic link: where it leads is not ours. Nor does a
/// pipe of the name that a file should have keep anybody waiting.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits() as i32);
    }
    options
}

/// The bytes of a file. What is no file has none, and keeps nobody waiting.
pub(crate) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, OFlags::NONBLOCK.bits() as i32);
    let mut bytes = Vec::new();
    options.open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn private_append(path: &Path) -> std::io::Result<File> {
    private(OpenOptions::new().create(true).append(true).read(true)).open(path)
}

fn create_private(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|err| Error::io(format!("making the directory {}", path.display()), err))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a process that is being started has of this one's files.
    fn inherited(dir: &DataDir) -> File {
        dir.lock.lock().as_ref().unwrap().try_clone().unwrap()
    }

    #[test]
    fn whoever_has_inherited_the_lock_file_does_not_keep_the_directory() {
        let home = tempfile::tempdir().unwrap();
        let dir = DataDir::open(home.path()).unwrap();
        let _inherited = inherited(&dir);
        dir.unlock();
        let again = DataDir::open(home.path()).unwrap();
        let _inherited = inherited(&again);
        drop(again);
        let looked_at = DataDir::look(home.path()).unwrap();
        let _inherited = inherited(&looked_at);
        drop(looked_at);
        DataDir::open(home.path()).unwrap();
    }
}

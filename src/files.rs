//! The files that the engine keeps beside the stores: what it asks of the operating system.
//!
//! Passed in like time is, so that tests can keep them in memory ([`MemoryFiles`]) and let any step of them fail
//! ([`crate::fault`]). The steps are those after which a crash finds something else on the disk.

mod memory;

use std::any::Any;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

#[cfg(unix)]
use rustix::fs::OFlags;

pub use self::memory::MemoryFiles;

/// Holds a lock until it is dropped.
pub type Held = Box<dyn Any + Send>;

/// The files of a data directory, but for those of its stores.
///
/// Every write is for the owner only. What each call promises about power loss is said with it; after a kill of the process
/// everything that was written is there.
pub trait Files: Send + Sync + 'static {
    /// The names in a directory.
    ///
    /// # Errors
    /// [`NotFound`](io::ErrorKind::NotFound) if it is missing, [`NotADirectory`](io::ErrorKind::NotADirectory) if it is none.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;

    /// What a file holds.
    ///
    /// # Errors
    /// [`NotFound`](io::ErrorKind::NotFound) if it is missing.
    fn read(&self, file: &Path) -> io::Result<Vec<u8>>;

    /// Makes a directory, and those above it that are missing. Their names survive power loss after the directories that they are in
    /// were [synced](Self::sync_dir). There already is success.
    ///
    /// # Errors
    /// If it cannot.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes these bytes all that a file holds, durably. A new file's name survives power loss after its directory was
    /// [synced](Self::sync_dir). Not atomic: a crash leaves any part of them.
    ///
    /// # Errors
    /// What the file holds is unknown then.
    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Adds bytes to the end of a file, which it makes if it is missing; otherwise as [`write`](Self::write).
    ///
    /// # Errors
    /// As there.
    fn append(&self, file: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Cuts a file down to this length.
    ///
    /// # Errors
    /// What the file holds is unknown then.
    fn truncate(&self, file: &Path, len: u64) -> io::Result<()>;

    /// Gives a file another name, over the file that has it. Atomic; it survives power loss after the directory was
    /// [synced](Self::sync_dir).
    ///
    /// # Errors
    /// Whether it happened is unknown then.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. It survives power loss after the directory was [synced](Self::sync_dir).
    ///
    /// # Errors
    /// [`NotFound`](io::ErrorKind::NotFound) if it is missing.
    fn remove(&self, file: &Path) -> io::Result<()>;

    /// Makes the names in a directory survive power loss.
    ///
    /// # Errors
    /// Whether they do is unknown then.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks a file, over all processes, and makes it if it is missing.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if somebody has it locked.
    fn lock(&self, file: &Path) -> io::Result<Held>;

    /// Locks a file against those who [`lock`](Self::lock) it and nobody else.
    ///
    /// # Errors
    /// The same, and [`NotFound`](io::ErrorKind::NotFound) if it is missing.
    fn share(&self, file: &Path) -> io::Result<Held>;
}

/// The file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let mut options = OpenOptions::new();
        options.read(true);
        // What is no file has no bytes, and keeps nobody waiting.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, OFlags::NONBLOCK.bits() as i32);
        let mut bytes = Vec::new();
        options.open(file)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_symlink() && !dir.exists() {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                "it is a symbolic link that leads nowhere",
            ));
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir)
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = private(OpenOptions::new().create(true).truncate(true).write(true)).open(file)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    fn append(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = private(OpenOptions::new().create(true).append(true)).open(file)?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn truncate(&self, file: &Path, len: u64) -> io::Result<()> {
        let file = private(OpenOptions::new().write(true)).open(file)?;
        file.set_len(len)?;
        file.sync_data()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        fs::remove_file(file)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, file: &Path) -> io::Result<Held> {
        let file = private(OpenOptions::new().create(true).truncate(false).write(true)).open(file)?;
        locked(file.try_lock())?;
        Ok(Box::new(SystemLock(file)))
    }

    fn share(&self, file: &Path) -> io::Result<Held> {
        let file = File::open(file)?;
        locked(file.try_lock_shared())?;
        Ok(Box::new(SystemLock(file)))
    }
}

fn locked(tried: Result<(), TryLockError>) -> io::Result<()> {
    tried.map_err(|err| match err {
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        TryLockError::Error(err) => err,
    })
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

/// A file that is locked. Unlocked in words when dropped, and not left to the closing of the file: a process that this one is just
/// starting on another thread has the file too, until it has become the other program.
struct SystemLock(File);

impl Drop for SystemLock {
    fn drop(&mut self) {
        // If it fails, the closing does it.
        drop(self.0.unlock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a process that is being started has of this one's files.
    fn inherited(held: &Held) -> File {
        held.downcast_ref::<SystemLock>().unwrap().0.try_clone().unwrap()
    }

    #[test]
    fn whoever_has_inherited_the_lock_file_does_not_keep_the_lock() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("LOCK");
        let held = SystemFiles.lock(&file).unwrap();
        let _inherited = inherited(&held);
        assert_eq!(SystemFiles.lock(&file).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(SystemFiles.share(&file).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        let held = SystemFiles.share(&file).unwrap();
        let _inherited = inherited(&held);
        let _beside = SystemFiles.share(&file).unwrap();
        assert_eq!(SystemFiles.lock(&file).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(_beside);
        drop(held);
        SystemFiles.lock(&file).unwrap();
    }
}

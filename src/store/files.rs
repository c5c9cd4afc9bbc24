//! What both drivers with files do to directories.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// Creates the directory and those above it that are missing, for their owner only, and says what is in its way if it cannot. Those above
/// survive power loss when it returns; whether the directory itself does is for [`sync_dirs`].
pub(super) fn create_dir(path: &Path) -> Result<()> {
    let above: Vec<&Path> = path.ancestors().skip(1).take_while(|above| !is_there(above)).collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|err| Error::io(format!("cannot create {}", path.display()), err))?;
    above.into_iter().try_for_each(sync_parent)
}

/// A relative name of one part has an empty parent, which is where we are.
fn is_there(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.exists()
}

/// Takes a store's directory and the files in it away from everybody but their owner: the libraries make files as the process's umask
/// says. What cannot be taken away (another owner, a file system without modes) stays as it is; files that are made later are
/// out of reach behind the directory.
#[cfg(unix)]
pub(super) fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut entries = paths(path, |_| true)?;
    entries.push(path.to_path_buf());
    for entry in entries {
        // Not through links: what they lead to is not ours.
        let Ok(about) = fs::symlink_metadata(&entry) else { continue };
        let mode = about.permissions().mode();
        if !about.is_symlink() && mode & 0o077 != 0 {
            drop(fs::set_permissions(&entry, fs::Permissions::from_mode(mode & 0o700)));
        }
    }
    Ok(())
}

/// There are no modes here.
#[cfg(not(unix))]
pub(super) fn make_private(_: &Path) -> Result<()> {
    Ok(())
}

/// Refuses a directory that holds something no store of ours has: it is somebody's data.
pub(super) fn refuse_foreign(path: &Path, ours: fn(&str) -> bool) -> Result<()> {
    for name in names(path)? {
        if !ours(&name) {
            return Err(Error::new(
                ErrorKind::Foreign,
                format!("{} is not a store of this driver: it contains {name:?}", path.display()),
            ));
        }
    }
    Ok(())
}

/// Makes the entries of a directory durable, and the directory's own entry in its parent.
pub(super) fn sync_dirs(path: &Path) -> Result<()> {
    sync(path)?;
    sync_parent(path)
}

/// Makes the entries of the parent durable.
pub(super) fn sync_parent(path: &Path) -> Result<()> {
    match path.parent() {
        // A relative name of one part has an empty parent.
        Some(parent) if parent.as_os_str().is_empty() => sync(Path::new(".")),
        Some(parent) => sync(parent),
        None => Ok(()),
    }
}

/// Makes a file or the entries of a directory durable.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|err| Error::io(format!("cannot sync {}", path.display()), err))
}

/// Removes a file; missing already is success.
pub(super) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove {}", path.display()), err))
        }
        _ => Ok(()),
    }
}

/// Removes a directory that has become empty, durably. What else is in it is not ours: then it stays.
pub(super) fn remove_empty_dir(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Ok(()) => sync_parent(path),
        Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Ok(())
        }
        // A link to a directory is whoever's who made it.
        Err(_) if path.is_symlink() => Ok(()),
        Err(err) => Err(Error::io(format!("cannot remove {}", path.display()), err)),
    }
}

/// The names in a directory; none if it does not exist.
pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let read = || match fs::read_dir(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(err) => Err(err),
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect()
        }
    };
    read().map_err(|err| Error::io(format!("cannot read {}", path.display()), err))
}

/// The entries of a directory whose names `wanted` picks, as paths.
pub(super) fn paths(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    Ok(names(path)?.into_iter().filter(|name| wanted(name)).map(|name| path.join(name)).collect())
}

/// Free bytes with which a store that has failed is opened again: it may have to write its log to tables first.
const ROOM: u64 = 8 << 20;
/// The file that is written to find out whether the disk takes writes. A crash may leave it.
pub(super) const PROBE: &str = "probe.cutover";

/// Says that the disk is full if less than so many bytes are free.
pub(super) fn has_room(path: &Path, bytes: u64) -> Result<()> {
    let doing = || format!("writing to {}", path.display());
    let stat = rustix::fs::statvfs(path).map_err(|err| Error::io(doing(), io::Error::from(err)))?;
    if stat.f_bavail.saturating_mul(stat.f_frsize) < bytes {
        return Err(Error::io(doing(), io::Error::from(io::ErrorKind::StorageFull)));
    }
    Ok(())
}

/// Whether the disk under a store has room and takes writes, found out by making one.
pub(super) fn probe(path: &Path) -> Result<()> {
    let doing = || format!("writing to {}", path.display());
    has_room(path, ROOM)?;
    let file = path.join(PROBE);
    let write = || {
        use std::io::Write as _;
        let mut probe = File::create(&file)?;
        probe.write_all(&[0; 4096])?;
        probe.sync_all()
    };
    let written = write();
    // It is not wanted in either case.
    let removed = fs::remove_file(&file);
    written.and(removed).map_err(|err| Error::io(doing(), err))
}

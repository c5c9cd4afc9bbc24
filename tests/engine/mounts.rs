//! File systems that are mounted for a test, which only root may do.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use cutover::StoreSpec;
use tempfile::TempDir;

/// A mounted file system, and what fills it.
pub(crate) struct Disk {
    dir: TempDir,
    /// Mounted, the last one first to go.
    mounts: Vec<PathBuf>,
    /// The file that takes the room.
    filler: PathBuf,
    pub(crate) path: PathBuf,
}

fn mount(arguments: &[&str]) -> bool {
    let output = Command::new("mount").args(arguments).output();
    let done = output.as_ref().is_ok_and(|output| output.status.success());
    if !done {
        eprintln!("skipped: this test mounts a disk, which only root may do: {output:?}");
    }
    done
}

impl Disk {
    /// A tmpfs of so many MiB; none where nothing can be mounted.
    pub(crate) fn small(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small");
        fs::create_dir(&path).unwrap();
        let size = format!("size={mib}m");
        if !mount(&["-t", "tmpfs", "-o", &size, "tmpfs", path.to_str().unwrap()]) {
            return None;
        }
        Some(Self { dir, mounts: vec![path.clone()], filler: path.join("filler"), path })
    }

    /// A disk of 256 MiB of which most does not exist.
    pub(crate) fn thin() -> Option<Self> {
        let mut disk = Self::small(200)?;
        let image = disk.path.join("image");
        File::create(&image).unwrap().set_len(256 << 20).unwrap();
        // No journal: one that cannot be written makes the whole file system read-only for good.
        let options = ["-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=0"];
        let made = Command::new("mkfs.ext4").args(options).arg(&image).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: there is no mkfs.ext4");
            return None;
        }
        let path = disk.dir.path().join("thin");
        fs::create_dir(&path).unwrap();
        let (from, to) = (image.to_str().unwrap(), path.to_str().unwrap());
        if !mount(&["-o", "loop,errors=continue", from, to]) {
            return None;
        }
        disk.mounts.push(path.clone());
        disk.path = path;
        Some(disk)
    }

    pub(crate) fn fill(&self) {
        let mut filler = File::options().create(true).append(true).open(&self.filler).unwrap();
        let mut block = vec![1_u8; 1 << 20];
        // Down to the last page.
        while !block.is_empty() {
            if filler.write_all(&block).is_err() {
                block.truncate(block.len() / 2);
            }
        }
    }

    pub(crate) fn make_room(&self) {
        fs::remove_file(&self.filler).unwrap();
    }

    pub(crate) fn store(&self, driver: &str) -> StoreSpec {
        StoreSpec::driver(driver).path(self.path.join("store"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for mounted in self.mounts.iter().rev() {
            drop(Command::new("umount").arg("-l").arg(mounted).status());
        }
    }
}

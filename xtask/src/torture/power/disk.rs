//! A disk whose power can be cut: a file that qemu-storage-daemon serves, logging every request, and that a loop device
//! makes a disk of.
//!
//! ```text
//! program -> ext4 on mnt -> loop device -> export.img (fuse) -> qemu-storage-daemon -> disk.img
//!                                                                                  \-> log.img
//! ```
//!
//! The kernel lets go of a loop device that `mount` has set up when it is unmounted. All that is left after a failure
//! goes with the name space: see `space.rs`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::super::plan::Tail;
use super::image::{self, Taken};
use super::log;

/// Room for what the loads of a chain write.
const SIZE: u64 = 1 << 30;
/// Of the log; what is not written takes no room.
const LOG_SIZE: u64 = 16 << 30;

/// A disk in use.
pub(crate) struct Disk {
    daemon: Child,
    room: PathBuf,
    syncing: Option<Child>,
    mounted: Option<Mounted>,
    served: bool,
}

/// A mounted file system; unmounted when dropped.
pub(crate) struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// Mounts an image.
    pub(crate) fn new(image: &Path, at: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&at).map_err(|err| format!("{}: {err}", at.display()))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(&at))?;
        Ok(Self { at })
    }

    /// Where the data is.
    pub(crate) fn data(&self) -> PathBuf {
        self.at.join("data")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.at);
    }
}

/// An image with an empty file system.
pub(crate) fn format(image: &Path) -> Result<(), String> {
    let file = File::create(image).and_then(|file| file.set_len(SIZE));
    file.map_err(|err| format!("{}: {err}", image.display()))?;
    let mut mkfs = Command::new("mkfs.ext4");
    run(mkfs.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(image))
}

/// Copies an image; what it does not use takes no room in the copy either.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), String> {
    run(Command::new("cp").arg("--sparse=always").arg(from).arg(to))
}

impl Disk {
    /// Puts a disk into use that holds what `room/base.img` holds.
    pub(crate) fn start(room: &Path) -> Result<Self, String> {
        let (disk, log, export) = (room.join("disk.img"), room.join("log.img"), room.join("export.img"));
        copy(&room.join("base.img"), &disk)?;
        for (file, size) in [(&log, LOG_SIZE), (&export, 0)] {
            File::create(file)
                .and_then(|file| file.set_len(size))
                .map_err(|err| format!("{}: {err}", file.display()))?;
        }
        let daemon = serve(room, &disk, &log, &export)?;
        let mut disk = Self { daemon, room: room.to_owned(), syncing: None, mounted: None, served: false };
        disk.wait_until_served(&export)?;
        disk.served = true;
        disk.mounted = Some(Mounted::new(&export, room.join("mnt"))?);
        Ok(disk)
    }

    /// Where a program finds its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.room.join("mnt/data")
    }

    /// Asks the kernel to write back all that it has, and does not wait for it.
    pub(crate) fn write_back(&mut self) -> Result<(), String> {
        let mut sync = Command::new("sync");
        sync.arg("--file-system").arg(self.room.join("mnt")).stderr(Stdio::null());
        self.syncing = Some(sync.spawn().map_err(|err| format!("sync does not start: {err}"))?);
        Ok(())
    }

    /// Cuts the power. From here on every request fails.
    pub(crate) fn cut(&mut self) -> Result<(), String> {
        // It may have died.
        let _ = self.daemon.kill();
        self.daemon.wait().map_err(|err| format!("qemu-storage-daemon: {err}"))?;
        // It fails, as all that uses the disk now.
        let ended = self.syncing.take().map(|mut sync| sync.wait());
        ended.transpose().map(|_| ()).map_err(|err| format!("sync: {err}"))
    }

    /// Makes of `room/base.img` what the disk may hold after the cut. Nobody may use the disk any more.
    pub(crate) fn rebuild(self, tail: Tail, seed: u64) -> Result<Taken, String> {
        let room = self.room.clone();
        drop(self);
        let (base, log) = (room.join("base.img"), room.join("log.img"));
        let mut log = File::open(&log).map_err(|err| format!("{}: {err}", log.display()))?;
        let mut image =
            File::options().write(true).open(&base).map_err(|err| format!("{}: {err}", base.display()))?;
        let requests = log::requests(&mut log)?;
        let taken = image::rebuild(&mut log, &requests, &mut image, tail, seed)?;
        for name in ["disk.img", "log.img"] {
            fs::remove_file(room.join(name)).map_err(|err| format!("{name}: {err}"))?;
        }
        Ok(taken)
    }

    fn wait_until_served(&mut self, export: &Path) -> Result<(), String> {
        let begun = Instant::now();
        while !is_mounted(export)? {
            let ended = self.daemon.try_wait().map_err(|err| format!("qemu-storage-daemon: {err}"))?;
            if ended.is_some() || begun.elapsed() > Duration::from_secs(20) {
                let said = fs::read_to_string(self.room.join("disk.err")).unwrap_or_default();
                return Err(format!("qemu-storage-daemon does not serve a disk: {}", said.trim()));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.cut();
        self.mounted = None;
        if self.served {
            unmount(&self.room.join("export.img"));
        }
    }
}

fn serve(room: &Path, disk: &Path, log: &Path, export: &Path) -> Result<Child, String> {
    // What the daemon flushes need not reach the disk below: the log decides what is lost. So flushes cost no more than
    // their way through the kernel, whatever this machine's disk is.
    let file = |node: &str, path: &Path| {
        format!("driver=file,cache.no-flush=on,node-name={node},filename={}", escaped(path))
    };
    let blockdevs = [
        file("disk-file", disk),
        "driver=raw,file=disk-file,node-name=disk".to_owned(),
        file("log-file", log),
        "driver=raw,file=log-file,node-name=log".to_owned(),
        "driver=blklogwrites,file=disk,log=log,node-name=logged,log-sector-size=512".to_owned(),
    ];
    let mut daemon = Command::new("qemu-storage-daemon");
    for blockdev in blockdevs {
        daemon.args(["--blockdev", &blockdev]);
    }
    let mountpoint = escaped(export);
    daemon.args([
        "--export",
        &format!("type=fuse,id=export,node-name=logged,mountpoint={mountpoint},writable=on,growable=off"),
    ]);
    let errors = room.join("disk.err");
    let errors = File::create(&errors).map_err(|err| format!("{}: {err}", errors.display()))?;
    daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
    daemon.spawn().map_err(|err| format!("qemu-storage-daemon does not start: {err}"))
}

/// As qemu's options want it: a comma is two.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

fn is_mounted(path: &Path) -> Result<bool, String> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").map_err(|err| format!("/proc/self/mounts: {err}"))?;
    // There a blank is \040.
    let path = path.to_string_lossy().replace(' ', "\\040");
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(&path)))
}

/// A file system whose disk is dead complains; if it does not go at once, it goes when nobody uses it any more.
fn unmount(at: &Path) {
    if run(Command::new("umount").arg(at)).is_err() {
        let _ = run(Command::new("umount").arg("--lazy").arg(at));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|err| format!("{name} does not start: {err}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

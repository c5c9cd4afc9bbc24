//! The name space in which disks are made and mounted.
//!
//! Mounts and processes of a name space of our own end with its first process, and a loop device that `mount` has set
//! up ends with its mount: the kernel cleans up, however we end. Nobody else on the machine sees the mounts.

use std::io::Read;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::{env, thread};

use crate::needs;

/// Set inside.
const INSIDE: &str = "CUTOVER_TORTURE_INSIDE";
/// What `unshare` is told.
const OWN: [&str; 5] = ["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"];

/// Why the power cannot be cut here, if it cannot: one sentence.
pub(crate) fn missing() -> Option<String> {
    if !cfg!(target_os = "linux") || !needs::is_root() {
        return Some("cutting the power needs root on Linux, for mounts and loop devices".to_owned());
    }
    let programs = ["qemu-storage-daemon", "mkfs.ext4", "mount", "umount", "unshare", "sync", "cp"];
    let programs = programs.into_iter().filter(|program| !in_path(program));
    let devices = ["/dev/fuse", "/dev/loop-control"].into_iter().filter(|device| !Path::new(device).exists());
    let lacking: Vec<&str> = programs.chain(devices).collect();
    if !lacking.is_empty() {
        return Some(format!(
            "cutting the power needs {}, which this machine does not have (qemu-storage-daemon is in Debian's qemu-utils, \
             until 12 in qemu-system-common)",
            lacking.join(" and ")
        ));
    }
    let allowed = Command::new("unshare").args(OWN).arg("true").stderr(Stdio::null()).status();
    if allowed.is_ok_and(|status| status.success()) {
        return None;
    }
    Some(
        "cutting the power needs a name space of its own, and unshare is not allowed to make one here"
            .to_owned(),
    )
}

fn in_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Whether we are inside. If so, we end when whoever has started us does.
pub(crate) fn inside() -> bool {
    let inside = env::var_os(INSIDE).is_some();
    if inside {
        thread::spawn(|| {
            let _ = std::io::stdin().read(&mut [0]);
            std::process::exit(130);
        });
    }
    inside
}

/// Does the same again inside.
///
/// # Errors
/// If it does not start.
pub(crate) fn again_inside(args: &[String]) -> Result<ExitCode, String> {
    let ourselves = env::current_exe().map_err(|err| format!("xtask does not know its own name: {err}"))?;
    let mut inside = Command::new("unshare");
    inside.args(OWN).arg("--").arg(ourselves).arg("torture").args(args).env(INSIDE, "1");
    // Nothing is ever written to it: its end is ours, however we end.
    let mut inside =
        inside.stdin(Stdio::piped()).spawn().map_err(|err| format!("unshare does not start: {err}"))?;
    let held = inside.stdin.take();
    let status = inside.wait().map_err(|err| format!("unshare: {err}"))?;
    drop(held);
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

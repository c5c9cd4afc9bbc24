//! The program among strangers: files that only their owner may read whatever the umask, and arguments that nobody would type.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples")
}

/// Everything below a directory that somebody else could read.
fn readable_by_others(dir: &Path) -> (usize, Vec<String>) {
    let (mut count, mut open, mut left) = (0, Vec::new(), vec![dir.to_path_buf()]);
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        count += 1;
        if about.mode() & 0o077 != 0 {
            open.push(format!("{} ({:o})", path.display(), about.mode() & 0o777));
        }
        if about.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    (count, open)
}

#[cfg(all(feature = "rocksdb", feature = "sled"))]
#[test]
fn whatever_the_umask_only_the_owner_can_read_what_was_written() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let mut command = Command::new("sh");
    // Killed on the way too: opening makes files as well. The move is held back, so that both stores are still there at the end.
    command.args(["-c", "umask 000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_cutover"), "run"]);
    command.arg("--workflows").arg(samples()).arg("--data").arg(&data);
    command.args(["--instances", "60", "--migrate-at", "200ms", "--durability", "buffered", "--crash", "1"]);
    command.args(["--long-lived", "0", "--quiet", "--report"]).arg(dir.path().join("report.json"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (count, open) = readable_by_others(&data);
    assert!(count > 12 && open.is_empty(), "{count} files, of which these are open: {open:?}");
}

fn cutover(args: &[OsString]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cutover")).args(args).output().unwrap()
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// Refused with code 2 and one sentence that names the culprit.
fn refused(args: &[OsString], named: &str) {
    let output = cutover(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(said.contains(named) && !said.contains("panicked"), "{named:?} is not in {said:?}");
}

#[test]
fn paths_and_names_that_cannot_be_are_refused_in_one_sentence() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name).into_os_string();
    let with = |command: &str, data: OsString| {
        let mut args = words(&[command, "--data"]);
        args.push(data);
        if command == "run" {
            args.extend(words(&["--workflows"]));
            args.push(samples().into_os_string());
        }
        args
    };
    let long_name = "x".repeat(256);
    let not_utf8 = dir.path().join(OsString::from_vec(b"no\xFF".to_vec())).into_os_string();
    symlink(dir.path().join("nowhere"), dir.path().join("dangling")).unwrap();
    fs::write(dir.path().join("file"), "mine").unwrap();
    for command in ["status", "inspect"] {
        refused(&with(command, at("missing")), "there is no directory");
        refused(&with(command, not_utf8.clone()), "there is no directory");
        refused(&with(command, at("dangling")), "there is no directory");
        refused(&with(command, at("file")), "is not a directory");
        refused(&with(command, OsString::from("y".repeat(10_000))), "cannot be a directory's name");
    }
    refused(&with("run", at("file")), "is not a directory");
    refused(&with("run", at("dangling")), "leads nowhere");
    for flag in ["--from", "--to"] {
        let mut args = with("run", at("data"));
        args.extend(words(&[flag, &long_name]));
        refused(&args, "driver");
        assert!(!dir.path().join("data").join("stores/x").exists());
    }
    let mut args = with("run", at("other"));
    args.extend(words(&["--workflows", &long_name]));
    refused(&args, "workflows");
    assert!(!dir.path().join("nowhere").exists());
    assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"mine");
}

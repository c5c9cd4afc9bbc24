//! What the machine is like: figures mean little without it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::measure::Quantiles;

/// Appends that are timed.
const APPENDS: usize = 64;
/// Bytes of each, about what a launch writes.
const APPEND: [u8; 400] = [0xC5; 400];

/// What the machine is like.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Environment {
    /// Processors that this process may use.
    pub cpus: usize,
    /// Version of the kernel.
    pub kernel: String,
    /// Median time of an append of 400 bytes with `fdatasync` in the data directory.
    pub fsync_p50_us: u64,
    /// Versions of this program and of what it is built on.
    pub versions: BTreeMap<&'static str, String>,
}

impl Environment {
    /// Measures in the data directory, before there is load.
    pub(crate) fn measure(data: &Path) -> Result<Self> {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Self {
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: kernel.trim().to_owned(),
            fsync_p50_us: fsync_p50(data)?,
            versions: versions(),
        })
    }
}

fn fsync_p50(data: &Path) -> Result<u64> {
    let path = data.join("fsync-probe.tmp");
    let timed = || -> std::io::Result<Vec<u64>> {
        let mut file = File::create(&path)?;
        let mut times = Vec::with_capacity(APPENDS);
        for _ in 0..APPENDS {
            let started = Instant::now();
            file.write_all(&APPEND)?;
            file.sync_data()?;
            times.push(crate::plan::micros(started.elapsed()));
        }
        Ok(times)
    };
    let times = timed();
    let removed = std::fs::remove_file(&path);
    let times = times.and_then(|times| removed.map(|()| times));
    let times =
        times.map_err(|err| Failure::new(format!("cannot measure a sync in {}: {err}", data.display())))?;
    Ok(Quantiles::of(times).p50)
}

fn versions() -> BTreeMap<&'static str, String> {
    let lock = include_str!("../../Cargo.lock");
    let mut found = BTreeMap::from([("cutover", env!("CARGO_PKG_VERSION").to_owned())]);
    for name in ["rocksdb", "librocksdb-sys", "sled"] {
        found.extend(locked(lock, name).map(|version| (name, version)));
    }
    found
}

/// The version of a package in a lock file.
fn locked(lock: &str, name: &str) -> Option<String> {
    let mut lines = lock.lines().skip_while(|line| *line != format!("name = \"{name}\""));
    lines.next()?;
    Some(lines.next()?.strip_prefix("version = \"")?.trim_end_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_the_stores_it_is_built_with_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let environment = Environment::measure(dir.path()).unwrap();
        assert!(environment.cpus > 0 && environment.fsync_p50_us > 0);
        assert_eq!(environment.versions["sled"], "0.34.7");
        assert!(environment.versions["rocksdb"].starts_with("0.25"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

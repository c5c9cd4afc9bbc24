//! The same once for real: a child process whose wall clock libfaketime sets, while monotonic time is the machine's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cutover::{Beat, Ending, Engine, Retention};

use crate::tap::{LONG, keyed, memory, started};

const CHILD: &str = "CUTOVER_FAKETIME_DATA";
const SETTING: &str = "FAKETIME_TIMESTAMP_FILE";

fn library() -> Option<PathBuf> {
    let dirs = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
    ];
    dirs.iter().map(|dir| Path::new(dir).join("faketime/libfaketime.so.1")).find(|path| path.exists())
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Sets the wall clock of this process, and sees that it is set.
fn set(offset: &str, from: Duration) -> Duration {
    std::fs::write(std::env::var(SETTING).unwrap(), offset).unwrap();
    let now = wall();
    let jumped = now.as_secs().abs_diff(from.as_secs());
    assert!(jumped > 3 * 3600, "libfaketime did not set the clock: {jumped} s");
    now
}

/// The child: an engine whose wall clock is set forward and back while it runs.
#[test]
fn child() {
    let Some(data) = std::env::var_os(CHILD) else { return };
    let engine = Engine::builder(data).open().unwrap();
    let hour = Retention { instance_ms: 3_600_000, key_ms: 3_600_000, request_ms: 3_600_000 };
    let options = cutover::TenantOptions::new(memory("a")).retention(hour);
    let tenant = engine.create_tenant("acme", options).unwrap();
    tenant.define("work", 1, "text/plain", b"do it").unwrap();
    let worker = tenant.register(cutover::WorkerOptions::new("w").limit(2)).unwrap();
    let ended = started(tenant.launch(&keyed("ended")).unwrap());
    tenant.end(ended, Ending::Completed, b"", "").unwrap();
    started(tenant.launch(&keyed("held").step(cutover::NewStep::new("s"))).unwrap());
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    let told = |key: &str| {
        let id = started(tenant.launch(&keyed(key)).unwrap());
        tenant.instance(id).unwrap().unwrap().launched_ms
    };
    let (monotonic, began) = (std::time::Instant::now(), told("before"));
    let mut now = wall();
    for (at, offset) in ["+10h", "-10h", "+0"].into_iter().enumerate() {
        now = set(offset, now);
        // Whatever would go by wall time gets the time to.
        std::thread::sleep(Duration::from_millis(200));
        let (told, passed) = (told(&format!("{at}")), monotonic.elapsed().as_millis() as u64);
        assert!(
            told >= began && told <= began + passed + 1_000,
            "{offset}: {told} is not {began} and {passed} ms"
        );
        assert!(tenant.instance(ended).unwrap().is_some(), "{offset}: collected early");
        assert_eq!(worker.heartbeat(&task).unwrap(), Beat::Renewed, "{offset}");
        assert!(worker.claim("default", Duration::ZERO).unwrap().is_none(), "{offset}: given twice");
    }
    assert!(matches!(
        worker.complete(&task, cutover::Completion::default()),
        Ok(cutover::Settled::Done { .. })
    ));
    engine.close(LONG).unwrap();
    println!("held");
}

#[test]
fn a_real_wall_clock_that_jumps_moves_nothing() {
    let Some(library) = library() else {
        println!("skipped: libfaketime is not installed (Debian: apt-get install faketime)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let setting = dir.path().join("clock");
    std::fs::write(&setting, "+0").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "faketime::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir.path().join("data"))
        .env("LD_PRELOAD", library)
        .env(SETTING, &setting)
        .env("FAKETIME_NO_CACHE", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("held"), "{said}\n{complained}");
}

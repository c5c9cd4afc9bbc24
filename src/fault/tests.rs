use cutover_formats::Family;

use super::*;
use crate::error::ErrorKind;
use crate::files::MemoryFiles;
use crate::store::memory::MemoryDriver;
use crate::store::{Batch, contract};

const STORE: &str = "/store";

fn batch(key: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(Family::Keys, key.as_bytes(), b"");
    batch
}

/// What a commit leaves that ends in this fault, in the running process, after a kill and after power loss.
fn left_by(fault: Fault) -> [bool; 3] {
    let (memory, faults) = (MemoryDriver::new(), Faults::new());
    let driver = faults.driver(Arc::new(memory.clone()));
    let path = Path::new(STORE);
    let store = driver.open(path).unwrap();
    let has = |store: &dyn crate::store::Store| store.get(Family::Keys, b"k").is_ok_and(|row| row.is_some());
    faults.at(2, fault);
    let kind = store.commit(&batch("k"), Write::Synced).unwrap_err().kind();
    assert_eq!(kind, ErrorKind::Io);
    let now = has(&*store);
    faults.clear();
    let refused = store.commit(&batch("other"), Write::Synced).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "it takes no more writes");
    memory.kill(path);
    let killed = has(&*memory.open(path).unwrap());
    memory.power_cut(path);
    [now, killed, has(&*memory.open(path).unwrap())]
}

#[test]
fn a_commit_that_fails_has_happened_as_far_as_it_was_told_to() {
    assert_eq!(left_by(Fault::Fail(Effect::Nothing)), [false, false, false]);
    assert_eq!(left_by(Fault::Fail(Effect::Half)), [false, false, false], "stores do not tear");
    assert_eq!(left_by(Fault::Fail(Effect::Visible)), [true, false, false]);
    assert_eq!(left_by(Fault::Fail(Effect::Whole)), [true, true, true]);
    assert_eq!(left_by(Fault::Crash(Effect::Nothing)), [false, false, false]);
    assert_eq!(left_by(Fault::Crash(Effect::Whole)), [false, true, true], "the dead read nothing");
}

#[test]
fn a_file_that_fails_has_the_bytes_it_was_told_to() {
    let path = Path::new("/file");
    let left = |effect| {
        let (memory, faults) = (MemoryFiles::new(), Faults::new());
        let files = faults.files(Arc::new(memory.clone()));
        faults.at(1, Fault::Crash(effect));
        files.append(path, b"abcdef").unwrap_err();
        assert!(faults.is_dead());
        files.append(path, b"more").unwrap_err();
        files.read(path).unwrap_err();
        memory.read(path).unwrap_or_default()
    };
    assert_eq!(left(Effect::Nothing), b"");
    assert_eq!(left(Effect::Half), b"abc");
    assert_eq!(left(Effect::Holes), b"abc\0\0\0");
    assert_eq!(left(Effect::Whole), b"abcdef");
}

#[test]
fn steps_and_reads_are_counted_apart_and_kept_if_asked_for() {
    let faults = Faults::new();
    let driver = faults.driver(Arc::new(MemoryDriver::new()));
    let files = faults.files(Arc::new(MemoryFiles::new()));
    faults.record();
    let store = driver.open(Path::new(STORE)).unwrap();
    store.commit(&batch("k"), Write::Relaxed).unwrap();
    store.get(Family::Keys, b"k").unwrap();
    store.sync().unwrap();
    store.remove_range(Family::Keys, b"", b"").unwrap();
    files.write(Path::new("/file"), b"").unwrap();
    faults.at_read(2);
    files.read(Path::new("/file")).unwrap_err();
    files.read(Path::new("/file")).unwrap();
    let acts: Vec<Act> = faults.trace().iter().map(|step| step.act).collect();
    assert_eq!(acts, [Act::Open, Act::Commit(Write::Relaxed), Act::Sync, Act::RemoveRange, Act::Write]);
    assert_eq!((faults.steps(), faults.reads()), (5, 3));
}

#[test]
fn what_hangs_goes_on_when_it_is_released_and_fails_when_the_process_dies() {
    for dies in [false, true] {
        let faults = Faults::new();
        let files = faults.files(Arc::new(MemoryFiles::new()));
        faults.at(1, Fault::Hang);
        std::thread::scope(|scope| {
            let hangs = scope.spawn(|| files.write(Path::new("/file"), b"x"));
            while faults.hanging() == 0 {
                std::thread::yield_now();
            }
            // Others go on meanwhile.
            files.write(Path::new("/other"), b"y").unwrap();
            if dies {
                faults.die()
            } else {
                faults.release()
            }
            assert_eq!(hangs.join().unwrap().is_ok(), !dies);
        });
    }
}

/// Without a fault it is the store beneath: the contract holds through it.
#[test]
fn a_store_without_faults_keeps_the_contract() {
    let memory = MemoryDriver::new();
    let report = contract::check(&*Faults::new().driver(Arc::new(memory)), Path::new("/contract")).unwrap();
    assert!(report.passed.len() > 10, "{report:?}");
}

//! What is acknowledged survives a kill of the process, and a store that has failed acknowledges nothing more.

use std::process::Command;

use cutover::store::memory::MemoryDriver;
use cutover::store::{Batch, Driver, Write};
use cutover_formats::Family;

use crate::child::{self, Task};
use crate::{count, dir, drivers};

/// Acknowledgements after which each child is killed: soon, and after files have been switched.
const KILLED_AFTER: [usize; 3] = [1, 50, 1500];

#[test]
fn a_kill_loses_nothing_that_was_acknowledged_as_buffered() {
    for driver in drivers() {
        for acks in KILLED_AFTER {
            let dir = dir();
            let path = dir.path().join("store");
            let mut child = child::command(Task::UntilKilled, driver.name(), &path).spawn().unwrap();
            let mut output = child::output(&mut child);
            let mut last = None;
            for _ in 0..acks {
                last = child::next_ack(&mut output);
                assert!(last.is_some(), "{}: the child ended by itself", driver.name());
            }
            // SIGKILL. What it has said until it is dead counts as well.
            child.kill().unwrap();
            child.wait().unwrap();
            while let Some(ack) = child::next_ack(&mut output) {
                last = Some(ack);
            }
            let last: u64 = last.unwrap().parse().unwrap();
            let found = child::prefix(&*driver.open(&path).unwrap());
            assert!(found > last, "{}: commit {last} was acknowledged, {found} are there", driver.name());
        }
    }
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged_as_buffered_in_memory() {
    let driver = MemoryDriver::new();
    let path = std::path::Path::new("x");
    let store = driver.open(path).unwrap();
    for (number, write) in
        [Write::Buffered, Write::Relaxed, Write::Buffered, Write::Relaxed].iter().enumerate()
    {
        let mut batch = Batch::new();
        batch.put(Family::Keys, &[number as u8], b"");
        store.commit(&batch, *write).unwrap();
    }
    driver.kill(path);
    assert_eq!(count(&*driver.open(path).unwrap(), Family::Keys), 3);
}

/// Files may not grow beyond 8 MiB: the write that would fails as on a full disk.
#[cfg(unix)]
#[test]
fn a_store_that_failed_refuses_writes_and_opens_again() {
    for driver in drivers() {
        let dir = dir();
        let path = dir.path().join("store");
        let child = child::command(Task::UntilFull, driver.name(), &path);
        let mut limited = Command::new("sh");
        // Blocks of 512 bytes. Ignored, the signal becomes an error of the call.
        limited.args(["-c", "trap '' XFSZ; ulimit -f 16384; exec \"$0\" \"$@\""]);
        limited.arg(child.get_program()).args(child.get_args());
        limited.envs(child.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = limited.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut output = child::output(&mut child);
        let mut acks = Vec::new();
        while let Some(ack) = child::next_ack(&mut output) {
            acks.push(ack);
        }
        assert!(child.wait().unwrap().success(), "{}", driver.name());
        assert_eq!(acks.pop().as_deref(), Some("refused"), "{}", driver.name());
        let found = child::prefix(&*driver.open(&path).unwrap());
        assert!(found >= acks.len() as u64, "{}: {} acknowledged, {found} there", driver.name(), acks.len());
    }
}

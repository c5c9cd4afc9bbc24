//! The part that runs in a process of its own, so that it can be killed, limited or traced: this test binary again,
//! told by a variable what to do. It says `ack N` on its standard output when commit N has returned.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use cutover::ErrorKind;
use cutover::store::{Batch, Store, Write};
use cutover_formats::Family;

use crate::driver;

const VARIABLE: &str = "CUTOVER_STORES_CHILD";

/// What the child does with its store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Task {
    /// Commits, `Synced`, one value of each of [`SIZES`].
    Sizes,
    /// Commits, `Synced`, [`LONG_KEYS`] rows, a few at a time, whose keys are longer than the engine makes them.
    LongKeys,
    /// Commits, `Buffered`, until it is killed; every third one `Relaxed` and not acknowledged.
    UntilKilled,
    /// Commits, `Synced`, until the store fails, and shows that it refuses everything then.
    UntilFull,
}

const TASKS: [(&str, Task); 4] = [
    ("sizes", Task::Sizes),
    ("long-keys", Task::LongKeys),
    ("until-killed", Task::UntilKilled),
    ("until-full", Task::UntilFull),
];

pub(crate) const LONG_KEYS: usize = 2000;
pub(crate) const LONG_KEYS_AT_ONCE: usize = 50;

/// What is traced.
pub(crate) const SIZES: [usize; 8] = [100, 16_000, 200_000, 3_000_000, 100, 200_000, 16_000, 3_000_000];

/// The value of commit `number`; now and then one that sled cuts.
pub(crate) fn value(number: u64) -> Vec<u8> {
    let len = if number % 10 == 9 { 20_000 } else { 100 };
    number.to_be_bytes().into_iter().cycle().take(len).collect()
}

/// A key that differs from the others only at its end: what leads to it cannot be cut short.
pub(crate) fn long_key(len: usize, number: u64) -> Vec<u8> {
    let mut key = vec![b'k'; len - 8];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn commit(store: &dyn Store, number: u64, value: &[u8], write: Write) -> cutover::Result<()> {
    let mut batch = Batch::new();
    batch.put(Family::Instances, &number.to_be_bytes(), value);
    batch.put(Family::Keys, &number.to_be_bytes(), value);
    store.commit(&batch, write)
}

/// How many commits a store has, after checking that they are a prefix, and each whole in both families.
pub(crate) fn prefix(store: &dyn Store) -> u64 {
    let mut number = 0;
    while store.get(Family::Instances, &u64::to_be_bytes(number)).unwrap().is_some() {
        for family in [Family::Instances, Family::Keys] {
            let found = store.get(family, &number.to_be_bytes()).unwrap();
            assert!(found == Some(value(number)), "commit {number} is torn");
        }
        number += 1;
    }
    for family in [Family::Instances, Family::Keys] {
        assert_eq!(crate::count(store, family) as u64, number, "there is a hole behind commit {number}");
    }
    number
}

/// A command that runs the child. The test harness's own lines go to its output as well.
pub(crate) fn command(task: Task, driver: &str, path: &Path) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut command = Command::new(exe);
    command.args(["--exact", "child::child", "--ignored", "--nocapture", "--test-threads=1"]);
    let name = TASKS.iter().find(|(_, known)| *known == task).unwrap().0;
    command.env(VARIABLE, format!("{name} {driver} {}", path.display()));
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

/// Reads to the next acknowledgement; `None` at the end of the output.
pub(crate) fn next_ack(output: &mut BufReader<ChildStdout>) -> Option<String> {
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        // The harness may have begun the line; a killed child may not have ended it.
        if let Some((_, ack)) = line.split_once("ack ")
            && let Some(ack) = ack.strip_suffix('\n')
        {
            return Some(ack.to_owned());
        }
        line.clear();
    }
    None
}

pub(crate) fn output(child: &mut Child) -> BufReader<ChildStdout> {
    BufReader::new(child.stdout.take().unwrap())
}

fn ack(what: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("ack {what}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

#[test]
#[ignore = "the part of other tests that runs in a process of its own"]
fn child() {
    let Ok(told) = std::env::var(VARIABLE) else { return };
    let mut told = told.splitn(3, ' ');
    let mut next = || told.next().unwrap();
    let (task, name, path) = (next(), next(), next());
    let (_, task) = TASKS.iter().find(|(known, _)| *known == task).unwrap();
    let store = driver(name).open(Path::new(path)).unwrap();
    match task {
        Task::Sizes => {
            for (number, size) in SIZES.into_iter().enumerate() {
                commit(&*store, number as u64, &vec![number as u8; size], Write::Synced).unwrap();
                ack(number);
            }
        }
        Task::LongKeys => {
            let numbers: Vec<_> = (0..LONG_KEYS as u64).collect();
            for numbers in numbers.chunks(LONG_KEYS_AT_ONCE) {
                let mut batch = Batch::new();
                for number in numbers {
                    batch.put(Family::Keys, &long_key(8192, *number), b"");
                }
                store.commit(&batch, Write::Synced).unwrap();
                ack(numbers[0]);
            }
        }
        Task::UntilKilled => {
            for number in 0.. {
                let write = if number % 3 == 1 { Write::Relaxed } else { Write::Buffered };
                commit(&*store, number, &value(number), write).unwrap();
                if write == Write::Buffered {
                    ack(number);
                }
            }
        }
        Task::UntilFull => until_full(&*store),
    }
}

fn until_full(store: &dyn Store) {
    for number in 0.. {
        if let Err(err) = commit(store, number, &value(number), Write::Synced) {
            assert_eq!(err.kind(), ErrorKind::Io, "{err}");
            break;
        }
        ack(number);
    }
    for write in [Write::Relaxed, Write::Buffered, Write::Synced] {
        let err = commit(store, u64::MAX, b"", write).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Unavailable, "{err}");
    }
    assert_eq!(store.sync().unwrap_err().kind(), ErrorKind::Unavailable);
    let removal = store.remove_range(Family::Keys, b"", b"");
    assert_eq!(removal.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.get(Family::Keys, &0_u64.to_be_bytes()).unwrap(), Some(value(0)));
    ack("refused");
}

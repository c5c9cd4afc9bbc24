//! Bytes of a store's files flipped, one at a time, at places drawn from a seed: a file is never taken for another one.
//!
//! Asked for with `CUTOVER_DAMAGE_ROUNDS` (flips for each driver) and `CUTOVER_DAMAGE_SEED`.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use cutover::store::{Batch, Driver, Store, Write};
use cutover::{Error, ErrorKind};
use cutover_formats::Family;

use crate::child::value;
use crate::{dir, driver, drivers};

const ROWS: u64 = 400;
/// The kinds of files that a driver reads up to the first thing that is not whole, as after a power cut.
const LOGS: [&str; 2] = ["log", "db"];
/// Longer than anything takes, unless it hangs.
const HANGS: Duration = Duration::from_secs(120);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Half of the rows in tables or behind a snapshot, the other half in the log only.
fn fill(driver: &dyn Driver, path: &Path) {
    for half in [0..ROWS / 2, ROWS / 2..ROWS] {
        let store = driver.open(path).unwrap();
        for number in half {
            let mut batch = Batch::new();
            for family in [Family::Instances, Family::Keys] {
                batch.put(family, &number.to_be_bytes(), &value(number));
            }
            store.commit(&batch, Write::Relaxed).unwrap();
        }
        store.sync().unwrap();
    }
}

/// The files below a directory, by their names in it, with what they hold.
fn files(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![path.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap().path();
            if entry.is_dir() {
                left.push(entry);
            } else {
                found.insert(entry.strip_prefix(path).unwrap().to_path_buf(), fs::read(&entry).unwrap());
            }
        }
    }
    found
}

/// What was read of a damaged store.
#[derive(Debug, Default)]
struct Reading {
    /// What opening or reading said, the first time it said something.
    error: Option<Error>,
    /// Rows that a store which opened says are not there, without an error.
    missing: Vec<u64>,
}

fn read(driver: &dyn Driver, path: &Path) -> Reading {
    let mut reading = Reading::default();
    let store = match driver.open(path) {
        Ok(store) => store,
        Err(err) => return Reading { error: Some(err), ..reading },
    };
    let mut lacking = [Vec::new(), Vec::new()];
    for (family, missing) in [Family::Instances, Family::Keys].into_iter().zip(&mut lacking) {
        for number in 0..ROWS {
            match store.get(family, &number.to_be_bytes()) {
                Ok(Some(found)) => assert!(found == value(number), "row {number} is another one"),
                Ok(None) => missing.push(number),
                Err(err) => drop(reading.error.get_or_insert(err)),
            }
        }
        match scan(&*store, family) {
            Ok(rows) => assert_eq!(rows + missing.len() as u64, ROWS, "a scan passes over rows"),
            Err(err) => drop(reading.error.get_or_insert(err)),
        }
    }
    if reading.error.is_none() {
        assert_eq!(lacking[0], lacking[1], "a commit is torn");
    }
    [reading.missing, _] = lacking;
    reading
}

fn scan(store: &dyn Store, family: Family) -> cutover::Result<u64> {
    let mut rows = 0;
    let mut visit = |key: &[u8], found: &[u8]| {
        rows += 1;
        let number = u64::from_be_bytes(key.try_into().expect("a key was made up"));
        assert!(number < ROWS && found == value(number), "row {number} is another one");
        ControlFlow::Continue(())
    };
    store.scan(family, b"", b"", &mut visit).map(|()| rows)
}

/// Reads in a thread of its own; a hang and a panic are failures of the test.
fn watched(driver: Arc<dyn Driver>, path: PathBuf, what: &str) -> Reading {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(read(&*driver, &path)).unwrap());
    match receiver.recv_timeout(HANGS) {
        Ok(reading) => reading,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{what}: it panicked"),
    }
}

/// The kind of a file: its name without numbers.
fn kind(name: &Path) -> String {
    let name = name.to_string_lossy();
    match name.split_once('.') {
        Some((start, _)) if matches!(start, "snap" | "LOG") => start.to_owned(),
        Some((_, end)) => end.to_owned(),
        None => name.split('-').next().unwrap_or_default().to_owned(),
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    whole: u64,
    refused: u64,
    lost: u64,
}

fn flips(name: &str) {
    let (rounds, seed) = (number("CUTOVER_DAMAGE_ROUNDS", 80), number("CUTOVER_DAMAGE_SEED", 1));
    let dir = dir();
    let (whole, damaged) = (dir.path().join("whole"), dir.path().join("damaged"));
    fill(&*driver(name), &whole);
    let files = files(&whole);
    let kinds: Vec<String> = files.keys().map(|name| kind(name)).collect();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for round in 0..=rounds {
        // Each kind of file as often as the others, small or not.
        let wanted = &kinds[random.usize(..kinds.len())];
        let of_kind: Vec<&PathBuf> = files.keys().filter(|name| kind(name) == *wanted).collect();
        let flipped = of_kind[random.usize(..of_kind.len())];
        let used = files[flipped].iter().rposition(|byte| *byte != 0);
        let Some(used) = used else { continue };
        let (place, bit) = (random.usize(..=used), random.u8(..8));
        let what =
            format!("{name}, seed {seed}, round {round}: bit {bit} of byte {place} of {}", flipped.display());
        for (file, bytes) in &files {
            let path = damaged.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let mut bytes = bytes.clone();
            if file == flipped && round > 0 {
                bytes[place] ^= 1 << bit;
            }
            fs::write(path, bytes).unwrap();
        }
        let reading = watched(driver(name), damaged.clone(), &what);
        let tally = tallies.entry(wanted.clone()).or_default();
        match reading {
            Reading { error: Some(err), .. } => {
                assert!(round > 0, "the copy is not damaged: {err}");
                let known = matches!(err.kind(), ErrorKind::Corrupt | ErrorKind::Foreign | ErrorKind::Io);
                assert!(known, "{what}: {err}");
                tally.refused += 1;
            }
            Reading { missing, .. } if missing.is_empty() => tally.whole += 1,
            Reading { missing, .. } => {
                // What no driver can tell from a power cut: its log ends there. What is left is a prefix.
                assert!(LOGS.contains(&wanted.as_str()), "{what}: {} rows are missing", missing.len());
                assert_eq!(missing, (missing[0]..ROWS).collect::<Vec<_>>(), "{what}: there is a hole");
                tally.lost += 1;
            }
        }
        fs::remove_dir_all(&damaged).unwrap();
    }
    for (kind, Tally { whole, refused, lost }) in &tallies {
        eprintln!("{name}, {kind}: {refused} refused, {whole} whole, {lost} cut short");
    }
    let refused: u64 = tallies.values().map(|tally| tally.refused).sum();
    assert!(refused > rounds / 10, "most damage is seen");
}

#[test]
fn a_flipped_bit_gives_an_error_or_the_rows_that_were_written() {
    for driver in drivers() {
        flips(driver.name());
    }
}

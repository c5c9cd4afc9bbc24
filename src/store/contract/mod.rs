//! The contract of [`Store`] as a suite that any driver can be held against, ours and yours.
//!
//! ```
//! use cutover::store::{contract, memory::MemoryDriver};
//!
//! let report = contract::check(&MemoryDriver::new(), "stores".as_ref())?;
//! assert!(report.passed.contains(&"reopening finds everything"));
//! # Ok::<(), contract::Violation>(())
//! ```
//!
//! Absent: what survives a kill of the process or a power cut. That takes a second process or a disk that forgets;
//! the tests of this crate show both for its own drivers.

mod basics;
mod concurrency;
mod lifecycle;
mod sizes;

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cutover_formats::Family;

use super::{Batch, Driver, Stats, Store, Write};

/// What was held against the driver.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// The driver's name.
    pub driver: String,
    /// The rules that it keeps, in the order in which they were tried.
    pub passed: Vec<&'static str>,
    /// Rules that could not be tried, and why.
    pub skipped: Vec<(&'static str, String)>,
    /// Commits and syncs of many threads that committed at once, if the store counts.
    pub shared: Option<Stats>,
}

/// A rule that a driver breaks.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Violation {
    /// The driver's name.
    pub driver: String,
    /// The rule.
    pub rule: &'static str,
    /// What happened instead.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the driver {:?} breaks the rule \"{}\": {}", self.driver, self.rule, self.what)
    }
}

impl std::error::Error for Violation {}

/// Holds a driver against the contract. Makes and removes stores in directories under `dir`, which need not exist.
///
/// # Errors
/// The first rule that the driver breaks, an unexpected error included. Its store is left behind for a look.
pub fn check(driver: &dyn Driver, dir: &Path) -> Result<Report, Violation> {
    let mut report =
        Report { driver: driver.name().to_owned(), passed: Vec::new(), skipped: Vec::new(), shared: None };
    for (number, (rule, run)) in RULES.iter().enumerate() {
        let trial = Trial { driver, path: dir.join(format!("{number:02}")) };
        let violation = |what| Violation { driver: driver.name().to_owned(), rule, what };
        match run(&trial).map_err(violation)? {
            Outcome::Kept => report.passed.push(rule),
            Outcome::Shared(stats) => {
                report.passed.push(rule);
                report.shared = Some(stats);
            }
            Outcome::Skipped(why) => report.skipped.push((rule, why)),
        }
        trial.destroy().map_err(violation)?;
    }
    Ok(report)
}

/// What is found wrong, as a sentence.
type Checked<T = ()> = Result<T, String>;

type Rule = (&'static str, fn(&Trial<'_>) -> Checked<Outcome>);

const RULES: [Rule; 16] = [
    ("a batch is applied over all families", basics::all_families),
    ("families are apart", basics::families_apart),
    ("later changes win", basics::later_wins),
    ("a scan is in the order of keys", basics::order),
    ("a scan keeps its bounds and ends at a break", basics::bounds),
    ("keys of up to 8 KiB are kept", sizes::keys),
    ("values of every size are kept", sizes::values),
    ("values may change their size", sizes::resized),
    ("a range is removed, and nothing else", basics::remove_range),
    ("an empty batch can be committed", basics::empty_batch),
    ("reopening finds everything", lifecycle::reopen),
    ("a store is opened once", lifecycle::locked),
    ("a store can be destroyed", lifecycle::destroy),
    ("what is committed is visible, whole, to every thread", concurrency::visible),
    ("a reader finds one of the values that were written", concurrency::replaced),
    ("commits at once share their syncs", concurrency::shared),
];

enum Outcome {
    Kept,
    Shared(Stats),
    Skipped(String),
}

/// A driver and the path that one rule may use.
struct Trial<'d> {
    driver: &'d dyn Driver,
    path: PathBuf,
}

impl Trial<'_> {
    fn open(&self) -> Checked<Arc<dyn Store>> {
        doing("open", self.driver.open(&self.path))
    }

    fn destroy(&self) -> Checked {
        doing("destroy", self.driver.destroy(&self.path))
    }
}

fn doing<T>(doing: &str, result: crate::error::Result<T>) -> Checked<T> {
    result.map_err(|err| format!("{doing} failed: {err:?}"))
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn commit(store: &dyn Store, batch: &Batch) -> Checked {
    doing("a commit", store.commit(batch, Write::Relaxed))
}

fn put(store: &dyn Store, family: Family, key: &[u8], value: &[u8]) -> Checked {
    let mut batch = Batch::new();
    batch.put(family, key, value);
    commit(store, &batch)
}

fn expect(store: &dyn Store, family: Family, key: &[u8], value: Option<&[u8]>) -> Checked {
    let found = doing("get", store.get(family, key))?;
    ensure(found.as_deref() == value, || {
        let show = |value: Option<&[u8]>| value.map_or("nothing".to_owned(), describe);
        let key = key.escape_ascii();
        format!("{} {key} has {}, not {}", family.name(), show(found.as_deref()), show(value))
    })
}

fn describe(value: &[u8]) -> String {
    match value.get(..16) {
        Some(head) if value.len() > 16 => format!("{} bytes, \"{}..\"", value.len(), head.escape_ascii()),
        _ => format!("\"{}\"", value.escape_ascii()),
    }
}

type Row = (Vec<u8>, Vec<u8>);

fn rows(store: &dyn Store, family: Family, from: &[u8], to: &[u8]) -> Checked<Vec<Row>> {
    let mut rows = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    doing("a scan", store.scan(family, from, to, &mut visit))?;
    Ok(rows)
}

fn keys(store: &dyn Store, family: Family, from: &[u8], to: &[u8]) -> Checked<Vec<Vec<u8>>> {
    Ok(rows(store, family, from, to)?.into_iter().map(|(key, _)| key).collect())
}

/// Bytes that do not compress, and are others for every seed.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

//! Opening, closing, removing.

use cutover_formats::Family;

use super::{Checked, Outcome, Trial, doing, ensure, expect, noise, put, rows};
use crate::error::ErrorKind;
use crate::store::{Batch, Write};

pub(super) fn reopen(trial: &Trial<'_>) -> Checked<Outcome> {
    let mut wanted = Vec::new();
    for round in 0..4_u64 {
        let store = trial.open()?;
        for (number, write) in [Write::Synced, Write::Buffered, Write::Relaxed].into_iter().enumerate() {
            for size in [20, 20_000] {
                let key = format!("{round} {number} {size}").into_bytes();
                let value = noise(size, round);
                let mut batch = Batch::new();
                batch.put(Family::Instances, &key, &value);
                batch.put(Family::Keys, &key, &value);
                doing("a commit", store.commit(&batch, write))?;
                wanted.push((key, value));
            }
        }
        drop(store);
        wanted.sort();
        let store = trial.open()?;
        for family in [Family::Instances, Family::Keys] {
            let found = rows(&*store, family, b"", b"")?;
            ensure(found == wanted, || {
                format!("opening {} finds {} rows, not {}", round + 1, found.len(), wanted.len())
            })?;
        }
    }
    Ok(Outcome::Kept)
}

pub(super) fn locked(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    put(&*store, Family::Notes, b"key", b"value")?;
    for _ in 0..2 {
        match trial.driver.open(&trial.path) {
            Ok(_) => return Err("it was opened twice".to_owned()),
            Err(err) => {
                ensure(err.kind() == ErrorKind::Locked, || format!("opening it twice gives {err:?}"))?
            }
        }
    }
    // The refusal did no harm, and the lock goes with the store.
    put(&*store, Family::Notes, b"key", b"later")?;
    drop(store);
    expect(&*trial.open()?, Family::Notes, b"key", Some(b"later"))?;
    Ok(Outcome::Kept)
}

pub(super) fn destroy(trial: &Trial<'_>) -> Checked<Outcome> {
    let exists = |wanted: bool| {
        ensure(trial.driver.exists(&trial.path) == wanted, || format!("`exists` does not say {wanted}"))
    };
    exists(false)?;
    trial.destroy()?;
    for _ in 0..2 {
        let store = trial.open()?;
        exists(true)?;
        expect(&*store, Family::Notes, b"key", None)?;
        put(&*store, Family::Notes, b"key", &noise(50_000, 1))?;
        drop(store);
        exists(true)?;
        trial.destroy()?;
        exists(false)?;
        ensure(!trial.path.exists(), || "destroy leaves its directory behind".to_owned())?;
        trial.destroy()?;
    }
    Ok(Outcome::Kept)
}

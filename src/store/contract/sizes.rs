//! Long keys and large values.

use cutover_formats::Family;

use super::{Checked, Outcome, Trial, commit, ensure, expect, keys as keys_of, noise, put, rows};
use crate::store::Batch;

/// Around the sizes at which a store may begin to treat values in another way, up to what the contract asks for.
const SIZES: [usize; 13] =
    [0, 1, 100, 4095, 4096, 4097, 8192, 16_000, 65_536, 200_000, 3_000_000, 16 << 20, 17 << 20];

pub(super) fn keys(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    let long = |number: u8, len: usize| {
        // Different only in the last byte: the worst for whoever shortens keys.
        let mut key = noise(len - 1, len as u64);
        key.push(number);
        key
    };
    let lens = [1, 2, 255, 256, 1024, 8192];
    let mut batch = Batch::new();
    for len in lens {
        for number in 0..64 {
            batch.put(Family::Keys, &long(number, len), &[number; 600]);
        }
    }
    commit(&*store, &batch)?;
    for len in lens {
        for number in 0..64 {
            expect(&*store, Family::Keys, &long(number, len), Some(&[number; 600]))?;
        }
    }
    let found = keys_of(&*store, Family::Keys, b"", b"")?;
    ensure(found.len() == 64 * lens.len() && found.is_sorted(), || {
        format!("a scan shows {} keys", found.len())
    })?;
    Ok(Outcome::Kept)
}

pub(super) fn values(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    for size in SIZES {
        put(&*store, Family::Definitions, &size.to_be_bytes(), &noise(size, size as u64))?;
    }
    let check = |store: &dyn crate::store::Store| {
        for size in SIZES {
            expect(store, Family::Definitions, &size.to_be_bytes(), Some(&noise(size, size as u64)))?;
        }
        let found = rows(store, Family::Definitions, b"", b"")?;
        let whole = |(key, value): &(Vec<u8>, Vec<u8>)| key == &value.len().to_be_bytes();
        ensure(found.len() == SIZES.len() && found.iter().all(whole), || {
            "a scan shows other values".to_owned()
        })
    };
    check(&*store)?;
    drop(store);
    check(&*trial.open()?)?;
    Ok(Outcome::Kept)
}

pub(super) fn resized(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    let sizes = [10, 200_000, 5_000, 0, 4097, 300_000, 4096, 16_000];
    for (seed, size) in sizes.into_iter().enumerate() {
        for family in [Family::Instances, Family::Steps] {
            let value = noise(size, seed as u64);
            put(&*store, family, b"key", &value)?;
            expect(&*store, family, b"key", Some(&value))?;
        }
    }
    let mut batch = Batch::new();
    batch.delete(Family::Instances, b"key");
    commit(&*store, &batch)?;
    expect(&*store, Family::Instances, b"key", None)?;
    // Nothing of the old values shows up, here or after opening again.
    drop(store);
    let store = trial.open()?;
    for (family, wanted) in [(Family::Instances, 0), (Family::Steps, 1), (Family::Notes, 0)] {
        let found = rows(&*store, family, b"", b"")?;
        ensure(found.len() == wanted, || {
            format!("{} has {} rows, not {wanted}", family.name(), found.len())
        })?;
    }
    put(&*store, Family::Instances, b"key", &noise(9000, 99))?;
    expect(&*store, Family::Instances, b"key", Some(&noise(9000, 99)))?;
    expect(&*store, Family::Steps, b"key", Some(&noise(16_000, 7)))?;
    Ok(Outcome::Kept)
}

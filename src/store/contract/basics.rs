//! One thread, one opening.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use cutover_formats::Family;

use super::{Checked, Outcome, Trial, commit, doing, ensure, expect, keys, noise, put, rows};
use crate::store::{Batch, Write};

pub(super) fn all_families(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    let mut batch = Batch::new();
    for family in Family::ALL {
        batch.put(family, b"key", family.name().as_bytes());
    }
    commit(&*store, &batch)?;
    for family in Family::ALL {
        expect(&*store, family, b"key", Some(family.name().as_bytes()))?;
    }
    let mut batch = Batch::new();
    for family in Family::ALL {
        batch.delete(family, b"key");
    }
    commit(&*store, &batch)?;
    for family in Family::ALL {
        expect(&*store, family, b"key", None)?;
    }
    Ok(Outcome::Kept)
}

pub(super) fn families_apart(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    for family in Family::ALL {
        put(&*store, family, family.name().as_bytes(), b"1")?;
        // At both ends of what a family can hold.
        put(&*store, family, &[0], b"2")?;
        put(&*store, family, &[0xFF; 16], b"3")?;
    }
    for family in Family::ALL {
        let found = keys(&*store, family, b"", b"")?;
        let wanted = [vec![0], family.name().as_bytes().to_vec(), vec![0xFF; 16]];
        ensure(found == wanted, || format!("a scan of {} shows {} rows, not 3", family.name(), found.len()))?;
    }
    Ok(Outcome::Kept)
}

pub(super) fn later_wins(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    let large = noise(20_000, 1);
    let mut batch = Batch::new();
    for (key, first, second) in [
        (b"put put", Some(&b"1"[..]), Some(&b"2"[..])),
        (b"put del", Some(b"1"), None),
        (b"del put", None, Some(b"2")),
        (b"big put", Some(&large), Some(b"2")),
        (b"put big", Some(b"1"), Some(&large)),
        (b"big del", Some(&large), None),
    ] {
        for change in [first, second] {
            match change {
                Some(value) => batch.put(Family::Keys, key, value),
                None => batch.delete(Family::Keys, key),
            }
        }
    }
    // Twice: into nothing and over what the first left.
    for _ in 0..2 {
        commit(&*store, &batch)?;
        expect(&*store, Family::Keys, b"put put", Some(b"2"))?;
        expect(&*store, Family::Keys, b"put del", None)?;
        expect(&*store, Family::Keys, b"del put", Some(b"2"))?;
        expect(&*store, Family::Keys, b"big put", Some(b"2"))?;
        expect(&*store, Family::Keys, b"put big", Some(&large))?;
        expect(&*store, Family::Keys, b"big del", None)?;
    }
    for number in 0..100_u8 {
        put(&*store, Family::Keys, b"number", &[number])?;
        expect(&*store, Family::Keys, b"number", Some(&[number]))?;
    }
    Ok(Outcome::Kept)
}

pub(super) fn order(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    let mut model = BTreeMap::new();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..20 {
        let mut batch = Batch::new();
        for _ in 0..100 {
            // Short, and of few different bytes, so that keys meet, and one is the start of another.
            let key: Vec<u8> = (0..random.usize(1..6))
                .map(|_| random.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF]).unwrap_or_default())
                .collect();
            if random.u8(..) < 64 {
                batch.delete(Family::Steps, &key);
                model.remove(&key);
            } else {
                let value = noise(random.usize(0..40), random.u64(..));
                batch.put(Family::Steps, &key, &value);
                model.insert(key, value);
            }
        }
        commit(&*store, &batch)?;
        let found = rows(&*store, Family::Steps, b"", b"")?;
        let wanted = model.iter().map(|(key, value)| (key.clone(), value.clone()));
        ensure(wanted.eq(found), || format!("after {} batches the rows or their order differ", round + 1))?;
    }
    Ok(Outcome::Kept)
}

pub(super) fn bounds(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    for key in ["a", "b", "ba", "c", "d"] {
        put(&*store, Family::Ready, key.as_bytes(), key.as_bytes())?;
    }
    for (from, to, wanted) in [
        ("", "", "a b ba c d"),
        ("b", "", "b ba c d"),
        ("b", "c", "b ba"),
        ("bb", "cc", "c"),
        ("", "b", "a"),
        ("e", "", ""),
        ("b", "b", ""),
        ("c", "b", ""),
    ] {
        let found = keys(&*store, Family::Ready, from.as_bytes(), to.as_bytes())?;
        let wanted: Vec<_> = wanted.split_whitespace().map(|key| key.as_bytes().to_vec()).collect();
        ensure(found == wanted, || format!("a scan from {from:?} to {to:?} shows other rows"))?;
    }
    let mut seen = 0;
    let mut visit = |_: &[u8], _: &[u8]| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    doing("a scan", store.scan(Family::Ready, b"", b"", &mut visit))?;
    ensure(seen == 2, || format!("a scan that breaks at the second row shows {seen}"))?;
    Ok(Outcome::Kept)
}

pub(super) fn remove_range(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    let large = noise(30_000, 1);
    for family in [Family::Definitions, Family::Instances] {
        let mut batch = Batch::new();
        for number in 0..3000_u32 {
            let value = if number % 100 == 0 { &large[..] } else { b"small" };
            batch.put(family, &number.to_be_bytes(), value);
        }
        commit(&*store, &batch)?;
    }
    let key = u32::to_be_bytes;
    let left = |from: u32, to: u32, wanted: u32| {
        let found = keys(&*store, Family::Definitions, &key(from), &key(to))?.len();
        ensure(found == wanted as usize, || format!("{found} rows from {from} to {to}, not {wanted}"))
    };
    // Twice, because a removal that was cut short is repeated.
    for _ in 0..2 {
        doing("remove_range", store.remove_range(Family::Definitions, &key(100), &key(2900)))?;
        left(0, 3000, 200)?;
        expect(&*store, Family::Definitions, &key(99), Some(b"small"))?;
        expect(&*store, Family::Definitions, &key(100), None)?;
        expect(&*store, Family::Definitions, &key(2899), None)?;
        expect(&*store, Family::Definitions, &key(2900), Some(&large))?;
    }
    doing("remove_range", store.remove_range(Family::Definitions, &key(50), &key(50)))?;
    doing("remove_range", store.remove_range(Family::Definitions, &key(60), &key(50)))?;
    left(0, 3000, 200)?;
    // What comes back after a removal stays.
    put(&*store, Family::Definitions, &key(500), &large)?;
    expect(&*store, Family::Definitions, &key(500), Some(&large))?;
    doing("remove_range", store.remove_range(Family::Definitions, &key(2950), b""))?;
    left(0, 3000, 151)?;
    doing("remove_range", store.remove_range(Family::Definitions, b"", b""))?;
    left(0, u32::MAX, 0)?;
    let others = keys(&*store, Family::Instances, b"", b"")?.len();
    ensure(others == 3000, || format!("{others} rows are left in another family, not 3000"))?;
    Ok(Outcome::Kept)
}

pub(super) fn empty_batch(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    put(&*store, Family::Notes, b"key", b"value")?;
    for write in [Write::Relaxed, Write::Buffered, Write::Synced] {
        doing("committing nothing", store.commit(&Batch::new(), write))?;
    }
    doing("sync", store.sync())?;
    expect(&*store, Family::Notes, b"key", Some(b"value"))?;
    Ok(Outcome::Kept)
}

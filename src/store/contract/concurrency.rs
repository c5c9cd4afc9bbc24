//! Many threads.

use std::time::Duration;

use cutover_formats::Family;

use super::{Checked, Outcome, Trial, doing, ensure, expect, put};
use crate::store::{Batch, Stats, Store, Write};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Instant, thread};

const THREADS: u64 = 8;
const COMMITS: u64 = 200;
const FAMILIES: [Family; 3] = [Family::Keys, Family::Instances, Family::Expiry];

/// Runs the threads and returns the first thing that one of them found wrong.
fn all<'s>(threads: impl IntoIterator<Item = Box<dyn FnOnce() -> Checked + Send + 's>>) -> Checked {
    thread::scope(|scope| {
        let threads: Vec<_> = threads.into_iter().map(|thread| scope.spawn(thread)).collect();
        let ended =
            threads.into_iter().map(|thread| thread.join().unwrap_or(Err("a call panicked".to_owned())));
        // All of them, also when the first has failed: the scope waits for them anyhow.
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}

fn boxed<'s>(thread: impl FnOnce() -> Checked + Send + 's) -> Box<dyn FnOnce() -> Checked + Send + 's> {
    Box::new(thread)
}

fn key(thread: u64, number: u64) -> Vec<u8> {
    [thread.to_be_bytes(), number.to_be_bytes()].concat()
}

fn expect_whole(store: &dyn Store, thread: u64, number: u64) -> Checked {
    let key = key(thread, number);
    FAMILIES.iter().try_for_each(|family| expect(store, *family, &key, Some(&key)))
}

pub(super) fn visible(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    let store = &*store;
    // How many commits of each thread have returned.
    let returned: [AtomicU64; THREADS as usize] = Default::default();
    let returned = &returned;
    let done = &AtomicBool::new(false);
    let writer = |thread: u64, own: &'_ AtomicU64| {
        for number in 0..COMMITS {
            let key = key(thread, number);
            let mut batch = Batch::new();
            FAMILIES.iter().for_each(|family| batch.put(*family, &key, &key));
            let write = if number % 2 == 0 { Write::Buffered } else { Write::Synced };
            doing("a commit", store.commit(&batch, write))?;
            expect_whole(store, thread, number)?;
            own.store(number + 1, Ordering::Release);
        }
        Ok(())
    };
    let reader = || {
        while !done.load(Ordering::Acquire) {
            for (thread, returned) in (0..).zip(returned) {
                if let Some(last) = returned.load(Ordering::Acquire).checked_sub(1) {
                    expect_whole(store, thread, last)?;
                }
            }
        }
        Ok(())
    };
    let writers = (0..).zip(returned).map(|(thread, own)| boxed(move || writer(thread, own)));
    let (written, read) = thread::scope(|scope| {
        let reader = scope.spawn(reader);
        let written = all(writers);
        done.store(true, Ordering::Release);
        (written, reader.join().unwrap_or(Err("a read panicked".to_owned())))
    });
    written.and(read)?;
    for thread in 0..THREADS {
        for number in 0..COMMITS {
            expect_whole(store, thread, number)?;
        }
    }
    Ok(Outcome::Kept)
}

/// A value that says by itself whether it is whole.
fn uniform(number: u64) -> Vec<u8> {
    let len = 3000 + usize::try_from(number % 40).unwrap_or_default() * 1000;
    vec![number.to_be_bytes()[7]; len]
}

fn is_uniform(value: &[u8]) -> bool {
    value.first().is_some_and(|first| value.iter().all(|byte| byte == first))
        && value.len() >= 3000
        && value.len().is_multiple_of(1000)
}

pub(super) fn replaced(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    let store = &*store;
    put(store, Family::Instances, b"key", &uniform(0))?;
    let done = &AtomicBool::new(false);
    let writer = || {
        let until = Instant::now() + Duration::from_millis(300);
        let written = (1..).take_while(|_| Instant::now() < until).try_for_each(|number| {
            // A second row beside it, so that a scan passes from one to the other.
            let mut batch = Batch::new();
            batch.put(Family::Instances, b"key", &uniform(number));
            batch.put(Family::Instances, b"kez", &uniform(number + 7));
            doing("a commit", store.commit(&batch, Write::Relaxed))
        });
        done.store(true, Ordering::Release);
        written
    };
    let reader = || {
        while !done.load(Ordering::Acquire) {
            let value = doing("get", store.get(Family::Instances, b"key"))?;
            ensure(value.as_deref().is_some_and(is_uniform), || {
                "a value that is being replaced is torn".to_owned()
            })?;
            let rows = super::rows(store, Family::Instances, b"", b"")?;
            ensure(rows.iter().all(|(_, value)| is_uniform(value)), || {
                "a scan shows a torn value".to_owned()
            })?;
        }
        Ok(())
    };
    all([boxed(writer), boxed(reader), boxed(reader)])?;
    Ok(Outcome::Kept)
}

/// Threads that commit at once, each of them this often.
const CROWD: u64 = 64;
const EACH: u64 = 25;

/// Syncs that take less need not be shared: a thread is done before the next one runs.
const WORTH_SHARING: Duration = Duration::from_micros(100);

pub(super) fn shared(trial: &Trial<'_>) -> Checked<Outcome> {
    let store = trial.open()?;
    let store = &*store;
    let commit = |thread, number| {
        let mut batch = Batch::new();
        FAMILIES.iter().for_each(|family| batch.put(*family, &key(thread, number), b"value"));
        doing("a commit", store.commit(&batch, Write::Synced))
    };
    // The quickest: on a busy machine any of them may have had to wait for something else.
    let mut alone = Duration::MAX;
    for number in 0..EACH {
        let begun = Instant::now();
        commit(CROWD, number)?;
        alone = alone.min(begun.elapsed());
    }
    let before = store.stats();
    if before == Stats::default() {
        return Ok(Outcome::Skipped("the store does not count its syncs".to_owned()));
    }
    let commit = &commit;
    all((0..CROWD).map(|thread| boxed(move || (0..EACH).try_for_each(|number| commit(thread, number)))))?;
    let after = store.stats();
    let stats = Stats { commits: after.commits - before.commits, syncs: after.syncs - before.syncs };
    ensure(stats.commits == CROWD * EACH, || {
        format!("{} commits were counted as {}", CROWD * EACH, stats.commits)
    })?;
    ensure(stats.syncs > 0, || "no sync was counted".to_owned())?;
    if alone < WORTH_SHARING {
        return Ok(Outcome::Skipped(format!("a synced commit takes {alone:?} here, too little to share")));
    }
    ensure(stats.syncs * 4 <= stats.commits, || {
        format!("{CROWD} threads took {} syncs for {} commits", stats.syncs, stats.commits)
    })?;
    Ok(Outcome::Shared(stats))
}

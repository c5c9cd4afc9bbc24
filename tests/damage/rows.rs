//! Every byte of every kind of row: reading it gives an error that names store, family and row, or the value as it was written.

use std::time::Duration;

use cutover::formats::{Family, RowId};
use cutover::{
    Completion, Ending, Engine, Error, ErrorKind, InstanceId, Launched, MigrationOptions, NewStep, Tenant,
};

use crate::tap::{Home, KEEP, keyed, many, memory, started, tenant, work_off};

/// A tenant with rows of every kind, and what reading them gave before any was damaged.
struct Filled {
    home: Home,
    engine: Engine,
    tenant: Tenant,
    live: InstanceId,
    ended: InstanceId,
}

fn filled() -> Filled {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, "a", KEEP);
    let live =
        keyed("live").request_id("r").input(*b"in").step(NewStep::new("first")).step(NewStep::new("second"));
    let live = started(tenant.launch(&live).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    worker.complete(&task, Completion { result: b"result".to_vec(), ..Completion::default() }).unwrap();
    let ended = started(tenant.launch(&keyed("ended")).unwrap());
    tenant.end(ended, Ending::Failed, b"out", "why").unwrap();
    Filled { home, engine, tenant, live, ended }
}

impl Filled {
    /// Everything that reads this row, as text.
    fn read(&self, row: &RowId<'_>) -> Vec<Result<String, Error>> {
        let tenant = &self.tenant;
        let shown = |read: cutover::Result<String>| vec![read];
        match row {
            RowId::Definition { name, version } => {
                shown(tenant.definition(name, *version).map(|found| format!("{found:?}")))
            }
            RowId::Key { scope, key } => vec![
                tenant.instance_by_key(scope, key).map(|found| format!("{found:?}")),
                // A launch of a key that cannot be read must not start anything.
                tenant
                    .launch(
                        &keyed(std::str::from_utf8(key).unwrap())
                            .reuse(cutover::ReusePolicy::RejectDuplicate),
                    )
                    .map(|answer| {
                        assert!(!matches!(answer, Launched::Started(_)), "a key was taken twice");
                        format!("{answer:?}")
                    }),
            ],
            RowId::Request { .. } => {
                let again = keyed("live").request_id("r").input(*b"in");
                let again = again.step(NewStep::new("first")).step(NewStep::new("second"));
                shown(tenant.launch(&again).map(|answer| format!("{answer:?}")))
            }
            RowId::Instance { id } | RowId::Output { id } => vec![
                tenant.instance(*id).map(|found| format!("{found:?}")),
                tenant.wait(*id, Duration::ZERO).map(|found| format!("{found:?}")),
            ],
            RowId::Input { id } => shown(tenant.input(*id).map(|found| format!("{found:?}"))),
            RowId::Step { instance, step } => {
                shown(tenant.step_result(*instance, step).map(|found| format!("{found:?}")))
            }
            // Their keys say it all.
            RowId::Ready { .. } | RowId::Expiry { .. } | RowId::Note(_) => Vec::new(),
        }
    }
}

#[test]
fn every_byte_of_every_row_gives_an_error_that_names_it_or_what_was_written() {
    let filled = filled();
    let (home, id) = (&filled.home, filled.tenant.id());
    let (mut kinds, mut readings, mut refused) = (0, 0, 0);
    for family in Family::ALL {
        for (row, whole) in home.rows("a", family) {
            let before: Vec<String> = filled.read(&row).into_iter().map(Result::unwrap).collect();
            kinds += 1;
            for at in 0..whole.len() {
                let mut damages = vec![whole[..at].to_vec()];
                for flip in [1, 0x10, 0xFF] {
                    let mut flipped = whole.clone();
                    flipped[at] ^= flip;
                    damages.push(flipped);
                }
                for damaged in damages {
                    home.put("a", id, &row, &damaged);
                    for (read, before) in filled.read(&row).into_iter().zip(&before) {
                        readings += 1;
                        match read {
                            Ok(value) => assert_eq!(value, *before, "{row:?}, byte {at}"),
                            Err(err) => {
                                refused += 1;
                                let said = err.to_string();
                                assert_eq!(err.kind(), ErrorKind::Corrupt, "{row:?}, byte {at}: {said}");
                                let named = ["store 1 (memory)", family.name(), &format!("{row:?}")]
                                    .into_iter()
                                    .all(|name| said.contains(name));
                                assert!(named, "{row:?}, byte {at}: {said}");
                            }
                        }
                    }
                }
            }
            home.put("a", id, &row, &whole);
        }
    }
    eprintln!("{kinds} rows, {readings} readings, {refused} refused");
    assert!(kinds >= 15 && readings > 4_000);
    assert_eq!(readings, refused, "no flipped byte of a record goes unnoticed");
    let _ = (filled.live, filled.ended);
}

/// Rows of the queue and of the index of deadlines: their keys say it all, so damage to their values does no harm.
#[test]
fn markers_are_as_good_as_their_keys() {
    let filled = filled();
    let (home, id) = (&filled.home, filled.tenant.id());
    for family in [Family::Ready, Family::Expiry] {
        for (row, whole) in home.rows("a", family) {
            for at in 0..whole.len() {
                let mut flipped = whole.clone();
                flipped[at] ^= 0x11;
                home.put("a", id, &row, &flipped);
                let worker = filled.tenant.register(many("w")).unwrap();
                if family == Family::Ready {
                    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
                    assert_eq!(task.step, "second");
                }
                work_off(&filled.engine);
                home.put("a", id, &row, &whole);
            }
        }
    }
}

/// Notes of the engine that are damaged keep nothing from going on: a copy begins anew, a gap is mended.
#[test]
fn a_damaged_position_of_a_copy_begins_it_anew() {
    let filled = filled();
    let (home, tenant) = (&filled.home, &filled.tenant);
    for version in 2..400 {
        tenant.define("work", version, "text/plain", &[b'x'; 2_000]).unwrap();
    }
    tenant.migration().start(memory("b"), MigrationOptions::default().hold_switch(true)).unwrap();
    let position = || home.rows("b", Family::Notes).into_iter().next();
    let until = std::time::Instant::now() + crate::tap::LONG;
    while position().is_none() {
        filled.engine.step().unwrap();
        assert!(std::time::Instant::now() < until);
    }
    home.damage("b", tenant.id(), &position().unwrap().0);
    let clock = home.files();
    // A new process reads the position.
    drop(clock);
    work_off(&filled.engine);
    assert_eq!(tenant.migration().progress().waiting_for, "being released");
    assert_eq!(home.rows("b", Family::Definitions).len(), 399);
}

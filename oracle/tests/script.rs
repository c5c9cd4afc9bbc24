//! Scripted loads on the memory store, killed and cut, and what the check says of them and of lies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected is to panic"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cutover::store::Driver;
use cutover::store::memory::MemoryDriver;
use cutover::{Builder, Durability, Engine, MigrationOptions, Phase, StoreId, StoreSpec};
use cutover_oracle::ack::{Ack, Answer, Line};
use cutover_oracle::check::check_rows;
use cutover_oracle::raw::Rows;
use cutover_oracle::who::Who;
use cutover_oracle::{After, Options, Raw, Script, Setup, Verdict, reopen};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

struct Home {
    dir: TempDir,
    driver: Arc<MemoryDriver>,
    durability: Durability,
}

impl Home {
    fn new(durability: Durability) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), driver: Arc::new(MemoryDriver::default()), durability }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn builder(&self) -> Builder {
        let driver: Arc<dyn Driver> = self.driver.clone();
        Engine::builder(self.data()).durability(self.durability).driver(driver).background(false)
    }

    fn setup(&self, seed: u64, session: u64) -> Setup {
        Setup { durability: self.durability, threads: 3, from: store("a"), ..Setup::new(seed, session) }
    }

    fn crash(&self, engine: Engine, after: After) {
        for path in ["a", "b"].map(|path| self.data().join(path)) {
            match after {
                After::Kill => self.driver.kill(&path),
                After::PowerCut => self.driver.power_cut(&path),
            }
        }
        // The stores are gone under it, so it cannot close in order.
        drop(engine.close(LONG));
    }

    fn check(&self, lines: &[Line], after: After) -> (Verdict, Engine) {
        let options = Options { cut: false, ..Options::after(after) };
        let drivers: [Arc<dyn Driver>; 1] = [self.driver.clone()];
        reopen(lines, &self.data(), self.builder(), &drivers, Path::new("unused"), &options).unwrap()
    }
}

fn store(path: &str) -> StoreSpec {
    StoreSpec::driver("memory").path(path)
}

/// So many operations, and the engine's own work between them.
fn work(script: &mut Script, engine: &Engine, operations: usize) {
    for at in 0..operations {
        script.step().unwrap();
        if at % 5 == 0 {
            engine.step().unwrap();
        }
    }
}

fn good(verdict: &Verdict) {
    assert!(verdict.ok && verdict.lost == 0, "{verdict:#?}");
}

/// One seed: a session in each phase of a migration there and back, killed in each, checked after each.
fn rounds(seed: u64, durability: Durability, after: After) -> u64 {
    let home = Home::new(durability);
    let mut engine = home.builder().open().unwrap();
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut seen, mut lost) = (Vec::new(), 0);
    for session in 0..10 {
        let mut script = Script::begin(&engine, home.setup(seed, session)).unwrap();
        work(&mut script, &engine, rng.usize(..200));
        let tenant = script.tenant().clone();
        let status = tenant.status();
        if status.phase == Phase::Stable && rng.bool() {
            let now = engine.store_path(status.initial).unwrap();
            let to = if now.ends_with("a") { "b" } else { "a" };
            drop(tenant.migration().start(store(to), MigrationOptions::default()));
        } else if rng.u8(..3) == 0 {
            drop(tenant.migration().reverse());
        }
        work(&mut script, &engine, rng.usize(..300));
        script.look();
        seen.push(tenant.status().phase);
        let lines = script.lines();
        drop((script, tenant));
        home.crash(engine, after);
        let (verdict, again) = home.check(&lines, after);
        assert!(verdict.ok, "seed {seed}, session {session}, phases {seen:?}: {verdict:#?}");
        assert!(verdict.launches > 0 || lines.len() < 20, "{verdict:?}");
        lost += verdict.lost;
        engine = again;
    }
    lost
}

#[test]
fn killed_in_all_phases_nothing_is_missing() {
    for seed in 0..12 {
        assert_eq!(rounds(seed, Durability::Buffered, After::Kill), 0);
        assert_eq!(rounds(seed, Durability::Synced, After::Kill), 0);
    }
}

#[test]
fn power_loss_takes_nothing_that_was_synced_and_a_tail_of_what_was_buffered() {
    let mut lost = 0;
    for seed in 0..12 {
        assert_eq!(rounds(seed, Durability::Synced, After::PowerCut), 0);
        lost += rounds(seed, Durability::Buffered, After::PowerCut);
    }
    assert!(lost > 0, "a power cut that takes nothing shows nothing");
}

/// A session of which nothing was lost, to be lied about.
fn session(home: &Home) -> Vec<Line> {
    let engine = home.builder().open().unwrap();
    let mut script = Script::begin(&engine, home.setup(5, 1)).unwrap();
    work(&mut script, &engine, 300);
    let lines = script.lines();
    drop(script);
    home.crash(engine, After::Kill);
    lines
}

#[test]
fn what_is_checked_twice_is_found_the_same() {
    let home = Home::new(Durability::Synced);
    let lines = session(&home);
    let (first, engine) = home.check(&lines, After::Kill);
    good(&first);
    engine.close(LONG).unwrap();
    drop(engine);
    let (second, _) = home.check(&lines, After::Kill);
    assert_eq!((second.ok, second.found), (true, first.found), "{second:#?}");
    assert!(matches!(lines[0].ack, Ack::Opened(_)));
}

#[test]
fn an_answer_that_was_carried_over_is_no_proof_of_the_tail_that_it_came_from() {
    let home = Home::new(Durability::Buffered);
    let lines = session(&home);
    let drivers: [Arc<dyn Driver>; 1] = [home.driver.clone()];
    let tenant = home.setup(5, 1).tenant;
    let whole = || Raw::read(&home.data(), &tenant, &drivers, Path::new("unused")).unwrap();
    let hole = |raw: &Raw| {
        let verdict = check_rows(&lines, raw, &Options::after(After::PowerCut));
        assert!(verdict.lost > 0);
        verdict.broken.iter().any(|what| what.contains("has a hole"))
    };
    let latest = lines.iter().rev().find_map(|line| match &line.ack {
        Ack::Launch { answer: Answer::Started, thread, n, .. } => {
            let who = Who { seed: 5, session: 1, thread: *thread, n: *n }.to_string();
            whole().stores[&StoreId(1)]
                .requests
                .get_key_value(&who)
                .map(|(id, record)| (id.clone(), record.clone()))
        }
        _ => None,
    });
    // Of the store that it was launched in nothing is left.
    let (id, record) = latest.unwrap();
    let answer = || {
        let mut rows = Rows::default();
        rows.requests.insert(id.clone(), record.clone());
        rows
    };
    let mut raw = whole();
    raw.stores.insert(StoreId(1), Rows::default());
    raw.stores.insert(StoreId(2), answer());
    assert!(!hole(&raw));
    raw.stores.insert(StoreId(1), answer());
    assert!(hole(&raw));
}

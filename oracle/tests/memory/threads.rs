//! A load with threads, moved to and fro by an engine with threads of its own, whose stores go in the middle of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cutover::store::Driver;
use cutover::{Durability, Engine, Retention};
use cutover_oracle::load::{Load, Moves, run};
use cutover_oracle::{Ack, Acks, After, Line, Options, Setup, reopen};

use crate::common::{Home, LONG, seeds, store};

fn loaded(home: &Home, engine: &Engine, seed: u64, session: u64, time: Duration) -> Vec<Line> {
    let retention = Retention { instance_ms: 40, key_ms: 40, request_ms: 120_000 };
    let setup = Setup { threads: 4, retention, ..home.setup(seed, session) };
    let (stores, paths) = ([store("a"), store("b")], ["a".to_owned(), "b".to_owned()]);
    let moves = Some(Moves { stores, paths, reverse: true });
    let load = Load { setup, moves, pause: Duration::from_micros(200) };
    let (acks, lines) = Acks::in_memory();
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| run(engine, &load, &acks, &stop));
        let until = Instant::now() + LONG;
        while lines.lock().unwrap().len() < 20 {
            assert!(Instant::now() < until && !loading.is_finished(), "it does not work");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(time);
        for path in ["a", "b"] {
            home.driver.kill(&home.data().join(path));
        }
        stop.store(true, Ordering::Release);
        loading.join().unwrap().unwrap();
    });
    lines.lock().unwrap().clone()
}

#[test]
fn killed_at_any_moment_nothing_is_missing() {
    let (mut launches, mut phases) = (0, std::collections::BTreeSet::new());
    for seed in seeds(3) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let home = Home::new(if rng.bool() { Durability::Synced } else { Durability::Buffered });
        for session in 0..5 {
            let engine = home.builder().background(true).open().unwrap();
            let lines = loaded(&home, &engine, seed, session, Duration::from_millis(rng.u64(..600)));
            drop(engine.close(LONG));
            drop(engine);
            let drivers: [Arc<dyn Driver>; 1] = [home.driver.clone()];
            let options = Options::after(After::Kill);
            let scratch = std::path::Path::new("unused");
            let (verdict, engine) =
                reopen(&lines, &home.data(), home.builder().background(true), &drivers, scratch, &options)
                    .unwrap();
            assert!(verdict.ok, "seed {seed}, session {session}: {verdict:#?}");
            launches += verdict.launches;
            phases.extend(lines.iter().filter_map(|line| match &line.ack {
                Ack::Phase { phase, .. } => Some(*phase),
                _ => None,
            }));
            engine.close(LONG).unwrap();
        }
    }
    println!("{launches} launches in {phases:?}");
    assert!(launches > 100 && phases.len() >= 4, "{launches} launches in {phases:?}");
}

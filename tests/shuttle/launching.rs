//! Launches of the same keys, ends of what they started, and queries, while the tenant moves. What every call was answered has to be
//! explained by one store.

use std::sync::{Arc, Mutex};

use shuttle::rand::{Rng as _, RngCore as _, thread_rng};

use crate::history::{History, Moments};
use crate::load::{Client, Mix, retention_of};
use crate::schedules::run;
use crate::world::World;

const CLIENTS: usize = 3;
const CALLS: usize = 3;

/// Two keys: one that is free as soon as its instance has ended, one that is not.
const KEYS: usize = 2;

#[test]
fn launches_of_the_same_keys() {
    let mix = Mix { keys: KEYS, ends: 25, queries: 15, replacing: 10, requests: 0, request_spread: 1 };
    run("launches of the same keys", move |world| clients(world, mix));
}

#[test]
fn replacements_and_request_ids_over_the_switch() {
    // Nearly every launch replaces, and repeats what was asked for a few calls earlier.
    let mix = Mix { keys: KEYS, ends: 10, queries: 10, replacing: 70, requests: 60, request_spread: 24 };
    run("replacements and request ids", move |world| clients(world, mix));
}

fn clients(world: &World, mix: Mix) {
    let (moments, history) = (Arc::new(Moments::default()), Arc::new(Mutex::new(History::default())));
    let before = Client::new(thread_rng().next_u64(), &world.clock, &moments, mix);
    // Some keys are held or ended already, in the store that is left or in the one that is not.
    call(world, before, thread_rng().gen_range(0..4), &history);
    world.begin_in_some_phase();
    let mut threads = vec![world.driver(), world.operator()];
    for _ in 0..CLIENTS {
        let (clock, tenant, pairs) = (world.clock.clone(), world.tenant.clone(), world.pairs.clone());
        let (moments, history) = (moments.clone(), history.clone());
        threads.push(shuttle::thread::spawn(move || {
            let mut client = Client::new(thread_rng().next_u64(), &clock, &moments, mix);
            for _ in 0..CALLS {
                let (key, call) = pairs.around(&tenant, || client.call(&tenant));
                history.lock().unwrap().add(key, call);
            }
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let after = Client::new(thread_rng().next_u64(), &world.clock, &moments, mix);
    call(world, after, 4, &history);
    let mut last = Client::new(thread_rng().next_u64(), &world.clock, &moments, mix);
    let mut history = std::mem::take(&mut *history.lock().unwrap());
    for key in 0..KEYS {
        let (key, call) = last.ask(&world.tenant, key);
        history.add(key, call);
    }
    let checked = history.check(retention_of).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(checked.unknown, 0, "nothing failed, so every answer is known");
}

fn call(world: &World, mut client: Client<'_>, times: usize, history: &Mutex<History>) {
    for _ in 0..times {
        let (key, call) = client.call(&world.tenant);
        history.lock().unwrap().add(key, call);
    }
}

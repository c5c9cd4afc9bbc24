//! Launches of the same keys, ends of what they started, and queries, while the tenant moves. What every call was answered has to be
//! explained by one store.

use std::sync::Arc;

use shuttle::rand::{Rng as _, RngCore as _, thread_rng};
use shuttle::thread::JoinHandle;

use crate::checker::Call;
use crate::history::{Checked, History, KeyId, Moments};
use crate::load::{Client, Mix, retention_of};
use crate::schedules::{repeat, run, run_whatever_they_meet};
use crate::spec::Op;
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

#[test]
fn closing_and_killing_under_launches_and_moves() {
    let mix = Mix { keys: KEYS, ends: 25, queries: 15, replacing: 30, requests: 20, request_spread: 24 };
    run_whatever_they_meet("closing and killing", move |world| {
        let (moments, mut history) = (Arc::new(Moments::default()), History::default());
        call(world, &moments, mix, thread_rng().gen_range(0..3), &mut history);
        world.begin_in_some_phase();
        let (others, clients) = start(world, &moments, mix);
        for _ in 0..thread_rng().gen_range(0..40) {
            shuttle::thread::yield_now();
        }
        world.restart(thread_rng().gen_bool(0.5));
        // What the closed engine was in the middle of is over.
        let opened = moments.next();
        for (key, mut call) in join(others, clients) {
            if call.op.is_unknown() {
                call.returned = opened.max(call.called + 1);
            }
            history.add(key, call);
        }
        finish(world, &moments, mix, history);
    });
}

#[test]
fn a_schedule_can_be_repeated() {
    let mix = Mix { keys: KEYS, ends: 20, queries: 20, replacing: 30, requests: 30, request_spread: 24 };
    repeat(move |world| clients(world, mix));
}

fn clients(world: &World, mix: Mix) {
    let (moments, mut history) = (Arc::new(Moments::default()), History::default());
    // Some keys are held or ended already, in the store that is left or in the one that is not.
    call(world, &moments, mix, thread_rng().gen_range(0..4), &mut history);
    world.begin_in_some_phase();
    let (others, clients) = start(world, &moments, mix);
    join(others, clients).into_iter().for_each(|(key, call)| history.add(key, call));
    let checked = finish(world, &moments, mix, history);
    assert_eq!(checked.unknown, 0, "nothing failed, so every answer is known");
}

type Calls = Vec<(KeyId, Call<Op>)>;

/// Clients, and who lets the engine work and moves the tenant beside them.
fn start(world: &World, moments: &Arc<Moments>, mix: Mix) -> (Vec<JoinHandle<()>>, Vec<JoinHandle<Calls>>) {
    let others = vec![world.driver(), world.operator()];
    let client = |_| {
        let (clock, tenant, pairs) = (world.clock.clone(), world.tenant.clone(), world.pairs.clone());
        let moments = moments.clone();
        shuttle::thread::spawn(move || {
            let mut client = Client::new(thread_rng().next_u64(), &clock, &moments, mix);
            (0..CALLS).map(|_| pairs.around(&tenant, || client.call(&tenant))).collect()
        })
    };
    (others, (0..CLIENTS).map(client).collect())
}

fn join(others: Vec<JoinHandle<()>>, clients: Vec<JoinHandle<Calls>>) -> Calls {
    others.into_iter().for_each(|thread| thread.join().unwrap());
    clients.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
}

/// A few more calls, one after the other; a look at every key; and the check of it all.
fn finish(world: &World, moments: &Moments, mix: Mix, mut history: History) -> Checked {
    call(world, moments, mix, 4, &mut history);
    let mut last = Client::new(thread_rng().next_u64(), &world.clock, moments, mix);
    for key in 0..KEYS {
        let (key, call) = last.ask(&world.tenant, key);
        history.add(key, call);
    }
    history.check(retention_of).unwrap_or_else(|said| panic!("{said}"))
}

fn call(world: &World, moments: &Moments, mix: Mix, times: usize, history: &mut History) {
    let mut client = Client::new(thread_rng().next_u64(), &world.clock, moments, mix);
    for _ in 0..times {
        let (key, call) = client.call(&world.tenant);
        history.add(key, call);
    }
}

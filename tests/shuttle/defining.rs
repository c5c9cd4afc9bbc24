//! Definitions: the same names with the same and with other bytes, read and launched, while the tenant moves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cutover::{Defined, ErrorKind, Launch, Launched, Tenant};
use shuttle::rand::{Rng as _, thread_rng};

use crate::checker::{Call, Spec, check};
use crate::history::Moments;
use crate::schedules::run;

const CLIENTS: usize = 3;
const CALLS: usize = 3;
const NAMES: [&str; 2] = ["a", "b"];
const BODIES: [&[u8]; 2] = [b"first", b"second"];

/// What was asked about one name, and answered.
#[derive(Debug, Clone)]
enum Asked {
    Define(usize, Outcome),
    Read(Option<usize>),
    /// A launch; says whether there was a definition.
    Launch(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Created,
    Unchanged,
    Refused,
}

/// One name in one store: it is defined once, and never changes.
struct Once;

impl Spec for Once {
    type State = Option<usize>;
    type Op = Asked;

    fn initial(&self) -> Self::State {
        None
    }

    fn after(&self, state: &Self::State, op: &Asked) -> Vec<Self::State> {
        let (possible, next) = match (op, state) {
            (Asked::Define(body, outcome), None) => (*outcome == Outcome::Created, Some(*body)),
            (Asked::Define(body, outcome), Some(there)) if body == there => {
                (*outcome == Outcome::Unchanged, *state)
            }
            (Asked::Define(_, outcome), Some(_)) => (*outcome == Outcome::Refused, *state),
            (Asked::Read(found), _) => (found == state, *state),
            (Asked::Launch(started), _) => (*started == state.is_some(), *state),
        };
        possible.then_some(next).into_iter().collect()
    }

    fn may_be_missing(&self, _: &Asked) -> bool {
        false
    }

    fn returned(&self, _: &mut Self::State, _: &Asked) {}
}

type History = Mutex<BTreeMap<usize, Vec<Call<Asked>>>>;

#[test]
fn definitions_while_the_tenant_moves() {
    run("definitions", |world| {
        let (moments, history) = (Arc::new(Moments::default()), Arc::new(History::default()));
        if thread_rng().gen_bool(0.3) {
            ask(&world.tenant, &moments, &history);
        }
        world.begin_in_some_phase();
        let mut threads = vec![world.driver(), world.operator()];
        for _ in 0..CLIENTS {
            let (tenant, pairs) = (world.tenant.clone(), world.pairs.clone());
            let (moments, history) = (moments.clone(), history.clone());
            threads.push(shuttle::thread::spawn(move || {
                for _ in 0..CALLS {
                    pairs.around(&tenant, || ask(&tenant, &moments, &history));
                }
            }));
        }
        for thread in threads {
            thread.join().unwrap();
        }
        for (name, mut calls) in std::mem::take(&mut *history.lock().unwrap()) {
            let created = calls.iter().find_map(|call| match call.op {
                Asked::Define(body, Outcome::Created) => Some(BODIES[body]),
                _ => None,
            });
            if let Some(body) = created {
                world.note_defined(NAMES[name], body);
            }
            calls.sort_by_key(|call| call.returned);
            check(&Once, &calls).unwrap_or_else(|refused| panic!("{refused:?} of {calls:#?}"));
        }
    });
}

/// Asks anything about one of the names.
fn ask(tenant: &Tenant, moments: &Moments, history: &History) {
    let mut rng = thread_rng();
    let (name, body) = (rng.gen_range(0..NAMES.len()), rng.gen_range(0..BODIES.len()));
    let called = moments.next();
    let op = match rng.gen_range(0..6) {
        0..4 => Asked::Define(body, define(tenant, name, body)),
        4 => {
            let found = tenant.definition(NAMES[name], 1).unwrap();
            Asked::Read(found.map(|found| BODIES.iter().position(|body| *body == found.body).unwrap()))
        }
        _ => match tenant.launch(&Launch::new(NAMES[name], 1)) {
            Ok(Launched::Started(id)) => {
                tenant.terminate(id, "").unwrap();
                Asked::Launch(true)
            }
            Ok(other) => panic!("{other:?} without a key"),
            Err(err) => {
                assert_eq!(err.kind(), ErrorKind::NotFound, "{err}");
                Asked::Launch(false)
            }
        },
    };
    let returned = moments.next();
    history.lock().unwrap().entry(name).or_default().push(Call { called, returned, op });
}

fn define(tenant: &Tenant, name: usize, body: usize) -> Outcome {
    match tenant.define(NAMES[name], 1, "text/plain", BODIES[body]) {
        Ok(Defined::Created) => Outcome::Created,
        Ok(Defined::Unchanged) => Outcome::Unchanged,
        Err(err) => {
            assert_eq!(err.kind(), ErrorKind::AlreadyExists, "{err}");
            Outcome::Refused
        }
    }
}

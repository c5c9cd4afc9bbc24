//! Workers that wake up after their step has gone to somebody else: in the same process, and over a crash.

use std::sync::Arc;
use std::time::Duration;

use cutover::service::signature::{Rejected, RequestDigest, SigningKey, verify};
use cutover::service::{Call, Fence, Service, ServiceError};
use cutover::{
    Again, Beat, Called, Completion, Ending, Engine, ErrorKind, Failure, Gate, Heartbeats, InstanceState,
    Refusal, Saved, Settled, Task, Tenant,
};
use parking_lot::Mutex;

use crate::common::{KEEP, many, memory, started, tenant, with_step};
use crate::runners::{Machine, kind};

const LEASE: Duration = Duration::from_secs(6);
const KEY: [u8; 32] = [3; 32];

/// A service elsewhere: it outlives the process of the engine, and what it did took effect.
#[derive(Default)]
struct Mail {
    fence: Mutex<Fence>,
    /// Who sent what it took.
    sent: Mutex<Vec<Vec<u8>>>,
    /// What was on its way when the process died.
    wire: Mutex<Vec<(String, Vec<u8>)>>,
}

impl Mail {
    /// What arrives over the wire, whenever that is.
    fn arrives(&self, text: &str, request: &[u8], now_ms: u64) -> Result<(), Rejected> {
        let signed = text.parse().expect("a signature as it was sent");
        let claims = verify(&SigningKey::new(KEY), &signed, RequestDigest::of(request), now_ms)?;
        self.fence.lock().admit(claims)?;
        self.sent.lock().push(request.to_vec());
        Ok(())
    }
}

impl Service for Mail {
    fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, ServiceError> {
        self.wire.lock().push((call.signature.to_string(), call.request.to_vec()));
        Ok(Vec::new())
    }
}

fn open(machine: &Machine, mail: &Arc<Mail>) -> Engine {
    let builder = machine.builder().heartbeats(Heartbeats { every: LEASE / 3, intervals: 3 });
    builder.signing_key(SigningKey::new(KEY)).service("mail", mail.clone()).open().unwrap()
}

fn claim(tenant: &Tenant, worker: &str) -> (Gate, Task) {
    let gate = tenant.register(many(worker)).unwrap();
    let task = gate.claim("default", Duration::ZERO).unwrap().expect("a step that is ready");
    (gate, task)
}

fn sends(gate: &Gate, task: &Task) -> Called {
    gate.call(task, "mail", gate.worker().as_bytes()).unwrap()
}

fn completes(gate: &Gate, task: &Task) -> Settled {
    gate.complete(task, Completion { result: gate.worker().into(), ..Completion::default() }).unwrap()
}

/// All that changes anything is refused for this reason.
fn can_do_nothing(gate: &Gate, task: &Task, why: Refusal) {
    assert_eq!(gate.save(task, b"late").unwrap(), Saved::Refused(why));
    assert_eq!(sends(gate, task), Called::Refused(why));
    assert_eq!(gate.heartbeat(task).unwrap(), Beat::Refused(why));
    let failure = Failure { reason: "late".to_owned(), again: Again::AsPlanned };
    assert_eq!(gate.fail(task, &failure).unwrap(), Settled::Refused(why));
    assert_eq!(completes(gate, task), Settled::Refused(why));
}

#[test]
fn a_worker_that_wakes_up_after_its_step_was_given_away_can_do_nothing_before_or_after_it_registers_anew() {
    let (machine, mail) = (Machine::new(), Arc::new(Mail::default()));
    let engine = open(&machine, &mail);
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&with_step("k")).unwrap());
    let (zombie, early) = claim(&tenant, "zombie");
    machine.clock.advance(LEASE);
    let (worker, task) = claim(&tenant, "worker");
    assert!(task.token > early.token);

    can_do_nothing(&zombie, &early, Refusal::LeaseExpired);
    assert_eq!(kind(zombie.claim("default", Duration::ZERO)), ErrorKind::LeaseExpired);
    zombie.register_anew().unwrap();
    can_do_nothing(&zombie, &early, Refusal::NotHeld);
    assert!(zombie.claim("default", Duration::ZERO).unwrap().is_none(), "it is held");

    assert_eq!(worker.heartbeat(&task).unwrap(), Beat::Renewed, "nothing of that touched the other one");
    assert!(matches!(completes(&worker, &task), Settled::Done { .. }));
    can_do_nothing(&zombie, &early, Refusal::NotHeld);
    let ended = tenant.instance(id).unwrap().unwrap();
    assert_eq!(ended.state, InstanceState::Ended(Ending::Completed));
    assert!(mail.wire.lock().is_empty(), "nothing left for the service");
}

/// The step went from one worker to another, and the process dies before the second one is done, or right after it. Both of
/// them are zombies then, and so is what they had sent.
#[test]
fn a_crash_between_reassignment_and_result_leaves_the_step_to_a_third_and_none_of_before_it_acts() {
    for settled in [false, true] {
        let (machine, mail) = (Machine::new(), Arc::new(Mail::default()));
        let engine = open(&machine, &mail);
        let before = tenant(&engine, memory("a"), KEEP);
        let id = started(before.launch(&with_step("k")).unwrap());
        let (first, task_of_first) = claim(&before, "first");
        sends(&first, &task_of_first);
        machine.clock.advance(LEASE);
        let (second, task_of_second) = claim(&before, "second");
        sends(&second, &task_of_second);
        if settled {
            assert!(matches!(completes(&second, &task_of_second), Settled::Done { .. }));
        }
        let machine = machine.die(engine);

        let engine = open(&machine, &mail);
        let after = engine.tenant("acme").unwrap();
        // Their gates lead to the engine that died, and what they know is of no use at a new one.
        for (gate, task) in [(&first, &task_of_first), (&second, &task_of_second)] {
            assert_eq!(kind(gate.complete(task, Completion::default())), ErrorKind::Unavailable);
            assert_eq!(kind(gate.call(task, "mail", b"late")), ErrorKind::Unavailable);
            let anew = after.register(many(gate.worker())).unwrap();
            can_do_nothing(&anew, task, Refusal::NotHeld);
        }
        let third = after.register(many("third")).unwrap();
        let newest = match third.claim("default", Duration::ZERO).unwrap() {
            Some(task) => {
                assert!(!settled, "a step whose result is durable is done once");
                assert!(task.token > task_of_second.token);
                sends(&third, &task);
                let newest = task.token;
                assert!(matches!(completes(&third, &task), Settled::Done { .. }));
                newest
            }
            None => {
                assert!(settled, "a step without a result is not lost");
                task_of_second.token
            }
        };
        let ended = after.instance(id).unwrap().unwrap();
        assert_eq!(ended.state, InstanceState::Ended(Ending::Completed));

        // What was sent arrives in the worst order, all of it before any signature runs out.
        let wire = std::mem::take(&mut *mail.wire.lock());
        for (text, request) in wire.iter().rev() {
            let arrives = mail.arrives(text, request, 1_700_000_000_000);
            let latest: &[u8] = if settled { b"second" } else { b"third" };
            let expected = if request == latest { Ok(()) } else { Err(Rejected::Late { newest }) };
            assert_eq!(arrives, expected, "{}", String::from_utf8_lossy(request));
        }
        assert_eq!(mail.sent.lock().len(), 1, "it took effect once");
    }
}

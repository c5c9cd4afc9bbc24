//! Calls to services through the gate: who may make them, what a service can check, and what it may do to the engine.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cutover::clock::ManualClock;
use cutover::service::signature::{Rejected, RequestDigest, Signed, SigningKey, verify};
use cutover::service::{Call, Fence, Service, ServiceError};
use cutover::{
    Beat, Builder, Called, Completion, Engine, ErrorKind, Gate, Heartbeats, MigrationOptions, Phase, Refusal,
    Settled, Task, Tenant, Token,
};
use parking_lot::Mutex;

use crate::common::{Home, KEEP, LONG, many, memory, reach, started, tenant, with_step};

const NOW: u64 = 1_800_000_000_000;
const LEASE: Duration = Duration::from_secs(10);
const KEY: [u8; 32] = [7; 32];
const REQUEST: &[u8] = b"hunter2-request";

/// Does what it is told to, and keeps what it was handed.
struct Told<F> {
    heard: Mutex<Vec<Heard>>,
    act: F,
}

#[derive(Debug, Clone)]
struct Heard {
    token: Token,
    expires_ms: u64,
    /// What it would hand on over a wire.
    text: String,
}

impl<F> Told<F>
where
    F: Fn(&Call<'_>) -> Result<Vec<u8>, ServiceError> + Send + Sync + 'static,
{
    fn new(act: F) -> Arc<Self> {
        Arc::new(Self { heard: Mutex::default(), act })
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().clone()
    }
}

impl<F> Service for Told<F>
where
    F: Fn(&Call<'_>) -> Result<Vec<u8>, ServiceError> + Send + Sync + 'static,
{
    fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, ServiceError> {
        let text = call.signature.to_string();
        self.heard.lock().push(Heard { token: call.token, expires_ms: call.expires_ms, text });
        (self.act)(call)
    }
}

type Reply = Result<Vec<u8>, ServiceError>;

fn echo(call: &Call<'_>) -> Reply {
    Ok(call.request.to_vec())
}

/// An engine whose clock stands still.
struct Stage {
    engine: Engine,
    tenant: Tenant,
    clock: Arc<ManualClock>,
    home: Home,
}

fn builder(home: &Home, clock: &Arc<ManualClock>) -> Builder {
    let builder = home.builder().heartbeats(Heartbeats { every: LEASE, intervals: 1 });
    builder.clock(clock.clone()).background(false).signing_key(SigningKey::new(KEY))
}

fn stage(with: impl FnOnce(Builder, Arc<ManualClock>) -> Builder) -> Stage {
    stage_at(NOW, with)
}

fn stage_at(wall_ms: u64, with: impl FnOnce(Builder, Arc<ManualClock>) -> Builder) -> Stage {
    let home = Home::new();
    let clock = Arc::new(ManualClock::at(wall_ms));
    let engine = with(builder(&home, &clock), clock.clone()).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    Stage { engine, tenant, clock, home }
}

impl Stage {
    /// A worker with the step of a new instance.
    fn work(&self, key: &str) -> (Gate, Task) {
        work(&self.tenant, key)
    }

    /// Another engine in the place of the one that was closed, or killed.
    fn open_again(&mut self, with: impl FnOnce(Builder) -> Builder) {
        self.engine = with(builder(&self.home, &self.clock)).open().unwrap();
        self.tenant = self.engine.tenant("acme").unwrap();
    }
}

fn work(tenant: &Tenant, key: &str) -> (Gate, Task) {
    started(tenant.launch(&with_step(key)).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    (worker, task)
}

fn answered(called: Called) -> Vec<u8> {
    match called {
        Called::Answered { answer, lost: None } => answer,
        other => panic!("not answered: {other:?}"),
    }
}

#[test]
fn a_service_is_told_who_calls_and_until_when_and_can_check_it() {
    let told = Told::new(|call: &Call<'_>| {
        assert_eq!((call.tenant, call.step), ("acme", "only"));
        echo(call)
    });
    let stage = stage(|builder, _| builder.service("mail", told.clone()));
    let (worker, task) = stage.work("k");
    assert_eq!(answered(worker.call(&task, "mail", REQUEST).unwrap()), REQUEST);
    // In the middle of the lease, and after a heartbeat.
    stage.clock.advance(LEASE / 2);
    answered(worker.call(&task, "mail", REQUEST).unwrap());
    assert_eq!(worker.heartbeat(&task).unwrap(), Beat::Renewed);
    answered(worker.call(&task, "mail", REQUEST).unwrap());
    let (heard, lease_ms) = (told.heard(), LEASE.as_millis() as u64);
    let ends: Vec<u64> = heard.iter().map(|one| one.expires_ms - NOW).collect();
    assert_eq!(ends, [lease_ms, lease_ms, lease_ms / 2 + lease_ms]);
    for one in heard {
        assert_eq!(one.token, task.token);
        let signed: Signed = one.text.parse().unwrap();
        let check = |request: &[u8], now_ms| {
            verify(&SigningKey::new(KEY), &signed, RequestDigest::of(request), now_ms).cloned()
        };
        let claims = check(REQUEST, one.expires_ms - 1).unwrap();
        assert_eq!((claims.tenant.as_str(), claims.step.as_str()), ("acme", "only"));
        assert_eq!((claims.instance, claims.token), (task.instance, task.token));
        assert_eq!(claims.expires_ms, one.expires_ms);
        assert_eq!(check(REQUEST, one.expires_ms), Err(Rejected::Expired { expires_ms: one.expires_ms }));
        assert_eq!(check(b"another", NOW), Err(Rejected::OtherRequest));
    }
    assert_eq!(
        worker.complete(&task, Completion::default()).unwrap(),
        Settled::Done { ended: Some(cutover::Ending::Completed) }
    );
    assert_eq!(worker.call(&task, "mail", REQUEST).unwrap(), Called::Refused(Refusal::NotHeld));
}

/// Makes a call while a clock elsewhere shows [`NOW`]. It is valid there to the end of the lease, and not longer.
fn holds_elsewhere_until_the_lease_ends(stage: &Stage, told: &Told<impl Fn(&Call<'_>) -> Reply>) {
    let (worker, task) = stage.work("while the clock is right");
    let heard = || {
        worker.call(&task, "mail", REQUEST).unwrap();
        told.heard.lock().pop().unwrap()
    };
    let first = heard();
    assert_eq!(first.expires_ms, NOW + LEASE.as_millis() as u64);
    let signed: Signed = first.text.parse().unwrap();
    let at = |now_ms| {
        verify(&SigningKey::new(KEY), &signed, RequestDigest::of(REQUEST), now_ms)
            .map(|claims| claims.expires_ms)
    };
    let expires_ms = first.expires_ms;
    assert_eq!(at(NOW), Ok(expires_ms));
    assert_eq!(at(expires_ms), Err(Rejected::Expired { expires_ms }));
    stage.clock.advance(LEASE / 2);
    assert_eq!(heard().expires_ms, expires_ms);
}

/// The engine's own time stands at its mark then, ahead of every clock.
#[test]
fn a_signature_ends_with_its_lease_after_a_kill() {
    let told = Told::new(echo);
    let mut stage = stage(|builder, _| builder);
    stage.home.kill(stage.engine.clone());
    stage.open_again(|builder| builder.service("mail", told.clone()));
    holds_elsewhere_until_the_lease_ends(&stage, &told);
}

#[test]
fn a_signature_ends_with_its_lease_after_a_run_whose_clock_was_a_day_ahead() {
    let told = Told::new(echo);
    let mut stage = stage_at(NOW + 86_400_000, |builder, _| builder);
    stage.engine.close(LONG).unwrap();
    stage.clock.set_wall(NOW);
    stage.open_again(|builder| builder.service("mail", told.clone()));
    holds_elsewhere_until_the_lease_ends(&stage, &told);
}

#[test]
fn a_signature_holds_once_the_clock_of_a_machine_that_began_in_1970_was_set() {
    let told = Told::new(echo);
    let stage = stage_at(0, |builder, _| builder.service("mail", told.clone()));
    stage.clock.advance(LEASE);
    stage.clock.set_wall(NOW);
    holds_elsewhere_until_the_lease_ends(&stage, &told);
}

#[test]
fn a_lease_that_runs_out_between_two_calls_of_a_step_refuses_the_second() {
    let told = Told::new(echo);
    let stage = stage(|builder, _| builder.service("mail", told.clone()));
    let (worker, task) = stage.work("k");
    stage.clock.advance(LEASE - Duration::from_millis(1));
    answered(worker.call(&task, "mail", REQUEST).unwrap());
    assert_eq!(told.heard()[0].expires_ms, NOW + LEASE.as_millis() as u64, "a call renews nothing");
    stage.clock.advance(Duration::from_millis(1));
    let refused = Called::Refused(Refusal::LeaseExpired);
    assert_eq!(worker.call(&task, "mail", REQUEST).unwrap(), refused);
    worker.register_anew().unwrap();
    assert_eq!(worker.call(&task, "mail", REQUEST).unwrap(), Called::Refused(Refusal::NotHeld));
    assert_eq!(told.heard().len(), 1, "the service was not called for those who were refused");
}

#[test]
fn a_worker_that_wakes_up_after_its_step_was_given_to_another_calls_nobody() {
    let told = Told::new(echo);
    let stage = stage(|builder, _| builder.service("mail", told.clone()));
    let (early, first) = stage.work("k");
    stage.clock.advance(LEASE);
    let late = stage.tenant.register(many("late")).unwrap();
    let second = late.claim("default", Duration::ZERO).unwrap().unwrap();
    assert_eq!(early.call(&first, "mail", REQUEST).unwrap(), Called::Refused(Refusal::LeaseExpired));
    early.register_anew().unwrap();
    // Also not in the name of the other one.
    assert_eq!(early.call(&second, "mail", REQUEST).unwrap(), Called::Refused(Refusal::NotHeld));
    assert_eq!(late.call(&first, "mail", REQUEST).unwrap(), Called::Refused(Refusal::NotHeld));
    assert!(told.heard().is_empty());
    answered(late.call(&second, "mail", REQUEST).unwrap());
    assert!(told.heard()[0].token > first.token);
}

/// Two calls of one step are on their way, and overtake each other. Both leases might still hold.
#[test]
fn a_service_elsewhere_refuses_the_late_one() {
    let told = Told::new(echo);
    let stage = stage(|builder, _| builder.service("mail", told.clone()));
    let (early, first) = stage.work("k");
    answered(early.call(&first, "mail", REQUEST).unwrap());
    drop(early);
    let late = stage.tenant.register(many("late")).unwrap();
    let second = late.claim("default", Duration::ZERO).unwrap().unwrap();
    answered(late.call(&second, "mail", REQUEST).unwrap());

    let mut fence = Fence::new();
    let mut arrives = |heard: &Heard| {
        let signed: Signed = heard.text.parse().unwrap();
        let claims = verify(&SigningKey::new(KEY), &signed, RequestDigest::of(REQUEST), NOW)?;
        fence.admit(claims)
    };
    let heard = told.heard();
    assert_eq!(arrives(&heard[1]), Ok(()));
    assert_eq!(arrives(&heard[0]), Err(Rejected::Late { newest: second.token }));
    assert_eq!(arrives(&heard[1]), Ok(()), "again");
}

#[test]
fn who_loses_its_lease_during_a_call_is_told_the_answer_and_that() {
    let stage = stage(|builder, clock| {
        builder.service(
            "slow",
            Told::new(move |call: &Call<'_>| {
                clock.advance(LEASE);
                echo(call)
            }),
        )
    });
    let (worker, task) = stage.work("k");
    let lost = Called::Answered { answer: REQUEST.to_vec(), lost: Some(Refusal::LeaseExpired) };
    assert_eq!(worker.call(&task, "slow", REQUEST).unwrap(), lost);
    assert_eq!(worker.call(&task, "slow", REQUEST).unwrap(), Called::Refused(Refusal::LeaseExpired));
}

#[test]
fn a_service_that_fails_or_panics_is_an_error_of_its_call_only() {
    let bad = Told::new(|call: &Call<'_>| match call.request {
        b"panic" => panic!("{}", "the trap was sprung"),
        b"long" => Ok(vec![0; cutover::formats::limits::MAX_PAYLOAD + 1]),
        request if request == REQUEST => Err(ServiceError::new("no such mailbox")),
        _ => echo(call),
    });
    let stage = stage(|builder, _| builder.service("bad one", bad));
    let (worker, task) = stage.work("k");
    for (request, says) in [(REQUEST, "no such mailbox"), (b"panic", "panicked"), (b"long", "bytes")] {
        let err = worker.call(&task, "bad one", request).unwrap_err();
        let text = format!("{err} {err:?}");
        assert_eq!(err.kind(), ErrorKind::Service, "{text}");
        assert!(text.contains("\"bad one\"") && text.contains(says), "{text}");
        assert!(!text.contains("hunter2") && !text.contains("the trap"), "{text}");
    }
    assert_eq!(answered(worker.call(&task, "bad one", b"fine").unwrap()), b"fine");
    assert!(matches!(worker.complete(&task, Completion::default()).unwrap(), Settled::Done { .. }));
}

#[test]
fn what_cannot_be_called_says_why() {
    let told = Told::new(echo);
    let stage = stage(|builder, _| builder.service("mail", told.clone()));
    let (worker, task) = stage.work("k");
    let fails = |service: &str, request: &[u8]| worker.call(&task, service, request).unwrap_err();
    let missing = fails("fax", REQUEST);
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("\"fax\"") && !missing.to_string().contains("mail"), "{missing}");
    let long = vec![0; cutover::formats::limits::MAX_PAYLOAD + 1];
    assert_eq!(fails("mail", &long).kind(), ErrorKind::InvalidInput);
    stage.engine.delete_tenant("acme").unwrap();
    assert_eq!(fails("mail", REQUEST).kind(), ErrorKind::NotFound, "of a tenant that is gone");
    stage.engine.close(LONG).unwrap();
    assert_eq!(fails("mail", REQUEST).kind(), ErrorKind::Unavailable);
    assert!(told.heard().is_empty());
}

#[test]
fn a_service_needs_a_name() {
    let home = Home::new();
    let err = home.builder().service("", Told::new(echo)).open().err().unwrap();
    assert_eq!(err.kind(), ErrorKind::InvalidInput, "{err}");
}

/// The switch of a move waits for every pin, and closing too.
#[test]
fn neither_a_move_nor_a_close_waits_for_a_call() {
    let within: Arc<OnceLock<(Engine, Tenant)>> = Arc::default();
    let held = within.clone();
    let home = Home::new();
    let slow = Told::new(move |call: &Call<'_>| {
        let (engine, tenant) = held.get().unwrap();
        tenant.migration().start(memory("b"), MigrationOptions::default()).unwrap();
        reach(tenant, Phase::PostMigration);
        engine.close(LONG).unwrap();
        echo(call)
    });
    let engine = home.builder().service("slow", slow).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    started(tenant.launch(&with_step("k")).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    within.set((engine, tenant)).ok().unwrap();
    assert_eq!(answered(worker.call(&task, "slow", REQUEST).unwrap()), REQUEST);
}

#[test]
fn neither_requests_nor_answers_nor_credentials_are_shown() {
    struct Credentials(&'static str);
    impl Service for Credentials {
        fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, ServiceError> {
            Ok(format!("{call:?} {:?} {}", call.signature, self.0).into_bytes())
        }
    }
    let stage = stage(|builder, _| builder.service("mail", Arc::new(Credentials("hunter2-password"))));
    let (worker, task) = stage.work("k");
    let called = worker.call(&task, "mail", REQUEST).unwrap();
    let shown = format!("{called:?}");
    assert!(shown.contains("bytes>") && !shown.contains("104, 117"), "{shown}");
    let answer = String::from_utf8(answered(called)).unwrap();
    let (call, _) = answer.split_once(" hunter2-password").unwrap();
    assert!(call.contains("<15 bytes>") && !call.contains("hunter2") && !call.contains("104, 117"), "{call}");
    let fails = |service: &str| worker.call(&task, service, REQUEST).unwrap_err().to_string();
    assert!(!fails("fax").contains("hunter2"));
}

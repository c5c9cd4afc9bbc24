//! Queries, lists, waiting, ending, collecting.

use std::sync::Arc;
use std::time::Duration;

use cutover::clock::ManualClock;
use cutover::{
    Beat, Ended, Ending, ErrorKind, Filter, InstanceState, Launch, Launched, Retention, ReusePolicy,
    TenantOptions,
};

use crate::common::{Home, KEEP, LONG, keyed, many, memory, started, tenant, with_step, work};

#[test]
fn lists_filter_and_page_in_the_order_of_ids() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    tenant.define("other", 1, "", b"").unwrap();
    let mut ids: Vec<_> = (0..25).map(|n| started(tenant.launch(&keyed(&n.to_string())).unwrap())).collect();
    ids.sort();
    let other = started(tenant.launch(&cutover::Launch::new("other", 1)).unwrap());
    tenant.end(ids[3], Ending::Completed, b"", "").unwrap();
    let all = |filter: &Filter| {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = tenant.list(filter, after, 7).unwrap();
            assert!(page.instances.len() <= 7);
            seen.extend(page.instances.iter().map(|instance| instance.id));
            after = page.next;
            if after.is_none() {
                return seen;
            }
        }
    };
    let mut everything = ids.clone();
    everything.push(other);
    everything.sort();
    assert_eq!(all(&Filter::default()), everything);
    assert_eq!(all(&Filter { definition: Some("other".into()), ..Filter::default() }), [other]);
    assert_eq!(all(&Filter { live: Some(false), ..Filter::default() }), [ids[3]]);
    assert_eq!(all(&Filter { live: Some(true), scope: Some("scope".into()), ..Filter::default() }).len(), 24);
}

#[test]
fn waiting_ends_with_the_instance_or_with_the_time() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&work()).unwrap());
    assert_eq!(tenant.wait(id, Duration::from_millis(5)).unwrap(), None);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| tenant.wait(id, LONG).unwrap().unwrap());
        tenant.end(id, Ending::Failed, b"out", "because").unwrap();
        let instance = waiting.join().unwrap();
        assert_eq!(instance.ending(), Some(Ending::Failed));
        assert_eq!((instance.output.as_slice(), instance.reason.as_str()), (&b"out"[..], "because"));
    });
    let nobody = cutover::InstanceId(1);
    assert_eq!(tenant.wait(nobody, LONG).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_cancelled_instance_ends_when_its_last_worker_does() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let idle = started(tenant.launch(&with_step("idle")).unwrap());
    assert_eq!(tenant.cancel(idle, "enough").unwrap(), Ended::Now);
    let worker = tenant.register(many("w")).unwrap();
    assert_eq!(worker.claim("default", Duration::ZERO).unwrap(), None, "its step is not given out");
    let busy = started(tenant.launch(&with_step("busy")).unwrap());
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    assert_eq!(tenant.cancel(busy, "enough").unwrap(), Ended::Asked);
    assert!(tenant.instance(busy).unwrap().unwrap().cancel_requested);
    assert_eq!(worker.heartbeat(&task).unwrap(), Beat::CancelRequested);
    let failure = cutover::Failure { reason: "stopped".into(), again: cutover::Again::After(Duration::ZERO) };
    worker.fail(&task, &failure).unwrap();
    assert_eq!(tenant.instance(busy).unwrap().unwrap().ending(), Some(Ending::Cancelled));
    started(tenant.launch(&with_step("busy")).unwrap());
}

#[test]
fn what_has_ended_is_collected_at_its_time_and_nothing_else() {
    let home = Home::new();
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let engine = home.builder().clock(clock.clone()).background(false).open().unwrap();
    let retention = Retention { instance_ms: 1_000, key_ms: 2_000, request_ms: 3_000 };
    let tenant = tenant(&engine, memory("a"), retention);
    let live = started(tenant.launch(&keyed("live")).unwrap());
    let ended = started(tenant.launch(&with_step("ended").request_id("r")).unwrap());
    tenant.terminate(ended, "").unwrap();
    let pass = |ms| {
        clock.advance(Duration::from_millis(ms));
        while engine.step().unwrap() {}
    };
    pass(999);
    assert!(tenant.instance(ended).unwrap().is_some());
    pass(1);
    assert!(tenant.instance(ended).unwrap().is_none());
    assert!(tenant.instance_by_key("scope", b"ended").unwrap().is_none());
    let reject = keyed("ended").reuse(cutover::ReusePolicy::RejectDuplicate);
    assert!(matches!(tenant.launch(&reject).unwrap(), cutover::Launched::Rejected { .. }));
    pass(1_000);
    assert_eq!(
        started(tenant.launch(&with_step("ended").request_id("r")).unwrap()),
        ended,
        "the request lives"
    );
    started(tenant.launch(&reject).unwrap());
    pass(1_000);
    assert_ne!(started(tenant.launch(&with_step("fresh").request_id("r")).unwrap()), ended);
    assert_eq!(tenant.instance(live).unwrap().unwrap().state, InstanceState::Running);
}

/// Each scope has its own times; another scope, and no scope at all, have those of the tenant. They are the same after a restart.
#[test]
fn retention_goes_by_scope() {
    let home = Home::new();
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let open = || home.builder().clock(clock.clone()).background(false).open().unwrap();
    let times = |instance_ms, key_ms, request_ms| Retention { instance_ms, key_ms, request_ms };
    let options = TenantOptions::new(memory("a"))
        .retention(times(2_000, 4_000, 6_000))
        .scope_retention("brief", times(500, 1_000, 1_500))
        .scope_retention("long", times(20_000, 40_000, 60_000));
    let engine = open();
    engine.create_tenant("acme", options).unwrap().define("work", 1, "text/plain", b"do it").unwrap();
    engine.close(LONG).unwrap();
    let engine = open();
    let tenant = engine.tenant("acme").unwrap();
    let scopes = ["brief", "long", "other", ""];
    let ids = scopes.map(|scope| {
        let launch = work().request_id(format!("request {scope}"));
        let launch = if scope.is_empty() { launch } else { launch.key(scope, "k") };
        let id = started(tenant.launch(&launch).unwrap());
        tenant.end(id, Ending::Completed, b"out", "").unwrap();
        id
    });
    // A launch that fails for want of its definition, unless the key or the request answers before that is looked for.
    let nothing = || Launch::new("nothing", 1).reuse(ReusePolicy::RejectDuplicate);
    let answers = |launch: &Launch| match tenant.launch(launch) {
        Err(err) => err.kind() != ErrorKind::NotFound,
        Ok(answer) => matches!(answer, Launched::Rejected { .. }),
    };
    // What of each scope is left: its instance, its key, its request.
    let left = || {
        [0, 1, 2, 3].map(|n| {
            let (scope, request) = (scopes[n], format!("request {}", scopes[n]));
            let instance = tenant.instance(ids[n]).unwrap().is_some();
            let key = !scope.is_empty() && answers(&nothing().key(scope, "k"));
            (instance, key, answers(&nothing().request_id(request)))
        })
    };
    let expected = |ms: u64| {
        let of = |(instance, key, request): (u64, u64, u64)| (ms < instance, ms < key, ms < request);
        [(500, 1_000, 1_500), (20_000, 40_000, 60_000), (2_000, 4_000, 6_000), (2_000, 0, 6_000)].map(of)
    };
    assert_eq!(left(), expected(0));
    let mut now_ms = 0;
    for ends in [500, 1_000, 1_500, 2_000, 4_000, 6_000, 20_000, 40_000, 60_000] {
        for ms in [ends - 1, ends] {
            clock.advance(Duration::from_millis(ms - now_ms));
            now_ms = ms;
            while engine.step().unwrap() {}
            assert_eq!(left(), expected(ms), "after {ms} ms");
        }
    }
}

#[test]
fn a_delayed_start_is_scheduled_until_its_time() {
    let home = Home::new();
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let engine = home.builder().clock(clock.clone()).background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&with_step("k").start_in(Duration::from_secs(60))).unwrap());
    let worker = tenant.register(many("w")).unwrap();
    clock.advance(Duration::from_millis(59_999));
    assert_eq!(tenant.instance(id).unwrap().unwrap().state, InstanceState::Scheduled);
    assert_eq!(worker.claim("default", Duration::ZERO).unwrap(), None);
    clock.advance(Duration::from_millis(1));
    assert_eq!(tenant.instance(id).unwrap().unwrap().state, InstanceState::Running);
    assert_eq!(worker.claim("default", Duration::ZERO).unwrap().unwrap().instance, id);
}

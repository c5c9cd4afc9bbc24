//! Launches: policies, request ids, limits.

use std::time::Duration;

use cutover::{
    ConflictPolicy, Defined, Ended, Ending, ErrorKind, InstanceState, Launch, Launched, NewStep, Retention,
    ReusePolicy,
};

use crate::common::{DROP, Home, KEEP, keyed, memory, started, tenant, work};

#[test]
fn a_launch_is_found_by_id_and_by_key() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let id = started(tenant.launch(&keyed("k").input(*b"in")).unwrap());
    let instance = tenant.instance(id).unwrap().unwrap();
    assert_eq!((instance.id, instance.state), (id, InstanceState::Running));
    assert_eq!(tenant.instance_by_key("scope", b"k").unwrap(), Some(instance));
    assert_eq!(tenant.instance_by_key("scope", b"other").unwrap(), None);
    assert_eq!(tenant.instance_by_key("other", b"k").unwrap(), None);
    assert_eq!(tenant.input(id).unwrap().unwrap(), b"in");
    assert_eq!(id.to_string().parse(), Ok(id));
}

#[test]
fn conflict_policies_say_what_a_live_key_means() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let first = started(tenant.launch(&keyed("k")).unwrap());
    assert_eq!(tenant.launch(&keyed("k")).unwrap(), Launched::Conflict { instance: first });
    let again = keyed("k").on_conflict(ConflictPolicy::UseExisting);
    assert_eq!(tenant.launch(&again).unwrap(), Launched::Existing(first));
    let replace = keyed("k").on_conflict(ConflictPolicy::TerminateExisting);
    let second = started(tenant.launch(&replace).unwrap());
    assert_eq!(tenant.instance(first).unwrap().unwrap().ending(), Some(Ending::Terminated));
    assert_eq!(tenant.instance_by_key("scope", b"k").unwrap().unwrap().id, second);
    assert_ne!(first, second);
    started(tenant.launch(&work()).unwrap());
    started(tenant.launch(&work()).unwrap());
}

#[test]
fn reuse_policies_say_what_an_ended_key_means() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let reject = |key| keyed(key).reuse(ReusePolicy::RejectDuplicate);
    let failed_only = |key| keyed(key).reuse(ReusePolicy::AllowDuplicateFailedOnly);
    for (key, ending) in [("done", Ending::Completed), ("failed", Ending::Failed)] {
        let id = started(tenant.launch(&keyed(key)).unwrap());
        assert_eq!(tenant.end(id, ending, b"", "").unwrap(), Ended::Now);
        assert_eq!(tenant.end(id, Ending::Failed, b"", "").unwrap(), Ended::Before(ending));
        let rejected = Launched::Rejected { instance: id, ending };
        assert_eq!(tenant.launch(&reject(key)).unwrap(), rejected);
        if ending == Ending::Completed {
            assert_eq!(tenant.launch(&failed_only(key)).unwrap(), rejected);
            started(tenant.launch(&keyed(key)).unwrap());
        } else {
            started(tenant.launch(&failed_only(key)).unwrap());
        }
    }
}

#[test]
fn an_ended_key_is_judged_by_time_and_not_by_how_far_collection_is() {
    let home = Home::new();
    let clock = std::sync::Arc::new(cutover::clock::ManualClock::at(1_800_000_000_000));
    let engine = home.builder().clock(clock.clone()).background(false).open().unwrap();
    let retention = Retention { key_ms: 1_000, ..KEEP };
    let tenant = tenant(&engine, memory("a"), retention);
    let id = started(tenant.launch(&keyed("k")).unwrap());
    tenant.end(id, Ending::Completed, b"", "").unwrap();
    let reject = keyed("k").reuse(ReusePolicy::RejectDuplicate);
    clock.advance(Duration::from_millis(999));
    assert_eq!(
        tenant.launch(&reject).unwrap(),
        Launched::Rejected { instance: id, ending: Ending::Completed }
    );
    clock.advance(Duration::from_millis(1));
    started(tenant.launch(&reject).unwrap());
}

#[test]
fn a_request_id_gets_the_same_answer_and_refuses_other_contents() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let request = keyed("k").request_id("r1").step(NewStep::new("s"));
    let id = started(tenant.launch(&request).unwrap());
    assert_eq!(started(tenant.launch(&request).unwrap()), id);
    let conflict = keyed("k").request_id("r2");
    assert_eq!(tenant.launch(&conflict).unwrap(), Launched::Conflict { instance: id });
    tenant.terminate(id, "").unwrap();
    assert_eq!(started(tenant.launch(&request).unwrap()), id, "also after it has ended");
    assert_eq!(
        tenant.launch(&conflict).unwrap(),
        Launched::Conflict { instance: id },
        "an answer is an answer"
    );
    for other in [
        request.clone().input(*b"x"),
        request.clone().key("scope", "k2"),
        request.clone().step(NewStep::new("t")),
        request.clone().reuse(ReusePolicy::RejectDuplicate),
        Launch::new("work", 2).key("scope", "k").request_id("r1").step(NewStep::new("s")),
    ] {
        let err = tenant.launch(&other).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::AlreadyExists, "{err}");
    }
    let unkeyed = work().request_id("r3");
    let id = started(tenant.launch(&unkeyed).unwrap());
    assert_eq!(started(tenant.launch(&unkeyed).unwrap()), id);
}

#[test]
fn a_batch_answers_each_launch_by_itself() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let (answers, end) =
        tenant.launch_batch(&[keyed("a"), keyed("b"), keyed("a"), Launch::new("none", 1), keyed("c")]);
    let first = started(answers[0]);
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[2], Launched::Conflict { instance: first });
    assert_eq!(end.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(tenant.instance_by_key("scope", b"c").unwrap(), None);
}

#[test]
fn what_is_over_a_limit_is_refused_in_one_sentence_and_changes_nothing() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let long = "x".repeat(256);
    for (launch, sentence) in [
        (Launch::new("", 1), "the name of the definition is empty"),
        (
            Launch::new(&long, 1),
            "the name of the definition has 256 bytes, more than the 255 that are allowed",
        ),
        (work().key("", "k"), "the scope of the key is empty"),
        (work().key("s", ""), "the key is empty"),
        (work().key("s", vec![0; 1025]), "the key has 1025 bytes, more than the 1024 that are allowed"),
        (work().request_id(""), "the request id is empty"),
        (work().step(NewStep::new("")), "the name of a step is empty"),
        (work().step(NewStep::new("a")).step(NewStep::new("a")), "the step \"a\" is named twice"),
    ] {
        let err = tenant.launch(&launch).unwrap_err();
        assert_eq!((err.kind(), err.to_string().as_str()), (ErrorKind::InvalidInput, sentence));
    }
    assert!(tenant.list(&Default::default(), None, 10).unwrap().instances.is_empty());
    started(
        tenant
            .launch(&work().key("s".repeat(255), vec![0xFF; 1024]).step(NewStep::new("x".repeat(255))))
            .unwrap(),
    );
}

#[test]
fn definitions_are_created_once() {
    let home = Home::new();
    let engine = home.open();
    let tenant = tenant(&engine, memory("a"), DROP);
    assert_eq!(tenant.define("d", 1, "t", b"one").unwrap(), Defined::Created);
    assert_eq!(tenant.define("d", 1, "t", b"one").unwrap(), Defined::Unchanged);
    assert_eq!(tenant.define("d", 1, "t", b"two").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(tenant.define("d", 2, "t", b"two").unwrap(), Defined::Created);
    let one = tenant.definition("d", 1).unwrap().unwrap();
    assert_eq!((one.body.as_slice(), one.version, one.content_type.as_str()), (&b"one"[..], 1, "t"));
    assert_eq!(tenant.definition("d", 3).unwrap(), None);
    let body = vec![7; 16 << 20];
    assert_eq!(tenant.define("large", 1, "", &body).unwrap(), Defined::Created);
    assert_eq!(tenant.definition("large", 1).unwrap().unwrap().body, body);
    let err = tenant.define("too large", 1, "", &vec![7; (16 << 20) + 1]).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::InvalidInput);
}

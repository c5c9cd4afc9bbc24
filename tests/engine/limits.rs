//! Every name, key and size at its limit, one over it and, where that is not allowed, empty, on every entry point: exactly the limit is
//! accepted; one more is refused in one sentence that names the culprit, and changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use cutover::formats::limits::{
    MAX_CALL, MAX_DEFINITION, MAX_KEY, MAX_NAME, MAX_PATH, MAX_PAYLOAD, MAX_REASON, MAX_REQUEST_ID,
    MAX_STEPS_PER_CALL,
};
use cutover::{
    Again, Completion, Decision, Ending, Engine, ErrorKind, Failure, Filter, Gate, Launch, MigrationOptions,
    NewStep, Result, StoreSpec, Task, Tenant, TenantOptions,
};

use crate::common::{Home, KEEP, many, memory, started, tenant, with_step, work};

/// What a call is made on.
struct Site {
    engine: Engine,
    tenant: Tenant,
    worker: Gate,
}

/// A call of which one part has so many bytes.
type Call = fn(&Site, usize) -> Result<()>;

impl Site {
    fn launch(&self, launch: &Launch) -> Result<()> {
        self.tenant.launch(launch).map(drop)
    }

    /// A task of an instance of its own.
    fn task(&self) -> Task {
        let id = started(self.tenant.launch(&work().step(NewStep::new("only").queue("tasks"))).unwrap());
        let task = self.worker.claim("tasks", Duration::ZERO).unwrap().unwrap();
        assert_eq!(task.instance, id);
        task
    }

    /// Completes a step; one that was refused is still held, and goes then.
    fn complete(&self, completion: Completion) -> Result<()> {
        let task = self.task();
        let refused = self.worker.complete(&task, completion).map(drop);
        if refused.is_err() {
            assert!(self.tenant.instance(task.instance).unwrap().unwrap().ending().is_none());
            self.worker.complete(&task, Completion::default()).unwrap();
        }
        refused
    }
}

fn name(len: usize) -> String {
    "n".repeat(len)
}

fn step(len: usize) -> NewStep {
    NewStep::new("step").input(vec![0; len])
}

/// So many steps with inputs of so many bytes together.
fn steps_with(total: usize) -> Vec<NewStep> {
    let whole = total / MAX_PAYLOAD;
    let sizes = (0..whole)
        .map(|_| MAX_PAYLOAD)
        .chain((!total.is_multiple_of(MAX_PAYLOAD)).then_some(total % MAX_PAYLOAD));
    sizes.enumerate().map(|(n, size)| NewStep::new(n.to_string()).input(vec![0; size])).collect()
}

fn launch_of(steps: Vec<NewStep>) -> Launch {
    steps.into_iter().fold(work(), Launch::step)
}

fn empty_steps(count: usize) -> Vec<NewStep> {
    (0..count).map(|n| NewStep::new(n.to_string()).queue("many")).collect()
}

fn next(next: Vec<NewStep>) -> Completion {
    Completion { next, ..Completion::default() }
}

/// Names and keys, which may not be empty.
const NAMES: [(&str, usize, Call); 20] = [
    ("the name of the tenant", MAX_NAME, |site, len| {
        site.engine.create_tenant(&name(len), TenantOptions::new(memory("a")))?;
        site.engine.delete_tenant(&name(len))
    }),
    ("the name of the tenant", MAX_NAME, |site, len| found(site.engine.tenant(&name(len)))),
    ("the name of the tenant", MAX_NAME, |site, len| found(site.engine.delete_tenant(&name(len)))),
    ("the scope of a retention", MAX_NAME, |site, len| {
        let options = TenantOptions::new(memory("a")).scope_retention(name(len), KEEP);
        site.engine.create_tenant("scoped", options)?;
        site.engine.delete_tenant("scoped")
    }),
    ("the name of the worker", MAX_NAME, |site, len| site.tenant.register(name(len)).map(drop)),
    ("the name of the queue", MAX_NAME, |site, len| site.worker.claim(&name(len), Duration::ZERO).map(drop)),
    ("the name of the definition", MAX_NAME, |site, len| {
        site.tenant.define(&name(len), 1, "t", b"").map(drop)
    }),
    ("the name of the definition", MAX_NAME, |site, len| site.tenant.definition(&name(len), 1).map(drop)),
    ("the name of the definition", MAX_NAME, |site, len| found(site.launch(&Launch::new(name(len), 2)))),
    ("the scope of the key", MAX_NAME, |site, len| site.launch(&work().key(name(len), "k"))),
    ("the scope of the key", MAX_NAME, |site, len| site.tenant.instance_by_key(&name(len), b"k").map(drop)),
    ("the key", MAX_KEY, |site, len| site.launch(&work().key("s", name(len)))),
    ("the key", MAX_KEY, |site, len| site.tenant.instance_by_key("s", name(len).as_bytes()).map(drop)),
    ("the request id", MAX_REQUEST_ID, |site, len| site.launch(&work().request_id(name(len)))),
    ("the name of a step", MAX_NAME, |site, len| site.launch(&work().step(NewStep::new(name(len))))),
    ("the name of a queue", MAX_NAME, |site, len| {
        site.launch(&work().step(NewStep::new("s").queue(name(len))))
    }),
    ("the name of a step", MAX_NAME, |site, len| site.complete(next(vec![NewStep::new(name(len))]))),
    ("the name of a queue", MAX_NAME, |site, len| {
        site.complete(next(vec![NewStep::new("s").queue(name(len))]))
    }),
    ("the name of the step", MAX_NAME, |site, len| {
        let id = site.tenant.instance_by_key("scope", b"there")?.unwrap().id;
        site.tenant.step_result(id, &name(len)).map(drop)
    }),
    ("the name of the step", MAX_NAME, |site, len| {
        let id = site.tenant.instance_by_key("scope", b"there")?.unwrap().id;
        found(site.tenant.decide(id, &name(len), &Decision::Retry))
    }),
];

/// What may be empty.
const SIZES: [(&str, usize, Call); 16] = [
    ("the content type", MAX_NAME, |site, len| site.tenant.define("typed", 1, &name(len), b"").map(drop)),
    ("the body of the definition", MAX_DEFINITION, |site, len| {
        site.tenant.define("large", 1, "t", &vec![7; len])?;
        assert_eq!(site.tenant.definition("large", 1)?.unwrap().body.len(), len);
        Ok(())
    }),
    ("the input of the instance", MAX_PAYLOAD, |site, len| {
        let id = started(site.tenant.launch(&work().input(vec![7; len]))?);
        assert_eq!(site.tenant.input(id)?.unwrap().len(), len);
        Ok(())
    }),
    ("the step \"step\": the input of a step", MAX_PAYLOAD, |site, len| site.launch(&work().step(step(len)))),
    ("the step \"step\": the input of a step", MAX_PAYLOAD, |site, len| site.complete(next(vec![step(len)]))),
    ("the list of the steps' inputs", MAX_CALL, |site, len| site.launch(&launch_of(steps_with(len)))),
    ("the list of the steps' inputs", MAX_CALL, |site, len| site.complete(next(steps_with(len)))),
    ("the list of steps", MAX_STEPS_PER_CALL, |site, len| site.launch(&launch_of(empty_steps(len)))),
    ("the list of steps", MAX_STEPS_PER_CALL, |site, len| site.complete(next(empty_steps(len)))),
    ("the result of the step", MAX_PAYLOAD, |site, len| {
        site.complete(Completion { result: vec![7; len], ..Completion::default() })
    }),
    ("the saved state of the step", MAX_PAYLOAD, |site, len| {
        let task = site.task();
        let saved = site.worker.save(&task, &vec![7; len]).map(drop);
        site.worker.complete(&task, Completion::default())?;
        saved
    }),
    ("the output of the instance", MAX_PAYLOAD, |site, len| {
        site.complete(Completion { output: vec![7; len], ..Completion::default() })
    }),
    ("the output of the instance", MAX_PAYLOAD, |site, len| {
        let id = started(site.tenant.launch(&work())?);
        let ended = site.tenant.end(id, Ending::Completed, &vec![7; len], "").map(drop);
        site.tenant.terminate(id, "")?;
        ended
    }),
    ("the path of a store", MAX_PATH, |site, len| {
        let spec = || memory(&name(len));
        site.engine.create_tenant("elsewhere", TenantOptions::new(spec()))?;
        site.engine.delete_tenant("elsewhere")
    }),
    ("the path of a store", MAX_PATH, |site, len| {
        site.tenant.migration().start(memory(&name(len)), MigrationOptions::default())?;
        site.tenant.migration().cancel()?;
        while site.engine.step()? {}
        Ok(())
    }),
    ("the name of the driver", MAX_NAME, |site, len| {
        let spec = StoreSpec::driver(name(len));
        let unknown = site.engine.create_tenant("b", TenantOptions::new(spec)).map(drop);
        // There is none of this name, which is another sentence.
        unknown.or_else(|err| if err.to_string().contains("there is no driver") { Ok(()) } else { Err(err) })
    }),
];

/// What is not there is not found, however long its name may be.
fn found<T>(answer: Result<T>) -> Result<()> {
    match answer {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map(drop),
    }
}

/// Everything that can be seen of a tenant, and the metadata.
fn seen(home: &Home, site: &Site) -> (usize, usize, Vec<String>, BTreeMap<String, Vec<u8>>) {
    let ended = Filter { live: Some(false), ..Filter::default() };
    let count = |filter: &Filter| {
        let (mut count, mut after) = (0, None);
        loop {
            let page = site.tenant.list(filter, after, 1000).unwrap();
            count += page.instances.len();
            match page.next {
                None => return count,
                next => after = next,
            }
        }
    };
    let files = std::fs::read_dir(home.path().join("data/meta")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect();
    (count(&Filter::default()), count(&ended), site.engine.tenants(), files)
}

/// Makes the call with one byte too many. Two of the calls need an instance of their own, which stays.
fn refused(home: &Home, site: &Site, what: &str, call: Call, len: usize, why: &str) {
    let before = seen(home, site);
    let err = call(site, len).expect_err(what);
    assert_eq!(err.kind(), ErrorKind::InvalidInput, "{err}");
    let text = err.to_string();
    assert!(text.starts_with(&format!("{what} {why}")) && !text.contains('\n') && text.len() < 200, "{text}");
    let after = seen(home, site);
    let (own, ended) = (after.0 - before.0, after.1 - before.1);
    assert!(own == ended && own <= 1, "{what}: {own} instances more, {ended} of them ended");
    assert!((after.2, after.3) == (before.2, before.3), "{what}: the metadata changed");
}

#[test]
fn exactly_the_limit_is_accepted_and_one_more_is_refused_by_name() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    tenant.launch(&with_step("there")).unwrap();
    let site = Site { worker: tenant.register(many("w")).unwrap(), engine, tenant };
    for (what, limit, call) in NAMES.into_iter().chain(SIZES) {
        refused(
            &home,
            &site,
            what,
            call,
            limit + 1,
            &format!("has {} bytes, more than the {limit}", limit + 1),
        );
        call(&site, limit).unwrap_or_else(|err| panic!("{what} of {limit} bytes: {err}"));
    }
    for (what, _, call) in NAMES {
        refused(&home, &site, what, call, 0, "is empty");
    }
}

#[test]
fn a_limit_counts_bytes_and_not_characters() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    tenant.define(&format!("{}x", "é".repeat(127)), 1, "t", b"").unwrap();
    let err = tenant.define(&"é".repeat(128), 1, "t", b"").unwrap_err();
    assert!(err.to_string().starts_with("the name of the definition has 256 bytes"), "{err}");
}

/// A reason is not refused: whoever ends something has to get it ended. It is cut at a character.
#[test]
fn reasons_are_cut_to_their_limit_wherever_they_are_given() {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    let long = format!("{}ü and more", "r".repeat(MAX_REASON - 1));
    let worker = tenant.register(many("w")).unwrap();
    let launch = || started(tenant.launch(&work().step(NewStep::new("only"))).unwrap());
    let (ended, terminated, cancelled) = (launch(), launch(), launch());
    tenant.end(ended, Ending::Failed, b"", &long).unwrap();
    tenant.terminate(terminated, &long).unwrap();
    tenant.cancel(cancelled, &long).unwrap();
    let failed = launch();
    let task = worker.claim("default", Duration::ZERO).unwrap().unwrap();
    worker.fail(&task, &Failure { reason: long.clone(), again: Again::Never }).unwrap();
    for id in [ended, terminated, cancelled] {
        assert_eq!(tenant.instance(id).unwrap().unwrap().reason, "r".repeat(MAX_REASON - 1));
    }
    let reason = tenant.instance(failed).unwrap().unwrap().reason;
    assert!(reason.len() <= MAX_REASON && reason.starts_with("step \"only\" failed: rrr"), "{reason}");
}

#[test]
fn a_path_that_no_record_can_hold_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    for bytes in [b"a\xFF".to_vec(), b"a\0b".to_vec()] {
        let path = std::ffi::OsString::from_vec(bytes);
        let options = TenantOptions::new(StoreSpec::driver("memory").path(path));
        let err = engine.create_tenant("a", options).map(drop).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::InvalidInput);
        assert!(err.to_string().ends_with("is not UTF-8, or has a zero byte"), "{err}");
    }
    assert!(engine.tenants().is_empty());
}

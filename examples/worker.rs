//! A worker loop: launch some instances of a workflow of two steps, claim the steps, keep the leases alive while working, and
//! wait for the results. `cargo run --example worker`

use std::time::Duration;

use cutover::{
    Again, Beat, Completion, Engine, Failure, Gate, Launch, Launched, NewStep, Result, Settled, StoreSpec,
    Task, Tenant, TenantOptions,
};

const SECOND: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("cutover-worker-{}", std::process::id()));
    let engine = Engine::builder(&dir).open()?;
    let tenant = engine.create_tenant("acme", TenantOptions::new(StoreSpec::driver("rocksdb")))?;
    let done = run(&tenant);
    engine.close(10 * SECOND)?;
    // A directory that cannot be removed is left to the system.
    drop(std::fs::remove_dir_all(dir));
    done
}

fn run(tenant: &Tenant) -> Result<()> {
    tenant.define("report", 1, "text/plain", b"fetch, then render")?;
    let mut instances = Vec::new();
    for day in ["monday", "tuesday", "wednesday", "monday"] {
        let launch = Launch::new("report", 1).key("daily", day).step(NewStep::new("fetch").input(day));
        match tenant.launch(&launch)? {
            Launched::Started(id) => {
                println!("{id}: started for {day}");
                instances.push(id);
            }
            other => println!("not started for {day}: {other:?}"),
        }
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = ["worker 1", "worker 2"]
            .into_iter()
            .map(|name| scope.spawn(move || work(&tenant.register(name)?, name)))
            .collect();
        for id in instances {
            let Some(ended) = tenant.wait(id, 10 * SECOND)? else { continue };
            println!("{id}: {:?}, {:?}", ended.state, String::from_utf8_lossy(&ended.output));
        }
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Ok(())))
    })
}

/// Takes steps until there has been none for a second.
fn work(gate: &Gate, name: &str) -> Result<()> {
    while let Some(task) = gate.claim("default", SECOND)? {
        // Long work goes on in pieces, with a sign of life after each, and stops when it is told to.
        let stop = (0..3).map(|_| piece(gate, &task)).find(|beat| !matches!(beat, Ok(Beat::Renewed)));
        let settled = match stop {
            None => gate.complete(&task, completion(&task))?,
            // It was silent for too long, and the step is somebody else's by now.
            Some(Ok(Beat::Refused(_))) => {
                gate.register_anew()?;
                continue;
            }
            Some(Ok(_)) => {
                gate.fail(&task, &Failure { reason: "asked to stop".into(), again: Again::Never })?
            }
            Some(Err(err)) => return Err(err),
        };
        match settled {
            Settled::Done { .. } => println!("{}: {} done by {name}", task.instance, task.step),
            Settled::Refused(why) => println!("{}: {} changed nothing: {why}", task.instance, task.step),
        }
    }
    Ok(())
}

fn piece(gate: &Gate, task: &Task) -> Result<Beat> {
    std::thread::sleep(Duration::from_millis(20));
    gate.heartbeat(task)
}

/// What a step gives back, and what comes after it.
fn completion(task: &Task) -> Completion {
    match task.step.as_str() {
        "fetch" => {
            let render = NewStep::new("render").input([b"figures of ", &task.input[..]].concat());
            Completion { result: task.input.clone(), next: vec![render], ..Completion::default() }
        }
        _ => Completion { output: [b"the report with ", &task.input[..]].concat(), ..Completion::default() },
    }
}

//! The engine inside tokio. Its calls block for as long as a sync takes, so they run on tokio's blocking threads. While instances are
//! launched and worked on, their tenant moves from RocksDB to sled. `cargo run --example in_tokio`

use std::time::Duration;

use cutover::{
    Completion, Engine, Error, ErrorKind, Launch, Launched, MigrationOptions, NewStep, Phase, Result,
    Retention, StoreSpec, Tenant, TenantOptions,
};

const SECOND: Duration = Duration::from_secs(1);

/// Runs a call of the engine where it may block.
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let joined = tokio::task::spawn_blocking(call).await;
    joined.map_err(|err| Error::with_source(ErrorKind::Panicked, "a blocking call", err))?
}

#[tokio::main]
async fn main() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("cutover-in-tokio-{}", std::process::id()));
    let path = dir.clone();
    let engine = blocking(move || Engine::builder(path).open()).await?;
    let of = engine.clone();
    let tenant = blocking(move || {
        // What has ended goes at once, so that the store that is left has soon drained.
        let retention = Retention { instance_ms: 0, key_ms: 0, request_ms: 0 };
        let options = TenantOptions::new(StoreSpec::driver("rocksdb")).retention(retention);
        let tenant = of.create_tenant("acme", options)?;
        tenant.define("resize", 1, "text/plain", b"make it small")?;
        Ok(tenant)
    })
    .await?;
    let worker = tokio::spawn(work(tenant.clone()));
    let launcher = tokio::spawn(launch(tenant.clone()));
    let moved = migrate(engine.clone(), tenant).await;
    for task in [launcher, worker] {
        task.abort();
        // One that was not aborted has ended before, with an error.
        if let Ok(ended) = task.await {
            ended?;
        }
    }
    blocking(move || engine.close(10 * SECOND)).await?;
    // A directory that cannot be removed is left to the system.
    drop(std::fs::remove_dir_all(dir));
    moved
}

/// Moves the tenant to sled and says what phase it is in.
async fn migrate(engine: Engine, tenant: Tenant) -> Result<()> {
    tokio::time::sleep(SECOND / 4).await;
    let migration = tenant.migration();
    // Long enough in each phase for a person to see it.
    let options = [Phase::PreMigration, Phase::Migration, Phase::PostMigration]
        .into_iter()
        .fold(MigrationOptions::default(), |options, phase| options.dwell(phase, SECOND / 4));
    println!("{}: the move to sled begins", tenant.status().phase);
    blocking(move || migration.start(StoreSpec::driver("sled"), options)).await?;
    let mut shown = Phase::Stable;
    loop {
        let status = tenant.status();
        if status.phase != shown {
            shown = status.phase;
            let takes = status.store(status.home()).and_then(|store| engine.store_driver(store));
            println!("{shown}: launches go to {}", takes.unwrap_or_default());
        }
        if shown == Phase::Stable {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Launches one instance after the other.
async fn launch(tenant: Tenant) -> Result<()> {
    for number in 0_u64.. {
        let of = tenant.clone();
        let launch = Launch::new("resize", 1).key("image", number.to_string()).step(NewStep::new("resize"));
        match blocking(move || of.launch(&launch)).await? {
            Launched::Started(id) if number % 25 == 0 => {
                println!("  image {number} is {id}, in {}", id.store());
            }
            Launched::Started(_) => {}
            other => println!("  image {number}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Takes steps and completes them.
async fn work(tenant: Tenant) -> Result<()> {
    loop {
        let of = tenant.clone();
        blocking(move || {
            let gate = of.register("tokio")?;
            while let Some(task) = gate.claim("default", SECOND / 10)? {
                gate.complete(&task, Completion::default())?;
            }
            Ok(())
        })
        .await?;
    }
}

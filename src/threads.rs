//! The engine's background threads: the one place where any is started, stopped and joined, and where a panic in one becomes an error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::shared::{Shared, Thread};
use crate::sync::channel::{Receiver, Sender, bounded};
use crate::sync::thread::{Builder, JoinHandle};
use crate::sync::{Instant, Mutex};

/// Longest sleep of a thread that has nothing to do.
const IDLE: Duration = Duration::from_secs(1);

/// Threads that run until their engine is closed.
pub(crate) struct Threads {
    running: Mutex<Vec<Running>>,
}

struct Running {
    name: &'static str,
    handle: JoinHandle<()>,
    /// Disconnected when the thread ends.
    alive: Receiver<()>,
}

impl Threads {
    pub(crate) fn new() -> Self {
        Self { running: Mutex::new(Vec::new()) }
    }

    /// Starts a thread that calls `tick` again and again; each call says how long to sleep before the next one, at most.
    pub(crate) fn start(
        &self,
        shared: &Arc<Shared>,
        thread: Thread,
        mut tick: impl FnMut() -> Option<Duration> + Send + 'static,
    ) -> Result<()> {
        let name = match thread {
            Thread::Collector => "cutover-collect",
            Thread::Replicator => "cutover-copy",
            Thread::Driver => "cutover-drive",
            Thread::Flipper => "cutover-flip",
            Thread::Keeper => "cutover-keep",
        };
        let core = Arc::clone(shared);
        self.run(shared, name, move || {
            while !core.is_closed() {
                let sleep = tick();
                core.sleep(thread, sleep.unwrap_or(IDLE).min(IDLE));
            }
        })
    }

    /// Starts a thread that runs this once. It has to end when the engine is closed.
    pub(crate) fn run(
        &self,
        shared: &Arc<Shared>,
        name: &'static str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let shared = Arc::clone(shared);
        let (ends, alive): (Sender<()>, _) = bounded(0);
        let body = move || {
            let _ends = ends;
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                shared.panicked(format!("the thread {name} panicked: {said}"));
            }
        };
        let handle = Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .map_err(|err| Error::io(format!("starting the thread {name}"), err))?;
        self.running.lock().push(Running { name, handle, alive });
        Ok(())
    }

    /// Joins all threads; the engine is closed already. What has not ended by the deadline is left behind and named.
    pub(crate) fn join(&self, deadline: Duration) -> Result<()> {
        let until = clock::deadline(deadline);
        let mut late = Vec::new();
        for running in std::mem::take(&mut *self.running.lock()) {
            let left = until.saturating_duration_since(Instant::now());
            let ended = running.alive.recv_timeout(left).is_err_and(|err| err.is_disconnected());
            // A panic was caught inside and is reported by the next call.
            if ended && running.handle.join().is_ok() {
                continue;
            }
            late.push(running.name);
        }
        if late.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::TimedOut, format!("still running after the deadline: {}", late.join(", "))))
    }
}

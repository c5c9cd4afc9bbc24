//! What may wait for longer than a moment: it runs on threads beside the one that serves all ports.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use crate::error::{Error, ErrorKind, Result};

/// How many threads one service may use at a time. There are as many as all services together may use, so that one that hangs holds up
/// nobody but those who call it.
pub(in crate::service) struct Turns {
    most: usize,
    free: Arc<Semaphore>,
}

/// Leave to use one of them.
pub(super) struct Turn(OwnedSemaphorePermit);

impl Turns {
    pub(in crate::service) fn new(most: usize) -> Self {
        Self { most, free: Arc::new(Semaphore::new(most)) }
    }

    pub(in crate::service) const fn most(&self) -> usize {
        self.most
    }

    /// Waits until a thread is free; first come, first served.
    pub(super) async fn next(&self) -> Result<Turn> {
        Arc::clone(&self.free).acquire_owned().await.map(Turn).map_err(|_| closed())
    }
}

impl Turn {
    /// Does it there, and keeps the turn until it is done, also if nobody waits for it any more.
    pub(super) async fn take<T: Send + 'static>(
        self,
        act: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Self(turn) = self;
        let done = spawn_blocking(move || {
            let _turn = turn;
            act()
        });
        match done.await {
            Ok(done) => done,
            Err(err) if err.is_panic() => {
                Err(Error::new(ErrorKind::Panicked, "a call to a service panicked"))
            }
            Err(_) => Err(closed()),
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the engine is closed")
}

//! Who is connected to a port.
//!
//! Anybody on the machine can connect, and says whether it was told the secret only with its first request. So who has not shown it makes
//! room for the next one when there is none, and the child is not kept out by those who say nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::sync::atomic::{AtomicBool, Ordering};

/// Most connections to a port at a time; others wait. Each may have a request and an answer in memory.
const MOST: usize = 16;
/// How long each has at least to show the secret.
const GRACE: Duration = Duration::from_millis(250);

/// Whether the secret was shown on a connection.
#[derive(Clone, Default)]
pub(super) struct Known(Arc<AtomicBool>);

impl Known {
    pub(super) fn show(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_shown(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Guest {
    task: AbortHandle,
    since: Instant,
    known: Known,
}

/// The connections of a port.
#[derive(Default)]
pub(super) struct Guests {
    tasks: JoinSet<()>,
    /// In the order in which they came.
    present: Vec<Guest>,
}

impl Guests {
    /// Serves one more.
    pub(super) fn take<F: Future<Output = ()> + Send + 'static>(&mut self, serve: impl FnOnce(Known) -> F) {
        let known = Known::default();
        let task = self.tasks.spawn(serve(known.clone()));
        self.present.push(Guest { task, since: Instant::now(), known });
    }

    /// Makes room for one more, if need be and if it can be had. If not, says after how long it is worth to look again, unless somebody
    /// goes before; `None` if all have shown the secret.
    pub(super) fn make_room(&mut self) -> Result<(), Option<Duration>> {
        self.present.retain(|guest| !guest.task.is_finished());
        if self.present.len() < MOST {
            return Ok(());
        }
        let oldest = self.present.iter().position(|guest| !guest.known.is_shown()).ok_or(None)?;
        let waited = self.present.get(oldest).map_or(GRACE, |guest| guest.since.elapsed());
        if waited < GRACE {
            return Err(Some(GRACE - waited));
        }
        self.present.remove(oldest).task.abort();
        Ok(())
    }

    /// Returns when one is gone; never if there is none.
    pub(super) async fn one_goes(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Cuts all of them off.
    pub(super) async fn send_away(&mut self) {
        self.tasks.shutdown().await;
    }
}

//! A load that a test drives from one thread, and the check after it: the same engine, the same lines, the same judge, without
//! threads of its own and without time.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cutover::store::Driver;
use cutover::{Builder, Engine, Result, Tenant};

use crate::ack::Line;
use crate::check::{self, Options, Verdict};
use crate::raw::Raw;
use crate::session::{Acks, Session, Setup, Thread};

/// A session whose threads take turns, and whose lines stay in memory.
pub struct Script {
    session: Session,
    threads: Vec<Thread>,
    next: usize,
    lines: Arc<Mutex<Vec<Line>>>,
}

impl Script {
    /// Begins a session with the threads of the setup.
    ///
    /// # Errors
    /// If the engine has one.
    pub fn begin(engine: &Engine, setup: Setup) -> Result<Self> {
        let (acks, lines) = Acks::in_memory();
        let threads = setup.threads;
        let session = Session::begin(engine, setup, acks)?;
        let threads = (0..threads).map(|number| session.thread(number)).collect::<Result<_>>()?;
        Ok(Self { session, threads, next: 0, lines })
    }

    /// The tenant.
    #[must_use]
    pub const fn tenant(&self) -> &Tenant {
        self.session.tenant()
    }

    /// Lets the next thread do its next operation.
    ///
    /// # Errors
    /// What the engine answered it with. It may have happened or not, and the lines say so; it may go on.
    pub fn step(&mut self) -> Result<()> {
        let at = self.next % self.threads.len().max(1);
        self.next += 1;
        self.threads.get_mut(at).map_or(Ok(()), Thread::step)
    }

    /// Notes where the tenant is. Every step does, too; call it after a move that nothing comes after.
    pub fn look(&self) {
        self.session.look();
    }

    /// What was acknowledged so far.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads the rows in `data`, opens it with `builder`, and holds both against the lines. Gives the engine back, to go on with.
///
/// Stores of `drivers` are opened by these to read their rows; others are read as they are or copied into `scratch`, an empty
/// directory. Nobody has `data` open.
///
/// # Errors
/// If the directory does not open, which no crash may cause.
pub fn reopen(
    lines: &[Line],
    data: &Path,
    builder: Builder,
    drivers: &[Arc<dyn Driver>],
    scratch: &Path,
    options: &Options,
) -> Result<(Verdict, Engine)> {
    let name = lines.iter().find_map(|line| match &line.ack {
        crate::Ack::Opened(opened) => Some(opened.tenant.as_str()),
        _ => None,
    });
    let raw = Raw::read(data, name.unwrap_or("load"), drivers, scratch)?;
    let engine = builder.open()?;
    let verdict = check::check(lines, &raw, &engine, options)?;
    Ok((verdict, engine))
}

//! What a person sees while a run works: on a terminal a few lines that are redrawn, elsewhere a line per phase.
//!
//! A thread looks at the books a few times a second. Under their locks it only copies what is new since the last look; everything
//! is worked out outside, so that the load does not notice.

mod frame;
mod gauge;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::gauge::{Gauge, Look};
use crate::books::Books;
use crate::entry::Clock;
use crate::failure::{Failure, Result};
use crate::plan::Plan;

/// Time between two looks.
const TICK: Duration = Duration::from_millis(200);

/// The thread that shows what happens; none if nothing is to be shown.
pub(crate) struct Live {
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Live {
    /// Starts to show what the books say.
    pub(crate) fn start(plan: &Plan, books: &Arc<Books>, quiet: bool) -> Result<Self> {
        if quiet {
            return Ok(Self { thread: None });
        }
        let (stop, stopped) = mpsc::channel();
        let (books, mut gauge, screen) = (Arc::clone(books), Gauge::new(plan.clone()), Screen::new());
        let clock = Clock::start();
        let show = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(TICK) {
                screen.show(&mut gauge, |seen| look(&books, seen, clock));
            }
            // What came since the last look belongs to the last lines.
            screen.show(&mut gauge, |seen| look(&books, seen, clock));
            screen.close(gauge.last_line());
        };
        let thread = std::thread::Builder::new().name("live-view".to_owned()).spawn(show);
        let thread = thread.map_err(|err| Failure::new(format!("cannot start the live view: {err}")))?;
        Ok(Self { thread: Some((stop, thread)) })
    }

    /// Clears the screen of what is redrawn and leaves the lines of the phases.
    pub(crate) fn stop(self) -> Result<()> {
        let Some((stop, thread)) = self.thread else { return Ok(()) };
        drop(stop);
        thread.join().map_err(|_| Failure::new("the live view panicked: a bug of ours"))
    }
}

fn look(books: &Books, seen: usize, clock: Clock) -> Look {
    let mut look = {
        let measure = books.measure.lock();
        Look {
            began: measure.began(),
            phases: measure.phases().to_vec(),
            samples: measure.samples(seen).to_vec(),
            copied: measure.copied(),
            working: measure.working(),
            ..Look::default()
        }
    };
    let ledger = books.ledger.lock();
    (look.launches, look.tallies) = (ledger.launches(), ledger.tallies());
    drop(ledger);
    look.now = clock.now();
    look
}

/// Where it is shown.
enum Screen {
    Terminal { bar: ProgressBar, bold: bool },
    Lines,
}

impl Screen {
    fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        // A template that cannot be read would leave the one that there is, which only looks worse.
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self::Terminal { bar, bold: std::env::var_os("NO_COLOR").is_none() }
    }

    fn show(&self, gauge: &mut Gauge, look: impl FnOnce(usize) -> Look) {
        let lines = gauge.take(look(gauge.seen()));
        lines.into_iter().for_each(|line| self.keep(line));
        if let Self::Terminal { bar, bold } = self {
            bar.set_message(frame::text(&gauge.view(), *bold));
            bar.tick();
        }
    }

    /// A line that stays.
    fn keep(&self, line: String) {
        match self {
            Self::Terminal { bar, .. } => bar.println(line),
            Self::Lines => eprintln!("{line}"),
        }
    }

    fn close(&self, last: Option<String>) {
        last.into_iter().for_each(|line| self.keep(line));
        if let Self::Terminal { bar, .. } = self {
            bar.finish_and_clear();
        }
    }
}

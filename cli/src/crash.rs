//! `--crash`: the engine's process is killed at random moments and started again, while the ledger stays here.
//!
//! The child says what it is about to do and what it was answered, a line each, written before it goes on. So at the moment of a
//! kill this process knows every answer that anybody could have acted on. A launch that was tried and not answered may have
//! happened or not: the next child calls it again with the same request id before it does anything else.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fastrand::Rng;
use parking_lot::Mutex;

use crate::books::Books;
use crate::entry::{Clock, Entry, Sink};
use crate::failure::{Failure, Result};
use crate::load::board::State;
use crate::part::{Order, Standing};
use crate::plan::{LONG_LIFE, Plan, TAIL};

/// One kill in so many comes while the engine is being opened.
const WHILE_OPENING_ONE_IN: usize = 5;
/// A child that says nothing for so long has gone wrong.
const SILENCE: Duration = Duration::from_secs(180);

/// What the reader of a child's lines tells the killer.
enum News {
    /// Launchers are at work.
    Up,
    /// The child still talks.
    Alive,
}

/// How a child came to its end.
enum End {
    Killed { up: Duration },
    Finished,
}

/// Runs the part in a child process, killing it as often as the plan says. Says how often it did.
pub(crate) fn run(plan: &Plan, clock: Clock, books: &Arc<Books>) -> Result<u32> {
    let mut rng = Rng::with_seed(plan.seed);
    let mut moments = kill_moments(plan, &mut rng);
    let mut up = Duration::ZERO;
    let mut opening = Duration::ZERO;
    let board = Arc::new(Mutex::new((None, State::default())));
    let mut kills = 0;
    loop {
        let (began, state) = board.lock().clone();
        let resume = books.ledger.lock().resume();
        let may_finish = moments.is_empty();
        let standing = Standing { origin: clock.origin, began, board: state, resume, may_finish };
        let mut part = Part::start(&Order { plan: plan.clone(), standing }, books, &board)?;
        let next = moments.pop();
        let while_opening = began.is_some() && rng.usize(..WHILE_OPENING_ONE_IN) == 0;
        let end = match next {
            Some(_) if while_opening => part.kill_after(opening.mul_f64(rng.f64()))?,
            Some(moment) => part.kill_when_up_for(moment.saturating_sub(up), &mut opening)?,
            None => part.finish()?,
        };
        match end {
            End::Killed { up: more } => {
                up += more;
                kills += 1;
                books.ledger.lock().killed();
                books.put(Entry::Down { at: clock.now() });
            }
            End::Finished => return Ok(kills),
        }
    }
}

/// When to kill, in time that launchers have been at work, last first: spread over the length that a run is likely to have.
fn kill_moments(plan: &Plan, rng: &mut Rng) -> Vec<Duration> {
    let dwells: Duration = plan.dwell_us.iter().flatten().map(|us| Duration::from_micros(*us)).sum();
    let length = Duration::from_micros(plan.migrate_at_us) + dwells + LONG_LIFE + 2 * TAIL;
    let mut moments: Vec<Duration> = (0..plan.crash).map(|_| length.mul_f64(rng.f64())).collect();
    moments.sort_unstable_by(|a, b| b.cmp(a));
    moments
}

struct Part {
    child: Child,
    reader: Option<JoinHandle<Result<()>>>,
    news: Receiver<News>,
    started: Instant,
}

impl Part {
    fn start(order: &Order, books: &Arc<Books>, board: &Arc<Mutex<(Option<u64>, State)>>) -> Result<Self> {
        let cannot = |what: &str, err: &dyn std::fmt::Display| Failure::new(format!("cannot {what}: {err}"));
        let program = std::env::current_exe().map_err(|err| cannot("find this program's own file", &err))?;
        let mut command = Command::new(program);
        command.arg("run-part").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.spawn().map_err(|err| cannot("start the process that is to be killed", &err))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("the process that is to be killed has no pipes"));
        };
        serde_json::to_writer(stdin, order).map_err(|err| cannot("give the process its order", &err))?;
        let (tell, news) = mpsc::channel();
        let (books, board) = (Arc::clone(books), Arc::clone(board));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n') {
                let line = line.map_err(|err| cannot("read what the process says", &err))?;
                // The last line before a kill may be torn; it was not said, then.
                let Ok(entry) = serde_json::from_slice::<Entry>(&line) else { continue };
                let said = if matches!(entry, Entry::Up { .. }) { News::Up } else { News::Alive };
                match &entry {
                    Entry::Began { at } => board.lock().0 = Some(*at),
                    Entry::Phase { phase, at } => board.lock().1.enter(*phase, *at),
                    _ => {}
                }
                books.put(entry);
                // Nobody listens any more when the child is about to end; that is no news either.
                drop(tell.send(said));
            }
            Ok(())
        });
        Ok(Self { child, reader: Some(reader), news, started: Instant::now() })
    }

    /// Kills it so long after its start, whatever it is doing.
    fn kill_after(&mut self, time: Duration) -> Result<End> {
        std::thread::sleep(time);
        self.kill(None)
    }

    /// Kills it when its launchers have been at work for so long.
    fn kill_when_up_for(&mut self, time: Duration, opening: &mut Duration) -> Result<End> {
        loop {
            match self.news.recv_timeout(SILENCE) {
                Ok(News::Up) => break,
                Ok(News::Alive) => {}
                Err(_) => return Err(self.went_wrong()),
            }
        }
        let up = Instant::now();
        *opening = self.started.elapsed();
        loop {
            let left = time.saturating_sub(up.elapsed());
            match self.news.recv_timeout(left) {
                Ok(_) if up.elapsed() < time => {}
                Ok(_) | Err(RecvTimeoutError::Timeout) => return self.kill(Some(up)),
                Err(RecvTimeoutError::Disconnected) => return Err(self.went_wrong()),
            }
        }
    }

    fn kill(&mut self, up: Option<Instant>) -> Result<End> {
        let failed = |err| Failure::new(format!("cannot kill the process: {err}"));
        self.child.kill().map_err(failed)?;
        self.child.wait().map_err(failed)?;
        let up = up.map_or(Duration::ZERO, |up| up.elapsed());
        self.join_reader()?;
        Ok(End::Killed { up })
    }

    /// Lets it come to its own end.
    fn finish(&mut self) -> Result<End> {
        loop {
            match self.news.recv_timeout(SILENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Err(self.went_wrong()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.join_reader()?;
        let status = self.child.wait().map_err(|err| Failure::new(format!("lost the process: {err}")))?;
        if status.success() { Ok(End::Finished) } else { Err(self.went_wrong()) }
    }

    fn join_reader(&mut self) -> Result<()> {
        let joined = self.reader.take().map(JoinHandle::join);
        joined.map_or(Ok(()), |joined| {
            joined.map_err(|_| Failure::new("the reader of the process's lines panicked: a bug of ours"))?
        })
    }

    fn went_wrong(&mut self) -> Failure {
        match self.child.try_wait() {
            Ok(Some(status)) => Failure::new(format!("the engine's process ended by itself: {status}")),
            _ => Failure::new(format!("the engine's process said nothing for {} s", SILENCE.as_secs())),
        }
    }
}

impl Drop for Part {
    /// No child outlives its parent's interest in it.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn kills_are_spread_over_the_run() {
        let mut plan = Plan::for_tests();
        (plan.crash, plan.migrate_at_us) = (20, 2_000_000);
        let moments = kill_moments(&plan, &mut Rng::with_seed(1));
        assert_eq!(moments.len(), 20);
        assert!(moments.is_sorted_by(|a, b| a >= b), "the first to come is taken from the end");
        assert!(moments[0] > Duration::from_secs(7) && moments[19] < Duration::from_secs(3), "{moments:?}");
    }
}

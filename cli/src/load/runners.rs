//! Who works on the steps. Without hand-overs, workers of nobody in particular; with them the workers of one runner after the other: each is made
//! ready beside the one that acts, is given the tenant while the load goes on, and says that it serves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use cutover::{Access, Attached, Engine, HandoverOptions, HandoverPhase, Tenant};

use super::{Site, join, spawn, worker};
use crate::entry::Entry;
use crate::failure::{Failure, Result};
use crate::plan::micros;

/// Flips of one hand-over that may be undone before the run is given up.
const TRIES: u32 = 20;
/// How long a worker waits to be let in before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// The runners of a run, and all their workers.
pub(super) struct Runners {
    site: Arc<Site>,
    engine: Engine,
    /// Hand-overs made: the number of the runner that acts follows from it.
    made: usize,
    tries: u32,
    acts: Option<Arc<Attached>>,
    next: Option<Arc<Attached>>,
    workers: Vec<JoinHandle<()>>,
}

impl Runners {
    /// Starts the workers; where the tenant is to be handed over, those of the runner that acts for it.
    pub(super) fn start(site: &Arc<Site>, engine: &Engine) -> Result<Self> {
        let (site, engine) = (Arc::clone(site), engine.clone());
        let mut runners =
            Self { site, engine, made: 0, tries: 0, acts: None, next: None, workers: Vec::new() };
        if runners.site.plan.handover_at_us.is_empty() {
            for number in 0..runners.site.plan.workers {
                let (site, tenant) = (Arc::clone(&runners.site), runners.site.tenant.clone());
                let work = move || worker::run(&site, &tenant, number);
                runners.workers.push(spawn(format!("worker-{number}"), work)?);
            }
            return Ok(runners);
        }
        runners.made = take_over(&runners.site.tenant)?;
        let attached =
            Arc::new(runners.engine.runner(&name(runners.made))?.attach(&runners.site.plan.tenant)?);
        attached.serving()?;
        runners.employ(&attached)?;
        runners.acts = Some(attached);
        Ok(runners)
    }

    /// Hands the tenant over if it is time to, and says whether all that the plan asks for were made.
    pub(super) fn hand_over_when_due(&mut self) -> Result<bool> {
        let site = Arc::clone(&self.site);
        let Some(at) = site.plan.handover_at_us.get(self.made) else { return Ok(true) };
        if site.clock.now() < site.began + at {
            return Ok(false);
        }
        let next = match self.next.take() {
            Some(next) => next,
            None => {
                let runner = self.engine.runner(&name(self.made + 1))?;
                let next = Arc::new(runner.attach_standby(&site.plan.tenant)?);
                self.employ(&next)?;
                next
            }
        };
        let report = site.tenant.handover().run(&name(self.made + 1), &HandoverOptions::default())?;
        site.sink.put(Entry::HandedOver {
            paused: micros(report.paused),
            queued: report.queued,
            refused: report.refused,
            undone: report.undone.clone(),
        });
        if let Some(why) = report.undone {
            self.tries += 1;
            if self.tries > TRIES {
                return Err(Failure::new(format!("a hand-over was undone {TRIES} times, at last: {why}")));
            }
            site.tenant.handover().cancel()?;
            self.next = Some(next);
            return Ok(false);
        }
        next.serving()?;
        self.acts = Some(next);
        (self.made, self.tries) = (self.made + 1, 0);
        Ok(self.made == site.plan.handover_at_us.len())
    }

    /// Joins all workers; they have been told to stop.
    pub(super) fn end(&mut self) -> Result<()> {
        self.workers.drain(..).try_for_each(join)
    }

    /// Workers of a runner, who begin when it is let in.
    fn employ(&mut self, runner: &Arc<Attached>) -> Result<()> {
        for number in 0..self.site.plan.workers {
            let (site, runner) = (Arc::clone(&self.site), Arc::clone(runner));
            let thread = format!("worker-{}-{number}", self.workers.len());
            self.workers.push(spawn(thread, move || {
                while !site.no_work.load(Ordering::Relaxed) && !site.given_up() {
                    match runner.wait_to_act(LOOK) {
                        Ok(true) => return worker::run(&site, &runner.tenant(), number),
                        Ok(false) => {}
                        Err(err) => return site.fail(err.into()),
                    }
                }
            })?);
        }
        Ok(())
    }
}

/// The name of the runner that acts after so many hand-overs.
fn name(made: usize) -> String {
    format!("runner-{}", made + 1)
}

/// Looks how many hand-overs a killed process has made, and calls off the one that it was preparing: it is made again.
fn take_over(tenant: &Tenant) -> Result<usize> {
    let handover = tenant.handover();
    let progress = handover.progress();
    if progress.handover.is_some_and(|one| one.phase == HandoverPhase::Prepare) {
        handover.cancel()?;
    }
    let primary = progress.seats.iter().find(|seat| seat.access == Access::Primary);
    let number = primary.and_then(|seat| seat.runner.strip_prefix("runner-")?.parse::<usize>().ok());
    Ok(number.map_or(0, |number| number.saturating_sub(1)))
}

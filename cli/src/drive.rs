//! Drives the move: starts it when it is time, takes it back where the plan says so, and waits until it is over.
//!
//! What to do next follows from the board alone, so it is the same after a kill.

use std::sync::Arc;
use std::time::Duration;

use cutover::{ErrorKind, Migration, MigrationOptions, StoreSpec};
use cutover_formats::Phase;

use crate::entry::Entry;
use crate::failure::{Failure, Result};
use crate::load::board::State;
use crate::load::{Crew, Site};
use crate::plan::{Plan, TAIL, Way, micros};

/// Longer than any run: a phase that the plan leaves in another way is never left by itself.
const FOR_EVER: Duration = Duration::from_secs(7 * 86_400);
/// A move that stays in one phase so long beyond its dwell is given up.
const STUCK: Duration = Duration::from_secs(1800);

/// How often progress is asked for, in microseconds: the engine looks into both stores to answer.
const LOOK: u64 = 250_000;

/// What the driver may have to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Wait,
    Start,
    Cancel,
    Reverse,
    Finish,
}

/// What is to be done at this time of the load.
fn next(plan: &Plan, state: &State, began: u64, now: u64) -> Act {
    let load = now.saturating_sub(began);
    let stayed = now.saturating_sub(state.since);
    let dwelt = |phase| stayed >= plan.dwell(phase).map_or(0, micros);
    match (state.phase, plan.way) {
        (Phase::Stable, _) if state.begun => {
            let settled = state.settled.unwrap_or(now);
            if now >= settled + micros(TAIL) { Act::Finish } else { Act::Wait }
        }
        (Phase::Stable, _) if load >= plan.migrate_at_us => Act::Start,
        (Phase::PreMigration, Way::Cancelled(after)) if stayed >= after => Act::Cancel,
        (phase, Way::Back(from)) if phase == from && dwelt(phase) => Act::Reverse,
        _ => Act::Wait,
    }
}

/// How the engine is to go through the phases: by itself, staying in each as long as told.
fn options(plan: &Plan) -> MigrationOptions {
    let leaves_by_hand = match plan.way {
        Way::Forward => None,
        Way::Back(phase) => Some(phase),
        Way::Cancelled(_) => Some(Phase::PreMigration),
    };
    Phase::ALL.into_iter().fold(MigrationOptions::default(), |options, phase| {
        match (leaves_by_hand == Some(phase), plan.dwell(phase)) {
            (true, _) => options.dwell(phase, FOR_EVER),
            (false, Some(dwell)) => options.dwell(phase, dwell),
            (false, None) => options,
        }
    })
}

fn target(plan: &Plan) -> StoreSpec {
    let spec = StoreSpec::driver(&plan.to);
    // The tenant's number is part of the name: a directory may hold several runs.
    if plan.same_driver() { spec.path(format!("{}-of-{}", plan.to, plan.tenant)) } else { spec }
}

/// Asks for what is old to be moved out of the store that drains. That it has drained meanwhile is fine.
fn move_stragglers(migration: &Migration, older_than: Duration) -> Result<()> {
    match migration.move_stragglers(older_than) {
        Err(err) if err.kind() != ErrorKind::IllegalMove => Err(err.into()),
        _ => Ok(()),
    }
}

/// Goes through the move and the hand-overs, and returns when the load may end.
pub(crate) fn run(site: &Arc<Site>, crew: &mut Crew, may_finish: bool) -> Result<()> {
    let mut copied = 0;
    // Since when the store drains out of which stragglers were asked to be moved.
    let mut moves = None;
    // The board follows the engine a moment later: what was asked for is not asked for twice.
    let mut asked = None;
    let mut looked = 0;
    loop {
        site.check()?;
        let (state, now) = (site.board.now(), site.clock.now());
        let migration = site.tenant.migration();
        let handed_over = crew.hand_over_when_due()?;
        let act = next(&site.plan, &state, site.began, now);
        let again = asked == Some((act, state.since));
        match act {
            Act::Finish if may_finish && handed_over && site.started() >= site.plan.instances => {
                return Ok(());
            }
            Act::Finish | Act::Wait => {}
            _ if again => {}
            Act::Start => drop(migration.start(target(&site.plan), options(&site.plan))?),
            Act::Cancel => migration.cancel()?,
            Act::Reverse => migration.reverse()?,
        }
        asked = Some((act, state.since));
        if let Some(older_than) = site.plan.move_older_than()
            && matches!(state.phase, Phase::PostMigration | Phase::PostRollback)
            && moves != Some(state.since)
        {
            move_stragglers(&migration, older_than)?;
            moves = Some(state.since);
        }
        if state.begun {
            if now >= looked + LOOK {
                looked = now;
                report_copied(site, &mut copied);
            }
            check_stuck(site, &state, now)?;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn report_copied(site: &Site, copied: &mut u64) {
    let copy = site.tenant.migration().progress().copy;
    if copy.copied > *copied {
        *copied = copy.copied;
        site.sink.put(Entry::Copied { definitions: copy.copied, of: copy.total });
    }
}

fn check_stuck(site: &Site, state: &State, now: u64) -> Result<()> {
    let allowed = STUCK + site.plan.dwell(state.phase).unwrap_or_default();
    if state.phase == Phase::Stable || now.saturating_sub(state.since) < micros(allowed) {
        return Ok(());
    }
    let blockers = site.tenant.migration().progress().waiting_for;
    Err(Failure::new(format!(
        "the move did not leave {} in {} s: {blockers}",
        state.phase,
        allowed.as_secs()
    )))
}

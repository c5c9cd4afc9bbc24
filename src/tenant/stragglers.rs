//! Emptying the store that launches have left: what was launched long ago moves to the other one, and what is kept of what has ended.
//!
//! A pass goes over the heads of all instances in the store and then over its keys. An instance that is old enough goes as
//! [`relocate`](super::relocate) says, with its key. A key that outlives its instance does not change any more, so it is copied, durably and under
//! its lock, before it goes; a crash in between leaves it in both, the same. When neither instances nor keys are left, what nobody reaches any
//! more is removed. Answered requests go last, without being asked ([`requests`](super::requests)).
//!
//! One step looks at one page and moves a few, under one pin, and then lets others have the locks: its pace is the migration's. A pass that has
//! left something is followed by the next one when the first of that is old enough.

use std::time::Duration;

use cutover_formats::{Expiring, Family, Phase, Prefix, Record, RowId};

use super::control::Control;
use super::quarantine::readable;
use super::relocate::{expiry_of, goes};
use super::{Inner, Operation};
use crate::clock;
use crate::error::{ErrorKind, Result};
use crate::store::Write;
use crate::store::space::{Changes, Space};
use crate::sync::Instant;

/// Most instances or keys of one step, and how long moving instances may take: the control is held meanwhile, and launches wait for the locks
/// of the keys.
const TOGETHER: usize = 16;
const SLICE: Duration = Duration::from_millis(20);
/// Rows that one step looks at, and the pause after a page of which all were looked at: most of a pass is for others.
const PAGE: usize = 256;
const PAUSE: Duration = Duration::from_millis(5);
/// Rows that are removed in one commit, and most commits of one step.
const ROWS: usize = 256;
const COMMITS: usize = 64;
/// How long after a pass the next one begins at the earliest, if it has left something.
const AGAIN: Duration = Duration::from_secs(1);

/// How far moving instances out of the store that launches have left has come, in the migration under way and since the engine was
/// opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MoveProgress {
    /// Instances moved, with their keys.
    pub moved: u64,
    /// Keys moved, or removed because they were not needed any more, that had outlived their instances.
    pub keys: u64,
    /// The longest time for which the locks of one of the instances were held, in microseconds.
    pub pause_max_us: u64,
}

impl MoveProgress {
    /// What the rate counts.
    fn went(&self) -> u64 {
        self.moved + self.keys
    }
}

/// Where a pass over the store has come to.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    over: Over,
    /// The row that was looked at last.
    after: Option<RowId<'static>>,
    /// When the first of what it has left can go, in milliseconds since 1970.
    first_ms: Option<u64>,
    /// Not before, on the engine's monotonic clock.
    next: Duration,
}

/// What a pass goes over.
#[derive(Debug, Default, PartialEq, Eq)]
enum Over {
    #[default]
    Instances,
    Keys,
    /// Neither, until the next pass begins, in milliseconds since 1970.
    Rest {
        until_ms: u64,
    },
}

/// What a step has seen of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// All of it, and nothing comes after it.
    Last,
    /// All of it.
    Whole,
    /// Not all: as much goes as may go in one step.
    Part,
}

impl Pass {
    fn turn_to(&mut self, over: Over) {
        (self.over, self.after) = (over, None);
    }

    /// Something stays until then, in milliseconds since 1970.
    fn leaves(&mut self, until_ms: u64) {
        self.first_ms = Some(self.first_ms.map_or(until_ms, |first| first.min(until_ms)));
    }

    /// It is over. What cannot be moved although it is old enough is tried again; so is what is left without a moment of its own.
    fn rest(&mut self, now_ms: u64) {
        let until_ms = self.first_ms.take().unwrap_or(0).max(now_ms.saturating_add(clock::millis(AGAIN)));
        self.turn_to(Over::Rest { until_ms });
    }
}

/// Which instances are to go, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    older_ms: u64,
    /// Instances and keys a second; 0 for no limit.
    rate: u32,
}

impl Wish {
    /// When what was launched then is old enough.
    fn goes_ms(&self, launched_ms: u64) -> u64 {
        launched_ms.saturating_add(self.older_ms)
    }

    fn is_old(&self, launched_ms: u64, now_ms: u64) -> bool {
        self.goes_ms(launched_ms) <= now_ms
    }

    /// Most instances or keys of one step: with a low rate each step moves one.
    fn together(&self) -> usize {
        match self.rate {
            0 => TOGETHER,
            rate => (rate as usize / 50).clamp(1, TOGETHER),
        }
    }

    /// How long to pause after so many.
    fn pause(&self, went: u64) -> Duration {
        match self.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(went as f64 / f64::from(rate)),
        }
    }
}

/// Keys that go in one step.
#[derive(Default)]
struct Carried {
    copies: Changes,
    removals: Changes,
    keys: u64,
    /// The first deadline of a copy, in milliseconds since 1970.
    deadline: Option<u64>,
}

impl Inner {
    /// Moves the next ones, if the migration is to, and says when to come again; `None` if it is not. Only in a phase whose wait is over.
    pub(crate) fn move_stragglers(&self, control: &mut Control) -> Result<Option<Duration>> {
        let migration = control.record().migration.as_ref();
        let wish = migration.and_then(|migration| {
            Some(Wish { older_ms: migration.move_older_ms?, rate: migration.move_rate })
        });
        let Some(wish) = wish else { return Ok(None) };
        let (pass, moves) = (&mut control.drive.pass, &mut control.drive.moves);
        let now = self.shared.clock.monotonic();
        if now < pass.next {
            return Ok(Some(pass.next - now));
        }
        let before = moves.went();
        let pause = self.go_on(wish, pass, moves);
        pass.next = now + wish.pause(moves.went() - before);
        pass.next = pass.next.max(now + pause?);
        Ok(Some(pass.next - now))
    }

    /// One step of a pass. Returns how long it leaves the store to others, at least.
    fn go_on(&self, wish: Wish, pass: &mut Pass, moves: &mut MoveProgress) -> Result<Duration> {
        let op = self.enter("move instances")?;
        let Some(from) = &op.other else { return Ok(AGAIN) };
        if !matches!(op.status.phase, Phase::PostMigration | Phase::PostRollback) {
            return Ok(AGAIN);
        }
        let looked = match pass.over {
            Over::Instances => self.move_some(&op, from, wish, pass, moves)?,
            Over::Keys => self.carry_keys(&op, from, wish, pass, moves)?,
            Over::Rest { until_ms } => {
                if self.sweep(&op, from)? {
                    return Ok(Duration::ZERO);
                }
                let left = Duration::from_millis(until_ms.saturating_sub(self.shared.clock.peek_ms()));
                if left.is_zero() {
                    pass.turn_to(Over::Instances);
                }
                return Ok(left.min(AGAIN));
            }
        };
        match (looked, &pass.over) {
            (Looked::Last, Over::Instances) => pass.turn_to(Over::Keys),
            (Looked::Last, _) => pass.rest(self.shared.clock.peek_ms()),
            (Looked::Whole, _) => return Ok(PAUSE),
            (Looked::Part, _) => {}
        }
        Ok(Duration::ZERO)
    }

    /// Moves those of the next page of instances that are old enough, as many as may go.
    fn move_some(
        &self,
        op: &Operation<'_>,
        from: &Space,
        wish: Wish,
        pass: &mut Pass,
        moves: &mut MoveProgress,
    ) -> Result<Looked> {
        let (now_ms, mut room) = (self.shared.now_ms(), wish.together());
        let page = from.survey(self.id, Prefix::Heads, pass.after.as_ref(), PAGE, u64::MAX)?;
        page.damaged.iter().try_for_each(|damage| self.set_aside(from, damage))?;
        // However long reading them took: one is looked at in any case.
        let began = Instant::now();
        for (row, record) in page.rows {
            if room == 0 || began.elapsed() > SLICE {
                return Ok(Looked::Part);
            }
            match (&row, record) {
                (RowId::Instance { id }, Ok(Record::Instance(head)))
                    if wish.is_old(head.launched_ms, now_ms) =>
                {
                    match readable(self.relocate(op, *id))? {
                        Some(Some(pause)) => {
                            moves.moved += 1;
                            moves.pause_max_us = moves.pause_max_us.max(pause.as_micros() as u64);
                            room -= 1;
                        }
                        // It is in doubt, perhaps.
                        Some(None) => pass.leaves(now_ms),
                        // What cannot be read has been set aside, and keeps nobody else. The next pass begins when somebody has seen to it.
                        None => {}
                    }
                }
                (_, Ok(Record::Instance(head))) => pass.leaves(wish.goes_ms(head.launched_ms)),
                (_, Ok(_)) => {}
                (_, Err(err)) => self.set_row_aside(from, &row, err)?,
            }
            pass.after = Some(row);
        }
        Ok(if page.done { Looked::Last } else { Looked::Whole })
    }

    /// Carries those of the next page of keys that have ended and whose instances are old enough, as many as may go.
    fn carry_keys(
        &self,
        op: &Operation<'_>,
        from: &Space,
        wish: Wish,
        pass: &mut Pass,
        moves: &mut MoveProgress,
    ) -> Result<Looked> {
        let now_ms = self.shared.now_ms();
        let page = from.survey(self.id, Prefix::All(Family::Keys), pass.after.as_ref(), PAGE, u64::MAX)?;
        page.damaged.iter().try_for_each(|damage| self.set_aside(from, damage))?;
        let mut looked = if page.done { Looked::Last } else { Looked::Whole };
        let (mut due, mut last) = (Vec::new(), None);
        for (row, record) in page.rows {
            if due.len() == wish.together() {
                looked = Looked::Part;
                break;
            }
            match record {
                // That of a live instance goes with it.
                Ok(Record::Key(key)) if key.ended.is_none() => {}
                Ok(Record::Key(key)) if !wish.is_old(key.instance.millis(), now_ms) => {
                    pass.leaves(wish.goes_ms(key.instance.millis()));
                }
                _ => due.push(row.clone()),
            }
            last = Some(row);
        }
        // Launches wait for these only, not for all that are looked at.
        let _locks = self.locks.keys.lock_all(due.iter().filter_map(|row| match row {
            RowId::Key { scope, key } => Some((self.id, (&**scope, &**key))),
            _ => None,
        }));
        let mut carried = Carried::default();
        for row in &due {
            if self.doubts.has(row) {
                pass.leaves(now_ms);
            } else {
                self.carry_key(from, &op.home, wish, row, &mut carried)?;
            }
        }
        // The other store's copy goes next, and may be removed with its store: what takes its place is durable at every level, be it a copy or
        // the later launch that makes one needless.
        if !carried.copies.is_empty() {
            self.commit_as(&op.home, &carried.copies, Write::Synced)?;
            carried.deadline.into_iter().for_each(|at_ms| self.expires_at(at_ms));
        } else if !carried.removals.is_empty() {
            op.home.sync()?;
        }
        if !carried.removals.is_empty() {
            from.apply(self.id, &carried.removals, Write::Relaxed)?;
        }
        moves.keys += carried.keys;
        pass.after = last.or(pass.after.take());
        Ok(looked)
    }

    /// Under the lock of the key: adds what is to be written and removed.
    fn carry_key(
        &self,
        from: &Space,
        to: &Space,
        wish: Wish,
        row: &RowId<'static>,
        carried: &mut Carried,
    ) -> Result<()> {
        let now_ms = self.shared.now_ms();
        // Collected since it was listed, perhaps.
        let here = match from.key(self.id, row) {
            Ok(Some(here)) => here,
            Ok(None) => return Ok(()),
            Err(err) => return self.set_row_aside(from, row, err),
        };
        let Some(expiry) = expiry_of(row, &here) else { return Ok(()) };
        let Some(end) = here.ended.filter(|_| wish.is_old(here.instance.millis(), now_ms)) else {
            return Ok(());
        };
        let there = match to.key(self.id, row) {
            Err(err) if err.kind() == ErrorKind::Corrupt => return self.set_row_aside(to, row, err),
            read => read?,
        };
        carried.keys += 1;
        carried.removals.delete(row.clone());
        carried.removals.delete(expiry.clone());
        if end.out_of_scope_ms > now_ms && goes(&here, there.as_ref()) {
            carried.deadline = [carried.deadline, Some(end.out_of_scope_ms)].into_iter().flatten().min();
            carried.copies.put(row.clone(), Record::Key(here));
            carried.copies.mark(expiry);
        }
        Ok(())
    }

    /// Removes from a store without instances and keys what nobody reaches any more: deadlines of what is gone, and what a move into it that
    /// was not finished has left. Nothing is launched there, so nothing of it is needed again. Says whether there was anything.
    fn sweep(&self, op: &Operation<'_>, from: &Space) -> Result<bool> {
        for family in [Family::Instances, Family::Keys] {
            if from.first(self.id, Prefix::All(family))?.is_some() {
                return Ok(false);
            }
        }
        self.settle_moves(op)?;
        if from.first(self.id, Prefix::Replaces)?.is_some() {
            return Ok(false);
        }
        let mut any = false;
        for family in [Family::Steps, Family::Ready, Family::Expiry] {
            let mut after = None;
            for _ in 0..COMMITS {
                let page = from.survey(self.id, Prefix::All(family), after.as_ref(), ROWS, u64::MAX)?;
                page.damaged.iter().try_for_each(|damage| self.set_aside(from, damage))?;
                after = page.rows.last().map(|(row, _)| row.clone()).or(after);
                let mut changes = Changes::default();
                page.rows
                    .into_iter()
                    .map(|(row, _)| row)
                    .filter(is_unreachable)
                    .for_each(|row| changes.delete(row));
                if !changes.is_empty() {
                    any = true;
                    from.apply(self.id, &changes, Write::Relaxed)?;
                }
                if page.done {
                    break;
                }
            }
        }
        Ok(any)
    }
}

/// Whether a row of a store without instances and keys leads to nothing. Requests have deadlines of their own.
fn is_unreachable(row: &RowId<'_>) -> bool {
    !matches!(row, RowId::Expiry { what: Expiring::Request { .. }, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_old_from_its_moment_on() {
        let wish = Wish { older_ms: 100, rate: 0 };
        assert!(!wish.is_old(1_000, 1_099));
        assert!(wish.is_old(1_000, 1_100));
        assert!(Wish { older_ms: 0, rate: 0 }.is_old(1_000, 1_000));
        assert!(!Wish { older_ms: u64::MAX, rate: 0 }.is_old(1_000, u64::MAX - 1), "never");
    }

    #[test]
    fn the_pace_is_the_rate() {
        for rate in [1, 10, 49, 50, 100, 799, 800, 5_000, 1_000_000] {
            let wish = Wish { older_ms: 0, rate };
            let (mut moved, mut time) = (0, Duration::ZERO);
            for _ in 0..1_000 {
                moved += wish.together() as u64;
                time += wish.pause(wish.together() as u64);
            }
            let pace = moved as f64 / time.as_secs_f64();
            assert!((pace / f64::from(rate) - 1.0).abs() < 0.01, "{pace} a second instead of {rate}");
            assert!((1..=TOGETHER).contains(&wish.together()));
        }
        assert_eq!(Wish { older_ms: 0, rate: 0 }.pause(1_000), Duration::ZERO);
    }
}

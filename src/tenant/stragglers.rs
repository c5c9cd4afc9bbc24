//! Emptying the store that launches have left: what was launched long ago moves to the other one, and what is kept of what has ended.
//!
//! A pass goes over the heads of all instances in the store and then over its keys. An instance that is old enough goes as
//! [`relocate`](super::relocate) says, with its key. A key that outlives its instance does not change any more, so it is copied, durably and under
//! its lock, before it goes; a crash in between leaves it in both, the same. When neither instances nor keys are left, what nobody reaches any
//! more is removed. Answered requests go last, without being asked ([`requests`](super::requests)).
//!
//! One step moves a few, under one pin, and then lets others have the locks: its pace is the migration's.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use cutover_formats::{Expiring, Family, Phase, Prefix, Record, RowId};

use super::control::Control;
use super::quarantine::readable;
use super::relocate::{expiry_of, goes};
use super::{Inner, Operation};
use crate::error::{ErrorKind, Result};
use crate::store::Write;
use crate::store::space::{Changes, Space};
use crate::sync::Instant;

/// Most instances of one step, and how long it may take: the control is held meanwhile.
const TOGETHER: usize = 16;
const SLICE: Duration = Duration::from_millis(20);
/// Heads that one step looks at.
const HEADS: usize = 256;
/// Keys that are carried in one commit: few, because launches wait for their locks.
const KEYS: usize = 16;
/// Rows that are removed in one commit, and most commits of one step.
const ROWS: usize = 256;
const COMMITS: usize = 64;
/// How long after a pass the next one begins, if it has left something: that gets older.
const AGAIN: Duration = Duration::from_secs(1);

/// How far moving instances out of the store that launches have left has come, in the migration under way and since the engine was
/// opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MoveProgress {
    /// Instances moved.
    pub moved: u64,
    /// Instances in the store that is being left, as counted at the beginning of the present pass over them, less those moved since.
    pub left: u64,
    /// The longest time for which the locks of one of them were held, in microseconds.
    pub pause_max_us: u64,
}

/// Where a pass over the store has come to.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    over: Over,
    /// The row that was looked at last.
    after: Option<RowId<'static>>,
    /// Not before, on the engine's monotonic clock.
    next: Duration,
}

/// What a pass goes over.
#[derive(Debug, Default, PartialEq, Eq)]
enum Over {
    #[default]
    Instances,
    Keys,
    Rest,
}

/// Which instances are to go, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    older_ms: u64,
    /// Instances a second; 0 for no limit.
    rate: u32,
}

impl Wish {
    fn is_old(&self, launched_ms: u64, now_ms: u64) -> bool {
        launched_ms.saturating_add(self.older_ms) <= now_ms
    }

    /// Most instances of one step: with a low rate each step moves one.
    fn together(&self) -> usize {
        match self.rate {
            0 => TOGETHER,
            rate => (rate as usize / 50).clamp(1, TOGETHER),
        }
    }

    /// How long to pause after so many.
    fn pause(&self, moved: u64) -> Duration {
        match self.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(moved as f64 / f64::from(rate)),
        }
    }
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
        let before = moves.moved;
        let more = self.go_on(wish, pass, moves);
        pass.next = now + wish.pause(moves.moved - before);
        if !more? {
            pass.next += AGAIN;
        }
        Ok(Some(pass.next - now))
    }

    /// One step of a pass. Says whether there is more to do right now.
    fn go_on(&self, wish: Wish, pass: &mut Pass, moves: &mut MoveProgress) -> Result<bool> {
        let op = self.enter("move instances")?;
        let Some(from) = &op.other else { return Ok(false) };
        if !matches!(op.status.phase, Phase::PostMigration | Phase::PostRollback) {
            return Ok(false);
        }
        match pass.over {
            Over::Instances => {
                if pass.after.is_none() {
                    moves.left = self.count_instances(from)?;
                }
                if self.move_some(&op, from, wish, pass, moves)? {
                    (pass.over, pass.after) = (Over::Keys, None);
                }
                Ok(true)
            }
            Over::Keys => {
                pass.after = self.carry_keys(&op, from, wish, pass.after.as_ref())?;
                if pass.after.is_none() {
                    pass.over = Over::Rest;
                }
                Ok(true)
            }
            Over::Rest => {
                (pass.over, pass.after) = (Over::Instances, None);
                self.sweep(&op, from)
            }
        }
    }

    fn count_instances(&self, space: &Space) -> Result<u64> {
        let mut count = 0;
        space.scan(self.id, Prefix::Heads, None, |_, _| {
            count += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(count)
    }

    /// Moves the next instances that are old enough. Says whether all were looked at.
    fn move_some(
        &self,
        op: &Operation<'_>,
        from: &Arc<Space>,
        wish: Wish,
        pass: &mut Pass,
        moves: &mut MoveProgress,
    ) -> Result<bool> {
        let (began, now_ms) = (Instant::now(), self.shared.now_ms());
        let mut room = wish.together();
        let page = from.survey(self.id, Prefix::Heads, pass.after.as_ref(), HEADS, u64::MAX)?;
        page.damaged.iter().try_for_each(|damage| self.set_aside(from, damage))?;
        for (row, record) in page.rows {
            if room == 0 || began.elapsed() > SLICE {
                return Ok(false);
            }
            match (&row, record) {
                (RowId::Instance { id }, Ok(Record::Instance(head)))
                    if wish.is_old(head.launched_ms, now_ms) =>
                {
                    // What cannot be read has been set aside, and keeps nobody else.
                    if let Some(pause) = readable(self.relocate(op, *id))?.flatten() {
                        moves.moved += 1;
                        moves.left = moves.left.saturating_sub(1);
                        moves.pause_max_us = moves.pause_max_us.max(pause.as_micros() as u64);
                        room -= 1;
                    }
                }
                (_, Ok(_)) => {}
                (_, Err(err)) => self.set_row_aside(from, &row, err)?,
            }
            pass.after = Some(row);
        }
        Ok(page.done)
    }

    /// Carries the next keys that have ended and whose instances are old enough. Returns the last one that was looked at; `None` if all were.
    fn carry_keys(
        &self,
        op: &Operation<'_>,
        from: &Space,
        wish: Wish,
        after: Option<&RowId<'static>>,
    ) -> Result<Option<RowId<'static>>> {
        let page = from.survey(self.id, Prefix::All(Family::Keys), after, KEYS, u64::MAX)?;
        page.damaged.iter().try_for_each(|damage| self.set_aside(from, damage))?;
        let _locks = self.locks.keys.lock_all(page.rows.iter().filter_map(|(row, _)| match row {
            RowId::Key { scope, key } => Some((self.id, (&**scope, &**key))),
            _ => None,
        }));
        let (mut copies, mut removals) = (Changes::default(), Changes::default());
        let mut first = u64::MAX;
        for (row, _) in &page.rows {
            let carried = self.carry_key(from, &op.home, wish, row, &mut copies, &mut removals)?;
            first = first.min(carried.unwrap_or(u64::MAX));
        }
        if !copies.is_empty() {
            // The other store's copy goes next, and may be removed with its store: durable at every level.
            self.commit_as(&op.home, &copies, Write::Synced)?;
            self.expires_at(first);
        }
        if !removals.is_empty() {
            from.apply(self.id, &removals, Write::Relaxed)?;
        }
        let last = page.rows.into_iter().next_back().map(|(row, _)| row);
        Ok(last.filter(|_| !page.done))
    }

    /// Under the lock of the key: what is to be written and removed. Returns the deadline of a copy.
    fn carry_key(
        &self,
        from: &Space,
        to: &Space,
        wish: Wish,
        row: &RowId<'static>,
        copies: &mut Changes,
        removals: &mut Changes,
    ) -> Result<Option<u64>> {
        let now_ms = self.shared.now_ms();
        if self.doubts.has(row) {
            return Ok(None);
        }
        // Collected since it was listed, perhaps.
        let here = match from.key(self.id, row) {
            Ok(Some(here)) => here,
            Ok(None) => return Ok(None),
            Err(err) => return self.set_row_aside(from, row, err).map(|()| None),
        };
        // That of a live instance goes with it.
        let Some(expiry) = expiry_of(row, &here) else { return Ok(None) };
        let Some(end) = here.ended.filter(|_| wish.is_old(here.instance.millis(), now_ms)) else {
            return Ok(None);
        };
        let there = match to.key(self.id, row) {
            Err(err) if err.kind() == ErrorKind::Corrupt => {
                return self.set_row_aside(to, row, err).map(|()| None);
            }
            read => read?,
        };
        removals.delete(row.clone());
        removals.delete(expiry.clone());
        if end.out_of_scope_ms <= now_ms || !goes(&here, there.as_ref()) {
            return Ok(None);
        }
        copies.put(row.clone(), Record::Key(here));
        copies.mark(expiry);
        Ok(Some(end.out_of_scope_ms))
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

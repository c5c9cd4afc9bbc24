//! Answered requests leave a store that has nothing else left to wait for.
//!
//! An answer never changes, so it can be copied. It is copied to where launches go, durably and under the lock of its request, before
//! it goes: whoever repeats the request finds it in the one store or the other. A crash in between leaves it in both, the same.

use cutover_formats::{Expiring, Family, Phase, Prefix, Record, RowId};

use super::Inner;
use crate::error::Result;
use crate::store::Write;
use crate::store::space::{Changes, Space};

/// Requests that are carried over in one commit: few, because launches wait for their locks.
const TOGETHER: usize = 16;
/// Commits of one step: each step begins with walking over what is left of the rows that earlier ones removed.
const COMMITS: usize = 64;

impl Inner {
    /// Carries the next requests from the store that launches have left to the other one, if nothing but requests is in it. Says whether
    /// there were any.
    pub(crate) fn carry_requests(&self) -> Result<bool> {
        let mut last = None;
        for _ in 0..COMMITS {
            match self.carry_together(last.as_ref())? {
                Some(next) => last = Some(next),
                None => break,
            }
        }
        Ok(last.is_some())
    }

    /// Carries a few from behind `after` on, under one pin, and says which was the last.
    fn carry_together(&self, after: Option<&RowId<'static>>) -> Result<Option<RowId<'static>>> {
        let op = self.enter("carry requests over")?;
        let Some(from) = &op.other else { return Ok(None) };
        if !matches!(op.status.phase, Phase::PostMigration | Phase::PostRollback) {
            return Ok(None);
        }
        for family in [Family::Instances, Family::Keys] {
            if from.first(self.id, Prefix::All(family))?.is_some() {
                return Ok(None);
            }
        }
        let page = from.page(self.id, Prefix::All(Family::Requests), after, TOGETHER, u64::MAX)?;
        let _locks = self.shared.locks.requests.lock_all(page.rows.iter().filter_map(|(row, _)| match row {
            RowId::Request { id } => Some((self.id, &**id)),
            _ => None,
        }));
        let (mut copies, mut removals) = (Changes::default(), Changes::default());
        let mut first = u64::MAX;
        for (row, _) in &page.rows {
            let carried = self.carry(from, &op.home, row, &mut copies, &mut removals)?;
            first = first.min(carried.unwrap_or(u64::MAX));
        }
        if !copies.is_empty() {
            // The other store's copy goes next, and may be removed with its store: durable at every level.
            op.home.apply(self.id, &copies, Write::Synced)?;
            self.expires_at(first);
        }
        from.apply(self.id, &removals, Write::Relaxed)?;
        Ok(page.rows.into_iter().next_back().map(|(row, _)| row))
    }

    /// Under the lock of the request: what is to be written and removed. Returns the deadline of a copy.
    fn carry(
        &self,
        from: &Space,
        to: &Space,
        row: &RowId<'static>,
        copies: &mut Changes,
        removals: &mut Changes,
    ) -> Result<Option<u64>> {
        let RowId::Request { id } = row else { return Ok(None) };
        self.doubts.check(row)?;
        // Collected since it was listed, perhaps.
        let Some(request) = from.request(self.id, row)? else { return Ok(None) };
        let at_ms = request.until_ms;
        let index = RowId::Expiry { at_ms, what: Expiring::Request { id: id.clone() } };
        removals.delete(row.clone());
        removals.delete(index.clone());
        let now_ms = self.shared.now_ms();
        let there = to.request(self.id, row)?.is_some_and(|there| now_ms < there.until_ms);
        if there || at_ms <= now_ms {
            return Ok(None);
        }
        copies.put(row.clone(), Record::Request(request));
        
        Ok(Some(at_ms))
    }
}

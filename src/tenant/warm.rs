//! Getting ready for a runner: what it will need first is looked at while another one works.

use cutover_formats::{Family, Prefix, RowId};

use super::Inner;
use crate::error::Result;

/// Definitions that are looked at together.
const ROWS: usize = 256;
/// Bytes of them.
const BYTES: u64 = 1 << 20;
/// Most definitions that are looked at.
const MOST: u64 = 4096;

impl Inner {
    /// Reads from every store of the tenant, so that one which cannot be read is known before somebody depends on it, and makes
    /// definitions known, so that launches need not look them up. Says how many.
    ///
    /// # Errors
    /// If a store is closed or cannot be read.
    pub(crate) fn warm(&self) -> Result<u64> {
        let op = self.enter("warm up")?;
        for space in op.both() {
            for family in [Family::Instances, Family::Ready] {
                space.first(self.id, Prefix::All(family))?;
            }
        }
        drop(op);
        let (mut after, mut warmed): (Option<RowId<'static>>, u64) = (None, 0);
        loop {
            // One pin for each batch: whoever waits for pins waits for no more than that.
            let op = self.enter("warm up")?;
            let all = Prefix::All(Family::Definitions);
            let page = op.home.survey(self.id, all, after.as_ref(), ROWS, BYTES)?;
            for (row, _) in &page.rows {
                if let RowId::Definition { name, version } = row {
                    warmed += u64::from(self.is_defined(&op, name, *version)?);
                }
            }
            after = page.rows.into_iter().next_back().map(|(row, _)| row);
            if page.done || after.is_none() || warmed >= MOST {
                return Ok(warmed);
            }
        }
    }
}

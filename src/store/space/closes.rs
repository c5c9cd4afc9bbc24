//! How often a store was closed in order: whether it has lost what was durable.
//!
//! A driver reads its log up to the first thing that is not whole, because a power cut leaves such an end; so damage in the middle of a log
//! takes what comes after it, without an error. But what was there when the store was closed in order was durable, all of it. So the
//! last thing that is written then is a count, first in the store and then beside it: a store that has less than the count beside it has lost
//! something, to damage or because it was replaced by an older copy.

use cutover_formats::keys::NO_TENANT;
use cutover_formats::record::ClosedRecord;
use cutover_formats::{NoteId, Record, RowId};

use super::{Changes, Space};
use crate::error::Result;
use crate::store::Write;

const ROW: RowId<'static> = RowId::Note(NoteId::Closed);

impl Space {
    /// How often it was closed in order, as it says itself.
    pub(crate) fn closes(&self) -> Result<u64> {
        match self.read(NO_TENANT, &ROW)? {
            Some(Record::Closed(record)) => Ok(record.count),
            _ => Ok(0),
        }
    }

    /// Makes durable everything that was committed, and behind it this count.
    pub(crate) fn note_close(&self, count: u64) -> Result<()> {
        let mut changes = Changes::default();
        changes.put(ROW, Record::Closed(ClosedRecord { count }));
        self.apply(NO_TENANT, &changes, Write::Synced)
    }
}

//! The engine's own record: how often it was opened, and how far its clock may have come.

use cutover_formats::meta::EngineRecord;

use crate::clock::Mark;
use crate::error::{Error, ErrorKind, Result};
use crate::meta::slot::Slots;
use crate::sync::Mutex;

/// Writes the engine's record until it is closed.
pub(super) struct EngineMark {
    incarnation: u64,
    /// None once the last record, the one of a close in order, may have been written.
    slots: Mutex<Option<Slots<EngineRecord>>>,
}

impl EngineMark {
    /// Makes durable that the engine is open, for the time of this number, and that its clock may come to `clock_ms`.
    pub(super) fn open(mut slots: Slots<EngineRecord>, incarnation: u64, clock_ms: u64) -> Result<Self> {
        write(&mut slots, &EngineRecord { incarnation, clock_ms, clean: false })?;
        Ok(Self { incarnation, slots: Mutex::new(Some(slots)) })
    }

    /// Makes durable that the engine was closed in order at `clock_ms`. The mark is not raised after it.
    pub(super) fn close(&self, clock_ms: u64) -> Result<()> {
        let Some(mut slots) = self.slots.lock().take() else { return Ok(()) };
        write(&mut slots, &EngineRecord { incarnation: self.incarnation, clock_ms, clean: true })
    }
}

impl Mark for EngineMark {
    fn raise(&self, ms: u64) -> bool {
        let record = EngineRecord { incarnation: self.incarnation, clock_ms: ms, clean: false };
        self.slots.lock().as_mut().is_some_and(|slots| write(slots, &record).is_ok())
    }
}

/// Writes a record. An earlier one whose write had failed and turns out to have happened is in its way only once.
fn write(slots: &mut Slots<EngineRecord>, record: &EngineRecord) -> Result<()> {
    for _ in 0..2 {
        if slots.write(record)?.is_none() {
            return Ok(());
        }
    }
    Err(Error::new(ErrorKind::Unavailable, "the engine's record was read again after a failed write"))
}

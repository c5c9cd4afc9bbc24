//! The durable record of who may act for a tenant, its journal, and what this process knows of a flip.
//!
//! It has files of its own beside those of the tenant's status and is written in the same way: the line first, then both slots, which decide.
//! There are none until a runner is named. Whoever holds it may change who acts.
//!
//! A line is durable before what it tells of is done, except for the ends of a flip: nobody is to wait for them. What was told of a
//! change that did not come to be is cut off when the record is read again.

use std::collections::HashMap;
use std::time::Duration;

use cutover_formats::TenantId;
use cutover_formats::access::{AccessLine, AccessRecord, Seat};
use cutover_formats::codec::RecordType;

use crate::error::{Error, ErrorKind, Result};
use crate::meta::dir::Dir;
use crate::meta::journal::{Found, Journal};
use crate::meta::slot::Slots;
use crate::status::Wait;
use crate::sync::Instant;

/// The record of a tenant's runners and what goes with it.
pub(crate) struct AccessControl {
    tenant: TenantId,
    record: Option<AccessRecord>,
    slots: Slots<AccessRecord>,
    journal: Journal,
    /// The highest epoch and line that were ever tried to be written.
    epoch: u64,
    seq: u64,
    /// The tenant is gone.
    removed: bool,
    /// What of its files was lost or only just saved, in words, until the journal tells of it.
    pub(crate) said: Vec<String>,
    /// A flip under way.
    pub(crate) flip: Option<Flip>,
    /// What became of the last one.
    pub(crate) last: Option<Flipped>,
    /// Somebody asked for a flip of the hand-over of this number.
    pub(crate) asked: Option<Asked>,
    /// What a wave has ruled about the hand-over of this number, until that is done.
    pub(crate) ruled: Option<Ruled>,
    /// After a flip that failed, the next try is not before this.
    pub(crate) not_before: Option<Instant>,
    /// How many have failed one after the other.
    pub(crate) failed: u32,
    /// The wait for what a primary that was terminated had been admitted to.
    pub(crate) ending: Option<Wait>,
}

/// What becomes of what a wave has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// It stays, and what has not succeeded is left to go on by itself.
    Stays,
    /// The wave is given up: all of it goes.
    Goes,
}

/// A ruling about a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ruled {
    pub(crate) handover: u64,
    pub(crate) ruling: Ruling,
}

/// A flip that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) handover: u64,
    /// To the earlier runner.
    pub(crate) back: bool,
}

/// A flip under way. After a crash it is begun anew or finished from the record.
pub(crate) struct Flip {
    pub(crate) back: bool,
    /// Which of its eight steps comes next.
    pub(crate) step: u8,
    /// Why it is being undone, if it is.
    pub(crate) failed: Option<Error>,
    /// The seats before, and those after it.
    pub(crate) before: Vec<Seat>,
    pub(crate) after: Vec<Seat>,
    /// Who leaves and who comes.
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    /// How long what was admitted before it may take.
    pub(crate) patience: Duration,
    /// The wait for that.
    pub(crate) wait: Option<Wait>,
    /// When the wait is given up.
    pub(crate) until: Option<Instant>,
    /// Since when requests wait.
    pub(crate) held: Option<Instant>,
    pub(crate) told: Flipped,
}

/// What a flip came to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flipped {
    pub(crate) handover: u64,
    pub(crate) back: bool,
    pub(crate) epoch: u64,
    pub(crate) paused: Duration,
    pub(crate) queued: u64,
    pub(crate) refused: u64,
    pub(crate) released: usize,
    pub(crate) undone: Option<String>,
}

/// What a line says besides its numbers.
pub(crate) struct Told<'t> {
    pub(crate) who: &'t str,
    pub(crate) step: u8,
    pub(crate) runner: &'t str,
    pub(crate) why: &'t str,
}

/// A control as it was read: nothing is changed before all of the metadata was read.
pub(crate) struct Unmended {
    record: AccessRecord,
    slots: Slots<AccessRecord>,
    journal: Found<AccessLine>,
    /// The record is the journal's.
    restored: bool,
}

impl AccessControl {
    /// Of a tenant for which no runner was named.
    pub(crate) fn none(meta: &Dir, tenant: TenantId) -> Self {
        let slots = Slots::of(meta, &stem(tenant), RecordType::Access);
        Self::of(tenant, None, slots, Journal::new(meta, &journal_name(tenant)))
    }

    fn of(
        tenant: TenantId,
        record: Option<AccessRecord>,
        slots: Slots<AccessRecord>,
        journal: Journal,
    ) -> Self {
        let (epoch, seq) = record.as_ref().map_or((0, 0), |record| (record.epoch, record.journal.seq));
        Self {
            tenant,
            record,
            slots,
            journal,
            epoch,
            seq,
            removed: false,
            said: Vec::new(),
            flip: None,
            last: None,
            asked: None,
            ruled: None,
            not_before: None,
            failed: 0,
            ending: None,
        }
    }

    /// The control from its files: the record of its slots or, if neither can be read, of its journal. None if there are none. Changes
    /// nothing.
    pub(crate) fn read(meta: &Dir, tenant: TenantId) -> Result<Option<Unmended>> {
        let journal = Found::<AccessLine>::read(meta, &journal_name(tenant))?;
        let kind = RecordType::Access;
        let (slots, record, restored) = match Slots::<AccessRecord>::open(meta, &stem(tenant), kind) {
            Ok((slots, Some(record))) => (slots, record, false),
            Err(err) if err.kind() != ErrorKind::Corrupt => return Err(err),
            // A line without slots is of a first record that did not come to be, or both are lost: then it is not to be forgotten who was
            // deactivated.
            lost => match (journal.last_record(), lost) {
                (Some(bytes), _) => {
                    let (slots, record) = Slots::restored(meta, &stem(tenant), kind, bytes)?;
                    (slots, record, true)
                }
                (None, Ok(_)) => return Ok(None),
                (None, Err(err)) => {
                    let what = format!(
                        "reading who may act for {tenant}, which the journal does not give back either"
                    );
                    return Err(err.context(what));
                }
            },
        };
        if record.tenant != tenant {
            let message =
                format!("the access files of {tenant} say that they are those of {}", record.tenant);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(Some(Unmended { record, slots, journal, restored }))
    }

    /// Makes the files good.
    pub(crate) fn mend(unmended: Unmended) -> Result<Self> {
        let Unmended { record, mut slots, journal, restored } = unmended;
        slots.mend()?;
        let (journal, lost) = journal.mend(&record.journal, &slots.sealed(&record)?)?;
        let mut control = Self::of(record.tenant, Some(record), slots, journal);
        control.said.extend(lost);
        if restored {
            control.said.push("neither slot could be read; it was restored from the journal".to_owned());
        }
        Ok(control)
    }

    pub(crate) fn record(&self) -> Option<&AccessRecord> {
        self.record.as_ref()
    }

    /// A flip that failed before may succeed now.
    pub(crate) fn retry_at_once(&mut self) {
        (self.not_before, self.failed) = (None, 0);
    }

    /// An epoch for the next change. One whose write failed is not used again.
    pub(crate) fn next_epoch(&mut self) -> u64 {
        self.epoch = self.epoch.max(self.record.as_ref().map_or(0, |record| record.epoch)) + 1;
        self.epoch
    }

    /// Makes a changed record durable, with lines that tell of it. If an earlier write had failed and turns out to have happened
    /// after all, this one does not: the record is then as it was found, and the caller looks again.
    pub(crate) fn persist(
        &mut self,
        at_ms: u64,
        told: &[Told<'_>],
        change: impl FnOnce(&mut AccessRecord),
    ) -> Result<()> {
        if self.removed {
            return Err(Error::new(ErrorKind::NotFound, "the tenant was deleted"));
        }
        if self.settle()? {
            let message = "who may act was read again after a failed write; look at it and try again";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let mut record = self.record.clone().unwrap_or_else(|| self.empty());
        change(&mut record);
        let handover =
            record.handover.as_ref().or(self.record.as_ref().and_then(|old| old.handover.as_ref()));
        let lines = self.lines_of(at_ms, told, record.epoch, handover.map_or(0, |handover| handover.id));
        if let Some(last) = lines.last() {
            record.journal = last.clone();
        }
        let bytes = self.slots.seal(&record)?;
        if let Err(err) = self.journal.append_all(&lines, &bytes) {
            // Nothing has happened. If this fails too, they are cut off before the next line, or at opening.
            drop(self.journal.cut());
            return Err(err);
        }
        self.slots.write_sealed(&bytes)?;
        self.journal.keep();
        self.seq = record.journal.seq;
        self.record = Some(record);
        Ok(())
    }

    /// Adds lines that tell of what is about to be done; they count once the record is written that comes with it.
    pub(crate) fn tell(&mut self, at_ms: u64, told: &[Told<'_>]) -> Result<()> {
        let Some(record) = &self.record else { return Ok(()) };
        let handover = record.handover.as_ref().map_or(0, |handover| handover.id);
        let lines = self.lines_of(at_ms, told, record.epoch, handover);
        let bytes = self.slots.sealed(record)?;
        if let Err(err) = self.journal.append_all(&lines, &bytes) {
            drop(self.journal.cut());
            return Err(err);
        }
        self.journal.keep();
        self.seq = lines.last().map_or(self.seq, |line| line.seq);
        Ok(())
    }

    fn lines_of(&self, at_ms: u64, told: &[Told<'_>], epoch: u64, handover: u64) -> Vec<AccessLine> {
        let numbered = (self.seq + 1..).zip(told);
        let line = |(seq, told): (u64, &Told<'_>)| AccessLine {
            seq,
            epoch,
            at_ms,
            who: told.who.to_owned(),
            handover,
            step: told.step,
            runner: told.runner.to_owned(),
            why: told.why.to_owned(),
        };
        numbered.map(line).collect()
    }

    fn empty(&self) -> AccessRecord {
        let journal = AccessLine {
            seq: 0,
            epoch: 0,
            at_ms: 0,
            who: String::new(),
            handover: 0,
            step: 0,
            runner: String::new(),
            why: String::new(),
        };
        AccessRecord { tenant: self.tenant, epoch: 0, seats: Vec::new(), handover: None, journal }
    }

    /// After a write that failed: takes the record as it is found, if that write happened after all, and says whether it did.
    pub(crate) fn settle(&mut self) -> Result<bool> {
        match self.slots.settle()? {
            Some(found) => {
                self.seq = found.journal.seq;
                self.record = Some(found);
                self.journal.keep();
                Ok(true)
            }
            // If its lines cannot be cut off now, they are before the next ones, or at opening.
            None => {
                drop(self.journal.cut());
                Ok(false)
            }
        }
    }

    /// Every line of the journal, oldest first.
    pub(crate) fn lines(&self) -> Result<Vec<AccessLine>> {
        self.journal.read()
    }

    /// Removes the files: the tenant is going.
    pub(crate) fn remove(&mut self) -> Result<()> {
        self.removed = true;
        if self.record.is_none() {
            return Ok(());
        }
        // The journal first: alone it would give the record back.
        self.journal.remove()?;
        self.slots.remove()
    }
}

/// What was found, by tenant.
pub(crate) type Unmendeds = HashMap<TenantId, Unmended>;

/// The records of all tenants that have one. Changes nothing.
pub(crate) fn read_all(meta: &Dir) -> Result<Unmendeds> {
    let mut found = HashMap::new();
    for name in meta.list()? {
        let number = name.to_str().and_then(|name| name.strip_prefix("access-")?.split_once('.'));
        if let Some((number, "a" | "b" | "jsonl")) = number
            && let Ok(number) = number.parse().map(TenantId)
            && !found.contains_key(&number)
            && let Some(unmended) = AccessControl::read(meta, number)?
        {
            found.insert(number, unmended);
        }
    }
    Ok(found)
}

fn stem(tenant: TenantId) -> String {
    format!("access-{}", tenant.0)
}

fn journal_name(tenant: TenantId) -> String {
    format!("access-{}.jsonl", tenant.0)
}

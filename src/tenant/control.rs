//! A tenant's durable record, its journal, and what this process knows about its migration.
//!
//! Invariant I7: the register is never ahead of the record. [`Control::persist`] is the only way to change the record, and what is to
//! be published is taken from what it returned.

use std::collections::HashMap;

use cutover_formats::codec::RecordType;
use cutover_formats::meta::{EndedMigration, JournalLine, Retention, TenantRecord};
use cutover_formats::{Phase, Role, TenantId};

use super::stragglers::{MoveProgress, Pass};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::dir::Dir;
use crate::meta::journal::{Found, Journal};
use crate::meta::slot::Slots;
use crate::status::Wait;
use crate::sync::Instant;

/// The record of a tenant and what goes with it. Whoever holds its lock may change the status.
pub(crate) struct Control {
    record: TenantRecord,
    slots: Slots<TenantRecord>,
    journal: Journal,
    /// The highest epoch that was ever tried to be written.
    epoch: u64,
    pub(crate) drive: Drive,
}

/// A control as it was read: nothing is changed before all of the metadata was read.
pub(crate) struct Unmended {
    record: TenantRecord,
    slots: Slots<TenantRecord>,
    journal: Found,
    /// The record is the journal's, because neither slot could be read.
    restored: bool,
}

/// What this process has found out in the present phase. Gone after a restart, and found out again.
#[derive(Default)]
pub(crate) struct Drive {
    /// The wait for everybody who acted on an earlier status, until it is over.
    pub(crate) wait: Option<Wait>,
    /// When the present status was published by this process.
    pub(crate) published: Option<Instant>,
    /// Every operation that began under an earlier status has ended.
    pub(crate) waited: bool,
    /// The definitions of the store that launches leave were copied once.
    pub(crate) copied: bool,
    /// Both stores were compared in full, after the wait.
    pub(crate) verified: bool,
    /// How often a store of the tenant had been opened again when that was found out.
    pub(crate) mends: u64,
    /// What stands in the way, if something does.
    pub(crate) error: Option<String>,
    /// The error is of the driver's last step: it goes with the next one that succeeds.
    pub(crate) failed: bool,
    /// What was copied and compared so far.
    pub(crate) copy: CopyProgress,
    /// Which instances were looked at, to be moved.
    pub(crate) pass: Pass,
    /// How many were moved so far.
    pub(crate) moves: MoveProgress,
}

/// What people are shown of a migration besides its status.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) goal: Role,
    pub(crate) id: Option<u64>,
    pub(crate) last: Option<EndedMigration>,
    pub(crate) copy: CopyProgress,
    pub(crate) moves: MoveProgress,
    pub(crate) error: Option<String>,
    pub(crate) waiting_for: String,
    /// As counted last.
    pub(crate) quarantined: u64,
}

impl Drive {
    /// Forgets what was found out about the stores before one of them was opened again for the `mends`th time: it may have lost what was
    /// not durable.
    pub(crate) fn as_of(&mut self, mends: u64) {
        if self.mends != mends {
            (self.copied, self.verified, self.mends) = (false, false, mends);
            self.pass = Pass::default();
        }
    }
}

/// How far copying and comparing has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Definitions copied in this migration.
    pub copied: u64,
    /// Definitions that were there to copy when it began; 0 until they are counted.
    pub total: u64,
    /// Bytes copied.
    pub bytes: u64,
    /// Bytes there were to copy.
    pub total_bytes: u64,
    /// Definitions compared in the present comparison.
    pub compared: u64,
    /// Bytes a second, over the copy so far.
    pub rate: u64,
    /// Milliseconds that the copy still takes at that rate.
    pub left_ms: u64,
}

impl Control {
    /// The control of a tenant that exists, from its files: the record of its slots or, if neither can be read, of its journal. Changes
    /// nothing.
    pub(crate) fn read(meta: &Dir, id: TenantId) -> Result<Option<Unmended>> {
        let journal = Found::read(meta, &journal_name(id))?;
        let (slots, record, restored) = match Slots::<TenantRecord>::open(meta, &stem(id), RecordType::Tenant)
        {
            Ok((slots, Some(record))) => (slots, record, false),
            Err(err) if err.kind() != ErrorKind::Corrupt => return Err(err),
            lost => {
                let Some(bytes) = journal.last_record() else {
                    return match lost {
                        Ok(_) => Ok(None),
                        Err(err) => Err(err.context(format!(
                            "reading the record of {id}, which its journal does not give back either"
                        ))),
                    };
                };
                let (slots, record) = Slots::restored(meta, &stem(id), RecordType::Tenant, bytes)?;
                (slots, record, true)
            }
        };
        if record.id != id {
            let message = format!("the files of {id} say that they are those of {}", record.id);
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(Some(Unmended { record, slots, journal, restored }))
    }

    /// Makes the files good. Says, in words, what could not be, or was only just.
    pub(crate) fn mend(unmended: Unmended) -> Result<(Self, Vec<String>)> {
        let Unmended { record, mut slots, journal, restored } = unmended;
        slots.mend()?;
        let (journal, lost) = journal.mend(&record.journal, &slots.sealed(&record)?)?;
        let mut said: Vec<String> = lost.into_iter().collect();
        if restored {
            said.push(
                "neither slot of the record could be read; it was restored from the journal".to_owned(),
            );
        }
        let epoch = record.status.epoch;
        Ok((Self { record, slots, journal, epoch, drive: Drive::default() }, said))
    }

    /// The control of a new tenant. Durable when it returns.
    pub(crate) fn create(meta: &Dir, record: TenantRecord) -> Result<Self> {
        let (mut slots, found) = Slots::<TenantRecord>::open(meta, &stem(record.id), RecordType::Tenant)?;
        if found.is_some() {
            return Err(Error::new(ErrorKind::Corrupt, format!("there are files of {} already", record.id)));
        }
        let bytes = slots.seal(&record)?;
        let mut journal = Journal::new(meta, &journal_name(record.id));
        journal.append(&record.journal, &bytes)?;
        slots.write_sealed(&bytes)?;
        journal.keep();
        let epoch = record.status.epoch;
        Ok(Self { record, slots, journal, epoch, drive: Drive { waited: true, ..Drive::default() } })
    }

    pub(crate) fn record(&self) -> &TenantRecord {
        &self.record
    }

    pub(crate) fn shown(&self, waiting_for: String, quarantined: u64) -> Shown {
        let migration = self.record.migration.as_ref();
        Shown {
            goal: migration.map_or(Role::Initial, |migration| migration.goal),
            id: migration.map(|migration| migration.id),
            last: self.record.ended.last().cloned(),
            copy: self.drive.copy,
            moves: self.drive.moves,
            error: self.drive.error.clone(),
            waiting_for,
            quarantined,
        }
    }

    /// An epoch for the next status. One whose write failed is not used again.
    pub(crate) fn next_epoch(&mut self) -> u64 {
        self.epoch = self.epoch.max(self.record.status.epoch) + 1;
        self.epoch
    }

    /// Refuses to act on a tenant that was deleted.
    pub(crate) fn check_exists(&self) -> Result<()> {
        if !self.record.deleting {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, format!("the tenant {:?} was deleted", self.record.name)))
    }

    /// Makes a changed record durable, in the journal and then in both slots, which decide. If an earlier write had failed and turns out to have
    /// happened after all, this one does not: the record is then as it was found, and the caller looks again. A record that says
    /// "deleted" is the last one: whoever still holds the tenant must not bring its files back.
    pub(crate) fn persist(
        &mut self,
        at_ms: u64,
        who: &str,
        why: &str,
        change: impl FnOnce(&mut TenantRecord),
    ) -> Result<()> {
        self.check_exists()?;
        if self.settle()? {
            let message = "the status was read again after a failed write; look at it and try again";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let mut record = self.record.clone();
        let from = record.status.phase;
        change(&mut record);
        record.journal = JournalLine {
            epoch: record.status.epoch,
            seq: self.record.journal.seq + 1,
            at_ms,
            who: who.to_owned(),
            from,
            to: record.status.phase,
            why: why.to_owned(),
        };
        let bytes = self.slots.seal(&record)?;
        if let Err(err) = self.journal.append(&record.journal, &bytes) {
            // Nothing has happened. If this fails too, the line is cut off before the next one, or at opening.
            drop(self.journal.cut());
            return Err(err);
        }
        self.slots.write_sealed(&bytes)?;
        self.journal.keep();
        self.record = record;
        Ok(())
    }

    /// After a write that failed: takes the record as it is found, if that write happened after all, and says whether it did; else the
    /// journal is not to tell of it.
    pub(crate) fn settle(&mut self) -> Result<bool> {
        match self.slots.settle()? {
            Some(found) => {
                self.record = found;
                self.journal.keep();
                Ok(true)
            }
            None => self.journal.cut().map(|()| false),
        }
    }

    /// Every line of the journal, oldest first.
    pub(crate) fn lines(&self) -> Result<Vec<JournalLine>> {
        self.journal.read()
    }

    /// Removes the files: the tenant is gone.
    pub(crate) fn remove(&self) -> Result<()> {
        self.slots.remove()?;
        self.journal.remove()
    }

    /// Removes what a [`create`](Self::create) that failed may have left.
    pub(crate) fn remove_half_made(meta: &Dir, id: TenantId) -> Result<()> {
        // The journal first: alone it would give the record back.
        Journal::new(meta, &journal_name(id)).remove()?;
        Slots::<TenantRecord>::of(meta, &stem(id), RecordType::Tenant).remove()
    }
}

/// The record of a tenant, for whoever only looks: nothing is mended.
pub(crate) fn look(meta: &Dir, id: TenantId) -> Result<Option<TenantRecord>> {
    Ok(Control::read(meta, id)?.map(|unmended| unmended.record))
}

/// Every line of a tenant's journal, oldest first, for whoever only looks: nothing is mended.
pub(crate) fn look_at_journal(meta: &Dir, id: TenantId) -> Result<Vec<JournalLine>> {
    Ok(Found::<JournalLine>::read(meta, &journal_name(id))?.into_lines())
}

/// The numbers of all tenants that have files.
pub(crate) fn tenants(meta: &Dir) -> Result<Vec<TenantId>> {
    let mut ids = Vec::new();
    for name in meta.list()? {
        let number = name.to_str().and_then(|name| name.strip_prefix("tenant-")?.split_once('.'));
        if let Some((number, "a" | "b" | "jsonl")) = number
            && let Ok(number) = number.parse()
        {
            ids.push(TenantId(number));
        }
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

fn stem(id: TenantId) -> String {
    format!("tenant-{}", id.0)
}

fn journal_name(id: TenantId) -> String {
    format!("tenant-{}.jsonl", id.0)
}

/// The first line of every journal.
pub(crate) fn created(at_ms: u64) -> JournalLine {
    let (from, to) = (Phase::Stable, Phase::Stable);
    JournalLine { epoch: 1, seq: 1, at_ms, who: "operator".into(), from, to, why: "created".into() }
}

/// Retention by scope, ready to look up.
pub(crate) struct Retentions {
    all: Retention,
    scopes: HashMap<String, Retention>,
}

impl Retentions {
    pub(crate) fn of_record(record: &TenantRecord) -> Self {
        Self { all: record.retention, scopes: record.scopes.iter().cloned().collect() }
    }

    pub(crate) fn of(&self, scope: Option<&str>) -> Retention {
        scope.and_then(|scope| self.scopes.get(scope)).copied().unwrap_or(self.all)
    }
}

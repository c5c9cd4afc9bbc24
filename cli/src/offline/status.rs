//! `status`: what a data directory is, which stores it has and where its tenants are. Reads the metadata only.

use std::io::{self, Write};

use cutover::Quarantined;
use cutover::offline::{self, Directory};
use cutover_formats::meta::{JournalLine, Outcome, StoreRecord, StoreStatus, TenantRecord};
use cutover_formats::{Role, StoreId};
use serde_json::{Value, json};

use super::{bytes, driver_of, now_ms, print, users, utc};
use crate::args::StatusArgs;
use crate::failure::{Failure, Result};

const SCHEMA: &str = "cutover.status/1";

/// Says where the tenants of a directory are.
pub(crate) fn status(args: &StatusArgs) -> Result<()> {
    let directory = Directory::open(&args.data)?;
    let stores =
        directory.stores().iter().map(|store| Store::of(&directory, store)).collect::<Result<Vec<_>>>()?;
    let mut tenants = Vec::new();
    for record in directory.tenants() {
        let journal = if args.journal { Some(directory.journal(record.id)?) } else { None };
        tenants.push(Tenant { record, journal, aside: None });
    }
    if args.quarantine {
        add_quarantine(&directory, &mut tenants)?;
    }
    print(|out| {
        if args.json {
            serde_json::to_writer_pretty(&mut *out, &as_json(&directory, &stores, &tenants))?;
            return writeln!(out);
        }
        write_directory(out, &directory)?;
        write_stores(out, &stores)?;
        write_tenants(out, &directory, &tenants)
    })?;
    match directory.damaged() {
        [] => Ok(()),
        damaged => Err(Failure::new(damaged.join("; "))),
    }
}

/// A store as it is shown.
struct Store<'d> {
    record: &'d StoreRecord,
    state: &'static str,
    bytes: Option<u64>,
    users: Vec<&'d str>,
}

impl<'d> Store<'d> {
    fn of(directory: &'d Directory, record: &'d StoreRecord) -> Result<Self> {
        let bytes = directory.store_bytes(record)?;
        let users = users(directory, record.id);
        let state = match (record.retired, bytes.is_some()) {
            (true, false) => "retired",
            (true, true) => "retired, to be removed",
            (false, false) => "missing",
            (false, true) if users.iter().any(|(_, now)| *now) => "in use",
            (false, true) if !users.is_empty() => "being left",
            // A tenant whose record cannot be read may be in it.
            (false, true) if !directory.damaged().is_empty() => "unknown",
            (false, true) => "unused, to be removed",
        };
        Ok(Self {
            record,
            state,
            bytes,
            users: users.into_iter().map(|(tenant, _)| tenant.name.as_str()).collect(),
        })
    }
}

/// A tenant as it is shown.
struct Tenant<'d> {
    record: &'d TenantRecord,
    journal: Option<Vec<JournalLine>>,
    /// What was set aside in its stores, if that was asked for.
    aside: Option<Vec<Quarantined>>,
}

/// Looks into every store that is used, once for all of its tenants.
fn add_quarantine(directory: &Directory, tenants: &mut [Tenant<'_>]) -> Result<()> {
    for store in directory.stores().iter().filter(|store| !store.retired) {
        let users = users(directory, store.id);
        if users.is_empty() {
            continue;
        }
        let scratch = tempfile::Builder::new().prefix("cutover-status-").tempdir();
        let scratch =
            scratch.map_err(|err| Failure::new(format!("cannot make a temporary directory: {err}")))?;
        let rows = directory.read_store(store.id, scratch.path())?;
        for tenant in
            tenants.iter_mut().filter(|tenant| users.iter().any(|(user, _)| user.id == tenant.record.id))
        {
            tenant.aside.get_or_insert_default().extend(rows.quarantine(tenant.record.id)?);
        }
    }
    Ok(())
}

fn write_directory(out: &mut dyn Write, directory: &Directory) -> io::Result<()> {
    writeln!(
        out,
        "{}: cutover data directory, format version {}",
        directory.path().display(),
        directory.version()
    )?;
    match directory.engine() {
        Some(engine) => {
            let how = if engine.clean {
                "the last time it was closed in order"
            } else {
                "the last time it was not closed in order: killed, or the machine went down"
            };
            writeln!(out, "  opened {} times (the engine's incarnation); {how}", engine.incarnation)
        }
        None => writeln!(out, "  never opened to the end"),
    }
}

fn write_stores(out: &mut dyn Write, stores: &[Store<'_>]) -> io::Result<()> {
    writeln!(out, "\n{} stores", stores.len())?;
    for store in stores {
        let Store { record, state, bytes: on_disk, users } = store;
        let size = on_disk.map_or_else(String::new, |count| format!(", {} on disk", bytes(count)));
        let dedicated = if record.dedicated { ", dedicated" } else { "" };
        writeln!(
            out,
            "  {} ({}, layout {}{dedicated}): {state}{size}",
            record.id, record.driver, record.layout
        )?;
        writeln!(out, "    path     {}", record.path)?;
        if !users.is_empty() {
            let names: Vec<String> = users.iter().map(|name| format!("{name:?}")).collect();
            writeln!(out, "    tenants  {}", names.join(", "))?;
        }
    }
    Ok(())
}

fn write_tenants(out: &mut dyn Write, directory: &Directory, tenants: &[Tenant<'_>]) -> io::Result<()> {
    writeln!(out, "\n{} tenants", tenants.len())?;
    for Tenant { record, journal, aside } in tenants {
        write_tenant(out, directory, record)?;
        for entry in aside.iter().flatten() {
            writeln!(out, "    aside    {}: {}", entry.what, entry.reason)?;
        }
        if let Some(lines) = journal {
            writeln!(out, "    journal")?;
            for line in lines {
                write_line(out, line)?;
            }
        }
    }
    for damaged in directory.damaged() {
        writeln!(out, "  damaged: {damaged}")?;
    }
    Ok(())
}

fn write_tenant(out: &mut dyn Write, directory: &Directory, record: &TenantRecord) -> io::Result<()> {
    let status = &record.status;
    writeln!(out, "  {:?} ({})", record.name, record.id)?;
    writeln!(out, "    phase    {}, since {}", status.phase, utc(record.entered_ms))?;
    writeln!(out, "    epoch    {}", status.epoch)?;
    writeln!(out, "    primary  {}", role_name(status.primary))?;
    for role in [Role::Initial, Role::Target] {
        let Some(store) = status.store(role) else { continue };
        let launches =
            if role == status.home() { "open, launches go there" } else { word(status.status_of(role)) };
        let (name, driver) = (role_name(role), driver_of(directory, store));
        writeln!(out, "    {name:<7}  {store} ({driver}): {launches}")?;
    }
    for obstacle in offline::in_the_way(record, now_ms()) {
        writeln!(out, "    waits    {obstacle}")?;
    }
    let legal = moves(record).join(", ");
    writeln!(out, "    legal    {}", if legal.is_empty() { "nothing" } else { &legal })?;
    match record.ended.last() {
        Some(last) => {
            writeln!(
                out,
                "    last     migration {}: {} at {}",
                last.id,
                outcome(last.outcome),
                utc(last.at_ms)
            )
        }
        None => Ok(()),
    }
}

fn write_line(out: &mut dyn Write, line: &JournalLine) -> io::Result<()> {
    let JournalLine { epoch, seq, at_ms, who, from, to, why } = line;
    let phases = if from == to { to.to_string() } else { format!("{from} -> {to}") };
    writeln!(out, "      {seq:>4}  {}  epoch {epoch}  {phases}  {who}: {why}", utc(*at_ms))
}

fn as_json(directory: &Directory, stores: &[Store<'_>], tenants: &[Tenant<'_>]) -> Value {
    let engine = directory.engine();
    json!({
        "schema": SCHEMA,
        "path": directory.path().to_string_lossy(),
        "format_version": directory.version(),
        "incarnation": engine.map(|engine| engine.incarnation),
        "clean": engine.map(|engine| engine.clean),
        "stores": stores.iter().map(store_json).collect::<Vec<_>>(),
        "tenants": tenants.iter().map(tenant_json).collect::<Vec<_>>(),
        "damaged": directory.damaged(),
    })
}

fn store_json(store: &Store<'_>) -> Value {
    let Store { record, state, bytes, users } = store;
    json!({
        "id": record.id.0, "driver": record.driver, "layout": record.layout, "path": record.path,
        "dedicated": record.dedicated, "state": state, "bytes": bytes, "tenants": users,
    })
}

fn tenant_json(tenant: &Tenant<'_>) -> Value {
    let Tenant { record, journal, aside } = tenant;
    let status = &record.status;
    let id = |store: Option<StoreId>| store.map(|store| store.0);
    let mut shown = json!({
        "id": record.id.0, "name": record.name, "deleting": record.deleting,
        "phase": status.phase.name(), "entered_ms": record.entered_ms, "epoch": status.epoch,
        "primary": role_name(status.primary), "launches_go_to": id(status.store(status.home())),
        "initial": { "store": status.initial.0, "status": word(status.initial_status) },
        "target": status.target.map(|store| json!({ "store": store.0, "status": word(status.target_status) })),
        "retiring": record.retire.iter().map(|store| store.0).collect::<Vec<_>>(),
        "migration": record.migration.as_ref().map(|migration| migration.id),
        "last": record.ended.last().map(|last| json!({ "id": last.id, "outcome": outcome(last.outcome), "at_ms": last.at_ms })),
        "waits_for": offline::in_the_way(record, now_ms()), "legal": moves(record),
    });
    if let Some(fields) = shown.as_object_mut() {
        if let Some(lines) = journal {
            fields.insert("journal".to_owned(), lines.iter().map(line_json).collect());
        }
        if let Some(entries) = aside {
            fields.insert("quarantine".to_owned(), entries.iter().map(entry_json).collect());
        }
    }
    shown
}

fn entry_json(entry: &Quarantined) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    json!({
        "store": entry.store.0, "family": entry.family.name(), "key": hex(&entry.key),
        "to": entry.to.as_deref().map(hex), "what": entry.what, "reason": entry.reason, "at_ms": entry.at_ms,
    })
}

fn line_json(line: &JournalLine) -> Value {
    json!({
        "seq": line.seq, "epoch": line.epoch, "at_ms": line.at_ms, "who": line.who,
        "from": line.from.name(), "to": line.to.name(), "why": line.why,
    })
}

fn moves(record: &TenantRecord) -> Vec<&'static str> {
    offline::legal_moves(record).into_iter().map(cutover::Move::name).collect()
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Initial => "initial",
        Role::Target => "target",
    }
}

const fn word(status: StoreStatus) -> &'static str {
    match status {
        StoreStatus::Open => "open",
        StoreStatus::Closed => "closed",
    }
}

const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Cancelled => "cancelled",
        Outcome::RolledBack => "rolled_back",
    }
}

//! `load` and `check`: the oracle as two programs, so that whoever kills the one or its machine can ask the other.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cutover::{Durability, Engine, ErrorKind, Retention, StoreSpec};
use cutover_oracle::load::{Load, Moves};
use cutover_oracle::{Ack, Acks, After, Line, Options, Raw, Setup, Verdict, ack};

use crate::args::{CheckArgs, Ended, Level, LoadUntilKilledArgs};
use crate::failure::{FAILED, Failure, Result};

/// What has ended is kept for so long: a store that is being left is to drain soon.
const KEPT_MS: u64 = 250;
/// Requests are answered the same for so long: until the check comes.
const ANSWERED_MS: u64 = 120_000;
/// Mean pause of a thread between operations, so that two of these leave a small machine room to kill them.
const PAUSE: Duration = Duration::from_micros(400);
/// How long closing may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(60);
/// The tenant, where no line names it.
const TENANT: &str = "load";

/// Works on a directory until it is killed, or nobody reads any more.
pub(crate) fn load(args: &LoadUntilKilledArgs) -> Result<()> {
    let durability = match args.durability {
        Level::Synced => Durability::Synced,
        Level::Buffered => Durability::Buffered,
    };
    let engine = Engine::builder(&args.data).durability(durability).open()?;
    // Both may be of one driver, and then they lie beside each other.
    let paths = [format!("stores/a-{}", args.from), format!("stores/b-{}", args.to)];
    let [from, to] = &paths;
    let stores = [StoreSpec::driver(&args.from).path(from), StoreSpec::driver(&args.to).path(to)];
    let setup = Setup {
        seed: args.seed,
        // Readers of JSON may keep 53 bits of a number.
        session: fastrand::u64(..1 << 53),
        tenant: TENANT.into(),
        durability,
        threads: args.threads,
        keys: args.keys,
        from: StoreSpec::driver(&args.from).path(from),
        from_driver: args.from.clone(),
        to_driver: args.to.clone(),
        retention: Retention { instance_ms: KEPT_MS, key_ms: KEPT_MS, request_ms: ANSWERED_MS },
    };
    let moves = args.migrate.then_some(Moves { stores, paths, reverse: args.reverse });
    let acks = Acks::new(Box::new(print));
    let load = Load { setup, moves, pause: PAUSE };
    cutover_oracle::load::run(&engine, &load, &acks, &Arc::new(AtomicBool::new(false)))?;
    Ok(engine.close(CLOSE_WITHIN)?)
}

/// A line and its end in one write, which a pipe takes whole.
fn print(line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()
}

/// Holds a directory against the lines of the load that worked on it last.
pub(crate) fn check(args: &CheckArgs) -> Result<u8> {
    let shown = args.acks.display();
    let text =
        fs::read(&args.acks).map_err(|err| Failure::bad_input(format!("cannot read {shown}: {err}")))?;
    // What a crash of the reader leaves behind the last whole line may be anything.
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let text = String::from_utf8_lossy(text.get(..whole).unwrap_or_default());
    let lines = ack::read(&text).map_err(|why| Failure::bad_input(format!("{shown}: {why}")))?;
    let verdict = judge(&args.data, &lines, args.after)?;
    print_verdict(&verdict, &lines).map_err(|err| Failure::new(format!("cannot write to stdout: {err}")))?;
    Ok(if verdict.ok { 0 } else { FAILED })
}

fn judge(data: &Path, lines: &[Line], after: Option<Ended>) -> Result<Verdict> {
    let opened = lines.iter().find_map(|line| match &line.ack {
        Ack::Opened(opened) => Some(opened),
        _ => None,
    });
    let durability = opened.map_or(Durability::Synced, |opened| opened.durability);
    let after = match after {
        Some(Ended::Kill) => After::Kill,
        Some(Ended::PowerCut) => After::PowerCut,
        None if durability == Durability::Buffered => After::PowerCut,
        None => After::Kill,
    };
    let options = Options::after(after);
    let scratch = tempfile::tempdir()
        .map_err(|err| Failure::new(format!("cannot make a temporary directory: {err}")))?;
    let tenant = opened.map_or(TENANT, |opened| opened.tenant.as_str());
    let raw = match Raw::read(data, tenant, &[], scratch.path()) {
        Ok(raw) => raw,
        // Killed before there was a directory, or before it was whole: whether it is one of ours, opening says.
        Err(err) if lines.is_empty() && matches!(err.kind(), ErrorKind::NotFound | ErrorKind::Foreign) => {
            Raw::default()
        }
        Err(err) => return refused(err, lines),
    };
    let engine = match Engine::builder(data).durability(durability).open() {
        Ok(engine) => engine,
        Err(err) => return refused(err, lines),
    };
    let verdict = cutover_oracle::check(lines, &raw, &engine, &options);
    let closed = engine.close(CLOSE_WITHIN);
    let mut verdict = verdict.unwrap_or_else(|err| Verdict::broken(format!("it cannot be asked: {err}")));
    if let Err(err) = closed {
        verdict.ok = false;
        verdict.broken.push(format!("it does not close in order: {err}"));
    }
    Ok(verdict)
}

/// A directory that does not open breaks a promise, unless it is somebody else's, or another program has it open.
fn refused(err: cutover::Error, lines: &[Line]) -> Result<Verdict> {
    let usage = match err.kind() {
        ErrorKind::Locked | ErrorKind::InvalidInput => true,
        ErrorKind::NotFound | ErrorKind::Foreign => lines.is_empty(),
        _ => false,
    };
    if usage { Err(err.into()) } else { Ok(Verdict::broken(format!("it does not open: {err}"))) }
}

fn print_verdict(verdict: &Verdict, lines: &[Line]) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match lines.first().map(|line| &line.ack) {
        Some(Ack::Opened(opened)) => writeln!(
            out,
            "session {}, seed {}: {} lines: {} launches, {} definitions and {} steps acknowledged, {} operations unanswered",
            opened.session,
            opened.seed,
            verdict.lines,
            verdict.launches,
            verdict.definitions,
            verdict.steps,
            verdict.unknown
        )?,
        _ => writeln!(out, "no lines: killed before it said anything")?,
    }
    let phase = verdict.phase.as_deref().unwrap_or("no tenant yet");
    writeln!(
        out,
        "found {} instances in phase {phase}; {} requests repeated",
        verdict.found, verdict.repeated
    )?;
    if verdict.lost > 0 {
        writeln!(out, "lost with the power: {} of the last {} ms", verdict.lost, verdict.lost_ms)?;
    }
    for broken in &verdict.broken {
        writeln!(out, "broken: {broken}")?;
    }
    writeln!(out, "{}", if verdict.ok { "every promise was kept" } else { "promises were broken" })?;
    writeln!(out, "{}", serde_json::to_string(verdict)?)?;
    match out.flush() {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

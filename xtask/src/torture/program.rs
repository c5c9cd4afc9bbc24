//! `cutover load` and `cutover check` as processes.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::acks::{self, Verdict};
use super::plan::Setup;

/// A check that takes longer hangs.
const LONGEST_CHECK: Duration = Duration::from_secs(180);

/// A load that takes longer to open hangs.
const LONGEST_OPENING: Duration = Duration::from_secs(60);

/// So long a phase is waited for. Not every turn of a load takes every way.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What ends a chain.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A promise was broken: it is kept, and the next chain begins.
    Broken(String),
    /// The torture itself cannot go on.
    Trouble(String),
}

impl From<String> for Stop {
    fn from(trouble: String) -> Self {
        Self::Trouble(trouble)
    }
}

/// What has become of the process that may only have been stopped by us.
pub(crate) type Done<T> = Result<T, Stop>;

/// The program that is tortured.
#[derive(Debug, Clone)]
pub(crate) struct Program(pub PathBuf);

/// A load at work.
///
/// Its lines come through a pipe: when we are gone, it notices at its next line and ends.
pub(crate) struct Load {
    child: Child,
    lines: Option<JoinHandle<Vec<u8>>>,
    phases: Receiver<String>,
    errors: PathBuf,
}

impl Program {
    /// Starts a load on `data`. What it says on its standard error goes to the file `errors`.
    pub(crate) fn load(&self, data: &Path, setup: Setup, seed: u64, errors: &Path) -> Result<Load, String> {
        let mut command = Command::new(&self.0);
        command.arg("load").arg("--data").arg(data).args(setup.arguments());
        command.args(["--seed", &seed.to_string()]).stdin(Stdio::null());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(create(errors)?)
            .spawn()
            .map_err(|err| format!("{} does not start: {err}", self.0.display()))?;
        let (says, phases) = mpsc::channel();
        let pipe = child.stdout.take();
        let lines = thread::spawn(move || pipe.map(|pipe| listen(pipe, &says)).unwrap_or_default());
        Ok(Load { child, lines: Some(lines), phases, errors: errors.to_owned() })
    }

    /// Holds `data` against the lines. Its output is kept beside them.
    pub(crate) fn check(&self, data: &Path, lines: &Path, after: &str) -> Done<Verdict> {
        let (out, err) = (lines.with_file_name("check.out"), lines.with_file_name("check.err"));
        let mut child = self.start_check(data, lines, after, &out, &err)?;
        let status = wait(&mut child, LONGEST_CHECK)?;
        let read = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let read = |path: &Path| read(path).map_err(|err| format!("{}: {err}", path.display()));
        judge(status, &read(&out)?, &read(&err)?)
    }

    /// Kills a check while it opens `data`.
    pub(crate) fn kill_check(&self, data: &Path, lines: &Path, after: Duration) -> Result<(), String> {
        let (out, err) = (lines.with_file_name("killed.out"), lines.with_file_name("killed.err"));
        let mut child = self.start_check(data, lines, "kill", &out, &err)?;
        thread::sleep(after);
        end(&mut child)
    }

    fn start_check(
        &self,
        data: &Path,
        lines: &Path,
        after: &str,
        out: &Path,
        err: &Path,
    ) -> Result<Child, String> {
        let mut command = Command::new(&self.0);
        command.arg("check").arg("--data").arg(data).arg("--acks").arg(lines).args(["--after", after]);
        command.stdin(Stdio::null()).stdout(create(out)?).stderr(create(err)?);
        command.spawn().map_err(|err| format!("{} does not start: {err}", self.0.display()))
    }
}

impl Load {
    /// Waits until it is time to stop it.
    ///
    /// # Errors
    /// If it does not work until then.
    pub(crate) fn work(&mut self, time: Duration) -> Done<()> {
        thread::sleep(time);
        match self.child.try_wait() {
            Ok(None) => panic_in(&self.errors(), |_| true).map_or(Ok(()), |panic| Err(Stop::Broken(panic))),
            Ok(Some(status)) => {
                let errors = self.errors();
                let words = errors.lines().last().unwrap_or("without a word");
                Err(Stop::Broken(format!("the load ended by itself ({status}): {words}")))
            }
            Err(err) => Err(Stop::Trouble(format!("the load cannot be waited for: {err}"))),
        }
    }

    /// Waits until it has opened and begun.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn open(&mut self) -> Done<()> {
        match self.phases.recv_timeout(LONGEST_OPENING) {
            Ok(_) => Ok(()),
            Err(_) => Err(Stop::Broken(format!("the load did not open in {} s", LONGEST_OPENING.as_secs()))),
        }
    }

    /// Waits until the tenant comes into this phase, or for a while in vain.
    ///
    /// # Errors
    /// If it does not work until then.
    pub(crate) fn reach(&mut self, phase: Option<&str>) -> Done<()> {
        let Some(phase) = phase else { return Ok(()) };
        let end = Instant::now() + LONGEST_WAIT;
        while self.phases.try_recv().is_ok() {}
        while let Ok(now) = self.phases.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if now == phase {
                break;
            }
        }
        self.work(Duration::ZERO)
    }

    /// Kills it, and says what it has acknowledged.
    pub(crate) fn kill(mut self) -> Done<Vec<u8>> {
        end(&mut self.child)?;
        let said = self.lines.take().and_then(|lines| lines.join().ok());
        let said = said.ok_or_else(|| "the reader of the load's lines has panicked".to_owned())?;
        // Libraries may panic when their disk is gone. We may not, and a panic of theirs is not to end us.
        match panic_in(&self.errors(), |place| !place.contains("/registry/")) {
            Some(panic) => Err(Stop::Broken(panic)),
            None => Ok(acks::whole_lines(&said).to_vec()),
        }
    }

    fn errors(&self) -> String {
        fs::read(&self.errors).map(|said| String::from_utf8_lossy(&said).into_owned()).unwrap_or_default()
    }
}

/// The first panic at a place that counts: where, and what it said.
fn panic_in(errors: &str, counts: impl Fn(&str) -> bool) -> Option<String> {
    let mut lines = errors.lines().skip_while(|line| !line.contains("panicked at") || !counts(line));
    let place = lines.next()?;
    Some(format!("the load panicked: {place} {}", lines.next().unwrap_or_default()))
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = end(&mut self.child);
    }
}

/// Takes what a load says until it ends, and passes on the phases.
fn listen(mut pipe: impl Read, says: &Sender<String>) -> Vec<u8> {
    let (mut said, mut heard) = (Vec::new(), 0);
    let mut chunk = vec![0; 64 << 10];
    loop {
        let length = match pipe.read(&mut chunk) {
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => continue,
            // What was read before an error counts as well.
            Ok(0) | Err(_) => return said,
            Ok(length) => length,
        };
        said.extend_from_slice(chunk.get(..length).unwrap_or_default());
        let news = acks::whole_lines(said.get(heard..).unwrap_or_default());
        for phase in news.split(|byte| *byte == b'\n').filter_map(acks::phase_of) {
            // Nobody listens when it is not waited for.
            let _ = says.send(phase);
        }
        heard += news.len();
    }
}

/// What a check that has ended says.
///
/// # Errors
/// [`Stop::Broken`] if it did not end as a check may: it must always come to a verdict.
fn judge(status: Option<ExitStatus>, out: &str, err: &str) -> Done<Verdict> {
    let Some(status) = status else {
        return Err(Stop::Broken(format!("the check did not end in {} s", LONGEST_CHECK.as_secs())));
    };
    let last = |text: &str| text.lines().last().unwrap_or("nothing").to_owned();
    let odd = |why: &str| Stop::Broken(format!("the check {why} ({status}) and said: {}", last(err)));
    let verdict = acks::verdict(out).map_err(|said| odd(&format!("came to no verdict: {said}")))?;
    match status.code() {
        Some(0) if verdict.ok && verdict.broken.is_empty() => Ok(verdict),
        Some(1) if !verdict.ok && !verdict.broken.is_empty() => Ok(verdict),
        _ => Err(odd("contradicts itself")),
    }
}

/// `None` if it has not ended by then; it is killed.
fn wait(child: &mut Child, longest: Duration) -> Result<Option<ExitStatus>, String> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Some(status)),
            Ok(None) if begun.elapsed() < longest => thread::sleep(Duration::from_millis(2)),
            Ok(None) => return end(child).map(|()| None),
            Err(err) => return Err(format!("a child cannot be waited for: {err}")),
        }
    }
}

/// SIGKILL, and nothing of it is left.
fn end(child: &mut Child) -> Result<(), String> {
    // It may have ended.
    let _ = child.kill();
    child.wait().map(|_| ()).map_err(|err| format!("a child cannot be waited for: {err}"))
}

fn create(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|err| format!("{}: {err}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn judged(code: i32, out: &str) -> Result<bool, String> {
        let status = ExitStatus::from_raw(code << 8);
        judge(Some(status), out, "oh\nno\n").map(|verdict| verdict.ok).map_err(|stop| match stop {
            Stop::Broken(what) => what,
            Stop::Trouble(what) => panic!("trouble: {what}"),
        })
    }

    #[test]
    fn only_what_is_consistent_is_a_verdict() {
        let (good, bad) = (r#"{"ok":true,"broken":[]}"#, r#"{"ok":false,"broken":["I2"]}"#);
        assert_eq!(judged(0, good), Ok(true));
        assert_eq!(judged(1, bad), Ok(false));
        for (code, out) in
            [(1, good), (0, bad), (2, good), (0, ""), (101, bad), (1, r#"{"ok":false,"broken":[]}"#)]
        {
            let said = judged(code, out).unwrap_err();
            assert!(said.ends_with("said: no"), "{code} {out}: {said}");
        }
        assert!(matches!(judge(None, good, ""), Err(Stop::Broken(said)) if said.contains("did not end")));
    }

    #[test]
    fn phases_are_heard_and_nothing_is_left_out() {
        let phase = |name: &str| format!("{{\"ack\":\"phase\",\"phase\":\"{name}\",\"home\":\"sled\"}}\n");
        let text = format!(
            "{}{}no line\n{}{{\"ack\":\"pha",
            phase("stable"),
            "x".repeat(200_000),
            phase("migration")
        );
        /// Comes in small pieces.
        struct Pipe<'t>(&'t [u8]);
        impl Read for Pipe<'_> {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                let most = out.len().min(777);
                self.0.read(&mut out[..most])
            }
        }
        let (says, phases) = mpsc::channel();
        assert_eq!(listen(Pipe(text.as_bytes()), &says), text.as_bytes());
        drop(says);
        assert_eq!(phases.iter().collect::<Vec<_>>(), ["stable", "migration"]);
    }

    #[test]
    fn panics_are_found_where_they_count() {
        let errors = "well\nthread 'a' (1) panicked at /root/registry/src/sled.rs:467:41:\nno disk\nstack backtrace:\n\
                      thread 'b' (2) panicked at src/gc.rs:1:1:\nnot ours to lose\n";
        let found = panic_in(errors, |_| true).unwrap();
        assert!(found.ends_with("sled.rs:467:41: no disk"), "{found}");
        let found = panic_in(errors, |place| !place.contains("/registry/")).unwrap();
        assert!(found.ends_with("src/gc.rs:1:1: not ours to lose"), "{found}");
        assert_eq!(panic_in("all is well\n", |_| true), None);
    }

    #[test]
    fn a_child_that_hangs_is_killed() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(wait(&mut child, Duration::from_millis(20)).unwrap(), None);
        assert!(child.try_wait().unwrap().is_some());
    }
}

//! `load` and `check` with real processes: killed at any moment every promise is kept, and a lie is found.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected is to panic"
)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover::offline::Directory;
use cutover::store::rocksdb::RocksDbDriver;
use cutover::store::sled::SledDriver;
use cutover::store::{Batch, Driver, Write};
use cutover_formats::{Family, InstanceId, Layout as _, Record, RowId, StoreId, V1};
use serde_json::{Value, json};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(120);

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    /// The last line.
    fn verdict(&self) -> Value {
        serde_json::from_str(self.out.lines().last().unwrap_or_default())
            .unwrap_or_else(|err| panic!("{err}: {}\n{}", self.out, self.err))
    }

    fn kept(&self) -> Value {
        let verdict = self.verdict();
        assert_eq!((self.code, verdict["ok"].as_bool()), (0, Some(true)), "{}\n{}", self.out, self.err);
        assert_eq!(verdict["lost"], 0, "{}", self.out);
        verdict
    }

    /// Exit code 1, and a sentence that names it.
    fn broken(&self, named: &str) {
        let verdict = self.verdict();
        assert_eq!((self.code, verdict["ok"].as_bool()), (1, Some(false)), "{}\n{}", self.out, self.err);
        let sentences = verdict["broken"].as_array().unwrap();
        assert!(
            sentences.iter().any(|one| one.as_str().unwrap().contains(named)),
            "{named:?} is not in {sentences:#?}"
        );
    }
}

struct Home {
    dir: TempDir,
    session: u32,
}

impl Home {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), session: 0 }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn acks(&self) -> PathBuf {
        self.dir.path().join(format!("acks.{}", self.session))
    }

    fn load(&mut self, seed: u64, words: &[&str]) -> Command {
        self.session += 1;
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.arg("load").arg("--data").arg(self.data()).args(["--seed", &seed.to_string()]).args(words);
        command.stderr(Stdio::inherit());
        command
    }

    /// Loads it and kills it so long after it said `lines` lines.
    fn kill(&mut self, seed: u64, words: &[&str], lines: usize, after: Duration) {
        let mut command = self.load(seed, words);
        command.stdout(File::create(self.acks()).unwrap());
        let mut child = command.spawn().unwrap();
        let until = Instant::now() + LONG;
        while self.lines().len() < lines {
            assert!(
                Instant::now() < until && child.try_wait().unwrap().is_none(),
                "it does not work: {:?}",
                self.acks()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.acks()).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn write(&self, lines: &[Value]) {
        fs::write(self.acks(), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    fn check(&self, words: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.arg("check").arg("--data").arg(self.data()).arg("--acks").arg(self.acks()).args(words);
        said(&mut command)
    }
}

fn said(command: &mut Command) -> Said {
    let done = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: done.status.code().unwrap(), out: text(done.stdout), err: text(done.stderr) }
}

/// Chained kills of loads that move between these drivers.
fn kills(from: &str, to: &str, durability: &str) {
    let seed = fastrand::u64(..);
    println!("seed {seed}, from {from} to {to}, {durability}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut home = Home::new();
    let words = ["--from", from, "--to", to, "--durability", durability, "--migrate", "--reverse"];
    for cycle in 0..4 {
        // Some while they open.
        let lines = if cycle == 2 { 0 } else { rng.usize(20..400) };
        home.kill(seed ^ cycle, &words, lines, Duration::from_micros(rng.u64(..30_000)));
        let verdict = home.check(&["--after", "kill"]).kept();
        println!("{} lines, {}", verdict["lines"], verdict["phase"]);
        assert!(verdict["lines"].as_u64().unwrap() as usize >= lines);
    }
}

#[test]
fn killed_between_rocksdb_and_sled() {
    kills("rocksdb", "sled", "buffered");
}

#[test]
fn killed_between_sled_and_rocksdb() {
    kills("sled", "rocksdb", "synced");
}

#[test]
fn killed_between_two_paths_of_one_driver() {
    kills("rocksdb", "rocksdb", "buffered");
}

/// A session of which nothing is lost, which does not move.
fn session(driver: &str) -> Home {
    let mut home = Home::new();
    home.kill(fastrand::u64(..), &["--from", driver, "--durability", "buffered"], 300, Duration::ZERO);
    home
}

/// Launches that started something, the latest last.
fn started(lines: &[Value]) -> Vec<usize> {
    let is =
        |line: &Value| line["ack"] == "launch" && line["answer"] == "started" && line["n"] == line["number"];
    (0..lines.len()).filter(|at| is(&lines[*at])).collect()
}

#[test]
fn lies_in_the_lines_are_found() {
    let home = session("rocksdb");
    let good = home.lines();
    home.check(&["--after", "kill"]).kept();

    // An instance that never was.
    let mut lines = good.clone();
    let mut never = lines[*started(&lines).last().unwrap()].clone();
    let id = InstanceId::new(StoreId(1), 1_790_000_000_000, 1);
    never["instance"] = json!(id.to_string());
    lines.push(never);
    home.write(&lines);
    home.check(&["--after", "kill"]).broken(&id.to_string());

    // An epoch that never came.
    let mut lines = good.clone();
    let at = lines.iter().rposition(|line| line["ack"] == "phase").unwrap();
    lines[at]["epoch"] = json!(lines[at]["epoch"].as_u64().unwrap() + 7);
    home.write(&lines);
    home.check(&["--after", "kill"]).broken("epoch 8 (stable) was acknowledged");

    // Another instance than the one that was started.
    let mut lines = good.clone();
    let at = *started(&lines).last().unwrap();
    let was: InstanceId = lines[at]["instance"].as_str().unwrap().parse().unwrap();
    lines[at]["instance"] = json!(InstanceId(was.0 ^ 1).to_string());
    home.write(&lines);
    home.check(&["--after", "kill"]).broken(&was.to_string());

    // An id that is none.
    let mut lines = good.clone();
    lines[at]["instance"] = json!("00000000000000000000000000A");
    home.write(&lines);
    home.check(&["--after", "kill"]).broken("00000000000000000000000000A");

    // And nothing that the lies did stays.
    home.write(&good);
    assert_eq!(home.check(&["--after", "kill"]).code, 0, "{}", home.check(&[]).out);
}

/// Changes rows of the one store: `None` takes the row away.
fn rewrite(
    home: &Home,
    family: Family,
    mut change: impl FnMut(&RowId<'_>, Record) -> Option<Option<Record>>,
) {
    let directory = Directory::open(home.data()).unwrap();
    let store = &directory.stores()[0];
    let driver: Arc<dyn Driver> = match store.driver.as_str() {
        "sled" => Arc::new(SledDriver::default()),
        _ => Arc::new(RocksDbDriver::default()),
    };
    let store = driver.open(&directory.store_path(store)).unwrap();
    let mut batch = Batch::new();
    store
        .scan(family, b"", b"", &mut |key, value| {
            let (_, row) = V1.read_key(family, key).unwrap();
            match change(&row, V1.read_value(&row, value).unwrap()) {
                Some(Some(record)) => {
                    let mut bytes = Vec::new();
                    V1.value(&record, &mut bytes).unwrap();
                    batch.put(family, key, &bytes);
                }
                Some(None) => batch.delete(family, key),
                None => return ControlFlow::Continue(()),
            }
            ControlFlow::Break(())
        })
        .unwrap();
    assert!(!batch.is_empty(), "nothing was there to be changed");
    store.commit(&batch, Write::Synced).unwrap();
}

#[test]
fn damage_in_the_stores_is_found() {
    for driver in ["rocksdb", "sled"] {
        let home = session(driver);
        let mut named = String::new();
        rewrite(&home, Family::Definitions, |row, record| match (row, record) {
            (RowId::Definition { name, .. }, Record::Definition(mut record)) if name.starts_with("d.") => {
                named = name.to_string();
                *record.body.last_mut().unwrap() ^= 1;
                Some(Some(Record::Definition(record)))
            }
            _ => None,
        });
        home.check(&[]).broken(&format!("the definition {named} has other bytes"));
        let mut gone = None;
        rewrite(&home, Family::Instances, |row, record| match (row, record) {
            (RowId::Instance { id }, Record::Instance(head)) if head.ended.is_none() => {
                gone = Some(*id);
                Some(None)
            }
            _ => None,
        });
        home.check(&["--after", "kill"]).broken(&gone.unwrap().to_string());
    }
}

#[test]
fn it_ends_quietly_when_nobody_reads() {
    let mut home = Home::new();
    let mut child = home.load(1, &["--durability", "buffered"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("{\"ack\":\"opened\""), "{first}");
    // The reader is dropped with the end of that line.
    let until = Instant::now() + LONG;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "it goes on");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{status}");
    fs::write(home.acks(), first).unwrap();
    // The file holds less than was said, so what is there besides may be anybody's.
    assert!(home.check(&[]).verdict()["phase"].is_string());
}

#[test]
fn what_is_wrong_is_said_in_one_sentence() {
    fn refused(said: &Said, about: &str) {
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{}", said.err);
        assert!(said.err.starts_with("cutover: ") && said.err.lines().count() == 1, "{}", said.err);
        assert!(said.err.contains(about), "{about:?} is not in {}", said.err);
    }
    let mut home = Home::new();
    refused(&home.check(&[]), "cannot read");
    fs::write(home.acks(), "hello\n").unwrap();
    refused(&home.check(&[]), "line 1 is no JSON");
    fs::write(home.acks(), "{\"ack\":\"idle\",\"thread\":0,\"n\":0,\"before\":0,\"at_ms\":0}\n").unwrap();
    refused(&home.check(&[]), "the first line is not about the opening");
    // Killed before it said anything, and before there was a directory.
    fs::write(home.acks(), "").unwrap();
    assert_eq!(home.check(&[]).kept()["phase"], Value::Null);
    fs::remove_dir_all(home.data()).unwrap();
    fs::create_dir(home.data()).unwrap();
    fs::write(home.data().join("letter.txt"), "mine").unwrap();
    refused(&home.check(&[]), "is not a cutover data directory");
    refused(&said(home.load(1, &[]).stderr(Stdio::piped())), "is not a cutover data directory");
    for words in [&["--from", "mysql"][..], &["--reverse"], &["--threads", "0"], &["--durability", "none"]] {
        let done = home.load(1, words).stderr(Stdio::null()).status().unwrap();
        assert_eq!(done.code(), Some(2), "{words:?}");
    }
    // Data that was promised and is not there is no matter of usage.
    let home = session("rocksdb");
    fs::remove_dir_all(home.data()).unwrap();
    home.check(&["--after", "kill"]).broken("it does not open");
}

#[test]
fn a_directory_in_use_is_refused() {
    let mut home = Home::new();
    let mut child = home.load(1, &[]).stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    fs::write(home.acks(), "").unwrap();
    let done = home.check(&[]);
    assert_eq!((done.code, done.out.as_str()), (2, ""), "{}", done.err);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(Path::new(&home.data()).exists());
}

//! Rules of the house that no compiler checks, read off the sources themselves:
//!
//! - the layers of the library know only those below them;
//! - each foreign format and store is known by one file, or one driver;
//! - threads are started in one place;
//! - locks, conditions, atomics, threads and the clock they sleep by are named in one place;
//! - files stay short enough to be read in one go.
//!
//! Each rule is a function from a file's name and text to complaints, and each has a test on a made-up text that
//! breaks it.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the bottom up. Those on one line do not know each other. `lib.rs` stands above them all.
const LAYERS: [&[&str]; 12] = [
    &["sync"],
    &["error", "heartbeats"],
    &["clock", "event", "files", "locks", "plan", "service"],
    &["store", "status"],
    &["fault"],
    &["meta"],
    &["catalog"],
    &["shared"],
    &["tenant", "threads"],
    &["migration", "gc", "mend"],
    &["handover"],
    &["engine", "offline"],
];

/// Crates that only some files may name: the crate, and how the names of these files start.
const KNOWN_ONLY_IN: [(&str, &str); 11] = [
    ("loom", "src/status/"),
    ("shuttle", "src/sync/shuttled.rs"),
    ("getrandom", "src/service/mod.rs"),
    ("hmac", "src/service/signature.rs"),
    ("http_body_util", "src/service/proxy/"),
    ("hyper", "src/service/proxy/"),
    ("hyper_util", "src/service/proxy/"),
    ("tokio", "src/service/proxy/"),
    ("bincode", "storage-formats/src/codec.rs"),
    ("sled", "src/store/sled"),
    ("rocksdb", "src/store/rocksdb"),
];

/// What a scheduler of a test has to take the place of: only `src/sync.rs` names it. Of `std::sync` all but [`SCHEDULES_NOTHING`].
const PRIMITIVES: [&str; 8] = [
    "std::sync",
    "std::thread",
    "std::thread_local",
    "std::time::Instant",
    "std::hint::spin_loop",
    "std::hash::RandomState",
    "parking_lot",
    "crossbeam",
];
const SCHEDULES_NOTHING: [&str; 3] = ["std::sync::Arc", "std::sync::Weak", "std::sync::PoisonError"];

const MOST_LINES: usize = 600;

#[test]
fn the_layers_know_only_those_below_them() {
    hold(&["src"], layers);
}

#[test]
fn foreign_crates_are_known_in_one_place() {
    hold(&["src", "storage-formats/src", "oracle/src", "cli/src"], foreign_crates);
}

#[test]
fn threads_are_started_in_one_place() {
    hold(&["src", "storage-formats/src"], threads);
}

#[test]
fn primitives_are_named_in_one_place() {
    hold(&["src"], primitives);
}

#[test]
fn files_are_short() {
    hold(
        &[
            "src",
            "storage-formats",
            "oracle",
            "wfformat",
            "cli",
            "model",
            "xtask",
            "tests",
            "benches",
            "examples",
            "fuzz/fuzz_targets",
        ],
        short,
    );
}

/// Holds every Rust file below these directories against a rule.
fn hold(directories: &[&str], rule: fn(&str, &str) -> Vec<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in directories {
        rust_files(&root.join(directory), &mut files);
    }
    assert!(!files.is_empty(), "no files below {directories:?}");
    let mut complaints = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        match fs::read_to_string(&file) {
            Ok(text) => complaints.extend(rule(&name, &text)),
            Err(err) => complaints.push(format!("{name}: {err}")),
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn rust_files(directory: &Path, out: &mut Vec<PathBuf>) {
    // A directory that is not there has no files: not all of them exist from the start.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

// The rules.

fn layers(file: &str, text: &str) -> Vec<String> {
    let Some(from) = layer_of(file) else { return Vec::new() };
    if rank(from).is_none() {
        return vec![format!("{file}:1: {from} is not in the list of layers in tests/tidy.rs")];
    }
    let at_the_top = file.matches('/').count() == 1;
    let code = code(text);
    let mut complaints = Vec::new();
    for Named { line, path, .. } in paths(&code) {
        let mut parts = path.split("::");
        let to = match (parts.next(), parts.next()) {
            (Some("crate"), Some(to)) => to,
            // In `src/gc.rs`, `super` is the crate, except in the modules inside it.
            (Some("super"), Some(to)) if at_the_top && rank(to).is_some() => to,
            _ => continue,
        };
        if to != from && !may_use(from, to) {
            complaints.push(format!("{file}:{line}: {from} may not use {to} ({path})"));
        }
    }
    complaints
}

/// `src/store/sled/rows.rs` is of the layer `store`. `lib.rs` is of none.
fn layer_of(file: &str) -> Option<&str> {
    let first = file.strip_prefix("src/")?.split('/').next()?;
    let layer = first.strip_suffix(".rs").unwrap_or(first);
    (layer != "lib").then_some(layer)
}

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&layer))
}

fn may_use(from: &str, to: &str) -> bool {
    // All else is written as steps that somebody calls, and needs no thread in a test.
    if to == "threads" {
        return from == "engine";
    }
    // What has no rank is named through `lib.rs`, which is above everything.
    matches!((rank(from), rank(to)), (Some(from), Some(to)) if to < from)
}

fn foreign_crates(file: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let paths = paths(&code);
    let mut complaints = Vec::new();
    for (name, home) in KNOWN_ONLY_IN {
        if file.starts_with(home) {
            continue;
        }
        // `use crate::store::sled` makes `sled` a name for our own module.
        let is_ours = paths.iter().any(|one| one.imported && one.local == name && one.path.contains("::"));
        let named = paths.iter().filter(|one| one.imported || !is_ours);
        for one in named.filter(|one| one.path.split("::").next() == Some(name)) {
            complaints.push(format!("{file}:{}: only {home}* may name {name} ({})", one.line, one.path));
        }
    }
    complaints
}

fn threads(file: &str, text: &str) -> Vec<String> {
    if file == "src/threads.rs" || file.starts_with("src/sync") || only_tests_compile(file) {
        return Vec::new();
    }
    let code = without_tests(&code(text));
    let starts = |path: &str| {
        ["thread::spawn", "thread::Builder"]
            .iter()
            .any(|start| path == *start || path.ends_with(&format!("::{start}")))
    };
    let found = paths(&code).into_iter().filter(|one| starts(&one.path));
    found
        .map(|one| format!("{file}:{}: only src/threads.rs may start a thread ({})", one.line, one.path))
        .collect()
}

/// Modules of these names.
fn only_tests_compile(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.ends_with("/model.rs") || file.contains("/model/")
}

fn primitives(file: &str, text: &str) -> Vec<String> {
    if file.starts_with("src/sync") || only_tests_compile(file) {
        return Vec::new();
    }
    let code = without_tests(&code(text));
    let paths = paths(&code);
    let is_in = |path: &str, outer: &str| {
        path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let is_primitive = |path: &str| {
        PRIMITIVES.iter().any(|primitive| is_in(path, primitive))
            && !SCHEDULES_NOTHING.iter().any(|harmless| is_in(path, harmless))
    };
    // `use std::sync::{Arc, Weak}` is read as that path too, and as those of what it brings in.
    let named = paths.iter().filter(|one| one.imported || one.path != "std::sync");
    let named = named.filter(|one| is_primitive(&one.path));
    let mut complaints: Vec<String> =
        named.map(|one| format!("{file}:{}: only src/sync.rs may name {}", one.line, one.path)).collect();
    // This one needs no import.
    let ours = paths.iter().any(|one| one.imported && one.path == "crate::sync::thread_local");
    if let Some((before, _)) = code.split_once("thread_local!").filter(|_| !ours) {
        let line = line_of(before);
        complaints.push(format!("{file}:{line}: thread_local! is to be that of crate::sync"));
    }
    complaints
}

fn short(file: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines <= MOST_LINES {
        return Vec::new();
    }
    vec![format!("{file}:{MOST_LINES}: {lines} lines, more than {MOST_LINES}: split it")]
}

// Just enough of a reader of Rust.

/// The text with comments and literals blanked, lines kept.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_word = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let blank = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => 1 + string(rest.get(1..).unwrap_or("")),
            'r' | 'b' | 'c' if !after_word => prefixed_literal(rest),
            '\'' => character(rest),
            _ => 0,
        };
        let (gone, next) = rest.split_at(blank.min(rest.len()));
        out.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = next;
        if blank == 0 {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or("");
        }
    }
    out
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let step = if rest.starts_with("/*") {
            depth += 1;
            2
        } else if rest.starts_with("*/") {
            depth -= 1;
            2
        } else {
            rest.chars().next().map_or(1, char::len_utf8)
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Bytes up to and with the quote that ends a string whose first quote is behind us.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `c"…"`; 0 if it is something else.
fn prefixed_literal(text: &str) -> usize {
    let letters = text.len() - text.trim_start_matches(['b', 'c', 'r']).len();
    let (prefix, rest) = text.split_at(letters);
    if !matches!(prefix, "r" | "b" | "c" | "br" | "cr") {
        return 0;
    }
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let Some(body) = rest.get(hashes..).and_then(|rest| rest.strip_prefix('"')) else { return 0 };
    let start = letters + hashes + 1;
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        start + body.find(&end).map_or(body.len(), |at| at + end.len())
    } else {
        start + string(body)
    }
}

/// Bytes of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let rest = text.get(at + escaped.len_utf8()..).unwrap_or("");
            rest.find('\'').map_or(0, |end| at + escaped.len_utf8() + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// The code with every item under `#[cfg(test)]` blanked.
fn without_tests(code: &str) -> String {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut out = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once(ATTRIBUTE) {
        let mut depth = 0i32;
        let end = after.char_indices().find_map(|(at, c)| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            ((c == '}' || c == ';') && depth == 0).then_some(at + 1)
        });
        let (item, next) = after.split_at(end.unwrap_or(after.len()));
        out.push_str(before);
        out.extend(item.chars().filter(|c| *c == '\n'));
        rest = next;
    }
    out + rest
}

/// A path and where it stands.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    line: usize,
    path: String,
    /// What it is called from there on.
    local: String,
    /// Whether a `use` item brings it in.
    imported: bool,
}

/// Every path in the code, in order, each once.
fn paths(code: &str) -> Vec<Named> {
    let mut paths = uses(code);
    for path in inline_paths(code) {
        // A `use` item without braces is read as both.
        if !paths.iter().any(|known| (known.line, &known.path) == (path.line, &path.path)) {
            paths.push(path);
        }
    }
    paths.sort();
    paths
}

/// Every path that the `use` items bring in.
fn uses(code: &str) -> Vec<Named> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let (before, item) = code.split_at(at);
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let tree = item.trim_start_matches("use ").split(';').next().unwrap_or("");
        let mut paths = Vec::new();
        expand("", tree, &mut paths);
        found.extend(paths.into_iter().map(|path| {
            let (path, local) = match path.split_once(" as ") {
                Some((path, local)) => (path.trim().to_owned(), local.trim().to_owned()),
                None => (path.clone(), path.rsplit("::").next().unwrap_or("").to_owned()),
            };
            Named { line: line_of(before), path, local, imported: true }
        }));
    }
    found
}

/// `a::{b, c::{d, self}}` to `a::b`, `a::c::d`, `a::c`.
fn expand(prefix: &str, tree: &str, out: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        let path = format!("{prefix}{tree}");
        let path = path.trim_start_matches("::");
        if !tree.is_empty() {
            out.push(path.strip_suffix("::self").unwrap_or(path).to_owned());
        }
        return;
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let prefix = format!("{prefix}{}", head.trim());
    let (mut depth, mut start) = (0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, inner.get(start..at).unwrap_or(""), out);
                start = at + 1;
            }
            _ => {}
        }
    }
    expand(&prefix, inner.get(start..).unwrap_or(""), out);
}

/// Every path of at least two parts that stands in the code, `use` items without their braces among them.
fn inline_paths(code: &str) -> Vec<Named> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut at = 0;
    for word in code.split_inclusive(|c| !is_part(c)) {
        let path = word.trim_end_matches(|c| !is_part(c)).trim_matches(':');
        if path.contains("::") {
            let local = path.rsplit("::").next().unwrap_or("").to_owned();
            let line = line_of(code.get(..at).unwrap_or(""));
            found.push(Named { line, path: path.to_owned(), local, imported: false });
        }
        at += word.len();
    }
    found
}

fn line_of(before: &str) -> usize {
    before.matches('\n').count() + 1
}

// The rules can fail.

#[test]
fn a_layer_that_looks_up_is_named_with_file_and_line() {
    let text =
        "use std::fs;\nuse crate::{error::Result, engine::{self, Engine}};\n\nfn f() { crate::gc::run() }\n";
    assert_eq!(
        layers("src/tenant/launch.rs", text),
        [
            "src/tenant/launch.rs:2: tenant may not use engine (crate::engine)",
            "src/tenant/launch.rs:2: tenant may not use engine (crate::engine::Engine)",
            "src/tenant/launch.rs:4: tenant may not use gc (crate::gc::run)",
        ]
    );
    assert!(layers("src/engine.rs", "use crate::threads::Crew;\nuse super::gc;").is_empty());
    assert_eq!(layers("src/gc.rs", "use super::migration::Phase;").len(), 1);
    assert_eq!(layers("src/store/mod.rs", "use crate::threads::Crew;").len(), 1);
    assert_eq!(layers("src/store/mod.rs", "use crate::Error;").len(), 1, "around through lib.rs");
    assert_eq!(layers("src/stowaway.rs", "").len(), 1, "a layer that is not in the list");
    assert!(layers("src/lib.rs", "pub use crate::engine::Engine;").is_empty());
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = r###"
        //! [`Engine`](crate::engine::Engine)
        /* crate::engine /* nested */ crate::engine */
        const A: &str = "crate::engine::A \" crate::engine::B";
        const B: &str = r#"crate::engine::C " crate::engine::D"#;
        const C: (char, char) = ('"', '\'');
        fn f<'a>(x: &'a str) -> &'a str { crate::gc::f(x) }
    "###;
    assert_eq!(layers("src/error.rs", text), ["src/error.rs:7: error may not use gc (crate::gc::f)"]);
}

#[test]
fn a_foreign_crate_outside_its_file_is_named() {
    let text = "use bincode::config;\nfn f() { let _ = sled::open(\"x\"); }\n";
    assert_eq!(
        foreign_crates("src/meta/slots.rs", text),
        [
            "src/meta/slots.rs:1: only storage-formats/src/codec.rs* may name bincode (bincode::config)",
            "src/meta/slots.rs:2: only src/store/sled* may name sled (sled::open)",
        ]
    );
    assert!(foreign_crates("src/store/sled.rs", "use sled::Db;").is_empty());
    assert!(
        foreign_crates("src/engine.rs", "use crate::store::sled;\nfn f() { sled::Sled::new(); }").is_empty()
    );
    assert_eq!(foreign_crates("src/engine.rs", "use rocksdb as r;").len(), 1);
}

#[test]
fn a_thread_started_elsewhere_is_named_unless_a_test_starts_it() {
    let text = "fn f() {\n    std::thread::spawn(|| ());\n}\n#[cfg(test)]\nmod tests { fn g() { std::thread::spawn(|| ()); } }\n";
    assert_eq!(
        threads("src/gc.rs", text),
        ["src/gc.rs:2: only src/threads.rs may start a thread (std::thread::spawn)"]
    );
    assert!(threads("src/threads.rs", text).is_empty());
    assert_eq!(threads("src/gc.rs", "use std::thread::{self, Builder};").len(), 1);
}

#[test]
fn a_primitive_that_is_named_elsewhere_is_named_here() {
    let text = "use std::sync::{Arc, Mutex, atomic::AtomicBool};\nfn f() { std::thread::yield_now() }\n\
                use std::time::{Duration, Instant};\nthread_local!(static A: u8 = 1);\n\
                #[cfg(test)]\nmod tests { use parking_lot::Mutex; }\n";
    assert_eq!(
        primitives("src/gc.rs", text),
        [
            "src/gc.rs:1: only src/sync.rs may name std::sync::Mutex",
            "src/gc.rs:1: only src/sync.rs may name std::sync::atomic::AtomicBool",
            "src/gc.rs:2: only src/sync.rs may name std::thread::yield_now",
            "src/gc.rs:3: only src/sync.rs may name std::time::Instant",
            "src/gc.rs:4: thread_local! is to be that of crate::sync",
        ]
    );
    assert!(primitives("src/sync.rs", text).is_empty());
    let ours = "use std::sync::{Arc, Weak};\nuse crate::sync::{Mutex, thread, thread_local};\n\
                thread_local!(static A: u8 = 1);";
    assert!(primitives("src/gc.rs", ours).is_empty());
    assert_eq!(primitives("src/gc.rs", "use crossbeam::channel;").len(), 1);
}

#[test]
fn a_long_file_is_named() {
    assert!(short("src/a.rs", &"x\n".repeat(600)).is_empty());
    assert_eq!(short("src/a.rs", &"x\n".repeat(601)), ["src/a.rs:600: 601 lines, more than 600: split it"]);
}

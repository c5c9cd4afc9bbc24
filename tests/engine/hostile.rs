//! A data directory that somebody has been at: foreign files, links, pipes, no permission, other engines. It is refused in one sentence
//! that names what is in the way, or works; nothing outside is written, and nothing hangs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

#[cfg(all(feature = "rocksdb", feature = "sled"))]
use cutover::StoreSpec;
use cutover::offline::Directory;
use cutover::{Engine, ErrorKind, Result, TenantOptions};
use rustix::process::Uid;

use crate::common::{Home, KEEP, LONG, keyed, memory, started, tenant};

/// A directory that was used and closed.
fn used() -> Home {
    let home = Home::new();
    let engine = home.builder().background(false).open().unwrap();
    started(tenant(&engine, memory("a"), KEEP).launch(&keyed("k")).unwrap());
    engine.close(LONG).unwrap();
    home
}

fn open(home: &Home) -> Result<Engine> {
    home.builder().background(false).open()
}

/// The sentence with which it is refused; it names the file.
fn refused(home: &Home, kind: ErrorKind, file: &str) -> String {
    let err = open(home).map(drop).expect_err(file);
    let text = err.to_string();
    assert_eq!(err.kind(), kind, "{text}");
    assert!(text.contains(file) && text.lines().count() == 1, "{file:?} is not in {text:?}");
    text
}

/// Everything is there and can be worked with.
fn works(home: &Home) {
    let engine = open(home).unwrap();
    let tenant = engine.tenant("acme").unwrap();
    assert!(tenant.instance_by_key("scope", b"k").unwrap().is_some());
    tenant.define("late", 1, "t", b"").unwrap();
    engine.create_tenant("other", TenantOptions::new(memory("a"))).unwrap();
    engine.delete_tenant("other").unwrap();
    engine.close(LONG).unwrap();
}

#[test]
fn foreign_files_beside_ours_are_left_alone() {
    let home = used();
    let data = home.path().join("data");
    let strangers =
        ["notes.txt", "meta/notes.txt", "meta/tenant-.a", "meta/tenant-x.a", "meta/engine.c", "stores/x"];
    for name in strangers {
        fs::write(data.join(name), "mine").unwrap();
    }
    fs::create_dir(data.join("meta/sub")).unwrap();
    works(&home);
    for name in strangers {
        assert_eq!(fs::read(data.join(name)).unwrap(), b"mine", "{name}");
    }
}

#[test]
fn what_stands_in_the_place_of_a_file_of_ours_is_named_and_keeps_nobody_waiting() {
    for (name, kind) in [
        ("LOCK", ErrorKind::Io),
        ("meta/engine.a", ErrorKind::Corrupt),
        ("meta/catalog.a", ErrorKind::Corrupt),
        ("meta/tenant-0.a", ErrorKind::Corrupt),
    ] {
        let home = used();
        let path = home.path().join("data").join(name);
        if name == "meta/tenant-0.a" {
            // Its third copy would make it good.
            fs::remove_file(home.path().join("data/meta/tenant-0.jsonl")).unwrap();
        }
        // And so would its second one.
        if name.ends_with(".a") {
            fs::write(home.path().join("data").join(name.replace(".a", ".b")), "x").unwrap();
        }
        fs::remove_file(&path).unwrap();
        pipe(&path);
        refused(&home, kind, name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused(&home, ErrorKind::Io, name);
    }
}

#[test]
fn what_stands_in_the_place_of_a_file_that_has_another_copy_is_replaced_unless_it_is_a_directory() {
    for name in ["CUTOVER", "meta/engine.b", "meta/tenant-0.a", "meta/tenant-0.jsonl"] {
        let home = used();
        let path = home.path().join("data").join(name);
        fs::remove_file(&path).unwrap();
        pipe(&path);
        works(&home);
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{name}");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused(&home, ErrorKind::Io, name);
    }
}

fn pipe(path: &Path) {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
}

#[test]
fn a_link_to_the_directory_is_the_directory() {
    let home = used();
    symlink(home.path().join("data"), home.path().join("link")).unwrap();
    let engine = open(&home).unwrap();
    let by_link = Engine::builder(home.path().join("link"));
    assert_eq!(by_link.open().map(drop).unwrap_err().kind(), ErrorKind::Locked);
    let looked = Directory::open(home.path().join("link")).map(drop).unwrap_err();
    assert_eq!(looked.kind(), ErrorKind::Locked);
    engine.close(LONG).unwrap();
    let by_link = Directory::open(home.path().join("link")).unwrap();
    assert_eq!(by_link.tenants().len(), 1);
}

#[test]
fn a_link_that_leads_nowhere_is_refused_and_nothing_is_made_there() {
    let home = Home::new();
    symlink(home.path().join("nowhere"), home.path().join("data")).unwrap();
    let text = refused(&home, ErrorKind::Foreign, "data");
    assert!(text.ends_with("is a symbolic link that leads nowhere"), "{text}");
    assert!(!home.path().join("nowhere").exists());
}

#[test]
fn directories_inside_may_be_links_to_another_disk() {
    for name in ["meta", "stores"] {
        let home = used();
        let (inside, outside) = (home.path().join("data").join(name), home.path().join("outside"));
        fs::rename(&inside, &outside).unwrap();
        symlink(&outside, &inside).unwrap();
        works(&home);
    }
}

/// Reading follows a link; writing replaces it and never goes through it.
#[test]
fn nothing_is_written_through_a_link() {
    for name in ["meta/engine.a", "meta/catalog.b", "meta/tenant-0.a"] {
        let home = used();
        let (file, outside) = (home.path().join("data").join(name), home.path().join("outside"));
        fs::rename(&file, &outside).unwrap();
        symlink(&outside, &file).unwrap();
        let before = fs::read(&outside).unwrap();
        works(&home);
        assert_eq!(fs::read(&outside).unwrap(), before, "{name}");
    }
    for name in ["LOCK", "meta/engine.a.new", "meta/engine.b.new"] {
        let home = used();
        let (file, outside) = (home.path().join("data").join(name), home.path().join("outside"));
        drop(fs::remove_file(&file));
        fs::write(&outside, "mine").unwrap();
        symlink(&outside, &file).unwrap();
        refused(&home, ErrorKind::Io, name.trim_end_matches(".new"));
        assert_eq!(fs::read(&outside).unwrap(), b"mine", "{name}");
        fs::remove_file(&outside).unwrap();
        // Dangling now.
        refused(&home, ErrorKind::Io, name.trim_end_matches(".new"));
        assert!(!outside.exists(), "{name}");
    }
    // The journal is put together again from the record, in a file of its own.
    let home = used();
    let (file, outside) = (home.path().join("data/meta/tenant-0.jsonl"), home.path().join("outside"));
    fs::remove_file(&file).unwrap();
    fs::write(&outside, "mine").unwrap();
    symlink(&outside, &file).unwrap();
    works(&home);
    assert!(fs::symlink_metadata(&file).unwrap().is_file());
    assert_eq!(fs::read(&outside).unwrap(), b"mine");
}

/// Calls `act` as a user who may do nothing here. Root is stopped by no mode; whoever is not root cannot become another user, and then
/// this says nothing.
fn as_nobody<T: Send>(act: impl FnOnce() -> T + Send) -> Option<T> {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return None;
    }
    // On Linux each thread has a user of its own.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::set_thread_uid(Uid::from_raw(65_534)).unwrap();
            act()
        });
        Some(thread.join().unwrap())
    })
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn without_permission_it_says_so_and_names_the_file() {
    let denied = |home: &Home, file: &str| {
        let Some(answer) = as_nobody(|| open(home).map(drop)) else { return };
        let text = answer.expect_err(file).to_string();
        assert!(text.contains(file) && text.contains("Permission denied"), "{file:?}: {text}");
    };
    // Somebody else's directory, which is closed to us.
    let home = used();
    allow(home.path(), 0o755);
    denied(&home, "data");
    // One that may be read but not written.
    allow(&home.path().join("data"), 0o755);
    denied(&home, "CUTOVER");
    allow(&home.path().join("data/CUTOVER"), 0o644);
    denied(&home, "LOCK");
    allow(&home.path().join("data/LOCK"), 0o666);
    denied(&home, "meta");
    let looked = as_nobody(|| Directory::open(home.path().join("data")).map(drop));
    if let Some(looked) = looked {
        assert!(looked.unwrap_err().to_string().contains("Permission denied"));
    }
    // Files that may be read, in directories that may not be written: nothing is half done.
    allow(&home.path().join("data/meta"), 0o755);
    for entry in fs::read_dir(home.path().join("data/meta")).unwrap() {
        allow(&entry.unwrap().path(), 0o644);
    }
    let before = fs::read(home.path().join("data/meta/engine.a")).unwrap();
    denied(&home, "meta/");
    assert_eq!(fs::read(home.path().join("data/meta/engine.a")).unwrap(), before);
    // No directory at all, and none can be made.
    let home = Home::new();
    allow(home.path(), 0o755);
    denied(&home, "data");
    assert!(!home.path().join("data").exists());
}

#[test]
fn after_permission_was_refused_it_opens_as_if_nothing_had_been() {
    let home = used();
    allow(home.path(), 0o755);
    for mode in [0o700, 0o711, 0o755] {
        allow(&home.path().join("data"), mode);
        if let Some(answer) = as_nobody(|| open(&home).map(drop)) {
            answer.unwrap_err();
        }
        works(&home);
    }
}

/// Mode bits of everything below a directory, by its path there.
fn modes(dir: &Path) -> Vec<(String, bool, u32)> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(path) = left.pop() {
        let about = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(dir).unwrap().display().to_string();
        found.push((name, about.is_dir(), about.mode() & 0o777));
        if about.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

fn all_private(dir: &Path) {
    for (name, is_dir, mode) in modes(dir) {
        assert_eq!(mode, if is_dir { 0o700 } else { 0o600 }, "{name:?} has mode {mode:o}");
    }
}

/// The umask of whoever runs the tests is the usual 022, which would let everybody read.
#[test]
fn our_own_files_are_for_their_owner_only() {
    let home = Home::new();
    let engine = open(&home).unwrap();
    let tenant = tenant(&engine, memory("a"), KEEP);
    tenant.migration().start(memory("b"), cutover::MigrationOptions::default()).unwrap();
    assert!(modes(home.path()).len() > 12, "{:?}", modes(home.path()));
    all_private(&home.path().join("data"));
}

#[cfg(all(feature = "rocksdb", feature = "sled"))]
#[test]
fn the_files_of_stores_are_behind_a_private_directory_and_private_after_opening() {
    for driver in ["rocksdb", "sled"] {
        let home = Home::new();
        // One that was there before, and open to everybody.
        let there = home.path().join("there");
        fs::create_dir(&there).unwrap();
        allow(&there, 0o755);
        let engine = open(&home).unwrap();
        tenant(&engine, StoreSpec::driver(driver), KEEP);
        let options = TenantOptions::new(StoreSpec::driver(driver).path(&there));
        engine.create_tenant("elsewhere", options).unwrap();
        for store in [there.clone(), home.path().join("data/stores").join(driver)] {
            assert_eq!(fs::metadata(&store).unwrap().mode() & 0o777, 0o700, "{}", store.display());
        }
        engine.close(LONG).unwrap();
        open(&home).unwrap().close(LONG).unwrap();
        // What was made at the last opening or later is as the umask says; the rest is private.
        let engine = open(&home).unwrap();
        all_private(&there);
        all_private(&home.path().join("data"));
        engine.close(LONG).unwrap();
    }
}

#[cfg(all(feature = "rocksdb", feature = "sled"))]
#[test]
fn a_store_may_lie_behind_a_link_which_outlives_it() {
    for driver in ["rocksdb", "sled"] {
        let home = Home::new();
        let (outside, link) = (home.path().join("outside"), home.path().join("link"));
        fs::create_dir(&outside).unwrap();
        symlink(&outside, &link).unwrap();
        let engine = open(&home).unwrap();
        let at = |path: &Path| TenantOptions::new(StoreSpec::driver(driver).path(path));
        let tenant = engine.create_tenant("acme", at(&link)).unwrap();
        tenant.define("work", 1, "t", b"").unwrap();
        drop(tenant);
        // The same place by its other name.
        let err = engine.create_tenant("other", at(&outside)).map(drop).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Foreign, "{err}");
        engine.delete_tenant("acme").unwrap();
        assert!(link.is_symlink() && outside.is_dir());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{driver} left something");
        // A link to somebody's data, and one to nothing.
        fs::write(outside.join("thesis.txt"), "mine").unwrap();
        let err = engine.create_tenant("acme", at(&link)).map(drop).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Foreign, "{err}");
        assert_eq!(fs::read(outside.join("thesis.txt")).unwrap(), b"mine");
        let dangling = home.path().join("dangling");
        symlink(home.path().join("nowhere"), &dangling).unwrap();
        let err = engine.create_tenant("acme", at(&dangling)).map(drop).unwrap_err();
        assert!(err.to_string().contains("dangling"), "{err}");
        assert!(!home.path().join("nowhere").exists());
        engine.close(LONG).unwrap();
    }
}

#[cfg(all(feature = "rocksdb", feature = "sled"))]
#[test]
fn two_engines_do_not_share_a_store() {
    for driver in ["rocksdb", "sled"] {
        let (one, other) = (Home::new(), Home::new());
        let shared = one.path().join("shared");
        let at = || TenantOptions::new(StoreSpec::driver(driver).path(&shared));
        let first = open(&one).unwrap();
        let tenant = first.create_tenant("acme", at()).unwrap();
        tenant.define("work", 1, "t", b"").unwrap();
        let second = open(&other).unwrap();
        let err = second.create_tenant("acme", at()).map(drop).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Foreign, "{err}");
        assert!(err.to_string().contains("shared is not empty and not a store of this engine"), "{err}");
        assert!(tenant.definition("work", 1).unwrap().is_some());
    }
}

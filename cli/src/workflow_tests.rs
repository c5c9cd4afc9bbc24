//! Tests of directories of workflows, and, where they are at hand, of the recorded ones.

use std::collections::HashSet;

use super::*;

fn document(tasks: &str) -> String {
    format!(
        r#"{{"name":"w","schemaVersion":"1.5","x":1,"workflow":{{"specification":{{"tasks":[{tasks}]}}}}}}"#
    )
}

#[test]
fn two_files_of_one_name_and_what_is_no_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.json"), document(r#"{"id":"a"}"#)).unwrap();
    std::fs::write(dir.path().join("a.JSON"), document(r#"{"id":"b"}"#)).unwrap();
    let said = read_dir(dir.path(), false).expect_err("two definitions of one name").text;
    assert!(said.ends_with("a.json: another file gives the name `a`"), "{said}");
    let found = read_dir(dir.path(), true).unwrap();
    assert_eq!((found.workflows.len(), found.skipped.len()), (1, 1));
    let socket = dir.path().join("b.json");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let found = read_dir(dir.path(), true).unwrap();
    assert!(found.skipped[1].ends_with("b.json: is not a file"), "{:?}", found.skipped);
    std::os::unix::fs::symlink("nowhere", dir.path().join("c.json")).unwrap();
    let found = read_dir(dir.path(), true).unwrap();
    assert!(found.skipped[2].contains("c.json: cannot be read: "), "{:?}", found.skipped);
}

#[test]
fn a_directory_is_read_whole_or_not_at_all_unless_told_to_skip() {
    let dir = tempfile::tempdir().unwrap();
    let none = read_dir(dir.path(), true).expect_err("empty");
    assert_eq!(none.code, crate::failure::BAD_INPUT);
    std::fs::write(dir.path().join("b.json"), document(r#"{"id":"a"}"#)).unwrap();
    std::fs::write(dir.path().join("notes.txt"), "not a workflow").unwrap();
    std::fs::write(dir.path().join("a.json"), "{").unwrap();
    let refused = read_dir(dir.path(), false).expect_err("a bad file");
    assert!(refused.text.contains("a.json: is truncated"), "{refused}");
    let found = read_dir(dir.path(), true).unwrap();
    assert_eq!(found.workflows.iter().map(|w| w.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(found.skipped.len(), 1);
}

/// The recorded workflows lie beside a checkout in some places and not in others.
#[test]
fn the_recorded_workflows_are_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/wfinstances");
    if !dir.is_dir() {
        eprintln!("skipped: {} is not here", dir.display());
        return;
    }
    let found = read_dir(&dir, false).unwrap();
    assert_eq!(found.workflows.iter().map(|w| w.tasks.len()).sum::<usize>(), 358);
    for workflow in &found.workflows {
        let mut done = HashSet::new();
        for task in &workflow.tasks {
            assert!(done.insert(&task.id));
            let seen = workflow.tasks.iter().filter(|t| done.contains(&t.id));
            let known = seen.flat_map(|t| &t.children).filter(|c| workflow.tasks[**c].id == task.id).count();
            assert_eq!(known, task.parents as usize, "{}: {}", workflow.name, task.id);
        }
    }
}

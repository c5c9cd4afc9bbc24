//! Any bytes as a file of WfFormat, and any small graph as one: a sentence of one short line, or a workflow that can run.

#![no_main]

use std::alloc::System;
use std::collections::HashSet;

use cap::Cap;
use cutover_wfformat::{Workflow, parse};
use libfuzzer_sys::arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;

/// The first allocation beyond it fails, and with it the target.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, 64 << 20);

fuzz_target!(|data: &[u8]| {
    read(data);
    read(document(&mut Unstructured::new(data)).as_bytes());
});

fn read(body: &[u8]) {
    match parse("file", body.to_vec()) {
        Ok(workflow) => {
            assert_eq!(workflow.body, body);
            can_run(&workflow);
        }
        Err(said) => assert!(said.len() < 2_000 && said.lines().count() == 1, "{said}"),
    }
}

/// Every task comes behind its parents, is found by its id, and is waited for by as many as it says.
fn can_run(workflow: &Workflow) {
    let mut parents = vec![0; workflow.tasks.len()];
    let mut ids = HashSet::new();
    for (at, task) in workflow.tasks.iter().enumerate() {
        assert!(ids.insert(&task.id) && workflow.find(&task.id) == Some(at));
        assert!(task.runtime >= 0.0 && task.runtime.is_finite(), "{task:?}");
        for child in &task.children {
            assert!(*child > at, "a child before its parent");
            parents[*child] += 1;
        }
    }
    assert!(workflow.tasks.iter().map(|task| task.parents).eq(parents.iter().copied()));
    assert_eq!(workflow.roots, parents.iter().filter(|parents| **parents == 0).count());
    assert!(workflow.roots > 0 && workflow.anchor() == workflow.tasks.len() - 1);
}

/// A document that is right except for what it says of its tasks: bytes alone hardly ever come to the graph.
fn document(bytes: &mut Unstructured<'_>) -> String {
    let mut tasks = Vec::new();
    while !bytes.is_empty() && tasks.len() < 12 {
        let mut number = |end: u8| bytes.int_in_range(0..=end).unwrap_or(0);
        let (id, kinds) = (number(11), number(7));
        let mut task = format!("{{\"id\":\"t{id}\"");
        for (bit, field) in [(1, "parents"), (2, "children")] {
            if kinds & bit != 0 {
                task.push_str(&format!(",\"{field}\":[\"t{}\",\"t{}\"]", number(11), number(11)));
            }
        }
        task.push('}');
        tasks.push(task);
    }
    format!(
        r#"{{"name":"w","schemaVersion":"1.5","workflow":{{"specification":{{"tasks":[{}]}},"execution":{{"tasks":[{{"id":"t0","runtimeInSeconds":1e3}}]}}}}}}"#,
        tasks.join(",")
    )
}

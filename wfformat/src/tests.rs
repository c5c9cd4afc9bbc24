//! Tests of the reader, on small texts.

use super::*;

fn document(tasks: &str) -> String {
    format!(
        r#"{{"name":"w","schemaVersion":"1.5","x":1,"workflow":{{"specification":{{"tasks":[{tasks}]}}}}}}"#
    )
}

fn read(tasks: &str) -> Result<Workflow, String> {
    parse("w", document(tasks).into_bytes())
}

fn refused(tasks: &str) -> String {
    read(tasks).expect_err("must be refused")
}

fn ids(workflow: &Workflow) -> Vec<&str> {
    workflow.tasks.iter().map(|task| task.id.as_str()).collect()
}

#[test]
fn a_diamond_comes_out_parents_first() {
    let workflow = read(
        r#"{"id":"d","parents":["b","c"]},{"id":"b","parents":["a"]},{"id":"c","parents":["a"]},{"id":"a"}"#,
    )
    .unwrap();
    assert_eq!(ids(&workflow), ["a", "b", "c", "d"]);
    assert_eq!(workflow.roots, 1);
    assert_eq!(workflow.tasks[0].children, [1, 2]);
    assert_eq!(workflow.tasks.iter().map(|task| task.parents).collect::<Vec<_>>(), [0, 1, 1, 2]);
    assert_eq!(workflow.find("c"), Some(2));
    assert_eq!(workflow.find("e"), None);
    assert_eq!(workflow.anchor(), 3);
}

#[test]
fn an_edge_counts_once_whoever_names_it() {
    let one = read(r#"{"id":"a","children":["b"]},{"id":"b"}"#).unwrap();
    let other = read(r#"{"id":"a"},{"id":"b","parents":["a","a"]}"#).unwrap();
    let both = read(r#"{"id":"a","children":["b"]},{"id":"b","parents":["a"]}"#).unwrap();
    assert_eq!(one.tasks, other.tasks);
    assert_eq!(one.tasks, both.tasks);
}

#[test]
fn runtimes_are_optional_and_never_negative() {
    let text = r#"{"name":"w","schemaVersion":"1.5","workflow":{"specification":{"tasks":[
        {"id":"a","parents":null},{"id":"b"},{"id":"c"}]},
        "execution":{"tasks":[{"id":"a","runtimeInSeconds":2.5},{"id":"b"},{"id":"c","runtimeInSeconds":-1}]}}}"#;
    let workflow = parse("w", text.into()).unwrap();
    assert_eq!(workflow.tasks.iter().map(|task| task.runtime).collect::<Vec<_>>(), [2.5, 0.0, 0.0]);
}

#[test]
fn a_cycle_is_named_task_by_task() {
    let text = refused(
        r#"{"id":"start"},{"id":"a","parents":["start","c"]},{"id":"b","parents":["a"]},
           {"id":"c","parents":["b"]},{"id":"end","parents":["c"]}"#,
    );
    assert_eq!(text, "its graph has a cycle: `a` -> `b` -> `c` -> `a`");
    assert_eq!(refused(r#"{"id":"a","parents":["a"]}"#), "its graph has a cycle: `a` -> `a`");
    let ring: Vec<String> =
        (0..40).map(|n| format!(r#"{{"id":"t{n}","parents":["t{}"]}}"#, (n + 39) % 40)).collect();
    let text = refused(&ring.join(","));
    assert!(text.starts_with("its graph has a cycle of 40 tasks: `t0` -> `t1` -> "), "{text}");
}

#[test]
fn what_is_wrong_is_named() {
    let long = "x".repeat(256);
    for (tasks, sentence) in [
        (
            r#"{"id":"a","parents":["ghost"]}"#.to_owned(),
            "the task `a` names the parent `ghost`, which does not exist",
        ),
        (
            r#"{"id":"a","children":["ghost"]}"#.to_owned(),
            "the task `a` names the child `ghost`, which does not exist",
        ),
        (r#"{"id":"a"},{"id":"b"},{"id":"a"}"#.to_owned(), "the task id `a` is used twice"),
        (r#"{"id":"a"},{"id":""}"#.to_owned(), "the id of task number 2 is empty"),
        (r#"{"id":"a","name":""}"#.to_owned(), "the name of the task `a` is empty"),
        (format!(r#"{{"id":"{long}"}}"#), "the id of task number 1 has 256 bytes, and the limit is 255"),
        (String::new(), "workflow.specification.tasks is empty"),
    ] {
        assert_eq!(refused(&tasks), sentence);
    }
}

#[test]
fn what_is_not_the_format_is_told_apart() {
    let whole = document(r#"{"id":"a"}"#);
    let cases: [(&[u8], &str); 7] = [
        (&whole.as_bytes()[..40], "is truncated: EOF while parsing"),
        (b"", "is truncated: EOF while parsing"),
        (b"{]", "is not JSON: "),
        (b"{\"schemaVersion\":\"1.5\",\"name\":\"\xFF\"}", "is not JSON: "),
        (br#"{"name":"w","schemaVersion":"1.5"}"#, "is not WfFormat 1.5: missing field `workflow`"),
        (br#"{"name":"w"}"#, "schemaVersion is missing"),
        (br#"{"name":"w","schemaVersion":"1.4","workflow":{}}"#, "schemaVersion is \"1.4\", and"),
    ];
    for (bytes, start) in cases {
        let text = parse("w", bytes.to_vec()).expect_err("must be refused");
        assert!(text.starts_with(start), "{text}");
    }
    let empty = br#"{"name":"","schemaVersion":"1.5","workflow":{"specification":{"tasks":[{"id":"a"}]}}}"#;
    assert_eq!(parse("w", empty.to_vec()), Err("name is empty".to_owned()));
}

/// What a file says ends up on a terminal.
#[test]
fn sentences_stay_on_one_line_and_short_whatever_the_file_says() {
    let long = "x".repeat(100_000);
    let escape = r#"{"id":"a\n\u001b[2J","parents":["b"]}"#;
    assert_eq!(refused(escape), r"the task `a\n\u{1b}[2J` names the parent `b`, which does not exist");
    let parent = refused(&format!(r#"{{"id":"a","parents":["{long}"]}}"#));
    assert_eq!(
        parent,
        format!("the task `a` names the parent `{}...`, which does not exist", "x".repeat(80))
    );
    for text in [
        format!(r#"{{"name":"w","schemaVersion":"{long}","workflow":{{}}}}"#),
        format!(r#"{{"name":"w","schemaVersion":["{long}"],"workflow":{{}}}}"#),
        format!(r#"{{"name":"w","schemaVersion":"1.5","workflow":"{long}"}}"#),
    ] {
        let said = parse("w", text.into_bytes()).expect_err("must be refused");
        assert!(said.len() < 300 && said.lines().count() == 1, "{said}");
    }
    let data = parse("w", format!(r#"{{"schemaVersion":"1.5","workflow":"{long}"}}"#).into_bytes());
    assert!(data.is_err_and(|said| said.contains(" at line 1 column ")), "and it says where");
}

#[test]
fn a_name_with_any_characters_is_a_name() {
    let workflow = read(r#"{"id":"../a\u0000/ü"},{"id":"b","parents":["../a\u0000/ü"]}"#).unwrap();
    assert_eq!(ids(&workflow), ["../a\0/ü", "b"]);
}

#[test]
fn nesting_that_would_overflow_the_stack_is_refused() {
    for field in ["x", "workflow"] {
        let (open, shut) = ("[".repeat(100_000), "]".repeat(100_000));
        let deep = format!("{{\"schemaVersion\":\"1.5\",\"name\":\"w\",\"{field}\":{open}1{shut}}}");
        let refused = parse("w", deep.into_bytes());
        assert!(refused.is_err_and(|text| text.starts_with("is not WfFormat 1.5: ")));
    }
}

#[test]
fn too_large_or_too_wide_is_refused() {
    let text = parse("w", vec![b' '; MAX_DEFINITION + 1]).expect_err("must be refused");
    assert_eq!(text, "the file has more than the 16777216 bytes that a definition may have");
    let roots: Vec<String> = (0..=MAX_STEPS_PER_CALL).map(|n| format!(r#"{{"id":"{n}"}}"#)).collect();
    assert_eq!(refused(&roots.join(",")), "4097 tasks have no parents, and at most 4096 may start at once");
    let mut fan: Vec<String> =
        (0..=MAX_STEPS_PER_CALL).map(|n| format!(r#"{{"id":"{n}","parents":["a"]}}"#)).collect();
    fan.push(r#"{"id":"a"}"#.to_owned());
    assert_eq!(refused(&fan.join(",")), "the task `a` has 4097 children, and at most 4096 may start at once");
}

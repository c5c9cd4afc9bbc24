//! Reads workflows in WfFormat 1.5: what the engine needs is the graph and how long each task took.
//!
//! Unknown fields are ignored, and so is everything about files, commands and machines. What is read is checked to
//! the end before anything is stored: a file is either a workflow that can run to completion or a sentence that says
//! what is wrong with it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use cutover_formats::limits::{MAX_DEFINITION, MAX_NAME, MAX_STEPS_PER_CALL};
use serde::Deserialize;

use crate::failure::{Failure, Result};

/// The version of WfFormat that is read.
const SCHEMA: &str = "1.5";
/// Tasks of a cycle that its sentence names.
const NAMED_IN_CYCLE: usize = 8;
/// Characters of a text from a file that a sentence shows.
const SHOWN: usize = 80;

/// A workflow that can run to completion.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Workflow {
    /// What its definition is called: the name of the file without `.json`, unique in a directory.
    pub name: String,
    /// The bytes of the file.
    pub body: Vec<u8>,
    /// Its tasks, every parent before its children.
    pub tasks: Vec<Task>,
    /// How many tasks at the front have no parent.
    pub roots: usize,
    index: HashMap<String, usize>,
}

/// A task of a workflow.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Task {
    /// Its id, which becomes the name of the step.
    pub id: String,
    /// How many tasks it waits for.
    pub parents: u32,
    /// Who waits for it, as places in [`Workflow::tasks`].
    pub children: Vec<usize>,
    /// How long it took when it was recorded, in seconds; 0 where that is not known.
    pub runtime: f64,
}

impl Workflow {
    /// The place of the task with this id.
    pub(crate) fn find(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }

    /// The task that a runner holds back to keep an instance alive: the last one, so nothing waits for it.
    pub(crate) fn anchor(&self) -> usize {
        self.tasks.len().saturating_sub(1)
    }
}

/// What a directory of workflows holds.
#[derive(Debug, Default)]
pub(crate) struct Collection {
    /// The workflows, by name.
    pub workflows: Vec<Workflow>,
    /// The sentences of the files that were skipped.
    pub skipped: Vec<String>,
}

/// Reads every `*.json` of a directory, in the order of their names. A bad file is an error, or with `skip_bad` only counted.
pub(crate) fn read_dir(dir: &Path, skip_bad: bool) -> Result<Collection> {
    let cannot = |err| Failure::bad_input(format!("cannot read the workflows in {}: {err}", dir.display()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("json")) && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    let mut found = Collection::default();
    for path in paths {
        // `a.json` and `a.JSON` are two files and would be one definition.
        let read = read_file(&path).and_then(|workflow| {
            match found.workflows.iter().any(|other| other.name == workflow.name) {
                true => {
                    Err(format!("{}: another file gives the name {}", path.display(), shown(&workflow.name)))
                }
                false => Ok(workflow),
            }
        });
        match read {
            Ok(workflow) => found.workflows.push(workflow),
            Err(text) if skip_bad => found.skipped.push(text),
            Err(text) => return Err(Failure::bad_input(text)),
        }
    }
    if found.workflows.is_empty() {
        let why = match found.skipped.len() {
            0 => "holds no *.json file".to_owned(),
            n => format!("holds no good workflow; {n} bad skipped"),
        };
        return Err(Failure::bad_input(format!("the directory {} {why}", dir.display())));
    }
    Ok(found)
}

fn read_file(path: &PathBuf) -> Result<Workflow, String> {
    let file = path.display();
    let name = path.file_stem().and_then(|stem| stem.to_str());
    let name = name.ok_or_else(|| format!("{file}: the name of the file is not UTF-8"))?;
    let about = std::fs::metadata(path).map_err(|err| format!("{file}: cannot be read: {err}"))?;
    if !about.is_file() {
        // Opening a pipe would wait for whoever writes to it.
        return Err(format!("{file}: is not a file"));
    }
    // One byte more than is allowed tells a file that is too large without reading it all.
    let mut body = Vec::new();
    let read = File::open(path).and_then(|f| f.take(MAX_DEFINITION as u64 + 1).read_to_end(&mut body));
    read.map_err(|err| format!("{file}: cannot be read: {err}"))?;
    parse(name, body).map_err(|what| format!("{file}: {what}"))
}

/// Reads one workflow from the bytes of its file.
///
/// # Errors
/// A sentence that names the field or the tasks that are wrong.
pub(crate) fn parse(name: &str, body: Vec<u8>) -> Result<Workflow, String> {
    if body.len() > MAX_DEFINITION {
        return Err(format!("the file has more than the {MAX_DEFINITION} bytes that a definition may have"));
    }
    check_name("the name of the file", name)?;
    // The version first: the fields of another one may not fit ours, and that would be a misleading sentence.
    let head: Head = serde_json::from_slice(&body).map_err(malformed)?;
    match head.schema_version {
        Some(serde_json::Value::String(version)) if version == SCHEMA => {}
        Some(version) => {
            let version = version
                .as_str()
                .map_or_else(|| cut(&version.to_string()), |text| format!("\"{}\"", cut(text)));
            return Err(format!("schemaVersion is {version}, and this program reads \"{SCHEMA}\""));
        }
        None => return Err("schemaVersion is missing: this is no WfFormat".to_owned()),
    }
    let document: Document = serde_json::from_slice(&body).map_err(malformed)?;
    check_name("name", &document.name)?;
    let graph = Graph::read(&document.workflow.specification.tasks)?;
    let order = graph.sorted()?;
    let runtimes = document.workflow.execution.unwrap_or_default().runtimes();
    let (tasks, roots) = graph.into_tasks(&order, &runtimes);
    let index = tasks.iter().enumerate().map(|(at, task)| (task.id.clone(), at)).collect();
    let workflow = Workflow { name: name.to_owned(), body, tasks, roots, index };
    check_widths(&workflow)?;
    Ok(workflow)
}

fn malformed(err: serde_json::Error) -> String {
    use serde_json::error::Category;
    match err.classify() {
        Category::Eof => format!("is truncated: {err}"),
        Category::Data => format!("is not WfFormat {SCHEMA}: {}", place_kept(&err)),
        Category::Io | Category::Syntax => format!("is not JSON: {err}"),
    }
}

/// The sentence of an error that may quote a value of any length, cut in front of where in the file that is.
fn place_kept(err: &serde_json::Error) -> String {
    let (text, place) = (err.to_string(), format!(" at line {} column {}", err.line(), err.column()));
    match text.strip_suffix(&place) {
        Some(what) => format!("{}{place}", what.chars().take(2 * SHOWN).collect::<String>()),
        None => text.chars().take(2 * SHOWN).collect(),
    }
}

/// A name from a file as a sentence shows it: on one line, cut, and without what a terminal would act on.
fn shown(name: &str) -> String {
    format!("`{}`", cut(name))
}

fn cut(text: &str) -> String {
    let start: String = text.chars().take(SHOWN).collect();
    let more = if start.len() < text.len() { "..." } else { "" };
    format!("{}{more}", start.escape_debug())
}

fn check_name(field: &str, name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err(format!("{field} is empty")),
        len if len > MAX_NAME => Err(format!("{field} has {len} bytes, and the limit is {MAX_NAME}")),
        _ => Ok(()),
    }
}

fn check_widths(workflow: &Workflow) -> Result<(), String> {
    let limit = MAX_STEPS_PER_CALL;
    if workflow.roots > limit {
        return Err(format!(
            "{} tasks have no parents, and at most {limit} may start at once",
            workflow.roots
        ));
    }
    match workflow.tasks.iter().find(|task| task.children.len() > limit) {
        Some(task) => Err(format!(
            "the task {} has {} children, and at most {limit} may start at once",
            shown(&task.id),
            task.children.len()
        )),
        None => Ok(()),
    }
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Document {
    name: String,
    workflow: Body,
}

#[derive(Deserialize)]
struct Body {
    specification: Specification,
    execution: Option<Execution>,
}

#[derive(Deserialize)]
struct Specification {
    tasks: Vec<SpecifiedTask>,
}

#[derive(Deserialize)]
struct SpecifiedTask {
    id: String,
    /// Optional here, though the format asks for it: nothing depends on it.
    name: Option<String>,
    #[serde(default)]
    parents: Option<Vec<String>>,
    #[serde(default)]
    children: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
struct Execution {
    #[serde(default)]
    tasks: Option<Vec<ExecutedTask>>,
}

#[derive(Deserialize)]
struct ExecutedTask {
    id: String,
    #[serde(rename = "runtimeInSeconds", default)]
    runtime: Option<f64>,
}

impl Execution {
    fn runtimes(self) -> HashMap<String, f64> {
        let tasks = self.tasks.unwrap_or_default().into_iter();
        tasks.map(|task| (task.id, task.runtime.unwrap_or(0.0).max(0.0))).collect()
    }
}

/// The graph as it stands in the file: places are the order of the file.
struct Graph {
    ids: Vec<String>,
    children: Vec<Vec<usize>>,
    parents: Vec<u32>,
}

impl Graph {
    /// An edge counts whether the parent names the child, the child the parent, or, as is usual, both.
    fn read(tasks: &[SpecifiedTask]) -> Result<Self, String> {
        let mut index: HashMap<&str, usize> = HashMap::with_capacity(tasks.len());
        for (at, task) in tasks.iter().enumerate() {
            check_name(&format!("the id of task number {}", at + 1), &task.id)?;
            if let Some(name) = &task.name {
                check_name(&format!("the name of the task {}", shown(&task.id)), name)?;
            }
            if index.insert(&task.id, at).is_some() {
                return Err(format!("the task id {} is used twice", shown(&task.id)));
            }
        }
        if tasks.is_empty() {
            return Err("workflow.specification.tasks is empty".to_owned());
        }
        let mut edges = Vec::new();
        for (at, task) in tasks.iter().enumerate() {
            for (kind, named) in [("parent", &task.parents), ("child", &task.children)] {
                for other in named.iter().flatten() {
                    let other_at = index.get(other.as_str()).ok_or_else(|| {
                        let (task, other) = (shown(&task.id), shown(other));
                        format!("the task {task} names the {kind} {other}, which does not exist")
                    })?;
                    edges.push(if kind == "parent" { (*other_at, at) } else { (at, *other_at) });
                }
            }
        }
        edges.sort_unstable();
        edges.dedup();
        let mut graph = Self {
            ids: tasks.iter().map(|task| task.id.clone()).collect(),
            children: vec![Vec::new(); tasks.len()],
            parents: vec![0; tasks.len()],
        };
        for (parent, child) in edges {
            if let (Some(children), Some(parents)) =
                (graph.children.get_mut(parent), graph.parents.get_mut(child))
            {
                children.push(child);
                *parents += 1;
            }
        }
        Ok(graph)
    }

    /// The places of the tasks, roots first and every parent before its children.
    fn sorted(&self) -> Result<Vec<usize>, String> {
        let mut waiting = self.parents.clone();
        let mut order: Vec<usize> = (0..waiting.len()).filter(|at| waiting.get(*at) == Some(&0)).collect();
        let mut next = 0;
        while let Some(at) = order.get(next).copied() {
            next += 1;
            for child in self.children.get(at).into_iter().flatten() {
                if let Some(left) = waiting.get_mut(*child) {
                    *left -= 1;
                    if *left == 0 {
                        order.push(*child);
                    }
                }
            }
        }
        if order.len() == self.ids.len() { Ok(order) } else { Err(self.name_cycle(&waiting)) }
    }

    /// Every task still waiting has a parent that waits too. So walking up from any of them comes around.
    fn name_cycle(&self, waiting: &[u32]) -> String {
        let stuck = |at: usize| waiting.get(at).is_some_and(|left| *left > 0);
        let mut stuck_parent: HashMap<usize, usize> = HashMap::new();
        for (parent, children) in self.children.iter().enumerate().filter(|(at, _)| stuck(*at)) {
            for child in children {
                stuck_parent.entry(*child).or_insert(parent);
            }
        }
        let mut path: Vec<usize> = Vec::new();
        let mut at = (0..waiting.len()).find(|at| stuck(*at)).unwrap_or_default();
        while !path.contains(&at) {
            path.push(at);
            at = stuck_parent.get(&at).copied().unwrap_or(at);
        }
        let mut cycle: Vec<usize> = path.into_iter().skip_while(|place| *place != at).collect();
        cycle.push(at);
        cycle.reverse();
        let name = |at: &usize| self.ids.get(*at).map_or_else(String::new, |id| shown(id));
        if cycle.len() > NAMED_IN_CYCLE + 1 {
            let shown: Vec<String> = cycle.iter().take(NAMED_IN_CYCLE).map(name).collect();
            return format!(
                "its graph has a cycle of {} tasks: {} -> ...",
                cycle.len() - 1,
                shown.join(" -> ")
            );
        }
        format!("its graph has a cycle: {}", cycle.iter().map(name).collect::<Vec<_>>().join(" -> "))
    }

    fn into_tasks(self, order: &[usize], runtimes: &HashMap<String, f64>) -> (Vec<Task>, usize) {
        let mut place = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            if let Some(slot) = place.get_mut(*old) {
                *slot = new;
            }
        }
        let task = |at: &usize| -> Option<Task> {
            let id = self.ids.get(*at)?.clone();
            let children = self.children.get(*at)?.iter().filter_map(|child| place.get(*child).copied());
            Some(Task {
                parents: *self.parents.get(*at)?,
                children: children.collect(),
                runtime: runtimes.get(&id).copied().unwrap_or(0.0),
                id,
            })
        };
        let tasks: Vec<Task> = order.iter().filter_map(task).collect();
        let roots = tasks.iter().filter(|task| task.parents == 0).count();
        (tasks, roots)
    }
}

#[cfg(test)]
#[path = "workflow_tests.rs"]
mod tests;

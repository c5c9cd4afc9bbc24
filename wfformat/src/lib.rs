//! Reads workflows in WfFormat 1.5: what the engine needs is the graph and how long each task took.
//!
//! Unknown fields are ignored, and so is everything about files, commands and machines. What is read is checked to
//! the end before anything is stored: a file is either a workflow that can run to completion or a sentence that says
//! what is wrong with it.

mod graph;

use std::collections::HashMap;

use cutover_formats::limits::{MAX_DEFINITION, MAX_NAME, MAX_STEPS_PER_CALL};
use serde::Deserialize;

use crate::graph::Graph;

/// The version of WfFormat that is read.
const SCHEMA: &str = "1.5";
/// Characters of a text from a file that a sentence shows.
const SHOWN: usize = 80;

/// A workflow that can run to completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
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
pub struct Task {
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
    pub fn find(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }

    /// The task that a runner holds back to keep an instance alive: the last one, so nothing waits for it.
    pub fn anchor(&self) -> usize {
        self.tasks.len().saturating_sub(1)
    }
}

/// Reads one workflow from the bytes of its file.
///
/// # Errors
/// A sentence that names the field or the tasks that are wrong.
pub fn parse(name: &str, body: Vec<u8>) -> Result<Workflow, String> {
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

/// The sentence of an error that may quote a value of any length, without the value, and where in the file that is.
fn place_kept(err: &serde_json::Error) -> String {
    let (text, place) = (err.to_string(), format!(" at line {} column {}", err.line(), err.column()));
    match text.strip_suffix(&place) {
        Some(what) => format!("{}{place}", without_texts(what)),
        None => without_texts(&text),
    }
}

/// A sentence of serde without what it quotes from the file, which may be anybody's secret: from the first quotation mark to the last.
fn without_texts(what: &str) -> String {
    let cut = |text: &str| text.chars().take(2 * SHOWN).collect::<String>();
    match (what.split_once('"'), what.rsplit_once('"')) {
        (Some((before, _)), Some((_, after))) => format!("{}...{}", cut(before), cut(after)),
        _ => cut(what),
    }
}

/// A name from a file as a sentence shows it: on one line, cut, and without what a terminal would act on.
#[must_use]
pub fn shown(name: &str) -> String {
    format!("`{}`", cut(name))
}

fn cut(text: &str) -> String {
    let start: String = text.chars().take(SHOWN).collect();
    let more = if start.len() < text.len() { "..." } else { "" };
    format!("{}{more}", start.escape_debug())
}

pub(crate) fn check_name(field: &str, name: &str) -> Result<(), String> {
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
pub(crate) struct SpecifiedTask {
    pub(crate) id: String,
    /// Optional here, though the format asks for it: nothing depends on it.
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) parents: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) children: Option<Vec<String>>,
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

#[cfg(test)]
mod tests;

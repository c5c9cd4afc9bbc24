//! Reads the workflows of a directory.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use cutover_formats::limits::MAX_DEFINITION;
pub(crate) use cutover_wfformat::Workflow;
use cutover_wfformat::{parse, shown};

use crate::failure::{Failure, Result};

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

#[cfg(test)]
#[path = "workflow_tests.rs"]
mod tests;

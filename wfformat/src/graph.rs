//! The graph of a workflow: who waits for whom, in an order in which it can run.

use std::collections::HashMap;

use crate::{SpecifiedTask, Task, check_name, shown};

/// Tasks of a cycle that its sentence names.
const NAMED_IN_CYCLE: usize = 8;

/// The graph as it stands in the file: places are the order of the file.
pub(crate) struct Graph {
    ids: Vec<String>,
    children: Vec<Vec<usize>>,
    parents: Vec<u32>,
}

impl Graph {
    /// An edge counts whether the parent names the child, the child the parent, or, as is usual, both.
    pub(crate) fn read(tasks: &[SpecifiedTask]) -> Result<Self, String> {
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
    pub(crate) fn sorted(&self) -> Result<Vec<usize>, String> {
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

    pub(crate) fn into_tasks(self, order: &[usize], runtimes: &HashMap<String, f64>) -> (Vec<Task>, usize) {
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

//! What was called and answered, by whom and when.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::checker::{Call, Refused, check};
use crate::spec::{Key, Op, What};

/// Numbers every call and return.
#[derive(Default)]
pub(crate) struct Moments(AtomicU64);

impl Moments {
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// A key as the tests number them.
pub(crate) type KeyId = usize;

/// The calls of all threads.
#[derive(Default)]
pub(crate) struct History {
    by_key: BTreeMap<KeyId, Vec<Call<Op>>>,
}

/// What a check has looked at.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Checked {
    pub(crate) calls: usize,
    pub(crate) unknown: usize,
    pub(crate) configurations: u64,
    /// Keys whose history can be ordered in too many ways. Nothing of them is counted.
    pub(crate) undecided: usize,
}

impl History {
    pub(crate) fn add(&mut self, key: KeyId, call: Call<Op>) {
        self.by_key.entry(key).or_default().push(call);
    }

    /// Holds each key against its specification.
    pub(crate) fn check(mut self, retention: impl Fn(KeyId) -> u64) -> Result<Checked, String> {
        let mut checked = Checked::default();
        for (key, calls) in &mut self.by_key {
            // A question that was not answered says nothing.
            calls.retain(|call| {
                !matches!(call.op.what, What::ByKey { answer: None } | What::ById { answer: None, .. })
            });
            calls.sort_by_key(|call| call.returned);
            mark_last_of_requests(calls);
            let spec = Key::of(retention(*key), calls);
            match check(&spec, calls) {
                Ok(configurations) => checked.configurations += configurations,
                Err(Refused::Call(call)) => return Err(explain(*key, calls, call)),
                Err(Refused::Undecided) => {
                    checked.undecided += 1;
                    continue;
                }
            }
            checked.calls += calls.len();
            checked.unknown += calls.iter().filter(|call| call.op.is_unknown()).count();
        }
        Ok(checked)
    }
}

fn mark_last_of_requests(calls: &mut [Call<Op>]) {
    let mut seen = std::collections::BTreeSet::new();
    for call in calls.iter_mut().rev() {
        if let What::Launch { request: Some(request), last_of_request, .. } = &mut call.op.what {
            *last_of_request = seen.insert(*request);
        }
    }
}

/// The call that nothing explains, behind those before it.
fn explain(key: KeyId, calls: &[Call<Op>], refused: usize) -> String {
    let shown = calls[..=refused].iter().rev().take(40).rev();
    let lines: Vec<String> = shown
        .map(|call| {
            format!("{:>8}..{:<8} {:?} {:?}", call.called, call.returned, call.op.clock, call.op.what)
        })
        .collect();
    format!("key {key} is not linearizable; nothing explains the last of these:\n{}", lines.join("\n"))
}

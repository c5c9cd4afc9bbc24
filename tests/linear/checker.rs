//! Is a history linearizable? The search of Wing and Gong, with Lowe's two savings: operations take effect as late as the history
//! allows ("just in time"), and no configuration is looked at twice.
//!
//! A configuration is a state of the specification and which of the operations under way have taken effect in it. The calls and returns
//! of the history are walked over in their order; at a return every configuration in which the operation has not taken effect yet is
//! continued by all sequences of operations under way that end with it. When none is left, nothing that one store could have done
//! explains the answers.

use std::collections::HashSet;
use std::hash::Hash;

/// What is right, one operation after the other.
pub(crate) trait Spec {
    type State: Clone + Eq + Hash;
    type Op;

    fn initial(&self) -> Self::State;

    /// Every state that the operation may leave, with the answer it was given; none if no such state could have given that answer.
    /// An operation whose answer nobody has seen may also leave everything as it is.
    fn after(&self, state: &Self::State, op: &Self::Op) -> Vec<Self::State>;

    /// The operation has returned. What no later one can ask about may be forgotten.
    fn returned(&self, state: &mut Self::State, op: &Self::Op);
}

/// An operation and when it was under way. All moments of a history differ.
#[derive(Debug, Clone)]
pub(crate) struct Call<O> {
    pub(crate) called: u64,
    /// When it had taken effect at the latest.
    pub(crate) returned: u64,
    pub(crate) op: O,
}

/// A history that nothing explains.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Place of the first call, in the order of returns, whose answer nothing explains.
    pub(crate) call: usize,
}

/// Most operations under way at a time.
const MOST: usize = 64;

/// Walks over a history; says how many configurations were looked at.
pub(crate) fn check<S: Spec>(spec: &S, calls: &[Call<S::Op>]) -> Result<u64, Refused> {
    let mut moments: Vec<(u64, bool, usize)> = calls
        .iter()
        .enumerate()
        .flat_map(|(at, call)| [(call.called, false, at), (call.returned, true, at)])
        .collect();
    moments.sort_unstable();
    let mut looked_at = 0;
    let mut under_way: Vec<Option<usize>> = vec![None; MOST];
    let mut configurations = HashSet::from([(spec.initial(), 0_u64)]);
    for (_, is_return, at) in moments {
        if !is_return {
            let free = under_way.iter().position(Option::is_none).expect("too many operations under way");
            under_way[free] = Some(at);
            continue;
        }
        let slot = under_way.iter().position(|other| *other == Some(at)).expect("it was called");
        let mut next = HashSet::new();
        let mut seen = HashSet::new();
        let mut todo: Vec<_> = configurations.drain().collect();
        while let Some((mut state, done)) = todo.pop() {
            looked_at += 1;
            if done >> slot & 1 == 1 {
                spec.returned(&mut state, &calls[at].op);
                next.insert((state, done & !(1 << slot)));
                continue;
            }
            let waiting = (0..MOST).filter(|slot| done >> slot & 1 == 0);
            for (slot, other) in waiting.filter_map(|slot| Some((slot, under_way[slot]?))) {
                for after in spec.after(&state, &calls[other].op) {
                    let configuration = (after, done | 1 << slot);
                    if !seen.contains(&configuration) {
                        seen.insert(configuration.clone());
                        todo.push(configuration);
                    }
                }
            }
        }
        if next.is_empty() {
            return Err(Refused { call: at });
        }
        under_way[slot] = None;
        configurations = next;
    }
    Ok(looked_at)
}

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

    /// Every state that the operation may leave, with the answer it was given; none if this state could not have given that answer.
    fn after(&self, state: &Self::State, op: &Self::Op) -> Vec<Self::State>;

    /// Nobody has seen the answer, so the operation may never have taken effect.
    fn may_be_missing(&self, op: &Self::Op) -> bool;

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

/// Why a history is not said to be right.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Nothing explains the answer of this call, the first one in the order of returns.
    Call(usize),
    /// More orders are possible than can be looked at: it may be right or wrong. That comes of many operations under way at a crash of which
    /// nobody has seen the answer.
    Undecided,
}

/// Most operations under way at a time.
const MOST: usize = 64;
/// Most configurations that are looked at. A history of some seconds has some ten thousand.
const LOOKS: u64 = 3_000_000;

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
        while let Some((state, done)) = todo.pop() {
            looked_at += 1;
            if looked_at > LOOKS {
                return Err(Refused::Undecided);
            }
            let (done, others) = look(spec, calls, &under_way, &state, done);
            let taken = done >> slot & 1 == 1;
            if taken || spec.may_be_missing(&calls[at].op) {
                let mut state = state.clone();
                spec.returned(&mut state, &calls[at].op);
                next.insert((state, done & !(1 << slot)));
            }
            if taken {
                continue;
            }
            for (slot, after) in others {
                let configuration = (after, done | 1 << slot);
                if !seen.contains(&configuration) {
                    seen.insert(configuration.clone());
                    todo.push(configuration);
                }
            }
        }
        if next.is_empty() {
            return Err(Refused::Call(at));
        }
        under_way[slot] = None;
        configurations = next;
    }
    Ok(looked_at)
}

/// What may take effect next.
///
/// An operation that was answered, fits, and can only leave everything as it is takes effect at once: nothing is lost by that, and none of
/// the others has to be tried before and after it. One that was not answered and leaves everything as it is has not happened.
fn look<S: Spec>(
    spec: &S,
    calls: &[Call<S::Op>],
    under_way: &[Option<usize>],
    state: &S::State,
    mut done: u64,
) -> (u64, Vec<(usize, S::State)>) {
    let mut others = Vec::new();
    for (slot, at) in under_way.iter().enumerate().filter_map(|(slot, at)| Some((slot, (*at)?))) {
        if done >> slot & 1 == 1 {
            continue;
        }
        let op = &calls[at].op;
        let mut after = spec.after(state, op);
        if spec.may_be_missing(op) {
            after.retain(|after| after != state);
        } else if !after.is_empty() && after.iter().all(|after| after == state) {
            done |= 1 << slot;
            continue;
        }
        others.extend(after.into_iter().map(|after| (slot, after)));
    }
    (done, others)
}

//! Where lanes that diverge at a branch reconverge: at its immediate post-dominator, the first statement that
//! all paths to the end have in common.

use crate::warp::{Action, END, Step};

/// For every statement, where its paths reconverge. (Cooper, Harvey, Kennedy: A Simple, Fast Dominance
/// Algorithm, on the reversed graph of statements.)
pub(crate) fn meetings(steps: &[Step]) -> Vec<usize> {
    let end = steps.len();
    let successors: Vec<Vec<usize>> = steps
        .iter()
        .enumerate()
        .map(|(at, step)| match (&step.action, step.guard) {
            (Action::Branch(to), None) => vec![*to],
            (Action::Branch(to), Some(_)) => vec![*to, at + 1],
            (Action::Exit, None) => vec![end],
            (Action::Exit, Some(_)) => vec![end, at + 1],
            _ => vec![at + 1],
        })
        .collect();
    let mut predecessors = vec![Vec::new(); end + 1];
    for (at, to) in successors.iter().enumerate() {
        for to in to {
            predecessors[(*to).min(end)].push(at);
        }
    }
    // Post-order from the end, against the edges.
    let mut order = Vec::with_capacity(end + 1);
    let mut rank = vec![None; end + 1];
    let mut seen = vec![false; end + 1];
    let mut stack = vec![(end, 0)];
    seen[end] = true;
    while let Some((at, next)) = stack.pop() {
        if let Some(before) = predecessors[at].get(next) {
            stack.push((at, next + 1));
            if !seen[*before] {
                seen[*before] = true;
                stack.push((*before, 0));
            }
        } else {
            rank[at] = Some(order.len());
            order.push(at);
        }
    }
    let mut meeting: Vec<Option<usize>> = vec![None; end + 1];
    meeting[end] = Some(end);
    let mut has_changed = true;
    while has_changed {
        has_changed = false;
        for at in order.iter().rev().copied().filter(|at| *at != end) {
            let mut found: Option<usize> = None;
            for to in successors[at].iter().map(|to| (*to).min(end)).filter(|to| meeting[*to].is_some()) {
                found = Some(found.map_or(to, |other| common(&meeting, &rank, other, to)));
            }
            if meeting[at] != found {
                meeting[at] = found;
                has_changed = true;
            }
        }
    }
    meeting[..end].iter().map(|at| at.filter(|at| *at != end).unwrap_or(END)).collect()
}

fn common(meeting: &[Option<usize>], rank: &[Option<usize>], mut a: usize, mut b: usize) -> usize {
    while a != b {
        let step = |at: usize| meeting[at].unwrap_or(at);
        if rank[a] < rank[b] {
            a = step(a);
        } else {
            b = step(b);
        }
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(action: Action, is_guarded: bool) -> Step {
        Step { guard: is_guarded.then_some((0, false)), action, text: "".into() }
    }

    #[test]
    fn paths_meet_after_branches_and_loops() {
        let nothing = || step(Action::Do(Box::new(|_, _| {})), false);
        // 0 goes to 2 or 1, 1 to 3, 2 to 3: they meet at 3. 4 goes back to 0, or on to 5, the end.
        let steps = [
            step(Action::Branch(2), true),
            step(Action::Branch(3), false),
            nothing(),
            nothing(),
            step(Action::Branch(0), true),
            step(Action::Exit, false),
        ];
        assert_eq!(meetings(&steps), [3, 3, 3, 4, 5, END]);
        // Lanes that end early never rejoin the others.
        let steps = [step(Action::Exit, true), nothing(), step(Action::Exit, false)];
        assert_eq!(meetings(&steps), [END, 2, END]);
    }
}

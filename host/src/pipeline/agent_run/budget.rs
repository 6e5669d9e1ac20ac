//! The budget of a job, over all of its attempts: what the plan allows beside what the facts add up to.

use crate::job::{Failure, FailureClass, Run};
use crate::plugin::types::Budget;

/// Refuses to start an agent that may not spend anything any more.
///
/// # Errors
/// A failure of class `budget`.
pub(super) fn check_left(budget: &Budget, run: &Run) -> Result<(), Failure> {
    let nothing_left = budget.turns.is_some_and(|turns| run.turns >= turns)
        || budget
            .cost_usd
            .is_some_and(|dollars| run.cost_usd >= dollars);
    if nothing_left {
        Err(used_up(budget, run))
    } else {
        Ok(())
    }
}

/// Whether the job has spent more than it may. An agent that stops by itself at its limit has not.
pub(super) fn is_exceeded(budget: &Budget, run: &Run) -> bool {
    budget.turns.is_some_and(|turns| run.turns > turns)
        || budget
            .cost_usd
            .is_some_and(|dollars| run.cost_usd > dollars)
}

/// Says what was spent of what.
pub(super) fn used_up(budget: &Budget, run: &Run) -> Failure {
    let turns = budget
        .turns
        .map(|limit| format!("{} of {limit} turns", run.turns));
    let dollars = budget
        .cost_usd
        .map(|limit| format!("{:.4} of {limit} dollars", run.cost_usd));
    let spent: Vec<String> = [turns, dollars].into_iter().flatten().collect();
    Failure::new(
        FailureClass::Budget,
        format!(
            "the job's budget is used up: {} over all attempts",
            spent.join(" and ")
        ),
        "raise the budget in the profile, or split the task; what the agent did until then is kept",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_counts_all_attempts_and_ends_at_its_limit() {
        let budget = Budget {
            cost_usd: Some(1.0),
            turns: Some(10),
        };
        let spent = |turns, cost_usd| Run {
            turns,
            cost_usd,
            ..Run::default()
        };
        assert!(check_left(&budget, &spent(9, 0.9)).is_ok());
        for used in [spent(10, 0.0), spent(0, 1.0)] {
            assert!(check_left(&budget, &used).is_err());
            assert!(
                !is_exceeded(&budget, &used),
                "the agent may come to its own end there"
            );
        }
        for more in [spent(11, 0.0), spent(0, 1.01)] {
            assert!(is_exceeded(&budget, &more));
        }
        let none = Budget {
            cost_usd: None,
            turns: None,
        };
        assert!(check_left(&none, &spent(u32::MAX, 1e9)).is_ok());
        let said = used_up(&budget, &spent(11, 0.5)).message;
        assert!(
            said.contains("11 of 10 turns") && said.contains("0.5000 of 1 dollars"),
            "{said}"
        );
    }
}

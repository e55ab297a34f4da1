//! Turns as they were said, for people: a transcript has them as they were written.
//!
//! Claude Code writes the records of one moment in any order (2.1.197: an answer's before its prompt's). So a turn moves
//! before those that are younger, by at most [`WINDOW`]: what lies further apart comes from a clock that was set.

use whim_wire::conversation::Turn;

/// Milliseconds by which a record may come too late.
pub const WINDOW: i64 = 10_000;

/// Puts turns in the order of their times. Turns without one stay behind the turn that they follow.
#[must_use]
pub fn as_said(turns: Vec<Turn>) -> Vec<Turn> {
    let mut said: Vec<Turn> = Vec::with_capacity(turns.len());
    for turn in turns {
        let place = said.iter().rposition(|earlier| !is_younger(earlier, &turn));
        said.insert(place.map_or(0, |place| place + 1), turn);
    }
    said
}

fn is_younger(earlier: &Turn, turn: &Turn) -> bool {
    let (Some(earlier), Some(turn)) = (earlier.at, turn.at) else {
        return false;
    };
    let early = earlier.as_millisecond() - turn.as_millisecond();
    (1..=WINDOW).contains(&early)
}

#[cfg(test)]
mod tests {
    use whim_wire::spec::AgentKind;

    use super::*;
    use crate::conversation::lines::Lines;

    fn turns(times: &[&str]) -> Vec<Turn> {
        let mut lines = Lines::new(0);
        for time in times {
            let record = format!(
                "{{\"type\":\"user\",\"timestamp\":\"{time}\",\"message\":{{\"role\":\"user\",\"content\":\"x\"}}}}\n"
            );
            lines.feed(record.as_bytes());
        }
        std::iter::from_fn(|| lines.next())
            .map(|line| crate::conversation::turn(AgentKind::Claude, &line, None))
            .collect()
    }

    fn order(times: &[&str]) -> Vec<usize> {
        let before = turns(times);
        let place = |turn: &Turn| before.iter().position(|one| one.id == turn.id).unwrap();
        as_said(before.clone()).iter().map(place).collect()
    }

    #[test]
    fn records_of_one_moment_are_told_by_their_times() {
        let early = "2026-11-22T10:00:00.100Z";
        let late = "2026-11-22T10:00:00.900Z";
        assert_eq!(order(&[late, early]), [1, 0]);
        assert_eq!(order(&[early, early, late]), [0, 1, 2], "equal times stay");
        assert_eq!(order(&[late, late, early]), [2, 0, 1]);
    }

    #[test]
    fn a_clock_that_was_set_moves_nothing() {
        assert_eq!(
            order(&["2026-11-22T10:00:00Z", "2026-11-22T09:00:00Z"]),
            [0, 1]
        );
        assert_eq!(
            order(&["2026-11-22T10:00:01Z", "?", "2026-11-22T10:00:00Z"]),
            [0, 1, 2]
        );
    }
}

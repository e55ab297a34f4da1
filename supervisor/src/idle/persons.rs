//! People at the terminals: whoever typed a moment ago is a reason to stay awake.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::terminals::set::TerminalSet;

/// How long after the last key a person counts as there.
const THERE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);

/// The reason, of all terminals with the time since somebody typed there.
fn reason<'a>(terminals: impl Iterator<Item = (&'a str, Option<Duration>)>) -> Option<String> {
    let typed = terminals.filter_map(|(id, since)| Some((since?, id)));
    let (since, id) = typed.min()?;
    (since < THERE).then(|| format!("a person typed in {id}, {} s ago", since.as_secs()))
}

/// Why people keep the machine awake now.
pub(super) fn typing(terminals: &TerminalSet) -> Option<String> {
    let all = terminals.list();
    reason(
        all.iter()
            .map(|terminal| (terminal.id().as_str(), terminal.since_input())),
    )
}

/// Tells the board until `stop`.
pub async fn watch(board: Arc<Board>, terminals: TerminalSet, stop: CancellationToken) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = stop.cancelled() => return,
        }
        board.keep_awake("persons", typing(&terminals).into_iter().collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_who_typed_counts_for_a_minute() {
        let seconds = |since| Some(Duration::from_secs(since));
        let all = [
            ("main", None),
            ("shell-1", seconds(70)),
            ("shell-2", seconds(4)),
        ];
        let shown = reason(all.into_iter());
        assert_eq!(shown.as_deref(), Some("a person typed in shell-2, 4 s ago"));
        assert_eq!(reason([("main", seconds(60))].into_iter()), None);
        assert_eq!(reason([("main", None)].into_iter()), None);
        assert_eq!(reason(std::iter::empty()), None);
    }
}

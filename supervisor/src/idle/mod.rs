//! What happens when nobody and nothing has been at work for `--idle-after`: `report`, `exit`, or `exec:/path`.
//!
//! All three make the event `idle.reached`, which a platform gets with all others. `exit` ends the container in order,
//! with 0. `exec:` runs a program as the agents' user, once per idle time; when it has not ended after [`LIMIT`] it is
//! ended. While anything is a reason to stay awake ([`awake`]) it is not idle.

pub mod awake;
pub mod persons;
mod quiet;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use whim_entrypoint::wire::{Credentials, Launch};
use whim_wire::event::kind;
use whim_wire::spec::IdleAction;

use crate::backup::agent::Backups;
use crate::board::Board;
use crate::clock;
use crate::config::settings;
use crate::keeper::Keeper;
use crate::logs::Log;
use crate::terminals::set::TerminalSet;
use quiet::{Quiet, is_busy};

/// Name of the program's process at the keeper, and of its log.
const NAME: &str = "idle";
/// How long the history may take before the program is run.
const SAVE: Duration = Duration::from_secs(60);
/// How long the program may take.
const LIMIT: Duration = Duration::from_secs(300);
/// Bytes that it may print.
const OUTPUT: usize = 1024 * 1024;

/// Asked when the program is run: layers may have changed since the boot.
pub type Environment = Box<dyn Fn() -> Vec<(OsString, OsString)> + Send + Sync>;

/// How a program of `exec:` is run.
#[expect(missing_debug_implementations, reason = "holds a function")]
pub struct Runner {
    pub keeper: Keeper,
    pub backups: Backups,
    /// The agents' user.
    pub user: Option<Credentials>,
    pub environment: Environment,
    pub directory: std::path::PathBuf,
    pub logs: std::path::PathBuf,
}

/// Watches until the container is to end because it is idle.
pub async fn watch(
    board: &Arc<Board>,
    idle: &settings::Idle,
    runner: &Runner,
    terminals: &TerminalSet,
) {
    let Some(after) = idle.after else {
        return std::future::pending().await;
    };
    let mut quiet = Quiet::new(after);
    let mut changes = board.watch();
    loop {
        changes.borrow_and_update();
        // Who typed since the board was last told is there, too.
        let busy = is_busy(&board.object()) || persons::typing(terminals).is_some();
        if let Some(quiet) = quiet.see(Instant::now(), busy) {
            let seconds = quiet.as_secs();
            tracing::info!(seconds, action = %idle.action, "idle");
            board.note(
                kind::IDLE_REACHED,
                json!({"idle_s": seconds, "action": idle.action}),
            );
            match &idle.action {
                IdleAction::Report => {}
                IdleAction::Exit => return,
                IdleAction::Exec(program) => {
                    runner.save().await;
                    runner.run(board, Path::new(program), seconds).await;
                }
            }
        }
        let due = quiet.due();
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            () = clock::until(due) => {}
        }
    }
}

impl Runner {
    /// The history first: the program may put the machine away. It runs all the same when the store takes nothing.
    async fn save(&self) {
        match tokio::time::timeout(SAVE, self.backups.now("idle")).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "idle, and the history is not saved"),
            Err(_) => tracing::warn!(
                limit_s = SAVE.as_secs(),
                "idle, and the history is not saved in time"
            ),
        }
    }

    async fn run(&self, board: &Board, program: &Path, seconds: u64) {
        let mut environment = (self.environment)();
        environment.push(("WHIM_IDLE_S".into(), seconds.to_string().into()));
        let launch = Launch {
            environment,
            directory: self.directory.clone(),
            user: self.user.clone(),
            ..Launch::of(program)
        };
        let shown = program.display().to_string();
        match self.keeper.run(NAME, &launch, LIMIT, OUTPUT).await {
            Ok(captured) => {
                let mut log = Log::open(&self.logs, NAME);
                log.append(&captured.stdout);
                log.append(&captured.stderr);
                if !captured.exit.success() {
                    tracing::warn!(program = shown, exit = %captured.exit, "the program of --idle-action failed");
                }
                board.note(
                    kind::IDLE_ACTION,
                    json!({"program": shown, "exit": captured.exit.code()}),
                );
            }
            Err(error) => {
                tracing::error!(program = shown, %error, "the program of --idle-action");
                board.note(
                    kind::IDLE_ACTION,
                    json!({"program": shown, "error": error.to_string()}),
                );
            }
        }
    }
}

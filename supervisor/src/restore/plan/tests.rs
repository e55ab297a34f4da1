//! Plans of good and of hostile manifests.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const ID: &str = "0cb916db-26aa-40f2-86b5-1ba81b225fd2";
const NEW: &str = "11111111-2222-4333-8444-555555555555";

fn file(place: &str, path: &str, kind: &str) -> serde_json::Value {
    json!({"place": place, "path": path, "kind": kind, "mode": 0o600, "bytes": 0, "sha256": "", "pieces": []})
}

fn manifest(agent: &str, files: &[serde_json::Value]) -> Manifest {
    serde_json::from_value(json!({
        "version": 1, "task": "ww-1", "id": "20261122T120000.000Z-0123abcd", "taken_at": "2026-11-22T12:00:00.000Z",
        "reason": "now", "whim": "0.1.0",
        "places": {"home": "/home/node", "checkout": "/app/repo", "state": "/whim/state"},
        "sessions": [{"id": "main", "agent": agent, "agent_session_id": ID, "cwd": "/app/repo", "transcript": null}],
        "segments": [], "files": files,
    }))
    .unwrap()
}

fn target() -> Target {
    Target {
        home: "/r/home/node".into(),
        checkout: "/r/app/repo".into(),
        state: "/r/whim/state".into(),
    }
}

fn wish(mode: RestoreMode) -> Wish {
    Wish {
        mode,
        ..Wish::default()
    }
}

fn made(manifest: &Manifest, wish: &Wish) -> Plan {
    plan(manifest, &target(), wish, NEW).unwrap()
}

fn places(plan: &Plan) -> Vec<&str> {
    plan.placed
        .iter()
        .map(|placed| placed.to.to_str().unwrap())
        .collect()
}

#[test]
fn claudes_conversation_moves_with_the_checkout() {
    let manifest = manifest(
        "claude",
        &[
            file(
                "home",
                &format!(".claude/projects/-app-repo/{ID}.jsonl"),
                "conversation",
            ),
            file(
                "home",
                &format!(".claude/projects/-app-repo/{ID}/subagents/agent-a.jsonl"),
                "conversation",
            ),
            file(
                "home",
                ".claude/projects/-elsewhere/x.jsonl",
                "conversation",
            ),
            file("home", ".local/state/whim/history/shell-1", "shell"),
            file("state", "generations.jsonl", "ledger"),
            file("state", "journal/0000001.jsonl", "journal"),
        ],
    );
    let resumed = made(&manifest, &wish(RestoreMode::Resume));
    assert_eq!(
        places(&resumed),
        [
            format!("/r/home/node/.claude/projects/-r-app-repo/{ID}.jsonl").as_str(),
            &format!("/r/home/node/.claude/projects/-r-app-repo/{ID}/subagents/agent-a.jsonl"),
            "/r/home/node/.claude/projects/-elsewhere/x.jsonl",
            "/r/home/node/.local/state/whim/history/shell-1",
            "/r/whim/state/generations.jsonl",
            "/r/whim/state/journal/0000001.jsonl",
        ]
    );
    let begin = resumed.begin.unwrap();
    assert_eq!(
        (
            begin.agent_session_id.as_deref(),
            begin.fork_of,
            begin.transcript
        ),
        (Some(ID), None, 0)
    );
    // A fork is another task: its spending and its events are its own.
    let forked = made(&manifest, &wish(RestoreMode::Fork));
    assert_eq!(forked.placed.len(), 4);
    let begin = forked.begin.unwrap();
    assert_eq!(
        (begin.agent_session_id, begin.fork_of.as_deref()),
        (None, Some(ID))
    );
}

#[test]
fn a_copied_session_gets_a_new_id_everywhere() {
    let manifest = manifest(
        "copilot",
        &[
            file(
                "home",
                &format!(".copilot/session-state/{ID}/events.jsonl"),
                "conversation",
            ),
            file(
                "home",
                &format!(".copilot/session-state/{ID}/workspace.yaml"),
                "conversation",
            ),
            file(
                "home",
                ".copilot/session-state/other/events.jsonl",
                "conversation",
            ),
        ],
    );
    let forked = made(&manifest, &wish(RestoreMode::Fork));
    let base = "/r/home/node/.copilot/session-state";
    assert_eq!(
        places(&forked),
        [
            format!("{base}/{NEW}/events.jsonl").as_str(),
            &format!("{base}/{NEW}/workspace.yaml"),
            &format!("{base}/other/events.jsonl"),
        ]
    );
    let ids = (ID.to_owned(), NEW.to_owned());
    let renames = |placed: &Placed| placed.rewrite.as_ref().unwrap().pairs.contains(&ids);
    assert!(renames(&forked.placed[0]) && renames(&forked.placed[1]));
    assert!(!renames(&forked.placed[2]), "another session keeps its id");
    assert_eq!(forked.begin.unwrap().agent_session_id.as_deref(), Some(NEW));
    let resumed = made(&manifest, &wish(RestoreMode::Resume));
    assert_eq!(resumed.begin.unwrap().agent_session_id.as_deref(), Some(ID));
}

#[test]
fn where_a_session_lives_is_said_anew_only_where_it_moved() {
    let rollout = format!(".codex/sessions/2026/11/22/rollout-2026-11-22T02-00-00-{ID}.jsonl");
    let mut codex = manifest("codex", &[file("home", &rollout, "conversation")]);
    let moved = made(&codex, &wish(RestoreMode::Resume));
    let rewrite = moved.placed[0].rewrite.as_ref().unwrap();
    assert!(
        rewrite
            .pairs
            .contains(&("\"/app/repo\"".into(), "\"/r/app/repo\"".into()))
    );
    assert!(!rewrite.only.is_empty());
    codex.places.checkout = "/r/app/repo".into();
    let same = made(&codex, &wish(RestoreMode::Resume));
    assert_eq!(same.placed[0].rewrite, None);
}

#[test]
fn another_agent_or_a_summary_is_told_and_the_router_goes_on_with_claudes() {
    let rollout = format!(".codex/sessions/2026/11/22/rollout-2026-11-22T02-00-00-{ID}.jsonl");
    let codex = manifest("codex", &[file("home", &rollout, "conversation")]);
    let mut switch = wish(RestoreMode::Resume);
    switch.agent = Some(AgentKind::Claude);
    let begin = made(&codex, &switch).begin.unwrap();
    assert!(begin.told && begin.agent == AgentKind::Claude && begin.before == AgentKind::Codex);
    assert_eq!((begin.agent_session_id, begin.fork_of), (None, None));
    let mut summary = wish(RestoreMode::Fork);
    summary.summary = true;
    let begin = made(&codex, &summary).begin.unwrap();
    assert!(begin.told && begin.agent == AgentKind::Codex);
    let path = format!(".claude/projects/-app-repo/{ID}.jsonl");
    let claude = manifest("claude", &[file("home", &path, "conversation")]);
    switch.agent = Some(AgentKind::Ccr);
    let begin = made(&claude, &switch).begin.unwrap();
    assert!(!begin.told && begin.agent_session_id.as_deref() == Some(ID));
}

#[test]
fn the_last_good_copy_goes_on_and_the_damaged_one_lies_beside_it() {
    let good = format!(".claude/projects/-app-repo/{ID}.jsonl");
    let mut damaged = file("home", &format!("{good}.damaged-1"), "conversation");
    damaged["damaged_copy_of"] = json!(good);
    let manifest = manifest("claude", &[damaged, file("home", &good, "conversation")]);
    let plan = made(&manifest, &wish(RestoreMode::Resume));
    assert_eq!(plan.begin.as_ref().unwrap().transcript, 1);
    assert_eq!(
        places(&plan)[0],
        format!("/r/home/node/.claude/projects/-r-app-repo/{ID}.jsonl.damaged-1")
    );
}

#[test]
fn what_configures_a_program_is_never_restored() {
    let manifest = manifest(
        "claude",
        &[
            file("home", ".bashrc", "shell"),
            file("home", ".ssh/authorized_keys", "conversation"),
            file("home", ".claude/settings.json", "conversation"),
            file("home", ".codex/config.toml", "conversation"),
            file("state", "sessions/main/session.json", "journal"),
            file("state", "budget.json", "ledger"),
            file("state", "journal", "ledger"),
        ],
    );
    let plan = made(&manifest, &wish(RestoreMode::Resume));
    assert_eq!(plan.placed, []);
    assert!(
        plan.notes.iter().any(|note| note.starts_with("4 files")),
        "{:?}",
        plan.notes
    );
}

#[test]
fn sessions_beside_main_go_on_where_their_agent_can() {
    const BESIDE: &str = "99999999-2222-4333-8444-555555555555";
    let session = |id: &str, agent: &str, agents_id: Option<&str>| Session {
        id: id.into(),
        agent: agent.into(),
        agent_session_id: agents_id.map(str::to_owned),
        cwd: format!("/app/worktrees/{id}"),
        transcript: None,
    };
    let claudes = format!(".claude/projects/-app-worktrees-s2/{BESIDE}.jsonl");
    let copilots = format!(".copilot/session-state/{BESIDE}/events.jsonl");
    let mut manifest = manifest(
        "claude",
        &[
            file("home", &claudes, "conversation"),
            file("home", &copilots, "conversation"),
        ],
    );
    manifest.sessions.extend([
        session("s2", "claude", Some(BESIDE)),
        session("s3", "copilot", Some(BESIDE)),
        session("s4", "claude", None),
        session("../s5", "claude", Some(BESIDE)),
    ]);
    let beside = |mode| {
        let plan = made(&manifest, &wish(mode));
        assert_eq!(
            plan.notes
                .iter()
                .filter(|note| note.contains("session "))
                .count(),
            4
        );
        assert!(places(&plan).contains(&&*format!(
            "/r/home/node/.claude/projects/-r-app-worktrees-s2/{BESIDE}.jsonl"
        )));
        let beside = plan.beside.into_iter();
        let ids = beside.map(|(id, begin)| (id, begin.agent_session_id, begin.fork_of));
        ids.collect::<Vec<_>>()
    };
    let same = |id: &str| (id.to_owned(), Some(BESIDE.to_owned()), None);
    assert_eq!(beside(RestoreMode::Resume), [same("s2"), same("s3")]);
    let fork = ("s2".to_owned(), None, Some(BESIDE.to_owned()));
    assert_eq!(beside(RestoreMode::Fork), [fork]);
    // Whatever main becomes, another agent is not theirs.
    let told = Wish {
        agent: Some(AgentKind::Codex),
        summary: true,
        ..Wish::default()
    };
    assert_eq!(made(&manifest, &told).beside.len(), 2);
    manifest
        .sessions
        .push(session("s6", "claude", Some("../../x")));
    let refused = plan(&manifest, &target(), &Wish::default(), NEW);
    assert_eq!(refused, Err(PlanError::Session("../../x".into())));
}

#[test]
fn paths_that_lead_outside_are_refused() {
    for path in [
        "../x",
        "/etc/passwd",
        ".claude/projects/../../x",
        ".claude/projects//x",
        ".claude/projects/./x",
        "",
    ] {
        let manifest = manifest("claude", &[file("home", path, "conversation")]);
        let refused = plan(&manifest, &target(), &Wish::default(), NEW);
        assert_eq!(refused, Err(PlanError::Path(path.into())));
    }
    let mut manifest = manifest("claude", &[]);
    manifest.sessions[0].agent_session_id = Some("--resume".into());
    manifest.sessions[0].agent_session_id = Some("../../x".into());
    let refused = plan(&manifest, &target(), &Wish::default(), NEW);
    assert_eq!(refused, Err(PlanError::Session("../../x".into())));
}

#[test]
fn two_files_never_become_one() {
    let manifest = manifest(
        "claude",
        &[
            file("home", ".claude/projects/-app-repo/x.jsonl", "conversation"),
            file(
                "home",
                ".claude/projects/-r-app-repo/x.jsonl",
                "conversation",
            ),
        ],
    );
    let refused = plan(&manifest, &target(), &Wish::default(), NEW);
    assert!(matches!(refused, Err(PlanError::Twice(_))));
}

fn component() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new()),
        Just(".claude".to_owned()),
        Just("projects".to_owned()),
        Just("-app-repo".to_owned()),
        Just(".copilot".to_owned()),
        Just("session-state".to_owned()),
        Just(ID.to_owned()),
        Just("journal".to_owned()),
        "[a-z.\\-\\\\]{1,6}",
    ]
}

proptest! {
    #[test]
    fn nothing_is_ever_placed_outside(
        parts in prop::collection::vec(component(), 0..6),
        place in prop_oneof![Just("home"), Just("state")],
        kind in prop_oneof![Just("conversation"), Just("shell"), Just("journal"), Just("ledger"), Just("recording")],
        agent in prop_oneof![Just("claude"), Just("copilot")],
        fork in any::<bool>(),
        cwd in prop_oneof![Just("/app/repo"), Just("/app/repo/../../etc"), Just("/"), Just("/app/worktrees/x")],
    ) {
        let path = parts.join("/");
        let mut manifest = manifest(agent, &[file(place, &path, kind)]);
        manifest.sessions[0].cwd = cwd.into();
        let mode = if fork { RestoreMode::Fork } else { RestoreMode::Resume };
        if let Ok(plan) = plan(&manifest, &target(), &wish(mode), NEW) {
            for placed in plan.placed {
                let base = if placed.place == Place::Home { target().home } else { target().state };
                prop_assert!(placed.to.starts_with(&base) && placed.to != base);
                prop_assert!(placed.to.components().all(|part| matches!(part, Component::Normal(_) | Component::RootDir)));
            }
        }
    }
}

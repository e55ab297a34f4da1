//! What each agent finds in its files: instructions, skills, servers, plugins, answers to its questions.

use super::*;

fn rich() -> Setup {
    Setup {
        instructions: Some("Be brief.".into()),
        mcp_servers: [
            (
                "files".to_owned(),
                McpServer::Stdio {
                    command: "mcp-files".into(),
                    args: vec!["--root".into(), "/app".into()],
                    env: [("A".to_owned(), "1".into())].into(),
                },
            ),
            (
                "docs".to_owned(),
                McpServer::Http {
                    url: "https://mcp.example/x".into(),
                    headers: [("X-Key".to_owned(), "k".into())].into(),
                },
            ),
        ]
        .into(),
        skills: vec![Skill {
            name: "greet".into(),
            files: [(
                "SKILL.md".to_owned(),
                "---\nname: greet\n---\nHi".to_owned(),
            )]
            .into(),
        }],
        ..setup()
    }
}

#[test]
fn claude_gets_instructions_skills_servers_and_plugins() {
    let setup = Setup {
        plugins: Plugins {
            enabled: [("p@m".to_owned(), true)].into(),
            marketplaces: [(
                "m".to_owned(),
                json!({"source": {"source": "directory", "path": "/m"}}),
            )]
            .into(),
        },
        settings: json!({"permissions": {"allow": ["Bash(ls)"]}})
            .as_object()
            .unwrap()
            .clone(),
        ..rich()
    };
    let files = prepared(&setup, AgentKind::Claude);
    assert!(files[Path::new("/app/CLAUDE.md")].contains("Be brief."));
    assert!(files[Path::new("/home/node/.claude/skills/greet/SKILL.md")].ends_with("Hi"));
    let servers = &json_of(&files, "/home/node/.mcp.json")["mcpServers"];
    assert_eq!(servers["files"]["args"], json!(["--root", "/app"]));
    assert_eq!(servers["docs"]["type"], "http");
    let settings = json_of(&files, "/home/node/.claude/settings.json");
    assert_eq!(settings["enabledPlugins"]["p@m"], true);
    assert_eq!(settings["permissions"]["allow"], json!(["Bash(ls)"]));
    let command = command(
        &setup,
        AgentKind::Claude,
        &start(Surface::Terminal, Some("x")),
    );
    assert!(
        command
            .arguments
            .join(" ")
            .contains("--mcp-config /home/node/.mcp.json")
    );
}

#[test]
fn codex_gets_instructions_skills_and_servers() {
    let files = prepared(&rich(), AgentKind::Codex);
    assert!(files[Path::new("/home/node/.codex/AGENTS.md")].contains("Be brief."));
    assert!(files.contains_key(Path::new("/home/node/.codex/skills/greet/SKILL.md")));
    let config: toml_edit::DocumentMut = files[Path::new("/home/node/.codex/config.toml")]
        .parse()
        .unwrap();
    assert_eq!(
        config["projects"]["/app/repo"]["trust_level"].as_str(),
        Some("trusted")
    );
    assert_eq!(
        config["mcp_servers"]["files"]["env"]["A"].as_str(),
        Some("1")
    );
    assert_eq!(
        config["mcp_servers"]["docs"]["url"].as_str(),
        Some("https://mcp.example/x")
    );
    assert!(config.get("model_provider").is_none());
}

#[test]
fn copilot_gets_trust_hooks_instructions_skills_and_servers() {
    let setup = Setup {
        model: Some("gpt-5.1".into()),
        ..rich()
    };
    let files = prepared(&setup, AgentKind::Copilot);
    assert_eq!(
        json_of(&files, "/home/node/.copilot/config.json")["trustedFolders"],
        json!(["/app/repo"])
    );
    let hooks = json_of(&files, "/home/node/.copilot/hooks/whim.json");
    assert_eq!(hooks["version"], 1);
    assert!(
        hooks["hooks"]["agentStop"][0]["bash"]
            .as_str()
            .unwrap()
            .contains("hook copilot agentStop")
    );
    let servers = &json_of(&files, "/home/node/.copilot/mcp-config.json")["mcpServers"];
    assert_eq!(servers["files"]["type"], "local");
    assert_eq!(servers["docs"]["tools"], json!(["*"]));
    assert!(files[Path::new("/home/node/.copilot/copilot-instructions.md")].contains("Be brief."));
}

#[test]
fn an_untrusted_repository_brings_nothing_along() {
    let untrusted = Setup {
        trusted: false,
        model: Some("m".into()),
        ..setup()
    };
    let claude = command(
        &untrusted,
        AgentKind::Claude,
        &start(Surface::Terminal, None),
    );
    let words = claude.arguments.join(" ");
    assert!(words.contains("--setting-sources user") && words.contains("--strict-mcp-config"));
    let files = prepared(&untrusted, AgentKind::Claude);
    assert!(
        json_of(&files, "/home/node/.claude/settings.json")
            .get("enableAllProjectMcpServers")
            .is_none()
    );
    let error = of(AgentKind::Copilot)
        .command(&untrusted, &start(Surface::Terminal, None))
        .unwrap_err();
    assert_eq!(error.field, "repo.trust");
    assert!(
        of(AgentKind::Copilot)
            .command(&untrusted, &start(Surface::Pipes, Some("x")))
            .is_ok()
    );
    let files = prepared(&untrusted, AgentKind::Codex);
    assert!(
        files[Path::new("/home/node/.codex/config.toml")].contains("trust_level = \"untrusted\"")
    );
    assert!(
        !prepared(&untrusted, AgentKind::Copilot)
            .contains_key(Path::new("/home/node/.copilot/config.json"))
    );
}

#[test]
fn codexs_own_questions_about_trust_are_answered_as_the_task_says() {
    let answers = |trusted| {
        of(AgentKind::Codex)
            .startup_dialogs(&Setup { trusted, ..setup() })
            .into_iter()
            .map(|dialog| (dialog.shows, dialog.keys))
            .collect::<Vec<_>>()
    };
    assert_eq!(answers(true), [("Hooks need review", Some(&b"2\r"[..]))]);
    assert_eq!(
        answers(false),
        [
            ("Open restricted", Some(&b"\r"[..])),
            ("Hooks need review", Some(b"3\r"))
        ]
    );
}

#[test]
fn what_is_ours_is_found_without_the_edit_that_brought_it() {
    use crate::agents::edit::{Edit, JsonEdit, Left, Share, TomlEdit};
    let merged = JsonEdit::new().merge(&[], serde_json::json!({"ours": {"a": [1]}}));
    let set = TomlEdit::new().set(&["ours", "a"], 1);
    for (path, edit, before, after) in [
        ("/f.json", Edit::Json(merged), "{\"mine\": 1}", Some("mine")),
        ("/f.toml", Edit::Toml(set), "mine = 1\n", Some("mine")),
        ("/skills/x/f.json", Edit::Replace(b"[1]".to_vec()), "", None),
        ("/skills/x/f.md", Edit::Replace(b"text".to_vec()), "", None),
    ] {
        let path = std::path::Path::new(path);
        let edit = crate::agents::FileEdit {
            path: path.into(),
            mode: 0o644,
            edit,
        };
        let present = Some(before.as_bytes()).filter(|before| !before.is_empty());
        let prints = edit.share().unwrap().missing_in(path, present).unwrap();
        let prints = prints.into_iter().collect();
        let content = edit.apply(present).unwrap().unwrap();
        let share = Share::among(path, &content, &prints).unwrap();
        match (share.withdraw(path, &content, &prints).unwrap(), after) {
            (Left::Content(left), Some(mine)) => {
                let left = String::from_utf8(left).unwrap();
                assert!(left.contains(mine) && !left.contains("ours"), "{left}");
            }
            (Left::Nothing, None) => {}
            other => panic!("{}: {other:?}", path.display()),
        }
    }
}

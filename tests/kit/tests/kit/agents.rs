//! The agents' own CLIs against the scripted model, with nothing between: a new version of one that wants something else
//! of a provider fails here first, and not in a test of the product.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::json;
use whim_kit::model::conversation::{Agent, Dialect};
use whim_kit::model::demo;
use whim_kit::{AGENTS_USER, Client, Root, Upstream, agents, repo, wait};

use super::Guard;

const KEY: &str = "key-of-the-test";

/// A home, a checkout of the sample, and a provider.
struct Lab {
    root: Root,
    upstream: Upstream,
    bin: std::path::PathBuf,
}

impl Lab {
    fn new() -> Self {
        let root = Root::new().unwrap();
        let checkout = root.at("/app/repo");
        repo::sample(&checkout).unwrap();
        root.give_to_agent(&checkout).unwrap();
        let upstream = Upstream::start(demo::script()).unwrap();
        Self {
            root,
            upstream,
            bin: agents::installed().unwrap(),
        }
    }

    /// A program as the agents' user, in the checkout, with nothing in its environment but what an agent needs.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        let user = [
            format!("--reuid={AGENTS_USER}"),
            format!("--regid={AGENTS_USER}"),
        ];
        command
            .args(user)
            .args(["--init-groups", "--"])
            .arg(program)
            .current_dir(self.root.at("/app/repo"));
        let path = format!("{}:{}", self.bin.display(), std::env::var("PATH").unwrap());
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.root.at("/home/node"))
            .env("LANG", "C.UTF-8");
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "n")
                .env(format!("GIT_{who}_EMAIL"), "n@example.com");
        }
        command.stdin(Stdio::null());
        command
    }

    fn claude(&self, base: &str) -> Command {
        let state = json!({"hasCompletedOnboarding": true});
        self.root
            .write_as_agent("/home/node/.claude.json", &state.to_string())
            .unwrap();
        let mut command = self.command(&self.bin.join("claude"));
        command
            .env("ANTHROPIC_BASE_URL", base)
            .env("ANTHROPIC_AUTH_TOKEN", KEY);
        command.env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
        command.args(["-p", "--dangerously-skip-permissions", repo::SAMPLE_TASK]);
        command
    }

    /// Runs it to its end; the task must be done, over this format, in turns that all carried the key.
    fn does_the_task(&self, command: &mut Command, agent: Agent, dialect: Dialect) {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().unwrap();
        let text = [stdout, stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(
            status.success() && text.contains("Fixed"),
            "{status}\n{text}"
        );
        let checkout = self.root.at("/app/repo");
        let safe = format!("safe.directory={}", checkout.display());
        let git = |arguments: &[&str]| {
            repo::git(&checkout, &[&["-c", &safe], arguments].concat()).unwrap()
        };
        assert_eq!(
            git(&["log", "--format=%s", "-1"]),
            "Squeeze separators in slugs"
        );
        let test = Command::new("sh")
            .arg("test.sh")
            .current_dir(&checkout)
            .output()
            .unwrap();
        assert!(
            test.status.success(),
            "{}",
            String::from_utf8_lossy(&test.stdout)
        );
        let turns = self.upstream.turns();
        let rounds: Vec<usize> = turns.iter().map(|turn| turn.round).collect();
        assert_eq!(rounds, [0, 1, 2, 3, 4, 5]);
        for turn in &turns {
            assert_eq!(
                (turn.agent, turn.dialect, turn.key()),
                (agent, Some(dialect), Some(KEY))
            );
            assert_eq!(turn.prompt, repo::SAMPLE_TASK);
        }
    }
}

#[test]
fn claude_does_the_task() {
    let lab = Lab::new();
    let mut command = lab.claude(&lab.upstream.url());
    lab.does_the_task(&mut command, Agent::Claude, Dialect::Anthropic);
}

#[test]
fn codex_does_the_task_with_a_shell() {
    codex_does_the_task("model = \"gpt-5.1-codex\"");
}

#[test]
fn codex_does_the_task_with_its_default_model() {
    codex_does_the_task("");
}

fn codex_does_the_task(model: &str) {
    let lab = Lab::new();
    let config = format!(
        "{model}\nmodel_provider = \"lab\"\napproval_policy = \"never\"\n\
         sandbox_mode = \"danger-full-access\"\n[analytics]\nenabled = false\n[features]\nplugins = false\n\
         [model_providers.lab]\nname = \"lab\"\nbase_url = \"{}/v1\"\nenv_key = \"LAB_KEY\"\nwire_api = \"responses\"\n\
         [projects.\"{}\"]\ntrust_level = \"trusted\"\n",
        lab.upstream.url(),
        lab.root.at("/app/repo").display()
    );
    lab.root
        .write_as_agent("/home/node/.codex/config.toml", &config)
        .unwrap();
    let mut command = lab.command(&agents::native_codex(&lab.bin));
    command
        .env("LAB_KEY", KEY)
        .args(["exec", repo::SAMPLE_TASK]);
    lab.does_the_task(&mut command, Agent::Codex, Dialect::Responses);
}

#[test]
fn copilot_does_the_task() {
    let lab = Lab::new();
    let mut command = lab.command(&lab.bin.join("copilot-linux-x64"));
    command.env(
        "COPILOT_PROVIDER_BASE_URL",
        format!("{}/v1", lab.upstream.url()),
    );
    command
        .env("COPILOT_PROVIDER_TYPE", "openai")
        .env("COPILOT_PROVIDER_API_KEY", KEY);
    command
        .env("COPILOT_MODEL", "gpt-5.1-codex")
        .env("COPILOT_OFFLINE", "true");
    command.args(["-p", repo::SAMPLE_TASK, "--allow-all"]);
    lab.does_the_task(&mut command, Agent::Copilot, Dialect::Chat);
}

#[test]
fn claude_behind_the_router_does_the_task() {
    let lab = Lab::new();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = json!({
        "LOG": false, "HOST": "127.0.0.1", "PORT": port, "APIKEY": "", "NON_INTERACTIVE_MODE": false,
        "Providers": [{
            "name": "openrouter", "api_base_url": format!("{}/v1/chat/completions", lab.upstream.router_url()),
            "api_key": KEY, "models": ["anthropic/claude-sonnet-4.5"], "transformer": {"use": ["openrouter"]},
        }],
        "Router": {"default": "openrouter,anthropic/claude-sonnet-4.5"},
    });
    lab.root
        .write_as_agent(
            "/home/node/.claude-code-router/config.json",
            &config.to_string(),
        )
        .unwrap();
    let log = fs::File::create(lab.root.at("/tmp/router.log")).unwrap();
    let mut router = lab.command(&lab.bin.join("ccr"));
    let _router = Guard(
        router
            .arg("start")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap(),
    );
    let address = ([127, 0, 0, 1], port).into();
    wait::until_ok("the router", Duration::from_secs(30), || {
        Client::tcp(address)?.get("/health")
    })
    .unwrap();
    let mut command = lab.claude(&format!("http://{address}"));
    lab.does_the_task(&mut command, Agent::Ccr, Dialect::Chat);
}

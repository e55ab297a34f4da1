//! The repository's login: git gets it when it needs it, and nobody finds it.

use serde_json::json;
use whim_kit::{Client, GitServer, Root, Run, Whim, proc, repo};

use crate::support::{
    KEY, PATIENCE, agents_word, as_agent, custom, kill_supervisor, ready, root, start_in, whim,
};

const LOGIN: (&str, &str) = ("robot", KEY);

struct Served {
    directory: tempfile::TempDir,
    server: GitServer,
}

fn served() -> Served {
    let directory = tempfile::tempdir().unwrap();
    for name in ["app", "other"] {
        repo::with(&directory.path().join(name), &[("README.md", "hello\n")]).unwrap();
    }
    let server = GitServer::start(directory.path(), Some(LOGIN)).unwrap();
    Served { directory, server }
}

fn run_on(served: &Served, login: (&str, &str), trust: &str) -> Run {
    let url = served.server.url_with(login, "app");
    let spec = json!({"version": 1, "repo": {"url": url, "branch": "work", "trust": trust}});
    // What the agent is given, as it sees it.
    let look = "env > .git/environment.new; mv .git/environment.new .git/agents-environment; exec sleep 100000";
    custom(whim().args(["--spec", &spec.to_string()]), look)
}

fn up(run: &Run) -> (Whim, Client, Root) {
    let root = root(&whim());
    let (whim, client) = start_in(run, &root);
    ready(&client, &whim);
    (whim, client, root)
}

const PUSH: &str = "git commit -q --allow-empty -m Work && git push -q origin HEAD:refs/heads/";

#[test]
fn the_agent_fetches_and_pushes_without_having_the_login() {
    let served = served();
    let (whim, client, root) = up(&run_on(&served, LOGIN, "full"));
    agents_word(&root, &format!("{PUSH}pushed"));
    let origin = served.directory.path().join("app");
    let pushed = repo::git(&origin, &["log", "-1", "--format=%s", "pushed"]).unwrap();
    assert_eq!(pushed, "Work");

    // Nowhere in what the agent can read.
    let look = "cat .git/config .git/FETCH_HEAD .git/agents-environment ~/.gitconfig 2>/dev/null; git remote -v; \
                git config --list --show-origin; grep -rIs . ~ | head -c 4000000";
    let seen = agents_word(&root, look);
    assert!(seen.contains(&served.server.url("app")), "{seen}");
    assert!(!seen.contains(KEY), "{seen}");
    assert!(!whim.output().contains(KEY), "{}", whim.output());
    for process in proc::descendants(whim.keeper().unwrap()) {
        let shown = format!(
            "{:?}{:?}",
            proc::arguments(process.pid),
            proc::environment(process.pid)
        );
        assert!(!shown.contains(KEY), "{shown}");
    }

    // For this repository only, whoever asks.
    let others = as_agent(
        &root,
        &format!("git ls-remote {}", served.server.url("other")),
    );
    assert!(!others.status.success(), "{others:?}");
    let ask = |path: &str| {
        let question = format!(
            "protocol=http\\nhost={}\\npath={path}\\n\\n",
            served.server.host()
        );
        as_agent(&root, &format!("printf '{question}' | git credential fill"))
    };
    let given = String::from_utf8(ask("app").stdout).unwrap();
    assert!(given.contains(&format!("password={KEY}")), "{given}");
    assert!(!ask("other").status.success());

    // The next supervisor knows it too.
    kill_supervisor(&client, &whim, 1);
    agents_word(&root, &format!("{PUSH}pushed-later"));
}

#[test]
fn an_untrusted_repositorys_login_is_gone_once_it_is_fetched() {
    let served = served();
    let (whim, client, root) = up(&run_on(&served, LOGIN, "untrusted"));
    assert_eq!(agents_word(&root, "cat README.md"), "hello");
    let push = format!("{PUSH}pushed");
    assert!(!as_agent(&root, &push).status.success());
    kill_supervisor(&client, &whim, 1);
    assert!(!as_agent(&root, &push).status.success());
}

#[test]
fn a_wrong_login_is_told_without_showing_it() {
    let served = served();
    let run = run_on(&served, ("robot", "wrong-secret"), "full");
    let mut whim = run.start(root(&whim())).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 69, "{}", whim.output());
    let said = whim.output();
    assert!(said.contains(&served.server.url("app")), "{said}");
    assert!(
        said.contains("credentials") && !said.contains("wrong-secret"),
        "{said}"
    );
}

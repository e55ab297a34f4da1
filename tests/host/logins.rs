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

/// The body of `PUT /v1/credentials`.
fn given(url: &str, (username, password): (&str, &str)) -> serde_json::Value {
    json!({"git": {"url": url, "username": username, "password": password}})
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
    let login = given(&served.server.url("app"), LOGIN);
    for restarts in 1..3 {
        // Neither is one taken that is given later.
        let refused = client.put("/v1/credentials", &login).unwrap();
        assert_eq!(refused.status, 409, "{}", refused.text());
        assert!(!as_agent(&root, &push).status.success());
        kill_supervisor(&client, &whim, restarts);
        assert!(!as_agent(&root, &push).status.success());
    }
}

#[test]
fn a_login_that_was_given_to_a_warm_container_counts_more_than_that_of_its_tasks_url() {
    let served = served();
    let root = root(&whim());
    let look = "exec sleep 100000";
    let (whim, client) = start_in(&custom(whim().arg("--wait-for-spec"), look), &root);
    let login = given(&served.server.url("app"), LOGIN);
    let taken = client.put("/v1/credentials", &login).unwrap();
    assert_eq!(taken.status, 204, "{}", taken.text());
    let url = served.server.url_with(("robot", "an-old-one"), "app");
    let spec = json!({"version": 1, "repo": {"url": url}});
    let claimed = client.put("/v1/spec", &spec).unwrap();
    assert_eq!(claimed.status, 202, "{}", claimed.text());
    ready(&client, &whim);
    assert_eq!(agents_word(&root, "cat README.md"), "hello");
    kill_supervisor(&client, &whim, 1);
    agents_word(&root, &format!("{PUSH}pushed"));
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

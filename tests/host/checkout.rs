//! From a repository to a branch in `/app/repo`: what is fetched, what is kept, what is refused.

use std::path::Path;

use serde_json::{Value, json};
use whim_kit::{Client, GitServer, Root, Run, Whim, repo};

use crate::support::{
    KEY, PATIENCE, agents_word, as_agent, custom, open_to_all, ready, repository, root, start_in,
    whim,
};

const BRANCH: &str = "whim-ww-12";

/// Runs with this as the spec's repository, on a branch of a known name, beside an agent that does nothing.
fn run_on(mut repo: Value) -> Run {
    repo["branch"] = json!(BRANCH);
    let spec = json!({"version": 1, "repo": repo}).to_string();
    custom(whim().args(["--spec", &spec]), "exec sleep 100000")
}

fn up(run: &Run, root: &Root) -> (Whim, Client) {
    let (whim, client) = start_in(run, root);
    ready(&client, &whim);
    (whim, client)
}

/// Waits for the refusal; returns what was printed.
fn refused(run: &Run, root: &Root, code: i32) -> String {
    let mut whim = run.start(root.clone()).unwrap();
    let ended = whim.ended(PATIENCE).unwrap();
    assert_eq!(ended, code, "{}", whim.output());
    whim.output()
}

fn commit(directory: &Path, file: &str, content: &str) {
    std::fs::write(directory.join(file), content).unwrap();
    repo::git(directory, &["add", "-A"]).unwrap();
    repo::git(directory, &["commit", "-q", "-m", file]).unwrap();
    open_to_all(directory);
}

fn read(root: &Root, path: &str) -> String {
    std::fs::read_to_string(root.at("/app/repo").join(path)).unwrap()
}

#[test]
fn submodules_that_can_be_had_are_there_and_the_others_are_named() {
    let served = tempfile::tempdir().unwrap();
    let server = GitServer::start(served.path(), None).unwrap();
    let (library, app) = (served.path().join("library"), served.path().join("app"));
    repo::with(&library, &[("lib.txt", "shared\n")]).unwrap();
    let of_library = repo::git(&library, &["rev-parse", "HEAD"]).unwrap();
    // The one that cannot be had is the first that git would try.
    let modules = "[submodule \"a\"]\n\tpath = a-gone\n\turl = ../nowhere\n\
                   [submodule \"b\"]\n\tpath = b-here\n\turl = ../library\n";
    repo::with(&app, &[(".gitmodules", modules)]).unwrap();
    for path in ["a-gone", "b-here"] {
        let link = format!("160000,{of_library},{path}");
        repo::git(&app, &["update-index", "--add", "--cacheinfo", &link]).unwrap();
    }
    repo::git(&app, &["commit", "-q", "-m", "Submodules"]).unwrap();

    let root = root(&whim());
    let (whim, client) = up(&run_on(json!({"url": server.url("app")})), &root);
    assert_eq!(
        read(&root, "b-here/lib.txt"),
        "shared\n",
        "{}",
        whim.output()
    );
    let events = client.json("/v1/events").unwrap();
    let missing = events["events"].as_array().unwrap().iter();
    let missing: Vec<_> = missing
        .filter(|event| event["type"] == "submodules.missing")
        .map(|event| event["paths"].clone())
        .collect();
    assert_eq!(missing, [json!(["a-gone"])], "{}", whim.output());
}

#[test]
fn pointers_of_large_files_stay_pointers() {
    let pointer = "version https://git-lfs.github.com/spec/v1\n\
                   oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    let directory = tempfile::tempdir().unwrap();
    let attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n";
    repo::with(
        directory.path(),
        &[(".gitattributes", attributes), ("model.bin", pointer)],
    )
    .unwrap();
    open_to_all(directory.path());
    let root = root(&whim());
    let ran = root.at("/tmp/filter-ran");
    // As `git lfs install` leaves it in an image, with a program that leaves a trace.
    let filter = format!("touch '{}'; cat >/dev/null; echo filtered", ran.display());
    let configuration = format!(
        "[filter \"lfs\"]\n\tsmudge = \"{filter}\"\n\tclean = \"{filter}\"\n\tprocess = \"{filter}\"\n\trequired = true\n"
    );
    root.write_as_agent("/home/node/.gitconfig", &configuration)
        .unwrap();
    let (whim, _client) = up(&run_on(json!({"url": directory.path()})), &root);
    assert_eq!(read(&root, "model.bin"), pointer, "{}", whim.output());
    assert!(!ran.exists(), "the filter's program ran");
    // It is the agent's own business what its git does.
    let own = agents_word(&root, "git config filter.lfs.required");
    assert_eq!(own, "true");
}

#[test]
fn a_mirror_helps_when_it_can_and_harms_nothing_when_it_cannot() {
    let origin = repository();
    let stale = tempfile::tempdir().unwrap();
    let stale = stale.path().join("mirror");
    let (from, to) = (origin.path().to_str().unwrap(), stale.to_str().unwrap());
    repo::git(origin.path(), &["clone", "-q", "--mirror", from, to]).unwrap();
    open_to_all(stale.parent().unwrap());
    commit(origin.path(), "newer.txt", "newer\n");
    for mirror in [
        json!("http://127.0.0.1:1/gone"),
        json!("/nowhere"),
        json!(stale),
    ] {
        let root = root(&whim());
        let run = run_on(json!({"url": origin.path(), "mirror": mirror}));
        let (_whim, _client) = up(&run, &root);
        assert_eq!(read(&root, "newer.txt"), "newer\n", "{mirror}");
        let remote = agents_word(&root, "git remote get-url origin");
        assert_eq!(Path::new(&remote), origin.path());
    }
    // The repository itself is down: what the mirror has is better than nothing.
    let root = root(&whim());
    let run = run_on(json!({"url": "http://127.0.0.1:1/gone", "mirror": stale}));
    let (_whim, _client) = up(&run, &root);
    assert_eq!(read(&root, "README.md"), "hello\n");
}

#[test]
fn a_mirrors_login_is_used_for_it_and_then_forgotten() {
    const LOGIN: (&str, &str) = ("mirror", KEY);
    let origin = repository();
    let served = tempfile::tempdir().unwrap();
    let server = GitServer::start(served.path(), Some(LOGIN)).unwrap();
    let from = origin.path().to_str().unwrap();
    repo::git(served.path(), &["clone", "-q", "--mirror", from, "app"]).unwrap();
    let root = root(&whim());
    let run = run_on(json!({"url": origin.path(), "mirror": server.url_with(LOGIN, "app")}));
    let (whim, _client) = up(&run, &root);
    let asked = server.asked();
    assert!(asked.iter().any(|asked| asked.status == 200), "{asked:?}");
    assert!(!whim.output().contains(KEY));
    let again = as_agent(&root, &format!("git ls-remote {}", server.url("app")));
    assert!(!again.status.success(), "the agent may use it: {again:?}");
}

#[test]
fn a_shallow_history_is_as_deep_as_asked() {
    let origin = repository();
    for number in 0..4 {
        commit(origin.path(), "number", &number.to_string());
    }
    for (depth, commits) in [(json!(1), "1"), (json!(3), "3"), (Value::Null, "5")] {
        let root = root(&whim());
        let run = run_on(json!({"url": origin.path(), "depth": depth}));
        let (_whim, _client) = up(&run, &root);
        assert_eq!(agents_word(&root, "git rev-list --count HEAD"), commits);
        assert_eq!(agents_word(&root, "git branch --show-current"), BRANCH);
    }
}

/// A checkout that came with the image: on `main`, with a change and a new file.
fn brought(root: &Root, origin: &Path) {
    let checkout = root.at("/app/repo");
    let (from, to) = (origin.to_str().unwrap(), checkout.to_str().unwrap());
    repo::git(origin, &["clone", "-q", from, to]).unwrap();
    std::fs::write(checkout.join("README.md"), "changed here\n").unwrap();
    std::fs::write(checkout.join("notes.txt"), "new here\n").unwrap();
    root.give_to_agent(&checkout).unwrap();
}

#[test]
fn a_directory_that_was_there_keeps_what_is_in_it() {
    let origin = repository();
    let root = root(&whim());
    brought(&root, origin.path());
    commit(origin.path(), "newer.txt", "newer\n");
    let (whim, _client) = up(&run_on(json!({"url": origin.path(), "depth": 1})), &root);
    assert_eq!(
        read(&root, "README.md"),
        "changed here\n",
        "{}",
        whim.output()
    );
    assert_eq!(read(&root, "notes.txt"), "new here\n");
    assert_eq!(read(&root, "newer.txt"), "newer\n", "the branch is of now");
    assert_eq!(agents_word(&root, "git branch --show-current"), BRANCH);
    assert_eq!(agents_word(&root, "git rev-list --count HEAD"), "2");
}

#[test]
fn a_directory_whose_content_is_in_the_way_is_left_alone() {
    let origin = repository();
    let root = root(&whim());
    brought(&root, origin.path());
    commit(origin.path(), "README.md", "changed there\n");
    let said = refused(&run_on(json!({"url": origin.path()})), &root, 73);
    assert!(
        said.contains("README.md") && said.contains("/app/repo"),
        "{said}"
    );
    assert_eq!(read(&root, "README.md"), "changed here\n");
    // No repository, only files.
    let root = crate::support::root(&whim());
    root.write_as_agent("/app/repo/README.md", "precious\n")
        .unwrap();
    let said = refused(&run_on(json!({"url": origin.path()})), &root, 73);
    assert!(said.contains("README.md"), "{said}");
    assert_eq!(read(&root, "README.md"), "precious\n");
}

#[test]
fn a_second_life_of_the_container_finds_the_agents_work_as_it_was() {
    let origin = repository();
    let root = root(&whim());
    let run = run_on(json!({"url": origin.path()})).as_pid_1();
    let (mut whim, _client) = up(&run, &root);
    // A commit that is nowhere else, another branch, changes, and a git that was killed.
    agents_word(
        &root,
        "echo work > work.txt && git add . && git commit -q -m Work && git checkout -q -b elsewhere \
         && echo more >> work.txt && touch .git/index.lock",
    );
    whim.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
    whim.ended(PATIENCE).unwrap();
    drop(whim);
    commit(origin.path(), "newer.txt", "newer\n");
    let (whim, _client) = up(&run, &root);
    assert_eq!(read(&root, "work.txt"), "work\nmore\n", "{}", whim.output());
    assert_eq!(agents_word(&root, "git branch --show-current"), "elsewhere");
    let work = format!("git log -1 --format=%s {BRANCH}");
    assert_eq!(agents_word(&root, &work), "Work");
    assert!(!root.at("/app/repo/.git/index.lock").exists());
}

#[test]
fn a_checkout_that_was_cut_short_is_completed() {
    let origin = repository();
    let root = root(&whim());
    let checkout = root.at("/app/repo");
    repo::empty(&checkout).unwrap();
    std::fs::write(checkout.join(".git/whim-checkout"), "begun\n").unwrap();
    std::fs::write(checkout.join(".git/index.lock"), "").unwrap();
    std::fs::write(checkout.join("README.md"), "hel").unwrap();
    root.give_to_agent(&checkout).unwrap();
    let (whim, _client) = up(&run_on(json!({"url": origin.path()})), &root);
    assert_eq!(read(&root, "README.md"), "hello\n", "{}", whim.output());
    assert_eq!(agents_word(&root, "git status --porcelain"), "");
}

#[test]
fn an_empty_repository_is_begun() {
    let origin = tempfile::tempdir().unwrap();
    repo::empty(origin.path()).unwrap();
    open_to_all(origin.path());
    for repo in [
        json!({"url": origin.path()}),
        json!({"url": origin.path(), "source_branch": "main"}),
    ] {
        let root = root(&whim());
        let run = run_on(repo);
        let (mut whim, _client) = up(&run, &root);
        let first =
            "echo x > x && git add x && git commit -q -m First && git branch --show-current";
        assert_eq!(agents_word(&root, first), BRANCH);
        whim.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
        drop(whim);
        let (_whim, _client) = up(&run, &root);
        assert_eq!(agents_word(&root, "git log --format=%s"), "First");
    }
}

#[test]
fn names_that_git_would_take_for_options_or_paths_are_refused() {
    let bad = [
        "--upload-pack=touch /tmp/x",
        "-x",
        "a..b",
        "../a",
        "a/../b",
        "a b",
        "x.lock",
        "/a",
    ];
    for name in bad {
        for flag in ["--branch", "--source-branch"] {
            let run = whim()
                .arg(format!("{flag}={name}"))
                .args(["--repo", "/srv/x"]);
            let said = refused(&custom(run, "exit 0"), &root(&whim()), 64);
            assert!(said.contains(flag), "{said}");
        }
    }
    let spec = json!({"version": 1, "repo": {"url": "--upload-pack=x", "mirror": "ext::sh -c id", "branch": "..",
                      "source_branch": "--upload-pack=x"}});
    let run = custom(whim().args(["--spec", &spec.to_string()]), "exit 0");
    let said = refused(&run, &root(&whim()), 65);
    for at in [
        "/repo/url",
        "/repo/mirror",
        "/repo/branch",
        "/repo/source_branch",
    ] {
        assert!(said.contains(at), "{at} is not in {said}");
    }
}

#[test]
fn commits_have_an_author_and_the_users_own_name_wins() {
    let origin = repository();
    let commit = "git commit -q --allow-empty -m Work && git log -1 --format='%an <%ae> %cn'";
    let root = root(&whim());
    let (_whim, _client) = up(&run_on(json!({"url": origin.path()})), &root);
    assert_eq!(
        agents_word(&root, commit),
        "whim agent <agent@whim.invalid> whim agent"
    );
    let root = crate::support::root(&whim());
    let own = "[user]\n\tname = Ada\n\temail = ada@example.com\n";
    root.write_as_agent("/home/node/.gitconfig", own).unwrap();
    let (_whim, _client) = up(&run_on(json!({"url": origin.path()})), &root);
    assert_eq!(agents_word(&root, commit), "Ada <ada@example.com> Ada");
}

use super::*;
use crate::config::layers::merge;
use serde_json::{Value, json};

fn user() -> User {
    User {
        name: "node".into(),
        uid: 1001,
        gid: 1001,
        groups: vec![1001],
        home: "/home/node".into(),
        shell: "/bin/bash".into(),
    }
}

fn built(container: &[(&str, &str)], store: StoreKind, pass: &[&str], layers: Value) -> Built {
    let container = Variables::new(container.iter().map(|(n, v)| (n.into(), v.into())));
    let pass = pass.iter().map(|name| (*name).to_owned()).collect();
    build(
        &container,
        store,
        &pass,
        &merge(&serde_json::from_value::<Vec<_>>(layers).unwrap(), None),
        &user(),
    )
}

fn get<'a>(built: &'a Built, name: &str) -> Option<&'a str> {
    built
        .environment
        .get(name)
        .map(|value| value.to_str().unwrap())
}

#[test]
fn what_whim_uses_stays_with_whim() {
    let container = [
        ("FOO", "1"),
        ("ANTHROPIC_API_KEY", "k"),
        ("ANTHROPIC_API_KEY_FILE", "/k"),
        ("CLAUDE_CODE_OAUTH_TOKEN", "k"),
        ("OPENAI_API_KEY", "k"),
        ("OPENAI_BASE_URL", "u"),
        ("OPENAI_MODEL", "m"),
        ("ANTHROPIC_MODEL", "m"),
        ("OPENROUTER_API_KEY", "k"),
        ("WHIM_CONTROL_TOKEN", "t"),
        ("WHIM_SPEC", "{}"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_REGION", "r"),
        ("GIT_AUTHOR_NAME", "me"),
        ("NOTIFY_SOCKET", "/s"),
    ];
    let names = |built: &Built| -> Vec<String> {
        built
            .environment
            .iter()
            .map(|(name, _)| name.to_str().unwrap().to_owned())
            .collect()
    };
    let with_s3 = built(&container, StoreKind::S3, &[], json!([]));
    assert_eq!(
        names(&with_s3),
        [
            "ANTHROPIC_MODEL",
            "FOO",
            "GIT_AUTHOR_NAME",
            "HOME",
            "LANG",
            "LOGNAME",
            "OPENAI_MODEL",
            "PATH",
            "SHELL",
            "USER"
        ]
    );
    let with_files = built(&container, StoreKind::File, &[], json!([]));
    assert_eq!(
        get(&with_files, "AWS_SECRET_ACCESS_KEY"),
        Some("s"),
        "the store does not use it"
    );
    let passed = built(
        &container,
        StoreKind::S3,
        &["AWS_REGION", "OPENAI_API_KEY"],
        json!([]),
    );
    assert_eq!(
        (get(&passed, "AWS_REGION"), get(&passed, "OPENAI_API_KEY")),
        (Some("r"), Some("k"))
    );
    assert_eq!(get(&passed, "AWS_SECRET_ACCESS_KEY"), None);
}

#[test]
fn later_sources_win_and_see_earlier_ones() {
    let built = built(
        &[
            ("A", "container"),
            ("B", "container"),
            ("C", "container"),
            ("WHIM_SPEC", "secret"),
        ],
        StoreKind::File,
        &[],
        json!([
            {"layer":"user","env":{"A":"layer","B":"layer","HOME":"/elsewhere"},
             "env_files":{".env":"B=user-file\nD=$B-$A-$C-$WHIM_SPEC-$LOW\n",".env.z":"E=$D\nF=z\n",".env.a":"F=a\nUSER=x\n"}},
            {"layer":"platform","env":{"A":"platform"},"env_files":{".env":"B=platform-file\nLOW=low\nONLY=1"}},
        ]),
    );
    assert_eq!(get(&built, "A"), Some("layer"));
    assert_eq!(get(&built, "B"), Some("user-file"));
    assert_eq!(get(&built, "D"), Some("user-file-layer-container--low"));
    assert_eq!(
        (get(&built, "E"), get(&built, "F")),
        (get(&built, "D"), Some("z"))
    );
    assert_eq!(
        (get(&built, "HOME"), get(&built, "USER")),
        (Some("/home/node"), Some("node"))
    );
    let files: Vec<&str> = built.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(files, [".env", ".env.a", ".env.z"]);
    assert!(
        built.files[0]
            .1
            .to_shell()
            .contains("export B='user-file'\n"),
        "one value for each name"
    );
    assert_eq!(built.files[0].1.iter().count(), 4);
    assert!(built.mistakes.is_empty());
    assert!(!format!("{built:?}").contains("user-file"));
}

#[test]
fn a_files_bomb_is_told_with_its_place() {
    let bomb = format!("A=0123456789abcdef\n{}", "A=$A$A\n".repeat(20));
    let built = built(
        &[],
        StoreKind::File,
        &[],
        json!([{"layer":"user","env_files":{".env":bomb}}]),
    );
    assert_eq!(
        built.mistakes[0].from,
        Some((LayerName::User, ".env".into()))
    );
    assert!(
        built.mistakes[0].problem.starts_with("line 14 sets A"),
        "{:?}",
        built.mistakes
    );
}

#[test]
fn more_than_the_kernel_takes_is_told() {
    let env: BTreeMap<String, String> = (0..12)
        .map(|n| (format!("A{n}"), "x".repeat(100_000)))
        .collect();
    let built = built(
        &[],
        StoreKind::File,
        &[],
        json!([{"layer":"user","env":env}]),
    );
    assert!(
        built.mistakes.len() == 1 && built.mistakes[0].problem.contains("more than 1 MiB"),
        "{:?}",
        built.mistakes
    );
}

#[test]
fn defaults_fill_gaps_only() {
    let bare = built(&[("PATH", "")], StoreKind::File, &[], json!([]));
    assert_eq!(
        (
            get(&bare, "PATH"),
            get(&bare, "LANG"),
            get(&bare, "NO_PROXY")
        ),
        (Some(PATH), Some(LANG), None)
    );
    let set = built(
        &[("PATH", "/x"), ("LC_ALL", "de_DE.UTF-8"), ("PWD", "/root")],
        StoreKind::File,
        &[],
        json!([]),
    );
    assert_eq!(
        (get(&set, "PATH"), get(&set, "LANG"), get(&set, "PWD")),
        (Some("/x"), None, None)
    );
    let terminal = set.environment.for_terminal();
    assert_eq!(terminal.get("TERM").unwrap(), TERM);
}

#[test]
fn a_proxy_is_not_asked_for_loopback() {
    let built = built(
        &[("no_proxy", "corp")],
        StoreKind::File,
        &[],
        json!([{"layer":"user","env":{"HTTPS_PROXY":"http://p"}}]),
    );
    assert_eq!(
        get(&built, "no_proxy"),
        Some("corp,localhost,127.0.0.1,::1")
    );
    assert_eq!(get(&built, "NO_PROXY"), Some("localhost,127.0.0.1,::1"));
}

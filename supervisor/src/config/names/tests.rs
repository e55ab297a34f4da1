use super::*;
use proptest::prelude::*;
use std::process::Command;

#[test]
fn branches_follow_git() {
    for good in [
        "main",
        "feature/x",
        "whim-ww-12",
        "a.b/c@d",
        "ümlaut",
        "v1.0",
        "@a",
        "head",
        "a-",
    ] {
        assert_eq!(branch(good), Ok(()), "{good}");
    }
    for bad in [
        "", "-x", "HEAD", "@", "a b", "a~b", "a^", "a:b", "a?", "a*", "a[", "a\\b", "a..b", "a@{b",
        "a.", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a\nb", "a\u{7f}",
    ] {
        assert!(branch(bad).is_err(), "{bad:?}");
    }
}

fn git_accepts(name: &str) -> bool {
    Command::new("git")
        .args(["check-ref-format", "--branch", name])
        .current_dir("/")
        .output()
        .expect("git runs")
        .status
        .success()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    /// Compared with git itself; `@` and `@{` are left out because `--branch` expands them.
    #[test]
    fn branches_are_judged_as_git_judges_them(name in "[-a@./~:^?*\\[\\\\ \u{1}\u{7f}äHEADlock]{1,6}|[a-c]{1,3}(/[.]?[a-c]{1,2}([.]lock)?){0,2}") {
        prop_assume!(name != "@" && !name.contains("@{"));
        prop_assert_eq!(branch(&name).is_ok(), git_accepts(&name), "{:?}", name);
    }

    #[test]
    fn an_accepted_path_stays_beneath(path in "[a./\\\\-]{0,12}") {
        if relative_path(&path).is_ok() {
            use std::path::Component;
            prop_assert!(std::path::Path::new(&path).components().all(|c| matches!(c, Component::Normal(_))));
        }
    }

    #[test]
    fn an_accepted_id_makes_a_branch_and_a_file(id in "[A-Za-z0-9._/-]{1,12}") {
        if identifier(&id).is_ok() {
            prop_assert_eq!(branch(&format!("whim-{id}")), Ok(()));
            prop_assert_eq!(file_name(&id), Ok(()));
        }
    }
}

#[test]
fn paths_that_leave_are_refused() {
    for good in ["SKILL.md", "a/b.md", "..a", "a..b", ".hidden"] {
        assert_eq!(relative_path(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "/a",
        "a/../b",
        "..",
        ".",
        "./a",
        "a//b",
        "a/",
        "a\\b",
        "a\0b",
        "a/\n",
        "-rf",
        &"x".repeat(256),
    ] {
        assert!(relative_path(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn variables_are_named_as_shells_can_hold_them() {
    for good in ["A", "_", "a1", "PATH"] {
        assert_eq!(variable(good), Ok(()));
    }
    for bad in ["", "1A", "A-B", "A B", "A=B", "Ä", "A\0"] {
        assert!(variable(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_longest_variable_is_the_kernels() {
    let longest = "v".repeat(MAX_VARIABLE - 3);
    assert_eq!(variable_value("N", &longest), Ok(()));
    // The kernel itself is asked: one byte more is E2BIG.
    assert!(
        Command::new("true")
            .env_clear()
            .env("N", &longest)
            .status()
            .is_ok()
    );
    let longer = format!("{longest}v");
    assert!(variable_value("N", &longer).is_err());
    assert!(
        Command::new("true")
            .env_clear()
            .env("N", &longer)
            .status()
            .is_err()
    );
    assert!(variable_value("N", "a\0b").is_err());
}

#[test]
fn names_that_steer_the_host_are_refused_in_layers() {
    for refused in [
        "WHIM_ROOT",
        "LD_PRELOAD",
        "GIT_SSH_COMMAND",
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_API_KEY_FILE",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "OPENROUTER_API_KEY",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "COPILOT_PROVIDER_BASE_URL",
        "CODEX_API_KEY",
    ] {
        assert!(refused_in_layers(refused).is_some(), "{refused}");
    }
    for fine in [
        "PATH",
        "GITHUB_TOKEN",
        "ANTHROPIC_MODEL",
        "DATABASE_URL",
        "LDAP",
        "WHIMSY",
        "AWS_REGION",
    ] {
        assert_eq!(refused_in_layers(fine), None, "{fine}");
    }
}

#[test]
fn secrets_are_known_by_their_names() {
    for secret in [
        "API_KEY",
        "githubToken",
        "DB_PASSWORD",
        "STRIPE_SECRET",
        "SENTRY_DSN",
        "JWT",
        "npm_config_authtoken",
        "AWS_SECRET_ACCESS_KEY",
    ] {
        assert!(is_likely_secret(secret), "{secret}");
    }
    for plain in [
        "PATH",
        "PORT",
        "KEYBOARD",
        "COMPASS",
        "NODE_ENV",
        "MONKEY",
        "NEXT_PUBLIC_KEY",
    ] {
        assert!(!is_likely_secret(plain), "{plain}");
    }
}

#[test]
fn repositories_that_run_commands_are_refused() {
    for good in [
        "https://github.com/a/b.git",
        "https://u:p@h/x",
        "ssh://git@h:22/x",
        "git@github.com:a/b",
        "git@[::1]:a",
        "/srv/repo",
        "./repo",
        "file:///srv/repo",
        "http://127.0.0.1:1/x",
    ] {
        assert_eq!(repository(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "-u",
        "--upload-pack=x",
        "ext::sh -c id",
        "fd::7",
        "ftp://h/x",
        "ssh://-oProxyCommand=id/x",
        "x@-oA:b",
        "-oA:b",
        "https:///x",
        "a\nb",
    ] {
        assert!(repository(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn private_addresses_are_not_public() {
    for private in [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "192.0.0.8",
        "198.18.0.1",
        "240.0.0.1",
        "168.63.129.16",
        "192.88.99.1",
        "100.100.100.200",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "2001:20::1",
        "3fff:1::1",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fdaa::3",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "ff02::1",
        "2001:db8::1",
        "2001::1",
    ] {
        assert!(!is_public(private.parse().unwrap()), "{private}");
    }
    for public in [
        "1.1.1.1",
        "8.8.8.8",
        "172.32.0.1",
        "100.128.0.1",
        "2606:4700::1111",
        "2001:4860:4860::8888",
        "168.63.129.17",
        "::ffff:1.1.1.1",
    ] {
        assert!(is_public(public.parse().unwrap()), "{public}");
    }
}

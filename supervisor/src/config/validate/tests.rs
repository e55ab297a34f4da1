use super::*;
use serde_json::{Value, json};

fn check(mut value: Value) -> (Vec<String>, Vec<String>) {
    value["version"] = json!(1);
    let (mistakes, warnings) = validate(&serde_json::from_value(value).unwrap());
    let text = |list: Vec<Mistake>| list.iter().map(ToString::to_string).collect();
    (text(mistakes), text(warnings))
}

/// Exactly one mistake, at this place, with this text in it.
fn refused(value: Value, pointer: &str, part: &str) {
    let (mistakes, _) = check(value);
    assert!(
        mistakes.len() == 1
            && mistakes[0].starts_with(&format!("spec {pointer}"))
            && mistakes[0].contains(part),
        "{mistakes:?}"
    );
}

fn layer(mut value: Value) -> Value {
    value["layer"] = json!("user");
    json!({"config": [value]})
}

#[test]
fn a_good_spec_has_no_mistakes() {
    let (mistakes, warnings) = check(json!({
        "task":{"id":"ww-12","parent":"ww-11"},
        "repo":{"url":"https://h/x","mirror":"/srv/x","source_branch":"main","branch":"whim-ww-12"},
        "agent":{"model":"m","effort":"high","prompt":"p","command":["x"]},
        "provider":{"upstream":"https://h/v1"},
        "attachments":[{"name":"01-a.png","url":"https://h/a?sig=1"}],
        "config":[{"layer":"platform","init_user":"root","init_script":"x","env":{"A":"1"},"env_files":{".env":"B=$A"},
            "skills":[{"name":"s","files":{"SKILL.md":"x","a/b.md":"y"}},{"name":"one","files":{"one.md":"x"}}],
            "mcp_servers":{"x":{"command":"c","env":{"OPENAI_API_KEY":"for the server"}},"y":{"url":"https://m","headers":{"X-A":"b"}}},
            "plugins":{"enabled":{"p@m":true},"marketplaces":{"m":{}}}}],
        "restore":{"from":"ww-11"},"backup":{"url":"s3://b/p"}
    }));
    assert!(
        mistakes.is_empty() && warnings.is_empty(),
        "{mistakes:?} {warnings:?}"
    );
}

#[test]
fn everything_is_told_at_once() {
    let (mistakes, warnings) = check(json!({
        "task":{"id":"../x"},
        "repo":{"url":"ext::sh -c id","branch":"a..b","source_branch":"-x"},
        "agent":{"model":"--yolo","prompt":"\u{1b}[201~"},
        "attachments":[{"name":"../a","url":"http://h/a"}],
        "config":[{"layer":"user","init_user":"root"},{"layer":"user","env":{"LD_PRELOAD":"/x"}}],
        "backup":{"url":"ftp://h/x"}
    }));
    assert_eq!(mistakes.len(), 11, "{mistakes:#?}");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

#[test]
fn names_that_leave_their_place_are_refused() {
    refused(
        json!({"attachments":[{"name":"a/b","url":"https://h/a"}]}),
        "/attachments/0/name",
        "separator",
    );
    refused(
        layer(json!({"env_files":{"../.env":""}})),
        "/config/0/env_files/..~1.env",
        "separator",
    );
    refused(
        layer(json!({"skills":[{"name":"..","files":{"SKILL.md":""}}]})),
        "/config/0/skills/0/name",
        "letter or digit",
    );
    refused(
        layer(json!({"skills":[{"name":"s","files":{"SKILL.md":"","../x":""}}]})),
        "/config/0/skills/0/files/..~1x",
        "`..`",
    );
    refused(
        layer(json!({"skills":[{"name":"s","files":{"SKILL.md":"","/etc/x":""}}]})),
        "/config/0/skills/0/files/~1etc~1x",
        "absolute",
    );
    refused(
        layer(json!({"skills":[{"name":"s","files":{"SKILL.md":"","SKILL.md/x":""}}]})),
        "/config/0/skills/0/files/SKILL.md~1x",
        "is a file",
    );
    refused(
        layer(json!({"mcp_servers":{"a.b":{"command":"x"}}})),
        "/config/0/mcp_servers/a.b",
        "dot",
    );
    refused(
        layer(json!({"plugins":{"enabled":{"p":true}}})),
        "/config/0/plugins/enabled/p",
        "marketplace",
    );
}

#[test]
fn limits_of_skills_and_attachments_hold_to_the_byte() {
    let files = |count: usize, bytes: usize| {
        let mut files: serde_json::Map<String, Value> =
            (1..count).map(|n| (format!("{n}"), json!(""))).collect();
        files.insert("SKILL.md".into(), json!("x".repeat(bytes)));
        layer(json!({"skills":[{"name":"s","files":files}]}))
    };
    assert_eq!(check(files(50, 2_000_000)).0, Vec::<String>::new());
    refused(files(51, 1), "/config/0/skills/0/files", "51 files");
    refused(
        files(1, 2_000_001),
        "/config/0/skills/0/files",
        "2000001 bytes",
    );
    refused(
        layer(json!({"skills":[{"name":"s","files":{"a.md":"","b.md":""}}]})),
        "/config/0/skills/0/files",
        "SKILL.md",
    );
    refused(
        layer(json!({"skills":[{"name":"s","files":{"a":""}},{"name":"s","files":{"a":""}}]})),
        "/config/0/skills/1/name",
        "another",
    );
    let many: Vec<Value> = (0..11)
        .map(|n| json!({"name":format!("{n}"),"url":"https://h/x"}))
        .collect();
    refused(json!({"attachments":many}), "/attachments", "more than 10");
    refused(
        layer(json!({"instructions":"x".repeat(MAX_TEXT + 1)})),
        "/config/0/instructions",
        "1 MiB",
    );
}

#[test]
fn variables_that_steer_the_host_are_refused_wherever_layers_set_them() {
    refused(
        layer(json!({"env":{"ANTHROPIC_BASE_URL":"http://evil"}})),
        "/config/0/env/ANTHROPIC_BASE_URL",
        "provider",
    );
    refused(
        layer(json!({"env_files":{".env":"A=1\nexport GIT_SSH=/x\n"}})),
        "/config/0/env_files/.env",
        "line 2 sets GIT_SSH",
    );
    refused(
        layer(json!({"settings":{"env":{"ANTHROPIC_API_KEY":"x"}}})),
        "/config/0/settings/env/ANTHROPIC_API_KEY",
        "provider",
    );
    refused(
        layer(json!({"env":{"1A":"x"}})),
        "/config/0/env/1A",
        "no variable name",
    );
    refused(
        layer(json!({"env":{"A":"x".repeat(200_000)}})),
        "/config/0/env/A",
        "128 KiB",
    );
    refused(
        layer(json!({"env_files":{".env":"nonsense\n"}})),
        "/config/0/env_files/.env",
        "line 1 has no `=`",
    );
}

#[test]
fn attachments_come_from_outside_only() {
    for bad in [
        "http://h/a",
        "https://localhost/a",
        "https://a.localhost./a",
        "https://127.0.0.1/a",
        "https://2130706433/a",
        "https://0x7f.1/a",
        "https://[::1]/a",
        "https://[::ffff:169.254.169.254]/a",
        "https://10.0.0.1/a",
        "file:///etc/passwd",
        "x",
    ] {
        refused(
            json!({"attachments":[{"name":"a","url":bad}]}),
            "/attachments/0/url",
            "",
        );
    }
}

#[test]
fn secrets_do_not_show() {
    let (mistakes, warnings) = check(json!({
        "repo":{"url":"ftp://u:hunter2@h/x"},
        "provider":{"upstream":"https://h/?key=hunter2"},
        "attachments":[{"name":"a","url":"http://h/a?sig=hunter2"}],
        "config":[{"layer":"user","env":{"LD_X":"hunter2"},"env_files":{".env":"GIT_X=hunter2\nhunter2hunter2"},
            "mcp_servers":{"x":{"url":"ftp://hunter2@h"}}}],
        "restore":{"from":"ftp://hunter2@h/x"},"backup":{"url":"ftp://k:hunter2@h/x"}
    }));
    assert_eq!(mistakes.len(), 9, "{mistakes:#?}");
    let shown = format!("{mistakes:?}{warnings:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

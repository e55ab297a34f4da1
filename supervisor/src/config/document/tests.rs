use super::*;
use proptest::prelude::*;

fn mistakes(text: &str) -> Vec<String> {
    read(text.as_bytes())
        .mistakes
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn every_structural_mistake_is_told_with_its_pointer() {
    let text = r#"{"version":1,"task":{"id":7},"agent":{"kind":"cluade","command":[]},"budget":{"usd":"five"},
        "config":[{"layer":"workspce","env":{"A":1}},{"mcp_servers":{"x":{},"y":{"command":"c","url":"u"},"z":[]}}],
        "idle":{"after_s":-1,"action":"sleep"},"repo":{"depth":0,"trust":"half"},"attachments":[{"name":"x"}],
        "backup":{"interval_s":1.5},"init_timeout_s":0}"#;
    let read = read(text.as_bytes());
    let at: Vec<String> = read.mistakes.iter().map(|m| m.place.to_string()).collect();
    for pointer in [
        "/task/id",
        "/agent/kind",
        "/agent/command",
        "/budget/usd",
        "/config/0/layer",
        "/config/0/env/A",
        "/config/1",
        "/config/1/mcp_servers/x",
        "/config/1/mcp_servers/y",
        "/config/1/mcp_servers/z",
        "/idle/after_s",
        "/idle/action",
        "/repo/depth",
        "/repo/trust",
        "/attachments/0",
        "/backup/interval_s",
        "/init_timeout_s",
    ] {
        assert!(
            at.contains(&format!("spec {pointer}")),
            "{pointer} in {at:#?}"
        );
    }
    assert_eq!(at.len(), 17, "{at:#?}");
    assert!(read.spec.is_none());
    let all = mistakes(text).join("\n");
    assert!(
        all.contains("did you mean claude?") && all.contains("did you mean workspace?"),
        "{all}"
    );
    assert!(
        all.contains("has more than one of command, url") && all.contains("has no `layer`"),
        "{all}"
    );
}

#[test]
fn what_is_no_object_of_version_1_is_refused() {
    for (text, part) in [
        ("", "no JSON"),
        ("[]", "is an array, not an object"),
        ("{}", "has no `version`"),
        (r#"{"version":2}"#, "is not 1"),
        (r#"{"version":"1"}"#, "is a string, not a whole number"),
        (r#"{"version":null}"#, "is null"),
        (r#"{"version":1} x"#, "no JSON"),
    ] {
        let all = mistakes(text);
        assert!(all.len() == 1 && all[0].contains(part), "{text}: {all:?}");
    }
    let huge = vec![b' '; MAX_BYTES + 1];
    assert_eq!(read(&huge).mistakes.len(), 1);
}

#[test]
fn unknown_members_are_warnings_with_the_likely_meaning() {
    let read = read(br#"{"version":1,"budgt":{"usd":"5"},"x-note":1,"agent":{"promt":"p"},"config":[{"layer":"user","settings":{"any":{"thing":1}}}]}"#);
    assert!(read.spec.is_some());
    let warnings: Vec<String> = read.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(
        warnings
            .iter()
            .any(|w| w.contains("spec /budgt") && w.contains("did you mean `budget`?"))
    );
    assert!(warnings.iter().any(|w| w.contains("/agent/promt")));
}

#[test]
fn null_is_left_out_except_where_it_means_something() {
    let spec = read(br#"{"version":1,"task":null,"repo":null,"agent":{"kind":null,"prompt":null},"config":[{"layer":"user","env":null,"settings":{"a":null}}],"restore":null,"budget":{"usd":null}}"#);
    assert_eq!(spec.mistakes, []);
    let spec = spec.spec.unwrap();
    assert_eq!(spec.config[0].settings.get("a"), Some(&Value::Null));
    assert!(!mistakes(r#"{"version":1,"config":[{"layer":"user","env":{"A":null}}]}"#).is_empty());
}

#[test]
fn no_value_that_may_be_secret_is_shown() {
    let text = r#"{"version":1,"config":[{"layer":"user","env":{"A":["hunter2"]},"mcp_servers":{"x":{"command":["hunter2"]}},"instructions":["hunter2"]}],
        "repo":{"url":["hunter2"]},"hunter3":"hunter2"}"#;
    let read = read(text.as_bytes());
    assert_eq!(read.mistakes.len(), 4);
    assert!(!format!("{:?}{:?}", read.mistakes, read.warnings).contains("hunter2"));
}

#[test]
fn pointers_are_escaped() {
    let read = read(br#"{"version":1,"config":[{"layer":"user","env":{"a/b~c":1}}]}"#);
    assert_eq!(
        read.mistakes[0].place,
        Place::Spec("/config/0/env/a~1b~0c".into())
    );
}

/// JSON that resembles a spec: members of the schema with values that may or may not fit.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..5).prop_map(Value::from),
        Just(Value::from(u64::MAX)),
        Just(Value::from(1.5)),
        prop_oneof![
            Just("claude"),
            Just("user"),
            Just("5.00"),
            Just("exit"),
            Just("exec:/x"),
            Just("fork"),
            Just("full"),
            Just("x")
        ]
        .prop_map(Value::from),
    ];
    let key = proptest::sample::select(vec![
        "version",
        "task",
        "id",
        "repo",
        "url",
        "depth",
        "trust",
        "agent",
        "kind",
        "mode",
        "command",
        "budget",
        "usd",
        "config",
        "layer",
        "env",
        "mcp_servers",
        "args",
        "plugins",
        "enabled",
        "settings",
        "skills",
        "files",
        "name",
        "restore",
        "from",
        "idle",
        "after_s",
        "action",
        "backup",
        "interval_s",
        "attachments",
        "init_timeout_s",
        "other",
    ]);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::btree_map(key.clone(), inner, 0..6).prop_map(
                |map| Value::Object(map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            ),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    /// The walk and the types agree: what the typed reader refuses, the walk has named, and the reverse.
    #[test]
    fn the_walk_and_the_types_agree(mut value in anything()) {
        if let Value::Object(map) = &mut value {
            map.insert("version".into(), Value::from(1));
        }
        let text = serde_json::to_vec(&value).unwrap();
        let read = read(&text);
        prop_assert!(!read.mistakes.iter().any(|m| m.problem.contains("cannot be read")), "{:?}", read.mistakes);
        if let Some(spec) = &read.spec {
            // What was read can be written and read again.
            let again = super::read(&serde_json::to_vec(spec).unwrap());
            prop_assert_eq!(again.spec.as_ref(), Some(spec), "{:?}", again.mistakes);
        }
        if serde_json::from_slice::<Spec>(&text).is_ok() {
            // Stricter than the types only where a number or list is out of range, and where serde takes an array for a
            // struct.
            let strict = ["is empty", "is less than", "is not from", "has more than one", "is an array, not an object"];
            prop_assert!(read.mistakes.iter().all(|m| strict.iter().any(|s| m.problem.contains(s))), "{:?} {}", read.mistakes, value);
        }
    }
}

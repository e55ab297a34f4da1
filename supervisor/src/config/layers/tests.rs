use super::*;
use proptest::prelude::*;
use serde_json::json;

fn layers(value: Value) -> Vec<Layer> {
    serde_json::from_value(value).unwrap()
}

#[test]
fn names_merge_and_the_higher_layer_wins() {
    let merged = merge(
        &layers(json!([
            {"layer":"workspace_user","env":{"A":"wu"},"plugins":{"enabled":{"p@m":false}}},
            {"layer":"platform","env":{"A":"p","B":"p"},"mcp_servers":{"x":{"command":"low"},"z":{"url":"https://z"}},
             "plugins":{"enabled":{"p@m":true,"q@m":true},"marketplaces":{"m":{"source":1}}},
             "skills":[{"name":"s","files":{"SKILL.md":"low","more.md":"low"}}]},
            {"layer":"user","env":{"A":"u","C":"u"},"mcp_servers":{"x":{"command":"high"}},
             "skills":[{"name":"s","files":{"SKILL.md":"high"}}]},
        ])),
        None,
    );
    let env: Vec<_> = merged
        .env
        .iter()
        .map(|(k, v)| (k.as_str(), v.value.expose(), v.layer.as_str()))
        .collect();
    assert_eq!(
        env,
        [
            ("A", "wu", "workspace_user"),
            ("B", "p", "platform"),
            ("C", "u", "user")
        ]
    );
    assert!(
        matches!(&merged.mcp_servers["x"].value, McpServer::Stdio { command, .. } if command == "high")
    );
    assert_eq!(merged.mcp_servers["z"].layer, LayerName::Platform);
    assert!(!merged.plugins["p@m"].value && merged.plugins["q@m"].value);
    // A skill is replaced as a whole: files of two authors make no skill.
    assert_eq!(
        merged.skills["s"].value,
        BTreeMap::from([("SKILL.md".to_owned(), "high".to_owned())])
    );
}

#[test]
fn texts_are_concatenated_low_to_high_with_their_layers() {
    let merged = merge(
        &layers(json!([
            {"layer":"task","instructions":"t\n\n","bashrc":"alias t=1","init_script":"t"},
            {"layer":"team","instructions":"  \n"},
            {"layer":"platform","instructions":"p","bashrc":"alias p=1\n","init_script":"p\n"},
        ])),
        None,
    );
    assert_eq!(
        merged.instructions_text().unwrap(),
        "<!-- instructions: platform -->\np\n\n<!-- instructions: task -->\nt\n"
    );
    assert_eq!(
        merged.bashrc_text().unwrap(),
        "# bashrc: platform\nalias p=1\n\n# bashrc: task\nalias t=1\n"
    );
    assert_eq!(
        merged.init_script_text().unwrap(),
        "# init: platform\np\n\n# init: task\nt\n"
    );
    assert_eq!(merge(&[], None).instructions_text(), None);
}

#[test]
fn root_is_for_the_layers_of_administrators_only() {
    for name in LayerName::ALL {
        let merged = merge(
            &layers(json!([{"layer":name,"init_script":"x","init_user":"root"}])),
            None,
        );
        let expected = if ["platform", "team", "workspace"].contains(&name.as_str()) {
            InitUser::Root
        } else {
            InitUser::User
        };
        assert_eq!(merged.init_scripts[name].user, expected, "{name}");
        let by_spec = merge(
            &layers(json!([{"layer":name,"init_script":"x"}])),
            Some(InitUser::Root),
        );
        assert_eq!(by_spec.init_scripts[name].user, expected, "{name}");
        let own = merge(
            &layers(json!([{"layer":name,"init_script":"x","init_user":"user"}])),
            Some(InitUser::Root),
        );
        assert_eq!(own.init_scripts[name].user, InitUser::User, "{name}");
    }
    let merged = merge(
        &layers(json!([{"layer":"platform","init_script":"x"}])),
        None,
    );
    assert_eq!(
        merged.init_scripts[&LayerName::Platform].user,
        InitUser::User
    );
}

#[test]
fn settings_merge_by_key_into_objects() {
    let merged = merge(
        &layers(json!([
            {"layer":"platform","settings":{"permissions":{"deny":["x"],"allow":["a"]},"theme":"dark","clash":{"old":1},"gone":{"a":1}}},
            {"layer":"workspace","settings":{"clash":5,"gone":null}},
            {"layer":"user","settings":{"permissions":{"allow":["b"]},"clash":{"new":1}}},
        ])),
        None,
    );
    assert_eq!(
        Value::Object(merged.settings()),
        json!({"permissions":{"deny":["x"],"allow":["b"]},"theme":"dark","clash":{"new":1},"gone":null})
    );
    let sources: Vec<_> = merged
        .settings_sources()
        .into_iter()
        .map(|(at, s)| (at, s.layer.as_str()))
        .collect();
    assert!(
        sources.contains(&("/permissions/allow".into(), "user")),
        "{sources:?}"
    );
    assert!(sources.contains(&("/permissions/deny".into(), "platform")));
    assert!(
        sources.contains(&("/clash/new".into(), "user")) && sources.len() == 5,
        "{sources:?}"
    );
}

/// The plain rule, written independently: fold low to high, objects into objects, else replace.
fn folded(low: &mut Value, high: &Value) {
    match (low, high) {
        (Value::Object(low), Value::Object(high)) => {
            for (key, value) in high {
                match low.get_mut(key) {
                    Some(old) => folded(old, value),
                    None => {
                        low.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (low, high) => *low = high.clone(),
    }
}

fn settings() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![
        (0..3u8).prop_map(Value::from),
        Just(Value::Null),
        Just(json!([]))
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        proptest::collection::btree_map("[a-c]", inner, 0..3)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    });
    proptest::collection::btree_map("[a-c]", value, 0..3).prop_map(|map| map.into_iter().collect())
}

fn layer(name: LayerName) -> impl Strategy<Value = Layer> {
    let map = || proptest::collection::btree_map("[A-C]", "[a-z]{0,2}", 0..3);
    (
        map(),
        map(),
        proptest::option::of("[a-z]{1,3}"),
        settings(),
        map(),
    )
        .prop_map(move |(env, files, text, settings, skills)| Layer {
            env: env.into_iter().map(|(k, v)| (k, v.into())).collect(),
            env_files: files.into_iter().map(|(k, v)| (k, v.into())).collect(),
            instructions: text.clone(),
            init_script: text.clone(),
            init_user: text.as_ref().map(|_| InitUser::Root),
            bashrc: text,
            skills: skills
                .into_iter()
                .map(|(name, text)| whim_wire::spec::Skill {
                    name,
                    files: BTreeMap::from([("SKILL.md".into(), text)]),
                })
                .collect(),
            settings,
            ..Layer::empty(name)
        })
}

/// Some of the six layers, each at most once, in any order.
fn some_layers() -> impl Strategy<Value = Vec<Layer>> {
    proptest::sample::subsequence(LayerName::ALL.to_vec(), 0..=6)
        .prop_shuffle()
        .prop_flat_map(|names| names.into_iter().map(layer).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn the_order_in_the_spec_does_not_matter(layers in some_layers(), rotate in 0usize..6) {
        let mut other = layers.clone();
        if !other.is_empty() {
            let middle = rotate % other.len();
            other.rotate_left(middle);
            other.reverse();
        }
        prop_assert_eq!(merge(&layers, None), merge(&other, None));
    }

    #[test]
    fn merging_again_changes_nothing(layers in some_layers()) {
        let once = merge(&layers, None);
        prop_assert_eq!(once.clone().merged(once.clone()), once.clone());
        for layer in &layers {
            prop_assert_eq!(once.clone().merged(Configuration::of(layer, None)), once.clone());
        }
    }

    #[test]
    fn merging_in_steps_is_merging_at_once(layers in some_layers(), cut in 0usize..7) {
        let (left, right) = layers.split_at(cut.min(layers.len()));
        prop_assert_eq!(merge(left, None).merged(merge(right, None)), merge(&layers, None));
    }

    #[test]
    fn settings_are_the_plain_fold(mut layers in some_layers()) {
        let merged = merge(&layers, None).settings();
        layers.sort_by_key(|layer| layer.layer);
        let mut expected = json!({});
        for layer in &layers {
            folded(&mut expected, &Value::Object(layer.settings.clone()));
        }
        prop_assert_eq!(Value::Object(merged), expected);
    }

    #[test]
    fn every_source_is_the_value(layers in some_layers()) {
        let merged = merge(&layers, None);
        let settings = Value::Object(merged.settings());
        for (pointer, source) in merged.settings_sources() {
            prop_assert_eq!(settings.pointer(&pointer), Some(&source.value), "{}", pointer);
        }
    }
}

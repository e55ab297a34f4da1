//! Which plugins are installed, and how.

use super::*;
use crate::agents::plugins::is_installed;

#[test]
fn markets_are_added_before_what_they_sell_and_what_is_off_is_left() {
    let market = |source| json!({"source": source});
    let setup = Setup {
        plugins: Plugins {
            enabled: [
                ("a@hub".to_owned(), true),
                ("b@near".to_owned(), true),
                ("c@official".to_owned(), true),
                ("d@hub".to_owned(), false),
            ]
            .into(),
            marketplaces: [
                (
                    "hub".to_owned(),
                    market(json!({"source": "github", "repo": "o/r"})),
                ),
                (
                    "near".to_owned(),
                    market(json!({"source": "directory", "path": "/m"})),
                ),
            ]
            .into(),
        },
        ..setup()
    };
    let said: Vec<String> = of(AgentKind::Claude)
        .plugins(&setup)
        .into_iter()
        .flat_map(|plugin| plugin.calls)
        .map(|call| call.join(" "))
        .collect();
    assert_eq!(
        said,
        [
            "plugin marketplace add -- o/r",
            "plugin install --scope user -- a@hub",
            "plugin marketplace add -- /m",
            "plugin install --scope user -- b@near",
            "plugin install --scope user -- c@official",
        ]
    );
    assert!(of(AgentKind::Codex).plugins(&setup).is_empty());
}

#[test]
fn what_is_installed_is_known() {
    let file = br#"{"version":2,"plugins":{"a@hub":[{"scope":"user"}],"b@hub":[]}}"#;
    assert!(is_installed(file, "a@hub"));
    assert!(!is_installed(file, "b@hub"));
    assert!(!is_installed(b"{", "a@hub"));
}

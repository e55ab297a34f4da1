use super::*;
use proptest::prelude::*;
use std::process::Command;

fn values(text: &str) -> Vec<(String, String)> {
    let (assignments, mistakes) = parse(text);
    assert_eq!(mistakes, []);
    let (values, mistakes) = evaluate(&assignments, |name| {
        (name == "OUTER").then(|| "outer".to_owned())
    });
    assert_eq!(mistakes, []);
    values.into_iter().collect()
}

fn value(text: &str) -> String {
    let values = values(text);
    assert_eq!(values.len(), 1, "{text:?}: {values:?}");
    values.into_iter().next().unwrap().1
}

#[test]
fn each_form_has_its_value() {
    for (text, expected) in [
        ("A=1", "1"),
        ("A=", ""),
        ("  A = 1  ", "1"),
        ("export A=1", "1"),
        ("export\tA=1", "1"),
        ("export=1", "1"),
        ("\u{feff}A=1\r\n", "1"),
        ("A=a b  c   # comment", "a b  c"),
        ("A=a#b", "a#b"),
        ("A=#b", "#b"),
        ("A=  # nothing", ""),
        ("A='a $b \\n \"'", "a $b \\n \""),
        ("A='x\ny' # c", "x\ny"),
        (r#"A="a\n\t\"\\\$x\`\d""#, "a\n\t\"\\$x`\\d"),
        ("A=\"x\r\ny\"", "x\ny"),
        ("A=\"x\\\ny\"", "xy"),
        ("A='#'", "#"),
        ("A=$(touch /tmp/x)`id`", "$(touch /tmp/x)`id`"),
        ("A=\"$(id)\"", "$(id)"),
        ("A=it's", "it's"),
        ("A=a=b=c", "a=b=c"),
        ("A=$", "$"),
        ("A=$1", "$1"),
        (r"A=\$OUTER", "$OUTER"),
        (r"A=c:\dir", r"c:\dir"),
        ("A='$OUTER'", "$OUTER"),
        ("A=$OUTER.x", "outer.x"),
        ("A=\"<${OUTER}>\"", "<outer>"),
        ("A=${NONE}x$NONE", "x"),
        ("A=${NONE:-d e}", "d e"),
        ("A=\"${NONE:-d}\"", "d"),
        ("A=${OUTER:-d}", "outer"),
        ("A=${OUTER", "${OUTER"),
        ("A=${OUTER:x}", "${OUTER:x}"),
        ("A=${}", "${}"),
        ("A=ä $OUTERä", "ä outerä"),
    ] {
        assert_eq!(value(text), expected, "{text:?}");
    }
}

#[test]
fn later_lines_see_earlier_ones_and_win() {
    assert_eq!(
        values("A=1\nB=$A$A\nA=${B}3\n"),
        [("A".into(), "113".into()), ("B".into(), "11".into())]
    );
    assert_eq!(value("OUTER=$OUTER:more"), "outer:more");
    assert_eq!(
        values("E=\nA=${E:-x}\nB=${E-x}")
            .into_iter()
            .map(|(_, v)| v)
            .collect::<Vec<_>>(),
        ["x", "", ""]
    );
}

#[test]
fn every_mistake_is_told_with_its_line_and_the_rest_is_read() {
    let (assignments, mistakes) =
        parse("A=1\nno equals\n\n1X=2\nB=\"x\ny\"z\nC='open\nD=4\nE=\"open\n");
    assert_eq!(
        assignments
            .iter()
            .map(|a| (a.name.as_str(), a.line))
            .collect::<Vec<_>>(),
        [("A", 1), ("D", 8)]
    );
    assert_eq!(
        mistakes.iter().map(|m| m.line).collect::<Vec<_>>(),
        [2, 4, 5, 7, 9]
    );
    assert!(mistakes[0].problem.contains("no `=`"), "{mistakes:?}");
}

#[test]
fn a_stray_line_of_a_secret_is_not_shown() {
    let (_, mistakes) = parse("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\nkgwggSjA+gEA==\n");
    assert_eq!(mistakes.len(), 2);
    assert!(!format!("{mistakes:?}").contains("MIIE") && !format!("{mistakes:?}").contains("kgw"));
}

#[test]
fn doubling_ends_in_a_mistake() {
    let mut text = "A=0123456789abcdef\n".to_owned();
    text.push_str(&"A=$A$A\n".repeat(40));
    let (values, mistakes) = evaluate(&parse(&text).0, |_| None);
    assert!(
        mistakes.len() > 20 && values["A"].len() <= names::MAX_VARIABLE,
        "{}",
        mistakes.len()
    );

    let long = "x".repeat(100_000);
    let text: String = (0..12).map(|n| format!("A{n}={long}\n")).collect();
    let (values, mistakes) = evaluate(&parse(&text).0, |_| None);
    assert_eq!((values.len(), mistakes.len()), (10, 1));
}

#[test]
fn files_are_read_dot_env_first() {
    let mut names = [".env.local", "b.env", ".env", ".ENV", ".env.a"];
    sort_names(&mut names);
    assert_eq!(names, [".env", ".ENV", ".env.a", ".env.local", "b.env"]);
}

/// What a real shell has in its variable after sourcing the text.
fn sourced(shell: &str, name: &str) -> String {
    let script = format!("set -eu\n{shell}\nprintf %s \"${name}\"");
    let output = Command::new("sh")
        .arg("-c")
        .arg(script)
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

proptest! {
    #[test]
    fn anything_is_read_in_bounds(text in "[ A-C=\\n\\r'\"\\\\${}:#`xä-]{0,60}") {
        let (assignments, mistakes) = parse(&text);
        let (values, late) = evaluate(&assignments, |_| None);
        prop_assert!(late.is_empty());
        prop_assert!(values.len() <= assignments.len());
        let lines = text.split('\n').count();
        prop_assert!(assignments.iter().map(|a| a.line).chain(mistakes.iter().map(|m| m.line)).all(|l| (1..=lines).contains(&l)));
    }

    #[test]
    fn any_text_is_survived(text: String) {
        prop_assert!(parse(&text).0.len() <= text.len());
    }

    /// The two quoting styles are each other's inverse.
    #[test]
    fn a_quoted_value_comes_back(text in "[^\\r\\x00]{0,40}") {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
        prop_assert_eq!(&value(&format!("A=\"{escaped}\"")), &text);
        if !text.contains('\'') {
            prop_assert_eq!(&value(&format!("A='{text}' # c")), &text);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn a_shell_that_sources_the_rendering_has_the_value_and_runs_nothing(text in "[^\\x00]{0,30}") {
        prop_assert_eq!(sourced(&to_shell([("A", text.as_str())]), "A"), text);
    }
}

use super::*;
use proptest::prelude::*;

fn run(arguments: &[&str]) -> (RunOptions, Vec<String>) {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    match parse(&arguments) {
        CommandLine::Run(options, mistakes) => {
            (*options, mistakes.iter().map(ToString::to_string).collect())
        }
        CommandLine::Help(_) => panic!("help"),
    }
}

#[test]
fn flags_and_prompt_are_read() {
    let (options, mistakes) = run(&["--repo", "/r", "--wait-for-spec", "--ui-port=0", "do it"]);
    assert_eq!(mistakes, Vec::<String>::new());
    assert_eq!(options.repo.as_deref(), Some("/r"));
    assert_eq!(options.ui_port.as_deref(), Some("0"));
    assert_eq!(options.prompt.as_deref(), Some("do it"));
    assert!(options.wait_for_spec);
    assert_eq!(
        run(&["--", "--strange prompt"]).0.prompt.as_deref(),
        Some("--strange prompt")
    );
}

#[test]
fn every_mistake_of_the_line_is_told_and_the_rest_is_read() {
    let (options, mistakes) = run(&[
        "--bugdet-usd",
        "5",
        "--agent",
        "codex",
        "--nonsense=hunter2",
        "--model",
        "a",
        "--model",
        "b",
        "--wait-for-spec=no",
        "prompt",
        "more",
        "--branch",
    ]);
    assert_eq!(options.agent.as_deref(), Some("codex"));
    let all = mistakes.join("\n");
    assert_eq!(mistakes.len(), 6, "{all}");
    for part in [
        "--bugdet-usd: is no option of whim run; did you mean --budget-usd?",
        "--nonsense: is no option",
        "--model: is given twice",
        "--branch: has no value",
        "--wait-for-spec: takes no value",
        "[PROMPT] = \"more\": is followed by another argument",
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
    assert!(!all.contains("hunter2"));
}

#[test]
fn help_lists_every_flag_and_every_variable() {
    let CommandLine::Help(help) = parse(&["--help".into()]) else {
        panic!("no help")
    };
    // Lines are wrapped anywhere.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for variable in variables::VARIABLES {
        match variable.flag {
            Some(flag) => {
                assert!(
                    help.contains(flag) && help.contains(&format!("[env: {}", variable.name)),
                    "{variable:?}"
                );
            }
            None => assert!(
                help.contains(variable.name) && help.contains(variable.meaning),
                "{variable:?}"
            ),
        }
    }
    assert!(help.contains("Examples:"));
    let flags: Vec<String> = RunOptions::command()
        .get_arguments()
        .filter_map(|a| a.get_long().map(|long| format!("--{long}")))
        .collect();
    for flag in flags.iter().filter(|flag| *flag != "--help") {
        assert!(
            variables::VARIABLES.iter().any(|v| v.flag == Some(flag)),
            "{flag} has no variable"
        );
    }
}

proptest! {
    #[test]
    fn any_line_is_survived(arguments in proptest::collection::vec("-{0,3}[a-z=]{0,3}|--(repo|model|spec|wait-for-spec)(=x)?|x", 0..7)) {
        let arguments: Vec<OsString> = arguments.iter().filter(|a| *a != "-h").map(OsString::from).collect();
        if let CommandLine::Run(_, mistakes) = parse(&arguments) {
            prop_assert!(mistakes.len() <= arguments.len() + 1);
        }
    }
}

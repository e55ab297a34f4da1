//! The examples under `deploy/`: they parse, what they name exists, and their times fit together.
//!
//! What Docker, Kubernetes and Fly make of them is not tested here: no machine that runs the tests has all of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;
use whim::config::options::{self, CommandLine};
use whim::config::settings::PORTS;
use whim::config::variables::VARIABLES;

/// `whim backup now` has returned by then, in seconds.
const PRE_STOP: u64 = 60;
/// Paths of probes that need no token.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];
const INSTRUCTIONS: [&str; 17] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Every file below `deploy/` whose name ends so, with its text.
fn files(end: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut directories = vec![root().join("deploy")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.to_str().unwrap().ends_with(end) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no {end} under deploy/");
    found
}

fn documents(text: &str) -> Vec<Value> {
    serde_norway::Deserializer::from_str(text)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .collect()
}

fn manifest(name: &str) -> Vec<Value> {
    documents(&std::fs::read_to_string(root().join("deploy").join(name)).unwrap())
}

fn known_variable(name: &str) {
    let plain = name.strip_suffix("_FILE").unwrap_or(name);
    let known = VARIABLES
        .iter()
        .any(|known| known.name == name || known.name == plain);
    assert!(known, "{name} is no variable of whim's");
}

/// Arguments of `whim run` that it takes.
fn run_takes(arguments: &[&str]) {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    match options::parse(&arguments) {
        CommandLine::Run(_, mistakes) => assert_eq!(mistakes, [], "{arguments:?}"),
        CommandLine::Help(_) => panic!("{arguments:?} ask for help"),
    }
}

fn words(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect()
}

/// `30s` in seconds.
fn seconds(text: &str) -> u64 {
    text.strip_suffix('s').unwrap().parse().unwrap()
}

/// Every pod of a manifest.
fn pods(value: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    if value.get("containers").is_some() {
        found.push(value);
    }
    if let Some(members) = value.as_object() {
        found.extend(members.values().flat_map(pods));
    }
    found
}

#[test]
fn every_manifest_parses() {
    for (path, text) in files(".yaml") {
        let all = documents(&text);
        assert!(
            all.iter().all(Value::is_object) && !all.is_empty(),
            "{}",
            path.display()
        );
    }
    for (path, text) in files(".toml") {
        let parsed: Result<toml_edit::DocumentMut, _> = text.parse();
        assert!(parsed.is_ok(), "{}: {parsed:?}", path.display());
    }
    for (path, _) in files(".sh") {
        let checked = std::process::Command::new("/bin/sh")
            .arg("-n")
            .arg(&path)
            .status()
            .unwrap();
        assert!(checked.success(), "{}", path.display());
    }
}

#[test]
fn pods_are_probed_where_whim_answers_and_have_time_to_end() {
    let mut seen = 0;
    for name in ["kubernetes/pod.yaml", "kubernetes/warm.yaml"] {
        let all = manifest(name);
        for document in &all {
            assert!(
                document["apiVersion"].is_string() && document["kind"].is_string(),
                "{name}"
            );
        }
        for pod in all.iter().flat_map(pods) {
            seen += 1;
            let container = &pod["containers"][0];
            run_takes(&words(&container["args"]));
            let env = container["env"].as_array().unwrap();
            let mut grace = None;
            for variable in env {
                let named = variable["name"].as_str().unwrap();
                known_variable(named);
                if named == "WHIM_GRACE_S" {
                    grace = variable["value"].as_str().unwrap().parse::<u64>().ok();
                }
            }
            let period = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
            assert!(period > PRE_STOP + grace.unwrap(), "{name}");
            let pre_stop = words(&container["lifecycle"]["preStop"]["exec"]["command"]);
            assert_eq!(pre_stop, ["whim", "backup", "now"]);
            let platform = container["ports"].as_array().unwrap();
            let platform = platform
                .iter()
                .find(|port| port["name"] == "platform")
                .unwrap();
            assert_eq!(platform["containerPort"], PORTS.backup);
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let probe = &container[probe]["httpGet"];
                assert_eq!(probe["port"], "platform", "{name}");
                assert!(PROBES.contains(&probe["path"].as_str().unwrap()), "{name}");
            }
            // Stopped agents and failed boots are no reason to kill what somebody wants to look at.
            assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
        }
        let secrets = all.iter().filter(|document| document["kind"] == "Secret");
        for secret in secrets {
            secret["stringData"]
                .as_object()
                .unwrap()
                .keys()
                .for_each(|name| known_variable(name));
        }
    }
    assert_eq!(seen, 2);
}

#[test]
fn compose_waits_longer_than_the_grace() {
    let compose = manifest("docker/compose.yaml");
    let task = &compose[0]["services"]["task"];
    run_takes(&words(&task["command"]));
    let environment = task["environment"].as_object().unwrap();
    environment.keys().for_each(|name| known_variable(name));
    let grace: u64 = environment["WHIM_GRACE_S"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(seconds(task["stop_grace_period"].as_str().unwrap()) > grace);
    assert_eq!(
        words(&task["pre_stop"][0]["command"]),
        ["whim", "backup", "now"]
    );
    let volumes = compose[0]["volumes"].as_object().unwrap();
    for mount in words(&task["volumes"]) {
        let (volume, _) = mount.split_once(':').unwrap();
        assert!(volumes.contains_key(volume), "{mount}");
    }
    let published = words(&task["ports"])[0];
    assert!(
        published.ends_with(&format!(":{}", PORTS.ui)),
        "{published}"
    );
    assert!(
        published.starts_with("127.0.0.1:"),
        "the page has no TLS of its own"
    );
}

#[test]
fn fly_sends_term_and_waits_longer_than_the_grace() {
    let text = std::fs::read_to_string(root().join("deploy/fly/fly.toml")).unwrap();
    let fly: toml_edit::DocumentMut = text.parse().unwrap();
    assert_eq!(fly["kill_signal"].as_str(), Some("SIGTERM"));
    let environment = fly["env"].as_table().unwrap();
    environment
        .iter()
        .for_each(|(name, _)| known_variable(name));
    let grace: u64 = environment["WHIM_GRACE_S"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let timeout = seconds(fly["kill_timeout"].as_str().unwrap());
    assert!(
        timeout > grace && timeout <= 300,
        "Fly waits five minutes at most"
    );
    let arguments = fly["processes"]["task"].as_str().unwrap();
    run_takes(&arguments.split(' ').collect::<Vec<_>>());
    let page = fly["http_service"]["internal_port"].as_integer();
    assert_eq!(page, Some(i64::from(PORTS.ui)));
    let check = &fly["checks"]["supervisor"];
    assert_eq!(check["port"].as_integer(), Some(i64::from(PORTS.backup)));
    assert!(PROBES.contains(&check["path"].as_str().unwrap()));
}

/// A Dockerfile's instructions: the word, and the rest with continued lines joined.
fn instructions(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut line = String::new();
    for part in text
        .lines()
        .filter(|part| !part.trim_start().starts_with('#'))
    {
        match part.trim_end().strip_suffix('\\') {
            Some(begun) => line.push_str(begun),
            None => {
                line.push_str(part);
                if let Some((word, rest)) = line.trim().split_once(char::is_whitespace) {
                    found.push((word.to_owned(), rest.trim().to_owned()));
                } else {
                    assert!(
                        line.trim().is_empty(),
                        "an instruction without anything: {line}"
                    );
                }
                line.clear();
            }
        }
    }
    assert!(line.is_empty(), "the last line is continued by nothing");
    found
}

#[test]
fn images_start_whim_as_root_and_stop_it_by_term() {
    let mut all = files(".Dockerfile");
    assert_eq!(all.len(), 4);
    let own = root().join("Dockerfile");
    let text = std::fs::read_to_string(&own).unwrap();
    all.push((own, text));
    for (path, text) in all {
        let path = path.display();
        let all = instructions(&text);
        let last = |word: &str| {
            let found = all.iter().rev().find(|(own, _)| own == word);
            found.map(|(_, rest)| rest.as_str())
        };
        for (word, rest) in &all {
            assert!(INSTRUCTIONS.contains(&word.as_str()), "{path}: {word}");
            if rest.starts_with('[') {
                let words: Result<Vec<String>, _> = serde_json::from_str(rest);
                assert!(words.is_ok(), "{path}: {word} {rest}");
            }
        }
        let first = all.iter().find(|(word, _)| word != "ARG").unwrap();
        assert_eq!(first.0, "FROM", "{path}");
        assert_eq!(last("ENTRYPOINT"), Some(r#"["whim", "run"]"#), "{path}");
        assert_eq!(last("STOPSIGNAL"), Some("SIGTERM"), "{path}");
        assert!(
            last("HEALTHCHECK")
                .unwrap()
                .ends_with(r#"CMD ["whim", "status"]"#),
            "{path}"
        );
        assert_eq!(
            last("USER"),
            None,
            "{path}: whim needs root to keep the agents apart from it"
        );
        for port in last("EXPOSE").unwrap().split(' ') {
            let port: u16 = port.parse().unwrap();
            assert!(
                [PORTS.local, PORTS.backup, PORTS.ui].contains(&port),
                "{path}: {port}"
            );
        }
    }
}

//! The environment variables that whim reads: one table for reading, help, warnings and what is kept from agents.

/// A variable of `whim run`.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    pub name: &'static str,
    /// The flag that goes before it.
    pub flag: Option<&'static str>,
    /// A credential: never shown, and `<name>_FILE` may name a file that holds it.
    pub secret: bool,
    pub meaning: &'static str,
}

const fn flagged(name: &'static str, flag: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        flag: Some(flag),
        secret: false,
        meaning,
    }
}

const fn plain(name: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        flag: None,
        secret: false,
        meaning,
    }
}

const fn secret(name: &'static str, meaning: &'static str) -> Variable {
    Variable {
        name,
        flag: None,
        secret: true,
        meaning,
    }
}

/// All of them, in the order of the help.
pub const VARIABLES: &[Variable] = &[
    flagged("WHIM_ROOT", "--root", "prefix of every path of the layout"),
    flagged(
        "WHIM_SPEC",
        "--spec",
        "the task: a file, or the JSON itself",
    ),
    flagged(
        "WHIM_WAIT_FOR_SPEC",
        "--wait-for-spec",
        "take the task once from PUT /v1/spec",
    ),
    flagged("WHIM_TASK_ID", "--task-id", "id of the task"),
    flagged("WHIM_REPO_URL", "--repo", "repository to clone"),
    flagged(
        "WHIM_SOURCE_BRANCH",
        "--source-branch",
        "where the work starts",
    ),
    flagged("WHIM_BRANCH", "--branch", "new branch"),
    flagged("WHIM_AGENT", "--agent", "agent CLI"),
    flagged(
        "WHIM_AGENT_COMMAND",
        "--agent-command",
        "argv of a custom agent, a JSON array",
    ),
    flagged("WHIM_MODE", "--mode", "how the session runs"),
    flagged("WHIM_MODEL", "--model", "model, in the agent's words"),
    flagged(
        "WHIM_PERMISSION_MODE",
        "--permission-mode",
        "what the agent may do without asking",
    ),
    flagged(
        "WHIM_EFFORT",
        "--effort",
        "reasoning effort, in the agent's words",
    ),
    flagged("WHIM_PROMPT", "[PROMPT]", "first prompt"),
    flagged("WHIM_PROVIDER", "--provider", "model provider"),
    flagged(
        "WHIM_UPSTREAM_URL",
        "--upstream",
        "base URL of the provider, without /v1",
    ),
    plain(
        "WHIM_UPSTREAM_WEBSOCKET",
        "1: the upstream speaks the WebSocket of the Responses API, 0: it does not [default: only api.openai.com does]",
    ),
    flagged("WHIM_BUDGET_USD", "--budget-usd", "hard cap of the task"),
    flagged("WHIM_CAP_TOKENS", "--cap-tokens", "tokens of the task"),
    flagged(
        "WHIM_CAP_RPM",
        "--cap-requests-per-minute",
        "model calls within a minute",
    ),
    flagged(
        "WHIM_CAP_MINUTES",
        "--cap-minutes",
        "minutes of model calls",
    ),
    flagged(
        "WHIM_UNKNOWN_MODEL",
        "--unknown-model",
        "what a cap does about a model without a price",
    ),
    flagged("WHIM_PRICES", "--prices", "price overrides"),
    flagged(
        "WHIM_IDLE_AFTER_S",
        "--idle-after",
        "seconds until idle, 0 = never",
    ),
    flagged("WHIM_IDLE_ACTION", "--idle-action", "what happens then"),
    flagged("WHIM_BACKUP_URL", "--backup", "store of the history"),
    flagged("WHIM_BACKEND_URL", "--backend", "the platform's API"),
    flagged("WHIM_GRACE_S", "--grace", "seconds an ordered end may take"),
    flagged(
        "WHIM_GENERATION_PORT",
        "--generation-port",
        "generation proxy",
    ),
    flagged("WHIM_LOCAL_PORT", "--local-port", "proxy to dev servers"),
    flagged("WHIM_BACKUP_PORT", "--backup-port", "machine-facing API"),
    flagged("WHIM_UI_PORT", "--ui-port", "page and terminals"),
    flagged("WHIM_BIND", "--bind", "address of all ports but 3001"),
    flagged(
        "WHIM_PREVIEW_URL",
        "--preview-url",
        "address of previews, with {port}",
    ),
    flagged(
        "WHIM_PREVIEW_LIMITS",
        "--preview-limits",
        "connections, sizes and times of previews",
    ),
    flagged("WHIM_LOG", "--log", "log filter"),
    plain("WHIM_LOG_FORMAT", "text or json [default: text]"),
    plain(
        "WHIM_USER",
        "user of agents, shells, init.sh and hooks [default: node]",
    ),
    plain(
        "WHIM_PASS_ENV",
        "NAME,…: let these reach agents although whim uses them",
    ),
    plain(
        "WHIM_BACKUP_RECORDINGS",
        "1: terminal recordings leave the container with the backups [default: 0]",
    ),
    plain(
        "WHIM_BACKUP_CODE",
        "0: the work tree (not pushed, not committed, not tracked) is not saved [default: 1]",
    ),
    plain(
        "WHIM_NO_NEW_PRIVS",
        "1: agents cannot gain privileges; sudo and ping stop working [default: 0]",
    ),
    secret("ANTHROPIC_API_KEY", "credential of anthropic"),
    secret(
        "CLAUDE_CODE_OAUTH_TOKEN",
        "credential of anthropic: a subscription's token",
    ),
    secret("OPENAI_API_KEY", "credential of openai"),
    secret("OPENROUTER_API_KEY", "credential of openrouter"),
    secret(
        "WHIM_PROVIDER_KEY",
        "credential of the chosen provider, before the four above",
    ),
    secret("WHIM_INTERNAL_API_TOKEN", "bearer for --backend"),
    secret(
        "WHIM_CONTROL_TOKEN",
        "bearer of ports 7681 and 8081 [default: random]",
    ),
    secret(
        "WHIM_PREVIEW_SECRET",
        "the router's secret for previews [default: random]",
    ),
];

/// Names that belong to whim elsewhere (other commands, the container's documented interface, what is set for agents):
/// no typing errors.
pub const ELSEWHERE: &[&str] = &[
    "WHIM_ATTACHMENTS",
    "WHIM_MCP_TOKEN",
    "WHIM_SESSION",
    "WHIM_SOCKET",
];

/// The credential that a variable or its `_FILE` form gives.
pub fn secret_named(name: &str) -> Option<&'static Variable> {
    let plain = name.strip_suffix("_FILE").unwrap_or(name);
    VARIABLES
        .iter()
        .find(|variable| variable.secret && (variable.name == name || variable.name == plain))
}

/// Whether `whim run` knows the variable.
pub fn is_known(name: &str) -> bool {
    ELSEWHERE.contains(&name)
        || secret_named(name).is_some()
        || VARIABLES.iter().any(|variable| variable.name == name)
}

/// The end of `whim run --help`.
pub fn help() -> String {
    use std::fmt::Write as _;
    let mut out = String::from(
        "Each flag goes before its variable, the variable before the spec, the spec before the default. An empty \
         variable counts as unset.\n\nVariables without a flag:\n",
    );
    for variable in VARIABLES.iter().filter(|variable| variable.flag.is_none()) {
        let name = if variable.secret {
            format!("{}[_FILE]", variable.name)
        } else {
            variable.name.to_owned()
        };
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "  {name:<33} {}", variable.meaning);
    }
    out.push_str(
        "  AWS_*, GOOGLE_*, AZURE_*          credentials of the store that --backup names\n\
         \x20 HTTPS_PROXY, HTTP_PROXY, NO_PROXY outbound proxy to provider and --backend\n\
         \x20 SSL_CERT_FILE                     authorities (PEM) beside the public ones\n\
         \n\
         …_FILE names a file that holds the credential. Credentials stay in the supervisor; agents never see them.\n\
         \n\
         Examples:\n\
         \x20 whim run --repo https://github.com/acme/app --branch fix-login \"Fix the login test\"\n\
         \x20 whim run --spec task.json --budget-usd 5 --mode oneshot\n\
         \x20 WHIM_SPEC='{\"version\":1,\"task\":{\"id\":\"ww-12\"}}' whim run --backup s3://bucket/history\n\
         \x20 whim run --root ./here --bind 127.0.0.1 --agent custom --agent-command '[\"bash\"]'\n\
         \x20 whim run --wait-for-spec        # a warm container; the task comes with PUT /v1/spec\n",
    );
    out
}

//! From flags, variables and spec to [`Settings`]: flag over variable over spec over default.
//!
//! Nothing here stops at the first mistake. The result can be made again when a spec arrives later (`PUT /v1/spec`), or
//! when a new supervisor reads the spec of its predecessor; credential files are read anew each time.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Display;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use whim_wire::spec::{
    AgentKind, IdleAction, Mode, PermissionMode, ProviderKind, Sensitive, Spec, Task, Usd, UsdError,
};

use super::document::{self, nearest};
use super::mistake::{Invalid, Mistake, Place};
use super::options::{CommandLine, RunOptions};
use super::settings::{self, Settings, UnknownModel, Variables};
use super::values::{self, StoreKind};
use super::variables::{self, VARIABLES};
use super::{Secret, environment, layers, names, validate};

/// Largest file with a credential, in bytes.
const MAX_SECRET_FILE: u64 = 64 * 1024;
/// Shortest control token that is not warned about: 128 bits as text.
const STRONG_TOKEN: usize = 16;

/// What flags and variables say; a spec makes it whole.
#[derive(Clone, Debug)]
pub struct Given {
    options: RunOptions,
    variables: Variables,
    mistakes: Vec<Mistake>,
}

/// Where the spec is.
#[derive(Clone, PartialEq, Eq)]
pub enum SpecSource {
    Stdin,
    Inline(String),
    File(PathBuf),
}

impl std::fmt::Debug for SpecSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdin => f.write_str("Stdin"),
            Self::Inline(text) => write!(f, "Inline(<hidden, {} bytes>)", text.len()),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

/// Settings, and what is doubtful about them.
#[derive(Debug)]
pub struct Resolved {
    pub settings: Settings,
    pub warnings: Vec<Mistake>,
}

/// What `whim run` shall do.
#[derive(Debug)]
pub enum Request {
    /// Print this and end with 0.
    Help(String),
    Run(Box<Resolved>),
}

/// Reads everything that was given at start: arguments after `whim run`, the container's environment, and the spec they
/// name (from `stdin` for `-`, to its end).
///
/// # Errors
/// All mistakes at once; [`Invalid::exit_code`] is 64 or 65.
pub fn read(
    arguments: &[OsString],
    variables: Variables,
    stdin: &mut dyn Read,
) -> Result<Request, Invalid> {
    let given = match Given::parse(arguments, variables) {
        Ok(given) => given,
        Err(help) => return Ok(Request::Help(help)),
    };
    let text = match given
        .spec_source()
        .map(|source| source.read(stdin))
        .transpose()
    {
        Ok(text) => text,
        Err(unreadable) => {
            let mut mistakes = vec![unreadable];
            if let Err(invalid) = given.resolve(None) {
                mistakes.extend(invalid.mistakes);
            }
            return Err(Invalid { mistakes });
        }
    };
    given
        .resolve(text.as_deref())
        .map(|resolved| Request::Run(Box::new(resolved)))
}

impl SpecSource {
    /// The bytes of the spec.
    ///
    /// # Errors
    /// Unreadable, no regular file, or larger than [`document::MAX_BYTES`].
    pub fn read(&self, stdin: &mut dyn Read) -> Result<Vec<u8>, Mistake> {
        let failed =
            |what: String, remedy: &str| Mistake::new(Place::Spec(String::new()), what, remedy);
        let limit = document::MAX_BYTES as u64;
        let read = match self {
            Self::Inline(text) => return Ok(text.clone().into_bytes()),
            Self::Stdin => read_bounded(stdin, limit),
            Self::File(path) => {
                open_regular(path).and_then(|mut file| read_bounded(&mut file, limit))
            }
        };
        read.map_err(|error| {
            let from = match self {
                Self::File(path) => format!("file {}", super::printable(&path.to_string_lossy())),
                _ => "standard input".to_owned(),
            };
            match error {
                FileError::Io(error) => failed(
                    format!("cannot be read from {from}: {}", reason(&error)),
                    "name a readable file",
                ),
                FileError::NotRegular => failed(
                    format!("is to be read from {from}, which is no regular file"),
                    "use `-` and a pipe",
                ),
                FileError::TooLarge => failed(
                    format!("from {from} is larger than 32 MiB"),
                    "leave large files to attachments",
                ),
            }
        })
    }
}

enum FileError {
    Io(std::io::Error),
    NotRegular,
    TooLarge,
}

impl From<std::io::Error> for FileError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// The kind of an error without the path, which the message has already.
fn reason(error: &std::io::Error) -> String {
    error.kind().to_string()
}

fn open_regular(path: &Path) -> Result<std::fs::File, FileError> {
    // Without O_NONBLOCK, opening a FIFO would wait for its writer.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(FileError::NotRegular)
    }
}

fn read_bounded(from: &mut dyn Read, limit: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    from.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        Err(FileError::TooLarge)
    } else {
        Ok(bytes)
    }
}

impl Given {
    /// Reads the command line; mistakes in it come out with all others. `Err`: the text of `--help`.
    pub fn parse(arguments: &[OsString], variables: Variables) -> Result<Self, String> {
        match super::options::parse(arguments) {
            CommandLine::Help(text) => Err(text),
            CommandLine::Run(options, mistakes) => Ok(Self {
                options: *options,
                variables,
                mistakes,
            }),
        }
    }

    /// Where the spec is; `None`: there is none (yet).
    pub fn spec_source(&self) -> Option<SpecSource> {
        let mut unheard = Reader::new(&self.options, &self.variables);
        let text = self
            .options
            .spec
            .clone()
            .or_else(|| unheard.variable("WHIM_SPEC"))?;
        Some(match text.trim_start() {
            "-" => SpecSource::Stdin,
            inline if inline.starts_with('{') => SpecSource::Inline(text),
            _ => SpecSource::File(PathBuf::from(text)),
        })
    }

    /// Decides every value. `spec`: the text of the spec, if there is one by now.
    ///
    /// # Errors
    /// All mistakes of flags, variables and spec.
    pub fn resolve(&self, spec: Option<&[u8]>) -> Result<Resolved, Invalid> {
        let mut reader = Reader::new(&self.options, &self.variables);
        reader.mistakes.extend(self.mistakes.iter().cloned());
        let mut typed = None;
        if let Some(text) = spec {
            let read = document::read(text);
            reader.mistakes.extend(read.mistakes);
            reader.warnings.extend(read.warnings);
            if let Some(spec) = read.spec {
                let (mistakes, warnings) = validate::validate(&spec);
                reader.mistakes.extend(mistakes);
                reader.warnings.extend(warnings);
                typed = Some(spec);
            }
        }
        let settings = reader.settings(typed, spec.is_some());
        if reader.mistakes.is_empty() {
            Ok(Resolved {
                settings,
                warnings: reader.warnings,
            })
        } else {
            Err(Invalid {
                mistakes: reader.mistakes,
            })
        }
    }
}

/// Collects values and mistakes.
struct Reader<'a> {
    options: &'a RunOptions,
    variables: &'a Variables,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

/// What is wrong with a value, and what to do.
struct Problem {
    problem: String,
    remedy: String,
}

impl Problem {
    fn new(problem: impl Display, remedy: impl Into<String>) -> Self {
        Self {
            problem: problem.to_string(),
            remedy: remedy.into(),
        }
    }
}

impl<'a> Reader<'a> {
    fn new(options: &'a RunOptions, variables: &'a Variables) -> Self {
        Self {
            options,
            variables,
            mistakes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn mistake(&mut self, place: Place, given: Option<&str>, problem: Problem) {
        let mut mistake = Mistake::new(place, problem.problem, problem.remedy);
        if let Some(given) = given {
            mistake = mistake.given(given);
        }
        self.mistakes.push(mistake);
    }

    /// A variable's text; an empty one counts as unset (compose files set `X=` for what they do not know).
    fn variable(&mut self, name: &str) -> Option<String> {
        let value = self.variables.get(name).filter(|value| !value.is_empty())?;
        match value.to_str() {
            Some(text) => Some(text.to_owned()),
            None => {
                self.mistake(
                    Place::Variable(name.to_owned()),
                    None,
                    Problem::new("is not UTF-8", "pass text"),
                );
                None
            }
        }
    }

    /// The text of a flag, else of its variable.
    fn text(&mut self, flag: &Option<String>, variable: &str) -> Option<(String, Place)> {
        if let Some(text) = flag {
            let name = VARIABLES
                .iter()
                .find(|known| known.name == variable)
                .and_then(|known| known.flag);
            return Some((
                text.clone(),
                Place::Flag(name.unwrap_or(variable).to_owned()),
            ));
        }
        let text = self.variable(variable)?;
        Some((text, Place::Variable(variable.to_owned())))
    }

    /// The checked value of a flag, else of its variable.
    fn value<T>(
        &mut self,
        flag: &Option<String>,
        variable: &str,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<T> {
        let (text, place) = self.text(flag, variable)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.mistake(place, Some(&text), problem);
                None
            }
        }
    }

    /// A text that only has to pass a check.
    fn checked(
        &mut self,
        flag: &Option<String>,
        variable: &str,
        check: impl Fn(&str) -> Result<(), &'static str>,
        remedy: &str,
    ) -> Option<String> {
        self.value(flag, variable, |text| {
            check(text)
                .map(|()| text.to_owned())
                .map_err(|problem| Problem::new(problem, remedy))
        })
    }

    fn port(&mut self, flag: &Option<String>, variable: &str, default: u16) -> u16 {
        let parse = |text: &str| {
            values::port(text)
                .map_err(|problem| Problem::new(problem, "give a number from 0 to 65535"))
        };
        self.value(flag, variable, parse).unwrap_or(default)
    }

    /// A credential from its variable or the file that `<name>_FILE` names.
    fn secret(&mut self, name: &'static str) -> Option<Secret> {
        let file_variable = format!("{name}_FILE");
        let place = Place::Variable(name.to_owned());
        let file_place = Place::Variable(file_variable.clone());
        let direct = self.variable(name);
        let file = self.variable(&file_variable);
        let (text, place) = match (direct, file) {
            (Some(_), Some(_)) => {
                self.mistake(
                    place,
                    None,
                    Problem::new(
                        format!("is set together with {file_variable}"),
                        "keep one of them",
                    ),
                );
                return None;
            }
            (Some(text), None) => (text, place),
            (None, Some(path)) => match read_secret(Path::new(&path)) {
                Ok(text) => (text, file_place),
                Err(problem) => {
                    self.mistake(file_place, Some(&path), problem);
                    return None;
                }
            },
            (None, None) => return None,
        };
        match values::token(&text) {
            Ok(()) => Some(Secret::new(text)),
            Err(problem) => {
                self.mistake(
                    place,
                    None,
                    Problem::new(
                        problem,
                        "give the bare credential, without quotes or line breaks",
                    ),
                );
                None
            }
        }
    }

    fn settings(&mut self, spec: Option<Spec>, spec_given: bool) -> Settings {
        let options = self.options;
        let given = spec.clone().unwrap_or_default();
        let root = self.root();
        let wait_for_spec = self.wait_for_spec(spec_given);
        // A spec that cannot be read must not bring follow-up mistakes about what it would have said.
        let spec_missing = wait_for_spec || (spec_given && spec.is_none());

        let task_id = self.checked(
            &options.task_id,
            "WHIM_TASK_ID",
            names::identifier,
            "use letters, digits, `.`, `_`, `-`, at most 64",
        );
        let task = Task {
            id: task_id.or_else(|| given.task.id.clone()),
            ..given.task.clone()
        };
        let repo = self.repo(&given, &task);
        let agent = self.agent(&given, spec_missing);
        let provider = self.provider(&given, agent.kind, spec_missing);
        let budget = self.value(&options.budget_usd, "WHIM_BUDGET_USD", |text| {
            Usd::from_str(text).map_err(|error: UsdError| {
                Problem::new(format!("is {error}"), "give dollars, as 5 or 0.25")
            })
        });
        let unknown_model =
            self.value(
                &options.unknown_model,
                "WHIM_UNKNOWN_MODEL",
                |text| match text {
                    "refuse" => Ok(UnknownModel::Refuse),
                    "dearest" => Ok(UnknownModel::Dearest),
                    _ => Err(Problem::new(
                        "is neither refuse nor dearest",
                        "use one of the two",
                    )),
                },
            );
        let prices = self.prices(&root);
        let idle = self.idle(&given);
        let backend = self.backend(&task, spec_missing);
        let backup = self.backup(&given, &root, backend.is_some());
        let grace = self.grace();
        let control_token = self.secret("WHIM_CONTROL_TOKEN");
        if control_token
            .as_ref()
            .is_some_and(|token| token.expose().len() < STRONG_TOKEN)
        {
            let place = Place::Variable("WHIM_CONTROL_TOKEN".to_owned());
            self.warnings.push(Mistake::new(
                place,
                "is short enough to be guessed",
                "use at least 16 random characters",
            ));
        }
        let ports = self.ports();
        let bind = self.value(&options.bind, "WHIM_BIND", |text| {
            values::bind(text).map_err(|problem| {
                Problem::new(problem, "give an address, as 0.0.0.0, 127.0.0.1 or [::]")
            })
        });
        let preview = settings::Preview {
            url: self.checked(
                &options.preview_url,
                "WHIM_PREVIEW_URL",
                values::preview,
                "give a URL such as https://{port}-x.example.com/",
            ),
            secret: self.secret("WHIM_PREVIEW_SECRET"),
        };
        let log = self.log();
        let user = self.user();
        let no_new_privs = self.switch("WHIM_NO_NEW_PRIVS");
        let pass_env = self.pass_env();
        self.unknown_variables();
        Settings {
            root,
            wait_for_spec,
            task,
            repo,
            agent,
            provider,
            budget: budget.or(given.budget.usd),
            unknown_model: unknown_model.unwrap_or_default(),
            prices,
            attachments: given.attachments.clone(),
            configuration: layers::merge(&given.config),
            restore: given.restore.clone(),
            idle,
            init_timeout: given
                .init_timeout_s
                .map_or(settings::INIT_TIMEOUT, Duration::from_secs),
            backup,
            backend,
            grace,
            control_token,
            user,
            no_new_privs,
            ports,
            bind: bind.unwrap_or(settings::BIND),
            preview,
            log,
            pass_env,
            spec,
        }
    }

    fn root(&mut self) -> settings::Root {
        let directory = self.value(&self.options.root, "WHIM_ROOT", |text| {
            if text.contains(char::is_control) {
                return Err(Problem::new(
                    "contains control characters",
                    "give a directory",
                ));
            }
            std::path::absolute(text).map_err(|error| {
                Problem::new(format!("is no directory: {error}"), "give an absolute path")
            })
        });
        settings::Root::new(directory.unwrap_or_else(|| PathBuf::from("/")))
    }

    fn wait_for_spec(&mut self, spec_given: bool) -> bool {
        let wait = self.options.wait_for_spec || self.switch("WHIM_WAIT_FOR_SPEC");
        let place = if self.options.wait_for_spec {
            Place::Flag("--wait-for-spec".to_owned())
        } else {
            Place::Variable("WHIM_WAIT_FOR_SPEC".to_owned())
        };
        let named = self.options.spec.is_some() || self.variable("WHIM_SPEC").is_some();
        if wait && named {
            self.mistake(
                place,
                None,
                Problem::new("stands together with a spec", "leave one of the two out"),
            );
        }
        // Once the spec has come, nobody waits any more.
        wait && !spec_given
    }

    fn switch(&mut self, variable: &str) -> bool {
        let parse = |text: &str| {
            values::switch(text).map_err(|problem| Problem::new(problem, "use 1 or 0"))
        };
        self.value(&None, variable, parse).unwrap_or(false)
    }

    fn repo(&mut self, spec: &Spec, task: &Task) -> Option<settings::Repo> {
        let options = self.options;
        let remedy = "give an https, ssh, git or file URL, user@host:path, or a local path";
        let url = self.checked(&options.repo, "WHIM_REPO_URL", names::repository, remedy);
        let branch_remedy = "give a name that `git check-ref-format --branch` accepts";
        let source_branch = self.checked(
            &options.source_branch,
            "WHIM_SOURCE_BRANCH",
            names::branch,
            branch_remedy,
        );
        let branch = self.checked(&options.branch, "WHIM_BRANCH", names::branch, branch_remedy);
        let given = spec.repo.clone().unwrap_or_default();
        // A mirror belongs to the repository of the same spec.
        let mirror = if url.is_some() { None } else { given.mirror };
        let url = url.map(Sensitive::from).or(given.url)?;
        Some(settings::Repo {
            url,
            mirror,
            source_branch: source_branch.or(given.source_branch),
            branch: branch
                .or(given.branch)
                .or_else(|| task.id.as_ref().map(|id| format!("whim-{id}"))),
            depth: given.depth,
            trust: given.trust,
        })
    }

    fn agent(&mut self, spec: &Spec, spec_missing: bool) -> settings::Agent {
        let options = self.options;
        let given = &spec.agent;
        let kind = self
            .value(&options.agent, "WHIM_AGENT", |text| {
                word(text, AgentKind::ALL, AgentKind::as_str)
            })
            .or(given.kind);
        let kind = kind.unwrap_or(AgentKind::Claude);
        let mode = self
            .value(&options.mode, "WHIM_MODE", |text| {
                word(text, Mode::ALL, Mode::as_str)
            })
            .or(given.mode);
        let mode = mode.unwrap_or(Mode::Interactive);
        let permission_mode = self
            .value(&options.permission_mode, "WHIM_PERMISSION_MODE", |text| {
                word(text, PermissionMode::ALL, PermissionMode::as_str)
            })
            .or(given.permission_mode);
        let model = self.checked(
            &options.model,
            "WHIM_MODEL",
            values::agent_word,
            "give the model's name",
        );
        let effort = self.checked(
            &options.effort,
            "WHIM_EFFORT",
            values::agent_word,
            "give a word such as low or high",
        );
        let prompt = self.checked(
            &options.prompt,
            "WHIM_PROMPT",
            values::prompt,
            values::PROMPT_REMEDY,
        );
        let prompt = prompt
            .as_ref()
            .or(given.prompt.as_ref())
            .map(|text| values::normalised(text));
        let command = self.value(&options.agent_command, "WHIM_AGENT_COMMAND", |text| {
            let argv: Vec<String> = serde_json::from_str(text).map_err(|_| {
                Problem::new(
                    "is no JSON array of strings",
                    r#"write it as ["program","argument"]"#,
                )
            })?;
            values::command(&argv)
                .map_err(|problem| Problem::new(problem, values::COMMAND_REMEDY))?;
            Ok(argv)
        });
        let command = command
            .or_else(|| given.command.clone())
            .unwrap_or_default();
        if !spec_missing {
            if kind == AgentKind::Custom && command.is_empty() {
                let problem = Problem::new(
                    "is missing for the agent custom",
                    r#"give its argv, as ["program","argument"]"#,
                );
                self.mistake(Place::Flag("--agent-command".to_owned()), None, problem);
            }
            if mode != Mode::Interactive && kind != AgentKind::Custom && prompt.is_none() {
                let problem = Problem::new(
                    format!("is missing for the mode {mode}"),
                    "give a prompt, or use --mode interactive",
                );
                self.mistake(Place::Flag("[PROMPT]".to_owned()), None, problem);
            }
        }
        if kind != AgentKind::Custom && !command.is_empty() {
            let place = Place::Flag("--agent-command".to_owned());
            let remedy = "use --agent custom, or leave it out";
            self.warnings.push(Mistake::new(
                place,
                format!("is not used by the agent {kind}"),
                remedy,
            ));
        }
        settings::Agent {
            kind,
            mode,
            model: model.or_else(|| given.model.clone()),
            permission_mode,
            effort: effort.or_else(|| given.effort.clone()),
            prompt,
            command: if kind == AgentKind::Custom {
                command
            } else {
                Vec::new()
            },
        }
    }

    fn provider(
        &mut self,
        spec: &Spec,
        agent: AgentKind,
        spec_missing: bool,
    ) -> settings::Provider {
        let options = self.options;
        let credentials = settings::Credentials {
            anthropic_api_key: self.secret("ANTHROPIC_API_KEY"),
            claude_code_oauth_token: self.secret("CLAUDE_CODE_OAUTH_TOKEN"),
            openai_api_key: self.secret("OPENAI_API_KEY"),
            openrouter_api_key: self.secret("OPENROUTER_API_KEY"),
            provider_key: self.secret("WHIM_PROVIDER_KEY"),
        };
        let kind = self
            .value(&options.provider, "WHIM_PROVIDER", |text| {
                word(text, ProviderKind::ALL, ProviderKind::as_str)
            })
            .or(spec.provider.kind)
            .or_else(|| default_provider(agent, &credentials));
        let upstream = self.value(&options.upstream, "WHIM_UPSTREAM_URL", |text| {
            values::upstream(text).map_err(|problem| {
                Problem::new(problem, "give the base URL, as https://api.example.com")
            })
        });
        let upstream = upstream.map(Sensitive::from).or_else(|| {
            let given = spec.provider.upstream.as_ref()?;
            values::upstream(given.expose()).ok().map(Sensitive::from)
        });
        if !spec_missing {
            if kind == Some(ProviderKind::Compatible) && upstream.is_none() {
                let problem = Problem::new(
                    "is missing for the provider compatible",
                    "give the provider's base URL",
                );
                self.mistake(Place::Flag("--upstream".to_owned()), None, problem);
            }
            // No mistake: credentials may come later with `PUT /v1/credentials`, and a local provider may want none.
            if let Some(kind) = kind
                && kind != ProviderKind::Compatible
                && credentials.main(kind).is_none()
            {
                let place = Place::Variable(credential_variable(kind).to_owned());
                let remedy =
                    "set it, or send it with PUT /v1/credentials; until then model calls fail";
                self.warnings.push(Mistake::new(
                    place,
                    format!("is missing for the provider {kind}"),
                    remedy,
                ));
            }
        }
        settings::Provider {
            kind,
            upstream,
            credentials,
        }
    }

    /// A file that was named must be there; the default one need not.
    fn prices(&mut self, root: &settings::Root) -> PathBuf {
        let named = self.value(
            &self.options.prices,
            "WHIM_PRICES",
            |text| match std::fs::metadata(text) {
                Ok(found) if found.is_file() => Ok(PathBuf::from(text)),
                Ok(_) => Err(Problem::new("is no regular file", "name a JSON file")),
                Err(error) => Err(Problem::new(
                    format!("cannot be read: {}", reason(&error)),
                    "name a readable file",
                )),
            },
        );
        named.unwrap_or_else(|| root.path("/whim/prices.json"))
    }

    fn idle(&mut self, spec: &Spec) -> settings::Idle {
        let after = self.value(&self.options.idle_after, "WHIM_IDLE_AFTER_S", |text| {
            values::seconds(text)
                .map_err(|problem| Problem::new(problem, "give seconds, 0 for never"))
        });
        let after = after
            .or_else(|| spec.idle.after_s.map(Duration::from_secs))
            .unwrap_or(settings::IDLE_AFTER);
        let action = self.value(&self.options.idle_action, "WHIM_IDLE_ACTION", |text| {
            IdleAction::from_str(text).map_err(|_| {
                Problem::new("is no action", "use report, exit or exec:/absolute/path")
            })
        });
        settings::Idle {
            after: (!after.is_zero()).then_some(after),
            action: action
                .or_else(|| spec.idle.action.clone())
                .unwrap_or_default(),
        }
    }

    fn backend(&mut self, task: &Task, spec_missing: bool) -> Option<settings::Backend> {
        let token = self.secret("WHIM_INTERNAL_API_TOKEN");
        let url = self.checked(
            &self.options.backend,
            "WHIM_BACKEND_URL",
            values::http_url,
            "give the base URL of the platform's API",
        )?;
        if task.id.is_none() && !spec_missing {
            let problem = Problem::new(
                "is missing for the backend, whose calls name the task",
                "give --task-id or /task/id in the spec",
            );
            self.mistake(Place::Flag("--task-id".to_owned()), None, problem);
        }
        let Some(token) = token else {
            let bad = self.mistakes.iter().any(|mistake| {
                mistake
                    .place
                    .to_string()
                    .starts_with("WHIM_INTERNAL_API_TOKEN")
            });
            if !bad {
                let problem = Problem::new(
                    "is missing for the backend",
                    "set it, or name its file in WHIM_INTERNAL_API_TOKEN_FILE",
                );
                self.mistake(
                    Place::Variable("WHIM_INTERNAL_API_TOKEN".to_owned()),
                    None,
                    problem,
                );
            }
            return None;
        };
        Some(settings::Backend {
            url: url.trim_end_matches('/').into(),
            token,
        })
    }

    fn backup(&mut self, spec: &Spec, root: &settings::Root, backend: bool) -> settings::Backup {
        let check = |text: &str| values::store(text).map(drop);
        let given = self
            .checked(
                &self.options.backup,
                "WHIM_BACKUP_URL",
                check,
                values::STORE_REMEDY,
            )
            .map(Sensitive::from);
        let given = given.or_else(|| spec.backup.url.clone());
        let local = url::Url::from_file_path(root.path("/whim/state/backup")).map(String::from);
        let url = given.unwrap_or_else(|| local.unwrap_or_default().into());
        let kind = values::store(url.expose()).unwrap_or(StoreKind::File);
        if kind == StoreKind::Backend
            && !backend
            && self.options.backend.is_none()
            && self.variable("WHIM_BACKEND_URL").is_none()
        {
            let problem = Problem::new(
                "is missing for a backup to the backend",
                "give --backend and WHIM_INTERNAL_API_TOKEN",
            );
            self.mistake(Place::Flag("--backend".to_owned()), None, problem);
        }
        let mut store = BTreeMap::new();
        for (name, value) in self.variables.iter() {
            if let (Some(name), Some(value)) = (name.to_str(), value.to_str())
                && environment::is_store_variable(kind, name)
            {
                store.insert(name.to_owned(), Secret::new(value.to_owned()));
            }
        }
        let interval = spec
            .backup
            .interval_s
            .map_or(settings::BACKUP_INTERVAL, Duration::from_secs);
        settings::Backup {
            url,
            kind,
            interval,
            environment: store,
        }
    }

    fn grace(&mut self) -> Duration {
        let grace = self.value(&self.options.grace, "WHIM_GRACE_S", |text| {
            let remedy =
                "give seconds from 3 to 86400, less than the platform waits (docker stop: 10)";
            let grace = values::seconds(text).map_err(|problem| Problem::new(problem, remedy))?;
            if grace < settings::GRACE_MIN || grace > settings::GRACE_MAX {
                return Err(Problem::new("is out of range", remedy));
            }
            Ok(grace)
        });
        grace.unwrap_or(settings::GRACE)
    }

    fn ports(&mut self) -> settings::Ports {
        let default = settings::PORTS;
        let options = self.options;
        let ports = settings::Ports {
            generation: self.port(
                &options.generation_port,
                "WHIM_GENERATION_PORT",
                default.generation,
            ),
            local: self.port(&options.local_port, "WHIM_LOCAL_PORT", default.local),
            backup: self.port(&options.backup_port, "WHIM_BACKUP_PORT", default.backup),
            ui: self.port(&options.ui_port, "WHIM_UI_PORT", default.ui),
        };
        let named = [
            ("--generation-port", ports.generation),
            ("--local-port", ports.local),
            ("--backup-port", ports.backup),
            ("--ui-port", ports.ui),
        ];
        for (index, (name, port)) in named.iter().enumerate() {
            let earlier = named
                .iter()
                .take(index)
                .find(|(_, other)| other == port && *port != 0);
            if let Some((other, _)) = earlier {
                let problem = Problem::new(
                    format!("is the port of {other} too"),
                    "give each service its own port",
                );
                self.mistake(
                    Place::Flag((*name).to_owned()),
                    Some(&port.to_string()),
                    problem,
                );
            }
        }
        ports
    }

    fn log(&mut self) -> settings::Log {
        let filter = self.value(&self.options.log, "WHIM_LOG", |text| {
            match tracing_subscriber::EnvFilter::try_new(text) {
                Ok(_) => Ok(text.to_owned()),
                Err(_) => Err(Problem::new(
                    "is no log filter",
                    "use error, warn, info, debug, trace, or whim::ports=debug,info",
                )),
            }
        });
        let format = self.value(&None, "WHIM_LOG_FORMAT", |text| match text {
            "text" => Ok(settings::LogFormat::Text),
            "json" => Ok(settings::LogFormat::Json),
            _ => Err(Problem::new(
                "is neither text nor json",
                "use one of the two",
            )),
        });
        settings::Log {
            filter: filter.unwrap_or_else(|| settings::LOG.to_owned()),
            format: format.unwrap_or_default(),
        }
    }

    fn user(&mut self) -> String {
        let user = self.value(&None, "WHIM_USER", |text| {
            if text.contains(|c: char| c == ':' || c.is_control() || c.is_whitespace()) {
                return Err(Problem::new(
                    "is no user name",
                    "name a user of /etc/passwd",
                ));
            }
            Ok(text.to_owned())
        });
        user.unwrap_or_else(|| settings::USER.to_owned())
    }

    fn pass_env(&mut self) -> BTreeSet<String> {
        let names = self.value(&None, "WHIM_PASS_ENV", |text| {
            let names: BTreeSet<String> = text
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect();
            match names.iter().find(|name| names::variable(name).is_err()) {
                Some(bad) => Err(Problem::new(
                    format!(
                        "contains {:?}, which is no variable name",
                        super::printable(bad)
                    ),
                    "write NAME,OTHER_NAME",
                )),
                None => Ok(names),
            }
        });
        names.unwrap_or_default()
    }

    /// A typing error in a variable would silently mean "no cap", so each unknown `WHIM_` name is told.
    fn unknown_variables(&mut self) {
        for (name, _) in self.variables.iter() {
            let Some(name) = name
                .to_str()
                .filter(|name| name.starts_with("WHIM_") && !variables::is_known(name))
            else {
                continue;
            };
            let remedy = match nearest(name, VARIABLES.iter().map(|variable| variable.name)) {
                Some(likely) => format!("did you mean {likely}?"),
                None => "see `whim run --help`".to_owned(),
            };
            self.warnings.push(Mistake::new(
                Place::Variable(name.to_owned()),
                "is no variable of whim",
                remedy,
            ));
        }
    }
}

/// One of a set of words.
fn word<T: Copy>(text: &str, all: &[T], spelled: impl Fn(T) -> &'static str) -> Result<T, Problem> {
    if let Some(value) = all.iter().find(|value| spelled(**value) == text) {
        return Ok(*value);
    }
    let words: Vec<&str> = all.iter().map(|value| spelled(*value)).collect();
    let remedy = match nearest(text, words.iter().copied()) {
        Some(likely) => format!("did you mean {likely}?"),
        None => "use one of these words".to_owned(),
    };
    Err(Problem::new(
        format!("is none of {}", words.join(", ")),
        remedy,
    ))
}

/// The provider that an agent works with unless told otherwise. Copilot speaks two wire formats and a custom agent any,
/// so there the credential decides.
fn default_provider(agent: AgentKind, credentials: &settings::Credentials) -> Option<ProviderKind> {
    let order = [
        ProviderKind::Anthropic,
        ProviderKind::Openai,
        ProviderKind::Openrouter,
    ];
    let with_credential = || {
        order
            .into_iter()
            .find(|kind| credentials.of(*kind).is_some())
    };
    match agent {
        AgentKind::Claude => Some(ProviderKind::Anthropic),
        AgentKind::Codex => Some(ProviderKind::Openai),
        AgentKind::Ccr => Some(ProviderKind::Openrouter),
        AgentKind::Copilot => with_credential().or(Some(ProviderKind::Openai)),
        AgentKind::Custom => with_credential(),
    }
}

fn credential_variable(provider: ProviderKind) -> &'static str {
    match provider {
        ProviderKind::Anthropic => "ANTHROPIC_API_KEY",
        ProviderKind::Openai => "OPENAI_API_KEY",
        ProviderKind::Openrouter => "OPENROUTER_API_KEY",
        ProviderKind::Compatible => "WHIM_PROVIDER_KEY",
    }
}

/// The credential in a file, without its last line's end.
fn read_secret(path: &Path) -> Result<String, Problem> {
    let remedy = "name a readable file of at most 64 KiB that holds only the credential";
    let bytes = open_regular(path)
        .and_then(|mut file| read_bounded(&mut file, MAX_SECRET_FILE))
        .map_err(|error| match error {
            FileError::Io(error) => Problem::new(
                format!("names a file that cannot be read: {}", reason(&error)),
                remedy,
            ),
            FileError::NotRegular => {
                Problem::new("names something that is no regular file", remedy)
            }
            FileError::TooLarge => Problem::new("names a file larger than 64 KiB", remedy),
        })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Problem::new("names a file that is not UTF-8", remedy))?;
    let bare = text.strip_suffix('\n').unwrap_or(&text);
    Ok(bare.strip_suffix('\r').unwrap_or(bare).to_owned())
}

#[cfg(test)]
mod tests;

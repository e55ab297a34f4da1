//! From flags, variables and spec to [`Settings`]: flag over variable over spec over default.
//!
//! Nothing here stops at the first mistake. The result can be made again when a spec arrives later (`PUT /v1/spec`), or
//! when a new supervisor reads the spec of its predecessor; credential files are read anew each time.

mod reader;
mod services;
mod settled;
mod source;
mod task;

pub use settled::SettledError;
pub use source::SpecSource;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use whim_proxies::local::Limits;
use whim_wire::spec::{Spec, Task, Usd, UsdError};

use super::layers::Configuration;
use super::mistake::{Invalid, Mistake, Place};
use super::options::{CommandLine, RunOptions};
use super::settings::{self, Settings, UnknownModel, Variables};
use super::users::User;
use super::values::StoreKind;
use super::{document, environment, layers, names, validate, values};
use reader::{Problem, Reader};

/// Shortest control token that is not warned about: 128 bits as text.
const STRONG_TOKEN: usize = 16;

/// What flags and variables say; a spec makes it whole. `Debug` shows no values.
#[derive(Clone, Default)]
pub struct Given {
    /// As they came; URLs among them may hold credentials.
    arguments: Vec<OsString>,
    options: RunOptions,
    variables: Variables,
    mistakes: Vec<Mistake>,
    /// An earlier supervisor started with this, so files that were there then may be gone.
    settled: bool,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given")
            .field("variables", &self.variables)
            .field("settled", &self.settled)
            .finish_non_exhaustive()
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

impl Given {
    /// Reads the command line; mistakes in it come out with all others. `Err`: the text of `--help`.
    pub fn parse(arguments: &[OsString], variables: Variables) -> Result<Self, String> {
        match super::options::parse(arguments) {
            CommandLine::Help(text) => Err(text),
            CommandLine::Run(options, mistakes) => Ok(Self {
                arguments: arguments.to_vec(),
                options: *options,
                variables,
                mistakes,
                settled: false,
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
        Some(SpecSource::from(text.as_str()))
    }

    /// Every value that can be told without the task, and what is wrong with the rest; for checks of a machine, which
    /// go on whatever they find.
    pub fn without_task(&self) -> (Settings, Vec<Mistake>) {
        let mut reader = Reader::new(&self.options, &self.variables);
        reader.mistakes.extend(self.mistakes.iter().cloned());
        let settings = reader.settings(None, true, false);
        (settings, reader.mistakes)
    }

    /// Decides every value. `spec`: the text of the spec, if there is one by now.
    ///
    /// # Errors
    /// All mistakes of flags, variables and spec.
    pub fn resolve(&self, spec: Option<&[u8]>) -> Result<Resolved, Invalid> {
        self.resolved(spec, true)
    }

    /// As [`Given::resolve`] without a spec, when it is known that none will come from the platform either.
    ///
    /// # Errors
    /// All mistakes of flags and variables.
    pub fn resolve_alone(&self) -> Result<Resolved, Invalid> {
        self.resolved(None, false)
    }

    fn resolved(&self, spec: Option<&[u8]>, may_come: bool) -> Result<Resolved, Invalid> {
        let (settings, mistakes, warnings) = self.decide(spec, may_come);
        if mistakes.is_empty() {
            Ok(Resolved { settings, warnings })
        } else {
            Err(Invalid { mistakes })
        }
    }

    /// What can be told about a spec alone: its own mistakes, and as warnings what it leaves to flags and variables.
    pub(super) fn of_spec(text: &[u8]) -> (Vec<Mistake>, Vec<Mistake>) {
        let (_, mistakes, warnings) = Self::default().decide(Some(text), false);
        let own = |mistake: &Mistake| matches!(mistake.place, Place::Spec(_));
        let (mistakes, open): (Vec<_>, Vec<_>) = mistakes.into_iter().partition(own);
        // That no key is set says nothing about the spec.
        let warnings = warnings.into_iter().filter(own).chain(open).collect();
        (mistakes, warnings)
    }

    /// `may_come`: the platform is asked for a spec if there is none.
    fn decide(
        &self,
        spec: Option<&[u8]>,
        may_come: bool,
    ) -> (Settings, Vec<Mistake>, Vec<Mistake>) {
        let mut reader = Reader::new(&self.options, &self.variables);
        reader.settled = self.settled;
        reader.mistakes.extend(self.mistakes.iter().cloned());
        let mut typed = None;
        if let Some(text) = spec {
            let read = document::read(text);
            let rest = read.rest.iter();
            let further: Vec<Mistake> = rest
                .flat_map(|rest| validate::validate(rest).0)
                .filter(|mistake| !mistake.is_beside(&read.mistakes))
                .collect();
            reader.mistakes.extend(read.mistakes);
            reader.mistakes.extend(further);
            reader.warnings.extend(read.warnings);
            if let Some(spec) = read.spec {
                let (mistakes, warnings) = validate::validate(&spec);
                reader.mistakes.extend(mistakes);
                reader.warnings.extend(warnings);
                typed = Some(spec);
            }
        }
        let settings = reader.settings(typed, spec.is_some(), may_come);
        (settings, reader.mistakes, reader.warnings)
    }
}

impl Reader<'_> {
    fn settings(&mut self, spec: Option<Spec>, spec_given: bool, may_come: bool) -> Settings {
        let options = self.options;
        let given = spec.clone().unwrap_or_default();
        let root = self.root();
        let wait_for_spec = self.wait_for_spec(spec_given);
        // A spec that cannot be read must not bring follow-up mistakes about what it would have said.
        let claimed_later = wait_for_spec || (spec_given && spec.is_none());
        // Nor must one that the platform has still to give.
        let fetched_later = may_come
            && !spec_given
            && (options.backend.is_some() || self.is_given("WHIM_BACKEND_URL"));
        let spec_missing = claimed_later || fetched_later;

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
        let caps = self.caps(&given.budget);
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
        let backend = self.backend(&task, claimed_later);
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
            limits: self
                .value(&options.preview_limits, "WHIM_PREVIEW_LIMITS", |text| {
                    Limits::from_str(text).map_err(|error| {
                        Problem::new(error.to_string(), "write it as connections=500,idle=30s")
                    })
                })
                .unwrap_or_default(),
            secret: self.secret("WHIM_PREVIEW_SECRET"),
        };
        let log = self.log();
        let user = self.user();
        let no_new_privs = self.switch("WHIM_NO_NEW_PRIVS");
        let pass_env = self.pass_env();
        self.unknown_variables();
        let configuration = layers::merge(&given.config, given.init_user);
        self.layer_environment(&given, &configuration, backup.kind, &pass_env);
        Settings {
            root,
            wait_for_spec,
            task,
            repo,
            agent,
            provider,
            budget: budget.or(given.budget.usd),
            caps,
            unknown_model: unknown_model.unwrap_or_default(),
            prices,
            attachments: given.attachments.clone(),
            configuration,
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

    /// What only the evaluated environment shows. The user does not matter to it.
    fn layer_environment(
        &mut self,
        spec: &Spec,
        layers: &Configuration,
        store: StoreKind,
        pass: &BTreeSet<String>,
    ) {
        let nobody = User {
            name: String::new(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            home: PathBuf::from("/"),
            shell: PathBuf::from("/bin/sh"),
        };
        for late in environment::build(self.variables, store, pass, layers, &nobody).mistakes {
            let pointer = late.from.and_then(|(layer, file)| {
                let index = spec.config.iter().position(|given| given.layer == layer)?;
                Some(document::pointer(
                    &format!("/config/{index}/env_files"),
                    &file,
                ))
            });
            let place = Place::Spec(pointer.unwrap_or_else(|| "/config".to_owned()));
            self.mistakes
                .push(Mistake::new(place, late.problem, late.remedy));
        }
    }
}

#[cfg(test)]
mod tests;

//! How the container serves: store, backend, ports, times, log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use whim_wire::spec::{Budget, IdleAction, Sensitive, Spec, Task};

use super::reader::{Problem, Reader};
use super::source::reason;
use crate::config::document::nearest;
use crate::config::mistake::{Mistake, Place};
use crate::config::values::StoreKind;
use crate::config::variables::{self, VARIABLES};
use crate::config::{Secret, environment, names, printable, settings, values};

impl Reader<'_> {
    /// A file that was named must be there; the default one need not.
    pub(super) fn prices(&mut self, root: &settings::Root) -> PathBuf {
        let settled = self.settled;
        let named = self.value(
            &self.options.prices,
            "WHIM_PRICES",
            |text| match std::fs::metadata(text) {
                _ if settled => Ok(PathBuf::from(text)),
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

    /// Bounds beside the money. Nothing is no bound: who wants no calls at all asks for no agent.
    pub(super) fn caps(&mut self, given: &Budget) -> settings::Caps {
        fn above_nothing<T: FromStr>(text: &str) -> Result<T, Problem> {
            text.parse().map_err(|_| {
                Problem::new("is no whole number above 0", "give one, or leave it out")
            })
        }
        let options = self.options;
        let tokens = self.value(&options.cap_tokens, "WHIM_CAP_TOKENS", above_nothing);
        let requests = self.value(
            &options.cap_requests_per_minute,
            "WHIM_CAP_RPM",
            above_nothing,
        );
        let minutes = self.value(&options.cap_minutes, "WHIM_CAP_MINUTES", above_nothing);
        settings::Caps {
            tokens: tokens.or(given.tokens),
            requests_per_minute: requests.or(given.requests_per_minute),
            minutes: minutes.or(given.minutes),
        }
    }

    pub(super) fn idle(&mut self, spec: &Spec) -> settings::Idle {
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

    pub(super) fn backend(&mut self, task: &Task, spec_missing: bool) -> Option<settings::Backend> {
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
            if !self.is_given("WHIM_INTERNAL_API_TOKEN") {
                let remedy = "set it, or name its file in WHIM_INTERNAL_API_TOKEN_FILE";
                let problem = Problem::new("is missing for the backend", remedy);
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

    pub(super) fn backup(
        &mut self,
        spec: &Spec,
        root: &settings::Root,
        backend: bool,
    ) -> settings::Backup {
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
        let recordings =
            self.switch("WHIM_BACKUP_RECORDINGS") || spec.backup.recordings.unwrap_or(false);
        let code = self.choice("WHIM_BACKUP_CODE");
        let code = code.or(spec.backup.code).unwrap_or(true);
        settings::Backup {
            url,
            kind,
            interval,
            recordings,
            code,
            environment: store,
        }
    }

    pub(super) fn grace(&mut self) -> Duration {
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

    pub(super) fn ports(&mut self) -> settings::Ports {
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

    pub(super) fn log(&mut self) -> settings::Log {
        let filter = self.value(&self.options.log, "WHIM_LOG", |text| {
            if text.split(',').all(is_log_directive) {
                Ok(text.to_owned())
            } else {
                Err(Problem::new(
                    "is no log filter",
                    "use error, warn, info, debug, or whim::ports=debug,info",
                ))
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

    pub(super) fn user(&mut self) -> String {
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

    pub(super) fn pass_env(&mut self) -> BTreeSet<String> {
        let names = self.value(&None, "WHIM_PASS_ENV", |text| {
            let names: BTreeSet<String> = text
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect();
            match names.iter().find(|name| names::variable(name).is_err()) {
                Some(bad) => Err(Problem::new(
                    format!("contains {:?}, which is no variable name", printable(bad)),
                    "write NAME,OTHER_NAME",
                )),
                None => Ok(names),
            }
        });
        let names = names.unwrap_or_default();
        for name in names
            .iter()
            .filter(|name| variables::secret_named(name).is_some())
        {
            let place = Place::Variable("WHIM_PASS_ENV".to_owned());
            let remedy = "leave it out unless that is meant";
            self.warnings.push(Mistake::new(
                place,
                format!("shows agents the credential {name}"),
                remedy,
            ));
        }
        names
    }

    /// A typing error in a variable would silently mean "no cap", so each unknown `WHIM_` name is told.
    pub(super) fn unknown_variables(&mut self) {
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

/// A level, alone or of a module. `Targets` takes any text for a module, so that a level with a typo would silence all.
fn is_log_directive(text: &str) -> bool {
    let (module, level) = text.split_once('=').unwrap_or(("whim", text));
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    module.split("::").all(part)
        && part(level)
        && level
            .parse::<tracing_subscriber::filter::LevelFilter>()
            .is_ok()
}

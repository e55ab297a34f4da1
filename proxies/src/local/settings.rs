//! What people decided about ports, as far as it must outlive the proxy.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use whim_wire::port::HostMode;

/// What was decided about one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSettings {
    /// Everybody may see this program (0: whichever listens).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<u64>,
    /// The program that may have the links of the one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<u64>,
    /// How its server is told its host.
    #[serde(default)]
    pub host: HostMode,
}

/// What was decided about all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The port that is meant where none is named; none: the first server of the agents' processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<u16>,
    /// By number.
    #[serde(default)]
    pub ports: BTreeMap<u16, PortSettings>,
}

/// A change of what was decided; what is none stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Everybody may see what listens there now, or nobody without a right any more.
    pub public: Option<bool>,
    /// How its server is told its host.
    pub host: Option<HostMode>,
    /// It is the default from now on, or no longer.
    pub default: Option<bool>,
    /// What listens there now may have the links and the publicity of what did before.
    pub confirm: bool,
}

/// All of it, as requests look at it and people change it.
#[derive(Debug, Default)]
pub(crate) struct Register(Mutex<Settings>);

impl Register {
    pub(crate) fn new(settings: Settings) -> Self {
        Self(Mutex::new(settings))
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        // Each change is a few assignments of what was checked before; a panic elsewhere leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> Settings {
        self.settings().clone()
    }

    pub(crate) fn default_port(&self) -> Option<u16> {
        self.settings().default
    }

    pub(crate) fn of(&self, port: u16) -> PortSettings {
        self.settings()
            .ports
            .get(&port)
            .copied()
            .unwrap_or_default()
    }

    /// `program` is what listens on `port` now; 0: nothing does.
    pub(crate) fn change(&self, port: u16, program: u64, change: Change) {
        let mut settings = self.settings();
        match change.default {
            Some(true) => settings.default = Some(port),
            Some(false) if settings.default == Some(port) => settings.default = None,
            Some(false) | None => {}
        }
        let own = settings.ports.entry(port).or_default();
        if let Some(public) = change.public {
            own.public = public.then_some(program);
        }
        if change.confirm && program != 0 {
            own.confirmed = Some(program);
        }
        own.host = change.host.unwrap_or(own.host);
        // There are as many entries at most as there are ports, and as few as decisions.
        if *own == PortSettings::default() {
            settings.ports.remove(&port);
        }
    }
}

impl PortSettings {
    /// Whether what was granted for `granted` holds for `program`; 0 is whichever.
    pub(crate) fn holds_for(&self, granted: u64, program: u64) -> bool {
        granted == 0 || program == 0 || granted == program || self.confirmed == Some(program)
    }

    pub(crate) fn is_public(&self, program: u64) -> bool {
        self.public
            .is_some_and(|granted| self.holds_for(granted, program))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_takes_publicity_until_it_is_confirmed() {
        let register = Register::default();
        let public = Change {
            public: Some(true),
            ..Change::default()
        };
        register.change(3000, 7, public);
        let is_public = |program| register.of(3000).is_public(program);
        assert_eq!((is_public(7), is_public(8)), (true, false));
        let confirm = Change {
            confirm: true,
            ..Change::default()
        };
        register.change(3000, 8, confirm);
        assert_eq!((is_public(8), is_public(9)), (true, false));
        let private = Change {
            public: Some(false),
            ..Change::default()
        };
        register.change(3000, 8, private);
        assert!(!is_public(7) && !is_public(8));
    }

    #[test]
    fn what_was_decided_survives_as_text_and_what_was_not_takes_no_room() {
        let register = Register::default();
        let change = Change {
            host: Some(HostMode::Localhost),
            default: Some(true),
            ..Change::default()
        };
        register.change(3000, 7, change);
        let text = serde_json::to_string(&register.all()).unwrap();
        assert_eq!(
            text,
            r#"{"default":3000,"ports":{"3000":{"host":"localhost"}}}"#
        );
        let again = Register::new(serde_json::from_str(&text).unwrap());
        assert_eq!(again.default_port(), Some(3000));
        let back = Change {
            host: Some(HostMode::Auto),
            default: Some(false),
            ..Change::default()
        };
        again.change(3000, 7, back);
        assert_eq!(again.all(), Settings::default());
    }
}

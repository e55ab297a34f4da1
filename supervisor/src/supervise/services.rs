//! The services: their sockets, who answers on them, and how the world learns where they are.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::failure::{Failure, at};
use crate::api::{self, Api};
use crate::config::Settings;
use crate::files;
use crate::identity::Identity;
use crate::listeners::{Address, Listeners, Wanted};
use crate::paths::Paths;
use crate::sessions::hooks;
use crate::sessions::shells::Shells;
use crate::terminals;
use crate::terminals::http::HttpState;
use crate::terminals::http::guard::Guard;

/// Where the services are.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub generation: SocketAddr,
    pub local: SocketAddr,
    pub backup: SocketAddr,
    pub ui: SocketAddr,
}

/// Every socket, bound.
pub(super) struct Bound {
    pub(super) addresses: Addresses,
    generation: Vec<TcpListener>,
    local: Vec<TcpListener>,
    backup: Vec<TcpListener>,
    ui: Vec<TcpListener>,
    socket: UnixListener,
    hooks: UnixListener,
}

pub(super) async fn bind(
    listeners: &mut Listeners,
    settings: &Settings,
    paths: &Paths,
) -> Result<Bound, Failure> {
    let taken = |error: crate::listeners::ListenError| Failure::new(73, error.to_string());
    let broken = |error: std::io::Error| Failure::new(70, error.to_string());
    let given = Address::Given(settings.bind);
    let ports = settings.ports;
    let mut addresses = Vec::new();
    let mut bound = Vec::new();
    for (name, flag, port, address) in [
        (
            "generation",
            "--generation-port",
            ports.generation,
            Address::Loopback,
        ),
        ("local", "--local-port", ports.local, given),
        ("backup", "--backup-port", ports.backup, given),
        ("ui", "--ui-port", ports.ui, given),
    ] {
        let sockets = listeners
            .tcp(Wanted {
                name,
                flag,
                port,
                address,
            })
            .await
            .map_err(taken)?;
        let first = sockets
            .first()
            .ok_or_else(|| Failure::new(70, "nothing bound"))?;
        addresses.push(first.local_addr().map_err(broken)?);
        let sockets: std::io::Result<Vec<TcpListener>> =
            sockets.into_iter().map(TcpListener::from_std).collect();
        bound.push(sockets.map_err(broken)?);
    }
    let socket = listeners.unix(&paths.socket()).await.map_err(taken)?;
    let hooks = listeners.unix(&paths.hooks()).await.map_err(taken)?;
    let ([generation, local, backup, ui], [generation_at, local_at, backup_at, ui_at]) =
        (exactly(bound)?, exactly(addresses)?);
    Ok(Bound {
        addresses: Addresses {
            generation: generation_at,
            local: local_at,
            backup: backup_at,
            ui: ui_at,
        },
        generation,
        local,
        backup,
        ui,
        socket: UnixListener::from_std(socket).map_err(broken)?,
        hooks: UnixListener::from_std(hooks).map_err(broken)?,
    })
}

/// The four services' parts, in order.
fn exactly<T>(parts: Vec<T>) -> Result<[T; 4], Failure> {
    parts
        .try_into()
        .map_err(|_| Failure::new(70, "a service is missing"))
}

/// What the services are made of.
pub(super) struct Services<'a> {
    pub(super) settings: &'a Settings,
    pub(super) identity: &'a Identity,
    pub(super) api: &'a Arc<Api>,
    pub(super) shells: &'a Shells,
}

impl Services<'_> {
    pub(super) fn serve(&self, bound: Bound, stop: &CancellationToken, tasks: &TaskTracker) {
        let Self {
            settings,
            identity,
            api,
            shells,
        } = self;
        let proxy = api.spending.proxy();
        let until = stop.clone().cancelled_owned();
        drop(tasks.spawn(async move {
            if let Err(error) =
                whim_proxies::generation::proxy::serve(bound.generation, proxy, until).await
            {
                tracing::error!(%error, "the generation proxy ended");
            }
        }));
        api.previews.serve(bound.local, tasks, stop);
        let pages = terminals::http::router(HttpState {
            set: api.terminals.clone(),
            access: api.gate.terminals(),
            guard: guard(settings),
            shells: Arc::new((*shells).clone()),
        });
        for listener in bound.backup {
            drop(tasks.spawn(api::serve::tcp(listener, api::machine(api), stop.clone())));
        }
        for listener in bound.ui {
            drop(tasks.spawn(api::serve::tcp(
                listener,
                api::whole(api, pages.clone()),
                stop.clone(),
            )));
        }
        drop(tasks.spawn(api::serve::unix(
            bound.socket,
            api::whole(api, pages),
            stop.clone(),
        )));
        let hooks = hooks::serve(
            bound.hooks,
            api.sessions.clone(),
            identity.uid(),
            identity.own,
            stop.clone(),
        );
        drop(tasks.spawn(hooks));
    }
}

pub(super) fn write_ready(
    paths: &Paths,
    keeper_pid: i32,
    addresses: &Addresses,
) -> Result<(), Failure> {
    let ready = json!({
        "pid": keeper_pid,
        "generation": addresses.generation.to_string(),
        "local": addresses.local.to_string(),
        "backup": addresses.backup.to_string(),
        "ui": addresses.ui.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let path = paths.ready();
    files::ensure(&path, 0o644, format!("{ready}\n").as_bytes()).map_err(|error| at(&path, error))
}

pub(super) fn remove_ready(paths: &Paths) {
    match std::fs::remove_file(paths.ready()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "ready.json stays"),
    }
}

/// The random token is shown to a person at a terminal only: a log keeps it for ever.
pub(super) fn announce(settings: &Settings, token: &str, addresses: &Addresses) {
    use std::io::{IsTerminal, Write};
    if settings.control_token.is_none() && std::io::stderr().is_terminal() {
        let port = addresses.ui.port();
        drop(writeln!(
            std::io::stderr(),
            "whim: open http://127.0.0.1:{port}/#token={token}"
        ));
    }
}

/// Names that the page may be asked for under, beside addresses and localhost: those of the preview's host.
fn guard(settings: &Settings) -> Guard {
    let host = settings
        .preview
        .url
        .as_deref()
        .and_then(|url| url.split_once("://"))
        .map(|(_, rest)| rest);
    let host = host
        .and_then(|rest| rest.split(['/', ':']).next())
        .and_then(|host| host.split_once('.'));
    Guard::new(host.map(|(_, parent)| format!(".{parent}")))
}

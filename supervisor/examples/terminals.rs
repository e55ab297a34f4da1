//! Serves one shell and the page on a port of this machine, for work on the page.
//!
//! `cargo run --example terminals -- [PORT] [STATE.json] [PORTS.json]`; the page then is at
//! `http://localhost:PORT/#token=dev`. The two files are served as `/v1/state` and `/v1/ports`.

use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use portable_pty::{CommandBuilder, MasterPty, PtySize, native_pty_system};
use whim::terminals::http::access::{Access, same};
use whim::terminals::http::guard::Guard;
use whim::terminals::http::{HttpState, OpenRequest, ShellError, Shells, router};
use whim::terminals::pty::{Master, PtySource};
use whim::terminals::set::TerminalSet;
use whim::terminals::size::Size;
use whim::terminals::{Exit, Kind, Terminal, TerminalId, TerminalOptions};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// With the number of the newest shell.
struct LocalShells(TerminalSet, std::sync::atomic::AtomicU32);

impl LocalShells {
    fn start(&self, id: TerminalId, kind: Kind) -> Result<Terminal, Failure> {
        let pair = native_pty_system().openpty(PtySize {
            rows: 24,
            cols: 80,
            ..PtySize::default()
        })?;
        let mut command = CommandBuilder::new("bash");
        command.env("TERM", "xterm-256color");
        let mut child = pair.slave.spawn_command(command)?;
        drop(pair.slave);
        let master = duplicate(pair.master.as_ref())?;
        let source = PtySource::new(&master)?;
        let options = TerminalOptions {
            id,
            kind,
            size: Size::DEFAULT,
            signals: None,
            keep: None,
        };
        let terminal = Terminal::start(options, source, Master::new(master)?);
        self.0.add(terminal.clone())?;
        let ended = terminal.clone();
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || {
            let code = child.wait().map_or(1, |status| status.exit_code());
            runtime.block_on(ended.exited(Exit::Code(i32::try_from(code).unwrap_or(1))));
            drop(pair.master);
        });
        Ok(terminal)
    }
}

#[expect(
    unsafe_code,
    reason = "portable-pty lends its descriptor as a number only"
)]
fn duplicate(master: &dyn MasterPty) -> Result<std::os::fd::OwnedFd, Failure> {
    let fd = master.as_raw_fd().ok_or("the PTY has no descriptor")?;
    // SAFETY: `master` keeps the descriptor open for the duration of this call.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(borrowed.try_clone_to_owned()?)
}

impl Shells for LocalShells {
    fn open(
        &self,
        _: OpenRequest,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Terminal, ShellError>> + Send + '_>> {
        let number = self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let opened = TerminalId::new(&format!("shell-{number}"))
            .map_err(Failure::from)
            .and_then(|id| self.start(id, Kind::Shell));
        Box::pin(async move { opened.map_err(|error| ShellError::Unavailable(error.to_string())) })
    }

    fn close(
        &self,
        terminal: Terminal,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), ShellError>> + Send + '_>> {
        Box::pin(async move {
            let typed = terminal.type_bytes(b"\x03\x04".to_vec()).await;
            typed.map_err(|error| ShellError::Unavailable(error.to_string()))
        })
    }
}

fn file(path: Option<String>) -> axum::routing::MethodRouter {
    get(move || {
        let body = path
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok());
        async move {
            match body {
                Some(body) => ([("content-type", "application/json")], body).into_response(),
                None => http::StatusCode::NOT_FOUND.into_response(),
            }
        }
    })
}

use axum::response::IntoResponse as _;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().unwrap_or_default().parse().unwrap_or(7681);
    let (state, ports) = (arguments.next(), arguments.next());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let set = TerminalSet::default();
        let shells = LocalShells(set.clone(), std::sync::atomic::AtomicU32::new(0));
        shells.start(TerminalId::new("main")?, Kind::Agent)?;
        let app: Router = router(HttpState {
            set,
            access: Access::new(Arc::new(|token| same(token, b"dev"))),
            guard: Guard::default(),
            shells: Arc::new(shells),
        })
        .route("/v1/state", file(state))
        .route("/v1/ports", file(ports));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = hyper_util::service::TowerToHyperService::new(app.clone());
            tokio::spawn(async move {
                let io = hyper_util::rt::TokioIo::new(stream);
                let served =
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service);
                drop(served.with_upgrades().await);
            });
        }
    })
}

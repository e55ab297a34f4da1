//! The proxies that are compared: how each is configured, started on core 1, and ended.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use whim_proxies::generation::{
    Config, GenerationProxy, Provider, Secret, Session, Upstream as Provided, serve,
};

use super::{TOKEN_FILE, runtime};

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn pinned(core: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command
        .args(["-c", core])
        .arg(program)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn ourselves() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn wait_for(address: SocketAddr) {
    let until = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "{address} does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The provider, for the whole run.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let address = free_port();
        let child = pinned("0", &ourselves())
            .args(["upstream", &address.to_string()])
            .spawn()
            .unwrap();
        wait_for(address);
        Self { address, child }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A proxy that runs.
pub(crate) struct Running {
    address: SocketAddr,
    token: String,
    child: Option<Child>,
}

impl Running {
    /// Largest resident size of the process and its children, in MB.
    pub(crate) fn memory(&self) -> f64 {
        let Some(child) = &self.child else { return 0.0 };
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let pids = fs::read_to_string(children).unwrap_or_default();
        let pids = pids
            .split_ascii_whitespace()
            .map(str::to_owned)
            .chain([child.id().to_string()]);
        let peak = |pid: String| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|l| l.starts_with("VmHWM:"))?.to_owned();
            line.split_ascii_whitespace().nth(1)?.parse::<f64>().ok()
        };
        pids.filter_map(peak).sum::<f64>() / 1024.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
            child.wait().unwrap();
        }
    }
}

/// Runs the client on core 0 and returns its figures.
pub(crate) fn client(
    what: &str,
    running: &Running,
    seconds: u64,
) -> impl Iterator<Item = f64> + use<> {
    let mut command = pinned("0", &ourselves());
    command.args([
        "client",
        what,
        &running.address.to_string(),
        &running.token,
        &seconds.to_string(),
    ]);
    let output = command
        .stderr(Stdio::inherit())
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| line.parse().unwrap())
        .collect::<Vec<f64>>()
        .into_iter()
}

type Start = Box<dyn Fn(SocketAddr) -> Command>;
type StartProgram = Box<dyn Fn(SocketAddr, &Path) -> Command>;

/// A way to the provider.
pub(crate) struct Peer {
    name: &'static str,
    cases: &'static [&'static str],
    token: Box<dyn Fn() -> String>,
    start: Option<Start>,
    upstream: SocketAddr,
}

impl Peer {
    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn supports(&self, case: &str) -> bool {
        self.cases.contains(&case)
    }

    pub(crate) fn start(&self) -> Running {
        let Some(start) = &self.start else {
            return Running {
                address: self.upstream,
                token: "none".to_owned(),
                child: None,
            };
        };
        let address = free_port();
        let child = start(address).spawn().unwrap();
        wait_for(address);
        Running {
            address,
            token: (self.token)(),
            child: Some(child),
        }
    }
}

const ALL: &[&str] = &super::client::CASES;
const POSTS: &[&str] = &["post-1", "post-32"];

pub(crate) fn all(directory: &Path, upstream: SocketAddr) -> Vec<Peer> {
    let none = || Box::new(|| "none".to_owned());
    let ours = directory.to_owned();
    let token_file = directory.join(TOKEN_FILE);
    let mut peers = vec![
        Peer {
            name: "direct",
            cases: ALL,
            token: none(),
            start: None,
            upstream,
        },
        Peer {
            name: "whim",
            cases: ALL,
            token: Box::new(move || fs::read_to_string(&token_file).unwrap()),
            start: Some(Box::new(move |address| {
                let mut command = pinned("1", &ourselves());
                command
                    .args(["proxy", &address.to_string(), &upstream.to_string()])
                    .arg(&ours);
                command
            })),
            upstream,
        },
    ];
    for role in ["relay", "http"] {
        peers.push(Peer {
            name: role,
            cases: ALL,
            token: none(),
            start: Some(Box::new(move |address| {
                let mut command = pinned("1", &ourselves());
                command.args([role, &address.to_string(), &upstream.to_string()]);
                command
            })),
            upstream,
        });
    }
    let mut add = |name, program: &str, cases, start: StartProgram| {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        match std::env::split_paths(&paths)
            .map(|dir| dir.join(program))
            .find(|path| path.is_file())
        {
            Some(path) => {
                let start: Start = Box::new(move |address| start(address, &path));
                peers.push(Peer {
                    name,
                    cases,
                    token: none(),
                    start: Some(start),
                    upstream,
                });
            }
            None => eprintln!("{name} is not installed and left out"),
        }
    };
    let dir = directory.to_owned();
    add(
        "nginx",
        "nginx",
        ALL,
        Box::new(move |address, program| {
            let config = dir.join("nginx.conf");
            fs::write(&config, nginx(address, upstream, &dir)).unwrap();
            let mut command = pinned("1", program);
            command.arg("-c").arg(config);
            command
        }),
    );
    let dir = directory.to_owned();
    add(
        "haproxy",
        "haproxy",
        ALL,
        Box::new(move |address, program| {
            let config = dir.join("haproxy.cfg");
            fs::write(&config, haproxy(address, upstream)).unwrap();
            let mut command = pinned("1", program);
            command.arg("-f").arg(config);
            command
        }),
    );
    let dir = directory.to_owned();
    add(
        "caddy",
        "caddy",
        ALL,
        Box::new(move |address, program| {
            let config = dir.join("Caddyfile");
            let text = format!(
                "{{\nadmin off\nauto_https off\n}}\nhttp://{address} {{\nreverse_proxy {upstream} {{\nflush_interval -1\n}}\n}}\n"
            );
            fs::write(&config, text).unwrap();
            let mut command = pinned("1", program);
            command
                .args(["run", "--adapter", "caddyfile", "--config"])
                .arg(config);
            command.env("GOMAXPROCS", "1");
            command
        }),
    );
    let dir = directory.to_owned();
    add(
        "litellm",
        "litellm",
        POSTS,
        Box::new(move |address, program| {
            let config = dir.join("litellm.yaml");
            let text = format!(
                "model_list:\n- model_name: claude-opus-4-8\n  litellm_params:\n    model: anthropic/claude-opus-4-8\n    \
             api_base: http://{upstream}\n    api_key: none\n"
            );
            fs::write(&config, text).unwrap();
            let mut command = pinned("1", program);
            command.args([
                "--host",
                "127.0.0.1",
                "--num_workers",
                "1",
                "--port",
                &address.port().to_string(),
                "--config",
            ]);
            command
                .arg(config)
                .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
                // Since 1.9x it does not start without a key of its own otherwise.
                .env(
                    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY",
                    "true",
                );
            command
        }),
    );
    peers
}

fn nginx(address: SocketAddr, upstream: SocketAddr, directory: &Path) -> String {
    let dir = directory.display();
    format!(
        "daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log /dev/null;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; client_max_body_size 64m; client_body_buffer_size 1m; keepalive_requests 1000000;\n\
         client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f;\n\
         uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         upstream up {{ server {upstream}; keepalive 256; keepalive_requests 1000000; }}\n\
         server {{ listen {address}; location / {{ proxy_pass http://up; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_buffering off; }} }} }}\n"
    )
}

fn haproxy(address: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  option http-no-delay\n  timeout connect 5s\n  \
         timeout client 60s\n  timeout server 60s\nfrontend f\n  bind {address}\n  default_backend b\nbackend b\n  \
         http-reuse always\n  server s {upstream}\n"
    )
}

/// Our own proxy with accounting on, as the supervisor runs it.
pub(crate) fn run_ours(address: &str, upstream: &str, directory: &Path) {
    let mut config = Config::new(directory.join("state"));
    config.caps.usd = Some("1000000".parse().unwrap());
    let proxy = GenerationProxy::open(config).unwrap();
    proxy
        .credentials()
        .set(Provider::Anthropic, Some(Secret::new("sk-none".to_owned())));
    let base = format!("http://{upstream}");
    let session = Session {
        id: "main".to_owned(),
        agent: "claude".to_owned(),
        upstreams: vec![Provided::new(Provider::Anthropic, Some(&base)).unwrap()],
    };
    let token = proxy.tokens().issue(session).unwrap();
    fs::write(directory.join(TOKEN_FILE), token.expose()).unwrap();
    runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        serve(vec![listener], proxy, std::future::pending())
            .await
            .unwrap();
    });
}

//! The local proxy alone, for side-by-side measurements: `bench-local LISTEN SERVER` forwards every request to `SERVER`
//! (an address) until it is ended. One worker thread, as its peers get one worker each.
//!
//! `compare.py` starts it beside the peers and prints the comparison.

use std::net::SocketAddr;
use std::sync::Arc;

use whim_proxies::local::{
    Access, Config, Later, Limits, Lookup, Ports, Proxy, Secret, Server, Settings, serve,
};

/// A table with one server, which never goes.
struct One(Arc<Server>);

impl Ports for One {
    fn lookup(&self, port: u16) -> Lookup {
        if port == self.0.port {
            Lookup::Known(Arc::clone(&self.0))
        } else {
            Lookup::Unknown
        }
    }

    fn default_port(&self) -> Option<u16> {
        Some(self.0.port)
    }

    fn changed(&self) -> Later {
        Box::pin(std::future::pending())
    }

    fn rescan(&self) -> Later {
        Box::pin(std::future::ready(()))
    }

    fn observed(&self, _: u16, _: bool) {}

    fn traffic(&self, _: u16) {}
}

fn main() -> std::io::Result<()> {
    let addresses: Vec<SocketAddr> = std::env::args()
        .skip(1)
        .filter_map(|argument| argument.parse().ok())
        .collect();
    match addresses[..] {
        [listen, server] => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(run(listen, server)),
        _ => Err(std::io::Error::other(
            "usage: bench-local LISTEN-ADDRESS SERVER-ADDRESS",
        )),
    }
}

async fn run(listen: SocketAddr, server: SocketAddr) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let table = One(Arc::new(Server {
        port: server.port(),
        addresses: vec![server],
        program: 1,
        http: Some(true),
    }));
    let config = Config {
        limits: Limits::default(),
        access: Access::new(&Secret::new("bench"), Vec::new()),
        preview_url: None,
        port: listen.port(),
        settings: Settings::default(),
    };
    let proxy = Proxy::new(config, Arc::new(table)).map_err(std::io::Error::other)?;
    serve(vec![listener], Arc::new(proxy), std::future::pending()).await;
    Ok(())
}

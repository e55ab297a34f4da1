//! The port monitor as the local proxy's table.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use whim_proxies::local::{Later, Lookup, Ports};

use super::handle::PortsHandle;

/// What the proxy reports back about use.
pub type Traffic = Arc<dyn Fn(u16) + Send + Sync>;

/// A table for [`whim_proxies::local::Proxy`].
#[derive(Clone)]
pub struct PreviewPorts {
    handle: PortsHandle,
    own: BTreeSet<u16>,
    traffic: Traffic,
}

impl std::fmt::Debug for PreviewPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreviewPorts")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

impl PreviewPorts {
    /// `own` are this program's ports; `traffic` is called as people use a preview (see [`Ports::traffic`]).
    #[must_use]
    pub fn new(handle: PortsHandle, own: impl IntoIterator<Item = u16>, traffic: Traffic) -> Self {
        Self {
            handle,
            own: own.into_iter().collect(),
            traffic,
        }
    }
}

impl Ports for PreviewPorts {
    fn lookup(&self, port: u16) -> Lookup {
        if self.own.contains(&port) {
            return Lookup::Own;
        }
        match self.handle.snapshot().targets.get(&port) {
            Some(target) => Lookup::Known(Arc::clone(&target.server)),
            None => Lookup::Unknown,
        }
    }

    fn default_port(&self) -> Option<u16> {
        self.handle.snapshot().default
    }

    fn changed(&self) -> Later {
        let mut picture = self.handle.watch();
        picture.mark_unchanged();
        Box::pin(async move {
            if picture.changed().await.is_err() {
                // The monitor has ended: no change will ever come.
                std::future::pending::<()>().await;
            }
        })
    }

    fn rescan(&self) -> Later {
        let handle = self.handle.clone();
        let scan: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(async move { handle.rescan().await });
        scan
    }

    fn observed(&self, port: u16, http: bool) {
        self.handle.observe(port, http);
    }

    fn traffic(&self, port: u16) {
        let is_hidden = self
            .handle
            .snapshot()
            .targets
            .get(&port)
            .is_some_and(|target| !target.is_shown);
        if is_hidden {
            // Asked for by its number: from now on it is listed.
            self.handle.name(port);
        }
        (self.traffic)(port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{Config, PortMonitor};
    use std::net::TcpListener;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use whim_proxies::local::{Access, Limits, Proxy, Secret, Settings, serve};

    async fn get(address: std::net::SocketAddr, port: u16) -> String {
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET /proxy/{port}/ HTTP/1.1\r\nHost: x\r\nX-Whim-Token: s\r\nConnection: close\r\n\r\n"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// A server in a thread that answers each connection with `body`.
    fn serve_text(
        listener: TcpListener,
        body: &'static str,
        times: usize,
    ) -> std::thread::JoinHandle<()> {
        use std::io::{Read, Write};
        std::thread::spawn(move || {
            for _ in 0..times {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 1024];
                assert!(stream.read(&mut head).unwrap() > 0);
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).unwrap();
            }
        })
    }

    #[tokio::test]
    async fn a_server_is_reachable_the_moment_it_listens_and_waited_for_while_it_restarts() {
        let (sender, _events) = tokio::sync::mpsc::channel(64);
        let config = Config {
            own: Vec::new(),
            preview_url: None,
            agents_uid: nix::unistd::geteuid().as_raw(),
            session_of: Arc::new(|_| None),
            proc: "/proc".into(),
        };
        let (_monitor, handle) = PortMonitor::start(config, sender).unwrap();
        let public = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = public.local_addr().unwrap();
        let ports = PreviewPorts::new(handle.clone(), [address.port()], Arc::new(|_| ()));
        let proxy = Proxy::new(
            whim_proxies::local::Config {
                limits: Limits::default(),
                access: Access::new(&Secret::new("s"), Vec::new()),
                preview_url: None,
                port: address.port(),
                settings: Settings::default(),
            },
            Arc::new(ports),
        )
        .unwrap();
        let served = tokio::spawn(serve(vec![public], Arc::new(proxy), std::future::pending()));
        for bind in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let listener = TcpListener::bind(bind).unwrap();
            let local = listener.local_addr().unwrap();
            let still_open = listener.try_clone().unwrap();
            let server = serve_text(listener, "first", 1);
            // Without a word to the monitor: the request itself makes it look.
            let answer = get(address, local.port()).await;
            assert!(answer.ends_with("first"), "{bind}: {answer}");
            handle.rescan().await;
            let listed = handle.list();
            assert!(
                listed.iter().any(|entry| entry.port == local.port()),
                "asked for by number, so it is listed"
            );
            server.join().unwrap();
            drop(still_open);

            let waiting = tokio::spawn(get(address, local.port()));
            let listener = socket2::Socket::new(
                socket2::Domain::for_address(local),
                socket2::Type::STREAM,
                None,
            )
            .unwrap();
            listener.set_reuse_address(true).unwrap();
            listener.bind(&local.into()).unwrap();
            listener.listen(8).unwrap();
            let server = serve_text(listener.into(), "second", 1);
            let answer = tokio::time::timeout(Duration::from_secs(10), waiting)
                .await
                .unwrap()
                .unwrap();
            assert!(answer.ends_with("second"), "{bind}: {answer}");
            server.join().unwrap();
        }
        assert!(
            get(address, address.port())
                .await
                .starts_with("HTTP/1.1 403 ")
        );
        served.abort();
    }
}

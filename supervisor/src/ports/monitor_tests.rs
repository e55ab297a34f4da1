use super::*;
use std::net::TcpListener;
use std::sync::atomic::AtomicBool;
use tokio::sync::mpsc;
use whim_wire::port::PortChange;

fn config() -> Config {
    Config {
        own: Vec::new(),
        preview_url: None,
        agents_uid: nix::unistd::geteuid().as_raw(),
        session_of: Arc::new(|pid| (pid == std::process::id()).then(|| "main".to_owned())),
        proc: "/proc".into(),
    }
}

/// The next event about one of these ports, within a generous deadline.
async fn next(
    events: &mut mpsc::Receiver<Notice>,
    ports: &[u16],
) -> (PortChange, whim_wire::port::Port) {
    let wait = async {
        loop {
            if let Notice::One(change, port) = events.recv().await.unwrap()
                && ports.contains(&port.port)
            {
                return (change, port);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap()
}

/// Tests bind to port 0 and so to the ephemeral range, which is shown only by name.
fn bind(handle: &PortsHandle, address: &str) -> (TcpListener, u16) {
    let socket = TcpListener::bind(address).unwrap();
    let port = socket.local_addr().unwrap().port();
    handle.name(port);
    (socket, port)
}

#[tokio::test]
async fn a_listener_is_announced_with_its_owner_and_its_end_too() {
    let (sender, mut events) = mpsc::channel(64);
    let (_monitor, handle) = PortMonitor::start(config(), sender).unwrap();
    for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
        let (socket, port) = bind(&handle, address);
        let (change, opened) = next(&mut events, &[port]).await;
        assert_eq!(change, PortChange::Opened);
        assert_eq!(opened.address, socket.local_addr().unwrap().ip());
        assert_eq!(opened.process.unwrap().pid, std::process::id());
        assert_eq!(opened.session.as_deref(), Some("main"));
        assert_eq!(opened.preview, format!("/proxy/{port}/"));
        assert!(handle.list().iter().any(|entry| entry.port == port));
        drop(socket);
        assert_eq!(next(&mut events, &[port]).await.0, PortChange::Closed);
        assert!(!handle.list().iter().any(|entry| entry.port == port));
    }
}

#[tokio::test]
async fn after_a_rescan_the_picture_holds_what_listened_before_it() {
    let (sender, _events) = mpsc::channel(64);
    let (_monitor, handle) = PortMonitor::start(config(), sender).unwrap();
    for _ in 0..50 {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        handle.rescan().await;
        assert_eq!(
            handle.snapshot().targets[&port].server.addresses,
            [socket.local_addr().unwrap()]
        );
    }
}

#[tokio::test]
async fn a_failed_scan_is_not_no_ports() {
    let directory = tempfile::tempdir().unwrap();
    let line = "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 4242 1 0 100 0 0 10 0\n";
    let net = directory.path().join("net");
    std::fs::create_dir(&net).unwrap();
    std::fs::write(net.join("tcp"), format!("header\n{line}")).unwrap();
    let (sender, _events) = mpsc::channel(64);
    let config = Config {
        proc: directory.path().into(),
        ..config()
    };
    let (_monitor, handle) =
        PortMonitor::start_with(config, sender, Scanner::without_diag).unwrap();
    handle.rescan().await;
    assert_eq!(handle.list().len(), 1);
    std::fs::remove_file(net.join("tcp")).unwrap();
    handle.rescan().await;
    assert_eq!(handle.list().len(), 1, "kept through the failure");
    std::fs::write(net.join("tcp"), "header\n").unwrap();
    handle.rescan().await;
    assert!(handle.list().is_empty(), "a list without it is its end");
}

#[tokio::test]
async fn a_reader_that_does_not_read_costs_no_more_than_its_channel() {
    let (sender, mut events) = mpsc::channel(1);
    let (_monitor, handle) = PortMonitor::start(config(), sender).unwrap();
    let sockets: Vec<_> = (0..30).map(|_| bind(&handle, "127.0.0.1:0")).collect();
    let ports: Vec<u16> = sockets.iter().map(|(_, port)| *port).collect();
    handle.rescan().await;
    let mut heard = std::collections::BTreeSet::new();
    let wait = async {
        while heard.len() < ports.len() {
            match events.recv().await.unwrap() {
                Notice::One(_, port) => {
                    heard.extend(ports.contains(&port.port).then_some(port.port))
                }
                Notice::Many(event) => heard.extend(
                    event
                        .ports
                        .iter()
                        .map(|entry| entry.port.port)
                        .filter(|port| ports.contains(port)),
                ),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_thread_ends_with_the_monitor() {
    let (sender, mut events) = mpsc::channel(8);
    let (monitor, handle) = PortMonitor::start(config(), sender).unwrap();
    handle.rescan().await;
    drop(monitor);
    while events.recv().await.is_some() {}
    let returned = AtomicBool::new(false);
    tokio::time::timeout(Duration::from_secs(5), async {
        handle.rescan().await;
        returned.store(true, Ordering::SeqCst);
    })
    .await
    .unwrap();
    assert!(
        returned.load(Ordering::SeqCst),
        "nobody waits for an ended monitor"
    );
}

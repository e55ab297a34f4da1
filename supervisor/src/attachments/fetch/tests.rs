//! Against https servers of the test's own, on loopback: what is permitted there is said by the test's dialer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rcgen::{CertifiedKey, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use whim_proxies::http::dial::{OutboundProxies, Resolve, Resolving};

use super::*;

/// Stands for the public internet here.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
/// Stands for an address inside.
const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// `files.example` is outside, `inside.example` is not, `both.example` says both.
#[derive(Debug)]
struct Names;

impl Resolve for Names {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            match host {
                "files.example" => Ok(vec![PUBLIC.into()]),
                "inside.example" => Ok(vec![INSIDE.into()]),
                "both.example" => Ok(vec![PUBLIC.into(), INSIDE.into()]),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        })
    }
}

struct Authority {
    pem: String,
    acceptor: TlsAcceptor,
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

/// One certificate for all of the test's servers.
fn authority() -> &'static Authority {
    static ONE: OnceLock<Authority> = OnceLock::new();
    ONE.get_or_init(|| {
        let names = [
            "files.example",
            "inside.example",
            "both.example",
            "127.0.0.2",
        ];
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(names.map(str::to_owned)).unwrap();
        let key = PrivateKeyDer::try_from(KeyPair::serialize_der(&signing_key)).unwrap();
        let chain = vec![CertificateDer::from(cert.der().to_vec())];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Authority {
            pem: pem(cert.der()),
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    })
}

fn dialer() -> Dialer {
    let pem = &authority().pem;
    Dialer::new(
        Arc::new(Names),
        OutboundProxies::default(),
        Some(pem),
        Duration::from_secs(10),
    )
    .unwrap()
    .only_to(|address| address == IpAddr::from(PUBLIC))
}

/// An https server that answers each path as told, and counts connections.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start(
        address: Ipv4Addr,
        answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
        };
        let (count, answer) = (server.connections.clone(), Arc::new(answer));
        drop(tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                drop(tokio::spawn(async move {
                    let Ok(mut tls) = authority().acceptor.accept(tcp).await else {
                        return;
                    };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match tls.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_) => return,
                        }
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let path = head.split(' ').nth(1).unwrap_or_default();
                    // A client that has heard enough hangs up.
                    if tls.write_all(&answer(path)).await.is_ok() {
                        drop(tls.shutdown().await);
                    }
                }));
            }
        }));
        server
    }

    fn link(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.address.port())
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn ok(body: &[u8]) -> Vec<u8> {
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [answer.as_bytes(), body].concat()
}

fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

async fn outcome(link: &str) -> Result<Vec<u8>, FetchError> {
    fetch(&dialer(), link).await
}

#[tokio::test]
async fn a_file_comes_whole_also_through_redirects() {
    let server = Server::start(PUBLIC, |path| match path {
        "/file?sig=secret" => ok(b"the file"),
        _ => ok(b"another"),
    })
    .await;
    let bytes = outcome(&server.link("files.example", "/file?sig=secret")).await;
    assert_eq!(bytes.unwrap(), b"the file");
    let port = server.address.port();
    let chain = Server::start(PUBLIC, move |path| match path.strip_prefix('/') {
        Some("0") => redirect(&format!("https://files.example:{port}/file?sig=secret")),
        Some(number) => redirect(&format!("/{}", number.parse::<u32>().unwrap() - 1)),
        None => ok(b""),
    })
    .await;
    let five = outcome(&chain.link("files.example", "/4")).await;
    assert_eq!(five.unwrap(), b"the file");
    let six = outcome(&chain.link("files.example", "/5")).await;
    assert!(matches!(six, Err(FetchError::Redirects)), "{six:?}");
}

#[tokio::test]
async fn nothing_inside_is_ever_connected_to() {
    let inside = Server::start(INSIDE, |_| ok(b"the keys of the platform")).await;
    let (by_name, by_address) = (
        inside.link("inside.example", "/"),
        inside.link("127.0.0.2", "/"),
    );
    let both = inside.link("both.example", "/");
    let targets = [by_name.clone(), by_address.clone(), both.clone()];
    let outside = Server::start(PUBLIC, move |path| {
        let number: usize = path.trim_start_matches('/').parse().unwrap();
        redirect(targets.get(number).unwrap())
    })
    .await;
    for link in [by_name, by_address, both] {
        let refused = outcome(&link).await;
        assert!(matches!(refused, Err(FetchError::Forbidden)), "{refused:?}");
    }
    for path in ["/0", "/1", "/2"] {
        let refused = outcome(&outside.link("files.example", path)).await;
        assert!(matches!(refused, Err(FetchError::Forbidden)), "{refused:?}");
    }
    assert_eq!(inside.connections(), 0);
    assert_eq!(outside.connections(), 3);
}

#[tokio::test]
async fn only_https_and_no_logins() {
    let server = Server::start(PUBLIC, |path| match path {
        "/http" => redirect("http://files.example/x"),
        "/login" => redirect("https://user:pw@files.example/x"),
        "/file" => redirect("file:///etc/passwd"),
        _ => ok(b""),
    })
    .await;
    for path in ["/http", "/login", "/file"] {
        let refused = outcome(&server.link("files.example", path)).await;
        assert!(
            matches!(refused, Err(FetchError::Redirect(_))),
            "{path}: {refused:?}"
        );
    }
    for link in [
        "http://files.example/",
        "ftp://x/",
        "https://u:p@files.example/",
        "x",
        "file:///etc/passwd",
    ] {
        let refused = outcome(link).await;
        assert!(
            matches!(refused, Err(FetchError::Url(_))),
            "{link}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn links_that_have_ended_are_told_as_such_and_without_their_secret() {
    let server = Server::start(PUBLIC, |path| {
        let code = path.split(['/', '?']).nth(1).unwrap_or_default();
        format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n").into_bytes()
    })
    .await;
    for code in ["403", "404", "410"] {
        let link = server.link("files.example", &format!("/{code}?signature=hunter2"));
        let error = outcome(&link).await.unwrap_err();
        assert!(matches!(error, FetchError::Expired(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
    let error = outcome(&server.link("files.example", "/500")).await;
    assert!(matches!(error, Err(FetchError::Status(_))), "{error:?}");
}

#[tokio::test]
async fn a_file_that_is_too_large_is_cut_off_however_it_is_sent() {
    let server = Server::start(PUBLIC, |path| match path {
        "/announced" => format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            MOST_BYTES + 1
        )
        .into_bytes(),
        "/exact" => ok(&vec![7; MOST_BYTES]),
        _ => [
            &b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"[..],
            &vec![7; MOST_BYTES + 1],
        ]
        .concat(),
    })
    .await;
    for path in ["/announced", "/streamed"] {
        let error = outcome(&server.link("files.example", path)).await;
        assert!(matches!(error, Err(FetchError::TooLarge)), "{path}");
    }
    let exact = outcome(&server.link("files.example", "/exact")).await;
    assert_eq!(exact.unwrap().len(), MOST_BYTES);
}

#[tokio::test]
async fn programs_are_refused_by_what_they_are_and_broken_files_are_not_taken() {
    let server = Server::start(PUBLIC, |path| match path {
        "/script" => ok(b"#!/bin/sh\nid"),
        "/elf" => ok(b"\x7fELF\x02\x01\x01"),
        "/gzip" => {
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx".to_vec()
        }
        _ => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec(),
    })
    .await;
    for path in ["/script", "/elf"] {
        let error = outcome(&server.link("files.example", path)).await;
        assert!(matches!(error, Err(FetchError::Executable(_))), "{error:?}");
    }
    let encoded = outcome(&server.link("files.example", "/gzip")).await;
    assert!(
        matches!(encoded, Err(FetchError::Encoded(_))),
        "{encoded:?}"
    );
    let half = outcome(&server.link("files.example", "/half")).await;
    assert!(matches!(half, Err(FetchError::Broken { .. })), "{half:?}");
}

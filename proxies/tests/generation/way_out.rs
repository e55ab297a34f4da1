//! Through a company's proxy, to a provider whose certificate only the company's authority signed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use whim_proxies::generation::Provider;
use whim_proxies::http::dial::OutboundProxies;

use crate::kit::*;

/// Opens tunnels, each to a TLS server that passes on to the provider.
struct Company {
    address: SocketAddr,
    authority: String,
    /// Heads of the requests for a tunnel.
    asked: Arc<Mutex<Vec<String>>>,
}

async fn head_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

impl Company {
    async fn start(provider: SocketAddr) -> Self {
        let key = rcgen::generate_simple_self_signed(vec!["model.example".to_owned()]).unwrap();
        let authority = key.cert.pem();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                key.signing_key.serialize_der().try_into().unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heads = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (acceptor, heads) = (acceptor.clone(), Arc::clone(&heads));
                tokio::spawn(async move {
                    let head = head_of(&mut stream).await;
                    heads.lock().unwrap().push(head);
                    stream
                        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                        .await
                        .unwrap();
                    // Fails when the other side does not trust us.
                    let Ok(mut tls) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut provider = TcpStream::connect(provider).await.unwrap();
                    tokio::io::copy_bidirectional(&mut tls, &mut provider)
                        .await
                        .ok();
                });
            }
        });
        Self {
            address,
            authority,
            asked,
        }
    }

    fn proxies(&self) -> OutboundProxies {
        let url = format!("http://whim:p%40ss@{}", self.address);
        OutboundProxies::new(Some(&url), None, None).unwrap()
    }
}

async fn turn(company: &Company, mock: &Mock, trusted: bool) -> Reply {
    let (proxies, authority) = (company.proxies(), company.authority.clone());
    let mut setup = to(Provider::Anthropic, mock).with(move |config| {
        config.proxies = proxies;
        config.extra_roots = trusted.then_some(authority);
    });
    setup.bases = vec!["https://model.example".to_owned()];
    let proxy = setup.start().await;
    let mut client = proxy.connect().await;
    client
        .send(&proxy.request("/v1/messages", TURN.as_bytes()))
        .await;
    within("the answer", client.reply()).await
}

#[tokio::test]
async fn the_companys_proxy_and_authority_are_used() {
    let mock = Mock::always(sse(anthropic_stream(1))).await;
    let company = Company::start(mock.address).await;
    let reply = turn(&company, &mock, true).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.whole);
    let asked = company.asked.lock().unwrap().clone();
    let [head] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert!(
        head.starts_with("CONNECT model.example:443 HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("Proxy-Authorization: Basic d2hpbTpwQHNz\r\n"),
        "{head}"
    );
    let seen = mock.seen.lock().unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("host"), Some("model.example"));
}

#[tokio::test]
async fn without_the_authority_nothing_is_told_to_who_answers() {
    let mock = Mock::always(sse(anthropic_stream(1))).await;
    let company = Company::start(mock.address).await;
    let reply = turn(&company, &mock, false).await;
    assert_eq!(reply.status, 502, "{}", reply.text());
    assert!(
        reply.text().contains("TLS with model.example:443 failed"),
        "{}",
        reply.text()
    );
    assert!(mock.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_websocket_takes_the_same_way() {
    let speaker = Speaker::start().await;
    let company = Company::start(speaker.address).await;
    let (proxies, authority) = (company.proxies(), company.authority.clone());
    let mut setup = speaker.setup().with(move |config| {
        config.proxies = proxies;
        config.extra_roots = Some(authority);
    });
    setup.bases = vec!["https://model.example".to_owned()];
    let proxy = setup.start().await;
    let ((_, mut agent), (asked, mut model)) = tokio::join!(proxy.switch(), speaker.accept());
    assert_eq!(asked.headers()["host"], "model.example");
    let asked = company.asked.lock().unwrap().clone();
    assert!(
        asked[0].starts_with("CONNECT model.example:443 HTTP/1.1\r\n"),
        "{asked:?}"
    );
    agent.say(&create(None)).await;
    assert_eq!(model.hear().await, create(None));
}

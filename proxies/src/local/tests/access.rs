//! Who gets in, and what is said to whom does not.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::{Change, Limits, Server};
use super::kit::{Kit, SECRET, answering, head, ok};

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn without_a_right_nothing_is_told_and_nothing_is_sent() {
    let kit = Kit::new().await;
    let (port, connections) = answering(|_| ok("secret page")).await;
    kit.table.up(port);
    let own = kit.address.port();
    for target in [
        format!("/proxy/{port}/"),
        format!("/proxy/{own}/"),
        "/proxy/1/".into(),
        "/proxy/0/".into(),
        "/".into(),
    ] {
        for extra in [
            "",
            "X-Whim-Token: wrong\n",
            "X-Whim-Token: \n",
            "Cookie: __whim=x\n",
            "Authorization: Bearer router-secret\n",
        ] {
            let answer = kit
                .raw(&format!(
                    "GET {target} HTTP/1.1\nHost: x\n{extra}Connection: close\n\n"
                ))
                .await;
            assert_eq!(status(&answer), "401", "{target} {extra}");
            assert!(answer.contains("WWW-Authenticate: "));
        }
    }
    let twice = format!(
        "GET /proxy/{port}/ HTTP/1.1\nHost: x\nX-Whim-Token: {SECRET}\nX-Whim-Token: wrong\nConnection: close\n\n"
    );
    assert_eq!(status(&kit.raw(&twice).await), "401");
    let page = kit
        .raw(&format!(
            "GET /proxy/{port}/ HTTP/1.1\nHost: x\nAccept: text/html\nConnection: close\n\n"
        ))
        .await;
    assert!(
        page.contains("text/html") && page.contains("whim ports share"),
        "{page}"
    );
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    assert_eq!(kit.table.traffic.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_router_learns_what_there_is() {
    let kit = Kit::new().await;
    let (port, connections) = answering(|_| ok("x")).await;
    kit.table.set(
        port,
        Server {
            port,
            addresses: vec![([127, 0, 0, 1], port).into()],
            program: 1,
            http: Some(false),
        },
    );
    let own = kit.address.port();
    for (target, expected) in [
        (format!("/proxy/{own}/"), "403"),
        ("/proxy/1/".into(), "404"),
        ("/proxy/0/".into(), "404"),
        ("/proxy/65536/".into(), "404"),
        ("/proxy/03000/".into(), "404"),
        ("/".into(), "404"),
        (format!("/proxy/{port}/"), "502"),
    ] {
        let answer = kit
            .raw(&format!(
                "GET {target} HTTP/1.1\nHost: x\nX-Whim-Token: {SECRET}\nConnection: close\n\n"
            ))
            .await;
        assert_eq!(status(&answer), expected, "{target}");
    }
    assert_eq!(
        connections.load(Ordering::SeqCst),
        0,
        "known not to speak HTTP: not a byte"
    );
}

#[tokio::test]
async fn a_link_becomes_a_cookie_for_its_port_and_ends_when_revoked() {
    let kit = Kit::with(Limits::default(), Some("https://{port}-x.example/")).await;
    let (port, _) = answering(ok).await;
    let (other, _) = answering(|_| ok("other")).await;
    kit.table.up(port);
    kit.table.up(other);
    let link = kit
        .proxy
        .create_link(port, Duration::from_secs(60))
        .unwrap();
    let token = link
        .url
        .strip_prefix(&format!("https://{port}-x.example/?whim_link="))
        .unwrap()
        .to_owned();
    let get = |port: u16, target: &str, extra: &str| {
        format!("GET {target} HTTP/1.1\nHost: {port}-x.example\n{extra}Connection: close\n\n")
    };

    let answer = kit
        .raw(&get(port, &format!("/a?x=1&whim_link={token}"), ""))
        .await;
    assert_eq!(status(&answer), "303");
    assert_eq!(field(&answer, "Location"), Some("/a?x=1"));
    let cookie = field(&answer, "Set-Cookie").unwrap();
    for attribute in ["; Path=/;", "; HttpOnly", "; Secure", "; Partitioned"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Domain"));
    let again = kit
        .raw(&get(port, &format!("/?whim_link={token}"), ""))
        .await;
    assert_eq!(
        status(&again),
        "303",
        "a scanner that came first used nothing up"
    );

    let cookie = format!("Cookie: a=1; {}\n", cookie.split(';').next().unwrap());
    let seen = kit.raw(&get(port, "/a", &cookie)).await;
    assert_eq!(status(&seen), "200");
    assert!(
        seen.contains("Cookie: a=1\r\n") && !seen.contains(&token) && !seen.contains("__whim"),
        "{seen}"
    );
    assert_eq!(status(&kit.raw(&get(other, "/", &cookie)).await), "401");

    kit.proxy.revoke_link(&link.id).unwrap();
    assert_eq!(status(&kit.raw(&get(port, "/a", &cookie)).await), "401");
    assert_eq!(
        status(
            &kit.raw(&get(port, &format!("/?whim_link={token}"), ""))
                .await
        ),
        "401"
    );
}

#[tokio::test]
async fn a_takeover_suspends_links_until_the_port_is_confirmed() {
    let kit = Kit::new().await;
    let (port, connections) = answering(|_| ok("hi")).await;
    kit.table.up(port);
    let link = kit
        .proxy
        .create_link(port, Duration::from_secs(60))
        .unwrap();
    let target = link.url.replace("/?", "/x?");
    let ask = || async {
        let text = format!("GET {target} HTTP/1.1\nHost: x\nConnection: close\n\n");
        status(&kit.raw(&text).await).to_owned()
    };
    assert_eq!(ask().await, "303");
    kit.table.set(
        port,
        Server {
            port,
            addresses: vec![([127, 0, 0, 1], port).into()],
            program: 8,
            http: None,
        },
    );
    assert_eq!(ask().await, "401");
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    let confirm = Change {
        confirm: true,
        ..Change::default()
    };
    kit.proxy.change(port, confirm);
    assert_eq!(ask().await, "303");
}

#[tokio::test]
async fn public_is_a_choice_per_port() {
    let kit = Kit::new().await;
    let (port, _) = answering(|_| ok("hi")).await;
    kit.table.up(port);
    let text = format!("GET /proxy/{port}/ HTTP/1.1\nHost: x\nConnection: close\n\n");
    assert_eq!(status(&kit.raw(&text).await), "401");
    let public = |public| Change {
        public: Some(public),
        ..Change::default()
    };
    kit.proxy.change(port, public(true));
    assert_eq!(status(&kit.raw(&text).await), "200");
    kit.proxy.change(port, public(false));
    assert_eq!(status(&kit.raw(&text).await), "401");
}

#[tokio::test]
async fn a_loop_is_cut() {
    let kit = Kit::new().await;
    let address = kit.address;
    // A server that sends every request back to the proxy, as a misconfigured development proxy does.
    let (port, connections) = super::kit::server(move |mut client| async move {
        let head = client.until("\r\n\r\n").await;
        let mut back = super::kit::Client::connect(address).await;
        let (first, rest) = head.split_once("\r\n").unwrap();
        back.send(format!("{first}\r\nX-Whim-Token: {SECRET}\r\nX-Whim-Port: {}\r\nConnection: close\r\n{rest}", client.stream.local_addr().unwrap().port()).as_bytes()).await;
        let answer = back.rest().await;
        client.send(answer.as_bytes()).await;
    })
    .await;
    kit.table.up(port);
    let answer = kit.ask(port, "GET / HTTP/1.1", b"").await;
    assert_eq!(status(&answer), "508", "{answer}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_default_port_serves_what_names_none() {
    let kit = Kit::new().await;
    let (port, _) = answering(|_| ok("default")).await;
    kit.table.up(port);
    *kit.table.default.lock().unwrap() = Some(port);
    let answer = kit
        .raw(&format!(
            "GET / HTTP/1.1\nHost: x\nX-Whim-Token: {SECRET}\nConnection: close\n\n"
        ))
        .await;
    assert!(answer.ends_with("default"), "{answer}");
}

#[tokio::test]
async fn a_preflight_is_the_applications() {
    let kit = Kit::new().await;
    let (port, _) = answering(|head| {
        ok(&format!(
            "{} {}",
            head.split(' ').next().unwrap(),
            head.contains("Origin: https://5173-x.example")
        ))
    })
    .await;
    kit.table.up(port);
    let answer = kit.ask(port, "OPTIONS /api HTTP/1.1\nOrigin: https://5173-x.example\nAccess-Control-Request-Method: POST", b"").await;
    assert!(answer.ends_with("OPTIONS true"), "{answer}");
}

#[tokio::test]
async fn the_path_form_needs_its_slash() {
    let kit = Kit::new().await;
    let (port, _) = answering(|head| ok(head.lines().next().unwrap())).await;
    kit.table.up(port);
    let ask = |target: String| {
        kit.raw_owned(format!(
            "GET {target} HTTP/1.1\nHost: x\nX-Whim-Token: {SECRET}\nConnection: close\n\n"
        ))
    };
    let answer = ask(format!("/proxy/{port}?q")).await;
    assert_eq!(
        (status(&answer), field(&answer, "Location")),
        ("308", Some(format!("/proxy/{port}/?q").as_str()))
    );
    assert!(
        ask(format!("/proxy/{port}/a"))
            .await
            .ends_with("GET /a HTTP/1.1")
    );
    assert!(
        ask(format!("/absproxy/{port}/a"))
            .await
            .ends_with(&format!("GET /absproxy/{port}/a HTTP/1.1"))
    );
    let header = head(port, "GET /proxy/1/a HTTP/1.1\nConnection: close");
    let mut client = super::kit::Client::connect(kit.address).await;
    client.send(&header).await;
    assert!(client.rest().await.ends_with("GET /proxy/1/a HTTP/1.1"));
}

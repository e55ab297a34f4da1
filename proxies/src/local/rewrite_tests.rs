use super::super::cookies::parameter;
use super::super::head::request as parse;
use super::super::wire;
use super::*;
use bytes::BytesMut;
use proptest::prelude::*;

fn route(form: Form, is_trusted: bool) -> Route {
    Route {
        port: 3000,
        form,
        public: Public {
            scheme: "https",
            authority: Bytes::from_static(b"3000-x.example"),
        },
        is_trusted,
        peer: "10.1.2.3:5555".parse().unwrap(),
        preview_url: None,
        via: "1.1 whim-test".into(),
    }
}

fn sent(text: &str, route: &Route, guise: Guise) -> String {
    let mut out = Vec::new();
    request(&parse(text), route, guise, &mut out);
    String::from_utf8(out).unwrap()
}

fn answered(fields: &str, route: &Route, guise: Guise) -> String {
    let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
    let (head, _) = wire::response(
        &mut BytesMut::from(text.as_str()),
        &super::super::Limits::default(),
        false,
    )
    .unwrap()
    .unwrap();
    let mut out = Vec::new();
    response(&head, route, guise, false, &[], &mut out);
    let text = String::from_utf8(out).unwrap();
    text.strip_prefix("HTTP/1.1 200 OK\r\n").unwrap().to_owned()
}

#[test]
fn ours_never_reaches_the_server_and_its_own_does_unchanged() {
    let out = sent(
        "GET /a?x=1&whim_link=abc&y HTTP/1.1\nHost: 3000-x.example\nX-Whim-Token: t\nX-WHIM-Port: 3000\n\
         Cookie: a=1; __whim=secret; b=2\nAuthorization: Bearer app\nReferer: https://3000-x.example/?whim_link=abc\n\
         X-CuStOm: Kept\nConnection: keep-alive, X-Drop\nX-Drop: 1\nProxy-Authorization: x\nTE: gzip, trailers",
        &route(Form::Host, true),
        Guise::Public,
    );
    assert!(out.starts_with("GET /a?x=1&y HTTP/1.1\r\nHost: 3000-x.example\r\n"));
    for kept in [
        "Authorization: Bearer app\r\n",
        "X-CuStOm: Kept\r\n",
        "Cookie: a=1; b=2\r\n",
        "TE: trailers\r\n",
        "Referer: https://3000-x.example/\r\n",
    ] {
        assert!(out.contains(kept), "{kept} in {out}");
    }
    for gone in [
        "whim_link",
        "X-Whim",
        "X-WHIM",
        "__whim",
        "secret",
        "X-Drop",
        "Proxy-Auth",
        "gzip",
    ] {
        assert!(!out.contains(gone), "{gone} in {out}");
    }
    let alone = sent(
        "GET / HTTP/1.1\nHost: x\nCookie: __whim=secret",
        &route(Form::Host, true),
        Guise::Public,
    );
    assert!(!alone.contains("Cookie"));
}

#[test]
fn what_a_stranger_says_about_others_is_overwritten_and_what_the_router_says_is_kept() {
    let said = "GET / HTTP/1.1\nHost: 3000-x.example\nX-Forwarded-For: 1.1.1.1\nX-Forwarded-Host: evil\n\
                X-Forwarded-Proto: gopher\nForwarded: for=1.1.1.1\nX-Real-IP: 1.1.1.1\nX-Forwarded-Prefix: /e";
    let stranger = sent(said, &route(Form::Host, false), Guise::Public);
    for line in [
        "X-Forwarded-For: 10.1.2.3",
        "X-Forwarded-Host: 3000-x.example",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 443",
        "X-Real-IP: 10.1.2.3",
        "Forwarded: for=10.1.2.3;host=\"3000-x.example\";proto=https",
    ] {
        assert!(
            stranger.contains(&format!("{line}\r\n")),
            "{line} in {stranger}"
        );
    }
    assert!(
        !stranger.contains("1.1.1.1") && !stranger.contains("evil") && !stranger.contains("Prefix")
    );
    let router = sent(said, &route(Form::Host, true), Guise::Public);
    for line in [
        "X-Forwarded-For: 1.1.1.1, 10.1.2.3",
        "X-Forwarded-Host: evil",
        "Forwarded: for=1.1.1.1",
        "X-Real-IP: 1.1.1.1",
    ] {
        assert!(
            router.contains(&format!("{line}\r\n")),
            "{line} in {router}"
        );
    }
    assert!(!router.contains("Host: 3000-x.example\r\nX-Forwarded-Host: 3000-x.example"));
}

#[test]
fn as_localhost_only_the_exactly_matching_origin_changes() {
    for (origin, expected) in [
        ("https://3000-x.example", "http://localhost:3000"),
        ("HTTPS://3000-X.example", "http://localhost:3000"),
        ("http://3000-x.example", "http://3000-x.example"),
        ("https://3000-x.example.evil", "https://3000-x.example.evil"),
        ("https://3000-x.example:444", "https://3000-x.example:444"),
        ("https://evil", "https://evil"),
        ("null", "null"),
    ] {
        let text =
            format!("GET / HTTP/1.1\nHost: 3000-x.example\nOrigin: {origin}\nX-Forwarded-Host: y");
        let out = sent(&text, &route(Form::Host, true), Guise::Localhost);
        assert!(out.contains(&format!("Origin: {expected}\r\n")), "{out}");
        assert!(out.contains("Host: localhost:3000\r\n"));
        assert!(!out.contains("X-Forwarded-Host") && !out.contains("Forwarded: "));
        let as_is = sent(&text, &route(Form::Host, true), Guise::Public);
        assert!(as_is.contains(&format!("Origin: {origin}\r\n")));
    }
}

#[test]
fn redirects_lead_back_to_the_preview() {
    let mut named = route(Form::Host, true);
    named.preview_url = Some("https://{port}-t.example/".into());
    for (route, location, expected) in [
        (
            &route(Form::Host, true),
            "http://localhost:3000/x?y#z",
            "https://3000-x.example/x?y#z",
        ),
        (
            &route(Form::Host, true),
            "//localhost:3000/x",
            "https://3000-x.example/x",
        ),
        (
            &route(Form::Host, true),
            "http://127.0.0.1:3000",
            "https://3000-x.example",
        ),
        (
            &route(Form::Host, true),
            "http://[::1]:3000/",
            "https://3000-x.example/",
        ),
        (
            &route(Form::Host, true),
            "http://localhost:4000/x",
            "https://4000-x.example/x",
        ),
        (
            &named,
            "http://localhost:4000/x",
            "https://4000-t.example/x",
        ),
        (
            &route(Form::Header, true),
            "http://localhost:4000/x",
            "http://localhost:4000/x",
        ),
        (
            &route(Form::Host, true),
            "https://github.com/login",
            "https://github.com/login",
        ),
        (
            &route(Form::Host, true),
            "http://localhost.evil:3000/",
            "http://localhost.evil:3000/",
        ),
        (&route(Form::Host, true), "/x", "/x"),
        (&route(Form::Host, true), "x", "x"),
        (&route(Form::Stripped(11), true), "/x", "/proxy/3000/x"),
        (
            &route(Form::Stripped(11), true),
            "/proxy/3000/x",
            "/proxy/3000/x",
        ),
        (
            &route(Form::Stripped(11), true),
            "/proxy/30001",
            "/proxy/3000/proxy/30001",
        ),
        (&route(Form::Stripped(11), true), "x", "x"),
        (&route(Form::Stripped(11), true), "//other/x", "//other/x"),
        (
            &route(Form::Stripped(11), true),
            "http://localhost:3000/x",
            "https://3000-x.example/proxy/3000/x",
        ),
        (
            &route(Form::Stripped(11), true),
            "http://localhost:4000/x",
            "https://3000-x.example/proxy/4000/x",
        ),
        (
            &route(Form::Stripped(11), true),
            "https://3000-x.example/x",
            "https://3000-x.example/proxy/3000/x",
        ),
        (
            &route(Form::Kept(14), true),
            "/absproxy/3000/x",
            "/absproxy/3000/x",
        ),
        (&route(Form::Host, true), "/x?whim_link=stolen", "/x"),
    ] {
        assert_eq!(
            answered(&format!("Location: {location}"), route, Guise::Public),
            format!("Location: {expected}\r\n"),
            "{location} {:?}",
            route.form
        );
    }
    assert_eq!(
        answered(
            "Refresh: 5; URL=http://localhost:3000/x",
            &route(Form::Host, true),
            Guise::Public
        ),
        "Refresh: 5; URL=https://3000-x.example/x\r\n"
    );
}

#[test]
fn cookies_stay_with_their_preview() {
    for (form, cookie, expected) in [
        (
            Form::Host,
            "a=1; Domain=localhost; Path=/",
            Some("a=1; Path=/"),
        ),
        (Form::Host, "a=1; Domain=.example", Some("a=1")),
        (
            Form::Host,
            "a=1; domain=3000-x.example",
            Some("a=1; domain=3000-x.example"),
        ),
        (
            Form::Host,
            "a=1; SameSite=None",
            Some("a=1; SameSite=None; Secure"),
        ),
        (
            Form::Host,
            "a=1; SameSite=None; Secure",
            Some("a=1; SameSite=None; Secure"),
        ),
        (
            Form::Host,
            "__Host-a=1; Secure; Path=/",
            Some("__Host-a=1; Secure; Path=/"),
        ),
        (
            Form::Stripped(11),
            "a=1; Path=/",
            Some("a=1; Path=/proxy/3000/"),
        ),
        (
            Form::Stripped(11),
            "__Host-a=1; Secure; Path=/",
            Some("__Host-a=1; Secure; Path=/"),
        ),
        (Form::Host, "__whim=forged", None),
        (Form::Host, " __whim =forged", None),
    ] {
        let out = answered(
            &format!("Set-Cookie: {cookie}"),
            &route(form, true),
            Guise::Public,
        );
        match expected {
            Some(expected) => assert_eq!(out, format!("Set-Cookie: {expected}\r\n")),
            None => assert_eq!(out, ""),
        }
    }
}

#[test]
fn what_would_reach_beyond_the_preview_is_dropped_from_answers() {
    let out = answered(
        "X-Whim-Anything: 1\r\nService-Worker-Allowed: /\r\nClear-Site-Data: \"*\"\r\nKeep-Alive: timeout=5\r\n\
         Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nUpgrade: h2c\r\nETag: \"x\"\r\nAccess-Control-Allow-Origin: http://localhost:3000",
        &route(Form::Host, true),
        Guise::Localhost,
    );
    assert_eq!(
        out,
        "ETag: \"x\"\r\nAccess-Control-Allow-Origin: https://3000-x.example\r\n"
    );
}

#[test]
fn the_target_is_what_the_server_should_see() {
    for (asked, form, expected) in [
        ("/proxy/3000/a/b?c", Form::Stripped(11), "/a/b?c"),
        ("/proxy/3000", Form::Stripped(11), "/"),
        ("/proxy/3000?x", Form::Stripped(11), "/?x"),
        ("/proxy/3000//evil", Form::Stripped(11), "//evil"),
        ("/absproxy/3000/a", Form::Kept(14), "/absproxy/3000/a"),
        ("/a%2Fb;c?d=%20&whim_link=", Form::Host, "/a%2Fb;c?d=%20"),
        ("*", Form::Host, "*"),
    ] {
        let head = parse(&format!("OPTIONS {asked} HTTP/1.1\nHost: x"));
        assert_eq!(target(&head, form), expected.as_bytes(), "{asked}");
    }
}

proptest! {
    #[test]
    fn a_query_without_ours_is_untouched(query in "[a-z=&%?/+]{0,30}") {
        let address = format!("/p?{query}");
        prop_assert_eq!(without_parameter(address.as_bytes()), address.as_bytes());
        let with = format!("/p?{query}&whim_link=x");
        prop_assert_eq!(without_parameter(with.as_bytes()), address.as_bytes());
        prop_assert_eq!(parameter(with.as_bytes()), Some(&b"x"[..]));
    }

    #[test]
    fn no_location_breaks_it_or_smuggles_a_line(location in "[ -~]{0,60}") {
        let out = answered(&format!("Location: {location}"), &route(Form::Stripped(11), true), Guise::Public);
        prop_assert_eq!(out.matches("\r\n").count(), 1);
    }
}

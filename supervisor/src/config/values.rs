//! Single values as flags, variables and specs give them. Pure; each check says what is wrong in words that complete
//! "it …".

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use url::Url;

use super::validate::MAX_TEXT;

/// What to do about a bad URL of a store.
pub const STORE_REMEDY: &str = "give file:///path, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or the backend's https URL";
/// What to do about a bad prompt.
pub const PROMPT_REMEDY: &str = "give plain text of at most 1 MiB; newlines and tabs are fine";
/// What to do about a bad command.
pub const COMMAND_REMEDY: &str = "give an array of strings, the program first";

/// A TCP port; 0 lets the kernel choose.
pub fn port(text: &str) -> Result<u16, &'static str> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("is no port");
    }
    text.parse().map_err(|_| "is no port")
}

/// An address to listen on, with or without the brackets of IPv6.
pub fn bind(text: &str) -> Result<IpAddr, &'static str> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    match bare {
        Some(v6) => v6
            .parse::<Ipv6Addr>()
            .map(IpAddr::V6)
            .map_err(|_| "is no IPv6 address"),
        None => text.parse().map_err(|_| "is no IP address"),
    }
}

/// Seconds, whole or decimal.
pub fn seconds(text: &str) -> Result<Duration, &'static str> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err("is no number of seconds");
    }
    let seconds: f64 = text.parse().map_err(|_| "is no number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "is too long")
}

/// `1`, `true`, `yes`, `on` or their opposites, in any case.
pub fn switch(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("is neither yes nor no"),
    }
}

/// The URL parser drops blanks and line ends; whoever uses the text itself would not.
fn bare(url: &str) -> Result<(), &'static str> {
    if url.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("contains a blank or control character");
    }
    Ok(())
}

/// An absolute http or https URL.
pub fn http_url(text: &str) -> Result<(), &'static str> {
    bare(text)?;
    let url = Url::parse(text).map_err(|_| "is no URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither http nor https");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("has no host");
    }
    Ok(())
}

/// The base URL of a provider. Returns it without a trailing slash and without `/v1`, which people copy along.
pub fn upstream(text: &str) -> Result<String, &'static str> {
    http_url(text)?;
    let url = Url::parse(text).map_err(|_| "is no URL")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or fragment");
    }
    let base = text.trim_end_matches('/');
    Ok(base
        .strip_suffix("/v1")
        .unwrap_or(base)
        .trim_end_matches('/')
        .to_owned())
}

/// The kinds of store that a backup can go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    File,
    S3,
    Gcs,
    Azure,
    /// The platform's own API.
    Backend,
}

/// The URL of an object store.
pub fn store(text: &str) -> Result<StoreKind, &'static str> {
    bare(text)?;
    let url = Url::parse(text).map_err(|_| "is no URL")?;
    let no_host = url.host_str().is_none_or(str::is_empty);
    match url.scheme() {
        "file" if no_host && url.path().len() > 1 => Ok(StoreKind::File),
        "file" => Err("names no absolute path (file:///path has three slashes)"),
        "s3" | "gs" | "az" | "https" | "http" if no_host => Err("names no bucket or host"),
        "s3" => Ok(StoreKind::S3),
        "gs" => Ok(StoreKind::Gcs),
        "az" => Ok(StoreKind::Azure),
        "https" | "http" => Ok(StoreKind::Backend),
        _ => Err("is no store whim knows"),
    }
}

/// The template of preview addresses: an http(s) URL with `{port}` in its host or path.
pub fn preview(text: &str) -> Result<(), &'static str> {
    if !text.contains("{port}") {
        return Err("has no {port} in it");
    }
    if text.contains(['?', '#']) {
        return Err("has a query or fragment");
    }
    http_url(&text.replace("{port}", "3000"))
}

/// A model or an effort: goes into arguments, so it must not look like an option.
pub fn agent_word(text: &str) -> Result<(), &'static str> {
    match text {
        "" => Err("is empty"),
        _ if text.len() > 256 => Err("is longer than 256 bytes"),
        _ if text.starts_with('-') => Err("begins with `-`"),
        _ if text.contains(|c: char| c.is_control() || c.is_whitespace()) => {
            Err("contains a space or control character")
        }
        _ => Ok(()),
    }
}

/// A prompt: what a terminal would take for a command to itself is refused, as for prompts sent later.
pub fn prompt(text: &str) -> Result<(), &'static str> {
    if text.trim().is_empty() {
        return Err("is empty");
    }
    if text.len() > MAX_TEXT {
        return Err("is longer than 1 MiB");
    }
    // The carriage return of a CRLF is dropped when the prompt is taken over, see `normalised`.
    if text
        .replace("\r\n", "\n")
        .contains(|c: char| c.is_control() && c != '\n' && c != '\t')
    {
        return Err("contains control characters");
    }
    Ok(())
}

/// A prompt as it is delivered: line ends as newlines.
pub fn normalised(prompt: &str) -> String {
    prompt.replace("\r\n", "\n")
}

/// argv of a custom agent.
pub fn command(argv: &[String]) -> Result<(), &'static str> {
    match argv {
        [] => Err("is empty"),
        [program, ..] if program.is_empty() => Err("names no program"),
        _ if argv.iter().any(|argument| argument.contains('\0')) => Err("contains a zero byte"),
        _ => Ok(()),
    }
}

/// A token that travels in a header: visible ASCII.
pub fn token(text: &str) -> Result<(), &'static str> {
    match text {
        "" => Err("is empty"),
        _ if text.len() > 4096 => Err("is longer than 4096 bytes"),
        _ if !text.bytes().all(|b| b.is_ascii_graphic()) => {
            Err("contains something else than visible ASCII characters")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_addresses_and_times() {
        assert_eq!((port("0"), port("65535")), (Ok(0), Ok(65535)));
        for bad in ["", "65536", "-1", "+1", " 1", "http"] {
            assert!(port(bad).is_err(), "{bad}");
        }
        for (text, expected) in [
            ("[::]", "::"),
            ("::", "::"),
            ("0.0.0.0", "0.0.0.0"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(bind(text).unwrap().to_string(), expected);
        }
        for bad in ["", "[0.0.0.0]", "localhost", "::1:80:x", "0.0.0.0:80"] {
            assert!(bind(bad).is_err(), "{bad}");
        }
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in [
            "",
            "8s",
            "-1",
            "1e9",
            "inf",
            "NaN",
            ".",
            "1.2.3",
            "99999999999999999999999",
        ] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert_eq!((switch("YES"), switch("0")), (Ok(true), Ok(false)));
        assert!(switch("maybe").is_err());
    }

    #[test]
    fn the_base_url_loses_what_people_copy_along() {
        for (given, base) in [
            ("https://openrouter.ai/api/v1", "https://openrouter.ai/api"),
            ("https://openrouter.ai/api/v1/", "https://openrouter.ai/api"),
            ("http://127.0.0.1:9901", "http://127.0.0.1:9901"),
            ("http://127.0.0.1:9901/", "http://127.0.0.1:9901"),
            ("https://x/v1beta", "https://x/v1beta"),
        ] {
            assert_eq!(upstream(given).as_deref(), Ok(base));
        }
        for bad in [
            " http://x",
            "http://x\n",
            "http://a b",
            "api.openai.com",
            "ftp://x",
            "https://",
            "https://x?key=1",
            "",
        ] {
            assert!(upstream(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stores() {
        for (text, kind) in [
            ("file:///a/b", StoreKind::File),
            ("s3://bucket/x", StoreKind::S3),
            ("gs://b", StoreKind::Gcs),
            ("az://c/p", StoreKind::Azure),
            ("https://api.example.com/x", StoreKind::Backend),
        ] {
            assert_eq!(store(text), Ok(kind));
        }
        for bad in [
            "",
            "/a/b",
            "file://a/b",
            "file:///a/b\n",
            "file:///",
            "s3:///x",
            "ftp://x/y",
            "bucket",
        ] {
            assert!(store(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn words_that_go_to_agents() {
        assert!(
            agent_word("claude-opus-4-8[1m]").is_ok() && agent_word("anthropic/claude").is_ok()
        );
        for bad in ["", "--dangerously-skip-permissions", "a b", "a\n"] {
            assert!(agent_word(bad).is_err(), "{bad}");
        }
        assert!(prompt("do\tthis\r\nand that\n").is_ok());
        for bad in ["", " \n", "a\u{1b}[201~b", "a\rb", "a\0"] {
            assert!(prompt(bad).is_err(), "{bad:?}");
        }
        assert!(command(&["a".into(), String::new()]).is_ok());
        for bad in [vec![], vec![""], vec!["a", "b\0"]] {
            assert!(command(&bad.into_iter().map(str::to_owned).collect::<Vec<_>>()).is_err());
        }
        assert!(token("abc_DEF-123").is_ok());
        for bad in ["", "a b", "ä", "a\n"] {
            assert!(token(bad).is_err());
        }
    }

    #[test]
    fn preview_templates() {
        for good in [
            "https://{port}-ww-12.preview.example/",
            "http://localhost:8080/proxy/{port}/",
        ] {
            assert_eq!(preview(good), Ok(()));
        }
        for bad in [
            "https://x/",
            "{port}",
            "ftp://{port}/",
            "https://x/?p={port}",
        ] {
            assert!(preview(bad).is_err(), "{bad}");
        }
    }
}

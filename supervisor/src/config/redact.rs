//! Text that came from outside, made fit for a message: no secrets inside URLs, no control or bidi characters, no
//! endless lines.

use std::fmt::Write as _;

const MASK: &str = "***";
/// Longest value shown in a message, in characters; enough to recognise it.
const SHOWN: usize = 200;

/// Masks user information, the values of queries and the fragment of every URL in `text`; the rest is unchanged.
///
/// Works on what people and tools really write, not on valid URLs only: a password with an
/// unescaped `/` (or `@`, but not both) is masked too.
///
/// ```
/// # use whim::config::redact;
/// assert_eq!(redact("clone https://bot:pw@host/x?sig=1&v=2 failed"), "clone https://***@host/x?sig=***&v=*** failed");
/// ```
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let end = after
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`'))
            .unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        out.push_str(before);
        out.push_str("://");
        // A proxy's URL may stand inside another one's path.
        push_redacted(&mut out, url);
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// `url` without its scheme.
fn push_redacted(out: &mut String, url: &str) {
    let authority_end = url.find(['/', '?', '#']).unwrap_or(url.len());
    let (authority, _) = url.split_at(authority_end);
    let user_end = match authority.rfind('@') {
        Some(at) => Some(at),
        // `user:pa/ss@host`: what follows the colon is no port, so the authority has not ended yet.
        None if !has_plain_port(authority) => url.rfind('@'),
        None => None,
    };
    let rest = match user_end {
        Some(at) => {
            out.push_str(MASK);
            url.split_at(at).1
        }
        None => url,
    };
    let (rest, fragment) = rest
        .split_once('#')
        .map_or((rest, None), |(rest, fragment)| (rest, Some(fragment)));
    let (path, query) = rest
        .split_once('?')
        .map_or((rest, None), |(path, query)| (path, Some(query)));
    match path.split_once("://") {
        Some((outer, inner)) => {
            out.push_str(outer);
            out.push_str("://");
            push_redacted(out, inner);
        }
        None => out.push_str(path),
    }
    if let Some(query) = query {
        out.push('?');
        for (number, pair) in query.split('&').enumerate() {
            if number > 0 {
                out.push('&');
            }
            match pair.split_once('=') {
                Some((name, _)) => {
                    out.push_str(name);
                    out.push('=');
                    out.push_str(MASK);
                }
                None if pair.is_empty() => {}
                None => out.push_str(MASK),
            }
        }
    }
    if fragment.is_some_and(|fragment| !fragment.is_empty()) {
        out.push('#');
        out.push_str(MASK);
    }
}

fn has_plain_port(authority: &str) -> bool {
    // The colons of an IPv6 address stand in brackets.
    let after_host = authority.rsplit(']').next().unwrap_or(authority);
    after_host
        .split_once(':')
        .is_none_or(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
}

/// A value as a message shows it: URLs redacted, control and bidi characters escaped, cut to 200 characters.
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    for (number, c) in redact(text).chars().enumerate() {
        if number == SHOWN {
            out.push('…');
            break;
        }
        if c.is_control() || is_bidi(c) {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Characters that reorder or hide what surrounds them (Unicode's bidi controls, zero-width characters, separators).
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_in_urls_are_masked() {
        for (given, shown) in [
            ("https://ghp_1@github.com/a/b", "https://***@github.com/a/b"),
            ("https://u:p@h:8443/a", "https://***@h:8443/a"),
            ("https://u:p@w@h/a", "https://***@h/a"),
            ("https://u:pa/ss@h/a", "https://***@h/a"),
            ("https://u:pa?ss@h/a", "https://***@h/a"),
            ("https://u:pa#ss@h/a", "https://***@h/a"),
            ("https://h/@scope/x", "https://h/@scope/x"),
            ("https://[::1]:8080/@scope", "https://[::1]:8080/@scope"),
            (
                "https://h/x?X-Amz-Signature=abc&y",
                "https://h/x?X-Amz-Signature=***&***",
            ),
            ("http://h:7681/#token=abc", "http://h:7681/#***"),
            ("s3://key:secret@bucket/prefix", "s3://***@bucket/prefix"),
            (
                "https://proxy/https://u:p@h/",
                "https://proxy/https://***@h/",
            ),
            ("plain text: no url", "plain text: no url"),
            (
                "a https://u:p@h b 'https://v:q@i' c",
                "a https://***@h b 'https://***@i' c",
            ),
        ] {
            assert_eq!(redact(given), shown);
        }
    }

    #[test]
    fn a_message_cannot_be_forged_by_a_value() {
        assert_eq!(
            printable("a\n\u{1b}[31mb\u{202e}c"),
            r"a\n\u{1b}[31mb\u{202e}c"
        );
        assert_eq!(printable(&"ä".repeat(300)).chars().count(), SHOWN + 1);
    }

    proptest! {
        #[test]
        fn a_password_never_survives(
            user in "[a-z]{0,5}", secret in "Q[A-Za-z0-9!$%&()*+,;=:/?#~.-]{6,30}Q|Q[A-Za-z0-9!$%&()*+,;=:@~.-]{6,30}Q", host in "[a-z]{1,8}", around in "[ a-z:]{0,9}",
        ) {
            let text = format!("{around}https://{user}:{secret}@{host}/path {around}");
            prop_assert!(!redact(&text).contains(secret.trim_matches('Q')), "{}", redact(&text));
        }

        #[test]
        fn anything_is_handled(text: String) {
            let once = redact(&text);
            prop_assert!(!printable(&text).chars().any(|c| c.is_control()));
            prop_assert_eq!(redact(&once), once);
        }
    }
}

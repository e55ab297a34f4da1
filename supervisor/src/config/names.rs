//! What may be a name: of a branch, a file, a variable, a task, a skill, a server. Pure checks; each says what is wrong
//! in words that complete "it …".
//!
//! Everything here ends up in a path, an argument vector or a shell file, so that no name may begin with `-`, leave its
//! directory, or carry control characters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest file name of Linux' file systems, in bytes (`NAME_MAX`).
const MAX_FILE_NAME: usize = 255;
/// Longest branch name, in bytes: with `refs/heads/` and `.lock` its last component must stay a file name.
const MAX_REF: usize = 240;
/// Longest id of a task or name of a skill, server or plugin, in bytes; the id also names objects in the store.
const MAX_NAME: usize = 64;
/// Longest `NAME=value` that execve takes, with its final zero byte (`MAX_ARG_STRLEN`, 32 pages of 4 KiB).
pub const MAX_VARIABLE: usize = 128 * 1024;

type Checked = Result<(), &'static str>;

/// A branch that git accepts, by the rules of git-check-ref-format(1) with `--branch`.
pub fn branch(name: &str) -> Checked {
    if name.is_empty() {
        return Err("is empty");
    }
    if name.len() > MAX_REF {
        return Err("is longer than 240 bytes");
    }
    if name.starts_with('-') {
        return Err("begins with `-`");
    }
    if name == "HEAD" || name == "@" {
        return Err("is a name that git keeps for itself");
    }
    if name.contains(|c: char| c.is_ascii_control() || " ~^:?*[\\".contains(c)) {
        return Err("contains a space, a control character or one of ~ ^ : ? * [ \\");
    }
    if name.contains("..") || name.contains("@{") {
        return Err("contains `..` or `@{`");
    }
    if name.ends_with('.') {
        return Err("ends with a dot");
    }
    for component in name.split('/') {
        if component.is_empty() {
            return Err("has an empty component (`//`, or `/` at an end)");
        }
        if component.starts_with('.') || component.ends_with(".lock") {
            return Err("has a component that begins with a dot or ends with `.lock`");
        }
    }
    Ok(())
}

/// One component of a path.
pub fn file_name(name: &str) -> Checked {
    match name {
        "" => Err("is empty"),
        "." | ".." => Err("is no file name"),
        _ if name.len() > MAX_FILE_NAME => Err("is longer than 255 bytes"),
        _ if name.contains(['/', '\\']) => Err("contains a directory separator"),
        _ if name.starts_with('-') => Err("begins with `-`"),
        _ if name.contains(char::is_control) => Err("contains a control character"),
        _ => Ok(()),
    }
}

/// A path that stays beneath its directory.
pub fn relative_path(path: &str) -> Checked {
    if path.starts_with('/') {
        return Err("is an absolute path");
    }
    for component in path.split('/') {
        match component {
            "" => return Err("has an empty component (`//`, or `/` at the end)"),
            "." | ".." => return Err("has a component `.` or `..`"),
            _ => file_name(component)?,
        }
    }
    Ok(())
}

/// The id of a task, or the name of a skill, server or plugin.
pub fn identifier(name: &str) -> Checked {
    if name.is_empty() {
        return Err("is empty");
    }
    if name.len() > MAX_NAME {
        return Err("is longer than 64 characters");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("does not begin with a letter or digit");
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    {
        return Err("contains something else than letters, digits, `.`, `_` and `-`");
    }
    if name.contains("..") || name.ends_with(".lock") || name.ends_with('.') {
        return Err("contains `..` or ends with `.` or `.lock`, which no branch may");
    }
    Ok(())
}

/// The name of an environment variable that every shell can hold.
pub fn variable(name: &str) -> Checked {
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    match name.as_bytes() {
        [] => Err("is empty"),
        [head, tail @ ..]
            if first(*head) && tail.iter().all(|b| first(*b) || b.is_ascii_digit()) =>
        {
            Ok(())
        }
        _ => Err("is no variable name (letters, digits and `_`, not a digit first)"),
    }
}

/// The value of an environment variable: no zero byte, and short enough for execve together with its name.
pub fn variable_value(name: &str, value: &str) -> Checked {
    if value.contains('\0') {
        return Err("contains a zero byte");
    }
    if name.len() + value.len() + 2 > MAX_VARIABLE {
        return Err("is longer than the kernel takes (128 KiB with its name)");
    }
    Ok(())
}

/// Whether configuration layers may not set this variable, and why (CONTRACT of the trust inside the container: own
/// names, the dynamic linker's, git's, and whatever would point an agent past the generation proxy).
pub fn refused_in_layers(name: &str) -> Option<&'static str> {
    const PREFIXES: &[(&str, &str)] = &[
        ("WHIM_", "belongs to whim"),
        ("LD_", "steers the dynamic linker"),
        ("GIT_", "steers git"),
    ];
    PREFIXES
        .iter()
        .find_map(|(prefix, why)| name.starts_with(prefix).then_some(*why))
        .or_else(|| {
            is_provider_variable(name).then_some("is a model provider's address or credential")
        })
}

/// Whether the container's own value of this variable is an address or credential of a model provider and so never
/// reaches an agent: the generation proxy stands in for it. Other variables of the same families (`OPENAI_MODEL`) do.
pub fn is_provider_access(name: &str) -> bool {
    const WORDS: &[&str] = &["KEY", "TOKEN", "URL", "BASE", "HOST", "HEADERS", "SECRET"];
    is_provider_variable(name)
        && (name.starts_with("ANTHROPIC_")
            || name.starts_with("CLAUDE_CODE_")
            || name.split('_').any(|word| WORDS.contains(&word)))
}

/// Whether the variable steers which model provider an agent talks to, or how; layers may not set it.
pub fn is_provider_variable(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_BEDROCK_BASE_URL",
        "ANTHROPIC_CUSTOM_HEADERS",
        "ANTHROPIC_FOUNDRY_API_KEY",
        "ANTHROPIC_FOUNDRY_BASE_URL",
        "ANTHROPIC_UNIX_SOCKET",
        "ANTHROPIC_VERTEX_BASE_URL",
        "AWS_BEARER_TOKEN_BEDROCK",
        "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR",
        "CLAUDE_CODE_OAUTH_REFRESH_TOKEN",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "CLAUDE_CODE_OAUTH_TOKEN_FILE_DESCRIPTOR",
        "CLAUDE_CODE_USE_BEDROCK",
        "CLAUDE_CODE_USE_FOUNDRY",
        "CLAUDE_CODE_USE_VERTEX",
        "CODEX_ACCESS_TOKEN",
        "CODEX_API_KEY",
    ];
    const PREFIXES: &[&str] = &["OPENAI_", "OPENROUTER_", "COPILOT_PROVIDER_"];
    // `ANTHROPIC_API_KEY_FILE` and its like name where a credential lies.
    let plain = name.strip_suffix("_FILE").unwrap_or(name);
    NAMES.contains(&name)
        || NAMES.contains(&plain)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Variables that tell a process who it is. They come from the user's passwd entry, whatever else sets them.
pub const IDENTITY: &[&str] = &["HOME", "LOGNAME", "SHELL", "USER"];

/// Whether a value is probably a secret, judged by its variable's name; such values are masked wherever they are shown.
pub fn is_likely_secret(name: &str) -> bool {
    const WORDS: &[&str] = &[
        "auth",
        "bearer",
        "cert",
        "cookie",
        "credential",
        "credentials",
        "dsn",
        "hash",
        "jwt",
        "key",
        "keys",
        "oauth",
        "otp",
        "pass",
        "passphrase",
        "passwd",
        "password",
        "pat",
        "pin",
        "private",
        "pwd",
        "salt",
        "secret",
        "secrets",
        "session",
        "signature",
        "token",
        "tokens",
        "webhook",
    ];
    const PARTS: &[&str] = &[
        "apikey",
        "authtoken",
        "password",
        "passwd",
        "secret",
        "token",
        "credential",
    ];
    // Public by their makers' convention: they are built into pages.
    const PUBLIC: &[&str] = &["NEXT_PUBLIC_", "VITE_PUBLIC_", "NUXT_PUBLIC_", "PUBLIC_"];
    if PUBLIC.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    let lower = name.to_ascii_lowercase();
    lower
        .split(['_', '-', '.'])
        .any(|word| WORDS.contains(&word))
        || PARTS.iter().any(|part| lower.contains(part))
}

/// A repository that git may be told to fetch. Transport helpers (`ext::sh -c …`) run commands, and a name that begins
/// with `-` is an option; everything else that git takes for a URL or a local path is fine.
pub fn repository(url: &str) -> Checked {
    const SCHEMES: &[&str] = &["https", "http", "ssh", "git", "file"];
    if url.is_empty() {
        return Err("is empty");
    }
    if url.starts_with('-') {
        return Err("begins with `-`");
    }
    if url.contains(|c: char| c.is_control()) {
        return Err("contains a control character");
    }
    if let Some((scheme, rest)) = url.split_once("://") {
        if !SCHEMES.contains(&scheme) {
            return Err("has a scheme other than https, http, ssh, git and file");
        }
        // `ssh://-oProxyCommand=…` would reach ssh as an option.
        let host = rest.split('/').next().unwrap_or(rest);
        let host = host.rsplit('@').next().unwrap_or(host);
        if host.starts_with('-') {
            return Err("has a host that begins with `-`");
        }
        if host.is_empty() && scheme != "file" {
            return Err("has no host");
        }
        return Ok(());
    }
    let before_slash = url.split('/').next().unwrap_or(url);
    if before_slash.contains("::") && !before_slash.contains('[') {
        return Err("names a transport helper, which would run a command");
    }
    let host = before_slash.rsplit('@').next().unwrap_or(before_slash);
    if before_slash.contains(':') && host.starts_with('-') {
        return Err("has a host that begins with `-`");
    }
    Ok(())
}

/// Whether an address is of the public internet: not loopback, link-local, private, shared, multicast or reserved, also
/// not as an IPv4 address wrapped into IPv6. Platform metadata services live on such addresses.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// Azure's metadata and key service ("WireServer"): on a public address, but of the machine itself.
const AZURE_HOST: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    !(v4.is_loopback()
        || v4.is_private()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_broadcast()
        || v4.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (b & 0xc0) == 64) // RFC 6598, shared address space
        || (a == 192 && b == 0 && c == 0) // RFC 6890, protocol assignments
        || (a == 192 && b == 88 && c == 99) // RFC 7526, a relay to whatever IPv6 it is sent
        || (a == 198 && (b & 0xfe) == 18) // RFC 2544, benchmarks
        || v4 == AZURE_HOST)
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    if let Some(v4) = v6.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    let [first, second, ..] = v6.segments();
    match (first, second) {
        // 64:ff9b::/96 (RFC 6052) and 2002::/16 (RFC 3056) carry an IPv4 address.
        (0x64, 0xff9b) => false,
        (0x2002, _) => false,
        // Documentation (RFC 3849), and protocol assignments (RFC 2928), Teredo among them, that carry IPv4 addresses.
        (0x2001, 0xdb8) => false,
        (0x2001, 0..=0x1ff) => false,
        // Documentation (RFC 9637).
        (0x3fff, 0..=0xfff) => false,
        // Only 2000::/3 is assigned as global unicast.
        _ => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests;

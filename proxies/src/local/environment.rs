//! Environment variables by which frameworks accept the preview's host without being asked twice.
//!
//! They are set for shells and agents when previews have a name of their own. Each is read by one framework only, and
//! none weakens a check beyond the preview's own host where the framework offers that; where it offers only "no check"
//! the variable is left out, because the proxy's retry as `localhost` does the same for previews alone.

/// Variables for a preview address such as `https://{port}-ww-12.preview.example/`; empty for one without a host.
#[must_use]
pub fn preview_environment(preview_url: &str) -> Vec<(String, String)> {
    let Some((_, rest)) = preview_url.split_once("://") else {
        return Vec::new();
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    if host.is_empty() || host.starts_with('[') {
        return Vec::new();
    }
    // The number of the port is in the first label, so what all previews have in common begins after it.
    let suffix = match host.split_once('.') {
        Some((label, parent)) if label.contains("{port}") => format!(".{parent}"),
        _ => host.replace("{port}", ""),
    };
    [
        // Vite 5.4.12 and later, and what stands on it (Astro, SvelteKit, Storybook): one more allowed host; a leading
        // dot means every name below.
        ("__VITE_ADDITIONAL_SERVER_ALLOWED_HOSTS", suffix.clone()),
        // Rails 6 and later: hosts allowed in development, comma-separated; a leading dot as above.
        ("RAILS_DEVELOPMENT_HOSTS", suffix),
        // Create React App: the page's WebSocket goes to the address of the page (0 means: its port).
        ("WDS_SOCKET_PORT", "0".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(url: &str, name: &str) -> Option<String> {
        preview_environment(url)
            .into_iter()
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    #[test]
    fn the_common_part_of_all_previews_is_allowed() {
        for (url, expected) in [
            (
                "https://{port}-ww-12.preview.example/",
                Some(".preview.example"),
            ),
            ("https://{port}--ww.example:8443/x", Some(".example")),
            (
                "https://ww-12.preview.example/{port}/",
                Some("ww-12.preview.example"),
            ),
            ("/proxy/{port}/", None),
            ("http://[::1]:8080/proxy/{port}/", None),
        ] {
            let allowed = value(url, "__VITE_ADDITIONAL_SERVER_ALLOWED_HOSTS");
            assert_eq!(allowed.as_deref(), expected, "{url}");
            assert_eq!(
                value(url, "RAILS_DEVELOPMENT_HOSTS").as_deref(),
                expected,
                "{url}"
            );
        }
    }
}

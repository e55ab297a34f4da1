//! Answers of the proxy's own: short problem documents for programs, small pages for people.
//!
//! Pages run no code but the waiting page's one script, which the policy allows by its hash, and load nothing.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;

/// Asks whether the port is back; answered as soon as it is.
pub(crate) const WAIT_FIELD: &str = "x-whim-wait";

const SCRIPT: &str = "(async()=>{for(;;){try{const r=await fetch(location.href,{headers:{'X-Whim-Wait':'1'},\
cache:'no-store',redirect:'manual'});if(r.status===204){location.reload();return}if(r.status!==503)return}catch(e){}\
await new Promise(r=>setTimeout(r,250))}})()";

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:34em;margin:18vh auto 0;padding:0 1.5em;\
color:#222;background:#fff}h1{font-size:1.3em}p{color:#555}@media(prefers-color-scheme:dark){body{color:#ddd;\
background:#181818}p{color:#aaa}}";

static SCRIPT_POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(digest::digest(&digest::SHA256, SCRIPT.as_bytes()));
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; script-src 'sha256-{hash}'"
    )
});

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// For a program: RFC 9457.
    pub(crate) fn problem(status: u16, detail: &str) -> Self {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": reason(status),
            "status": status,
            "detail": detail,
        });
        Self {
            status,
            fields: vec![("Content-Type", "application/problem+json".to_owned())],
            body: body.to_string(),
        }
    }

    /// For whoever asked: a page for a person's navigation, a problem for a program.
    pub(crate) fn explain(is_navigation: bool, status: u16, detail: &str) -> Self {
        if is_navigation {
            page(status, reason(status), detail, false)
        } else {
            Self::problem(status, detail)
        }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: String::new(),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// As HTTP/1.1 bytes. `with_body` is false for HEAD, whose length is still told.
    pub(crate) fn encode(&self, with_body: bool, close: bool) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in self.all_fields() {
            write!(out, "{name}: {value}\r\n").ok();
        }
        if close {
            out.push_str("Connection: close\r\n");
        }
        if self.status != 204 {
            write!(out, "Content-Length: {}\r\n", self.body.len()).ok();
        }
        out.push_str("\r\n");
        if with_body {
            out.push_str(&self.body);
        }
        out.into_bytes()
    }

    /// Its fields and those that all our answers have.
    pub(crate) fn all_fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        const COMMON: [(&str, &str); 3] = [
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        ];
        self.fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .chain(COMMON)
    }
}

/// While a known port is down.
pub(crate) fn waiting(port: u16) -> Answer {
    let detail = format!(
        "Nothing listens on port {port} at the moment. This page reloads by itself as soon as the server is back."
    );
    page(503, "Waiting for the server", &detail, true).with("Retry-After", "1")
}

fn page(status: u16, title: &str, detail: &str, waits: bool) -> Answer {
    let (title, detail) = (escape(title), escape(detail));
    let tail = if waits {
        format!(
            "<noscript><meta http-equiv=\"refresh\" content=\"2\"></noscript><script>{SCRIPT}</script>"
        )
    } else {
        String::new()
    };
    let body = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style>{tail}</head>\
         <body><h1>{title}</h1><p>{detail}</p></body></html>"
    );
    let policy = if waits {
        SCRIPT_POLICY.clone()
    } else {
        "default-src 'none'; style-src 'unsafe-inline'".to_owned()
    };
    Answer {
        status,
        fields: vec![
            ("Content-Type", "text/html; charset=utf-8".to_owned()),
            ("Content-Security-Policy", policy),
        ],
        body,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

pub(crate) fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_allows_the_script_that_is_there() {
        let answer = waiting(3000);
        let policy = &answer
            .fields
            .iter()
            .find(|(name, _)| *name == "Content-Security-Policy")
            .unwrap()
            .1;
        let start = answer.body.find("<script>").unwrap() + 8;
        let end = answer.body.find("</script>").unwrap();
        let hash = STANDARD.encode(digest::digest(
            &digest::SHA256,
            &answer.body.as_bytes()[start..end],
        ));
        assert!(policy.contains(&hash));
        assert!(answer.body.contains("port 3000"));
    }

    #[test]
    fn programs_get_json_and_people_pages() {
        let problem = Answer::explain(false, 404, "no <port>");
        let value: serde_json::Value = serde_json::from_str(&problem.body).unwrap();
        assert_eq!(
            (value["status"].as_u64(), value["detail"].as_str()),
            (Some(404), Some("no <port>"))
        );
        assert!(
            Answer::explain(true, 404, "no <port>")
                .body
                .contains("no &lt;port&gt;")
        );
    }

    #[test]
    fn bytes_are_a_message_with_its_length() {
        let answer = Answer::problem(503, "x").with("Retry-After", "1");
        let text = String::from_utf8(answer.encode(true, true)).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(text.contains("Connection: close\r\n") && text.contains("Retry-After: 1\r\n"));
        assert!(text.contains(&format!(
            "Content-Length: {}\r\n\r\n{}",
            answer.body.len(),
            answer.body
        )));
        assert!(
            !String::from_utf8(answer.encode(false, false))
                .unwrap()
                .contains("{")
        );
    }
}

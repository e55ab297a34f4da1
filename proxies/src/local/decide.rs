//! What becomes of a request before a byte of it goes anywhere: refused, redirected, told to wait, or sent to a port.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::access::{COOKIE, Right};
use super::cookies;
use super::head::RequestHead;
use super::pages::{Answer, WAIT_FIELD};
use super::rewrite::{Public, Route};
use super::target::{self, Choice, Form};
use super::{Lookup, Proxy};

/// What to do.
#[derive(Debug)]
pub(crate) enum Decision {
    Answer(Answer),
    Forward(Box<Route>, Permit),
}

/// Requests in progress per port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    counts: Arc<Mutex<HashMap<u16, usize>>>,
}

/// One of a port's places; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    load: Load,
    port: u16,
}

impl Load {
    #[cfg(test)]
    pub(crate) fn count(&self, port: u16) -> usize {
        self.counts.lock().unwrap().get(&port).copied().unwrap_or(0)
    }

    fn enter(&self, port: u16, limit: usize) -> Option<Permit> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(port).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Permit {
            load: self.clone(),
            port,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self
            .load
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.port) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.port);
            }
        }
    }
}

impl Proxy {
    pub(crate) async fn decide(&self, head: &RequestHead, peer: SocketAddr) -> Decision {
        let explain = |status, detail: &str| {
            Decision::Answer(Answer::explain(head.is_navigation(), status, detail))
        };
        if head
            .fields
            .all("via")
            .any(|via| super::head::contains(via, self.via.as_bytes()))
        {
            return explain(
                508,
                "The request came back to the proxy that had sent it on.",
            );
        }
        let mut tokens = head.fields.all("x-whim-token").peekable();
        let is_router = tokens.peek().is_some() && tokens.all(|token| self.access.is_router(token));
        let choice = match target::choose(head) {
            Choice::Unnamed => match self
                .settings
                .default_port()
                .or_else(|| self.ports.default_port())
            {
                Some(port) => Choice::Port(port, Form::Default),
                None => Choice::Unnamed,
            },
            named => named,
        };
        let Choice::Port(port, form) = choice else {
            // Who may see nothing learns nothing about what there is.
            return match choice {
                _ if !is_router => self.unauthorized(head, Right::None),
                Choice::NoSuchPort => explain(404, "That is no number of a port."),
                Choice::Port(..) | Choice::Unnamed => {
                    explain(404, "No port is named, and no server has been started yet.")
                }
            };
        };
        let route = self.route(head, peer, port, form, is_router);
        let mut found = self.ports.lookup(port);
        let right = if is_router {
            Right::Router
        } else {
            self.right(head, port, program(&found))
        };
        if matches!(right, Right::None | Right::Suspended) {
            return self.unauthorized(head, right);
        }
        if right != Right::Router
            && let Some(answer) = self.admit(head, port, program(&found), &route)
        {
            return Decision::Answer(answer);
        }
        if found == Lookup::Unknown {
            // Started a moment ago, perhaps: one look before "never heard of".
            self.ports.rescan().await;
            found = self.ports.lookup(port);
        }
        let server = match found {
            Lookup::Own => return explain(403, "That port belongs to the agent host itself."),
            Lookup::Unknown => {
                return explain(404, &format!("Nothing has listened on port {port} so far."));
            }
            Lookup::Known(server) => server,
        };
        if server.http == Some(false) {
            return explain(
                502,
                &format!("The server on port {port} does not speak HTTP."),
            );
        }
        if head.is_websocket() && right != Right::Public && !self.is_same_site(head, &route) {
            return explain(403, "The WebSocket was opened by a page from elsewhere.");
        }
        if head.fields.has(WAIT_FIELD) {
            return Decision::Answer(self.wait_for(port).await);
        }
        if matches!(form, Form::Stripped(length) if head.path().len() == length) && head.is_safe() {
            return Decision::Answer(self.with_slash(head));
        }
        match self.load.enter(port, self.limits.per_port) {
            Some(permit) => Decision::Forward(Box::new(route), permit),
            None => Decision::Answer(
                Answer::explain(
                    head.is_navigation(),
                    503,
                    &format!("Too many requests to port {port} are in progress."),
                )
                .with("Retry-After", "1"),
            ),
        }
    }

    fn route(
        &self,
        head: &RequestHead,
        peer: SocketAddr,
        port: u16,
        form: Form,
        is_trusted: bool,
    ) -> Route {
        let said = |name: &str| {
            let value = head.fields.get(name).filter(|_| is_trusted)?;
            let first = value.split(|byte| *byte == b',').next()?.trim_ascii();
            (!first.is_empty()).then(|| Bytes::copy_from_slice(first))
        };
        let authority = said("x-forwarded-host").unwrap_or_else(|| head.authority.clone());
        let scheme = match said("x-forwarded-proto").as_deref() {
            Some(b"https") => "https",
            Some(_) => "http",
            // TLS ends before us; only the configured address tells.
            None if self.is_https_preview(&authority, port) => "https",
            None => "http",
        };
        Route {
            port,
            form,
            public: Public { scheme, authority },
            is_trusted,
            peer,
            preview_url: self.preview_url.clone(),
            via: Arc::clone(&self.via),
        }
    }

    fn is_https_preview(&self, authority: &[u8], port: u16) -> bool {
        self.preview_authority(port).is_some_and(|(scheme, own)| {
            scheme == "https" && own.as_bytes().eq_ignore_ascii_case(authority)
        })
    }

    /// Scheme and authority of a port's preview, where one is configured.
    fn preview_authority(&self, port: u16) -> Option<(String, String)> {
        let address = self
            .preview_url
            .as_ref()?
            .replace("{port}", &port.to_string());
        let (scheme, rest) = address.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        Some((scheme.to_owned(), authority.to_owned()))
    }

    fn right(&self, head: &RequestHead, port: u16, program: u64) -> Right {
        let now = SystemTime::now();
        let settings = self.settings.of(port);
        let mut best = Right::None;
        for token in cookies::parameter(&head.target)
            .into_iter()
            .chain(cookies::cookies(head))
        {
            match self.access.check(token, (port, settings), program, now) {
                Right::Link => return Right::Link,
                Right::Suspended => best = Right::Suspended,
                Right::Router | Right::Public | Right::None => {}
            }
        }
        if settings.is_public(program) {
            return Right::Public;
        }
        best
    }

    /// A browser that brings a link gets a cookie instead and an address without the secret.
    fn admit(&self, head: &RequestHead, port: u16, program: u64, route: &Route) -> Option<Answer> {
        if !matches!(head.method.as_ref(), b"GET" | b"HEAD") || head.fields.has("upgrade") {
            return None;
        }
        let now = SystemTime::now();
        let token = cookies::parameter(&head.target)?;
        let settings = self.settings.of(port);
        if self.access.check(token, (port, settings), program, now) != Right::Link {
            return None;
        }
        let token_text = std::str::from_utf8(token).ok()?;
        let path = match route.form {
            Form::Stripped(length) | Form::Kept(length) => {
                String::from_utf8_lossy(head.target.get(..length)?).into_owned() + "/"
            }
            Form::Header | Form::Host | Form::Default => "/".to_owned(),
        };
        // Inside the platform's page the preview is a third party: partitioned, so that no other site's page has it.
        let site = if route.public.scheme == "https" {
            "Secure; SameSite=None; Partitioned"
        } else {
            "SameSite=Lax"
        };
        let age = self.access.remaining(token, now);
        let mut location =
            String::from_utf8_lossy(&cookies::without_parameter(&head.target)).into_owned();
        // A target of two slashes would lead to another host.
        if location.starts_with("//") {
            location.insert_str(0, "/.");
        }
        Some(Answer::empty(303).with("Location", location).with(
            "Set-Cookie",
            format!("{COOKIE}={token_text}; Path={path}; Max-Age={age}; HttpOnly; {site}"),
        ))
    }

    fn unauthorized(&self, head: &RequestHead, right: Right) -> Decision {
        let detail = match right {
            Right::Suspended => {
                "Another program than the one that was shared listens on this port now. Ask for the port to be shared again."
            }
            _ => {
                "This preview is private. Open it from the platform, or with a link from whoever runs it (whim ports share)."
            }
        };
        Decision::Answer(
            Answer::explain(head.is_navigation(), 401, detail)
                .with("WWW-Authenticate", "Whim realm=\"preview\""),
        )
    }

    /// Browsers send `Origin` with every WebSocket and let any page open one: only the preview's own pages and those of
    /// its sibling ports may. Programs send none.
    fn is_same_site(&self, head: &RequestHead, route: &Route) -> bool {
        let Some(origin) = head.fields.get("origin") else {
            return true;
        };
        let Ok(origin) = std::str::from_utf8(origin) else {
            return false;
        };
        let Some((_, authority)) = origin.split_once("://") else {
            return false;
        };
        if authority
            .as_bytes()
            .eq_ignore_ascii_case(&route.public.authority)
        {
            return true;
        }
        let digits: String = authority.chars().take_while(char::is_ascii_digit).collect();
        target::number(digits.as_bytes())
            .and_then(|port| self.preview_authority(port))
            .is_some_and(|(scheme, sibling)| {
                sibling.eq_ignore_ascii_case(authority)
                    && origin.starts_with(&format!("{scheme}://"))
            })
    }

    /// For the waiting page: answered as soon as the port is back.
    async fn wait_for(&self, port: u16) -> Answer {
        let deadline = Instant::now() + self.limits.hold;
        loop {
            let changed = self.ports.changed();
            if matches!(self.ports.lookup(port), Lookup::Known(server) if !server.addresses.is_empty())
            {
                return Answer::empty(204);
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Answer::problem(503, "Still nothing listens there.")
                    .with("Retry-After", "1");
            }
        }
    }

    /// `/proxy/3000` is a directory: relative addresses need the slash.
    fn with_slash(&self, head: &RequestHead) -> Answer {
        let target = cookies::without_parameter(&head.target);
        let at = head.path().len();
        let (path, query) = target.split_at_checked(at).unwrap_or((&target, b""));
        let location = [path, b"/", query].concat();
        Answer::empty(308).with("Location", String::from_utf8_lossy(&location).into_owned())
    }
}

fn program(found: &Lookup) -> u64 {
    match found {
        Lookup::Known(server) => server.program,
        Lookup::Own | Lookup::Unknown => 0,
    }
}

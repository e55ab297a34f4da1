//! Who calls, and what that caller may do.
//!
//! Three doors: 7681 for people and 8081 for machines, both with the control token as bearer; and the unix socket, where
//! the kernel says who calls. Two roles: the *owner* may do all; the *agents' user* may read how the task stands (state,
//! the journal's events, sessions without their conversation, ports, the totals of spend and the metrics made of them:
//! those of the whole task, not of one session) and ask for git credentials. Where supervisor and agents run as one user,
//! the uid alone gives the second role only, and the control token the first.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};

use super::problem::Problem;
use crate::terminals::http::access::same;

/// What a caller may do. Ordered: a higher role may do all that a lower one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Nobody,
    AgentsUser,
    Owner,
}

/// The door that a connection came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// 8081 or 7681.
    Tcp,
    /// The unix socket, with the caller's uid.
    Socket { uid: u32 },
}

/// What is needed to tell roles.
#[derive(Debug)]
pub struct Gate {
    /// The control token.
    pub token: String,
    /// Uid of the agents; equal to `own` where all run as one user.
    pub agents: u32,
    /// Uid of the supervisor.
    pub own: u32,
}

impl Gate {
    /// What the web terminals check bearers with.
    #[must_use]
    pub fn terminals(&self) -> crate::terminals::http::access::Access {
        let token = self.token.clone();
        crate::terminals::http::access::Access::new(Arc::new(move |shown| {
            same(shown, token.as_bytes())
        }))
    }

    fn role(&self, door: Door, headers: &HeaderMap) -> Role {
        if bearer(headers).is_some_and(|token| same(token.as_bytes(), self.token.as_bytes())) {
            return Role::Owner;
        }
        match door {
            Door::Socket { uid: 0 } if self.agents != 0 => Role::Owner,
            Door::Socket { uid } if uid == self.own && self.own != self.agents => Role::Owner,
            Door::Socket { uid } if uid == self.agents => Role::AgentsUser,
            Door::Socket { .. } | Door::Tcp => Role::Nobody,
        }
    }
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Middleware: finds the role, and refuses what a browser on another page could send.
pub async fn admit(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let door = request
        .extensions()
        .get::<Door>()
        .copied()
        .unwrap_or(Door::Tcp);
    if door == Door::Tcp
        && let Err(problem) = check_origin(request.method(), request.headers())
    {
        return problem.into_response();
    }
    let role = gate.role(door, request.headers());
    request.extensions_mut().insert(role);
    next.run(request).await
}

/// A page of another origin must not reach us, whatever it knows: `Origin`, when sent, must be the host that was asked.
fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let authority = origin
        .split_once("://")
        .map_or("", |(_, authority)| authority);
    if !host.is_empty() && authority.eq_ignore_ascii_case(host) {
        return Ok(());
    }
    tracing::warn!(%method, origin, "refused a call from another origin");
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "origin",
        format!("calls from the origin {origin:?} are not accepted"),
    ))
}

fn need(parts: &Parts, needed: Role) -> Result<(), Problem> {
    let role = parts
        .extensions
        .get::<Role>()
        .copied()
        .unwrap_or(Role::Nobody);
    if role >= needed {
        return Ok(());
    }
    Err(match role {
        Role::Nobody => Problem::new(
            StatusCode::UNAUTHORIZED,
            "token",
            "this call needs the control token: send `Authorization: Bearer TOKEN` (the token is in /run/whim/control-token, \
             or in WHIM_CONTROL_TOKEN where all runs as one user)",
        ),
        Role::AgentsUser | Role::Owner => Problem::new(
            StatusCode::FORBIDDEN,
            "role",
            "the agents' user may not do this; call as root, or set WHIM_CONTROL_TOKEN to the control token",
        ),
    })
}

/// Extractor: the caller is the owner.
#[derive(Clone, Copy, Debug)]
pub struct Owner;

impl<S: Send + Sync> FromRequestParts<S> for Owner {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        need(parts, Role::Owner).map(|()| Self)
    }
}

/// Extractor: the caller is the owner or the agents' user, who are told the same.
#[derive(Clone, Copy, Debug)]
pub struct Reader;

impl<S: Send + Sync> FromRequestParts<S> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        need(parts, Role::AgentsUser).map(|()| Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(agents: u32, own: u32) -> Gate {
        Gate {
            token: "t0ken".into(),
            agents,
            own,
        }
    }

    fn headers(authorization: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn roles_by_door_uid_and_token() {
        let cases = [
            // agents, own, door, authorization, role
            (1000, 0, Door::Tcp, None, Role::Nobody),
            (1000, 0, Door::Tcp, Some("Bearer t0ken"), Role::Owner),
            (1000, 0, Door::Tcp, Some("bearer t0ken"), Role::Owner),
            (1000, 0, Door::Tcp, Some("Bearer t0keN"), Role::Nobody),
            (1000, 0, Door::Tcp, Some("Bearer t0ken2"), Role::Nobody),
            (1000, 0, Door::Tcp, Some("Basic t0ken"), Role::Nobody),
            (1000, 0, Door::Socket { uid: 0 }, None, Role::Owner),
            (1000, 0, Door::Socket { uid: 1000 }, None, Role::AgentsUser),
            (1000, 0, Door::Socket { uid: 1001 }, None, Role::Nobody),
            (
                1000,
                1000,
                Door::Socket { uid: 1000 },
                None,
                Role::AgentsUser,
            ),
            (
                1000,
                1000,
                Door::Socket { uid: 1000 },
                Some("Bearer t0ken"),
                Role::Owner,
            ),
            (1000, 1000, Door::Socket { uid: 0 }, None, Role::Owner),
            // Everything as root: the uid says nothing.
            (0, 0, Door::Socket { uid: 0 }, None, Role::AgentsUser),
        ];
        for (agents, own, door, authorization, role) in cases {
            assert_eq!(
                gate(agents, own).role(door, &headers(authorization)),
                role,
                "{agents} {own} {door:?} {authorization:?}"
            );
        }
    }

    #[test]
    fn another_origin_is_refused() {
        let check = |origin: Option<&str>, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            check_origin(&Method::GET, &headers).is_ok()
        };
        assert!(check(None, "h:7681"));
        assert!(check(Some("http://h:7681"), "h:7681"));
        assert!(!check(Some("http://evil"), "h:7681"));
        assert!(!check(Some("null"), "h:7681"));
        assert!(!check(Some("http://h"), "h:7681"));
    }
}

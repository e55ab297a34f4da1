//! The API described, from one table and the schemas of the types that the handlers use; only tests run this.
//!
//! A row a call. The test beside it asks the router for each row, so that the table cannot name what does not exist.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::super::{attachments, backups, credentials, ports, sessions};
use crate::backup;
use crate::reload::Reloaded;
use crate::sessions::{NewSession, Prompt};
use whim_wire::conversation::Conversation;
use whim_wire::event::Event;
use whim_wire::generation::{BudgetUpdate, LedgerLine, Spend};
use whim_wire::port::Port;
use whim_wire::search::{Answer, Rebuilt};
use whim_wire::spec::{Layer, Spec};
use whim_wire::state::{SessionState, StateObject};

/// Lists are objects, so that fields may be added beside them.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes an answer that is built by hand")]
struct Sessions {
    sessions: Vec<SessionState>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes an answer that is built by hand")]
struct Events {
    events: Vec<Event>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes an answer that is built by hand")]
struct Generations {
    generations: Vec<LedgerLine>,
}

type Schema = fn(&mut SchemaGenerator) -> schemars::Schema;

/// One call.
struct Call {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// Query parameters, separated by blanks.
    query: &'static str,
    request: Option<Schema>,
    status: &'static str,
    response: Option<Schema>,
    /// Whether it needs the control token.
    token: bool,
}

const fn call(method: &'static str, path: &'static str, summary: &'static str) -> Call {
    Call {
        method,
        path,
        summary,
        query: "",
        request: None,
        status: "200",
        response: None,
        token: true,
    }
}

impl Call {
    const fn query(mut self, query: &'static str) -> Self {
        self.query = query;
        self
    }

    const fn takes(mut self, schema: Schema) -> Self {
        self.request = Some(schema);
        self
    }

    const fn gives(mut self, status: &'static str, schema: Option<Schema>) -> Self {
        self.status = status;
        self.response = schema;
        self
    }

    const fn open(mut self) -> Self {
        self.token = false;
        self
    }
}

fn of<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> schemars::Schema {
    generator.subschema_for::<T>()
}

const CALLS: &[Call] = &[
    call("get", "/healthz", "The supervisor answers").open(),
    call("get", "/readyz", "200 once all services listen, 503 in `failed` and `stopping`").open(),
    call("get", "/openapi.json", "This document").open(),
    call("get", "/v1/state", "The state object; with `wait` or `after_seq` a long poll")
        .query("wait after_seq timeout_s")
        .gives("200", Some(of::<StateObject>)),
    call("get", "/v1/events", "The journal: a list, or with `Accept: text/event-stream` a stream that `Last-Event-ID` resumes")
        .query("after limit follow")
        .gives("200", Some(of::<Events>)),
    call("get", "/v1/sessions", "All sessions").gives("200", Some(of::<Sessions>)),
    call("post", "/v1/sessions", "Start another agent in a worktree of its own")
        .takes(of::<NewSession>)
        .gives("201", Some(of::<SessionState>)),
    call("get", "/v1/sessions/{id}", "One session").gives("200", Some(of::<SessionState>)),
    call(
        "get",
        "/v1/sessions/{id}/conversation",
        "What was said, oldest first: a page of at most `limit` turns (200, at most 2000), newer than `after`, which is the \
         `next` of an earlier answer. `format` is `json`, or `jsonl` (a turn a line) or `markdown` for all of it; `Accept` \
         does the same. `subagent` reads one with a transcript of its own; `all=true` adds the agent's bookkeeping; \
         `recent=true` begins with the last MiB",
    )
    .query("after limit format subagent all recent")
    .gives("200", Some(of::<Conversation>)),
    call("post", "/v1/sessions/{id}/prompts", "Queue a prompt; 429 when the queue is full")
        .takes(of::<sessions::NewPrompt>)
        .gives("202", Some(of::<Prompt>)),
    call("get", "/v1/sessions/{id}/prompts/{prompt}", "What became of a prompt").gives("200", Some(of::<Prompt>)),
    call("post", "/v1/sessions/{id}/interrupt", "Interrupt the turn").gives("202", None),
    call("post", "/v1/sessions/{id}/stop", "End the session and everything it left").gives("202", None),
    call("post", "/v1/sessions/{id}/answers", "Answer what `needs_input` asks")
        .takes(of::<sessions::Answer>)
        .gives("202", None),
    call("put", "/v1/spec", "Claim a waiting container, once; 409 after").takes(of::<Spec>).gives("202", None),
    call(
        "put",
        "/v1/config",
        "Exchange the configuration layers of a running task (the spec's `config`). All or nothing; says what a running agent \
         does not know before its restart, which `restart=resume` does",
    )
    .query("restart")
    .takes(of::<Vec<Layer>>)
    .gives("200", Some(of::<Reloaded>)),
    call("put", "/v1/credentials", "Credentials of provider, git and platform, held in memory only; 409 for a git login once an untrusted repository is fetched")
        .takes(of::<credentials::NewCredentials>)
        .gives("204", None),
    call("get", "/v1/attachments", "Attached files that are there, and those of the last that could not be had")
        .gives("200", Some(of::<attachments::Attached>)),
    call(
        "post",
        "/v1/attachments",
        "Attach files: links in JSON, or with `name` one file as the body (at most 25 MB). 201, or 207 where one is not \
         there. The session is told by a prompt unless `tell=false`",
    )
    .query("name session tell")
    .takes(of::<attachments::NewAttachments>)
    .gives("201", Some(of::<attachments::Attached>)),
    call("get", "/v1/generations", "The ledger, oldest first")
        .query("after limit")
        .gives("200", Some(of::<Generations>)),
    call("get", "/v1/spend", "Totals by session, model and day").gives("200", Some(of::<Spend>)),
    call("put", "/v1/budget", "Raise or lower the cap; outlives restarts")
        .takes(of::<BudgetUpdate>)
        .gives("200", Some(of::<Spend>)),
    call(
        "get",
        "/v1/search",
        "Turns of conversations and commands of shells, best first. `q` is words, all of which must be there, a \"phrase\", \
         or the beginning of a word as `begin*`; `kind` is `conversation` or `shell`; `session` is a session's or a \
         terminal's id; `since` and `until` are times, dates, or ages as `2h`; `limit` is 20, at most 200; with `everywhere=true` other tasks of the \
         backups' store are searched, too, and each result of one names its `task`",
    )
    .query("q kind session agent since until limit everywhere")
    .gives("200", Some(of::<Answer>)),
    call("post", "/v1/search/rebuild", "Forget the search's index and fill it again from transcripts and histories")
        .gives("200", Some(of::<Rebuilt>)),
    call("get", "/v1/ports", "What listens, with preview addresses").gives("200", Some(of::<Vec<Port>>)),
    call("patch", "/v1/ports/{port}", "Decide who may see a port, how its server is told its host, and whether it is the default")
        .takes(of::<ports::PortChange>)
        .gives("200", Some(of::<ports::Decided>)),
    call("post", "/v1/ports/{port}/links", "A link that opens one port for a while")
        .takes(of::<ports::NewLink>)
        .gives("201", Some(of::<ports::LinkMade>)),
    call("delete", "/v1/ports/{port}/links/{id}", "Take a link back").gives("204", None),
    call("get", "/v1/backups", "How it stands with the backup, and the newest `limit` (50) snapshots of the task, newest first")
        .query("limit")
        .gives("200", Some(of::<backups::Listing>)),
    call("post", "/v1/backups", "Back up now; 200 once every complete record that existed is in the store, else 503")
        .gives("200", Some(of::<backups::Taken>)),
    call("post", "/v1/backups/verify", "Read a snapshot back, the newest unless `at` names one; 200 tells what is wrong with it")
        .query("at")
        .gives("200", Some(of::<backup::verify::Verified>)),
    call("delete", "/v1/backups", "Remove all snapshots of the task from the store and the spool")
        .gives("200", Some(of::<backups::Purged>)),
    call("post", "/v1/quiesce", "Before a suspension: 200 once everything owed is durable, else what is still owed"),
    call("get", "/metrics", "Prometheus text (8081)"),
];

/// The document, made.
pub(crate) fn build() -> Value {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for call in CALLS {
        let operation = operation(call, &mut generator);
        let entry = paths.entry(call.path).or_insert_with(|| json!({}));
        if let Some(operations) = entry.as_object_mut() {
            operations.insert(call.method.to_owned(), operation);
        }
    }
    json!({
        "openapi": "3.0.3",
        "info": {"title": "whim", "version": env!("CARGO_PKG_VERSION"), "description": "The agent host's API."},
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {"control_token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(call: &Call, generator: &mut SchemaGenerator) -> Value {
    let in_path = call
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    let in_query = call.query.split_whitespace();
    parameters.extend(
        in_query.map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}})),
    );
    let success = match call.response {
        Some(schema) => {
            json!({"description": call.summary, "content": {"application/json": {"schema": schema(generator)}}})
        }
        None => json!({"description": call.summary}),
    };
    let problem = json!({"description": "A problem document", "content": {"application/problem+json": {"schema": {"type": "object"}}}});
    let mut operation = json!({
        "summary": call.summary,
        "parameters": parameters,
        "responses": {call.status: success, "default": problem},
    });
    if let Some(members) = operation.as_object_mut() {
        if let Some(schema) = call.request {
            let content = json!({"required": true, "content": {"application/json": {"schema": schema(generator)}}});
            members.insert("requestBody".into(), content);
        }
        if call.token {
            members.insert("security".into(), json!([{"control_token": []}]));
        }
    }
    operation
}

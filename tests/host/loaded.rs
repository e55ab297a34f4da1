//! What layers bring is loaded by the real agents: instructions, skills, MCP servers, plugins.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use whim_kit::model::script::{Reply, Rule, Script, ToolCall};
use whim_kit::{Root, Upstream};

use crate::support::{PATIENCE, agent, repository, root};

/// A server over standard input and output (<https://modelcontextprotocol.io/specification>, 2025-06-18).
const SERVER: &str = r#"
import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    method, given = asked.get("method"), asked.get("params", {})
    if method == "initialize":
        result = {"protocolVersion": given["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "house", "version": "1"}}
    elif method == "tools/list":
        result = {"tools": [{"name": "stamp", "description": "Puts the stamp of the house on a text.",
                             "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}},
                                             "required": ["text"]}}]}
    elif method == "tools/call":
        text = "stamped " + given["arguments"]["text"] + " " + os.environ["SEAL"]
        result = {"content": [{"type": "text", "text": text}]}
    else:
        result = {}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"#;

/// The same over HTTP, answering each message with JSON; its port is the first line that it prints.
const FAR_SERVER: &str = r#"
import http.server, json
class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        method, given = asked.get("method"), asked.get("params", {})
        if method == "initialize":
            result = {"protocolVersion": given["protocolVersion"], "capabilities": {"tools": {}},
                      "serverInfo": {"name": "far", "version": "1"}}
        elif method == "tools/list":
            result = {"tools": [{"name": "seal", "description": "Seals a letter from afar.",
                                 "inputSchema": {"type": "object", "properties": {}}}]}
        else:
            text = "sealed with " + self.headers.get("x-wax", "nothing")
            result = {"content": [{"type": "text", "text": text}]}
        body = json.dumps({"jsonrpc": "2.0", "id": asked.get("id"), "result": result}).encode()
        self.send_response(200 if "id" in asked else 202)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body) if "id" in asked else 0))
        self.end_headers()
        if "id" in asked:
            self.wfile.write(body)
    def do_GET(self):
        self.send_error(405)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// A process that ends with the test.
struct Far(Child, String);

impl Far {
    fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-c", FAR_SERVER])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut port).unwrap();
        let url = format!("http://127.0.0.1:{}/mcp", port.trim());
        Self(child, url)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn layers(root: &Root, far: &Far) -> Value {
    let server = root.write_as_agent("/home/node/server.py", SERVER).unwrap();
    json!([{
        "layer": "team",
        "instructions": "Mind the rule of the house.",
        "skills": [{"name": "greet", "files": {
            "SKILL.md": "---\nname: greet\ndescription: greets as the house does\n---\nSay salutations.\n",
        }}],
        "plugins": {
            "enabled": {"silver@market": true},
            "marketplaces": {"market": {"source": {"source": "directory", "path": marketplace(root)}}},
        },
        "mcp_servers": {
            "house": {"command": "python3", "args": [server], "env": {"SEAL": "in red wax"}},
            "far": {"url": far.1, "headers": {"X-Wax": "green wax"}},
        },
    }])
}

/// A marketplace of one plugin, which has a skill of its own.
fn marketplace(root: &Root) -> String {
    let write = |path: &str, text: &str| {
        let path = format!("/home/node/market/{path}");
        root.write_as_agent(&path, text).unwrap();
    };
    let plugins = json!([{"name": "silver", "source": "./silver"}]);
    let market = json!({"name": "market", "owner": {"name": "house"}, "plugins": plugins});
    write(".claude-plugin/marketplace.json", &market.to_string());
    let plugin = json!({"name": "silver", "version": "1.0.0"});
    write("silver/.claude-plugin/plugin.json", &plugin.to_string());
    write(
        "silver/skills/polish/SKILL.md",
        "---\nname: polish\ndescription: polishes the silver\n---\nRub.\n",
    );
    root.at("/home/node/market").display().to_string()
}

fn tool(name: &str, input: Value) -> Reply {
    let name = name.to_owned();
    Reply::call(ToolCall::Named { name, input })
}

/// One prompt, these calls of tools, and the end; everything of `parts` was before the model then.
fn loaded(kind: &str, prompt: &str, calls: Vec<Reply>, parts: &[&str]) {
    let replies = calls.into_iter().chain([Reply::say("the work is done")]);
    let upstream = Upstream::start(Script::of([Rule::prompt("greet", replies)])).unwrap();
    let (repository, far) = (repository(), Far::start());
    let run = agent(kind, &upstream, repository.path());
    let root = root(&run);
    let spec = json!({"version": 1, "config": layers(&root, &far)});
    let run = run
        .args(["--mode", "oneshot", "--permission-mode", "bypass"])
        .args(["--spec", &spec.to_string()])
        .arg(prompt);
    let mut whim = run.start(root).unwrap();
    let code = whim.ended(PATIENCE).unwrap();
    assert_eq!(code, 0, "{kind}\n{}", whim.output());
    let turns = upstream.turns();
    let everywhere = [
        "Mind the rule of the house.",
        "Say salutations.",
        "stamped the letter in red wax",
        "sealed with green wax",
    ];
    for part in everywhere.iter().chain(parts) {
        assert!(
            turns.iter().any(|turn| turn.mentions(part)),
            "{kind}: {part}\n{:#?}\n{}",
            turns.iter().map(|turn| turn.json()).collect::<Vec<_>>(),
            whim.output()
        );
    }
}

/// Claude Code (2.1.197) tells a model that can search of the servers' tools by name only.
#[test]
fn claude_knows_rules_skills_servers_and_plugins() {
    let calls = vec![
        tool(
            "ToolSearch",
            json!({"query": "select:mcp__house__stamp,mcp__far__seal"}),
        ),
        tool("mcp__house__stamp", json!({"text": "the letter"})),
        tool("mcp__far__seal", json!({})),
    ];
    let parts = [
        "greets as the house does",
        "polishes the silver",
        "Puts the stamp of the house on a text.",
    ];
    loaded("claude", "/greet the guest", calls, &parts);
}

/// Codex (0.169.0) gives its model a JavaScript interpreter, in which the servers' tools are functions.
#[test]
fn codex_knows_rules_skills_and_servers() {
    let script = "const done = await tools.mcp__house__stamp({text: \"the letter\"}); text(JSON.stringify(done)); \
                  text(JSON.stringify(await tools.mcp__far__seal({})));";
    let calls = vec![tool("exec", script.into())];
    let parts = ["greets as the house does"];
    loaded("codex", "$greet the guest", calls, &parts);
}

/// The router (2.0.0) leaves out what Claude Code says as system between prompts, the list of skills among it; they can
/// be called by name.
#[test]
fn the_router_knows_rules_skills_and_servers() {
    let calls = vec![
        tool("mcp__house__stamp", json!({"text": "the letter"})),
        tool("mcp__far__seal", json!({})),
    ];
    let parts = ["Puts the stamp of the house on a text."];
    loaded("ccr", "/greet the guest", calls, &parts);
}

/// Copilot (1.0.102) has a tool for skills, and no commands of theirs without a terminal.
#[test]
fn copilot_knows_rules_skills_and_servers() {
    let calls = vec![
        tool("skill", json!({"skill": "greet"})),
        tool("house-stamp", json!({"text": "the letter"})),
        tool("far-seal", json!({})),
    ];
    let parts = [
        "greets as the house does",
        "Puts the stamp of the house on a text.",
    ];
    loaded("copilot", "greet the guest", calls, &parts);
}

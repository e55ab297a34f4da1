//! What a platform relies on, tried on real containers with Docker's default capabilities.
//!
//! The scripted model is on the host's loopback, so containers share the host's network; whim's ports are free ones.

use std::process::Command;
use std::time::{Duration, Instant};

use whim_kit::model::demo;
use whim_kit::{Upstream, proc, repo, wait};

use super::IMAGE;
use super::daemon::Daemon;
use crate::Failed;
use crate::command::{output, say};
use crate::workspace;

/// An agent boots, works and answers within this on a slow machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// All checks, every one of them although one failed.
pub(super) fn all(daemon: &Daemon) -> Result<(), Failed> {
    let sample = tempfile::tempdir().map_err(|source| Failed::File {
        path: std::env::temp_dir(),
        source,
    })?;
    let repository = sample.path().join("repo");
    repo::sample(&repository)?;
    // Cloned by the image's agents' user, and git reads no repository of another user.
    let id = |which| {
        output(&mut daemon.docker([
            "run",
            "--rm",
            "--network=none",
            "--entrypoint=id",
            IMAGE,
            which,
            "node",
        ]))
    };
    let number = |text: String| {
        text.parse()
            .map_err(|_| Failed::Check(format!("the image has no user node: {text}")))
    };
    whim_kit::give(&repository, (number(id("-u")?)?, number(id("-g")?)?))?;
    let model = Upstream::start(demo::script()).map_err(Failed::Model)?;
    let lab = Lab {
        daemon,
        model,
        sample,
    };
    let checks: [(&str, Result<(), Failed>); 5] = [
        (
            "claude does two turns",
            lab.two_turns("claude", "ANTHROPIC_API_KEY"),
        ),
        (
            "codex does two turns",
            lab.two_turns("codex", "OPENAI_API_KEY"),
        ),
        ("the agent's result is the container's", lab.oneshot()),
        ("the example's pre-stop saves and ends", lab.pre_stop()),
        ("exit codes", lab.exit_codes()),
    ];
    let mut failed = Vec::new();
    for (name, result) in checks {
        match result {
            Ok(()) => say(&format!("ok   {name}")),
            Err(error) => {
                say(&format!("FAIL {name}: {error}"));
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failed::Check(format!(
            "the image failed: {}",
            failed.join(", ")
        )))
    }
}

struct Lab<'a> {
    daemon: &'a Daemon,
    model: Upstream,
    sample: tempfile::TempDir,
}

/// A container, removed when dropped.
struct Container<'a> {
    daemon: &'a Daemon,
    id: String,
}

impl Container<'_> {
    fn exec(&self, arguments: &[&str]) -> Result<String, Failed> {
        Ok(output(
            self.daemon.docker(["exec", &self.id]).args(arguments),
        )?)
    }

    fn inspect(&self, field: &str) -> Result<String, Failed> {
        Ok(output(
            &mut self.daemon.docker(["inspect", "--format", field, &self.id]),
        )?)
    }

    /// Everything it printed, for messages.
    fn logs(&self) -> String {
        let mut command = self.daemon.docker(["logs", &self.id]);
        command.output().map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    }

    /// Waits for a condition, as long as it runs.
    fn soon(&self, what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Failed> {
        let found = wait::until(what, PATIENCE, || {
            if holds() {
                return Some(true);
            }
            self.inspect("{{.State.Running}}")
                .is_ok_and(|running| running == "false")
                .then_some(false)
        });
        match found {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failed::Wait(format!(
                "it ended before there was {what}\n{}",
                self.logs()
            ))),
            Err(error) => Err(Failed::Wait(format!("{error}\n{}", self.logs()))),
        }
    }

    /// Waits for its end; the exit code.
    fn ended(&self) -> Result<i32, Failed> {
        wait::until("the container's end", PATIENCE, || {
            (self.inspect("{{.State.Running}}").ok()? == "false").then_some(())
        })
        .map_err(|error| Failed::Wait(format!("{error}\n{}", self.logs())))?;
        let code = self.inspect("{{.State.ExitCode}}")?;
        code.parse()
            .map_err(|_| Failed::Check(format!("no exit code: {code:?}")))
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if let Err(error) =
            output(&mut self.daemon.docker(["rm", "--force", "--volumes", &self.id]))
        {
            say(&format!("a container stays behind: {error}"));
        }
    }
}

impl Lab<'_> {
    /// Starts a container with these options of `docker run` and arguments of `whim run`.
    fn start(&self, docker: &[&str], whim: &[&str]) -> Result<Container<'_>, Failed> {
        let mut command: Command = self.daemon.docker(["run", "--detach", "--network=host"]);
        for port in ["GENERATION", "LOCAL", "BACKUP", "UI"] {
            command.args(["--env", &format!("WHIM_{port}_PORT=0")]);
        }
        command.args(["--env", &format!("WHIM_UPSTREAM_URL={}", self.model.url())]);
        command.args([
            "--volume",
            &format!("{}:/sample:ro", self.sample.path().join("repo").display()),
        ]);
        let id = output(command.args(docker).arg(IMAGE).args(whim))?;
        Ok(Container {
            daemon: self.daemon,
            id,
        })
    }

    /// A turn from the start, a turn by `whim prompt`, nothing left undead, and `docker stop` in order and in time.
    fn two_turns(&self, agent: &str, key: &str) -> Result<(), Failed> {
        let first = format!("[[sh echo {agent}-one > first.txt]] [[say First turn done.]]");
        let key = format!("{key}=scripted");
        let whim = [
            "--repo",
            "/sample",
            "--agent",
            agent,
            "--permission-mode",
            "bypass",
            &first,
        ];
        let container = self.start(&["--env", &key], &whim)?;
        let told = |error: Failed| Failed::Check(format!("{error}\n{}", container.logs()));
        let turn = |file: &str, text: &str| {
            container.soon(&format!("{file} in the checkout"), || {
                container
                    .exec(&["cat", &format!("/app/repo/{file}")])
                    .is_ok_and(|found| found == text)
            })
        };
        turn("first.txt", &format!("{agent}-one"))?;
        container
            .exec(&["whim", "status", "--wait", "idle", "--timeout", "60"])
            .map_err(told)?;
        let second = format!("[[sh echo {agent}-two > second.txt]] [[say Second turn done.]]");
        container
            .exec(&["whim", "prompt", "--wait", &second])
            .map_err(told)?;
        turn("second.txt", &format!("{agent}-two"))?;
        let owner = container.exec(&["stat", "--format=%U", "/app/repo/second.txt"])?;
        expect("the files' owner", owner.as_str(), "node")?;
        container.soon("a healthy container", || {
            container
                .inspect("{{.State.Health.Status}}")
                .is_ok_and(|health| health == "healthy")
        })?;
        let keeper: i32 = container
            .inspect("{{.State.Pid}}")?
            .parse()
            .map_err(|_| Failed::Check("no pid".into()))?;
        let undead = proc::zombies(keeper);
        if !undead.is_empty() {
            return Err(Failed::Check(format!("zombies: {undead:?}")));
        }
        let started = Instant::now();
        output(&mut self.daemon.docker(["stop", &container.id]))?;
        let took = started.elapsed();
        expect("the exit code after docker stop", &container.ended()?, &0).map_err(told)?;
        // Docker kills after 10 s; an ordered end needs no kill.
        if took >= Duration::from_secs(10) {
            return Err(Failed::Check(format!("docker stop took {took:?}")));
        }
        say(&format!(
            "     {agent}: docker stop took {:.1} s",
            took.as_secs_f64()
        ));
        Ok(())
    }

    /// `deploy/docker/stop.sh`: a backup while all works, then the end in order.
    fn pre_stop(&self) -> Result<(), Failed> {
        let agent = r#"["sleep","1000"]"#;
        let whim = [
            "--repo",
            "/sample",
            "--agent",
            "custom",
            "--agent-command",
            agent,
        ];
        let container = self.start(&[], &whim)?;
        let told = |error: Failed| Failed::Check(format!("{error}\n{}", container.logs()));
        container
            .exec(&["whim", "status", "--wait", "idle", "--timeout", "60"])
            .map_err(told)?;
        let script = workspace::at("deploy/docker/stop.sh");
        let stopped = Command::new(&script)
            .arg(&container.id)
            .env("DOCKER_HOST", self.daemon.address())
            .output()
            .map_err(|source| Failed::File {
                path: script,
                source,
            })?;
        // Where the backup fails it says so, and goes on.
        if !stopped.status.success() || !stopped.stderr.is_empty() {
            let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
            return Err(told(Failed::Check(format!("{}: {said}", stopped.status))));
        }
        expect("the exit code", &container.ended()?, &0).map_err(told)
    }

    /// The final text on standard output, and the agent's own exit code.
    fn oneshot(&self) -> Result<(), Failed> {
        let key = ["--env", "ANTHROPIC_API_KEY=scripted"];
        let prompt = "[[sh true]] [[say The final word.]]";
        let container = self.start(
            &key,
            &[
                "--repo",
                "/sample",
                "--mode",
                "oneshot",
                "--permission-mode",
                "bypass",
                prompt,
            ],
        )?;
        expect("the exit code of a oneshot", &container.ended()?, &0)
            .map_err(|error| Failed::Check(format!("{error}\n{}", container.logs())))?;
        let printed = output(&mut self.daemon.docker(["logs", &container.id]))?;
        if printed.contains("The final word.") {
            return Ok(());
        }
        Err(Failed::Check(format!(
            "the final text is not on standard output:\n{}",
            container.logs()
        )))
    }

    /// The table of exit codes, as far as a container can provoke them.
    fn exit_codes(&self) -> Result<(), Failed> {
        let key = "ANTHROPIC_API_KEY=scripted";
        let with = ["--env", key];
        let failing =
            r#"WHIM_SPEC={"version":1,"config":[{"layer":"platform","init_script":"exit 9"}]}"#;
        let custom = |command: &str| {
            format!(
                r#"WHIM_SPEC={{"version":1,"agent":{{"kind":"custom","mode":"oneshot","command":["sh","-c","{command}"]}}}}"#
            )
        };
        let (three, killed) = (custom("exit 3"), custom("kill -KILL $$"));
        let table: [(i32, &str, &[&str], &[&str]); 9] = [
            (64, "an unknown flag", &with, &["--no-such-flag"]),
            (64, "a wrong value", &with, &["--mode", "sideways"]),
            (
                65,
                "a spec that is none",
                &[
                    "--env",
                    key,
                    "--env",
                    "WHIM_SPEC={\"version\":1,\"agent\":{\"kind\":7}}",
                ],
                &[],
            ),
            (
                69,
                "a repository that cannot be reached",
                &with,
                &["--repo", "/no/such/repository"],
            ),
            (
                71,
                "an init script that fails",
                &["--env", key, "--env", failing],
                &["--repo", "/sample"],
            ),
            (
                73,
                "a directory in place of the state file",
                &["--env", key, "--tmpfs", "/tmp/claude_state"],
                &["--repo", "/sample"],
            ),
            (
                78,
                "no git",
                &["--env", key, "--env", "PATH=/usr/local/bin"],
                &["--repo", "/sample"],
            ),
            (
                3,
                "the agent's own",
                &["--env", &three],
                &["--repo", "/sample"],
            ),
            (
                137,
                "an agent that was killed",
                &["--env", &killed],
                &["--repo", "/sample"],
            ),
        ];
        let mut wrong = Vec::new();
        for (code, what, docker, whim) in table {
            let container = self.start(docker, whim)?;
            let ended = container.ended();
            match ended {
                Ok(found) if found == code => say(&format!("     {code}: {what}")),
                Ok(found) => {
                    wrong.push(format!("{what}: {found}, not {code}\n{}", container.logs()))
                }
                Err(error) => wrong.push(format!("{what}: {error}")),
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Failed::Check(wrong.join("\n")))
        }
    }
}

fn expect<T: PartialEq + std::fmt::Debug + ?Sized>(
    what: &str,
    found: &T,
    wanted: &T,
) -> Result<(), Failed> {
    if found == wanted {
        Ok(())
    } else {
        Err(Failed::Check(format!(
            "{what} is {found:?}, not {wanted:?}"
        )))
    }
}

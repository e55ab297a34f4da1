//! `cargo xtask image`: builds the container image without a registry and tries it as a platform would.
//!
//! A Docker daemon of its own, with its own data and no network set-up, so that nothing of the machine's is touched; a
//! small Debian base made by mmdebstrap and imported; the prebuilt binary and the agents' packages in the context. The
//! base and the daemon's data stay in `target/image` for the next time.

mod base;
mod checks;
mod daemon;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::command::{output, program, run as show, say};
use crate::{Failed, binary, machine, web, workspace};
use daemon::Daemon;

/// The image's name.
const IMAGE: &str = "whim:test";

/// Options of `cargo xtask image`
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Only build the image
    #[arg(long)]
    build_only: bool,
    /// Save the image as a tar file, for `docker load`
    #[arg(long)]
    save: Option<PathBuf>,
    /// Use this binary in place of a new one
    #[arg(long)]
    binary: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    if !geteuid().is_root() {
        return Err(Failed::Check(
            "a Docker daemon of its own needs root".into(),
        ));
    }
    let missing = machine::programs(&["mmdebstrap", "dockerd", "docker", "git", "node", "npm"])?;
    if !missing.is_empty() {
        return Err(Failed::Check(format!(
            "the image needs {}",
            missing.join(", ")
        )));
    }
    let whim = match &options.binary {
        Some(path) => path.clone(),
        None => {
            web::build()?;
            binary::build("ci")?
        }
    };
    let clis = whim_kit::agents::installed()?;
    let daemon = Daemon::start(&workspace::target("image/docker"))?;
    base::import(&daemon)?;
    let context = workspace::target("image/context");
    stage(&context, &whim, &clis)?;
    say("building the image");
    let mut build = daemon.docker(["build", "--quiet", "--network=none", "--tag", IMAGE]);
    for argument in ["BASE_IMAGE", "NODE_IMAGE", "RUST_IMAGE"] {
        build
            .arg("--build-arg")
            .arg(format!("{argument}={}", base::NAME));
    }
    // The classic builder needs no plug-in and no front-end image.
    build
        .args(["--build-arg", "PREBUILT=whim"])
        .arg(&context)
        .env("DOCKER_BUILDKIT", "0");
    output(&mut build)?;
    if let Some(path) = &options.save {
        show(daemon.docker(["save", "--output"]).arg(path).arg(IMAGE))?;
    }
    if options.build_only {
        return Ok(());
    }
    checks::all(&daemon)
}

/// Lays out the context: the Dockerfile, the binary, and the agents' packages where the Dockerfile looks for them.
fn stage(context: &Path, whim: &Path, clis: &Path) -> Result<(), Failed> {
    workspace::fresh(context)?;
    let agents = context.join("tests/kit/agents");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Failed::File { path, source }
    };
    fs::create_dir_all(&agents).map_err(failed(&agents))?;
    let copy = |from: PathBuf, to: PathBuf| fs::copy(&from, to).map(drop).map_err(failed(&from));
    copy(workspace::at("Dockerfile"), context.join("Dockerfile"))?;
    copy(whim.to_owned(), context.join("whim"))?;
    let executable = context.join("whim");
    fs::set_permissions(&executable, fs::Permissions::from_mode(0o755))
        .map_err(failed(&executable))?;
    let installation = clis.parent().and_then(Path::parent).unwrap_or(clis);
    // Hard links where the file system can: the packages are large.
    let packages = installation.join("node_modules");
    if output(program("cp", ["-al"]).arg(&packages).arg(&agents)).is_err() {
        let half = agents.join("node_modules");
        if half.exists() {
            fs::remove_dir_all(&half).map_err(failed(&half))?;
        }
        output(program("cp", ["-a"]).arg(&packages).arg(&agents))?;
    }
    for name in ["package.json", "package-lock.json"] {
        copy(installation.join(name), agents.join(name))?;
    }
    Ok(())
}

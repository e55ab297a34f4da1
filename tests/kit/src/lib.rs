//! What the black-box tests share.
//!
//! Owns everything a test needs beside the program under test: a scripted model provider ([`Upstream`]), a platform's
//! API ([`Backend`]), the repositories and directories an agent works in ([`repo`], [`Root`]), the start of `whim run`
//! as root, as an ordinary user, in a pid namespace or with a container's capabilities ([`Whim`]), a client for its API
//! ([`Client`]), the agent CLIs, development servers and an S3 at pinned versions ([`agents`], [`servers`], [`S3`]), a
//! git server ([`GitServer`]), mounts that one test sees ([`mounts`]), and views of `/proc` ([`proc`]).
//!
//! Everything is callable from synchronous and asynchronous tests alike: what needs a runtime runs on a thread of its
//! own. Every wait has a deadline and says what it waited for ([`wait`]). What a fixture started ends with it.

pub mod agents;
pub mod backend;
mod background;
pub mod client;
mod events;
pub mod git_server;
mod installed;
pub mod model;
pub mod mounts;
pub mod proc;
pub mod repo;
mod root;
mod run;
pub mod s3;
pub mod servers;
pub mod wait;
mod whim;

pub use backend::Backend;
pub use client::{Answer, Client, ClientError};
pub use git_server::GitServer;
pub use installed::InstallError;
pub use model::Upstream;
pub use root::{AGENTS_USER, Root, RootError, agents_user, give};
pub use run::Run;
pub use s3::S3;
pub use whim::{Ready, Whim, WhimError, reachable};

//! Frames between the supervisor and its helper.
//!
//! A frame is a header of two little-endian `u32` (length of the JSON part, length of the body) and the two parts. File
//! contents travel as body, never inside JSON.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest JSON part: a directory listing of [`MAX_ENTRIES`] names.
pub(super) const MAX_JSON: usize = 4 * 1024 * 1024;
/// Largest body. Files of agents are far smaller; transcripts are read in pieces.
pub(super) const MAX_BODY: usize = 32 * 1024 * 1024;
/// Most entries of one listing; a directory with more is cut and says so.
pub(super) const MAX_ENTRIES: usize = 10_000;
/// Stands for the size of what has none.
pub(super) const NO_SIZE: u64 = u64::MAX;
/// Number of the helper's end of the socket.
pub(super) const SOCKET: i32 = 3;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) action: Action,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Action {
    /// Up to `limit` bytes of a regular file from `offset`.
    Read {
        path: PathBuf,
        offset: u64,
        limit: usize,
    },
    /// Replaces the file whole: a temporary file beside it, then a rename. Directories above it are made. With `expect`
    /// the file must still be as it was read (an agent CLI may have rewritten it meanwhile); `None` inside: must not exist.
    Write {
        path: PathBuf,
        mode: u32,
        expect: Option<Option<Stamp>>,
    },
    /// As [`Action::Read`], but not through a symlink at the path's end.
    ReadPlain {
        path: PathBuf,
        offset: u64,
        limit: usize,
    },
    List {
        path: PathBuf,
    },
    /// Everything below a directory. Links are told, not followed; below the directory itself.
    Tree {
        path: PathBuf,
    },
    /// Follows links; the entry tells the target's kind.
    Stat {
        path: PathBuf,
    },
    Canonicalize {
        path: PathBuf,
    },
    MakeDirectory {
        path: PathBuf,
        mode: u32,
    },
    Remove {
        path: PathBuf,
    },
    /// Only if it is empty.
    RemoveDirectory {
        path: PathBuf,
    },
    /// A directory and all in it; links in it are removed, not followed. None is fine.
    RemoveTree {
        path: PathBuf,
    },
    /// Builds a file piece by piece beside its place and, with the `last` piece, puts it there if nothing is there.
    /// Directories above it are made. `offset`: how much was put before; 0 begins anew.
    Put {
        path: PathBuf,
        mode: u32,
        offset: u64,
        last: bool,
    },
    /// Sizes of the files in the body (relative to `directory`, separated by NUL), links not followed: a little-endian
    /// `u64` each, [`NO_SIZE`] for what cannot be read or is neither file nor link.
    Sizes {
        directory: PathBuf,
    },
    /// From now on, changes in this directory (not below it) are reported as [`Answer::Changed`].
    Watch {
        directory: PathBuf,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    /// `stamp` of the file that the body was read from; `size` as of now.
    Content {
        stamp: Stamp,
    },
    Written {
        stamp: Stamp,
    },
    Entries {
        entries: Vec<Entry>,
        cut: bool,
    },
    /// Of [`Action::Tree`]: files and links by their paths below it, and the directories, its own with an empty path.
    Tree {
        leaves: Vec<Entry>,
        directories: Vec<String>,
        cut: bool,
    },
    Entry {
        entry: Entry,
    },
    Path {
        path: PathBuf,
    },
    Sizes,
    Failed {
        errno: i32,
        message: String,
    },
    /// Unasked (request id 0): something in a watched directory changed. `name` is empty when changes were lost.
    Changed {
        directory: PathBuf,
        name: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) id: u64,
    pub(super) answer: Answer,
}

/// Identity of one version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub modified: i128,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
    pub stamp: Stamp,
    pub mode: u32,
    pub uid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    File,
    Directory,
    Link,
    Other,
}

/// Encodes a frame.
///
/// # Errors
/// `InvalidInput` when a part is over its bound.
pub(super) fn encode(part: &impl Serialize, body: &[u8]) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(part)?;
    if json.len() > MAX_JSON || body.len() > MAX_BODY {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "frame too large",
        ));
    }
    let lengths = [u32::try_from(json.len()), u32::try_from(body.len())];
    let mut frame = Vec::with_capacity(8 + json.len() + body.len());
    for length in lengths {
        frame.extend_from_slice(&length.map_err(io::Error::other)?.to_le_bytes());
    }
    frame.extend_from_slice(&json);
    frame.extend_from_slice(body);
    Ok(frame)
}

/// Lengths of JSON and body from a frame's header.
///
/// # Errors
/// `InvalidData` when one is over its bound: the peer is not what it should be.
pub(super) fn lengths(header: [u8; 8]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, e, f, g, h] = header;
    let json = u32::from_le_bytes([a, b, c, d]) as usize;
    let body = u32::from_le_bytes([e, f, g, h]) as usize;
    if json > MAX_JSON || body > MAX_BODY {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "frame too large",
        ));
    }
    Ok((json, body))
}

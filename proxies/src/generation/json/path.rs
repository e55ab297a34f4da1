//! Where in a document a value stands.

use super::{DEPTH, KEY};

/// Where a value stands: the keys from the root down. Elements of an array have an empty key.
#[derive(Clone, Debug)]
pub struct Path {
    keys: [[u8; KEY]; DEPTH],
    lens: [u8; DEPTH],
    len: usize,
}

impl Path {
    pub(super) const fn new() -> Self {
        Self {
            keys: [[0; KEY]; DEPTH],
            lens: [0; DEPTH],
            len: 0,
        }
    }

    /// Goes up or down to a level. The keys above it stay; the one of a level that is new is set before it is read.
    pub(super) const fn stand_at(&mut self, level: usize) {
        self.len = level;
    }

    /// Sets the key at a level; beyond [`DEPTH`] there is none.
    pub(super) fn set(&mut self, level: usize, key: &[u8]) {
        if let (Some(slot), Some(len)) = (self.keys.get_mut(level), self.lens.get_mut(level)) {
            // A key that does not fit is kept cut; at full length it equals none that is asked for.
            let kept = key.len().min(KEY);
            if let (Some(to), Some(from)) = (slot.get_mut(..kept), key.get(..kept)) {
                to.copy_from_slice(from);
            }
            *len = u8::try_from(kept).unwrap_or(0);
        }
    }

    /// Number of keys.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether this is the root.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key at a level, counted from 0; empty for array elements and beyond the end.
    #[must_use]
    pub fn key(&self, level: usize) -> &[u8] {
        if level >= self.len {
            return &[];
        }
        match (self.keys.get(level), self.lens.get(level)) {
            (Some(key), Some(&len)) => key.get(..usize::from(len)).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// Whether the path below `level` consists of exactly these keys.
    #[must_use]
    pub fn ends_with(&self, level: usize, keys: &[&str]) -> bool {
        self.len == level + keys.len()
            && keys
                .iter()
                .zip(level..)
                .all(|(key, at)| self.key(at) == key.as_bytes())
    }

    /// Whether the path consists of exactly these keys.
    #[must_use]
    pub fn is(&self, keys: &[&str]) -> bool {
        self.ends_with(0, keys)
    }
}

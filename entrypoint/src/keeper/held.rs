//! Descriptors kept for the next supervisor.
//!
//! At most [`MAX_HELD`]; another one is refused. `arguments` is the keeper's own and comes first in every inventory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::wire::ARGUMENTS;

/// Most held descriptors, `arguments` not counted.
pub(super) const MAX_HELD: usize = 64;
#[derive(Debug)]
pub(super) struct Held {
    arguments: OwnedFd,
    others: BTreeMap<String, OwnedFd>,
}

impl Held {
    pub(super) fn new(arguments: OwnedFd) -> Self {
        Self {
            arguments,
            others: BTreeMap::new(),
        }
    }

    /// Keeps `fd`, in place of an older one of that name.
    ///
    /// # Errors
    /// Why not, for people.
    pub(super) fn hold(&mut self, name: String, fd: OwnedFd) -> Result<(), &'static str> {
        if name == ARGUMENTS {
            return Err("the name is the keeper's own");
        }
        if self.others.len() >= MAX_HELD && !self.others.contains_key(&name) {
            return Err("too many held descriptors");
        }
        drop(self.others.insert(name, fd));
        Ok(())
    }

    /// Closes it; false when there is none of that name.
    pub(super) fn release(&mut self, name: &str) -> bool {
        self.others.remove(name).is_some()
    }

    pub(super) fn get(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.others.get(name).map(AsFd::as_fd)
    }

    /// The one that follows `name` in an inventory; the first for `None`.
    pub(super) fn after(&self, name: Option<&str>) -> Option<(&str, BorrowedFd<'_>)> {
        let after = match name {
            None => return Some((ARGUMENTS, self.arguments.as_fd())),
            Some(ARGUMENTS) => Bound::Unbounded,
            Some(name) => Bound::Excluded(name),
        };
        let next = self
            .others
            .range::<str, _>((after, Bound::Unbounded))
            .next();
        next.map(|(name, fd)| (name.as_str(), fd.as_fd()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::dev_null;

    #[test]
    fn the_inventory_starts_with_the_arguments_and_names_each_once() {
        let mut held = Held::new(dev_null().unwrap());
        for name in ["b", "a", "zebra", "b"] {
            held.hold(name.to_owned(), dev_null().unwrap()).unwrap();
        }
        let mut names: Vec<String> = Vec::new();
        while let Some((name, _)) = held.after(names.last().map(String::as_str)) {
            names.push(name.to_owned());
        }
        assert_eq!(names, ["arguments", "a", "b", "zebra"]);
        assert!(held.release("b") && !held.release("b"));
        assert!(!held.release(ARGUMENTS));
    }

    #[test]
    fn the_bound_holds_and_replacing_is_always_allowed() {
        let mut held = Held::new(dev_null().unwrap());
        for number in 0..MAX_HELD {
            held.hold(number.to_string(), dev_null().unwrap()).unwrap();
        }
        assert!(held.hold("one more".into(), dev_null().unwrap()).is_err());
        assert!(held.hold("7".into(), dev_null().unwrap()).is_ok());
        assert!(held.hold(ARGUMENTS.into(), dev_null().unwrap()).is_err());
    }
}

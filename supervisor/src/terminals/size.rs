//! The size of a terminal, and whose size it is.
//!
//! A sole viewer's size applies at once. With several, the size belongs to whoever typed last; the others see the
//! owner's size (and letterbox). An owner that leaves hands it to the most recent typist among those that are left.
//! Read-only viewers never own it. Pure: no clock, no I/O; the engine decides when the ioctl happens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub columns: u16,
    pub rows: u16,
}

impl Size {
    pub const MIN: u16 = 2;
    pub const MAX: u16 = 1000;
    pub const DEFAULT: Self = Self {
        columns: 80,
        rows: 24,
    };

    /// The nearest size that is allowed (CONTRACT §6c: 2..1000).
    pub fn clamped(self) -> Self {
        Self {
            columns: self.columns.clamp(Self::MIN, Self::MAX),
            rows: self.rows.clamp(Self::MIN, Self::MAX),
        }
    }

    /// What a client asked for, any of it missing or nonsense: a missing part keeps `self`'s.
    pub fn asked(self, columns: Option<f64>, rows: Option<f64>) -> Self {
        let part = |asked: Option<f64>, present: u16| match asked {
            Some(value) if value.is_finite() => {
                let value = value.clamp(f64::from(Self::MIN), f64::from(Self::MAX));
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "clamped to 2..=1000 above"
                )]
                let value = value as u16;
                value
            }
            Some(value) if value == f64::INFINITY => Self::MAX,
            _ => present,
        };
        Self {
            columns: part(columns, self.columns),
            rows: part(rows, self.rows),
        }
    }
}

/// A viewer's number within its terminal; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewerId(pub u64);

#[derive(Debug)]
struct Claim {
    size: Option<Size>,
    /// Rises with each keystroke or take-over of anyone; the highest is the most recent.
    typed: u64,
}

/// Decides the size; see the module's header.
#[derive(Debug)]
pub struct SizePolicy {
    size: Size,
    owner: Option<ViewerId>,
    claims: BTreeMap<ViewerId, Claim>,
    clock: u64,
}

impl SizePolicy {
    pub fn new(size: Size) -> Self {
        Self {
            size: size.clamped(),
            owner: None,
            claims: BTreeMap::new(),
            clock: 0,
        }
    }

    pub fn size(&self) -> Size {
        self.size
    }

    pub fn owner(&self) -> Option<ViewerId> {
        self.owner
    }

    /// A viewer that may type came, with its size if it has one.
    pub fn join(&mut self, viewer: ViewerId, size: Option<Size>) {
        self.claims.insert(
            viewer,
            Claim {
                size: size.map(Size::clamped),
                typed: 0,
            },
        );
        if self.owner.is_none() {
            self.own(viewer);
        }
    }

    /// A viewer's window changed. Applies at once to the owner's.
    pub fn resize(&mut self, viewer: ViewerId, size: Size) {
        if let Some(claim) = self.claims.get_mut(&viewer) {
            claim.size = Some(size.clamped());
            if self.owner == Some(viewer) {
                self.own(viewer);
            }
        }
    }

    /// A viewer typed, or asked to take the size over.
    pub fn typed(&mut self, viewer: ViewerId) {
        self.clock += 1;
        if let Some(claim) = self.claims.get_mut(&viewer) {
            claim.typed = self.clock;
            if self.owner != Some(viewer) {
                self.own(viewer);
            }
        }
    }

    pub fn leave(&mut self, viewer: ViewerId) {
        self.claims.remove(&viewer);
        if self.owner == Some(viewer) {
            self.owner = None;
            let next = self
                .claims
                .iter()
                .max_by_key(|(id, claim)| (claim.typed, **id));
            if let Some(id) = next.map(|(id, _)| *id) {
                self.own(id);
            }
        }
    }

    fn own(&mut self, viewer: ViewerId) {
        self.owner = Some(viewer);
        if let Some(size) = self.claims.get(&viewer).and_then(|claim| claim.size) {
            self.size = size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: Size = Size {
        columns: 40,
        rows: 20,
    };
    const DESK: Size = Size {
        columns: 200,
        rows: 60,
    };

    #[test]
    fn nonsense_is_clamped_and_missing_parts_are_kept() {
        let present = Size {
            columns: 80,
            rows: 24,
        };
        assert_eq!(present.asked(None, None), present);
        assert_eq!(
            present.asked(Some(0.0), Some(-3.0)),
            Size {
                columns: 2,
                rows: 2
            }
        );
        assert_eq!(
            present.asked(Some(1e308), Some(65535.0)),
            Size {
                columns: 1000,
                rows: 1000
            }
        );
        assert_eq!(
            present.asked(Some(f64::NAN), Some(30.9)),
            Size {
                columns: 80,
                rows: 30
            }
        );
        assert_eq!(
            present.asked(Some(f64::INFINITY), None),
            Size {
                columns: 1000,
                rows: 24
            }
        );
    }

    #[test]
    fn a_sole_viewer_decides_and_typing_takes_over() {
        let (phone, desk) = (ViewerId(1), ViewerId(2));
        let mut policy = SizePolicy::new(Size::DEFAULT);
        policy.join(phone, Some(PHONE));
        assert_eq!(policy.size(), PHONE);
        policy.join(desk, Some(DESK));
        assert_eq!(policy.size(), PHONE, "the second viewer letterboxes");
        policy.resize(
            desk,
            Size {
                columns: 190,
                rows: 60,
            },
        );
        assert_eq!(policy.size(), PHONE, "a follower's window does not matter");
        policy.typed(desk);
        assert_eq!(policy.size().columns, 190);
        policy.typed(phone);
        assert_eq!(policy.size(), PHONE);
        policy.leave(phone);
        assert_eq!((policy.size().columns, policy.owner()), (190, Some(desk)));
        policy.leave(desk);
        assert_eq!(
            (policy.size().columns, policy.owner()),
            (190, None),
            "the last size stays"
        );
    }

    #[test]
    fn a_viewer_without_a_size_keeps_the_present_one() {
        let mut policy = SizePolicy::new(DESK);
        policy.join(ViewerId(1), None);
        policy.typed(ViewerId(1));
        assert_eq!(policy.size(), DESK);
    }
}

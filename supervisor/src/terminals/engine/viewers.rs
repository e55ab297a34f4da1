//! What viewers come for: a first screen, a fresh one after a gap, typing, and the right to answer queries.

use std::sync::PoisonError;

use tokio::sync::oneshot;

use super::Engine;
use super::command::{Attach, Attached, Snapshot};
use crate::terminals::answers::{self, Piece};
use crate::terminals::input;
use crate::terminals::screen::{MAX_LINES, SnapshotOptions};
use crate::terminals::size::ViewerId;
use crate::terminals::source::Source;
use crate::terminals::typed::Hand;

#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) read_only: bool,
    pub(super) paused: bool,
    pub(super) rows: Option<u16>,
    pub(super) lines: usize,
    pub(super) counted: bool,
    pub(super) live_from: u64,
}

impl<S: Source> Engine<S> {
    pub(super) fn attach(&mut self, attach: Attach, reply: oneshot::Sender<Attached>) {
        let Attach {
            viewer,
            size,
            read_only,
            resume,
            lines,
            counted,
        } = attach;
        let alone = self.viewers.values().all(|viewer| viewer.read_only);
        if !read_only {
            self.policy.join(viewer, size);
            if alone {
                self.policy.typed(viewer);
            }
            self.size_changed();
        }
        self.parse();
        let (start, head) = {
            let backlog = self
                .shared
                .backlog
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            (backlog.start(), backlog.head())
        };
        let rows = size.map(|size| size.rows);
        let attached = match resume.filter(|offset| (start..=head).contains(offset)) {
            Some(offset) => Attached {
                offset,
                snapshot: None,
                live_from: head,
            },
            None => {
                let skipped = resume.map_or(0, |offset| head.saturating_sub(offset));
                let options = self.options(rows, lines, skipped);
                let snapshot = Some(self.screen.snapshot(options));
                Attached {
                    offset: head,
                    snapshot,
                    live_from: head,
                }
            }
        };
        if reply.send(attached).is_ok() {
            let state = Viewer {
                read_only,
                paused: false,
                rows,
                lines,
                counted,
                live_from: head,
            };
            self.viewers.insert(viewer, state);
            self.publish();
        } else {
            self.policy.leave(viewer);
            self.size_changed();
        }
    }

    fn options(&self, rows: Option<u16>, lines: usize, skipped: u64) -> SnapshotOptions {
        let rows = rows.unwrap_or_else(|| self.screen.size().rows);
        SnapshotOptions {
            rows,
            lines: lines.min(MAX_LINES),
            skipped,
        }
    }

    pub(super) fn snapshot(
        &mut self,
        viewer: ViewerId,
        from: u64,
        reply: oneshot::Sender<Snapshot>,
    ) {
        self.parse();
        let head = *self.shared.head.borrow();
        let Some(state) = self.viewers.get_mut(&viewer) else {
            return;
        };
        state.live_from = head;
        let (rows, lines) = (state.rows, state.lines);
        let options = self.options(rows, lines, head.saturating_sub(from));
        let bytes = self.screen.snapshot(options);
        // The viewer may have left.
        drop(reply.send(Snapshot {
            bytes,
            offset: head,
        }));
    }

    pub(super) fn viewer_input(&mut self, viewer: ViewerId, piece: input::Piece) {
        if self
            .viewers
            .get(&viewer)
            .is_none_or(|state| state.read_only)
        {
            return;
        }
        if let Some(key) = input::interrupt_key(&piece.bytes) {
            self.typed(viewer);
            self.follow(Hand::Person, &piece.bytes);
            let done = if self.input.is_empty() {
                self.input.push(piece);
                self.input.write(&self.master).map(drop)
            } else {
                self.input.interrupt(key, &self.master)
            };
            return self.check_master(done);
        }
        // Answers can only be told from keys when all queries that were forwarded are known.
        self.parse();
        let mut keys = Vec::new();
        let mut typed = false;
        for part in answers::pieces(&piece.bytes) {
            match part {
                Piece::Typed(bytes) => {
                    typed = true;
                    self.follow(Hand::Person, bytes);
                    keys.extend_from_slice(bytes);
                }
                Piece::Answer(bytes) => {
                    if self.may_answer(viewer) {
                        keys.extend_from_slice(bytes);
                    }
                }
                Piece::Either(bytes) => {
                    let answer = self.may_answer(viewer);
                    typed |= !answer;
                    if !answer {
                        self.follow(Hand::Person, bytes);
                    }
                    keys.extend_from_slice(bytes);
                }
            }
        }
        if typed {
            self.typed(viewer);
        }
        self.input.push(input::Piece {
            bytes: keys,
            ..piece
        });
        self.write_input();
    }

    fn typed(&mut self, viewer: ViewerId) {
        self.shared.touch_input();
        self.policy.typed(viewer);
        self.size_changed();
    }

    /// Tells those who care what stands in the program's input box now.
    pub(super) fn follow(&mut self, hand: Hand, bytes: &[u8]) {
        self.keys.follow(hand, bytes);
        let now = self.keys.typed();
        self.shared.typed.send_if_modified(|typed| {
            let changed = *typed != now;
            *typed = now;
            changed
        });
    }

    /// Uses up one open query that this viewer saw live, if it is the one that answers.
    fn may_answer(&mut self, viewer: ViewerId) -> bool {
        let Some(state) = self.viewers.get(&viewer) else {
            return false;
        };
        if self.answerer() != Some(viewer) {
            return false;
        }
        let live_from = state.live_from;
        match self.open.iter().position(|open| open.offset > live_from) {
            Some(place) => {
                self.open.remove(place);
                true
            }
            None => false,
        }
    }

    pub(super) fn forget_detached(&mut self) {
        for viewer in self.shared.detached.take() {
            if self.viewers.remove(&viewer).is_some() {
                self.policy.leave(viewer);
            }
        }
        self.size_changed();
        self.answer_alone();
        self.publish();
    }

    /// The viewer whose terminal answers: the size's owner if it reads along and may type, else the newest that does.
    fn answerer(&self) -> Option<ViewerId> {
        let able = |id: &ViewerId| {
            self.viewers
                .get(id)
                .is_some_and(|viewer| !viewer.read_only && !viewer.paused)
        };
        self.policy
            .owner()
            .filter(able)
            .or_else(|| self.viewers.keys().rev().copied().find(|id| able(id)))
    }

    /// While nobody can answer, the server does.
    pub(super) fn answer_alone(&mut self) {
        if self.open.is_empty() || self.answerer().is_some() {
            return;
        }
        for open in std::mem::take(&mut self.open) {
            if let Some(answer) = open.answer {
                self.input.push(input::Piece::of(answer));
            }
        }
        self.write_input();
    }

    pub(super) fn counted(&self) -> usize {
        self.viewers
            .values()
            .filter(|viewer| viewer.counted)
            .count()
    }
}

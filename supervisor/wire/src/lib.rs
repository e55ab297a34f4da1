//! Types of the API, of files and of events, shared by everything that reads or writes them.
//!
//! Owns names and shapes only: no I/O, no clock, no policy. Readers ignore fields they do not know, so fields may be
//! added; a changed or dropped one breaks other programs.

pub mod attachment;
pub mod conversation;
pub mod event;
pub mod generation;
pub mod money;
pub mod platform;
pub mod port;
pub mod search;
pub mod spec;
pub mod state;
pub mod time;

//! Timelines of evidence and the states that must follow.

mod cases;
mod properties;
mod script;
mod traces;

//! Types of the API, files and events. No I/O.
pub mod spec;

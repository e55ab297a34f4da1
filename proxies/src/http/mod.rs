//! The mechanism of HTTP that both proxies stand on: serving, dialling, header hygiene. No policy of either.

pub mod dial;
pub mod guard;
pub mod headers;
mod held;
mod peer;
pub mod pool;
pub mod serve;
pub mod switch;

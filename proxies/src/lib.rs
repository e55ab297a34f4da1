//! HTTP mechanism and the two proxies.

pub mod local;

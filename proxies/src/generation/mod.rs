//! generation

pub mod activity;
pub mod budget;
pub mod decode;
pub mod json;
pub mod ledger;
pub mod money;
pub mod price;
pub mod provider;
pub mod refuse;
pub mod request;
pub mod route;
pub mod secret;
pub mod session;
pub mod sse;
pub mod tap;
pub mod usage;

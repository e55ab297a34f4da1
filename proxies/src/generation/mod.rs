//! The generation proxy: every model call seen, priced, capped, and otherwise untouched.
//!
//! Owns the port that agents talk to. A request with a session's token is forwarded to that session's provider with
//! the provider's key; what comes back is passed byte for byte while a tap reads a copy. Promises, each tested:
//! nothing goes upstream without a valid token, a held reservation and a slot in the ledger; nothing of the agent's
//! credentials goes upstream and nothing of the provider's comes back; an answer is altered only where a cap or limit
//! answers instead; a call is settled exactly once, however it ends.
//!
//! Pure parts (no runtime, no I/O): [`sse`], [`json`], [`tap`], [`request`], [`usage`], [`price`], [`money`],
//! [`budget`], [`route`], [`refuse`]. The forwarding path: [`proxy`] (state and entry), `forward` (one request),
//! `body` (what is sent upstream), `metered` (what comes back); `socket` (many requests on one WebSocket).

pub mod activity;
mod body;
pub mod budget;
mod call;
mod count;
pub mod decode;
mod forward;
pub mod json;
pub mod ledger;
mod metered;
mod metrics;
pub mod money;
pub mod price;
pub mod probe;
mod prompts;
pub mod provider;
pub mod proxy;
mod reconcile;
pub mod refuse;
pub mod request;
mod retry;
pub mod route;
pub mod secret;
pub mod session;
mod socket;
pub mod sse;
pub mod tap;
pub mod usage;
mod watch;

pub use activity::{Activity, Board, InFlight, Purpose, What};
pub use budget::{Caps, Denied, Warning};
pub use price::{PriceTable, TableError};
pub use probe::Probe;
pub use provider::{BaseError, Credentials, Provider, Upstream};
pub use proxy::{Config, GenerationProxy, Limits, OpenError, UnknownModel, serve};
pub use secret::Secret;
pub use session::{Session, SessionTokens};

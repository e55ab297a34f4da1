//! Records of each agent, and properties that hold for any bytes.

mod agents;
mod properties;

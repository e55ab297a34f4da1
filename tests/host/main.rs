//! Black-box tests of the host: the binary, real agents, real processes, and a scripted model.

mod agents;
mod container;
mod refusals;
mod support;
mod trust;

//! The generation proxy between raw sockets: a scripted provider on one side, an agent on the other.

mod budget;
mod cuts;
mod kit;
mod pass;

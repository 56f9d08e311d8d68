//! Bytes that nobody should send, and what must hold all the same.
//!
//! Each [`Target`] is a function of bytes that panics when something is wrong, a generator of inputs that are nearly
//! right, and a bound on what it may allocate. The program `leveret-fuzz` runs one for a while; the tests run each
//! briefly. The transcripts of real clients (`tests/transcripts`) are read with its means, too.
#![forbid(unsafe_code)]

mod content;
mod conversation;
mod listener;
mod memory;
mod mutation;
pub mod random;
mod run;
mod targets;

pub use listener::Listener;
pub use run::{Failed, Outcome, Runner, failures_are_saved_to_disk};
pub use targets::{TARGETS, Target, target};

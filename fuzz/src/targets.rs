//! What is tried: one file a target.

mod connection;
mod frame;
mod method;
mod recovery;
mod table;

use crate::random::Random;

/// One thing that takes bytes from strangers.
pub struct Target {
    /// Its name, as the program takes it, and that of its folder of inputs.
    pub name: &'static str,
    /// Takes the bytes. Panics when something is wrong.
    pub run: fn(&[u8]),
    /// Makes an input that is nearly right.
    pub generate: fn(&mut Random) -> Vec<u8>,
    /// Makes another of an input.
    pub mutate: fn(&mut Vec<u8>, &mut Random),
    /// What it may allocate, in bytes: so much in any case, and so much for each byte of input.
    pub memory: (usize, usize),
}

/// All of them.
pub const TARGETS: [Target; 5] = [frame::TARGET, method::TARGET, table::TARGET, connection::TARGET, recovery::TARGET];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    const ALL: &[Target] = &TARGETS;
    ALL.iter().find(|target| target.name == name)
}

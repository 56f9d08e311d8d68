//! A deterministic simulator of Leveret: the real machines in a world of clients, wires, disks and a clock that are
//! all made of one seed.
//!
//! [`world::World::run`] is the whole of it. What must hold is checked on three levels: clients check everything that
//! they get against the protocol ([`client`]), the ledger follows every message between publish and settlement
//! ([`ledger`]), and at the end of a run everything has to be answered, drained and given back ([`world`]). What fails
//! panics; [`trace`] has the last things that happened, and how to run it again.
//!
//! It knows the machines' public interfaces and nothing of how they work.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

pub mod client;
pub mod ledger;
pub mod node;
pub mod plan;
pub mod random;
pub mod trace;
pub mod wire;
pub mod world;

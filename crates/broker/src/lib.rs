//! All AMQP semantics of Leveret as pure, deterministic machines.
//!
//! A [`connection::Connection`] turns bytes into commands and events into bytes; a [`shard::Shard`] owns queues and
//! their durable log; a [`catalog::Catalog`] is the sole writer of the [`topology::Topology`]. None of them does IO,
//! reads a clock, draws random numbers or waits: time, entropy and messages are arguments, effects are return values.
//! Hosts (crate `server`) and the simulator (crate `sim`) move the messages between them.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

pub mod access;
pub mod catalog;
mod channel;
pub mod command;
pub mod connection;
pub mod fact;
pub mod grant;
pub mod histogram;
pub mod identity;
pub mod inspect;
pub mod message;
pub mod operation;
pub mod policy;
mod queue;
mod queue_ids;
pub mod resource;
mod route;
pub mod schedule;
mod settings;
pub mod shard;
pub mod topology;

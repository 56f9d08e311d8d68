//! The store's tests, one module for each promise. They use the crate as its owner does.
#![allow(clippy::unwrap_used, reason = "a test may fail that way")]
#![allow(clippy::disallowed_methods, reason = "tests look at real files and use real threads")]

mod backup;
mod checkpoint;
mod conformance;
mod crash;
mod damage;
mod files;
mod fixture;
mod full;
mod inspect;
mod kept;
mod ledger;
mod reclaim;
mod writer;

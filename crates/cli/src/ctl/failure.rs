//! How a command fails: with an exit code and a text for standard error.
//!
//! The codes are those of `sysexits.h` as RabbitMQ's command line uses them.

/// Wrong command line; also whatever keeps a queue from being deleted.
pub(super) const USAGE: u8 = 64;
/// What the command is about does not exist.
pub(super) const DATA: u8 = 65;
/// There is no such user.
pub(super) const NO_USER: u8 = 67;
/// The server cannot be reached, or refuses.
pub(super) const UNAVAILABLE: u8 = 69;
/// The fault is in this program or the system.
pub(super) const SOFTWARE: u8 = 70;
/// The configuration is wrong.
pub(super) const CONFIGURATION: u8 = 78;
/// The server did not answer in time.
pub(super) const TIMEOUT: u8 = 75;

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) text: String,
}

/// Arguments that a command does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) code: u8,
    pub(super) reason: String,
}

impl Failure {
    /// `Error:` and the text on a line of its own.
    pub(super) fn error(code: u8, text: impl std::fmt::Display) -> Self {
        Self { code, text: format!("Error:\n{text}") }
    }

    pub(super) fn no_vhost(vhost: &str) -> Self {
        Self { code: DATA, text: format!("Virtual host '{vhost}' does not exist") }
    }

    pub(super) fn no_object() -> Self {
        Self { code: DATA, text: "Object (queue, stream, exchange, etc) was not found".to_owned() }
    }
}

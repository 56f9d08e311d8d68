//! Reply codes, and the code, text and method a channel or connection is closed with.
//!
//! Texts are RabbitMQ's to the byte, since clients match on them.

use std::fmt;

use crate::method::MethodId;
use crate::wire::{SHORTSTR_MAX, clip};

/// Why a message is returned, or a channel or connection closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ReplyCode {
    /// A normal close.
    Success = 200,
    /// Content too large for the peer; not used by RabbitMQ.
    ContentTooLarge = 311,
    /// A mandatory message reached no queue.
    NoRoute = 312,
    /// An immediate message found no consumer; not used by RabbitMQ.
    NoConsumers = 313,
    /// An operator, or the shutdown, closed the connection.
    ConnectionForced = 320,
    /// Not used by RabbitMQ.
    InvalidPath = 402,
    /// Login or permission refused, or a reserved or exclusively used name.
    AccessRefused = 403,
    /// No such queue or exchange.
    NotFound = 404,
    /// Another connection's exclusive queue.
    ResourceLocked = 405,
    /// An argument, a tag or the state of the thing does not allow it.
    PreconditionFailed = 406,
    /// A frame that cannot be read.
    FrameError = 501,
    /// A field whose value cannot be read.
    SyntaxError = 502,
    /// A method that does not exist.
    CommandInvalid = 503,
    /// A method the channel's state does not allow.
    ChannelError = 504,
    /// A frame of a kind that cannot come now.
    UnexpectedFrame = 505,
    /// The server ran out of something.
    ResourceError = 506,
    /// Forbidden by a limit or by what was negotiated.
    NotAllowed = 530,
    /// Part of the protocol that the server does not implement.
    NotImplemented = 540,
    /// The server failed.
    InternalError = 541,
}

impl ReplyCode {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The name reply texts begin with, such as `PRECONDITION_FAILED`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "REPLY_SUCCESS",
            Self::ContentTooLarge => "CONTENT_TOO_LARGE",
            Self::NoRoute => "NO_ROUTE",
            Self::NoConsumers => "NO_CONSUMERS",
            Self::ConnectionForced => "CONNECTION_FORCED",
            Self::InvalidPath => "INVALID_PATH",
            Self::AccessRefused => "ACCESS_REFUSED",
            Self::NotFound => "NOT_FOUND",
            Self::ResourceLocked => "RESOURCE_LOCKED",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::FrameError => "FRAME_ERROR",
            Self::SyntaxError => "SYNTAX_ERROR",
            Self::CommandInvalid => "COMMAND_INVALID",
            Self::ChannelError => "CHANNEL_ERROR",
            Self::UnexpectedFrame => "UNEXPECTED_FRAME",
            Self::ResourceError => "RESOURCE_ERROR",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }

    /// Whether it ends the connection rather than the channel.
    #[must_use]
    pub const fn is_hard(self) -> bool {
        matches!(self.code(), 320 | 402 | 500..)
    }
}

/// What a close says: the code, its text, and the method at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Why.
    pub code: ReplyCode,
    /// Why in words, `NAME - explanation`, at most 255 bytes.
    pub text: String,
    /// The method at fault, or [`MethodId::NONE`].
    pub method: MethodId,
}

impl Reply {
    /// A reply with the text `NAME - explanation`, or just `NAME` when the explanation is empty.
    ///
    /// A text over 255 bytes is cut at a character boundary and ends in `...`, as RabbitMQ's do.
    #[must_use]
    pub fn new(code: ReplyCode, explanation: impl fmt::Display, method: MethodId) -> Self {
        let mut text = format!("{} - {explanation}", code.name());
        if text.len() == code.name().len() + SEPARATOR_BYTES {
            text.truncate(code.name().len());
        }
        if text.len() > SHORTSTR_MAX {
            text.truncate(clip(&text, SHORTSTR_MAX - ELLIPSIS.len()).len());
            text.push_str(ELLIPSIS);
        }
        Self { code, text, method }
    }
}

/// Length of the ` - ` between name and explanation.
const SEPARATOR_BYTES: usize = 3;
const ELLIPSIS: &str = "...";

#[cfg(test)]
mod tests {
    use super::*;

    fn text(code: ReplyCode, explanation: &str) -> String {
        Reply::new(code, explanation, MethodId::NONE).text
    }

    #[test]
    fn the_text_is_the_name_and_the_explanation() {
        assert_eq!(
            text(ReplyCode::PreconditionFailed, "unknown delivery tag 82"),
            "PRECONDITION_FAILED - unknown delivery tag 82"
        );
    }

    #[test]
    fn without_an_explanation_only_the_name_is_left() {
        assert_eq!(text(ReplyCode::InternalError, ""), "INTERNAL_ERROR");
        assert_eq!(text(ReplyCode::NoRoute, ""), "NO_ROUTE");
    }

    #[test]
    fn a_long_text_is_cut_at_a_character_and_says_so() {
        let exact = text(ReplyCode::NotFound, &"x".repeat(255 - 12));
        assert_eq!(exact.len(), 255);
        assert!(exact.ends_with('x'));
        for pad in 0..4 {
            let long = text(ReplyCode::NotFound, &format!("{}{}", "x".repeat(pad), "ü€".repeat(99)));
            assert!(long.len() <= 255 && long.len() > 250, "{}", long.len());
            assert!(long.ends_with("..."));
        }
    }

    #[test]
    fn soft_errors_close_the_channel_and_hard_ones_the_connection() {
        use ReplyCode as R;
        for soft in [R::NoRoute, R::AccessRefused, R::NotFound, R::ResourceLocked, R::PreconditionFailed] {
            assert!(!soft.is_hard(), "{soft:?}");
        }
        for hard in [R::ConnectionForced, R::InvalidPath, R::FrameError, R::NotAllowed, R::InternalError] {
            assert!(hard.is_hard(), "{hard:?}");
        }
    }
}

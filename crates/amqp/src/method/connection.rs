//! Class 10, connection: opening, tuning, blocking and closing a connection; always on channel 0.
//!
//! Generated from `spec/methods.toml` by `cargo xtask codegen`; edit that, not this.

use bytes::{BufMut, BytesMut};

use crate::ChannelId;
use crate::method::MethodId;
use crate::table::Table;
use crate::wire::{self, DecodeError, Reader};

/// connection.start: the server's first method: who it is and how to log in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Start<'a> {
    /// Major protocol version: 0.
    pub version_major: u8,
    /// Minor protocol version: 9.
    pub version_minor: u8,
    /// Product, version and the `capabilities` clients go by.
    pub server_properties: Table,
    /// SASL mechanisms, separated by spaces.
    pub mechanisms: &'a [u8],
    /// Locales, separated by spaces.
    pub locales: &'a [u8],
}

impl<'a> Start<'a> {
    /// connection.start
    pub const ID: MethodId = MethodId { class: 10, method: 10 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u8(self.version_major);
            out.put_u8(self.version_minor);
            self.server_properties.encode(out);
            wire::put_longstr(out, self.mechanisms);
            wire::put_longstr(out, self.locales);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let version_major = reader.octet()?;
        let version_minor = reader.octet()?;
        let server_properties = Table::read(reader)?;
        let mechanisms = reader.longstr()?;
        let locales = reader.longstr()?;
        Ok(Self { version_major, version_minor, server_properties, mechanisms, locales })
    }
}

/// connection.start-ok: the client's choice of mechanism, with its first response.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StartOk<'a> {
    /// Product, `connection_name` and the client's `capabilities`.
    pub client_properties: Table,
    /// The chosen SASL mechanism.
    pub mechanism: &'a str,
    /// The mechanism's response, such as NUL user NUL password.
    pub response: &'a [u8],
    /// The chosen locale.
    pub locale: &'a str,
}

impl<'a> StartOk<'a> {
    /// connection.start-ok
    pub const ID: MethodId = MethodId { class: 10, method: 11 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            self.client_properties.encode(out);
            wire::put_shortstr(out, self.mechanism);
            wire::put_longstr(out, self.response);
            wire::put_shortstr(out, self.locale);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let client_properties = Table::read(reader)?;
        let mechanism = reader.shortstr()?;
        let response = reader.longstr()?;
        let locale = reader.shortstr()?;
        Ok(Self { client_properties, mechanism, response, locale })
    }
}

/// connection.secure: a further SASL challenge.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Secure<'a> {
    /// The mechanism's challenge.
    pub challenge: &'a [u8],
}

impl<'a> Secure<'a> {
    /// connection.secure
    pub const ID: MethodId = MethodId { class: 10, method: 20 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            wire::put_longstr(out, self.challenge);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let challenge = reader.longstr()?;
        Ok(Self { challenge })
    }
}

/// connection.secure-ok: the answer to a SASL challenge.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct SecureOk<'a> {
    /// The mechanism's response.
    pub response: &'a [u8],
}

impl<'a> SecureOk<'a> {
    /// connection.secure-ok
    pub const ID: MethodId = MethodId { class: 10, method: 21 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            wire::put_longstr(out, self.response);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let response = reader.longstr()?;
        Ok(Self { response })
    }
}

/// connection.tune: the limits the server proposes.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Tune {
    /// Highest channel number; 0 is no limit.
    pub channel_max: u16,
    /// Largest whole frame in octets; 0 is no limit.
    pub frame_max: u32,
    /// Heartbeat interval in seconds; 0 is none.
    pub heartbeat: u16,
}

impl Tune {
    /// connection.tune
    pub const ID: MethodId = MethodId { class: 10, method: 30 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(self.channel_max);
            out.put_u32(self.frame_max);
            out.put_u16(self.heartbeat);
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let channel_max = reader.short()?;
        let frame_max = reader.long()?;
        let heartbeat = reader.short()?;
        Ok(Self { channel_max, frame_max, heartbeat })
    }
}

/// connection.tune-ok: the limits the client settles on.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct TuneOk {
    /// Highest channel number; 0 is no limit.
    pub channel_max: u16,
    /// Largest whole frame in octets; 0 is no limit.
    pub frame_max: u32,
    /// Heartbeat interval in seconds; 0 is none.
    pub heartbeat: u16,
}

impl TuneOk {
    /// connection.tune-ok
    pub const ID: MethodId = MethodId { class: 10, method: 31 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(self.channel_max);
            out.put_u32(self.frame_max);
            out.put_u16(self.heartbeat);
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let channel_max = reader.short()?;
        let frame_max = reader.long()?;
        let heartbeat = reader.short()?;
        Ok(Self { channel_max, frame_max, heartbeat })
    }
}

/// connection.open: enters a vhost.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Open<'a> {
    /// The vhost's name.
    pub vhost: &'a str,
}

impl<'a> Open<'a> {
    /// connection.open
    pub const ID: MethodId = MethodId { class: 10, method: 40 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            wire::put_shortstr(out, self.vhost);
            out.put_u8(0);
            out.put_u8(0);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let vhost = reader.shortstr()?;
        reader.shortstr_octets()?;
        reader.octet()?;
        Ok(Self { vhost })
    }
}

/// connection.open-ok: the connection is in the vhost.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct OpenOk;

impl OpenOk {
    /// connection.open-ok
    pub const ID: MethodId = MethodId { class: 10, method: 41 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u8(0);
        });
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.shortstr_octets()?;
        Ok(Self)
    }
}

/// connection.close: ends the connection, by either side.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Close<'a> {
    /// Why; a client may send any number.
    pub reply_code: u16,
    /// Why, in words.
    pub reply_text: &'a str,
    /// Class of the method at fault, or 0.
    pub class_id: u16,
    /// Number of the method at fault, or 0.
    pub method_id: u16,
}

impl<'a> Close<'a> {
    /// connection.close
    pub const ID: MethodId = MethodId { class: 10, method: 50 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            out.put_u16(self.reply_code);
            wire::put_shortstr(out, self.reply_text);
            out.put_u16(self.class_id);
            out.put_u16(self.method_id);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let reply_code = reader.short()?;
        let reply_text = reader.shortstr()?;
        let class_id = reader.short()?;
        let method_id = reader.short()?;
        Ok(Self { reply_code, reply_text, class_id, method_id })
    }
}

/// connection.close-ok: the last method of a connection.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct CloseOk;

impl CloseOk {
    /// connection.close-ok
    pub const ID: MethodId = MethodId { class: 10, method: 51 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

/// connection.blocked: the server stopped reading publishes.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Blocked<'a> {
    /// Which resource is low.
    pub reason: &'a str,
}

impl<'a> Blocked<'a> {
    /// connection.blocked
    pub const ID: MethodId = MethodId { class: 10, method: 60 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            wire::put_shortstr(out, self.reason);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let reason = reader.shortstr()?;
        Ok(Self { reason })
    }
}

/// connection.unblocked: the server reads publishes again.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct Unblocked;

impl Unblocked {
    /// connection.unblocked
    pub const ID: MethodId = MethodId { class: 10, method: 61 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

/// connection.update-secret: replaces the secret the client logged in with.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct UpdateSecret<'a> {
    /// The new password or token.
    pub new_secret: &'a [u8],
    /// Why it changed, for the log.
    pub reason: &'a str,
}

impl<'a> UpdateSecret<'a> {
    /// connection.update-secret
    pub const ID: MethodId = MethodId { class: 10, method: 70 };

    /// Appends it to `out` as a whole frame on `channel`.
    ///
    /// A `str` over 255 bytes is clipped at a character boundary.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |out| {
            wire::put_longstr(out, self.new_secret);
            wire::put_shortstr(out, self.reason);
        });
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let new_secret = reader.longstr()?;
        let reason = reader.shortstr()?;
        Ok(Self { new_secret, reason })
    }
}

/// connection.update-secret-ok: the new secret is in force.
#[derive(Debug, Clone, Copy, Eq, PartialEq, Default)]
pub struct UpdateSecretOk;

impl UpdateSecretOk {
    /// connection.update-secret-ok
    pub const ID: MethodId = MethodId { class: 10, method: 71 };

    /// Appends it to `out` as a whole frame on `channel`.
    pub fn encode(&self, channel: ChannelId, out: &mut BytesMut) {
        wire::put_method(out, channel, Self::ID, |_| {});
    }
}

//! The client's ear: whether what a server sends is what a server may send.

use amqp::content::ContentHeader;
use amqp::frame;
use amqp::{ChannelId, Frame, FrameKind, Method, Properties};
use std::collections::BTreeMap;

/// Follows one connection's bytes from the server. Panics, saying what is wrong, at anything that is not AMQP, comes
/// out of order, or comes twice.
#[derive(Debug, Default)]
pub struct Listener {
    /// Bytes that are not yet a whole frame.
    rest: Vec<u8>,
    has_begun: bool,
    ending: Ending,
    channels: BTreeMap<ChannelId, Heard>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ending {
    #[default]
    No,
    /// connection.close was sent: nothing but close-ok may follow.
    Closing,
    /// Nothing may follow.
    Over,
}

/// What was heard on a channel since it was opened.
#[derive(Debug, Default)]
struct Heard {
    /// channel.close was sent: nothing but close-ok may follow, until the channel is opened again.
    is_closing: bool,
    /// The content that has to come next.
    owed: Owed,
    last_delivery: u64,
    /// Publishes that were answered: all up to the first number, and these beyond it.
    confirmed: (u64, Vec<u64>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owed {
    #[default]
    Nothing,
    Header,
    Body(u64),
}

impl Listener {
    /// Hears the bytes that came next. `frame_max` is what the connection agreed on, or more.
    pub fn hear(&mut self, bytes: &[u8], frame_max: u32) {
        self.rest.extend_from_slice(bytes);
        let mut rest = std::mem::take(&mut self.rest);
        let mut at = 0;
        if !self.has_begun && rest.starts_with(b"AMQP") {
            assert_eq!(rest, frame::PROTOCOL_HEADER, "a refusal is the protocol header, and nothing else");
            self.ending = Ending::Over;
            at = rest.len();
        }
        while at < rest.len() {
            match frame::decode(&rest[at..], frame_max as usize) {
                Ok(Some((frame, taken))) => {
                    assert!(taken <= frame_max as usize, "a frame of {taken} bytes is over the limit of {frame_max}");
                    self.frame(frame);
                    at += taken;
                }
                Ok(None) => break,
                Err(error) => panic!("the server sent no frame: {error}"),
            }
            self.has_begun = true;
        }
        rest.drain(..at);
        self.rest = rest;
    }

    /// Everything was sent: no frame may be left half.
    pub fn finish(&self) {
        assert!(self.rest.is_empty(), "half a frame was sent: {:?}", self.rest);
        let is_owed = |heard: &Heard| heard.owed != Owed::Nothing;
        assert!(!self.channels.values().any(is_owed), "half a content was sent: {:?}", self.channels);
    }

    /// Whether the server has said goodbye.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ending != Ending::No
    }

    fn frame(&mut self, frame: Frame<'_>) {
        assert_ne!(self.ending, Ending::Over, "something follows the end: {frame:?}");
        match frame.kind {
            FrameKind::Heartbeat => {
                assert!(frame.channel == ChannelId::CONNECTION && frame.payload.is_empty(), "{frame:?}");
            }
            FrameKind::Method => {
                let method = match Method::decode(frame.payload) {
                    Ok(method) => method,
                    Err(error) => panic!("the server sent no method: {error:?} in {frame:?}"),
                };
                if frame.channel == ChannelId::CONNECTION {
                    self.connection_method(&method);
                } else {
                    self.channel_method(frame.channel, &method);
                }
            }
            FrameKind::Header | FrameKind::Body => self.content(frame),
        }
    }

    fn connection_method(&mut self, method: &Method<'_>) {
        if self.ending == Ending::Closing {
            assert!(matches!(method, Method::ConnectionCloseOk(_)), "{method:?} follows connection.close");
        }
        match method {
            Method::ConnectionStart(_)
            | Method::ConnectionTune(_)
            | Method::ConnectionOpenOk(_)
            | Method::ConnectionUpdateSecretOk(_) => {}
            Method::ConnectionClose(close) => {
                assert!(close.reply_text.len() <= 255 && close.reply_code >= 300, "{close:?}");
                self.ending = Ending::Closing;
            }
            Method::ConnectionCloseOk(_) => self.ending = Ending::Over,
            other => panic!("a server does not send {other:?} on channel 0"),
        }
    }

    fn channel_method(&mut self, channel: ChannelId, method: &Method<'_>) {
        assert_eq!(self.ending, Ending::No, "{method:?} follows connection.close");
        if matches!(method, Method::ChannelOpenOk(_)) {
            let before = self.channels.insert(channel, Heard::default());
            assert!(before.is_none_or(|heard| heard.is_closing), "channel {channel} was open already");
            return;
        }
        let Some(heard) = self.channels.get_mut(&channel) else { panic!("{method:?} on channel {channel}, not open") };
        assert_eq!(heard.owed, Owed::Nothing, "{method:?} comes between a content's frames");
        if heard.is_closing {
            assert!(matches!(method, Method::ChannelCloseOk(_)), "{method:?} follows channel.close");
            return;
        }
        match method {
            Method::ChannelCloseOk(_) => drop(self.channels.remove(&channel)),
            Method::ChannelClose(_) => heard.is_closing = true,
            Method::BasicDeliver(deliver) => heard.delivered(deliver.delivery_tag),
            Method::BasicGetOk(got) => heard.delivered(got.delivery_tag),
            Method::BasicReturn(_) => heard.owed = Owed::Header,
            Method::BasicAck(ack) => heard.confirm(ack.delivery_tag, ack.multiple),
            Method::BasicNack(nack) => heard.confirm(nack.delivery_tag, nack.multiple),
            Method::ChannelFlowOk(_)
            | Method::AccessRequestOk(_)
            | Method::ExchangeDeclareOk(_)
            | Method::ExchangeDeleteOk(_)
            | Method::ExchangeBindOk(_)
            | Method::ExchangeUnbindOk(_)
            | Method::QueueDeclareOk(_)
            | Method::QueueBindOk(_)
            | Method::QueueUnbindOk(_)
            | Method::QueuePurgeOk(_)
            | Method::QueueDeleteOk(_)
            | Method::BasicQosOk(_)
            | Method::BasicConsumeOk(_)
            | Method::BasicCancel(_)
            | Method::BasicCancelOk(_)
            | Method::BasicGetEmpty(_)
            | Method::BasicRecoverOk(_)
            | Method::ConfirmSelectOk(_)
            | Method::TxSelectOk(_)
            | Method::TxCommitOk(_)
            | Method::TxRollbackOk(_) => {}
            other => panic!("a server does not send {other:?} on a channel"),
        }
    }

    fn content(&mut self, frame: Frame<'_>) {
        assert_eq!(self.ending, Ending::No, "{frame:?} follows connection.close");
        let Some(heard) = self.channels.get_mut(&frame.channel) else { panic!("{frame:?}: no such channel") };
        heard.owed = match (heard.owed, frame.kind) {
            (Owed::Header, FrameKind::Header) => {
                let header = ContentHeader::decode(frame.payload).expect("a header that can be read");
                Properties::parse(header.properties).expect("properties that can be read");
                Owed::left(header.body_bytes)
            }
            (Owed::Body(left), FrameKind::Body) => {
                assert!(!frame.payload.is_empty(), "an empty body frame");
                let left = left.checked_sub(frame.payload.len() as u64);
                Owed::left(left.expect("no more body than the header says"))
            }
            (owed, _) => panic!("{frame:?} while {owed:?} is owed"),
        };
    }
}

impl Owed {
    fn left(bytes: u64) -> Self {
        if bytes == 0 { Self::Nothing } else { Self::Body(bytes) }
    }
}

impl Heard {
    fn delivered(&mut self, tag: u64) {
        assert_eq!(tag, self.last_delivery + 1, "delivery tags count up by one");
        self.last_delivery = tag;
        self.owed = Owed::Header;
    }

    fn confirm(&mut self, tag: u64, multiple: bool) {
        let (all_up_to, beyond) = &mut self.confirmed;
        assert!(tag > *all_up_to && !beyond.contains(&tag), "publish {tag} is answered twice");
        if multiple {
            *all_up_to = tag;
            beyond.retain(|other| *other > tag);
        } else {
            beyond.push(tag);
        }
        while let Some(at) = beyond.iter().position(|other| *other == *all_up_to + 1) {
            beyond.swap_remove(at);
            *all_up_to += 1;
        }
    }
}

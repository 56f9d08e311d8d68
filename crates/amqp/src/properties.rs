//! A message's properties: a view that reads them from the raw octets on demand, and a list of
//! them that can be built, changed and written.
//!
//! ```text
//! ┌───────┬───────────────────────────────────────────────┐
//! │ flags │ the properties whose flag is set, in order    │   flags: bit 15 is content-type,
//! │   2   │ shortstr, table, octet or 8-octet timestamp   │   bit 2 cluster-id, bit 0 "more flags"
//! └───────┴───────────────────────────────────────────────┘
//! ```
//!
//! A message is passed on with the octets it came with; only what changes a message, such as dead
//! lettering, goes through [`PropertyList`]. As in RabbitMQ string properties may hold any octets.

use bytes::{BufMut, BytesMut};

use crate::table::{Table, Value};
use crate::wire::{DecodeError, Reader, put_shortstr_octets};

/// The properties, in wire order. The discriminant is the place from the flags' high bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    ContentType,
    ContentEncoding,
    Headers,
    DeliveryMode,
    Priority,
    CorrelationId,
    ReplyTo,
    Expiration,
    MessageId,
    Timestamp,
    Kind,
    UserId,
    AppId,
    ClusterId,
}

impl Field {
    const ALL: [Self; 14] = [
        Self::ContentType,
        Self::ContentEncoding,
        Self::Headers,
        Self::DeliveryMode,
        Self::Priority,
        Self::CorrelationId,
        Self::ReplyTo,
        Self::Expiration,
        Self::MessageId,
        Self::Timestamp,
        Self::Kind,
        Self::UserId,
        Self::AppId,
        Self::ClusterId,
    ];

    const fn flag(self) -> u16 {
        0x8000 >> self as u16
    }

    /// Reads past this property without looking into it.
    fn skip(self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        match self {
            Self::Headers => reader.longstr()?,
            Self::DeliveryMode | Self::Priority => reader.take(1)?,
            Self::Timestamp => reader.take(8)?,
            _ => reader.shortstr_octets()?,
        };
        Ok(())
    }
}

/// Says that another word of flags follows. No property has its flag there.
const MORE_FLAGS: u16 = 1;
const UNUSED_FLAG: u16 = 2;

/// A long in a table: its tag and itself.
const LONG_BYTES: usize = 9;

/// What a string that is not UTF-8 reads as.
const NOT_TEXT: &str = "\u{FFFD}";

/// A checked view of the raw properties of one message.
///
/// Each accessor walks over the properties before the one it returns; none allocates but
/// [`Properties::headers`]. A string that is not UTF-8 reads as U+FFFD, so that it is seen to be
/// there and equals no name; the octets themselves are left as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Properties<'a> {
    flags: u16,
    list: &'a [u8],
}

impl<'a> Properties<'a> {
    /// Checks the raw octets, flags first, in one pass that allocates nothing.
    ///
    /// # Errors
    /// [`DecodeError`] when octets are missing or left over, the headers are no valid table, or a
    /// flag is set that stands for no property.
    pub fn parse(raw: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(raw);
        let flags = reader.short()?;
        let more = if flags & MORE_FLAGS == 0 { 0 } else { reader.short()? };
        if flags & UNUSED_FLAG != 0 || more != 0 {
            return Err(DecodeError::malformed("unknown property flag"));
        }
        let properties = Self { flags: flags & !MORE_FLAGS, list: reader.rest() };
        for field in properties.present() {
            match field {
                Field::Headers => Table::check(&mut reader)?,
                _ => field.skip(&mut reader)?,
            }
        }
        reader.end()?;
        Ok(properties)
    }

    /// The body's MIME type.
    #[must_use]
    pub fn content_type(&self) -> Option<&'a str> {
        self.text(Field::ContentType)
    }

    /// The body's encoding, such as `gzip`.
    #[must_use]
    pub fn content_encoding(&self) -> Option<&'a str> {
        self.text(Field::ContentEncoding)
    }

    /// The headers, decoded anew at each call.
    #[must_use]
    pub fn headers(&self) -> Option<Table> {
        Table::read(&mut self.find(Field::Headers)?).ok()
    }

    /// The first header of this name; the others are not decoded.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Value> {
        Table::find(&mut self.find(Field::Headers)?, name)
    }

    /// Whether there is a headers table, be it empty.
    #[must_use]
    pub fn has_headers(&self) -> bool {
        self.flags & Field::Headers.flag() != 0
    }

    /// 2 for a persistent message; anything else is transient.
    #[must_use]
    pub fn delivery_mode(&self) -> Option<u8> {
        self.find(Field::DeliveryMode)?.octet().ok()
    }

    /// The priority, 0 to 255.
    #[must_use]
    pub fn priority(&self) -> Option<u8> {
        self.find(Field::Priority)?.octet().ok()
    }

    /// What the application matches replies by.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&'a str> {
        self.text(Field::CorrelationId)
    }

    /// The queue to reply to.
    #[must_use]
    pub fn reply_to(&self) -> Option<&'a str> {
        self.text(Field::ReplyTo)
    }

    /// The message's time to live: milliseconds in decimal, if the client keeps to the rule.
    #[must_use]
    pub fn expiration(&self) -> Option<&'a str> {
        self.text(Field::Expiration)
    }

    /// The application's id of the message.
    #[must_use]
    pub fn message_id(&self) -> Option<&'a str> {
        self.text(Field::MessageId)
    }

    /// The application's time of the message, in seconds since 1970.
    #[must_use]
    pub fn timestamp(&self) -> Option<u64> {
        self.find(Field::Timestamp)?.longlong().ok()
    }

    /// The property called type: the application's kind of message.
    #[must_use]
    pub fn kind(&self) -> Option<&'a str> {
        self.text(Field::Kind)
    }

    /// The publishing user; must be the one logged in.
    #[must_use]
    pub fn user_id(&self) -> Option<&'a str> {
        self.text(Field::UserId)
    }

    /// The publishing application.
    #[must_use]
    pub fn app_id(&self) -> Option<&'a str> {
        self.text(Field::AppId)
    }

    /// Deprecated, yet passed on.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&'a str> {
        self.text(Field::ClusterId)
    }

    /// Appends the raw octets with one header more, a long of this name (at most 255 octets), in the place of any of that
    /// name. Nothing is decoded unless there is one.
    pub fn put_with_header(&self, name: &str, number: i64, out: &mut BytesMut) {
        if self.header(name).is_some() {
            let mut list = PropertyList::from(self);
            list.headers.get_or_insert_default().insert(name, Value::I64(number));
            return list.encode(out);
        }
        let mut reader = Reader::new(self.list);
        for before in self.present().take_while(|field| (*field as u16) < Field::Headers as u16) {
            let _ = before.skip(&mut reader);
        }
        let (before, entry_bytes) = (self.list.len() - reader.rest().len(), 1 + name.len() + LONG_BYTES);
        let (before, from) = self.list.split_at(before);
        let (table, after) = match from.split_first_chunk::<4>() {
            Some((length, rest)) if self.has_headers() => rest.split_at(u32::from_be_bytes(*length) as usize),
            _ => (&[][..], from),
        };
        out.reserve(2 + before.len() + 4 + table.len() + entry_bytes + after.len());
        out.put_u16(self.flags | Field::Headers.flag());
        out.put_slice(before);
        out.put_u32((table.len() + entry_bytes) as u32);
        out.put_slice(table);
        put_shortstr_octets(out, name.as_bytes());
        out.put_u8(b'l');
        out.put_i64(number);
        out.put_slice(after);
    }

    fn text(&self, field: Field) -> Option<&'a str> {
        self.octets(field).map(|octets| std::str::from_utf8(octets).unwrap_or(NOT_TEXT))
    }

    fn octets(&self, field: Field) -> Option<&'a [u8]> {
        self.find(field)?.shortstr_octets().ok()
    }

    /// A reader that stands at `field`.
    fn find(&self, field: Field) -> Option<Reader<'a>> {
        if self.flags & field.flag() == 0 {
            return None;
        }
        let mut reader = Reader::new(self.list);
        for before in self.present().take_while(|before| *before != field) {
            before.skip(&mut reader).ok()?;
        }
        Some(reader)
    }

    /// The properties that are there, in order.
    fn present(&self) -> impl Iterator<Item = Field> + use<> {
        let mut left = self.flags;
        std::iter::from_fn(move || {
            let field = *Field::ALL.get(left.leading_zeros() as usize)?;
            left &= !field.flag();
            Some(field)
        })
    }
}

/// Properties to be changed or built. Strings are octets, at most 255 of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PropertyList {
    /// The body's MIME type.
    pub content_type: Option<Vec<u8>>,
    /// The body's encoding.
    pub content_encoding: Option<Vec<u8>>,
    /// The headers.
    pub headers: Option<Table>,
    /// 2 for a persistent message.
    pub delivery_mode: Option<u8>,
    /// The priority, 0 to 255.
    pub priority: Option<u8>,
    /// What the application matches replies by.
    pub correlation_id: Option<Vec<u8>>,
    /// The queue to reply to.
    pub reply_to: Option<Vec<u8>>,
    /// The time to live: milliseconds in decimal.
    pub expiration: Option<Vec<u8>>,
    /// The application's id of the message.
    pub message_id: Option<Vec<u8>>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    /// The property called type.
    pub kind: Option<Vec<u8>>,
    /// The publishing user.
    pub user_id: Option<Vec<u8>>,
    /// The publishing application.
    pub app_id: Option<Vec<u8>>,
    /// Deprecated.
    pub cluster_id: Option<Vec<u8>>,
}

impl From<&Properties<'_>> for PropertyList {
    fn from(properties: &Properties<'_>) -> Self {
        let string = |field| properties.octets(field).map(<[u8]>::to_vec);
        Self {
            content_type: string(Field::ContentType),
            content_encoding: string(Field::ContentEncoding),
            headers: properties.headers(),
            delivery_mode: properties.delivery_mode(),
            priority: properties.priority(),
            correlation_id: string(Field::CorrelationId),
            reply_to: string(Field::ReplyTo),
            expiration: string(Field::Expiration),
            message_id: string(Field::MessageId),
            timestamp: properties.timestamp(),
            kind: string(Field::Kind),
            user_id: string(Field::UserId),
            app_id: string(Field::AppId),
            cluster_id: string(Field::ClusterId),
        }
    }
}

impl PropertyList {
    /// Appends the raw octets: flags, then properties. Strings are cut after 255 octets.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.flags());
        put_strings(out, [&self.content_type, &self.content_encoding]);
        if let Some(headers) = &self.headers {
            headers.encode(out);
        }
        if let Some(delivery_mode) = self.delivery_mode {
            out.put_u8(delivery_mode);
        }
        if let Some(priority) = self.priority {
            out.put_u8(priority);
        }
        put_strings(out, [&self.correlation_id, &self.reply_to, &self.expiration, &self.message_id]);
        if let Some(timestamp) = self.timestamp {
            out.put_u64(timestamp);
        }
        put_strings(out, [&self.kind, &self.user_id, &self.app_id, &self.cluster_id]);
    }

    fn flags(&self) -> u16 {
        let is_present = |field| match field {
            Field::ContentType => self.content_type.is_some(),
            Field::ContentEncoding => self.content_encoding.is_some(),
            Field::Headers => self.headers.is_some(),
            Field::DeliveryMode => self.delivery_mode.is_some(),
            Field::Priority => self.priority.is_some(),
            Field::CorrelationId => self.correlation_id.is_some(),
            Field::ReplyTo => self.reply_to.is_some(),
            Field::Expiration => self.expiration.is_some(),
            Field::MessageId => self.message_id.is_some(),
            Field::Timestamp => self.timestamp.is_some(),
            Field::Kind => self.kind.is_some(),
            Field::UserId => self.user_id.is_some(),
            Field::AppId => self.app_id.is_some(),
            Field::ClusterId => self.cluster_id.is_some(),
        };
        let present = Field::ALL.into_iter().filter(|field| is_present(*field));
        present.fold(0, |flags, field| flags | field.flag())
    }
}

fn put_strings<const N: usize>(out: &mut BytesMut, strings: [&Option<Vec<u8>>; N]) {
    for octets in strings.into_iter().flatten() {
        put_shortstr_octets(out, octets);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;
    use crate::table::tests::any_table;

    fn string() -> impl Strategy<Value = Option<Vec<u8>>> {
        of(vec(any::<u8>(), 0..12))
    }

    prop_compose! {
        fn any_list()(
            (content_type, content_encoding, headers, delivery_mode, priority, timestamp) in
                (string(), string(), of(any_table()), any::<Option<u8>>(), any::<Option<u8>>(), any::<Option<u64>>()),
            (correlation_id, reply_to, expiration, message_id) in (string(), string(), string(), string()),
            (kind, user_id, app_id, cluster_id) in (string(), string(), string(), string()),
        ) -> PropertyList {
            PropertyList {
                content_type, content_encoding, headers, delivery_mode, priority, correlation_id, reply_to,
                expiration, message_id, timestamp, kind, user_id, app_id, cluster_id,
            }
        }
    }

    fn encoded(list: &PropertyList) -> BytesMut {
        let mut out = BytesMut::new();
        list.encode(&mut out);
        out
    }

    #[test]
    fn a_typical_clients_properties_are_read() {
        let raw = b"\x90\x00\x0atext/plain\x02";
        let properties = Properties::parse(raw).unwrap();
        assert_eq!(properties.content_type(), Some("text/plain"));
        assert_eq!(properties.delivery_mode(), Some(2));
        assert_eq!(properties.expiration(), None);
        assert!(!properties.has_headers());
        assert!(Properties::parse(&[0, 0]).is_ok());
    }

    #[test]
    fn octets_missing_or_left_over_are_refused() {
        let raw = b"\x90\x00\x0atext/plain\x02";
        for len in 0..raw.len() {
            assert!(Properties::parse(&raw[..len]).is_err(), "{len}");
        }
        assert!(Properties::parse(&[&raw[..], &[0]].concat()).is_err());
    }

    #[test]
    fn broken_headers_are_refused() {
        assert!(Properties::parse(b"\x20\x00\x00\x00\x00\x03\x01aV").is_ok());
        assert!(Properties::parse(b"\x20\x00\x00\x00\x00\x03\x01a?").is_err());
        assert!(Properties::parse(b"\x20\x00\x00\x00\x00\x04\x01aVV").is_err());
    }

    #[test]
    fn a_second_word_of_flags_must_be_empty() {
        let properties = Properties::parse(b"\x10\x01\x00\x00\x02").unwrap();
        assert_eq!(properties.delivery_mode(), Some(2));
        assert!(Properties::parse(b"\x10\x01\x80\x00\x02").is_err());
        assert!(Properties::parse(b"\x10\x01\x00\x01\x00\x00\x02").is_err());
        assert!(Properties::parse(b"\x10\x02\x02").is_err());
    }

    #[test]
    fn a_string_that_is_not_utf8_is_kept_but_reads_as_no_name() {
        let list = PropertyList { correlation_id: Some(vec![0xff, 0xfe]), ..PropertyList::default() };
        let raw = encoded(&list);
        let properties = Properties::parse(&raw).unwrap();
        assert_eq!(properties.correlation_id(), Some(NOT_TEXT));
        assert_eq!(PropertyList::from(&properties), list);
    }

    proptest! {
        #[test]
        fn a_list_reads_back(list in any_list()) {
            let raw = encoded(&list);
            let properties = Properties::parse(&raw).unwrap();
            prop_assert_eq!(properties.has_headers(), list.headers.is_some());
            prop_assert_eq!(PropertyList::from(&properties), list);
        }

        #[test]
        fn a_header_is_added_or_replaced(list in any_list(), number in any::<i64>(), name in "[a-c]") {
            let raw = encoded(&list);
            let mut out = BytesMut::new();
            Properties::parse(&raw).unwrap().put_with_header(&name, number, &mut out);
            let mut expected = list;
            expected.headers.get_or_insert_default().insert(name, Value::I64(number));
            prop_assert_eq!(PropertyList::from(&Properties::parse(&out).unwrap()), expected);
        }

        #[test]
        fn any_octets_are_properties_or_an_error(raw in vec(any::<u8>(), 0..60)) {
            if let Ok(properties) = Properties::parse(&raw) {
                let _ = PropertyList::from(&properties);
            }
        }
    }
}

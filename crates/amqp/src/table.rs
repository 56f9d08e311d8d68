//! Field tables: the typed key-value lists in method arguments and message headers.
//!
//! The type tags are RabbitMQ's, which differ from the printed standard. A table that is read and
//! written again has the same octets, but for `L`, which is written as its synonym `l`, and truth
//! values other than 0 and 1. Order and repeated keys are kept.

use std::slice;

use bytes::{BufMut, BytesMut};

use crate::wire::{DecodeError, Reader, put_longstr, put_measured, put_shortstr};

/// How deep tables and arrays may nest, so that no peer can exhaust the stack.
pub const DEPTH_MAX: usize = 32;

/// An ordered list of keys and values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table(Vec<(String, Value)>);

/// A field's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`, and `L` when read.
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: `value` divided by ten to the power of `scale`.
    Decimal {
        /// Digits after the decimal point.
        scale: u8,
        /// The digits. RabbitMQ reads them as unsigned.
        value: u32,
    },
    /// `S`: a string by intent, though any octets may be in it.
    Str(Vec<u8>),
    /// `x`
    Bytes(Vec<u8>),
    /// `A`
    Array(Vec<Value>),
    /// `T`: seconds since 1970.
    Timestamp(u64),
    /// `F`
    Table(Table),
    /// `V`: no value.
    Void,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.iter().find_map(|(name, value)| (name == key).then_some(value))
    }

    /// Whether there is a value under `key`.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The entries in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.0.iter())
    }

    /// Replaces the value under `key` where it stands, or appends the entry. Returns the value
    /// replaced.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                self.0.push((key, value));
                None
            }
        }
    }

    /// Removes the first entry under `key` and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(at).1)
    }

    /// Reads a table with its four octets of length; also says how many octets it took.
    ///
    /// # Errors
    /// [`DecodeError`] when octets are missing, a tag is unknown, a key is not UTF-8 or the table
    /// nests deeper than [`DEPTH_MAX`].
    pub fn decode(input: &[u8]) -> Result<(Self, usize), DecodeError> {
        let mut reader = Reader::new(input);
        let table = Self::read(&mut reader)?;
        Ok((table, input.len() - reader.rest().len()))
    }

    /// Reads a table's entries, without a length, to the end of `body`: an AMQPLAIN response.
    ///
    /// # Errors
    /// As [`Table::decode`].
    pub fn decode_body(body: &[u8]) -> Result<Self, DecodeError> {
        read_entries(Reader::new(body), DEPTH_MAX)
    }

    /// Appends the table with its four octets of length. Keys are clipped to 255 bytes at a
    /// character boundary.
    pub fn encode(&self, out: &mut BytesMut) {
        put_measured(out, |out| {
            for (key, value) in self {
                put_shortstr(out, key);
                value.encode(out);
            }
        });
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        read_entries(Reader::new(reader.longstr()?), DEPTH_MAX)
    }

    /// The first value under `key` of a table that is not built.
    pub(crate) fn find(reader: &mut Reader<'_>, key: &str) -> Option<Value> {
        let mut entries = Reader::new(reader.longstr().ok()?);
        while !entries.is_empty() {
            if entries.shortstr().ok()? == key {
                return read_value(&mut entries, DEPTH_MAX).ok();
            }
            check_value(&mut entries, DEPTH_MAX).ok()?;
        }
        None
    }

    /// Reads past a table and refuses what [`Table::decode`] would, without building it.
    pub(crate) fn check(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        check_entries(Reader::new(reader.longstr()?), DEPTH_MAX)
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Table {
    /// A table of these entries in order; a repeated key keeps its first place and last value.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut table = Self::new();
        for (key, value) in entries {
            table.insert(key, value);
        }
        table
    }
}

impl<'a> IntoIterator for &'a Table {
    type Item = (&'a str, &'a Value);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl IntoIterator for Table {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// A table's entries in order.
#[derive(Debug, Clone)]
pub struct Iter<'a>(slice::Iter<'a, (String, Value)>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a Value);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, value)| (key.as_str(), value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl Value {
    /// The number, if it is an integer of any width.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::I8(n) => Some(n.into()),
            Self::U8(n) => Some(n.into()),
            Self::I16(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::I32(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::I64(n) => Some(n),
            _ => None,
        }
    }

    /// The text, if it is a [`Value::Str`] in UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(octets) => std::str::from_utf8(octets).ok(),
            _ => None,
        }
    }

    /// The truth value, if it is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    /// The type's name in RabbitMQ's error texts, such as `long`.
    #[must_use]
    pub const fn type_word(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::I8(_) => "byte",
            Self::U8(_) => "unsignedbyte",
            Self::I16(_) => "short",
            Self::U16(_) => "unsignedshort",
            Self::I32(_) => "signedint",
            Self::U32(_) => "unsignedint",
            Self::I64(_) => "long",
            Self::F32(_) => "float",
            Self::F64(_) => "double",
            Self::Decimal { .. } => "decimal",
            Self::Str(_) => "longstr",
            Self::Bytes(_) => "binary",
            Self::Array(_) => "array",
            Self::Timestamp(_) => "timestamp",
            Self::Table(_) => "table",
            Self::Void => "void",
        }
    }

    /// Appends the type tag and the value.
    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.tag());
        match self {
            Self::Bool(truth) => out.put_u8(u8::from(*truth)),
            Self::I8(n) => out.put_i8(*n),
            Self::U8(n) => out.put_u8(*n),
            Self::I16(n) => out.put_i16(*n),
            Self::U16(n) => out.put_u16(*n),
            Self::I32(n) => out.put_i32(*n),
            Self::U32(n) => out.put_u32(*n),
            Self::I64(n) => out.put_i64(*n),
            Self::F32(n) => out.put_u32(n.to_bits()),
            Self::F64(n) => out.put_u64(n.to_bits()),
            Self::Decimal { scale, value } => {
                out.put_u8(*scale);
                out.put_u32(*value);
            }
            Self::Str(octets) | Self::Bytes(octets) => put_longstr(out, octets),
            Self::Array(values) => put_measured(out, |out| {
                for value in values {
                    value.encode(out);
                }
            }),
            Self::Timestamp(seconds) => out.put_u64(*seconds),
            Self::Table(table) => table.encode(out),
            Self::Void => {}
        }
    }

    const fn tag(&self) -> u8 {
        match self {
            Self::Bool(_) => b't',
            Self::I8(_) => b'b',
            Self::U8(_) => b'B',
            Self::I16(_) => b's',
            Self::U16(_) => b'u',
            Self::I32(_) => b'I',
            Self::U32(_) => b'i',
            Self::I64(_) => b'l',
            Self::F32(_) => b'f',
            Self::F64(_) => b'd',
            Self::Decimal { .. } => b'D',
            Self::Str(_) => b'S',
            Self::Bytes(_) => b'x',
            Self::Array(_) => b'A',
            Self::Timestamp(_) => b'T',
            Self::Table(_) => b'F',
            Self::Void => b'V',
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

value_from! {
    bool => Bool, i32 => I32, u32 => U32, i64 => I64,
    &str => Str, String => Str, Vec<Value> => Array, Table => Table,
}

fn read_entries(mut reader: Reader<'_>, depth: usize) -> Result<Table, DecodeError> {
    let mut entries = Vec::new();
    while !reader.is_empty() {
        let key = reader.shortstr()?;
        entries.push((key.to_owned(), read_value(&mut reader, depth)?));
    }
    Ok(Table(entries))
}

fn read_value(reader: &mut Reader<'_>, depth: usize) -> Result<Value, DecodeError> {
    Ok(match reader.octet()? {
        b't' => Value::Bool(reader.octet()? != 0),
        b'b' => Value::I8(reader.array().map(i8::from_be_bytes)?),
        b'B' => Value::U8(reader.octet()?),
        b's' => Value::I16(reader.array().map(i16::from_be_bytes)?),
        b'u' => Value::U16(reader.short()?),
        b'I' => Value::I32(reader.array().map(i32::from_be_bytes)?),
        b'i' => Value::U32(reader.long()?),
        b'l' | b'L' => Value::I64(reader.array().map(i64::from_be_bytes)?),
        b'f' => Value::F32(f32::from_bits(reader.long()?)),
        b'd' => Value::F64(f64::from_bits(reader.longlong()?)),
        b'D' => Value::Decimal { scale: reader.octet()?, value: reader.long()? },
        b'S' => Value::Str(reader.longstr()?.to_vec()),
        b'x' => Value::Bytes(reader.longstr()?.to_vec()),
        b'A' => {
            let depth = deeper(depth)?;
            let mut items = Reader::new(reader.longstr()?);
            let mut values = Vec::new();
            while !items.is_empty() {
                values.push(read_value(&mut items, depth)?);
            }
            Value::Array(values)
        }
        b'T' => Value::Timestamp(reader.longlong()?),
        b'F' => {
            let depth = deeper(depth)?;
            Value::Table(read_entries(Reader::new(reader.longstr()?), depth)?)
        }
        b'V' => Value::Void,
        _ => return Err(UNKNOWN_TAG),
    })
}

fn check_entries(mut reader: Reader<'_>, depth: usize) -> Result<(), DecodeError> {
    while !reader.is_empty() {
        reader.shortstr()?;
        check_value(&mut reader, depth)?;
    }
    Ok(())
}

fn check_value(reader: &mut Reader<'_>, depth: usize) -> Result<(), DecodeError> {
    match reader.octet()? {
        b't' | b'b' | b'B' => reader.take(1)?,
        b's' | b'u' => reader.take(2)?,
        b'I' | b'i' | b'f' => reader.take(4)?,
        b'D' => reader.take(5)?,
        b'l' | b'L' | b'd' | b'T' => reader.take(8)?,
        b'S' | b'x' => reader.longstr()?,
        b'V' => &[],
        b'A' => {
            let depth = deeper(depth)?;
            let mut items = Reader::new(reader.longstr()?);
            while !items.is_empty() {
                check_value(&mut items, depth)?;
            }
            return Ok(());
        }
        b'F' => return check_entries(Reader::new(reader.longstr()?), deeper(depth)?),
        _ => return Err(UNKNOWN_TAG),
    };
    Ok(())
}

/// The levels left one level down.
fn deeper(depth: usize) -> Result<usize, DecodeError> {
    depth.checked_sub(1).ok_or(TOO_DEEP)
}

const UNKNOWN_TAG: DecodeError = DecodeError::malformed("unknown field type");
const TOO_DEEP: DecodeError = DecodeError::malformed("tables nest too deep");

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Any table without NaN, so that it equals itself.
    pub(crate) fn any_table() -> impl Strategy<Value = Table> {
        vec((".{0,9}", any_value()), 0..6).prop_map(Table)
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i8>().prop_map(Value::I8),
            any::<u8>().prop_map(Value::U8),
            any::<i16>().prop_map(Value::I16),
            any::<u16>().prop_map(Value::U16),
            any::<i32>().prop_map(Value::I32),
            any::<u32>().prop_map(Value::U32),
            any::<i64>().prop_map(Value::I64),
            any::<f32>().prop_map(Value::F32),
            any::<f64>().prop_map(Value::F64),
            any::<(u8, u32)>().prop_map(|(scale, value)| Value::Decimal { scale, value }),
            vec(any::<u8>(), 0..20).prop_map(Value::Str),
            vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
            any::<u64>().prop_map(Value::Timestamp),
            Just(Value::Void),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::Array),
                vec((".{0,9}", inner), 0..4).prop_map(|entries| Value::Table(Table(entries))),
            ]
        })
    }

    fn encoded(table: &Table) -> BytesMut {
        let mut out = BytesMut::new();
        table.encode(&mut out);
        out
    }

    fn nested(levels: usize) -> Table {
        (0..levels).fold(Table::new(), |inner, _| Table::from_iter([("t", inner)]))
    }

    #[test]
    fn every_type_comes_back_bit_for_bit() {
        let body: &[u8] = b"\x01at\x01\x01bb\xff\x01cB\xff\x01ds\x80\x00\x01eu\xff\xff\
            \x01fI\x80\x00\x00\x00\x01gi\xff\xff\xff\xff\x01hl\x80\x00\x00\x00\x00\x00\x00\x01\
            \x01jf\x7f\xa0\xbe\xef\x01kd\xff\xf4\xde\xad\xbe\xef\x00\x01\x01mD\x02\xff\xff\xff\xff\
            \x01nS\x00\x00\x00\x02\xff\xfe\x01ox\x00\x00\x00\x01\x00\x01pA\x00\x00\x00\x03Vt\x00\
            \x01qT\xff\xff\xff\xff\xff\xff\xff\xff\x01rF\x00\x00\x00\x03\x01aV\x01sV\x01sV\x00V";
        let table = Table::decode_body(body).unwrap();
        assert_eq!(table.len(), 19);
        let out = encoded(&table);
        assert_eq!(&out[4..], body);
        assert_eq!(out[..4], (body.len() as u32).to_be_bytes());
    }

    #[test]
    fn the_other_signed_long_is_read_as_the_usual_one() {
        let table = Table::decode_body(b"\x01aL\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
        assert_eq!(table.get("a"), Some(&Value::I64(-1)));
        assert_eq!(encoded(&table)[6], b'l');
    }

    #[test]
    fn insert_replaces_in_place_and_remove_forgets() {
        let mut table = Table::from_iter([("a", 1), ("b", 2)]);
        assert_eq!(table.insert("a", "x"), Some(Value::I32(1)));
        assert_eq!(table.insert("c", true), None);
        assert_eq!(table.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(table.get("a").and_then(Value::as_str), Some("x"));
        assert_eq!(table.remove("b"), Some(Value::I32(2)));
        assert_eq!(table.get("b"), None);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn integers_of_any_width_are_integers() {
        let widths =
            [Value::I8(7), Value::U8(7), Value::I16(7), Value::U16(7), Value::I32(7), Value::U32(7), Value::I64(7)];
        assert!(widths.iter().all(|value| value.as_i64() == Some(7)));
        assert_eq!(Value::Timestamp(7).as_i64(), None);
        assert_eq!(Value::Bool(true).as_i64(), None);
    }

    #[test]
    fn nesting_is_bounded() {
        let deepest = encoded(&nested(DEPTH_MAX));
        assert!(Table::decode(&deepest).is_ok());
        assert_eq!(Table::check(&mut Reader::new(&deepest)), Ok(()));
        let deeper = encoded(&nested(DEPTH_MAX + 1));
        assert_eq!(Table::decode(&deeper), Err(TOO_DEEP));
        assert_eq!(Table::check(&mut Reader::new(&deeper)), Err(TOO_DEEP));
    }

    #[test]
    fn a_length_past_the_end_is_refused_before_anything_is_allocated() {
        assert!(Table::decode(&[0xff; 9]).is_err());
        assert!(Table::decode_body(b"\x01aS\xff\xff\xff\xffx").is_err());
        assert!(Table::decode_body(b"\x01aA\x7f\xff\xff\xff").is_err());
        assert_eq!(Table::decode_body(b"\x01a?"), Err(UNKNOWN_TAG));
        assert_eq!(Table::decode_body(b"\x01\xffV"), Err(DecodeError::MalformedUtf8));
    }

    proptest! {
        #[test]
        fn a_table_reads_back_and_passes_the_check(table in any_table()) {
            let out = encoded(&table);
            prop_assert_eq!(Table::decode(&out), Ok((table, out.len())));
            prop_assert_eq!(Table::check(&mut Reader::new(&out)), Ok(()));
        }

        #[test]
        fn check_refuses_just_what_decode_refuses(
            table in any_table(), at in any::<prop::sample::Index>(), octet: u8,
        ) {
            let mut out = encoded(&table);
            let at = at.index(out.len());
            out[at] = octet;
            let decoded = Table::decode(&out).map(|_| ());
            prop_assert_eq!(Table::check(&mut Reader::new(&out)), decoded);
        }

        #[test]
        fn any_octets_are_a_table_or_an_error(body in vec(any::<u8>(), 0..60)) {
            let _ = Table::decode(&body);
            if let Ok(table) = Table::decode_body(&body) {
                prop_assert!(Table::decode(&encoded(&table)).is_ok());
            }
        }
    }
}

//! Which trace a message belongs to, by its header `traceparent` (W3C Trace Context).

use amqp::{Properties, Value};

/// A trace that is recorded, and the span in it that a message was published by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceContext {
    /// The trace's id; never 0.
    pub trace: u128,
    /// The id of the publisher's span; never 0.
    pub parent: u64,
}

impl TraceContext {
    /// Of a message with these raw properties; `None` where there is no context, it makes no sense, or its publisher has the
    /// trace not recorded.
    #[must_use]
    pub fn of(properties: &[u8]) -> Option<Self> {
        let properties = Properties::parse(properties).ok()?;
        match properties.header(TRACEPARENT)? {
            Value::Str(text) => Self::parse(&text),
            _ => None,
        }
    }

    /// Of a `traceparent`, as W3C has it: `00-TRACE-PARENT-FLAGS` in lower hexadecimal digits. Later versions may have more
    /// behind another dash.
    fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_at_checked(KNOWN_BYTES)?;
        let [v0, v1, b'-', ids @ .., b'-', f0, f1] = known else { return None };
        let (trace, parent) = ids.split_at_checked(2 * size_of::<u128>())?;
        let parent = parent.strip_prefix(b"-")?;
        let is_whole = match (hexadecimal(&[*v0, *v1])?, more) {
            (0xff, _) => false,
            (_, []) => true,
            (version, [next, ..]) => version > 0 && *next == b'-',
        };
        let is_recorded = hexadecimal(&[*f0, *f1])? & SAMPLED != 0;
        let context = Self { trace: hexadecimal(trace)?, parent: u64::try_from(hexadecimal(parent)?).ok()? };
        (is_whole && is_recorded && context.trace != 0 && context.parent != 0).then_some(context)
    }
}

/// W3C takes lower digits only.
fn hexadecimal(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

const TRACEPARENT: &str = "traceparent";
/// How long version 00 is.
const KNOWN_BYTES: usize = 55;
const SAMPLED: u128 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use amqp::{PropertyList, Table};
    use bytes::BytesMut;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_recorded_context_is_read() {
        let context = TraceContext { trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, parent: 0x00f0_67aa_0ba9_02b7 };
        let later = |more: &str| format!("cc{}{more}", &TEXT[2..]);
        for text in [TEXT.to_owned(), TEXT.replace("-01", "-03"), later(""), later("-what-comes-later")] {
            assert_eq!(TraceContext::parse(text.as_bytes()), Some(context), "{text}");
        }
    }

    #[test]
    fn what_is_not_recorded_or_makes_no_sense_is_no_context() {
        for text in [
            String::new(),
            TEXT.replace("-01", "-00"),
            TEXT.replace("-01", "-0"),
            TEXT.replace("-01", "-0g"),
            TEXT.replace("00-", "ff-"),
            TEXT.replace('f', "F"),
            TEXT.replace('-', "_"),
            TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            TEXT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            format!("{TEXT}-more"),
            format!("cc{}x", &TEXT[2..]),
            format!(" {TEXT}"),
            "é".repeat(40),
            "0".repeat(1 << 20),
        ] {
            assert_eq!(TraceContext::parse(text.as_bytes()), None, "{text:.80}");
        }
        for end in 0..TEXT.len() {
            assert_eq!(TraceContext::parse(&TEXT.as_bytes()[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn it_is_a_text_among_the_headers() {
        let of = |value: Value| {
            let headers: Table = [("a", Value::I32(1)), ("traceparent", value)].into_iter().collect();
            let mut raw = BytesMut::new();
            PropertyList { headers: Some(headers), ..PropertyList::default() }.encode(&mut raw);
            TraceContext::of(&raw)
        };
        assert!(of(TEXT.into()).is_some());
        assert_eq!(of(Value::I64(1)), None);
        assert_eq!(of(Value::Void), None);
        assert_eq!(TraceContext::of(&[0, 0]), None);
        assert_eq!(TraceContext::of(&[]), None);
    }
}

//! Limits on memory and disk as operators write them: `50MB`, `2GiB`, plain bytes, and for memory a share such as `0.4`.
//!
//! Units are RabbitMQ's: `k`, `M`, `G`, `T` and `kiB`, `MiB`, `GiB`, `TiB` count by 1024, `kB`, `MB`, `GB`, `TB` by 1000.

use serde::{Deserialize, Deserializer, Serializer};
use std::fmt;
use std::str::FromStr;

/// How much memory the server may take before publishers are blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// A share of the memory that the server could have: its cgroup's limit, or the machine's memory.
    Share {
        /// In millionths, 0 to 1,000,000.
        millionths: u32,
    },
    /// So many bytes.
    Bytes(u64),
}

impl MemoryLimit {
    /// RabbitMQ's default: the rest is left to the page cache, and to what it takes to get out of a shortage.
    pub const DEFAULT: Self = Self::Share { millionths: 600_000 };

    /// A share from 0 to 1; `None` for any other number.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    pub fn share(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then(|| Self::Share { millionths: (share * 1e6).round() as u32 })
    }

    /// In bytes, of `memory_bytes` that there are; `None` where a share is asked of an unknown amount.
    #[must_use]
    pub fn bytes_of(self, memory_bytes: Option<u64>) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Share { millionths } => memory_bytes
                .map(|all| u64::try_from(u128::from(all) * u128::from(millionths) / 1_000_000).unwrap_or(all)),
        }
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share { millionths } => write!(f, "{}", f64::from(*millionths) / 1e6),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

impl FromStr for MemoryLimit {
    type Err = String;

    /// `0` and `1` are shares.
    fn from_str(text: &str) -> Result<Self, String> {
        let share = text.trim().parse().ok().and_then(Self::share);
        share.or_else(|| parse_bytes(text).ok().map(Self::Bytes)).ok_or_else(|| {
            format!("{text:?} is neither a size, such as 512MiB, nor a share of the memory from 0 to 1, such as 0.4")
        })
    }
}

/// Reads a number of bytes, with a unit or without.
///
/// # Errors
/// A sentence with an example.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at(digits);
    let factor: Option<u64> = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kib" => Some(1 << 10),
        "m" | "mib" => Some(1 << 20),
        "g" | "gib" => Some(1 << 30),
        "t" | "tib" => Some(1 << 40),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        "tb" => Some(1_000_000_000_000),
        _ => None,
    };
    let bytes = number.parse().ok().zip(factor).and_then(|(number, factor): (u64, _)| number.checked_mul(factor));
    bytes.ok_or_else(|| format!("{text:?} is not a size, such as 50MB, 2GiB or a number of bytes"))
}

/// What a configuration file says, with quotes or without.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, or a size such as \"512MiB\"")]
enum Written {
    Whole(u64),
    Fraction(f64),
    Text(String),
}

impl Written {
    fn text(self) -> String {
        match self {
            Self::Whole(number) => number.to_string(),
            Self::Fraction(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

/// A size, for a configuration file.
pub(crate) fn bytes_from_file<'de, D: Deserializer<'de>>(source: D) -> Result<Option<u64>, D::Error> {
    let written = Written::deserialize(source)?.text();
    parse_bytes(&written).map(Some).map_err(serde::de::Error::custom)
}

/// A limit on memory, for a configuration file.
pub(crate) fn memory_from_file<'de, D: Deserializer<'de>>(source: D) -> Result<Option<MemoryLimit>, D::Error> {
    let written = Written::deserialize(source)?.text();
    written.parse().map(Some).map_err(serde::de::Error::custom)
}

/// The same the other way: a share as a number below or up to 1, a size as its bytes.
#[expect(clippy::ref_option, reason = "serde asks for a reference to the field")]
pub(crate) fn memory_to_file<S: Serializer>(limit: &Option<MemoryLimit>, target: S) -> Result<S::Ok, S::Error> {
    match limit {
        Some(MemoryLimit::Share { millionths }) => target.serialize_f64(f64::from(*millionths) / 1e6),
        Some(MemoryLimit::Bytes(bytes)) => target.serialize_u64(*bytes),
        None => target.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_rabbitmqs_units() {
        for (text, bytes) in [
            ("0", 0),
            ("50000000", 50_000_000),
            ("50MB", 50_000_000),
            ("50 mb", 50_000_000),
            ("1k", 1024),
            ("1kiB", 1024),
            ("1kB", 1000),
            ("3M", 3 << 20),
            ("2GiB", 2 << 30),
            ("1TB", 1_000_000_000_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "-1", "1.5GB", "10 apples", "1é", "99999999999TiB", "0x10"] {
            assert!(parse_bytes(text).unwrap_err().contains("2GiB"), "{text}");
        }
    }

    #[test]
    fn memory_is_limited_by_a_share_or_a_size() {
        let read = |text: &str| text.parse::<MemoryLimit>();
        assert_eq!(read("0.4"), Ok(MemoryLimit::Share { millionths: 400_000 }));
        assert_eq!(read("0"), Ok(MemoryLimit::Share { millionths: 0 }));
        assert_eq!(read("1"), Ok(MemoryLimit::Share { millionths: 1_000_000 }));
        assert_eq!(read("512MiB"), Ok(MemoryLimit::Bytes(512 << 20)));
        assert_eq!(read("2"), Ok(MemoryLimit::Bytes(2)));
        for text in ["1.5", "-0.1", "NaN", "inf", "much", "60%", ""] {
            assert!(read(text).is_err(), "{text}");
        }
        let shown: Vec<_> = ["0.4", "0.6", "512MiB"].map(|text| read(text).unwrap().to_string()).into();
        assert_eq!(shown, ["0.4", "0.6", "536870912"]);
    }

    #[test]
    fn a_share_is_of_what_there_is() {
        assert_eq!(MemoryLimit::DEFAULT.bytes_of(Some(1000)), Some(600));
        assert_eq!(MemoryLimit::Share { millionths: 1_000_000 }.bytes_of(Some(u64::MAX)), Some(u64::MAX));
        assert_eq!(MemoryLimit::DEFAULT.bytes_of(None), None);
        assert_eq!(MemoryLimit::Bytes(7).bytes_of(None), Some(7));
    }
}

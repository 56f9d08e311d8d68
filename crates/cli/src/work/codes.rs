//! A set of numbers such as exit codes and HTTP statuses, written as `65,70-75`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Codes(Vec<RangeInclusive<u16>>);

impl Codes {
    pub(super) fn contains(&self, code: u16) -> bool {
        self.0.iter().any(|range| range.contains(&code))
    }
}

impl FromStr for Codes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| format!("{text:?} is no code"));
        let parts = text.split(',').filter(|part| !part.trim().is_empty());
        let ranges = parts.map(|part| match part.split_once('-') {
            Some((first, last)) => Ok(number(first)?..=number(last)?),
            None => number(part).map(|code| code..=code),
        });
        ranges.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_single_ones_and_ranges() {
        let codes: Codes = "65, 70-75".parse().unwrap();
        assert!(codes.contains(65) && codes.contains(70) && codes.contains(75));
        assert!(!codes.contains(64) && !codes.contains(76));
        assert_eq!(codes.to_string(), "65,70-75");
        assert!(!"".parse::<Codes>().unwrap().contains(0));
        assert!("x".parse::<Codes>().is_err() && "1-".parse::<Codes>().is_err());
    }
}

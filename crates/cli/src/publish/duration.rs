//! How long something takes, as people write it: `250ms`, `30s`, `5m`, `2h`, `1d`, `1h30m`.

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Milliseconds(pub(crate) u64);

impl std::str::FromStr for Milliseconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no length of time: write 250ms, 30s, 5m, 2h, 1d or 1h30m");
        let (mut sum, mut rest) = (0_u64, text);
        if rest == "0" {
            return Ok(Self(0));
        }
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            let after = &rest[digits..];
            let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let unit = match &after[..letters] {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(wrong()),
            };
            sum = number.checked_mul(unit).and_then(|ms| sum.checked_add(ms)).ok_or_else(wrong)?;
            rest = &after[letters..];
        }
        if text.is_empty() { Err(wrong()) } else { Ok(Self(sum)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_units() {
        for (text, ms) in
            [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h30m", 5_400_000), ("1d", 86_400_000), ("0", 0)]
        {
            assert_eq!(text.parse(), Ok(Milliseconds(ms)), "{text}");
        }
        for text in ["", "5", "m", "5 m", "-5s", "5w", "99999999999999999999s", "18446744073709551615d", "5s3"] {
            assert!(text.parse::<Milliseconds>().is_err(), "{text}");
        }
    }
}

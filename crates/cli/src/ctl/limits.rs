//! `set_vm_memory_high_watermark` and `set_disk_free_limit`: the limits past which publishers are blocked.

use super::Screen;
use super::api::{Api, encoded};
use super::arguments::Line;
use super::commands::{done, node};
use super::failure::{self, Failure, Wrong};
use serde_json::{Value, json};
use server::limits::parse_bytes;

/// A limit that can be set, as a size or in proportion to the memory.
#[derive(Debug)]
pub(super) struct Limit {
    command: &'static str,
    /// The server's name of it.
    key: &'static str,
    /// The banner's.
    shown: &'static str,
    /// The words before a value; `""` = none. One of the two has none.
    size_word: &'static str,
    share: Share,
}

/// The way to say it in proportion to the memory.
#[derive(Debug)]
struct Share {
    word: &'static str,
    key: &'static str,
    most: f64,
}

/// A value for a limit.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum To {
    Size(String),
    Share(String, f64),
}

/// The limit on memory.
pub(super) const MEMORY: Limit = Limit {
    command: "set_vm_memory_high_watermark",
    key: "vm_memory_high_watermark",
    shown: "memory threshold",
    size_word: "absolute",
    share: Share { word: "", key: "relative", most: 1.0 },
};

/// The limit on free disk space.
pub(super) const DISK: Limit = Limit {
    command: "set_disk_free_limit",
    key: "disk_free_limit",
    shown: "disk free limit",
    size_word: "",
    share: Share { word: "mem_relative", key: "mem_relative", most: f64::MAX },
};

impl Limit {
    /// What the operands say.
    pub(super) fn read(&self, operands: &[String]) -> Result<To, Wrong> {
        let usage = |reason: &str| Wrong { code: failure::USAGE, reason: reason.to_owned() };
        let words: Vec<_> = operands.iter().map(String::as_str).collect();
        match words[..] {
            [word] if word == self.size_word || word == self.share.word => Err(usage("not enough arguments.")),
            [word, value] if word == self.size_word => read_size(value),
            [word, value] if word == self.share.word => self.share.read(value),
            [value] if self.size_word.is_empty() => read_size(value),
            [value] => self.share.read(value),
            _ => Err(usage("too many arguments.")),
        }
    }

    pub(super) fn set(&self, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
        let options = &line.options;
        let to = self.read(&line.operands).map_err(|wrong| Failure { code: wrong.code, text: wrong.reason })?;
        let api = Api::new(self.command, options, None)?;
        let name = node(&api)?;
        let (shown, value) = match to {
            To::Size(size) => (format!("{size} bytes"), json!({"absolute": size})),
            To::Share(text, share) if self.share.word.is_empty() => (text, json!({self.share.key: share})),
            To::Share(text, share) => (format!("{text} times the total RAM"), json!({self.share.key: share})),
        };
        screen.banner(options, &format!("Setting {} on {name} to {shown} ...", self.shown))?;
        let limits: Value = json!({self.key: value});
        let answer = api.put(&format!("/nodes/{}/limits", encoded(&name)), &limits)?;
        match answer.status {
            204 => done(&api, options, screen),
            _ => Err(Failure::error(failure::UNAVAILABLE, answer.reason())),
        }
    }
}

impl Share {
    fn read(&self, text: &str) -> Result<To, Wrong> {
        match text.parse::<f64>() {
            Ok(share) if share.is_nan() => Err(bad("Bad argument.")),
            Ok(share) if (0.0..=self.most).contains(&share) => Ok(To::Share(text.to_owned(), share)),
            Ok(_) if self.word.is_empty() => {
                Err(bad("Bad argument: The threshold should be a fraction between 0.0 and 1.0"))
            }
            _ => Err(bad("Bad argument.")),
        }
    }
}

fn read_size(text: &str) -> Result<To, Wrong> {
    match parse_bytes(text) {
        Ok(_) => Ok(To::Size(text.to_owned())),
        Err(_) if text.parse::<f64>().is_ok() => Err(bad("Bad argument: The threshold should be an integer.")),
        Err(_) if text.starts_with(|first: char| first.is_ascii_digit()) => Err(bad("Bad argument: Invalid units.")),
        Err(_) => Err(bad("Bad argument.")),
    }
}

fn bad(reason: &str) -> Wrong {
    Wrong { code: failure::DATA, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(limit: &Limit, operands: &str) -> Result<To, (u8, String)> {
        let operands: Vec<_> = operands.split(' ').map(str::to_owned).collect();
        limit.read(&operands).map_err(|Wrong { code, reason }| (code, reason))
    }

    #[test]
    fn limits_are_sizes_or_shares() {
        let size = |text: &str| Ok(To::Size(text.to_owned()));
        let share = |text: &str, share| Ok(To::Share(text.to_owned(), share));
        assert_eq!(read(&MEMORY, "0.4"), share("0.4", 0.4));
        assert_eq!(read(&MEMORY, "0.000000001"), share("0.000000001", 1e-9));
        assert_eq!(read(&MEMORY, "absolute 512MiB"), size("512MiB"));
        assert_eq!(read(&DISK, "2GB"), size("2GB"));
        assert_eq!(read(&DISK, "mem_relative 1.5"), share("1.5", 1.5));
    }

    #[test]
    fn what_rabbitmqctl_refuses_is_refused_in_its_words() {
        let fraction = "Bad argument: The threshold should be a fraction between 0.0 and 1.0";
        for (limit, operands, code, reason) in [
            (&MEMORY, "1.4", 65, fraction),
            (&MEMORY, "-1", 65, fraction),
            (&MEMORY, "x", 65, "Bad argument."),
            (&MEMORY, "NaN", 65, "Bad argument."),
            (&MEMORY, "absolute", 64, "not enough arguments."),
            (&MEMORY, "absolute 5XB", 65, "Bad argument: Invalid units."),
            (&MEMORY, "absolute 5.5", 65, "Bad argument: The threshold should be an integer."),
            (&MEMORY, "absolute x", 65, "Bad argument."),
            (&MEMORY, "0.4 5", 64, "too many arguments."),
            (&DISK, "x", 65, "Bad argument."),
            (&DISK, "mem_relative", 64, "not enough arguments."),
            (&DISK, "mem_relative x", 65, "Bad argument."),
            (&DISK, "mem_relative -1", 65, "Bad argument."),
        ] {
            assert_eq!(read(limit, operands), Err((code, reason.to_owned())), "{operands}");
        }
    }
}

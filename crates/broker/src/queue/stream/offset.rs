//! Where a consumer of a stream begins, and how old messages are.

use super::whole_seconds;
use crate::queue::ready::Ready;
use crate::queue::run::Run;
use crate::settings::term;
use amqp::Value;
use store::Seq;

/// `x-stream-offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offset {
    /// The first message there is.
    First,
    /// The last message there is.
    Last,
    /// The first one to come.
    Next,
    /// The message of this offset, or the first one after it.
    At(u64),
    /// The first message appended then or later (unix ms).
    Since(u64),
}

impl Offset {
    /// Reads the argument; without one a consumer gets what is to come. Ages count back from `unix_ms`.
    ///
    /// # Errors
    /// What is wrong with it, as RabbitMQ says it.
    pub(crate) fn parse(value: Option<&Value>, unix_ms: u64) -> Result<Self, String> {
        let Some(value) = value else { return Ok(Self::Next) };
        let found = match value {
            Value::Timestamp(seconds) => Some(Self::Since(seconds.saturating_mul(1000))),
            _ => match (value.as_str(), value.as_i64()) {
                (Some("first"), _) => Some(Self::First),
                (Some("last"), _) => Some(Self::Last),
                (Some("next"), _) => Some(Self::Next),
                (Some(text), _) => age_ms(text).map(|age_ms| Self::Since(unix_ms.saturating_sub(age_ms))),
                (None, Some(number)) => Some(Self::At(u64::try_from(number).unwrap_or(0))),
                (None, None) => None,
            },
        };
        found.ok_or_else(|| format!("{{invalid_stream_offset_arg,{{{},{}}}}}", value.type_word(), term(value)))
    }

    /// The message that this comes to, or the place where it will be; `end` is where the next new message goes.
    pub(crate) fn find(self, messages: &Ready, end: Seq) -> Seq {
        let ends = messages.ends();
        match self {
            Self::Next => end,
            Self::First => ends.map_or(end, |(first, _)| first),
            Self::Last => ends.map_or(end, |(_, last)| last),
            Self::At(offset) => Seq(offset.saturating_add(1)),
            Self::Since(unix_ms) => since(messages, ends, whole_seconds(unix_ms)).unwrap_or(end),
        }
    }
}

/// The first message whose time is this or later. Times never go back, so it is looked for by halves.
fn since(messages: &Ready, ends: Option<(Seq, Seq)>, unix_ms: u64) -> Option<Seq> {
    let run_from = |seq: u64| messages.of_priority(0, Seq(seq)).next();
    let is_late = |run: &Run| run.expires_at_ms >= unix_ms;
    let (first, last) = ends?;
    let (mut low, mut high) = (first.0, last.0 + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match run_from(middle) {
            Some(run) if !is_late(&run) => low = run.last_seq().0 + 1,
            _ => high = middle,
        }
    }
    run_from(low).filter(is_late).map(|run| run.seq)
}

/// An age such as `7D`: a number above 0 and one of `Y`, `M`, `D`, `h`, `m`, `s` (RabbitMQ's `x-max-age`), in milliseconds.
pub(crate) fn age_ms(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "Y" => 365 * 86_400,
        "M" => 30 * 86_400,
        "D" => 86_400,
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return None,
    };
    let number = number.bytes().all(|digit| digit.is_ascii_digit()).then(|| number.parse::<u64>().ok())??;
    number.checked_mul(seconds * 1000).filter(|age_ms| *age_ms > 0)
}

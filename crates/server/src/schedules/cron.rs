//! Cron expressions: which seconds of which days they name. No clock and no time zone here: only the calendar.
//!
//! Five fields (minute, hour, day of month, month, day of week), or six with seconds before them; each `*`, a number, a
//! range `a-b`, a list of those with commas, and each of them with a step `/n`. Months and days of the week have names
//! of three letters, Sunday is 0 and 7, and `?` is `*`. `@hourly` and the like stand for all fields. As in every cron, a
//! day is one of the days of the month *or* one of the days of the week where both fields say something.

use jiff::civil::{Date, DateTime};

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// The fields begin with `*`, and say nothing of their own.
    any_day: bool,
    any_weekday: bool,
    any_hour: bool,
}

/// What a field may say.
struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    /// What may be said instead of the numbers from the first on.
    names: &'static [&'static str],
}

const SECOND: Field = Field { name: "second", first: 0, last: 59, names: &[] };
const MINUTE: Field = Field { name: "minute", first: 0, last: 59, names: &[] };
const HOUR: Field = Field { name: "hour", first: 0, last: 23, names: &[] };
const DAY: Field = Field { name: "day of month", first: 1, last: 31, names: &[] };
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const MONTH: Field = Field { name: "month", first: 1, last: 12, names: &MONTHS };
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const WEEKDAY: Field = Field { name: "day of week", first: 0, last: 7, names: &WEEKDAYS };

const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// A sentence that names the field and says what was expected.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with('@') {
            let known = NICKNAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
            let Some((_, meaning)) = known else {
                let names: Vec<_> = NICKNAMES.iter().map(|(name, _)| *name).collect();
                return Err(format!("cron: {text:?} is none of {}", names.join(", ")));
            };
            return Self::parse(meaning);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let (seconds, rest) = match fields[..] {
            [_, _, _, _, _] => ("0", &fields[..]),
            [seconds, _, _, _, _, _] => (seconds, &fields[1..]),
            _ => {
                return Err(format!(
                    "cron: {} fields where 5 were expected (minute, hour, day of month, month, day of week), or 6 with \
                     seconds before them",
                    fields.len()
                ));
            }
        };
        let [minutes, hours, days, months, weekdays] = *rest else { return Err("cron: no fields".to_owned()) };
        let says_nothing = |field: &str| field.starts_with(['*', '?']);
        let days_of_week = WEEKDAY.parse(weekdays)?;
        let cron = Self {
            seconds: SECOND.parse(seconds)?,
            minutes: MINUTE.parse(minutes)?,
            hours: HOUR.parse(hours)?,
            days: DAY.parse(days)?,
            months: MONTH.parse(months)?,
            // Sunday has two numbers.
            weekdays: days_of_week & 0x7f | days_of_week >> 7,
            any_day: says_nothing(days),
            any_weekday: says_nothing(weekdays),
            any_hour: matches!(hours, "*" | "?"),
        };
        let some_leap_year = Date::new(2000, 1, 1).map_err(|error| error.to_string())?;
        match cron.next_day(some_leap_year) {
            Some(_) => Ok(cron),
            None => Err("cron: day of month: no such day in the months that it names".to_owned()),
        }
    }

    /// Whether it names every hour.
    pub(crate) fn is_for_every_hour(&self) -> bool {
        self.any_hour
    }

    /// Whether it names this second.
    #[cfg(test)]
    pub(crate) fn matches(&self, time: DateTime) -> bool {
        self.has_day(time.date())
            && has(self.hours, time.hour())
            && has(self.minutes, time.minute())
            && has(self.seconds, time.second())
    }

    /// The first second that it names and that is not before this one; `None` at the end of the calendar.
    pub(crate) fn at_or_after(&self, time: DateTime) -> Option<DateTime> {
        let mut date = time.date();
        if self.has_day(date)
            && let Some((hour, minute, second)) = self.time_from(time.hour(), time.minute(), time.second())
        {
            return Some(date.at(hour, minute, second, 0));
        }
        date = self.next_day(date.tomorrow().ok()?)?;
        let (hour, minute, second) = self.time_from(0, 0, 0)?;
        Some(date.at(hour, minute, second, 0))
    }

    fn has_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let is_meant = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        is_meant && has(self.months, date.month())
    }

    /// The first day from this one on. The longest wait is for a 29 February over a year 2100.
    fn next_day(&self, mut date: Date) -> Option<Date> {
        for _ in 0..DAYS_MAX {
            if self.has_day(date) {
                return Some(date);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The first time of a day from this one on.
    fn time_from(&self, hour: i8, minute: i8, second: i8) -> Option<(i8, i8, i8)> {
        let (first_minute, first_second) = (from(self.minutes, 0)?, from(self.seconds, 0)?);
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = from(self.seconds, second)
            {
                return Some((hour, minute, second));
            }
            if let Some(minute) = from(self.minutes, minute + 1) {
                return Some((hour, minute, first_second));
            }
        }
        Some((from(self.hours, hour + 1)?, first_minute, first_second))
    }
}

/// Whether the set has this number.
fn has(set: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| number < 64 && set >> number & 1 == 1)
}

/// The lowest number of the set that is no lower than this one.
fn from(set: u64, number: i8) -> Option<i8> {
    let number = u32::try_from(number).ok().filter(|number| *number < 64)?;
    let rest = set >> number << number;
    (rest != 0).then(|| i8::try_from(rest.trailing_zeros()).ok()).flatten()
}

impl Field {
    /// The set of the numbers that the field names.
    fn parse(&self, text: &str) -> Result<u64, String> {
        text.split(',').try_fold(0, |set, part| Ok(set | self.part(part)?))
    }

    fn part(&self, part: &str) -> Result<u64, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let (first, last) = match range {
            "*" | "?" => (self.first, self.last),
            _ => match range.split_once('-') {
                Some((first, last)) => (self.number(first)?, self.number(last)?),
                None => {
                    let first = self.number(range)?;
                    // A step has to lead somewhere.
                    (first, if step.is_some() { self.last } else { first })
                }
            },
        };
        if first > last {
            return Err(format!("cron: {}: {range:?} ends before it begins", self.name));
        }
        let step = match step {
            None => 1,
            Some(step) => {
                let number = step.parse::<usize>().ok().filter(|step| (1..=60).contains(step));
                number.ok_or_else(|| format!("cron: {}: {step:?} is no step from 1 to 60", self.name))?
            }
        };
        Ok((first..=last).step_by(step).fold(0, |set, number| set | 1 << number))
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        if let Some(at) = self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(self.first + at as u32);
        }
        let is_digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        let number = text.parse().ok().filter(|number| is_digits && (self.first..=self.last).contains(number));
        number.ok_or_else(|| {
            let names = match self.names {
                [first, .., last] => format!(", or a name from {first} to {last}"),
                _ => String::new(),
            };
            format!("cron: {}: {text:?} is no number from {} to {}{names}", self.name, self.first, self.last)
        })
    }
}

/// A little more than eight years.
const DAYS_MAX: usize = 366 * 9;

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn an_expression_names_the_times_that_it_should() {
        for (cron, from, expected) in [
            ("*/15 * * * *", "2026-11-28T10:01:00", "2026-11-28T10:15:00"),
            ("0 3 * * *", "2026-11-28T03:00:00", "2026-11-28T03:00:00"),
            ("0 3 * * *", "2026-11-28T03:00:01", "2026-11-29T03:00:00"),
            ("*/10 * * * * *", "2026-11-28T03:00:01", "2026-11-28T03:00:10"),
            ("59 59 23 31 12 ?", "2026-01-01T00:00:00", "2026-12-31T23:59:59"),
            ("0 0 29 2 *", "2096-03-01T00:00:00", "2104-02-29T00:00:00"),
            ("0 0 13 * fri", "2026-11-28T00:00:00", "2026-12-04T00:00:00"),
            ("0 0 13 * *", "2026-11-28T00:00:00", "2026-12-13T00:00:00"),
            ("0 0 * * 7", "2026-11-28T00:00:00", "2026-11-29T00:00:00"),
            ("0 0 * * 5-7", "2026-11-29T00:00:01", "2026-12-04T00:00:00"),
            ("0 9-17/4 * jan,JUL mon-fri", "2026-11-28T00:00:00", "2027-01-01T09:00:00"),
            ("5/20 * * * *", "2026-11-28T00:26:00", "2026-11-28T00:45:00"),
            ("0 0 */2 * 1", "2026-11-28T00:00:00", "2026-12-07T00:00:00"),
            ("@hourly", "2026-11-28T10:00:01", "2026-11-28T11:00:00"),
            ("@Weekly", "2026-11-28T10:00:01", "2026-11-29T00:00:00"),
            ("@yearly", "2026-11-28T10:00:01", "2027-01-01T00:00:00"),
        ] {
            let found = Cron::parse(cron).unwrap().at_or_after(from.parse().unwrap()).unwrap();
            assert_eq!(found, expected.parse().unwrap(), "{cron} from {from}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_the_field_and_what_was_expected() {
        for (cron, error) in [
            (
                "* * * *",
                "cron: 4 fields where 5 were expected (minute, hour, day of month, month, day of week), or 6 with \
                 seconds before them",
            ),
            ("60 * * * *", "cron: minute: \"60\" is no number from 0 to 59"),
            ("x 0 0 * * *", "cron: second: \"x\" is no number from 0 to 59"),
            ("0 24 * * *", "cron: hour: \"24\" is no number from 0 to 23"),
            ("0 0 0 * *", "cron: day of month: \"0\" is no number from 1 to 31"),
            ("0 0 L * *", "cron: day of month: \"L\" is no number from 1 to 31"),
            ("0 0 * foo *", "cron: month: \"foo\" is no number from 1 to 12, or a name from jan to dec"),
            ("0 0 * * 8", "cron: day of week: \"8\" is no number from 0 to 7, or a name from sun to sat"),
            ("0 0 * * fri-mon", "cron: day of week: \"fri-mon\" ends before it begins"),
            ("*/0 * * * *", "cron: minute: \"0\" is no step from 1 to 60"),
            ("1,,2 * * * *", "cron: minute: \"\" is no number from 0 to 59"),
            ("+1 * * * *", "cron: minute: \"+1\" is no number from 0 to 59"),
            ("0 0 30 2 *", "cron: day of month: no such day in the months that it names"),
            ("@often", "cron: \"@often\" is none of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly"),
        ] {
            assert_eq!(Cron::parse(cron), Err(error.to_owned()), "{cron}");
        }
    }

    #[test]
    fn the_next_time_is_the_first_that_matches() {
        // Compared with a walk over all minutes.
        for text in ["7,31 */5 * * *", "0 0 1,15 * 3", "30 12 * 2,6 *", "*/7 3-5 28-31 * 0"] {
            let cron = Cron::parse(text).unwrap();
            let mut time = date(2027, 2, 20).at(0, 0, 0, 0);
            let mut next = cron.at_or_after(time).unwrap();
            for _ in 0..60 * 24 * 40 {
                if cron.matches(time) {
                    assert_eq!(time, next, "{text}");
                    next = cron.at_or_after(time.checked_add(jiff::Span::new().seconds(1)).unwrap()).unwrap();
                } else {
                    assert!(time < next, "{text}: {time}");
                }
                time = time.checked_add(jiff::Span::new().minutes(1)).unwrap();
            }
        }
    }
}

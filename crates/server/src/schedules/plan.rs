//! When a schedule is due: a pure function of its rule and of the last time that was dealt with.

use super::cron::Cron;
use broker::schedule::{Missed, Schedule, Timing};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use std::collections::VecDeque;

/// A schedule's rule, ready to be asked.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    rule: Rule,
    /// Nothing up to here is an occurrence.
    since_ms: u64,
    end_ms: Option<u64>,
}

#[derive(Clone, Debug)]
enum Rule {
    Every { anchor_ms: u64, every_ms: u64 },
    Cron(Box<Cron>, TimeZone),
}

/// What is to be done about the occurrences that have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// These are to be fired, in order.
    pub(crate) fire: Vec<u64>,
    /// So many are not.
    pub(crate) missed: u64,
    /// All up to here are dealt with then; `None` = none had come.
    pub(crate) until_ms: Option<u64>,
}

impl Plan {
    /// Makes a plan of what a schedule says.
    ///
    /// # Errors
    /// A sentence that says what of it is wrong.
    pub(crate) fn new(schedule: &Schedule) -> Result<Self, String> {
        let Schedule { start_ms, end_ms, since_ms, .. } = *schedule;
        let rule = match &schedule.timing {
            Timing::Every { ms: 0 } => return Err("every_ms must be at least 1".to_owned()),
            Timing::Every { ms } => Rule::Every { anchor_ms: start_ms.unwrap_or(since_ms), every_ms: *ms },
            Timing::Cron { expression, zone } => Rule::Cron(Box::new(Cron::parse(expression)?), zone_named(zone)?),
        };
        // The start itself is one, if the rule says so.
        let since_ms = since_ms.max(start_ms.map_or(0, |start_ms| start_ms.saturating_sub(1)));
        Ok(Self { rule, since_ms, end_ms })
    }

    /// The first occurrence after this time (unix ms).
    pub(crate) fn next_after(&self, after_ms: u64) -> Option<u64> {
        let after_ms = after_ms.max(self.since_ms);
        let next = match &self.rule {
            Rule::Every { anchor_ms, every_ms } => match after_ms.checked_sub(*anchor_ms) {
                None => Some(*anchor_ms),
                Some(passed_ms) => anchor_ms.checked_add((passed_ms / every_ms + 1).checked_mul(*every_ms)?),
            },
            Rule::Cron(cron, zone) => next_of(cron, zone, after_ms),
        };
        next.filter(|next_ms| self.end_ms.is_none_or(|end_ms| *next_ms <= end_ms))
    }

    /// What there is to be done now, where all up to `done_ms` is dealt with.
    pub(crate) fn due(&self, done_ms: u64, now_ms: u64, rule: Missed) -> Due {
        let (count, mut last_ones) = self.between(done_ms, now_ms);
        let Some(&last_ms) = last_ones.back() else { return Due::default() };
        let keep = match rule {
            Missed::Skip => usize::from(now_ms - last_ms <= GRACE_MS),
            Missed::One => 1,
            Missed::All => ALL_MAX,
        };
        last_ones.drain(..last_ones.len().saturating_sub(keep));
        let missed = count - last_ones.len() as u64;
        Due { fire: last_ones.into(), missed, until_ms: Some(last_ms) }
    }

    /// How many occurrences there are after the one time and not after the other, and the last ones of them.
    fn between(&self, after_ms: u64, until_ms: u64) -> (u64, VecDeque<u64>) {
        let (mut count, mut last_ones, mut at_ms) = (0, VecDeque::new(), after_ms);
        if let Rule::Every { every_ms, .. } = self.rule
            && let Some(first_ms) = self.next_after(after_ms).filter(|first_ms| *first_ms <= until_ms)
        {
            let until_ms = self.end_ms.map_or(until_ms, |end_ms| until_ms.min(end_ms));
            count = ((until_ms - first_ms) / every_ms + 1).saturating_sub(ALL_MAX as u64);
            at_ms = (first_ms + count * every_ms).saturating_sub(1).max(after_ms);
        }
        while let Some(next_ms) = self.next_after(at_ms).filter(|next_ms| *next_ms <= until_ms) {
            if last_ones.len() == ALL_MAX {
                last_ones.pop_front();
            }
            last_ones.push_back(next_ms);
            count += 1;
            at_ms = next_ms;
            if count == COUNTED_MAX {
                at_ms = self.shortly_before(at_ms, until_ms);
            }
        }
        (count, last_ones)
    }

    /// A time after which there are enough occurrences, and not very many more, but no earlier than the given one.
    fn shortly_before(&self, from_ms: u64, until_ms: u64) -> u64 {
        let spans_ms = std::iter::successors(Some(1000 * ALL_MAX as u64), |ms| ms.checked_mul(10));
        let starts = spans_ms.map(|ms| until_ms.saturating_sub(ms).max(from_ms));
        let all_from = |start_ms| {
            let next = move |at_ms: &u64| self.next_after(*at_ms).filter(|next_ms| *next_ms <= until_ms);
            std::iter::successors(next(&start_ms), next)
        };
        let has_enough = |start_ms: &u64| *start_ms == from_ms || all_from(*start_ms).nth(ALL_MAX).is_some();
        starts.into_iter().find(has_enough).unwrap_or(from_ms)
    }
}

/// The zone of an IANA name.
fn zone_named(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| format!("time_zone: {name:?} is no time zone; one is Europe/Berlin, another UTC"))
}

/// An expression that names hours means clocks on a wall: what they skip comes at the next time that they show, and what
/// they show twice comes the first time. One for every hour means time that passes: it comes when clocks show it.
fn next_of(cron: &Cron, zone: &TimeZone, after_ms: u64) -> Option<u64> {
    // Occurrences are whole seconds.
    let after = Timestamp::from_second(i64::try_from(after_ms / 1000).ok()?).ok()?;
    let next = if cron.is_for_every_hour() {
        next_as_time_passes(cron, zone, after.checked_add(SECOND).ok()?)
    } else {
        next_on_the_wall(cron, zone, after)
    };
    u64::try_from(next?.as_millisecond()).ok()
}

fn next_as_time_passes(cron: &Cron, zone: &TimeZone, mut from: Timestamp) -> Option<Timestamp> {
    loop {
        let offset = zone.to_offset(from);
        let shown = cron.at_or_after(offset.to_datetime(from))?;
        let found = offset.to_timestamp(shown).ok()?;
        match zone.following(from).next().map(|transition| transition.timestamp()) {
            Some(transition) if transition <= found && transition > from => from = transition,
            _ => return Some(found),
        }
    }
}

fn next_on_the_wall(cron: &Cron, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let mut shown = zone.to_datetime(after);
    loop {
        shown = cron.at_or_after(shown)?;
        let found = instant(zone, shown)?;
        if found > after {
            return Some(found);
        }
        shown = shown.checked_add(SECOND).ok()?;
    }
}

/// When clocks show this for the first time, or, if they never do, when they have passed it.
fn instant(zone: &TimeZone, shown: DateTime) -> Option<Timestamp> {
    let to = |offset: Offset| offset.to_timestamp(shown).ok();
    match zone.to_ambiguous_timestamp(shown).offset() {
        AmbiguousOffset::Unambiguous { offset } => to(offset),
        AmbiguousOffset::Fold { before, .. } => to(before),
        AmbiguousOffset::Gap { before, after } => {
            // With the later offset the time lies before the gap.
            let earlier = to(after)?;
            let transition = zone.following(earlier).next().map(|transition| transition.timestamp());
            transition.or_else(|| to(before))
        }
    }
}

const SECOND: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);
/// So late an occurrence is not missed yet.
pub(crate) const GRACE_MS: u64 = 10_000;
/// So many missed ones are made up for at most: the last ones.
pub(crate) const ALL_MAX: usize = 1000;
/// So many are counted one by one; where there are more, those that come after these and are not fired are not counted.
const COUNTED_MAX: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use broker::command::VhostId;
    use broker::schedule::ScheduleId;

    fn schedule(timing: Timing) -> Schedule {
        Schedule {
            id: ScheduleId(1),
            vhost: VhostId(0),
            name: "s".into(),
            timing,
            exchange: String::new(),
            routing_key: String::new(),
            properties: Default::default(),
            body: Default::default(),
            missed: Missed::Skip,
            is_enabled: true,
            start_ms: None,
            end_ms: None,
            since_ms: 0,
        }
    }

    fn cron(expression: &str, zone: &str) -> Plan {
        let timing = Timing::Cron { expression: expression.to_owned(), zone: zone.to_owned() };
        Plan::new(&schedule(timing)).unwrap()
    }

    fn ms(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_millisecond().try_into().unwrap()
    }

    #[test]
    fn occurrences_follow_the_clocks_of_their_zone() {
        for (expression, zone, after, expected) in [
            ("0 3 * * *", "UTC", "2026-11-28T10:00:00Z", &["2026-11-29T03:00:00Z"][..]),
            ("0 3 * * *", "Europe/Berlin", "2026-11-28T10:00:00Z", &["2026-11-29T02:00:00Z"]),
            // Berlin, 29 March 2026: 02:00 to 03:00 does not exist.
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-03-28T00:00:00Z",
                &["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
            ),
            (
                "*/20 2,3 29 3 *",
                "Europe/Berlin",
                "2026-03-29T00:00:00Z",
                &["2026-03-29T01:00:00Z", "2026-03-29T01:20:00Z", "2026-03-29T01:40:00Z", "2027-03-29T00:00:00Z"],
            ),
            // Berlin, 25 October 2026: 02:00 to 03:00 comes twice.
            ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
            ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", &["2026-10-26T01:30:00Z"]),
            // Every hour is every hour.
            (
                "30 * * * *",
                "Europe/Berlin",
                "2026-10-25T00:00:00Z",
                &["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"],
            ),
            (
                "30 * * * *",
                "Europe/Berlin",
                "2026-03-29T00:00:00Z",
                &["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"],
            ),
            // New York, 8 March and 1 November 2026.
            (
                "15 2 * * *",
                "America/New_York",
                "2026-03-08T00:00:00Z",
                &["2026-03-08T07:00:00Z", "2026-03-09T06:15:00Z"],
            ),
            (
                "15 1 * * *",
                "America/New_York",
                "2026-10-31T12:00:00Z",
                &["2026-11-01T05:15:00Z", "2026-11-02T06:15:00Z"],
            ),
            // Half an hour of summer time, and a day that never was.
            ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T13:00:00Z", &["2026-04-04T14:45:00Z"]),
            ("0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", &["2011-12-30T10:00:00Z"]),
        ] {
            let plan = cron(expression, zone);
            let mut at = ms(after);
            for expected in expected {
                at = plan.next_after(at).unwrap();
                let found = Timestamp::from_millisecond(at as i64).unwrap();
                assert_eq!(found.to_string(), *expected, "{expression} in {zone} after {after}");
            }
        }
    }

    #[test]
    fn the_next_occurrence_is_always_later_and_matches() {
        for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu"] {
            let tz = zone_named(zone).unwrap();
            for expression in ["17 * * * *", "*/30 1-3 * * *", "5,35 */2 * * 0", "0 0 1 * *", "*/25 30 2 * * *"] {
                let (plan, parsed) = (cron(expression, zone), Cron::parse(expression).unwrap());
                let mut at = ms("2026-03-01T00:00:00.123Z");
                for _ in 0..3000 {
                    let next = plan.next_after(at).unwrap();
                    assert!(next > at, "{expression} in {zone}: {next} after {at}");
                    let time = Timestamp::from_millisecond(next as i64).unwrap();
                    let is_transition =
                        tz.following(time - SECOND).next().is_some_and(|transition| transition.timestamp() == time);
                    assert!(parsed.matches(tz.to_datetime(time)) || is_transition, "{expression} in {zone}: {time}");
                    // Nothing in between was left out: it is the same from anywhere.
                    assert_eq!(plan.next_after(at + (next - at) / 2), Some(next), "{expression} in {zone}: {time}");
                    at = next;
                }
            }
        }
    }

    #[test]
    fn an_interval_counts_from_its_start() {
        let every = |start_ms, end_ms| {
            let schedule = schedule(Timing::Every { ms: 100 });
            Plan::new(&Schedule { since_ms: 1_000, start_ms, end_ms, ..schedule }).unwrap()
        };
        let plan = every(None, None);
        assert_eq!(
            [0, 1_000, 1_099, 1_100].map(|after| plan.next_after(after)),
            [Some(1_100), Some(1_100), Some(1_100), Some(1_200)]
        );
        assert_eq!(every(Some(5_050), None).next_after(1_234), Some(5_050), "the start is the first");
        assert_eq!(every(Some(550), None).next_after(0), Some(1_050), "what lies before it was set is none");
        let ends = every(None, Some(1_250));
        assert_eq!((ends.next_after(1_150), ends.next_after(1_200)), (Some(1_200), None));
        assert_eq!(ends.due(0, 9_000, Missed::All), Due { fire: vec![1_100, 1_200], missed: 0, until_ms: Some(1_200) });
        assert_eq!(plan.next_after(u64::MAX), None);
    }

    #[test]
    fn what_was_missed_goes_by_the_rule() {
        let plan = Plan::new(&Schedule { since_ms: 0, ..schedule(Timing::Every { ms: 1_000 }) }).unwrap();
        let due = |now_ms, rule| plan.due(500, now_ms, rule);
        assert_eq!(due(999, Missed::All), Due::default());
        let on_time = Due { fire: vec![1_000], missed: 0, until_ms: Some(1_000) };
        for rule in [Missed::Skip, Missed::One, Missed::All] {
            assert_eq!(due(1_003, rule), on_time);
        }
        assert_eq!(due(3_003, Missed::Skip), Due { fire: vec![3_000], missed: 2, until_ms: Some(3_000) });
        assert_eq!(due(3_003, Missed::One), Due { fire: vec![3_000], missed: 2, until_ms: Some(3_000) });
        assert_eq!(due(3_003, Missed::All), Due { fire: vec![1_000, 2_000, 3_000], missed: 0, until_ms: Some(3_000) });
        let Due { fire, missed, until_ms } = due(5_000_999, Missed::All);
        assert_eq!((fire.len(), fire[0], missed, until_ms), (1000, 4_001_000, 4_000, Some(5_000_000)));

        let plan = cron("0 3 * * *", "UTC");
        let (done, last) = (ms("2026-11-20T03:00:00Z"), ms("2026-11-28T03:00:00Z"));
        let late = plan.due(done, last + GRACE_MS + 1, Missed::Skip);
        assert_eq!(late, Due { fire: vec![], missed: 8, until_ms: Some(last) });
        assert_eq!(plan.due(done, last + GRACE_MS, Missed::Skip).fire, [last]);
        assert_eq!(
            plan.due(done, last + 3_600_000, Missed::One),
            Due { fire: vec![last], missed: 7, until_ms: Some(last) }
        );
        // A clock that was put back: nothing comes a second time.
        assert_eq!(plan.due(last, last - 86_400_000, Missed::All), Due::default());
        assert_eq!(plan.next_after(last), Some(last + 86_400_000));
    }

    #[test]
    fn years_of_seconds_are_gone_through_in_a_moment() {
        let plan = cron("* * * * * *", "Europe/Berlin");
        let (done, now) = (ms("2020-01-01T00:00:00Z"), ms("2026-11-28T03:00:00.5Z"));
        let Due { fire, missed, until_ms } = plan.due(done, now, Missed::All);
        assert_eq!((fire.len(), fire.last(), until_ms), (1000, Some(&(now - 500)), Some(now - 500)));
        assert!(missed >= COUNTED_MAX - 1000, "{missed}");
        assert!(fire.windows(2).all(|pair| pair[0] + 1000 == pair[1]));
        let rare = cron("0 0 1 1 *", "UTC").due(0, now, Missed::All);
        assert_eq!((rare.fire.len(), rare.missed), (56, 0));
    }

    #[test]
    fn a_zone_that_is_not_there_is_told() {
        let timing = Timing::Cron { expression: "@daily".to_owned(), zone: "Europe/Berlln".to_owned() };
        let error = Plan::new(&schedule(timing)).unwrap_err();
        assert_eq!(error, "time_zone: \"Europe/Berlln\" is no time zone; one is Europe/Berlin, another UTC");
    }
}

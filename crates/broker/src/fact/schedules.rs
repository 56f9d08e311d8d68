//! Schedules as durable facts, and the firings of each in the logs of the shards.
//!
//! ```text
//! s/LENGTH/VHOST/NAME               a schedule, in shard 0's log
//! f/ID                              what was fired last of the schedule with this id, in the log of each shard that got it
//! ```

use super::{CorruptFact, Fact, encoded, new_fact};
use crate::command::ShardId;
use crate::schedule::{Firing, Missed, Schedule, ScheduleId, Timing};
use amqp::Value;
use bytes::Bytes;

/// The key of a schedule's fact.
pub(crate) fn schedule_key(vhost: &str, name: &str) -> Bytes {
    format!("{SCHEDULE}{}/{vhost}/{name}", vhost.len()).into()
}

/// A schedule as a durable fact: key and value.
pub(crate) fn schedule_fact(vhost: &str, schedule: &Schedule) -> (Bytes, Bytes) {
    let mut fact = new_fact();
    super::put_vhost(&mut fact, schedule.vhost, vhost);
    fact.insert("name", &*schedule.name);
    fact.insert("id", schedule.id.0.cast_signed());
    match &schedule.timing {
        Timing::Cron { expression, zone } => {
            fact.insert("cron", expression.as_str());
            fact.insert("zone", zone.as_str());
        }
        Timing::Every { ms } => drop(fact.insert("every_ms", ms.cast_signed())),
    }
    fact.insert("exchange", schedule.exchange.as_str());
    fact.insert("routing_key", schedule.routing_key.as_str());
    fact.insert("properties", Value::Bytes(schedule.properties.to_vec()));
    fact.insert("body", Value::Bytes(schedule.body.to_vec()));
    fact.insert("missed", schedule.missed.name());
    fact.insert("enabled", schedule.is_enabled);
    for (key, ms) in
        [("start_ms", schedule.start_ms), ("end_ms", schedule.end_ms), ("since_ms", Some(schedule.since_ms))]
    {
        if let Some(ms) = ms {
            fact.insert(key, ms.cast_signed());
        }
    }
    (schedule_key(vhost, &schedule.name), encoded(&fact))
}

pub(super) fn is_schedule(key: &[u8]) -> bool {
    key.starts_with(SCHEDULE.as_bytes())
}

pub(super) fn read_schedule(fact: &Fact<'_>) -> Result<Schedule, CorruptFact> {
    let number = |name| optional(fact, name).ok_or_else(|| fact.lacks(name));
    let bytes = |name| match fact.table.get(name) {
        Some(Value::Bytes(octets)) => Ok(Bytes::copy_from_slice(octets)),
        _ => Err(fact.lacks(name)),
    };
    let timing = match optional(fact, "every_ms") {
        Some(ms) => Timing::Every { ms },
        None => Timing::Cron { expression: fact.text("cron")?.to_owned(), zone: fact.text("zone")?.to_owned() },
    };
    Ok(Schedule {
        id: ScheduleId(number("id")?),
        vhost: fact.vhost()?.0,
        name: fact.text("name")?.into(),
        timing,
        exchange: fact.text("exchange")?.to_owned(),
        routing_key: fact.text("routing_key")?.to_owned(),
        properties: bytes("properties")?,
        body: bytes("body")?,
        missed: Missed::named(fact.text("missed")?).ok_or_else(|| fact.lacks("missed"))?,
        is_enabled: fact.flag("enabled")?,
        start_ms: optional(fact, "start_ms"),
        end_ms: optional(fact, "end_ms"),
        since_ms: number("since_ms")?,
    })
}

/// The key of the fact about a schedule's firings.
#[must_use]
pub fn firing_key(schedule: ScheduleId) -> Bytes {
    format!("{FIRING}{}", schedule.0).into()
}

impl Firing {
    /// As a durable fact: key and value.
    #[must_use]
    pub fn fact(&self) -> (Bytes, Bytes) {
        let mut fact = new_fact();
        for (name, number) in [
            ("at_ms", self.at_ms),
            ("fired_ms", self.fired_ms),
            ("fired", self.fired),
            ("missed", self.missed),
            ("failed", self.failed),
        ] {
            fact.insert(name, number.cast_signed());
        }
        if !self.error.is_empty() {
            fact.insert("error", self.error.as_str());
        }
        // Most go into one shard, which need not be told that it is that one.
        if self.shards.len() > 1 {
            fact.insert("shards", Value::Array(self.shards.iter().map(|shard| i32::from(shard.0).into()).collect()));
        }
        (firing_key(self.schedule), encoded(&fact))
    }

    /// Reads it from the log of a shard; `None` if it is another kind of fact.
    ///
    /// # Errors
    /// [`CorruptFact`].
    pub fn from_fact(shard: ShardId, key: &[u8], value: &[u8]) -> Result<Option<Self>, CorruptFact> {
        let Some(id) = key.strip_prefix(FIRING.as_bytes()) else { return Ok(None) };
        let fact = Fact::read(key, value)?;
        let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
        let number = |name| optional(&fact, name).ok_or_else(|| fact.lacks(name));
        let shards = match fact.table.get("shards") {
            None => vec![shard],
            Some(Value::Array(shards)) => {
                let shards = shards.iter().map(|shard| u16::try_from(shard.as_i64()?).ok().map(ShardId));
                shards.collect::<Option<_>>().ok_or_else(|| fact.lacks("shards"))?
            }
            Some(_) => return Err(fact.lacks("shards")),
        };
        Ok(Some(Self {
            schedule: ScheduleId(id.ok_or_else(|| fact.corrupt("its key holds no id of a schedule"))?),
            at_ms: number("at_ms")?,
            fired_ms: number("fired_ms")?,
            fired: number("fired")?,
            missed: number("missed")?,
            failed: number("failed")?,
            error: fact.table.get("error").and_then(Value::as_str).unwrap_or_default().to_owned(),
            shards,
        }))
    }
}

fn optional(fact: &Fact<'_>, name: &str) -> Option<u64> {
    fact.table.get(name).and_then(Value::as_i64).map(i64::cast_unsigned)
}

const SCHEDULE: &str = "s/";
const FIRING: &str = "f/";

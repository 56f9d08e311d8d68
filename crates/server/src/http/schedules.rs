//! `/api/schedules`, which RabbitMQ does not have: messages that are published again and again.

use super::access::Caller;
use super::exchanges::real_name;
use super::listing::Listing;
use super::messages::{Draft, properties_to_json};
use super::refusal::{Refusal, succeeded};
use super::request::Document;
use super::{Api, Shared, rights};
use crate::schedules::{Plan, prepare};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::access::{Resource, Right};
use broker::command::{CatalogAsk, Command, Outcome, VhostId};
use broker::message::parse_expiration;
use broker::schedule::{BODY_MAX, Missed, Schedule, ScheduleId, Timing};
use broker::topology::Topology;
use bytes::BytesMut;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// `GET /api/schedules`
pub(super) async fn list(State(api): Shared, listing: Listing) -> Result<Json<Value>, Refusal> {
    answer(&api, None, &listing)
}

/// `GET /api/schedules/VHOST`
pub(super) async fn list_in(
    State(api): Shared,
    Path(vhost): Path<String>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let vhost = api.vhost(&vhost)?;
    answer(&api, Some(vhost), &listing)
}

fn answer(api: &Api, vhost: Option<VhostId>, listing: &Listing) -> Result<Json<Value>, Refusal> {
    let objects = {
        let topology = api.board.topology();
        let wanted = topology.schedules().filter(|schedule| vhost.is_none_or(|vhost| schedule.vhost == vhost));
        wanted.map(|schedule| describe(api, &topology, schedule)).collect()
    };
    listing.all(objects, &["vhost", "name"])
}

/// `GET /api/schedules/VHOST/NAME`
pub(super) async fn show(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
    listing: Listing,
) -> Result<Json<Value>, Refusal> {
    let schedule = find(&api, &vhost, &name)?;
    let topology = api.board.topology();
    Ok(listing.one(describe(&api, &topology, &schedule)))
}

/// `PUT /api/schedules/VHOST/NAME`
pub(super) async fn set(
    State(api): Shared,
    Extension(caller): Extension<Caller>,
    Path((vhost, name)): Path<(String, String)>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    let existed = declare(&api, &caller, &vhost, &name, &document).await?;
    Ok(if existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED })
}

/// Sets a schedule; whether there was one of its name.
pub(super) async fn declare(
    api: &Arc<Api>,
    caller: &Caller,
    vhost: &str,
    name: &str,
    document: &Document,
) -> Result<bool, Refusal> {
    let vhost_id = api.vhost(vhost)?;
    if name.is_empty() || name.len() > usize::from(u8::MAX) {
        return Err(Refusal::bad_request("the name of a schedule has 1 to 255 bytes"));
    }
    let mut schedule = read(document, vhost_id, name, caller)?;
    rights::check_use(api, vhost_id, Right::Write, Resource::Exchange(&schedule.exchange))?;
    rights::check_key(api, vhost_id, &schedule.exchange, &schedule.routing_key)?;
    let former = {
        let topology = api.board.topology();
        match topology.exchange(vhost_id, &schedule.exchange) {
            None => {
                return Err(Refusal::bad_request(format!("there is no exchange {:?}", schedule.exchange)));
            }
            Some(exchange) if exchange.internal => {
                return Err(Refusal::bad_request(format!("exchange {:?} is internal", schedule.exchange)));
            }
            Some(_) => topology.schedule(vhost_id, name).cloned(),
        }
    };
    schedule.since_ms = api.board.clock().now().unix_ms;
    if let Some(former) = &former
        && former.is_enabled
        && (&former.timing, former.start_ms) == (&schedule.timing, schedule.start_ms)
    {
        // It goes on as it was.
        schedule.since_ms = former.since_ms;
    }
    Plan::new(&schedule).map_err(Refusal::bad_request)?;
    put(api, schedule).await?;
    Ok(former.is_some())
}

/// `DELETE /api/schedules/VHOST/NAME`
pub(super) async fn delete(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    let vhost = api.vhost(&vhost)?;
    match api.operator().ask(vhost, CatalogAsk::DeleteSchedule { name }).await? {
        Outcome::Missed => Err(Refusal::no_object()),
        outcome => {
            succeeded(outcome)?;
            Ok(StatusCode::NO_CONTENT)
        }
    }
}

/// `PUT /api/schedules/VHOST/NAME/pause`
pub(super) async fn pause(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    enable(&api, &vhost, &name, false).await
}

/// `PUT /api/schedules/VHOST/NAME/resume`
pub(super) async fn resume(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
) -> Result<StatusCode, Refusal> {
    enable(&api, &vhost, &name, true).await
}

async fn enable(api: &Arc<Api>, vhost: &str, name: &str, is_enabled: bool) -> Result<StatusCode, Refusal> {
    let schedule = find(api, vhost, name)?;
    if schedule.is_enabled != is_enabled {
        // What came while it was paused was not missed.
        let since_ms = if is_enabled { api.board.clock().now().unix_ms } else { schedule.since_ms };
        put(api, Schedule { is_enabled, since_ms, ..Schedule::clone(&schedule) }).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/schedules/VHOST/NAME/fire`: publishes its message now; when it is due next is not touched.
pub(super) async fn fire(
    State(api): Shared,
    Path((vhost, name)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    let schedule = find(&api, &vhost, &name)?;
    let prepared = prepare(&api.board.topology(), &schedule, None);
    let publishes = match prepared {
        Ok(publishes) => publishes,
        Err(error) => return Ok(Json(json!({"routed": false, "reason": error}))),
    };
    let (mut operator, mut is_refused) = (api.operator(), false);
    for (shard, publish) in publishes {
        is_refused |= !operator.publish(shard, vec![Command::Publish(publish)]).await?.is_empty();
    }
    let reason = is_refused.then_some("a queue that it is routed to is full");
    Ok(Json(json!({"routed": true, "reason": reason})))
}

fn find(api: &Api, vhost: &str, name: &str) -> Result<Arc<Schedule>, Refusal> {
    let vhost = api.vhost(vhost)?;
    api.board.topology().schedule(vhost, name).cloned().ok_or_else(Refusal::no_object)
}

async fn put(api: &Arc<Api>, schedule: Schedule) -> Result<(), Refusal> {
    let vhost = schedule.vhost;
    succeeded(api.operator().ask(vhost, CatalogAsk::SetSchedule(Box::new(schedule))).await?)?;
    Ok(())
}

/// Reads a schedule's JSON form.
fn read(document: &Document, vhost: VhostId, name: &str, caller: &Caller) -> Result<Schedule, Refusal> {
    let bad = |text: String| Refusal::bad_request(text);
    if let Some(key) = document.unknown(&KEYS) {
        return Err(bad(format!("{key:?} is no key of a schedule; these are: {}", KEYS[..SETTABLE].join(", "))));
    }
    let every_ms = document.integer("every_ms")?;
    let timing = match (document.get("cron"), every_ms) {
        (Some(_), None) => Timing::Cron {
            expression: document.text("cron")?.to_owned(),
            zone: match document.text("time_zone")? {
                "" => "UTC".to_owned(),
                zone => zone.to_owned(),
            },
        },
        (None, Some(_)) if document.get("time_zone").is_some() => {
            return Err(bad("time_zone goes with cron, not with every_ms".to_owned()));
        }
        (None, Some(ms)) => match u64::try_from(ms) {
            Ok(ms) if (EVERY_MS_MIN..=EVERY_MS_MAX).contains(&ms) => Timing::Every { ms },
            _ => return Err(bad(format!("every_ms must be from {EVERY_MS_MIN} to {EVERY_MS_MAX}"))),
        },
        _ => return Err(bad("say when: cron or every_ms, one of them".to_owned())),
    };
    let missed = document.text("if_missed")?;
    let missed = if missed.is_empty() { Some(Missed::Skip) } else { Missed::named(missed) };
    let routing_key = document.text("routing_key")?;
    if routing_key.len() > usize::from(u8::MAX) {
        return Err(bad("routing_key is longer than 255 bytes".to_owned()));
    }
    let body = body(document)?;
    let mut draft = Draft::read(&document.object("properties")?)?;
    if !draft.more_keys.is_empty() {
        return Err(bad("the headers CC and BCC are not for schedules: bind an exchange to the queues".to_owned()));
    }
    let user = &*caller.user.name;
    if let Some(other) = draft.user_id.filter(|user_id| user_id != user) {
        return Err(bad(format!("user_id property set to '{other}' but authenticated user was '{user}'")));
    }
    draft.expiration.as_deref().map(parse_expiration).transpose().map_err(|fault| bad(fault.text))?;
    draft.properties.delivery_mode.get_or_insert(2);
    let mut properties = BytesMut::new();
    draft.properties.encode(&mut properties);
    let (start_ms, end_ms) = (moment(document, "start_at")?, moment(document, "end_at")?);
    if start_ms.zip(end_ms).is_some_and(|(start_ms, end_ms)| end_ms < start_ms) {
        return Err(bad("end_at is before start_at".to_owned()));
    }
    Ok(Schedule {
        id: ScheduleId(0),
        vhost,
        name: name.into(),
        timing,
        exchange: real_name(document.text("exchange")?).to_owned(),
        routing_key: routing_key.to_owned(),
        properties: properties.freeze(),
        body: body.into(),
        missed: missed.ok_or_else(|| bad("if_missed must be skip, one or all".to_owned()))?,
        is_enabled: document.get("enabled").is_none() || document.flag("enabled")?,
        start_ms,
        end_ms,
        since_ms: 0,
    })
}

fn body(document: &Document) -> Result<Vec<u8>, Refusal> {
    let payload = document.text("payload")?;
    let body = match document.text("payload_encoding")? {
        "" | "string" => payload.as_bytes().to_vec(),
        "base64" => STANDARD.decode(payload).map_err(|_| Refusal::bad_request("payload is not Base64"))?,
        other => {
            let text = format!("unsupported payload_encoding {other:?}: use string or base64");
            return Err(Refusal::bad_request(text));
        }
    };
    if body.len() > BODY_MAX {
        return Err(Refusal::bad_request(format!("payload is longer than {BODY_MAX} bytes")));
    }
    Ok(body)
}

/// A time, in Unix milliseconds or as text.
fn moment(document: &Document, key: &str) -> Result<Option<u64>, Refusal> {
    let ms = match document.get(key) {
        None => return Ok(None),
        Some(Value::Number(ms)) => ms.as_u64(),
        Some(Value::String(text)) => {
            let moment = text.parse::<jiff::Timestamp>().ok();
            moment.and_then(|moment| u64::try_from(moment.as_millisecond()).ok())
        }
        Some(_) => None,
    };
    let ms = ms.filter(|ms| *ms <= MOMENT_MS_MAX);
    let expected =
        || Refusal::bad_request(format!("{key} must be like \"2027-01-31T08:00:00Z\", or in Unix milliseconds"));
    ms.map(Some).ok_or_else(expected)
}

/// A schedule's JSON form, and how it stands.
fn describe(api: &Api, topology: &Topology, schedule: &Schedule) -> Value {
    let mut object = definition(topology, schedule);
    let looked = api.board.scheduler().look(schedule.id);
    let (standing, next_ms, fault) = looked.unwrap_or_default();
    let never_zero = |ms: u64| (ms != 0).then_some(ms);
    let state = match (&fault, next_ms) {
        (Some(_), _) => "broken",
        (None, _) if !schedule.is_enabled => "paused",
        (None, None) => "ended",
        (None, Some(_)) => "running",
    };
    let error = fault.or(Some(standing.error).filter(|error| !error.is_empty()));
    object.insert("state".into(), state.into());
    object.insert("next_at".into(), next_ms.filter(|_| schedule.is_enabled).into());
    object.insert("last_at".into(), never_zero(standing.last_ms).into());
    object.insert("fired".into(), standing.fired.into());
    object.insert("missed".into(), standing.missed.into());
    object.insert("failed".into(), standing.failed.into());
    object.insert("last_error".into(), error.into());
    object.into()
}

/// What was declared: the same that is declared again by it.
pub(super) fn definition(topology: &Topology, schedule: &Schedule) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("vhost".into(), (&**topology.vhost_name(schedule.vhost)).into());
    object.insert("name".into(), (&*schedule.name).into());
    match &schedule.timing {
        Timing::Cron { expression, zone } => {
            object.insert("cron".into(), expression.as_str().into());
            object.insert("time_zone".into(), zone.as_str().into());
        }
        Timing::Every { ms } => drop(object.insert("every_ms".into(), (*ms).into())),
    }
    object.insert("exchange".into(), schedule.exchange.as_str().into());
    object.insert("routing_key".into(), schedule.routing_key.as_str().into());
    object.insert("properties".into(), properties_to_json(&schedule.properties, 0));
    let (payload, encoding) = match std::str::from_utf8(&schedule.body) {
        Ok(text) => (text.to_owned(), "string"),
        Err(_) => (STANDARD.encode(&schedule.body), "base64"),
    };
    object.insert("payload".into(), payload.into());
    object.insert("payload_encoding".into(), encoding.into());
    object.insert("if_missed".into(), schedule.missed.name().into());
    object.insert("enabled".into(), schedule.is_enabled.into());
    object.insert("start_at".into(), schedule.start_ms.into());
    object.insert("end_at".into(), schedule.end_ms.into());
    object
}

/// What a document may have: first what can be set, then what is told.
const KEYS: [&str; 21] = [
    "cron",
    "time_zone",
    "every_ms",
    "exchange",
    "routing_key",
    "properties",
    "payload",
    "payload_encoding",
    "if_missed",
    "enabled",
    "start_at",
    "end_at",
    // What an answer has besides may be sent back.
    "vhost",
    "name",
    "state",
    "next_at",
    "last_at",
    "fired",
    "missed",
    "failed",
    "last_error",
];
const SETTABLE: usize = 12;
const EVERY_MS_MIN: u64 = 10;
/// A hundred years.
const EVERY_MS_MAX: u64 = 3_155_760_000_000;
/// The end of the calendar, more or less.
const MOMENT_MS_MAX: u64 = 250_000_000_000_000;

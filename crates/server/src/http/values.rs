//! AMQP's values as JSON and back, and moments as RabbitMQ writes them.

use amqp::{Table, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value as Json};

/// A table as an object.
pub fn table_to_json(table: &Table) -> Json {
    table.iter().map(|(key, value)| (key.to_owned(), to_json(value))).collect::<Map<_, _>>().into()
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Bool(truth) => (*truth).into(),
        Value::I8(number) => (*number).into(),
        Value::U8(number) => (*number).into(),
        Value::I16(number) => (*number).into(),
        Value::U16(number) => (*number).into(),
        Value::I32(number) => (*number).into(),
        Value::U32(number) => (*number).into(),
        Value::I64(number) => (*number).into(),
        Value::Timestamp(seconds) => (*seconds).into(),
        Value::F32(number) => float(f64::from(*number)),
        Value::F64(number) => float(*number),
        Value::Decimal { scale, value } => float(f64::from(*value) / 10_f64.powi(i32::from(*scale))),
        Value::Str(octets) => octets_to_json(octets),
        Value::Bytes(octets) => STANDARD.encode(octets).into(),
        Value::Array(values) => values.iter().map(to_json).collect::<Vec<_>>().into(),
        Value::Table(table) => table_to_json(table),
        Value::Void => Json::Null,
    }
}

/// JSON has no word for NaN and the infinities.
fn float(number: f64) -> Json {
    Number::from_f64(number).map_or_else(|| number.to_string().into(), Json::Number)
}

/// A string, in Base64 where it is not text.
pub(super) fn octets_to_json(octets: &[u8]) -> Json {
    std::str::from_utf8(octets).map_or_else(|_| STANDARD.encode(octets), str::to_owned).into()
}

/// An object as a table, integers as `long`.
///
/// # Errors
/// A sentence: it nests too deep, or a key is too long for a table.
pub fn table_from_json(object: &Map<String, Json>) -> Result<Table, String> {
    table_within(object, amqp::table::DEPTH_MAX)
}

fn table_within(object: &Map<String, Json>, depth: usize) -> Result<Table, String> {
    let entry = |(key, value): (&String, &Json)| {
        if key.len() > usize::from(u8::MAX) {
            return Err(format!("the key {key:?} is longer than 255 bytes"));
        }
        Ok((key.clone(), from_json(value, depth)?))
    };
    object.iter().map(entry).collect()
}

fn from_json(value: &Json, depth: usize) -> Result<Value, String> {
    let deeper = || depth.checked_sub(1).ok_or_else(|| "arguments nest too deep".to_owned());
    Ok(match value {
        Json::Null => Value::Void,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::I64(integer),
            (None, Some(float)) => Value::F64(float),
            (None, None) => return Err(format!("the number {number} is out of range")),
        },
        Json::String(text) => Value::Str(text.clone().into_bytes()),
        Json::Array(values) => {
            let depth = deeper()?;
            Value::Array(values.iter().map(|value| from_json(value, depth)).collect::<Result<_, _>>()?)
        }
        Json::Object(object) => Value::Table(table_within(object, deeper()?)?),
    })
}

/// A moment (milliseconds since 1970) as `2026-08-01T10:00:00.000+00:00`.
pub(super) fn moment(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / DAY_MS, unix_ms % DAY_MS);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}+00:00", ms % 1000)
}

/// Year, month and day of a day counted from 1970-01-01. Years are taken to begin in March, so that a leap day is the
/// last of its year, and 400 years (an era) always have the same number of days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_FROM_0000_03_01_TO_1970;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_from_march + 2) / 5 + 1;
    let month = if months_from_march < 10 { months_from_march + 3 } else { months_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

const DAY_MS: u64 = 24 * 3600 * 1000;
const ERA_DAYS: u64 = 146_097;
const DAYS_FROM_0000_03_01_TO_1970: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn moments_are_written_as_rabbitmq_does() {
        assert_eq!(moment(0), "1970-01-01T00:00:00.000+00:00");
        assert_eq!(moment(951_782_399_999), "2000-02-28T23:59:59.999+00:00");
        assert_eq!(moment(951_782_400_000), "2000-02-29T00:00:00.000+00:00");
        assert_eq!(moment(1_795_235_091_093), "2026-11-21T04:24:51.093+00:00");
        assert_eq!(moment(4_107_542_400_000), "2100-03-01T00:00:00.000+00:00");
    }

    #[test]
    fn json_becomes_a_table_and_comes_back() {
        let json = json!({"n": -5, "big": 5_000_000_000_i64, "f": 1.5, "s": "é", "b": true, "v": null, "a": ["x", 1], "t": {"k": "v"}});
        let table = table_from_json(json.as_object().unwrap()).unwrap();
        assert_eq!(table.get("n"), Some(&Value::I64(-5)));
        assert_eq!(table_to_json(&table), json);
    }

    #[test]
    fn what_json_cannot_say_is_said_otherwise() {
        let table: Table = [
            ("nan", Value::F64(f64::NAN)),
            ("bin", Value::Str(vec![0xff])),
            ("d", Value::Decimal { scale: 2, value: 150 }),
        ]
        .into_iter()
        .collect();
        assert_eq!(table_to_json(&table), json!({"nan": "NaN", "bin": "/w==", "d": 1.5}));
    }

    #[test]
    fn a_table_that_no_client_could_read_is_refused() {
        let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
        assert!(table_from_json(json!({"a": deep}).as_object().unwrap()).is_err());
        let long: Map<_, _> = [("k".repeat(256), json!(1))].into_iter().collect();
        assert!(table_from_json(&long).is_err());
    }
}

//! A job as a line of JSON.

use super::super::job::{Job, table_json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, BytesMut};
use serde::Serialize;
use std::fmt::Write as _;

/// Appends it, with the line's end.
pub(super) fn write(job: &Job, out: &mut BytesMut) {
    let properties = job.properties();
    let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
    put("{\"id\":\"");
    put(&job.id.0.to_string());
    put("\",\"queue\":");
    json(&*job.queue, out);
    let _infallible = write!(out, ",\"attempt\":{},\"redelivered\":{},\"exchange\":", job.attempt(), job.redelivered);
    json(&job.exchange, out);
    out.extend_from_slice(b",\"routing_key\":");
    json(&job.routing_key, out);
    out.extend_from_slice(b",\"properties\":{");
    if let Some(properties) = &properties {
        let texts = [
            ("content_type", properties.content_type()),
            ("content_encoding", properties.content_encoding()),
            ("correlation_id", properties.correlation_id()),
            ("reply_to", properties.reply_to()),
            ("expiration", properties.expiration()),
            ("message_id", properties.message_id()),
            ("type", properties.kind()),
            ("user_id", properties.user_id()),
            ("app_id", properties.app_id()),
        ];
        let mut comma = "";
        for (name, text) in texts {
            let Some(text) = text else { continue };
            let _infallible = write!(out, "{comma}\"{name}\":");
            json(text, out);
            comma = ",";
        }
        let numbers = [
            ("delivery_mode", properties.delivery_mode().map(u64::from)),
            ("priority", properties.priority().map(u64::from)),
            ("timestamp", properties.timestamp()),
        ];
        for (name, number) in numbers {
            let Some(number) = number else { continue };
            let _infallible = write!(out, "{comma}\"{name}\":{number}");
            comma = ",";
        }
    }
    out.extend_from_slice(b"},\"headers\":");
    match properties.and_then(|properties| properties.headers()) {
        Some(headers) => json(&table_json(&headers), out),
        None => out.extend_from_slice(b"{}"),
    }
    match std::str::from_utf8(&job.body) {
        Ok(body) => {
            out.extend_from_slice(b",\"body\":");
            json(body, out);
        }
        Err(_) => {
            out.extend_from_slice(b",\"body_base64\":\"");
            out.extend_from_slice(STANDARD.encode(&job.body).as_bytes());
            out.extend_from_slice(b"\"");
        }
    }
    out.extend_from_slice(b"}\n");
}

fn json<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) {
    // Neither text nor a tree of JSON can fail to be written to memory.
    let _infallible = serde_json::to_writer(out.writer(), value);
}

#[cfg(test)]
mod tests {
    use super::super::super::job::tests::job;
    use super::*;
    use amqp::Table;
    use serde_json::{Value, json};

    #[test]
    fn a_job_is_one_line_with_all_that_it_is() {
        let mut out = BytesMut::new();
        write(&job(Table::from_iter([("n", 5)]), b"two\nlines \"quoted\""), &mut out);
        write(&job(Table::new(), b"\xFF\x00"), &mut out);
        let lines: Vec<Value> = out[..]
            .split(|octet| *octet == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(
            lines[0],
            json!({
                "id": "7", "queue": "tasks", "attempt": 1, "redelivered": false, "exchange": "x", "routing_key": "rk",
                "properties": { "content_type": "text/plain", "message_id": "m-1" }, "headers": { "n": 5 },
                "body": "two\nlines \"quoted\"",
            })
        );
        assert_eq!((lines.len(), &lines[1]["body_base64"]), (2, &json!("/wA=")));
    }
}

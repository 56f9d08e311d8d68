//! What a program answers by a line of JSON.
//!
//! ```text
//! {"id": "7", "ok": true}                      done; with "reply": "text" or "reply_base64", a result
//! {"id": "7", "retry": "why"}                  try it again
//! {"id": "7", "dead": "why"}                   never again
//! {"id": "7", "progress": 40, "text": "…"}     how far it is
//! ```

use super::super::ending::Verdict;
use super::super::job::JobId;
use super::super::progress::Progress;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// An answer.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Progress(Progress),
    /// How, why, and with what result.
    Ended(Verdict, String, Option<Vec<u8>>),
}

/// Of which job, and what; `None` for a line that is no answer.
pub(super) fn read(line: &[u8]) -> Option<(JobId, Answer)> {
    let Ok(Value::Object(answer)) = serde_json::from_slice(line) else { return None };
    let id = match answer.get("id")? {
        Value::String(id) => id.parse().ok()?,
        id => id.as_u64()?,
    };
    let text = |name: &str| match answer.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Bool(false) | Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    };
    let answer = match (text("dead"), text("retry")) {
        (Some(why), _) => Answer::Ended(Verdict::Dead, why, None),
        (None, Some(why)) => Answer::Ended(Verdict::Retry, why, None),
        (None, None) if answer.get("ok") == Some(&Value::Bool(true)) => {
            let decoded = answer.get("reply_base64").and_then(|reply| STANDARD.decode(reply.as_str()?).ok());
            Answer::Ended(Verdict::Done, String::new(), decoded.or_else(|| text("reply").map(String::into_bytes)))
        }
        (None, None) if answer.contains_key("ok") => {
            Answer::Ended(Verdict::Retry, text("why").unwrap_or_else(|| "not ok".to_owned()), None)
        }
        (None, None) => match answer.get("progress")? {
            Value::String(text) => Answer::Progress(Progress::new(None, text)),
            percent => Answer::Progress(Progress::new(percent.as_f64(), &text("text").unwrap_or_default())),
        },
    };
    Some((JobId(id), answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_every_kind_are_read_and_other_lines_are_none() {
        let read = |line: &str| read(line.as_bytes());
        let ended = |verdict, why: &str| Some((JobId(7), Answer::Ended(verdict, why.to_owned(), None)));
        assert_eq!(read(r#"{"id":"7","ok":true}"#), ended(Verdict::Done, ""));
        assert_eq!(read(r#"{"id":7,"retry":"later"}"#), ended(Verdict::Retry, "later"));
        assert_eq!(read(r#"{"id":7,"dead":"no such user","retry":"x"}"#), ended(Verdict::Dead, "no such user"));
        assert_eq!(read(r#"{"id":7,"ok":false}"#), ended(Verdict::Retry, "not ok"));
        let reply = |line| match read(line) {
            Some((_, Answer::Ended(Verdict::Done, _, Some(reply)))) => reply,
            other => panic!("{other:?}"),
        };
        assert_eq!(reply(r#"{"id":7,"ok":true,"reply":"yes"}"#), b"yes");
        assert_eq!(reply(r#"{"id":7,"ok":true,"reply":{"a":1}}"#), b"{\"a\":1}");
        assert_eq!(reply(r#"{"id":7,"ok":true,"reply_base64":"/w=="}"#), b"\xFF");
        let progress = |line| match read(line) {
            Some((_, Answer::Progress(progress))) => progress.told(),
            other => panic!("{other:?}"),
        };
        assert_eq!(progress(r#"{"id":7,"progress":40,"text":"resizing"}"#), "40 % resizing");
        assert_eq!(progress(r#"{"id":7,"progress":"nearly there"}"#), "nearly there");
        for line in ["", "debugging", "7", r#"{"ok":true}"#, r#"{"id":"x","ok":true}"#, r#"{"id":7}"#, "{\"id\":7,"] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}

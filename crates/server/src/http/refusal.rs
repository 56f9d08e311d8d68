//! How the API says no: a status and RabbitMQ's `{"error": …, "reason": …}`.

use crate::switchboard::Unanswered;
use amqp::ReplyCode;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use broker::command::{Fault, Outcome};
use serde_json::{Value, json};

/// An answer that is no success.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: &'static str,
    reason: Value,
}

impl Refusal {
    /// 404 for a path that leads to nothing.
    pub(super) fn no_object() -> Self {
        Self { status: StatusCode::NOT_FOUND, error: "Object Not Found", reason: "Not Found".into() }
    }

    /// 404 for something that the request, not its path, names.
    pub(super) fn not_found(reason: impl Into<Value>) -> Self {
        Self { status: StatusCode::NOT_FOUND, error: "not_found", reason: reason.into() }
    }

    /// 400.
    pub(super) fn bad_request(reason: impl Into<Value>) -> Self {
        Self::bad("bad_request", reason)
    }

    /// 400 with another word for it.
    pub(super) fn bad(error: &'static str, reason: impl Into<Value>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, reason: reason.into() }
    }

    /// 401 for someone who is logged in and still must not. RabbitMQ never answers 403.
    pub(super) fn not_authorised(reason: impl Into<Value>) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, error: "not_authorised", reason: reason.into() }
    }

    /// 401 for a wrong login. RabbitMQ spells it differently here.
    pub(super) fn login_failed() -> Self {
        Self { status: StatusCode::UNAUTHORIZED, error: "not_authorized", reason: "Login failed".into() }
    }

    /// 412.
    pub(super) fn precondition_failed(reason: impl Into<Value>) -> Self {
        Self { status: StatusCode::PRECONDITION_FAILED, error: "precondition_failed", reason: reason.into() }
    }

    /// The same refusal, saying of what.
    pub(super) fn about(mut self, what: &str) -> Self {
        self.reason = format!("{what}: {}", self.reason().trim_end()).into();
        self
    }

    /// The same refusal, with something more to be known.
    pub(super) fn besides(mut self, more: &str) -> Self {
        self.reason = format!("{} ({more})", self.reason().trim_end()).into();
        self
    }

    /// Why.
    pub(super) fn reason(&self) -> String {
        self.reason.as_str().map_or_else(|| self.reason.to_string(), str::to_owned)
    }

    /// 408: the request did not come whole in time.
    pub(super) fn too_slow() -> Self {
        Self {
            status: StatusCode::REQUEST_TIMEOUT,
            error: "timeout",
            reason: "The request took too long to arrive".into(),
        }
    }

    /// As RabbitMQ words the faults of the AMQP client inside its API: `406 PRECONDITION_FAILED - TEXT`.
    pub(super) fn from_channel(fault: &Fault) -> Self {
        Self::bad_request(format!("{} {} - {}", fault.code.code(), fault.code.name(), fault.text))
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault.code {
            ReplyCode::NotFound => Self::not_found(fault.text),
            ReplyCode::AccessRefused | ReplyCode::NotAllowed => Self::not_authorised("Access refused."),
            _ => Self::bad_request(fault.text),
        }
    }
}

impl From<Unanswered> for Refusal {
    fn from(unanswered: Unanswered) -> Self {
        let reason = unanswered.to_string().into();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error: "unavailable", reason }
    }
}

/// An outcome that is a success, or the refusal that it is.
pub(super) fn succeeded(outcome: Outcome) -> Result<Outcome, Refusal> {
    match outcome {
        Outcome::Fault(fault) => Err(fault.into()),
        // It was deleted while we looked.
        Outcome::Missed => Err(Refusal::no_object()),
        outcome => Ok(outcome),
    }
}

/// Gives a refusal that the router worded (a name in a path that is no text, a number that is none) RabbitMQ's form.
pub(super) async fn in_rabbitmqs_form(response: Response) -> Response {
    let is_text = |value: &HeaderValue| value.as_bytes().starts_with(b"text/plain");
    if response.status() != StatusCode::BAD_REQUEST
        || !response.headers().get(header::CONTENT_TYPE).is_some_and(is_text)
    {
        return response;
    }
    let reason = axum::body::to_bytes(response.into_body(), REASON_BYTES_MAX).await.unwrap_or_default();
    Refusal::bad_request(String::from_utf8_lossy(&reason).into_owned()).into_response()
}

const REASON_BYTES_MAX: usize = 64 << 10;

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.error, "reason": self.reason}))).into_response()
    }
}

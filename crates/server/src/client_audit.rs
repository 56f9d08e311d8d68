//! What AMQP clients changed that lasts: a line of JSON for each durable queue or exchange that was declared or deleted, and
//! each binding between such, in `audit-clients.log` in the data directory.
//!
//! It is the same kind of record as `audit.rs`, in files of its own, so that applications that declare and delete
//! all day never push out what people did. Nobody waits for it: a change is noted in memory, and twenty times a second
//! at most a thread writes all that was noted, without a sync: a kill takes the lines of that time, a crash of the machine
//! some more. What comes faster than that is counted and left out.

use crate::audit::{Audit, Entry, Line, line};
use crate::http::values::table_to_json;
use broker::catalog::{Changed, LastingChange};
use broker::command::{BindingSpec, DestinationKind};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(crate) struct ClientAudit {
    audit: Audit,
    noted: Mutex<Noted>,
    /// Held from where changes are taken to where they are written, so that they stay in order.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Noted {
    changes: Vec<(u64, Option<SocketAddr>, Changed)>,
    left_out: u64,
    /// A task is at it.
    is_writing: bool,
}

impl ClientAudit {
    pub(crate) fn new(data_dir: &Path, bytes_max: u64) -> Self {
        Self { audit: Audit::at(data_dir.join(NAME), bytes_max), noted: Mutex::default(), writing: Mutex::default() }
    }

    /// Whether anything is kept.
    pub(crate) fn is_on(&self) -> bool {
        self.audit.is_on()
    }

    /// Notes a change of a client at this address, if its connection is still there.
    pub(crate) fn record(self: &Arc<Self>, unix_ms: u64, peer: Option<SocketAddr>, mut change: Changed) {
        if !self.is_on() {
            return;
        }
        let mut noted = self.noted();
        if noted.changes.len() >= NOTED_MAX {
            noted.left_out += 1;
            return;
        }
        shorten(&mut change.what);
        noted.changes.push((unix_ms, peer, change));
        if !std::mem::replace(&mut noted.is_writing, true) {
            let audit = Arc::clone(self);
            tokio::spawn(audit.write_all());
        }
    }

    /// Writes until nothing is noted. A write for each change would take as long as what the client waits for.
    async fn write_all(self: Arc<Self>) {
        loop {
            tokio::time::sleep(NOTED_FOR).await;
            let audit = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || audit.write()).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    // The next change tries again.
                    tracing::error!("changes of AMQP clients were not recorded: {error}");
                    self.noted().is_writing = false;
                    return;
                }
            }
        }
    }

    /// As [`Audit::read`].
    pub(crate) fn read(&self, count: usize, user: Option<&str>) -> (Vec<Line>, usize) {
        self.audit.read(count, user)
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is noted; whether more was noted meanwhile.
    pub(crate) fn write(&self) -> bool {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, mut left_out) = {
            let mut noted = self.noted();
            if noted.changes.is_empty() {
                noted.is_writing = false;
                return false;
            }
            (std::mem::take(&mut noted.changes), std::mem::take(&mut noted.left_out))
        };
        let lines = changes.into_iter().map(|(unix_ms, peer, change)| {
            line(unix_ms, &entry(peer, change), ("changes_left_out", std::mem::take(&mut left_out)))
        });
        // Syncs of their own would slow down those of the log, which declares wait for.
        self.audit.write_all(lines, false);
        let mut noted = self.noted();
        noted.is_writing = !noted.changes.is_empty();
        noted.is_writing
    }
}

/// Takes away arguments that would not be written: a thousand changes may wait.
fn shorten(change: &mut LastingChange) {
    let arguments = match change {
        LastingChange::QueueDeclared { arguments, .. } | LastingChange::ExchangeDeclared { arguments, .. } => arguments,
        LastingChange::Bound(spec) | LastingChange::Unbound(spec) => &mut spec.arguments,
        LastingChange::QueueDeleted { .. } | LastingChange::ExchangeDeleted { .. } => return,
    };
    let mut encoded = bytes::BytesMut::new();
    arguments.encode(&mut encoded);
    if encoded.len() > ARGUMENTS_BYTES_MAX {
        *arguments = [("(too long to be kept)", amqp::Value::from(true))].into_iter().collect();
    }
}

fn entry(peer: Option<SocketAddr>, change: Changed) -> Entry {
    let Changed { user, vhost, what, .. } = change;
    let vhost = &*vhost;
    let (what, details) = match what {
        LastingChange::QueueDeclared { name, arguments } => {
            (format!("queue.declare {name}"), json!({"vhost": vhost, "arguments": table_to_json(&arguments)}))
        }
        LastingChange::QueueDeleted { name, messages } => {
            (format!("queue.delete {name}"), json!({"vhost": vhost, "messages": messages}))
        }
        LastingChange::ExchangeDeclared { name, kind, arguments } => (
            format!("exchange.declare {name}"),
            json!({"vhost": vhost, "type": kind, "arguments": table_to_json(&arguments)}),
        ),
        LastingChange::ExchangeDeleted { name } => (format!("exchange.delete {name}"), json!({"vhost": vhost})),
        LastingChange::Bound(spec) => bound("bind", vhost, &spec),
        LastingChange::Unbound(spec) => bound("unbind", vhost, &spec),
    };
    let peer = peer.map_or_else(|| "(gone)".to_owned(), |peer| peer.to_string());
    Entry { user: user.to_string(), peer, what, details: Some(details), outcome: "done".to_owned() }
}

fn bound(verb: &str, vhost: &str, spec: &BindingSpec) -> (String, Value) {
    let class = match spec.kind {
        DestinationKind::Queue => "queue",
        DestinationKind::Exchange => "exchange",
    };
    let arguments = table_to_json(&spec.arguments);
    let details = json!({"vhost": vhost, "source": spec.source, "routing_key": spec.key, "arguments": arguments});
    (format!("{class}.{verb} {}", spec.destination), details)
}

const NAME: &str = "audit-clients.log";

/// What of arguments is kept.
const ARGUMENTS_BYTES_MAX: usize = 4096;

/// How long changes are gathered before they are written.
const NOTED_FOR: Duration = Duration::from_millis(50);

/// How many changes may wait for that: 20,000 a second, and a few hundred bytes each.
const NOTED_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use broker::command::ConnectionId;

    fn declared(name: &str) -> Changed {
        let what = LastingChange::ExchangeDeleted { name: name.into() };
        Changed { connection: ConnectionId(1), user: "app".into(), vhost: "/".into(), what }
    }

    fn written(audit: &ClientAudit) -> (Vec<Value>, usize) {
        let (lines, total) = audit.read(usize::MAX, None);
        (lines.iter().map(Line::parsed).collect(), total)
    }

    #[tokio::test]
    async fn what_comes_faster_than_the_disk_takes_it_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Arc::new(ClientAudit::new(directory.path(), 1 << 20));
        // A thread that never comes.
        audit.noted().is_writing = true;
        let peer = Some(([127, 0, 0, 1], 5).into());
        (0..NOTED_MAX + 7).for_each(|number| audit.record(1, peer, declared(&number.to_string())));
        audit.write();
        let (entries, total) = written(&audit);
        assert_eq!(total, NOTED_MAX);
        assert_eq!(entries.iter().filter_map(|entry| entry["changes_left_out"].as_u64()).sum::<u64>(), 7);
        assert_eq!((&entries[0]["what"], &entries[0]["peer"]), (&json!("exchange.delete 999"), &json!("127.0.0.1:5")));
        audit.record(2, None, declared("last"));
        let last_is_written = async {
            while written(&audit).1 <= NOTED_MAX {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), last_is_written).await.unwrap();
        assert!(written(&audit).0[0].get("changes_left_out").is_none(), "it is told once");
    }

    #[test]
    fn long_arguments_are_not_held_until_they_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Arc::new(ClientAudit::new(directory.path(), 1 << 20));
        audit.noted().is_writing = true;
        for bytes in [100, 100_000] {
            let arguments = [("x-note", amqp::Value::from("x".repeat(bytes)))].into_iter().collect();
            let what = LastingChange::QueueDeclared { name: "q".into(), arguments };
            audit.record(1, None, Changed { what, ..declared("") });
        }
        let held = format!("{:?}", audit.noted().changes[1].2.what);
        assert!(held.len() < 1000, "{held}");
        audit.write();
        let (entries, _) = written(&audit);
        let arguments = |at: usize| &entries[at]["details"]["arguments"];
        assert_eq!(*arguments(0), json!({"(too long to be kept)": true}));
        assert_eq!(*arguments(1), json!({"x-note": "x".repeat(100)}));
    }

    #[test]
    fn nothing_is_kept_where_that_is_off() {
        let directory = tempfile::tempdir().unwrap();
        let audit = Arc::new(ClientAudit::new(directory.path(), 0));
        audit.record(1, None, declared("x"));
        assert!(audit.noted().changes.is_empty() && written(&audit).0.is_empty());
    }
}

//! The `list_…` commands: which columns each has, and where in the HTTP API's documents they are.

use super::Screen;
use super::api::{Api, encoded};
use super::arguments::{Line, Options};
use super::failure::Failure;
use super::formats;
use serde_json::Value;
use std::time::Duration;

/// A list.
#[derive(Debug)]
pub(super) struct List {
    /// The command's name.
    command: &'static str,
    /// Its resource in the API.
    resource: &'static str,
    /// Whether it shows one vhost.
    is_in_vhost: bool,
    /// What it is said to do, before ` ...`.
    banner: fn(&Options) -> String,
    /// How long the server may take. It is announced where there is such a limit.
    timeout: Option<Duration>,
    /// All columns.
    columns: &'static [Column],
    /// Those shown when none is asked for.
    defaults: &'static [&'static str],
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    name: &'static str,
    source: Source,
}

/// Where a column's values come from.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// The field of the column's own name.
    Same,
    /// Another field, dotted if it is within another.
    Field(&'static str),
    /// The same for every row.
    Always(&'static str),
    /// The field of the column's own name as JSON text.
    JsonText,
    /// We have no such number: the cell is empty.
    Nothing,
}

const fn same(name: &'static str) -> Column {
    Column { name, source: Source::Same }
}

const fn field(name: &'static str, field: &'static str) -> Column {
    Column { name, source: Source::Field(field) }
}

const fn always(name: &'static str, text: &'static str) -> Column {
    Column { name, source: Source::Always(text) }
}

const fn nothing(name: &'static str) -> Column {
    Column { name, source: Source::Nothing }
}

impl Column {
    fn field(&self) -> Option<&'static str> {
        match self.source {
            Source::Same | Source::JsonText => Some(self.name),
            Source::Field(field) => Some(field),
            Source::Always(_) | Source::Nothing => None,
        }
    }

    fn value(&self, object: &Value) -> Value {
        match (self.source, self.field()) {
            (Source::Always(text), _) => text.into(),
            (Source::JsonText, _) => object[self.name].to_string().into(),
            (_, Some(field)) => field.split('.').fold(object, |value, key| &value[key]).clone(),
            (_, None) => Value::Null,
        }
    }
}

impl List {
    /// The columns that were asked for, each once, in that order; an error's text for those that do not exist. Several
    /// may be joined by commas.
    pub(super) fn columns(&self, asked: &[String]) -> Result<Vec<&'static Column>, String> {
        let mut names: Vec<&str> = asked.iter().flat_map(|names| names.split(',')).map(str::trim).collect();
        names.retain(|name| !name.is_empty());
        if asked.is_empty() {
            names.extend(self.defaults);
        }
        let mut found: Vec<&Column> = Vec::new();
        let mut unknown = Vec::new();
        for name in names {
            match self.columns.iter().find(|column| column.name == name) {
                Some(column) if found.iter().all(|other| other.name != name) => found.push(column),
                Some(_) => {}
                None => unknown.push(name),
            }
        }
        if unknown.is_empty() { Ok(found) } else { Err(format!("Info key(s) {} are not supported", unknown.join(","))) }
    }

    /// Names of all columns, in order.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.columns.iter().map(|column| column.name).collect();
        names.sort_unstable();
        names
    }

    pub(super) fn print(&self, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
        let options = &line.options;
        let columns = self.columns(&line.operands).unwrap_or_default();
        let api = Api::new(self.command, options, self.timeout)?;
        api.reach()?;
        if self.timeout.is_some()
            && let Some(timeout) = options.timeout.or(self.timeout)
        {
            screen.banner(options, &format!("Timeout: {:.1} seconds ...", timeout.as_secs_f64()))?;
        }
        screen.banner(options, &(self.banner)(options))?;
        let names: Vec<_> = columns.iter().map(|column| column.name).collect();
        let shows_none = options.offline || self.command == UNRESPONSIVE_QUEUES.command;
        let rows: Vec<Vec<Value>> = match shows_none {
            true => {
                self.objects(&api, options, &columns)?;
                Vec::new()
            }
            false => {
                let objects = self.objects(&api, options, &columns)?;
                objects.iter().map(|object| columns.iter().map(|column| column.value(object)).collect()).collect()
            }
        };
        formats::print_rows(screen, options, &names, &rows)
    }

    fn objects(&self, api: &Api, options: &Options, columns: &[&Column]) -> Result<Vec<Value>, Failure> {
        // The order of lists needs no column; at least one keeps the objects apart from the whole.
        let mut fields: Vec<_> = columns.iter().filter_map(|column| column.field()).collect();
        fields.push("name");
        let within = if options.has("used") {
            "/used".to_owned()
        } else if self.is_in_vhost {
            format!("/{}", encoded(options.vhost()))
        } else {
            String::new()
        };
        let path = format!("/{}{within}?columns={}", self.resource, fields.join(","));
        match api.get(&path)? {
            Some(Value::Array(objects)) => Ok(objects),
            _ => Err(Failure::no_vhost(options.vhost())),
        }
    }
}

pub(super) const QUEUES: List = List {
    command: "list_queues",
    resource: "queues",
    is_in_vhost: true,
    banner: |options| format!("Listing queues for vhost {} ...", options.vhost()),
    timeout: Some(Duration::from_secs(60)),
    columns: &[
        same("name"),
        same("durable"),
        same("auto_delete"),
        same("arguments"),
        same("policy"),
        same("operator_policy"),
        same("effective_policy_definition"),
        same("pid"),
        same("owner_pid"),
        same("exclusive"),
        same("exclusive_consumer_pid"),
        same("exclusive_consumer_tag"),
        same("messages_ready"),
        same("messages_unacknowledged"),
        same("messages_delayed"),
        same("messages_dlx"),
        same("message_bytes_dlx"),
        same("messages"),
        same("messages_ready_ram"),
        same("messages_unacknowledged_ram"),
        same("messages_ram"),
        same("messages_persistent"),
        same("message_bytes"),
        same("message_bytes_ready"),
        same("message_bytes_unacknowledged"),
        same("message_bytes_ram"),
        same("message_bytes_persistent"),
        same("messages_deduplicated"),
        same("head_message_timestamp"),
        same("oldest_ready_age_ms"),
        same("oldest_unacked_age_ms"),
        same("late_leases"),
        nothing("disk_reads"),
        nothing("disk_writes"),
        same("consumers"),
        same("consumer_utilisation"),
        same("consumer_capacity"),
        same("memory"),
        same("state"),
        same("type"),
        same("leader"),
        same("members"),
        same("online"),
    ],
    defaults: &["name", "messages"],
};

pub(super) const CONSUMERS: List = List {
    command: "list_consumers",
    resource: "consumers",
    is_in_vhost: true,
    banner: |options| format!("Listing consumers in vhost {} ...", options.vhost()),
    timeout: None,
    columns: &[
        field("queue_name", "queue.name"),
        same("channel_pid"),
        same("consumer_tag"),
        same("ack_required"),
        same("prefetch_count"),
        same("active"),
        same("activity_status"),
        same("arguments"),
    ],
    defaults: &["queue_name", "channel_pid", "consumer_tag", "ack_required", "prefetch_count", "active", "arguments"],
};

pub(super) const LEASES: List = List {
    command: "list_leases",
    resource: "leases",
    is_in_vhost: false,
    banner: |_| "Listing leases ...".to_owned(),
    timeout: None,
    columns: &[
        field("vhost", "queue.vhost"),
        field("queue_name", "queue.name"),
        same("seq"),
        same("consumer_tag"),
        field("connection", "channel_details.connection_name"),
        field("channel", "channel_details.number"),
        same("age_ms"),
        same("left_ms"),
        same("extended"),
        same("client_name"),
        same("progress"),
        same("progress_at"),
    ],
    defaults: &["queue_name", "seq", "consumer_tag", "connection", "channel", "age_ms", "left_ms"],
};

pub(super) const CONNECTIONS: List = List {
    command: "list_connections",
    resource: "connections",
    is_in_vhost: false,
    banner: |_| "Listing connections ...".to_owned(),
    timeout: None,
    columns: &[
        same("pid"),
        same("name"),
        same("port"),
        same("host"),
        same("peer_port"),
        same("peer_host"),
        same("ssl"),
        same("ssl_protocol"),
        same("ssl_key_exchange"),
        same("ssl_cipher"),
        same("ssl_hash"),
        same("peer_cert_subject"),
        same("peer_cert_issuer"),
        nothing("peer_cert_serial_number"),
        same("peer_cert_validity"),
        same("state"),
        same("channels"),
        always("protocol", "{0,9,1}"),
        same("auth_mechanism"),
        same("user"),
        same("vhost"),
        nothing("container_id"),
        same("timeout"),
        same("frame_max"),
        same("channel_max"),
        same("client_properties"),
        same("recv_oct"),
        same("recv_cnt"),
        same("send_oct"),
        same("send_cnt"),
        same("send_pend"),
        same("connected_at"),
    ],
    defaults: &["user", "peer_host", "peer_port", "state"],
};

pub(super) const CHANNELS: List = List {
    command: "list_channels",
    resource: "channels",
    is_in_vhost: false,
    banner: |_| "Listing channels ...".to_owned(),
    timeout: None,
    columns: &[
        same("pid"),
        field("connection", "connection_pid"),
        same("name"),
        same("number"),
        same("user"),
        same("vhost"),
        same("transactional"),
        same("confirm"),
        same("consumer_count"),
        same("messages_unacknowledged"),
        same("messages_uncommitted"),
        same("acks_uncommitted"),
        same("messages_unconfirmed"),
        same("prefetch_count"),
        same("global_prefetch_count"),
    ],
    defaults: &["pid", "user", "consumer_count", "messages_unacknowledged"],
};

pub(super) const EXCHANGES: List = List {
    command: "list_exchanges",
    resource: "exchanges",
    is_in_vhost: true,
    banner: |options| format!("Listing exchanges for vhost {} ...", options.vhost()),
    timeout: None,
    columns: &[
        same("name"),
        same("type"),
        same("durable"),
        same("auto_delete"),
        same("internal"),
        same("arguments"),
        same("policy"),
    ],
    defaults: &["name", "type"],
};

pub(super) const BINDINGS: List = List {
    command: "list_bindings",
    resource: "bindings",
    is_in_vhost: true,
    // Without a space: so it is in RabbitMQ.
    banner: |options| format!("Listing bindings for vhost {}...", options.vhost()),
    timeout: None,
    columns: &[
        field("source_name", "source"),
        always("source_kind", "exchange"),
        field("destination_name", "destination"),
        field("destination_kind", "destination_type"),
        same("routing_key"),
        same("arguments"),
    ],
    defaults: &["source_name", "source_kind", "destination_name", "destination_kind", "routing_key", "arguments"],
};

const POLICY_COLUMNS: &[Column] = &[
    same("vhost"),
    same("name"),
    same("pattern"),
    same("apply-to"),
    Column { name: "definition", source: Source::JsonText },
    same("priority"),
];
const POLICY_DEFAULTS: &[&str] = &["vhost", "name", "pattern", "apply-to", "definition", "priority"];

pub(super) const POLICIES: List = List {
    command: "list_policies",
    resource: "policies",
    is_in_vhost: true,
    banner: |options| format!("Listing policies for vhost \"{}\" ...", options.vhost()),
    timeout: None,
    columns: POLICY_COLUMNS,
    defaults: POLICY_DEFAULTS,
};

pub(super) const OPERATOR_POLICIES: List = List {
    command: "list_operator_policies",
    resource: "operator-policies",
    is_in_vhost: true,
    banner: |options| format!("Listing operator policy overrides for vhost \"{}\" ...", options.vhost()),
    timeout: None,
    columns: POLICY_COLUMNS,
    defaults: POLICY_DEFAULTS,
};

pub(super) const AUDIT: List = List {
    command: "list_audit",
    resource: "audit",
    is_in_vhost: false,
    banner: |_| "Listing changes, the newest first ...".to_owned(),
    timeout: None,
    columns: &[
        same("time"),
        same("user"),
        same("peer"),
        same("what"),
        Column { name: "details", source: Source::JsonText },
        same("outcome"),
        same("failed_logins_left_out"),
    ],
    defaults: &["time", "user", "peer", "what", "outcome"],
};

pub(super) const SCHEDULES: List = List {
    command: "list_schedules",
    resource: "schedules",
    is_in_vhost: true,
    banner: |options| format!("Listing schedules for vhost {} ...", options.vhost()),
    timeout: None,
    columns: &[
        same("vhost"),
        same("name"),
        same("state"),
        same("cron"),
        same("time_zone"),
        same("every_ms"),
        same("exchange"),
        same("routing_key"),
        Column { name: "properties", source: Source::JsonText },
        same("payload"),
        same("payload_encoding"),
        same("if_missed"),
        same("enabled"),
        same("start_at"),
        same("end_at"),
        same("next_at"),
        same("last_at"),
        same("fired"),
        same("missed"),
        same("failed"),
        same("last_error"),
    ],
    defaults: &[
        "name",
        "state",
        "cron",
        "time_zone",
        "every_ms",
        "next_at",
        "last_at",
        "fired",
        "missed",
        "last_error",
    ],
};

pub(super) const FEATURE_FLAGS: List = List {
    command: "list_feature_flags",
    resource: "feature-flags",
    is_in_vhost: false,
    banner: |_| "Listing feature flags ...".to_owned(),
    timeout: None,
    columns: &[same("name"), same("state"), same("stability"), same("provided_by"), same("desc"), same("doc_url")],
    defaults: &["name", "state"],
};

pub(super) const DEPRECATED_FEATURES: List = List {
    command: "list_deprecated_features",
    resource: "deprecated-features",
    is_in_vhost: false,
    banner: |options| match options.has("used") {
        false => "Listing deprecated features ...".to_owned(),
        true => "Listing deprecated features in use ...".to_owned(),
    },
    timeout: None,
    columns: &[
        same("name"),
        same("deprecation_phase"),
        same("state"),
        same("provided_by"),
        same("desc"),
        same("doc_url"),
    ],
    defaults: &["name", "deprecation_phase"],
};

/// All queues answer together, so that either all do or the command fails.
pub(super) const UNRESPONSIVE_QUEUES: List = List {
    command: "list_unresponsive_queues",
    resource: "queues",
    is_in_vhost: true,
    banner: |options| format!("Listing unresponsive queues for vhost {} ...", options.vhost()),
    timeout: Some(Duration::from_secs(60)),
    columns: &[same("name"), same("durable"), same("auto_delete"), same("arguments"), same("type")],
    defaults: &["name"],
};

pub(super) const VHOSTS: List = List {
    command: "list_vhosts",
    resource: "vhosts",
    is_in_vhost: false,
    banner: |_| "Listing vhosts ...".to_owned(),
    timeout: None,
    columns: &[
        same("name"),
        same("description"),
        same("tags"),
        same("default_queue_type"),
        same("protected_from_deletion"),
        same("tracing"),
        same("cluster_state"),
        same("metadata"),
    ],
    defaults: &["name"],
};

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn columns(list: &List, asked: &[&str]) -> Result<Vec<&'static str>, String> {
        let asked: Vec<_> = asked.iter().map(|name| (*name).to_owned()).collect();
        Ok(list.columns(&asked)?.iter().map(|column| column.name).collect())
    }

    #[test]
    fn columns_are_shown_as_asked_for_and_once() {
        assert_eq!(columns(&QUEUES, &[]), Ok(vec!["name", "messages"]));
        assert_eq!(columns(&QUEUES, &["messages,name", "name"]), Ok(vec!["messages", "name"]));
    }

    #[test]
    fn unknown_columns_are_named() {
        let refused = columns(&QUEUES, &["name", "nope", "other"]);
        assert_eq!(refused, Err("Info key(s) nope,other are not supported".to_owned()));
    }

    #[test]
    fn a_column_may_lie_within_another_field() {
        let queue_name = CONSUMERS.columns(&["queue_name".to_owned()]).unwrap();
        assert_eq!(queue_name[0].value(&json!({"queue": {"name": "q"}})), "q");
        assert_eq!(queue_name[0].value(&json!([])), Value::Null);
    }

    #[test]
    fn every_default_is_a_column() {
        for list in [&QUEUES, &CONSUMERS, &LEASES, &CONNECTIONS, &CHANNELS, &EXCHANGES, &BINDINGS, &VHOSTS] {
            assert_eq!(list.columns(&[]).unwrap().len(), list.defaults.len(), "{}", list.command);
        }
    }
}

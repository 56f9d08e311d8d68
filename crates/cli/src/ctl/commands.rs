//! The commands: their names, arguments and words, and those that do something.

use super::api::{Api, encoded};
use super::arguments::{Line, Options};
use super::failure::{self, Failure, Wrong};
use super::formats::{self, Formatter};
use super::lists::{self, List};
use super::{
    Screen, backup, checks, identity, jobs, limits, nodes, operations, policies, reload, schedules, status, top,
};
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

/// A command.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) name: &'static str,
    /// The section of the overview that it stands in.
    pub(super) section: &'static str,
    /// What it does, in one line.
    pub(super) about: &'static str,
    /// Its arguments and options, as shown after its name.
    pub(super) usage: &'static str,
    /// How many operands it takes, at least and at most.
    pub(super) operands: (usize, usize),
    /// Options that it has and most others have not.
    pub(super) options: &'static [&'static str],
    pub(super) run: Run,
}

/// What a command does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Run {
    /// Prints a list.
    List(&'static List),
    /// Sets a limit.
    Limit(&'static limits::Limit),
    /// Anything else.
    Do(fn(&str, &Line, &mut Screen) -> Result<(), Failure>),
}

impl Run {
    /// Refuses operands that make no sense, with the reason.
    pub(super) fn check(self, line: &Line) -> Result<(), Wrong> {
        match self {
            Self::List(list) => {
                list.columns(&line.operands).map(drop).map_err(|reason| Wrong { code: failure::USAGE, reason })
            }
            Self::Limit(limit) => limit.read(&line.operands).map(drop),
            Self::Do(_) => Ok(()),
        }
    }

    pub(super) fn run(self, program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.print(line, screen),
            Self::Limit(limit) => limit.set(line, screen),
            Self::Do(run) => run(program, line, screen),
        }
    }
}

/// The command of this name.
pub(super) fn find(name: &str) -> Option<&'static Command> {
    all().find(|command| command.name == name)
}

/// All commands, in the order of the overview.
pub(super) fn all() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().chain(identity::COMMANDS)
}

const ANY: usize = usize::MAX;
const NODES: &str = "Nodes";
const CLUSTER: &str = "Cluster";
const HEALTH: &str = "Health checks";
const ABSENT: &str = "Without meaning here";
pub(super) const MONITORING: &str = "Monitoring, observability and health checks";
const CONFIGURATION: &str = "Configuration";
const QUEUES: &str = "Queues";
const POLICIES: &str = "Policies";
const SCHEDULES: &str = "Schedules";
const OPERATIONS: &str = "Operations";

/// Those of this file and of small ones.
const COMMANDS: &[Command] = &[
    Command {
        name: "version",
        section: "Help",
        about: "Displays this program's version",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(version),
    },
    Command {
        name: "await_startup",
        section: NODES,
        about: "Waits until the server answers",
        usage: "[--timeout <seconds>]",
        operands: (0, 0),
        options: &[],
        run: Run::Do(await_startup),
    },
    Command {
        name: "await_online_nodes",
        section: NODES,
        about: "Waits until so many nodes run; there is one",
        usage: "<count> [--timeout <seconds>]",
        operands: (1, 1),
        options: &[],
        run: Run::Do(nodes::await_online_nodes),
    },
    Command {
        name: "stop",
        section: NODES,
        about: "Stops the server; what was confirmed is on disk",
        usage: "",
        operands: (0, 1),
        options: &[],
        run: Run::Do(nodes::stop),
    },
    Command {
        name: "shutdown",
        section: NODES,
        about: "Stops the server, as stop does",
        usage: "[--wait] [--timeout <seconds>]",
        operands: (0, 0),
        options: &["wait", "no-wait"],
        run: Run::Do(nodes::stop),
    },
    Command {
        name: "wait",
        section: NODES,
        about: "Waits until the server of a process answers",
        usage: "<pidfile> | --pid <pid>",
        operands: (0, 1),
        options: &["pid"],
        run: Run::Do(nodes::wait),
    },
    Command {
        name: "cluster_status",
        section: CLUSTER,
        about: "Displays the cluster, which is one node",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(nodes::cluster_status),
    },
    Command {
        name: "set_cluster_name",
        section: CLUSTER,
        about: "Sets the cluster name, until the server stops",
        usage: "<name>",
        operands: (1, 1),
        options: &[],
        run: Run::Do(nodes::set_cluster_name),
    },
    Command {
        name: "enable_feature_flag",
        section: CLUSTER,
        about: "Enables a feature flag; all are",
        usage: "<name> | all",
        operands: (1, 1),
        options: &["force"],
        run: Run::Do(nodes::enable_feature_flag),
    },
    Command {
        name: "list_feature_flags",
        section: CLUSTER,
        about: "Lists feature flags",
        usage: "[--no-table-headers] [<column> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::List(&lists::FEATURE_FLAGS),
    },
    Command {
        name: "list_deprecated_features",
        section: CLUSTER,
        about: "Lists deprecated features, all or those in use",
        usage: "[--used] [--no-table-headers] [<column> ...]",
        operands: (0, ANY),
        options: &["used"],
        run: Run::List(&lists::DEPRECATED_FEATURES),
    },
    Command {
        name: "alarms",
        section: HEALTH,
        about: "Lists resource alarms",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(checks::alarms),
    },
    Command {
        name: "check_alarms",
        section: HEALTH,
        about: "Fails if there is a resource alarm",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(checks::check_alarms),
    },
    Command {
        name: "check_certificate_expiration",
        section: HEALTH,
        about: "Fails if a certificate expires soon",
        usage: "[--within <count>] [--unit days|weeks|months|years]",
        operands: (0, 0),
        options: &["within", "unit"],
        run: Run::Do(checks::check_certificate_expiration),
    },
    Command {
        name: "check_if_any_deprecated_features_are_used",
        section: HEALTH,
        about: "Fails if a deprecated feature is in use",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(checks::check_deprecated),
    },
    Command {
        name: "check_if_node_is_quorum_critical",
        section: HEALTH,
        about: "Fails if queues would lose their quorum without the node",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(checks::check_quorum),
    },
    Command {
        name: "check_local_alarms",
        section: HEALTH,
        about: "Fails if there is a resource alarm on the node",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(checks::check_local_alarms),
    },
    Command {
        name: "check_port_connectivity",
        section: HEALTH,
        about: "Connects to every listener, from here",
        usage: "[--address <host>]",
        operands: (0, 0),
        options: &["address"],
        run: Run::Do(checks::check_port_connectivity),
    },
    Command {
        name: "check_port_listener",
        section: HEALTH,
        about: "Fails if nothing listens on a port",
        usage: "<port>",
        operands: (1, 1),
        options: &[],
        run: Run::Do(checks::check_port_listener),
    },
    Command {
        name: "check_protocol_listener",
        section: HEALTH,
        about: "Fails if nothing listens for a protocol",
        usage: "<protocol>",
        operands: (1, 1),
        options: &[],
        run: Run::Do(checks::check_protocol_listener),
    },
    Command {
        name: "check_running",
        section: HEALTH,
        about: "Fails if the server does not run",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(checks::check_running),
    },
    Command {
        name: "check_virtual_hosts",
        section: HEALTH,
        about: "Fails if a virtual host does not run",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(checks::check_virtual_hosts),
    },
    Command {
        name: "is_booting",
        section: HEALTH,
        about: "Says that the server is not starting",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(checks::is_booting),
    },
    Command {
        name: "is_running",
        section: HEALTH,
        about: "Says whether the server runs",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(checks::is_running),
    },
    Command {
        name: "node_health_check",
        section: HEALTH,
        about: "Deprecated, and does nothing",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(checks::node_health_check),
    },
    Command {
        name: "environment",
        section: MONITORING,
        about: "Displays what the server runs by",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(nodes::environment),
    },
    Command {
        name: "erlang_version",
        section: MONITORING,
        about: "Says that there is no Erlang",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(checks::erlang_version),
    },
    Command {
        name: "list_bindings",
        section: MONITORING,
        about: "Lists all bindings on a vhost",
        usage: "[--vhost <vhost>] [--no-table-headers] [<column> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::List(&lists::BINDINGS),
    },
    Command {
        name: "list_channels",
        section: MONITORING,
        about: "Lists all channels",
        usage: "[--no-table-headers] [<column> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::List(&lists::CHANNELS),
    },
    Command {
        name: "list_connections",
        section: MONITORING,
        about: "Lists AMQP connections",
        usage: "[--no-table-headers] [<column> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::List(&lists::CONNECTIONS),
    },
    Command {
        name: "list_consumers",
        section: MONITORING,
        about: "Lists all consumers for a vhost",
        usage: "[--vhost <vhost>] [--no-table-headers] [<column> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::List(&lists::CONSUMERS),
    },
    Command {
        name: "list_exchanges",
        section: MONITORING,
        about: "Lists exchanges",
        usage: "[--vhost <vhost>] [--no-table-headers] [<column> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::List(&lists::EXCHANGES),
    },
    Command {
        name: "list_leases",
        section: MONITORING,
        about: "Lists messages that are delivered and not acknowledged, with who holds them",
        usage: "[--no-table-headers] [<column> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::List(&lists::LEASES),
    },
    Command {
        name: "list_queues",
        section: MONITORING,
        about: "Lists queues and their properties",
        usage: "[--vhost <vhost>] [--online] [--offline] [--local] [--no-table-headers] [<column>, ...]",
        operands: (0, ANY),
        options: &["online", "offline", "local"],
        run: Run::List(&lists::QUEUES),
    },
    Command {
        name: "list_audit",
        section: MONITORING,
        about: "Lists who changed what, the newest first, and failed logins",
        usage: "[--no-table-headers] [<column> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::List(&lists::AUDIT),
    },
    Command {
        name: "list_unresponsive_queues",
        section: MONITORING,
        about: "Lists queues that do not answer",
        usage: "[--vhost <vhost>] [--no-table-headers] [<column> ...]",
        operands: (0, ANY),
        options: &["local"],
        run: Run::List(&lists::UNRESPONSIVE_QUEUES),
    },
    Command {
        name: "list_vhosts",
        section: MONITORING,
        about: "Lists virtual hosts",
        usage: "[--no-table-headers] [<column> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::List(&lists::VHOSTS),
    },
    Command {
        name: "listeners",
        section: MONITORING,
        about: "Lists listeners",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(checks::listeners),
    },
    Command {
        name: "memory_breakdown",
        section: MONITORING,
        about: "Displays memory by purpose",
        usage: "[--unit bytes|kb|mb|gb|tb]",
        operands: (0, 0),
        options: &["unit"],
        run: Run::Do(checks::memory_breakdown),
    },
    Command {
        name: "ping",
        section: MONITORING,
        about: "Checks that the server answers",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(ping),
    },
    Command {
        name: "report",
        section: MONITORING,
        about: "Displays all that helps someone who was not there",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(nodes::report),
    },
    Command {
        name: "server_version",
        section: MONITORING,
        about: "Displays the version of RabbitMQ that the server is like",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(checks::server_version),
    },
    Command {
        name: "status",
        section: MONITORING,
        about: "Displays status of the server",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(status::run),
    },
    Command {
        name: "reload_config",
        section: CONFIGURATION,
        about: "Reads the server's configuration and certificates anew, as SIGHUP does",
        usage: "",
        operands: (0, 0),
        options: &[],
        run: Run::Do(reload::run),
    },
    Command {
        name: "top",
        section: MONITORING,
        about: "Shows queues, rates and leases, live",
        usage: "[--interval <seconds>] [--count <n>]",
        operands: (0, 0),
        options: &["interval", "count"],
        run: Run::Do(top::run),
    },
    Command {
        name: "jobs",
        section: MONITORING,
        about: "Shows running jobs with their progress, and those that failed and will be tried again",
        usage: "[--vhost <vhost>] [<queue>] [--watch] [--interval <seconds>] [--count <n>]",
        operands: (0, 1),
        options: &["watch", "interval", "count"],
        run: Run::Do(jobs::run),
    },
    Command {
        name: "set_disk_free_limit",
        section: CONFIGURATION,
        about: "Sets the disk_free_limit setting, until the server stops",
        usage: "<disk_limit> | mem_relative <fraction>",
        operands: (1, 2),
        options: &[],
        run: Run::Limit(&limits::DISK),
    },
    Command {
        name: "set_vm_memory_high_watermark",
        section: CONFIGURATION,
        about: "Sets the vm_memory_high_watermark setting, until the server stops",
        usage: "<fraction> | absolute <value>",
        operands: (1, 2),
        options: &[],
        run: Run::Limit(&limits::MEMORY),
    },
    Command {
        name: "backup",
        section: OPERATIONS,
        about: "Makes a copy of the data directory, from which a server starts",
        usage: "<directory>",
        operands: (1, 1),
        options: &[],
        run: Run::Do(backup::run),
    },
    Command {
        name: "close_all_connections",
        section: OPERATIONS,
        about: "Closes all connections of a vhost or of the server",
        usage: "[--vhost <vhost> --limit <limit>] [--global] [--per-connection-delay <delay>] <explanation>",
        operands: (1, 1),
        options: &["global", "limit", "per-connection-delay"],
        run: Run::Do(close_all_connections),
    },
    Command {
        name: "close_all_user_connections",
        section: OPERATIONS,
        about: "Closes all connections of a user",
        usage: "<username> <explanation>",
        operands: (2, 2),
        options: &[],
        run: Run::Do(close_all_user_connections),
    },
    Command {
        name: "close_connection",
        section: OPERATIONS,
        about: "Closes one connection, by its pid or its name (see list_connections)",
        usage: "<connection pid> <explanation>",
        operands: (2, 2),
        options: &[],
        run: Run::Do(close_connection),
    },
    Command {
        name: "clear_operator_policy",
        section: POLICIES,
        about: "Clears an operator policy",
        usage: "[--vhost <vhost>] <name>",
        operands: (1, 1),
        options: &[],
        run: Run::Do(policies::clear_operator_policy),
    },
    Command {
        name: "clear_policy",
        section: POLICIES,
        about: "Clears (removes) a policy",
        usage: "[--vhost <vhost>] <name>",
        operands: (1, 1),
        options: &[],
        run: Run::Do(policies::clear_policy),
    },
    Command {
        name: "list_operator_policies",
        section: POLICIES,
        about: "Lists operator policy overrides for a virtual host",
        usage: "[--vhost <vhost>] [--no-table-headers]",
        operands: (0, 0),
        options: &[],
        run: Run::List(&lists::OPERATOR_POLICIES),
    },
    Command {
        name: "list_policies",
        section: POLICIES,
        about: "Lists all policies in a virtual host",
        usage: "[--vhost <vhost>] [--no-table-headers]",
        operands: (0, 0),
        options: &[],
        run: Run::List(&lists::POLICIES),
    },
    Command {
        name: "set_operator_policy",
        section: POLICIES,
        about: "Sets an operator policy that overrides a subset of arguments in user policies",
        usage: "[--vhost <vhost>] [--priority <priority>] [--apply-to <apply-to>] <name> <pattern> <definition>",
        operands: (3, 3),
        options: &["priority", "apply-to"],
        run: Run::Do(policies::set_operator_policy),
    },
    Command {
        name: "set_policy",
        section: POLICIES,
        about: "Sets or updates a policy",
        usage: "[--vhost <vhost>] [--priority <priority>] [--apply-to <apply-to>] <name> <pattern> <definition>",
        operands: (3, 3),
        options: &["priority", "apply-to"],
        run: Run::Do(policies::set_policy),
    },
    Command {
        name: "delete_schedule",
        section: SCHEDULES,
        about: "Deletes a schedule",
        usage: "[--vhost <vhost>] <name>",
        operands: (1, 1),
        options: &[],
        run: Run::Do(schedules::delete_schedule),
    },
    Command {
        name: "fire_schedule",
        section: SCHEDULES,
        about: "Publishes a schedule's message now; when it is due next stays as it is",
        usage: "[--vhost <vhost>] <name>",
        operands: (1, 1),
        options: &[],
        run: Run::Do(schedules::fire_schedule),
    },
    Command {
        name: "list_schedules",
        section: SCHEDULES,
        about: "Lists schedules: messages that are published again and again",
        usage: "[--vhost <vhost>] [--no-table-headers] [<column> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::List(&lists::SCHEDULES),
    },
    Command {
        name: "pause_schedule",
        section: SCHEDULES,
        about: "Stops a schedule until it is resumed",
        usage: "[--vhost <vhost>] <name>",
        operands: (1, 1),
        options: &[],
        run: Run::Do(schedules::pause_schedule),
    },
    Command {
        name: "resume_schedule",
        section: SCHEDULES,
        about: "Lets a schedule go on; what came while it was paused is not made up for",
        usage: "[--vhost <vhost>] <name>",
        operands: (1, 1),
        options: &[],
        run: Run::Do(schedules::resume_schedule),
    },
    Command {
        name: "set_schedule",
        section: SCHEDULES,
        about: "Sets or updates a schedule",
        usage: "[--vhost <vhost>] <name> <definition>",
        operands: (2, 2),
        options: &[],
        run: Run::Do(schedules::set_schedule),
    },
    Command {
        name: "delete_queue",
        section: QUEUES,
        about: "Deletes a queue",
        usage: "[--vhost <vhost>] <queue_name> [--if-empty|-e] [--if-unused|-u] [--force]",
        operands: (1, 1),
        options: &["if-empty", "if-unused", "force"],
        run: Run::Do(delete_queue),
    },
    Command {
        name: "delete_messages",
        section: QUEUES,
        about: "Deletes ready or delayed messages, one or many",
        usage: "[--vhost <vhost>] <queue> --seq <seq> ... | --where <key>=<value> ... | --all [--count <n>] [--delayed]",
        operands: (1, 1),
        options: &["seq", "where", "all", "count", "delayed"],
        run: Run::Do(operations::delete_messages),
    },
    Command {
        name: "extend_lease",
        section: QUEUES,
        about: "Lets a consumer keep a message for longer",
        usage: "[--vhost <vhost>] <queue> <seq> [<seconds>]",
        operands: (2, 3),
        options: &[],
        run: Run::Do(operations::extend_lease),
    },
    Command {
        name: "move_messages",
        section: QUEUES,
        about: "Moves ready or delayed messages to another queue or exchange",
        usage: "[--vhost <vhost>] <queue> --seq <seq> ... | --where <key>=<value> ... | --all [--count <n>] [--delayed] --to-queue <queue> | --to-exchange <exchange> [--routing-key <key>]",
        operands: (1, 1),
        options: &["seq", "where", "all", "count", "delayed", "to-queue", "to-exchange", "routing-key"],
        run: Run::Do(operations::move_messages),
    },
    Command {
        name: "pause_queue",
        section: QUEUES,
        about: "Stops deliveries from a queue; it still takes messages",
        usage: "[--vhost <vhost>] <queue>",
        operands: (1, 1),
        options: &[],
        run: Run::Do(operations::pause_queue),
    },
    Command {
        name: "peek_messages",
        section: QUEUES,
        about: "Shows messages and leaves them as they are",
        usage: "[--vhost <vhost>] <queue> [--count <n>] [--offset <n>] [--where <key>=<value> ...] [--delayed | --unacked | --dlx]",
        operands: (1, 1),
        options: &["count", "offset", "where", "delayed", "unacked", "dlx"],
        run: Run::Do(operations::peek_messages),
    },
    Command {
        name: "purge_queue",
        section: QUEUES,
        about: "Purges a queue (removes all messages in it)",
        usage: "[--vhost <vhost>] <queue>",
        operands: (1, 1),
        options: &[],
        run: Run::Do(purge_queue),
    },
    Command {
        name: "redrive_queue",
        section: QUEUES,
        about: "Moves dead letters back to the queues where they died",
        usage: "[--vhost <vhost>] <queue> [--rate <messages a second>] [--where <key>=<value> ...] [--origin last|first | --to-queue <queue> | --to-exchange <exchange> [--routing-key <key>]] [--follow | --stop]",
        operands: (1, 1),
        options: &["rate", "where", "origin", "to-queue", "to-exchange", "routing-key", "follow", "stop"],
        run: Run::Do(operations::redrive_queue),
    },
    Command {
        name: "release_messages",
        section: QUEUES,
        about: "Makes delayed messages ready before their time",
        usage: "[--vhost <vhost>] <queue> --seq <seq> ... | --where <key>=<value> ... | --all [--count <n>]",
        operands: (1, 1),
        options: &["seq", "where", "all", "count"],
        run: Run::Do(operations::release_messages),
    },
    Command {
        name: "requeue_messages",
        section: QUEUES,
        about: "Puts ready or delayed messages at the end of their queue, and unacked ones back to their place",
        usage: "[--vhost <vhost>] <queue> --seq <seq> ... | --where <key>=<value> ... | --all [--count <n>] [--delayed]",
        operands: (1, 1),
        options: &["seq", "where", "all", "count", "delayed"],
        run: Run::Do(operations::requeue_messages),
    },
    Command {
        name: "resume_queue",
        section: QUEUES,
        about: "Delivers from a queue again",
        usage: "[--vhost <vhost>] <queue>",
        operands: (1, 1),
        options: &[],
        run: Run::Do(operations::resume_queue),
    },
    Command {
        name: "return_lease",
        section: QUEUES,
        about: "Takes a message from who holds it, back to its place",
        usage: "[--vhost <vhost>] <queue> <seq>",
        operands: (2, 2),
        options: &[],
        run: Run::Do(operations::return_lease),
    },
    Command {
        name: "cipher_suites",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "eval",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "eval_file",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "force_boot",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "force_reset",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "forget_cluster_node",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "grow",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "join_cluster",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "observer",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "remote_shell",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "rename_cluster_node",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "reset",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "resume_listeners",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "rotate_logs",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "shrink",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "start_app",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "stop_app",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "suspend_listeners",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
    Command {
        name: "tls_versions",
        section: ABSENT,
        about: "Fails, and says why",
        usage: "[<argument> ...]",
        operands: (0, ANY),
        options: &[],
        run: Run::Do(nodes::no_meaning),
    },
];

fn purge_queue(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, queue) = (&line.options, &line.operands[0]);
    let api = Api::new("purge_queue", options, None)?;
    api.reach()?;
    screen.banner(options, &format!("Purging queue '{queue}' in vhost '{}' ...", options.vhost()))?;
    let answer = api.send("DELETE", &format!("{}/contents", queue_path(options, queue)), &[])?;
    match answer.status {
        204 => done(&api, options, screen),
        404 => Err(Failure::no_object()),
        _ => Err(Failure::error(failure::UNAVAILABLE, answer.reason())),
    }
}

fn delete_queue(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, queue) = (&line.options, &line.operands[0]);
    let conditions = [(options.if_empty, "if queue is empty "), (options.if_unused, "if queue is unused ")];
    let conditions: Vec<_> = conditions.iter().filter(|(set, _)| *set).map(|(_, text)| *text).collect();
    let api = Api::new("delete_queue", options, None)?;
    api.reach()?;
    let banner = format!("Deleting queue '{queue}' on vhost '{}' {}...", options.vhost(), conditions.join("and "));
    screen.banner(options, &banner)?;
    let query = format!("?if-empty={}&if-unused={}", options.if_empty, options.if_unused);
    let answer = api.send("DELETE", &format!("{}{query}", queue_path(options, queue)), &[])?;
    let reason = answer.reason();
    let refusal = match answer.status {
        204 => {
            let messages = answer.header("x-messages").unwrap_or("0");
            let text = format!("Queue was successfully deleted with {messages} ready messages");
            return formats::print_message(screen, options, &text);
        }
        404 => "No such queue was found",
        400 if reason.ends_with(" not empty") => "The queue is not empty",
        400 if reason.ends_with(" in use") => "The queue is in use",
        400 if reason.starts_with("cannot obtain exclusive access") => "The queue is locked or protected from deletion",
        _ => return Err(Failure::error(failure::UNAVAILABLE, reason)),
    };
    Err(Failure::error(failure::USAGE, refusal))
}

fn close_connection(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, wanted, reason) = (&line.options, &line.operands[0], &line.operands[1]);
    let api = Api::new("close_connection", options, None)?;
    api.reach()?;
    screen.banner(options, &format!("Closing connection {wanted}, reason: {reason}..."))?;
    let connections = connections(&api)?;
    let is_wanted = |connection: &&Value| connection["pid"] == **wanted || connection["name"] == **wanted;
    let connection = connections.iter().find(is_wanted);
    let missing =
        || Failure::error(failure::DATA, format!("there is no connection {wanted}; see list_connections pid name"));
    close(&api, connection.ok_or_else(missing)?, reason)?;
    done(&api, options, screen)
}

fn close_all_connections(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, reason) = (&line.options, &line.operands[0]);
    let api = Api::new("close_all_connections", options, None)?;
    api.reach()?;
    let banner = match (options.global, options.limit) {
        (true, _) => format!("Closing all connections to the server (across all vhosts), reason: {reason}..."),
        (false, 0) => format!("Closing all connections in vhost {}, reason: {reason}...", options.vhost()),
        (false, limit) => format!("Closing {limit} connections in vhost {}, reason: {reason}...", options.vhost()),
    };
    screen.banner(options, &banner)?;
    let mut connections = connections(&api)?;
    connections.retain(|connection| options.global || connection["vhost"] == *options.vhost());
    if !options.global && options.limit > 0 {
        connections.truncate(options.limit);
    }
    for (at, connection) in connections.iter().enumerate() {
        if at > 0 {
            pause(options.delay);
        }
        close(&api, connection, reason)?;
    }
    formats::print_message(screen, options, &format!("Closed {} connections", connections.len()))
}

fn close_all_user_connections(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let (options, user, reason) = (&line.options, &line.operands[0], &line.operands[1]);
    let api = Api::new("close_all_user_connections", options, None)?;
    api.reach()?;
    screen.banner(options, &format!("Closing connections of user {user}, reason: {reason}..."))?;
    let answer = api.send("DELETE", &format!("/connections/username/{}", encoded(user)), &[("X-Reason", reason)])?;
    match answer.status {
        204 => done(&api, options, screen),
        _ => Err(Failure::error(failure::UNAVAILABLE, answer.reason())),
    }
}

/// Runs another command.
pub(super) fn run(program: &str, name: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    find(name).map_or(Ok(()), |command| command.run.run(program, line, screen))
}

fn connections(api: &Api) -> Result<Vec<Value>, Failure> {
    match api.get("/connections?columns=name,pid,vhost")? {
        Some(Value::Array(connections)) => Ok(connections),
        _ => Ok(Vec::new()),
    }
}

/// One that went by itself in the meantime is as good as closed.
fn close(api: &Api, connection: &Value, reason: &str) -> Result<(), Failure> {
    let name = connection["name"].as_str().unwrap_or_default();
    let answer = api.send("DELETE", &format!("/connections/{}", encoded(name)), &[("X-Reason", reason)])?;
    match answer.status {
        204 | 404 => Ok(()),
        _ => Err(Failure::error(failure::UNAVAILABLE, answer.reason())),
    }
}

fn ping(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    let options = &line.options;
    let api = Api::new("ping", options, Some(PING_TIME))?;
    let node = node(&api)?;
    let ms = options.timeout.unwrap_or(PING_TIME).as_millis();
    let banner = format!("Will ping {node}. This only checks if the server answers. Timeout: {ms} ms.");
    screen.banner(options, &banner)?;
    formats::print_message(screen, options, "Ping succeeded")
}

fn version(_program: &str, line: &Line, screen: &mut Screen) -> Result<(), Failure> {
    match line.options.formatter {
        Formatter::Json => screen.line(&json!({"version": VERSION}).to_string()),
        _ => screen.line(VERSION),
    }
}

pub(super) fn await_startup(_program: &str, line: &Line, _screen: &mut Screen) -> Result<(), Failure> {
    let patience = line.options.timeout.unwrap_or(STARTUP_TIME);
    let deadline = Instant::now() + patience;
    loop {
        let api = Api::new("await_startup", &line.options, Some(patience))?;
        if api.is_there() && node(&api).is_ok() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let ms = patience.as_millis();
            let text = format!("Error: operation await_startup timed out. Timeout value used: {ms}");
            return Err(Failure { code: failure::TIMEOUT, text });
        }
        pause(STARTUP_POLL);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a server that is not there announces nothing; a delay is what was asked for"
)]
pub(super) fn pause(time: Duration) {
    thread::sleep(time);
}

/// What a command that only does something prints: nothing, but to machines.
pub(super) fn done(api: &Api, options: &Options, screen: &mut Screen) -> Result<(), Failure> {
    match options.formatter {
        Formatter::Json | Formatter::JsonStream => {
            screen.line(&json!({"node": node(api)?, "result": "ok"}).to_string())
        }
        _ => Ok(()),
    }
}

/// The node's name.
pub(super) fn node(api: &Api) -> Result<String, Failure> {
    let nodes = api.get("/nodes?columns=name")?.unwrap_or_default();
    Ok(nodes[0]["name"].as_str().unwrap_or_default().to_owned())
}

pub(super) fn queue_path(options: &Options, queue: &str) -> String {
    format!("/queues/{}/{}", encoded(options.vhost()), encoded(queue))
}

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
const PING_TIME: Duration = Duration::from_secs(60);
const STARTUP_TIME: Duration = Duration::from_secs(300);
const STARTUP_POLL: Duration = Duration::from_millis(50);

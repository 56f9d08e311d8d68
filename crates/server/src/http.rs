//! The HTTP API: what RabbitMQ's management API serves, for the objects that Leveret has.
//!
//! One file serves one resource. Each reads views of the machines' state ([`broker::inspect`]) or the topology, changes
//! things through an [`crate::operator::Operator`], and never sees a machine. Values are live: a request looks when it
//! comes. Only rates need a past, which [`samples`] keeps while anybody asks for them.
//!
//! Paths are matched as they are encoded, so that `%2F` in the name of a vhost divides nothing.

mod access;
mod audit;
mod backups;
mod bindings;
mod channels;
mod cluster;
mod connections;
mod consumers;
mod cors;
mod definitions;
mod exchanges;
mod health;
mod leases;
mod limits;
mod listing;
mod local;
mod message_stats;
mod messages;
mod metrics;
mod nodes;
mod openapi;
mod operations;
mod overview;
mod page;
mod page_events;
mod page_vitals;
mod parameters;
mod permissions;
mod policies;
mod published;
mod queues;
mod redrives;
mod refusal;
mod request;
mod rights;
mod routes;
mod rows;
mod samples;
mod schedules;
mod serving;
mod sessions;
mod users;
pub(crate) mod values;
mod vhosts;
mod websockets;

pub(crate) use definitions::load as load_definitions;
pub(crate) use local::LocalSocket;
pub use local::{LocalError, SOCKET_NAME};

use crate::backup::Backup;
use crate::footprint;
use crate::open_files::OpenFiles;
use crate::operator::Operator;
use crate::switchboard::Switchboard;
use axum::extract::State;
use axum::{Extension, Router};
use broker::command::VhostId;
use broker::policy::PolicyKind;
use redrives::Redrives;
use refusal::Refusal;
use routes::{Routes, delete, get, post, put};
use samples::Samples;
use sessions::Sessions;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What every request is served from.
#[derive(Debug)]
pub(crate) struct Api {
    board: Arc<Switchboard>,
    samples: Samples,
    backup: Arc<Backup>,
    redrives: Redrives,
    sessions: Sessions,
    /// The one node's name, `leveret@HOST`: tools address it by that.
    node: String,
    dead_letters: metrics::DeadLetters,
    /// How long messages took in all queues.
    times: metrics::Times,
}

/// How a resource's functions get it.
type Shared = State<Arc<Api>>;

/// Where the API and the metrics are served.
#[derive(Debug)]
pub(crate) struct Doors {
    /// The API, for anyone who can log in.
    pub(crate) http: Vec<TcpListener>,
    /// The same over TLS.
    pub(crate) https: Vec<TcpListener>,
    /// The metrics, for anyone.
    pub(crate) metrics: Vec<TcpListener>,
    /// The API, for whoever may open the socket in the data directory: its owner.
    pub(crate) local: LocalSocket,
}

/// What requests are served from.
pub(crate) fn api(board: &Arc<Switchboard>, backup: Backup) -> Arc<Api> {
    Arc::new(Api {
        board: Arc::clone(board),
        samples: Samples::default(),
        backup: Arc::new(backup),
        redrives: Redrives::default(),
        sessions: Sessions::default(),
        dead_letters: metrics::DeadLetters::default(),
        times: metrics::Times::default(),
        node: footprint::node_name(),
    })
}

/// Serves the API and the metrics in `tasks`, until they are shut down.
pub(crate) fn serve(api: Arc<Api>, doors: Doors, tasks: &mut JoinSet<()>) {
    let (routes, metrics) = (router(&api), metrics::router(&api));
    // Not for the local socket: whoever speaks AMQP is at some address.
    let board = &Arc::clone(&api.board);
    let with_amqp = websockets::beside(board, routes.clone());
    for listener in doors.http {
        tasks.spawn(serving::tcp(listener, with_amqp.clone(), Arc::clone(board), false));
    }
    for listener in doors.https {
        tasks.spawn(serving::tcp(listener, with_amqp.clone(), Arc::clone(board), true));
    }
    for listener in doors.metrics {
        tasks.spawn(serving::tcp(listener, metrics.clone(), Arc::clone(board), false));
    }
    tasks.spawn(serving::local(doors.local, routes, OpenFiles::of(board).http_each));
    tasks.spawn(samples::keep(api));
}

fn router(api: &Arc<Api>) -> Router {
    let (routes, open) = (routes(), open_routes());
    let document = openapi::Document::of(&routes, &open);
    let api_routes = routes.into_router().layer(Extension(document)).fallback(async || Refusal::no_object());
    let routes = Router::new()
        .nest("/api", api_routes)
        .fallback(async || Refusal::no_object())
        .layer(axum::middleware::map_response(refusal::in_rabbitmqs_form))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(api), access::admit))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(api), cors::allow))
        .with_state(Arc::clone(api));
    // What changes the path has to stand before what is led by it.
    let routes =
        Router::new().fallback_service(routes).layer(axum::middleware::map_request(request::without_last_slash));
    let streams = page_events::Streams::new(routes.clone());
    let open = Router::new().nest("/api", open.into_router().layer(Extension(streams)).with_state(Arc::clone(api)));
    page::routes().merge(open).fallback_service(routes)
}

/// What below `/api` anybody may have, and what admits by itself.
fn open_routes() -> Routes {
    Routes::new()
        .route("/login", post(sessions::log_in).delete(sessions::log_out))
        .route("/page/events", get(page_events::open))
}

/// Everything below `/api`.
fn routes() -> Routes {
    let mut routes = Routes::new()
        .route("/overview", get(overview::show))
        .route("/version", get(overview::version))
        .route("/openapi.json", get(openapi::show))
        .route("/cluster-name", get(cluster::name).put(cluster::rename))
        .route("/config/effective", get(cluster::config))
        .route("/extensions", get(cluster::extensions))
        .route("/feature-flags", get(cluster::feature_flags))
        .route("/feature-flags/{name}/enable", put(cluster::enable_feature_flag))
        .route("/deprecated-features", get(cluster::deprecated))
        .route("/deprecated-features/used", get(cluster::deprecated_used))
        .route("/rebalance/queues", post(cluster::rebalance))
        .route("/reset", delete(cluster::reset))
        .route("/reset/{node}", delete(cluster::reset_node))
        .route("/auth", get(cluster::auth))
        .route("/auth/attempts/{node}", get(cluster::attempts).delete(cluster::forget_attempts))
        .route("/auth/attempts/{node}/source", get(cluster::attempts_by_source).delete(cluster::forget_attempts))
        .route("/audit", get(audit::list))
        .route("/whoami", get(access::whoami))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{node}", get(nodes::show))
        .route("/nodes/{node}/limits", put(nodes::limit))
        .route("/nodes/{node}/reload", post(nodes::reload))
        .route("/nodes/{node}/memory", get(cluster::memory))
        .route("/nodes/{node}/memory/ets", get(cluster::memory_ets))
        .route("/page/vitals", get(page_vitals::show))
        .route("/log", get(page_vitals::log))
        .route("/backup", get(backups::show).post(backups::begin))
        .merge(vhosts::routes())
        .merge(users::routes())
        .merge(permissions::routes())
        .merge(limits::routes())
        .merge(parameters::routes())
        .merge(definitions::routes())
        .route("/connections", get(connections::list))
        .route("/vhosts/{vhost}/connections", get(connections::list_in))
        .route("/connections/{name}", get(connections::show).delete(connections::close))
        .route("/connections/username/{user}", get(connections::list_of).delete(connections::close_of))
        .route("/connections/{name}/channels", get(channels::list_of))
        .route("/channels", get(channels::list))
        .route("/vhosts/{vhost}/channels", get(channels::list_in))
        .route("/channels/{name}", get(channels::show))
        .route("/consumers", get(consumers::list))
        .route("/consumers/{vhost}", get(consumers::list_in))
        .route("/exchanges", get(exchanges::list))
        .route("/exchanges/{vhost}", get(exchanges::list_in))
        .route("/exchanges/{vhost}/{name}", get(exchanges::show).put(exchanges::declare).delete(exchanges::delete))
        .route("/exchanges/{vhost}/{name}/bindings/source", get(bindings::list_from))
        .route("/exchanges/{vhost}/{name}/bindings/destination", get(bindings::list_to_exchange))
        .route("/exchanges/{vhost}/{name}/publish", post(messages::publish))
        .route("/queues", get(queues::list))
        .route("/queues/detailed", get(queues::list_detailed))
        .route("/queues/{vhost}", get(queues::list_in))
        .route("/queues/{vhost}/{name}", get(queues::show).put(queues::declare).delete(queues::delete))
        .route("/queues/{vhost}/{name}/contents", delete(queues::purge))
        .route("/queues/{vhost}/{name}/actions", post(queues::act))
        .route("/queues/{vhost}/{name}/get", post(messages::get))
        .route("/queues/{vhost}/{name}/pause", put(operations::pause))
        .route("/queues/{vhost}/{name}/resume", put(operations::resume))
        .route("/queues/{vhost}/{name}/messages", get(operations::list))
        .route("/queues/{vhost}/{name}/messages/delete", post(operations::delete))
        .route("/queues/{vhost}/{name}/messages/move", post(operations::relocate))
        .route("/queues/{vhost}/{name}/messages/release", post(operations::release))
        .route("/queues/{vhost}/{name}/messages/requeue", post(operations::requeue))
        .route("/queues/{vhost}/{name}/messages/{seq}", get(operations::show).delete(operations::delete_one))
        .route("/queues/{vhost}/{name}/redrive", get(redrives::show).post(redrives::begin).delete(redrives::stop))
        .route("/queues/{vhost}/{name}/leases", get(leases::list_of))
        .route("/queues/{vhost}/{name}/leases/{seq}", put(leases::extend).delete(leases::take_back))
        .route("/leases", get(leases::list))
        .route("/schedules", get(schedules::list))
        .route("/schedules/{vhost}", get(schedules::list_in))
        .route("/schedules/{vhost}/{name}", get(schedules::show).put(schedules::set).delete(schedules::delete))
        .route("/schedules/{vhost}/{name}/fire", post(schedules::fire))
        .route("/schedules/{vhost}/{name}/pause", put(schedules::pause))
        .route("/schedules/{vhost}/{name}/resume", put(schedules::resume))
        .route("/queues/{vhost}/{name}/bindings", get(bindings::list_to_queue))
        .route("/bindings", get(bindings::list))
        .route("/bindings/{vhost}", get(bindings::list_in))
        .route("/bindings/{vhost}/e/{source}/{kind}/{destination}", get(bindings::list_between).post(bindings::bind))
        .route("/bindings/{vhost}/e/{source}/{kind}/{destination}/{key}", get(bindings::show).delete(bindings::unbind))
        .route("/aliveness-test/{vhost}", get(health::aliveness_test))
        .route("/healthchecks/node", get(health::node))
        .route("/healthchecks/node/{node}", get(health::node))
        .nest("/health/checks", health::routes());
    for (path, methods) in [PolicyKind::User, PolicyKind::Operator].into_iter().flat_map(policies::routes) {
        routes = routes.route(&path, methods);
    }
    routes
}

/// The global parameter that is the cluster's name.
const CLUSTER_NAME: &str = "cluster_name";

impl Api {
    /// The vhost of this name.
    fn vhost(&self, name: &str) -> Result<VhostId, Refusal> {
        self.board.topology().vhost(name).ok_or_else(Refusal::no_object)
    }

    fn cluster_name(&self) -> String {
        let topology = self.board.topology();
        let mut globals = topology.parameters().filter(|parameter| parameter.scope.is_none());
        let kept = globals.find(|parameter| *parameter.name == *CLUSTER_NAME);
        kept.and_then(|kept| serde_json::from_str(&kept.value).ok()).unwrap_or_else(|| self.node.clone())
    }

    pub(crate) fn board(&self) -> &Arc<Switchboard> {
        &self.board
    }

    /// Asks by the rights of the request's caller.
    fn operator(&self) -> Operator {
        self.board.operator_for(rights::caller().and_then(|caller| caller.subject()))
    }
}

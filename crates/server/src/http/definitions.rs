//! `/api/definitions`: everything that was declared, as one document, out and in. RabbitMQ's documents are read as they
//! are, and ours are such documents: what only we have is in keys that it passes over.

use super::access::Caller;
use super::listing::Listing;
use super::refusal::{Refusal, succeeded};
use super::request::Document;
use super::routes::{Routes, get};
use super::users::{self, ask, change};
use super::{Api, Shared, limits, parameters, permissions, policies, rights, schedules, values, vhosts};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::access::User;
use broker::command::{BindingSpec, CatalogAsk, DeclareQueue, DestinationKind, VhostId};
use broker::connection::COMPATIBLE_VERSION;
use broker::identity::{IdentityAsk, Parameter, UserLimits};
use broker::policy::{Policy, PolicyKind};
use broker::topology::Topology;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::path::Path as FilePath;
use std::sync::Arc;

pub(super) fn routes() -> Routes {
    Routes::new()
        .route("/definitions", get(export).post(import))
        .route("/definitions/{vhost}", get(export_vhost).post(import_vhost))
}

/// `GET /api/definitions`
async fn export(State(api): Shared, listing: Listing) -> Json<Value> {
    let topology = api.board.topology();
    let mut document = head("cluster");
    document["users"] = topology.users().map(|user| users::describe(user)).collect();
    let records = || topology.vhosts().filter_map(|(id, _)| topology.vhost_record(id));
    document["vhosts"] = records()
        .map(|record| {
            let mut vhost = vhosts::definition(record);
            if record.default_queue_type.is_none()
                && let Some(vhost) = vhost.as_object_mut()
            {
                vhost.remove("default_queue_type");
            }
            let limits = limits::of_vhost(record.limits);
            vhost["limits"] = if limits.is_empty() { json!([]) } else { limits.into() };
            vhost
        })
        .collect();
    let of = topology.permissions().map(|permission| permissions::describe(&topology, permission));
    document["permissions"] = of.collect();
    let of = topology.topic_permissions().map(|topic| permissions::describe_topic(&topology, topic));
    document["topic_permissions"] = of.collect();
    let globals = topology.parameters();
    let globals = globals.filter(|parameter| parameter.scope.is_none() && *parameter.name != *LAST_IMPORT);
    document["global_parameters"] = globals.map(|parameter| parameters::describe(&topology, parameter)).collect();
    add_objects(&mut document, &topology, None);
    listing.one(document)
}

/// `GET /api/definitions/VHOST`
async fn export_vhost(State(api): Shared, Path(name): Path<String>, listing: Listing) -> Result<Json<Value>, Refusal> {
    let topology = api.board.topology();
    let vhost = topology.vhost(&name).ok_or_else(Refusal::no_object)?;
    let mut document = head("single_virtual_host");
    document["original_vhost_name"] = name.into();
    let record = topology.vhost_record(vhost);
    document["metadata"] = record.map(|record| vhosts::definition(record)["metadata"].clone()).unwrap_or_default();
    add_objects(&mut document, &topology, Some(vhost));
    Ok(listing.one(document))
}

fn head(format: &str) -> Value {
    json!({
        "rabbit_version": COMPATIBLE_VERSION,
        "rabbitmq_version": COMPATIBLE_VERSION,
        "product_name": "Leveret",
        "product_version": env!("CARGO_PKG_VERSION"),
        "rabbitmq_definition_format": format,
        "original_cluster_name": "leveret",
        "explanation": "Definitions of Leveret, in RabbitMQ's format",
    })
}

/// What is in vhosts: in this one, without its name, or in all.
fn add_objects(document: &mut Value, topology: &Topology, only: Option<VhostId>) {
    let is_meant = |vhost: VhostId| only.is_none_or(|only| only == vhost);
    let finished = |mut object: Value| {
        if only.is_some()
            && let Some(object) = object.as_object_mut()
        {
            object.remove("vhost");
        }
        object
    };
    let of_kind = |kind| topology.policies(kind).filter(|policy| is_meant(policy.vhost));
    document["policies"] =
        of_kind(PolicyKind::User).map(|policy| finished(policies::describe(topology, policy))).collect();
    let operators = of_kind(PolicyKind::Operator).map(|policy| {
        let mut value = policies::describe(topology, policy);
        let (vhost, name) = (value["vhost"].take(), value["name"].take());
        if let Some(value) = value.as_object_mut() {
            value.retain(|_, field| !field.is_null());
        }
        finished(json!({"component": "operator_policy", "vhost": vhost, "name": name, "value": value}))
    });
    let limited = limits::as_parameters(topology).filter(|(vhost, _)| is_meant(*vhost));
    let limited = limited.map(|(_, parameter)| finished(parameter));
    let kept =
        topology.parameters().filter(|parameter| parameter.scope.as_ref().is_some_and(|(vhost, _)| is_meant(*vhost)));
    let kept = kept.map(|parameter| finished(parameters::describe(topology, parameter)));
    document["parameters"] = operators.chain(limited).chain(kept).collect();

    let mut queues: Vec<_> = topology.queues().filter(|queue| is_meant(queue.vhost) && queue.owner.is_none()).collect();
    queues.sort_by(|one, other| (&one.vhost_name, &one.name).cmp(&(&other.vhost_name, &other.name)));
    document["queues"] = queues
        .into_iter()
        .map(|queue| {
            finished(json!({
                "name": &*queue.name,
                "vhost": &*queue.vhost_name,
                "type": queue.arguments.get("x-queue-type").and_then(amqp::Value::as_str).unwrap_or("classic"),
                "durable": queue.durable,
                "auto_delete": queue.auto_delete,
                "arguments": values::table_to_json(&queue.arguments),
            }))
        })
        .collect();
    let mut exchanges: Vec<_> = topology
        .exchanges()
        .filter(|exchange| is_meant(exchange.vhost) && !exchange.name.is_empty() && !exchange.name.starts_with("amq."))
        .collect();
    exchanges.sort_by(|one, other| (one.vhost, &one.name).cmp(&(other.vhost, &other.name)));
    document["exchanges"] = exchanges
        .into_iter()
        .map(|exchange| {
            finished(json!({
                "name": &*exchange.name,
                "vhost": &**topology.vhost_name(exchange.vhost),
                "type": exchange.type_name(),
                "durable": exchange.durable,
                "auto_delete": exchange.auto_delete,
                "internal": exchange.internal,
                "arguments": values::table_to_json(&exchange.arguments),
            }))
        })
        .collect();
    let owned = |vhost, queue: &str| topology.queue(vhost, queue).is_some_and(|queue| queue.owner.is_some());
    let bindings = topology.bindings().filter(|binding| {
        is_meant(binding.vhost)
            && !binding.source.is_empty()
            && !(binding.kind == DestinationKind::Queue && owned(binding.vhost, binding.destination))
    });
    document["bindings"] = bindings
        .map(|binding| {
            finished(json!({
                "source": binding.source,
                "vhost": &**topology.vhost_name(binding.vhost),
                "destination": binding.destination,
                "destination_type": if binding.kind == DestinationKind::Queue { "queue" } else { "exchange" },
                "routing_key": binding.key,
                "arguments": values::table_to_json(binding.arguments),
            }))
        })
        .collect();
    let schedules = topology.schedules().filter(|schedule| is_meant(schedule.vhost));
    document["schedules"] =
        schedules.map(|schedule| finished(schedules::definition(topology, schedule).into())).collect();
}

/// How definitions are imported.
#[derive(Debug, Default, Deserialize)]
struct Import {
    /// What was imported last is not imported again.
    #[serde(default)]
    skip_if_unchanged: bool,
}

/// `POST /api/definitions`
async fn import(State(api): Shared, Query(how): Query<Import>, document: Document) -> Result<StatusCode, Refusal> {
    if !how.skip_if_unchanged {
        import_all(&api, &document, None).await?;
        return Ok(StatusCode::NO_CONTENT);
    }
    let text = serde_json::to_vec(document.as_map()).unwrap_or_default();
    let digest = STANDARD.encode(Sha256::digest(&text));
    let value = Value::from(digest).to_string();
    let is_last = |parameter: &&Arc<Parameter>| parameter.scope.is_none() && *parameter.name == *LAST_IMPORT;
    let last = api.board.topology().parameters().find(is_last).cloned();
    if last.is_none_or(|last| last.value != value) {
        import_all(&api, &document, None).await?;
        let set = Parameter { scope: None, name: LAST_IMPORT.into(), value };
        change(&api, IdentityAsk::SetParameter(set)).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The global parameter that has the digest of what was imported last. It is about this server, and stays here.
const LAST_IMPORT: &str = "imported_definition_hash_value";

/// `POST /api/definitions/VHOST`
async fn import_vhost(
    State(api): Shared,
    Path(vhost): Path<String>,
    document: Document,
) -> Result<StatusCode, Refusal> {
    api.vhost(&vhost)?;
    import_all(&api, &document, Some(&vhost)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Imports a file before anybody is let in.
///
/// # Errors
/// A sentence.
pub(crate) async fn load(api: &Arc<Api>, file: &FilePath) -> Result<(), String> {
    let bytes = std::fs::read(file).map_err(|why| why.to_string())?;
    let Ok(Value::Object(object)) = serde_json::from_slice(&bytes) else {
        return Err("it is not a JSON object".to_owned());
    };
    import_all(api, &Document::of(object), None).await.map_err(|refusal| refusal.reason())
}

/// The same as [`import_objects`], whatever permissions the administrator has who imports: some may be in the document.
async fn import_all(api: &Arc<Api>, document: &Document, only: Option<&str>) -> Result<(), Refusal> {
    let importer = Caller { is_local: true, ..caller() };
    let mut done = Done::default();
    let imported = rights::on_behalf_of(importer, import_objects(api, document, only, &mut done)).await;
    imported.map_err(|refusal| match done.0.as_slice() {
        [] => refusal,
        _ => refusal.besides(&format!("imported before that, and kept: {done}")),
    })
}

/// What an import has done, which is not undone when it ends early: how many of which section.
#[derive(Debug, Default)]
struct Done(Vec<(&'static str, usize)>);

impl Done {
    fn one(&mut self, section: &'static str) {
        match self.0.last_mut() {
            Some((last, count)) if *last == section => *count += 1,
            _ => self.0.push((section, 1)),
        }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = self.0.iter().map(|(section, count)| format!("{count} of {section}"));
        f.write_str(&counted.collect::<Vec<_>>().join(", "))
    }
}

/// Everything in the document that is not there is made, policies and permissions take the place of those that are.
/// Nothing is deleted. The first thing that cannot be ends it, named.
async fn import_objects(
    api: &Arc<Api>,
    document: &Document,
    only: Option<&str>,
    done: &mut Done,
) -> Result<(), Refusal> {
    for section in SECTIONS {
        document.objects(section)?;
    }
    if only.is_none() {
        for user in document.objects("users")? {
            let name = named(&user)?;
            put_user(api, &name, user).await.map_err(|refusal| refusal.about(&format!("user '{name}'")))?;
            done.one("users");
        }
        for vhost in document.objects("vhosts")? {
            let name = named(&vhost)?;
            put_vhost(api, &name, &vhost).await.map_err(|refusal| refusal.about(&format!("vhost '{name}'")))?;
            done.one("vhosts");
        }
        for permission in document.objects("permissions")? {
            let (vhost, user) = (vhost_of(api, &permission, None)?, permission.text("user")?.to_owned());
            let set = IdentityAsk::SetPermission(Box::new(permissions::read(vhost, &user, &permission)?));
            change(api, set).await.map_err(|refusal| refusal.about(&format!("permission of user '{user}'")))?;
            done.one("permissions");
        }
    }
    for exchange in document.objects("exchanges")? {
        let vhost = vhost_of(api, &exchange, only)?;
        let name = named(&exchange)?;
        let declared = declare_exchange(api, vhost, &name, &exchange).await;
        declared.map_err(|refusal| refusal.about(&format!("exchange '{name}'")))?;
        done.one("exchanges");
    }
    if only.is_none() {
        for topic in document.objects("topic_permissions")? {
            let (vhost, user) = (vhost_of(api, &topic, None)?, topic.text("user")?.to_owned());
            let set = IdentityAsk::SetTopicPermission(permissions::read_topic(vhost, &user, &topic)?);
            change(api, set).await.map_err(|refusal| refusal.about(&format!("topic permission of user '{user}'")))?;
            done.one("topic_permissions");
        }
        for parameter in document.objects("global_parameters")? {
            let name = named(&parameter)?;
            let set = Parameter { scope: None, name: name.as_str().into(), value: parameters::value(&parameter)? };
            let set = change(api, IdentityAsk::SetParameter(set)).await;
            set.map_err(|refusal| refusal.about(&format!("global parameter '{name}'")))?;
            done.one("global_parameters");
        }
    }
    for policy in document.objects("policies")? {
        let (vhost, name) = (vhost_of(api, &policy, only)?, named(&policy)?);
        put_policy(api, PolicyKind::User, vhost, &name, &policy).await?;
        done.one("policies");
    }
    for parameter in document.objects("parameters")? {
        put_parameter(api, only, &parameter).await?;
        done.one("parameters");
    }
    for queue in document.objects("queues")? {
        let (vhost, name) = (vhost_of(api, &queue, only)?, named(&queue)?);
        let declared = declare_queue(api, vhost, &name, &queue).await;
        declared.map_err(|refusal| refusal.about(&format!("queue '{name}'")))?;
        done.one("queues");
    }
    for binding in document.objects("bindings")? {
        let vhost = vhost_of(api, &binding, only)?;
        bind(api, vhost, &binding).await?;
        done.one("bindings");
    }
    for schedule in document.objects("schedules")? {
        let (vhost, name) = (only.unwrap_or(schedule.text("vhost")?).to_owned(), named(&schedule)?);
        let declared = schedules::declare(api, &caller(), &vhost, &name, &schedule).await;
        declared.map_err(|refusal| refusal.about(&format!("schedule '{name}'")))?;
        done.one("schedules");
    }
    Ok(())
}

/// In the order in which they are imported.
const SECTIONS: [&str; 11] = [
    "users",
    "vhosts",
    "permissions",
    "exchanges",
    "topic_permissions",
    "global_parameters",
    "policies",
    "parameters",
    "queues",
    "bindings",
    "schedules",
];

/// Who imports; the server itself at its start.
fn caller() -> Caller {
    let user = User { name: "local-operator".into(), tags: vec!["administrator".to_owned()], id: 0, grant: None };
    rights::caller().unwrap_or(Caller { user, is_local: true })
}

fn named(object: &Document) -> Result<String, Refusal> {
    object.require(&["name"])?;
    object.text("name").map(str::to_owned)
}

fn vhost_of(api: &Api, object: &Document, only: Option<&str>) -> Result<VhostId, Refusal> {
    let name = only.unwrap_or(object.text("vhost")?);
    let found = api.board.topology().vhost(name);
    found.ok_or_else(|| Refusal::bad_request(format!("vhost '{name}' does not exist")))
}

async fn put_user(api: &Arc<Api>, name: &str, user: Document) -> Result<(), Refusal> {
    let existed = api.board.topology().user(name).is_some();
    let mut wanted = users::read(name, &user, existed).await?;
    let mut limits = UserLimits::default();
    for (limit, _) in user.object("limits")?.entries() {
        limits::put_user_limit(&mut limits, limit, user.object("limits")?.integer(limit)?)?;
    }
    if let IdentityAsk::PutUser { limits: wanted, .. } = &mut wanted {
        *wanted = Some(limits);
    }
    change(api, wanted).await
}

async fn put_vhost(api: &Arc<Api>, name: &str, vhost: &Document) -> Result<(), Refusal> {
    change(api, vhosts::read(name, vhost)?).await?;
    let limits = vhost.object("limits")?;
    if limits.entries().next().is_some() { limits::replace_of_vhost(api, name, &limits).await } else { Ok(()) }
}

async fn put_policy(
    api: &Arc<Api>,
    kind: PolicyKind,
    vhost: VhostId,
    name: &str,
    document: &Document,
) -> Result<(), Refusal> {
    let put = async {
        let mut policy = policies::read(kind, vhost, name, document)?;
        let is_dropped = drop_mirroring(&mut policy);
        if is_dropped && policy.definition.is_empty() { Ok(()) } else { policies::put(api, policy).await }
    };
    put.await.map_err(|refusal| refusal.about(&format!("policy '{name}'")))
}

/// RabbitMQ 3 mirrored queues by policies. There is nothing to mirror to, and no other use for those keys.
fn drop_mirroring(policy: &mut Policy) -> bool {
    let keys: Vec<_> =
        policy.definition.iter().map(|(key, _)| key.to_owned()).filter(|k| k.starts_with("ha-")).collect();
    for key in &keys {
        policy.definition.remove(key);
    }
    if !keys.is_empty() {
        tracing::warn!(
            "policy '{}' is imported without {}: queues are not mirrored here",
            policy.name,
            keys.join(", ")
        );
    }
    !keys.is_empty()
}

/// RabbitMQ keeps operator policies and the limits of vhosts as parameters.
async fn put_parameter(api: &Arc<Api>, only: Option<&str>, document: &Document) -> Result<(), Refusal> {
    let (vhost, name) = (vhost_of(api, document, only)?, named(document)?);
    match document.text("component")? {
        "operator_policy" => put_policy(api, PolicyKind::Operator, vhost, &name, &document.object("value")?).await,
        limits::COMPONENT => {
            let vhost = api.board.topology().vhost_name(vhost).to_string();
            limits::replace_of_vhost(api, &vhost, &document.object("value")?).await
        }
        component => {
            let scope = Some((vhost, component.into()));
            let parameter = Parameter { scope, name: name.into(), value: parameters::value(document)? };
            succeeded(ask(api, IdentityAsk::SetParameter(parameter)).await?).map(drop)
        }
    }
}

async fn declare_exchange(api: &Arc<Api>, vhost: VhostId, name: &str, document: &Document) -> Result<(), Refusal> {
    if api.board.topology().exchange(vhost, name).is_some() {
        return Ok(());
    }
    let declare = CatalogAsk::DeclareExchange {
        name: name.to_owned(),
        kind: document.text("type")?.to_owned(),
        passive: false,
        durable: document.flag("durable")?,
        auto_delete: document.flag("auto_delete")?,
        internal: document.flag("internal")?,
        arguments: document.table("arguments")?,
    };
    succeeded(api.operator().ask(vhost, declare).await?).map(drop)
}

async fn declare_queue(api: &Arc<Api>, vhost: VhostId, name: &str, document: &Document) -> Result<(), Refusal> {
    if api.board.topology().queue(vhost, name).is_some() {
        return Ok(());
    }
    let mut arguments = document.table("arguments")?;
    let kind = document.text("type")?;
    let (durable, auto_delete) = (document.flag("durable")?, document.flag("auto_delete")?);
    let is_defaulted = durable && !auto_delete && {
        let topology = api.board.topology();
        topology.vhost_record(vhost).is_some_and(|record| record.default_queue_type.is_some())
    };
    // The type is named twice, or in either place. The vhost's own would take the place of one that is not.
    let is_said = !kind.is_empty() && (kind != "classic" || is_defaulted);
    if is_said && !arguments.contains_key("x-queue-type") {
        arguments.insert("x-queue-type", kind);
    }
    let declare = CatalogAsk::DeclareQueue(DeclareQueue {
        name: name.to_owned(),
        server_named: name.starts_with("amq.gen-"),
        passive: false,
        durable,
        exclusive: false,
        auto_delete,
        arguments,
    });
    succeeded(api.operator().ask(vhost, declare).await?).map(drop)
}

async fn bind(api: &Arc<Api>, vhost: VhostId, document: &Document) -> Result<(), Refusal> {
    let (source, destination) = (document.text("source")?.to_owned(), document.text("destination")?.to_owned());
    let title = format!("binding of '{source}' to '{destination}'");
    let kind = match document.text("destination_type")? {
        "exchange" | "e" => DestinationKind::Exchange,
        _ => DestinationKind::Queue,
    };
    let key = document.text("routing_key")?.to_owned();
    let spec = BindingSpec { source, destination, kind, key, arguments: document.table("arguments")? };
    let bound = api.operator().ask(vhost, CatalogAsk::Bind(spec)).await?;
    succeeded(bound).map(drop).map_err(|refusal| refusal.about(&title))
}

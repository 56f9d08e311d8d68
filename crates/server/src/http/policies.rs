//! `/api/policies` and `/api/operator-policies`.

use super::listing::Listing;
use super::refusal::{Refusal, succeeded};
use super::request::Document;
use super::routes::{Methods, get};
use super::rows::Row;
use super::{Api, Shared, values};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use broker::command::{CatalogAsk, Fault, Outcome, VhostId};
use broker::policy::{Applied, AppliesTo, Pattern, Policy, PolicyKind};
use broker::topology::Topology;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The resource of one kind: its path below `/api`, and what is there.
pub(super) fn routes(kind: PolicyKind) -> [(String, Methods); 3] {
    let root = match kind {
        PolicyKind::User => "/policies",
        PolicyKind::Operator => "/operator-policies",
    };
    let all = get(async move |State(api): Shared, listing: Listing| answer(&api, kind, None, &listing));
    let in_vhost = get(async move |State(api): Shared, Path(vhost): Path<String>, listing: Listing| {
        let vhost = api.vhost(&vhost)?;
        answer(&api, kind, Some(vhost), &listing)
    });
    let one = get(async move |State(api): Shared, Path(path): Path<(String, String)>, listing: Listing| {
        show(&api, kind, &path, &listing)
    })
    .put(async move |State(api): Shared, Path(path): Path<(String, String)>, document: Document| {
        set(&api, kind, &path, &document).await
    })
    .delete(async move |State(api): Shared, Path(path): Path<(String, String)>| clear(&api, kind, &path).await);
    [(root.to_owned(), all), (format!("{root}/{{vhost}}"), in_vhost), (format!("{root}/{{vhost}}/{{name}}"), one)]
}

fn answer(api: &Api, kind: PolicyKind, vhost: Option<VhostId>, listing: &Listing) -> Result<Json<Value>, Refusal> {
    let objects = {
        let topology = api.board.topology();
        let wanted = topology.policies(kind).filter(|policy| vhost.is_none_or(|vhost| policy.vhost == vhost));
        wanted.map(|policy| describe(&topology, policy)).collect()
    };
    listing.all(objects, &["vhost", "name"])
}

fn show(
    api: &Api,
    kind: PolicyKind,
    (vhost, name): &(String, String),
    listing: &Listing,
) -> Result<Json<Value>, Refusal> {
    let topology = api.board.topology();
    let vhost = topology.vhost(vhost).ok_or_else(Refusal::no_object)?;
    let policy = topology.policy(kind, vhost, name).ok_or_else(Refusal::no_object)?;
    Ok(listing.one(describe(&topology, policy)))
}

async fn set(
    api: &Arc<Api>,
    kind: PolicyKind,
    (vhost, name): &(String, String),
    document: &Document,
) -> Result<StatusCode, Refusal> {
    let vhost = api.vhost(vhost)?;
    let policy = read(kind, vhost, name, document)?;
    let existed = api.board.topology().policy(kind, vhost, name).is_some();
    put(api, policy).await?;
    Ok(if existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED })
}

/// Reads a policy's JSON form.
pub(super) fn read(kind: PolicyKind, vhost: VhostId, name: &str, document: &Document) -> Result<Policy, Refusal> {
    document.require(&["pattern", "definition"])?;
    let priority = document.integer("priority")?.unwrap_or(0);
    let applies_to = match document.text("apply-to")? {
        "" => Ok(AppliesTo::All),
        applies_to => AppliesTo::named(applies_to),
    };
    Ok(Policy {
        kind,
        vhost,
        name: name.into(),
        pattern: Pattern::new(document.text("pattern")?).map_err(|fault| failed_validation(&fault))?,
        applies_to: applies_to.map_err(|fault| failed_validation(&fault))?,
        priority,
        definition: document.table("definition")?,
    })
}

/// Sets it.
pub(super) async fn put(api: &Arc<Api>, policy: Policy) -> Result<(), Refusal> {
    let vhost = policy.vhost;
    match api.operator().ask(vhost, CatalogAsk::SetPolicy(Box::new(policy))).await? {
        Outcome::Fault(fault) => Err(failed_validation(&fault)),
        outcome => succeeded(outcome).map(drop),
    }
}

async fn clear(api: &Arc<Api>, kind: PolicyKind, (vhost, name): &(String, String)) -> Result<StatusCode, Refusal> {
    let vhost = api.vhost(vhost)?;
    match api.operator().ask(vhost, CatalogAsk::ClearPolicy { kind, name: name.clone() }).await? {
        Outcome::Missed => Err(Refusal::no_object()),
        outcome => {
            succeeded(outcome)?;
            Ok(StatusCode::NO_CONTENT)
        }
    }
}

/// As RabbitMQ words what is wrong with a parameter.
fn failed_validation(fault: &Fault) -> Refusal {
    Refusal::bad_request(format!("Validation failed\n\n{}\n", fault.text))
}

pub(super) fn describe(topology: &Topology, policy: &Policy) -> Value {
    json!({
        "vhost": &**topology.vhost_name(policy.vhost),
        "name": &*policy.name,
        "pattern": policy.pattern.source(),
        "apply-to": policy.applies_to.name(),
        "definition": values::table_to_json(&policy.definition),
        "priority": policy.priority,
    })
}

/// What a queue or an exchange tells of its policies.
pub(super) fn add_to(object: &mut Map<String, Value>, applied: &Applied) {
    let name = |policy: &Option<Arc<Policy>>| policy.as_ref().map_or(Value::Null, |policy| (&*policy.name).into());
    object.insert("policy".into(), name(&applied.user));
    object.insert("operator_policy".into(), name(&applied.operator));
    object.insert("effective_policy_definition".into(), values::table_to_json(&applied.definition()));
}

/// The same for a row of a long list.
pub(super) fn add_to_row(row: &mut Row, applied: &Applied) {
    let name = |policy: &Option<Arc<Policy>>| policy.as_ref().map(|policy| policy.name.to_string());
    row.put("policy", name(&applied.user));
    row.put("operator_policy", name(&applied.operator));
    row.put("effective_policy_definition", values::table_to_json(&applied.definition()));
}

//! What a request needs, by its method and path: a tag, a way into the vhost, a permission there.
//!
//! What a change does to the topology is checked by the catalog, as it is for AMQP clients: a request carries its user's
//! name there. A path that nobody thought of here is an administrator's to change and a monitor's to see.

use super::access::Caller;
use super::refusal::Refusal;
use super::{Api, limits};
use axum::http::Method;
use broker::access::{Resource, Right, Rights, Subject};
use broker::command::{Fault, VhostId};
use broker::topology::ExchangeKind;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::collections::BTreeSet;

tokio::task_local! {
    /// Who asks, while a request is served.
    static CALLER: Caller;
}

/// Serves a request for somebody.
pub(super) async fn on_behalf_of<F: Future>(caller: Caller, serving: F) -> F::Output {
    CALLER.scope(caller, serving).await
}

/// Who asks; `None` for the server itself.
pub(super) fn caller() -> Option<Caller> {
    CALLER.try_with(Clone::clone).ok()
}

/// What is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need<'a> {
    /// To be logged in.
    Nothing,
    /// To see everything.
    Monitor,
    /// To change everything.
    Administrator,
    /// To set policies, in this vhost.
    Policymaker(Option<&'a str>),
    /// To see what is in this vhost.
    Sight(&'a str),
    /// To use this vhost.
    Entry(&'a str),
    /// And this in it.
    Use(&'a str, Right, Resource<'a>),
    /// To use what a schedule publishes to.
    Schedule(&'a str, &'a str),
}

/// Refuses a request that its caller has no right to.
pub(super) fn check(api: &Api, caller: &Caller, method: &Method, path: &str) -> Result<(), Refusal> {
    // Which methods a path has is no secret, as in RabbitMQ.
    if caller.is_local || *method == Method::OPTIONS {
        return Ok(());
    }
    let segments: Vec<_> =
        path.split('/').skip(2).map(|segment| percent_decode_str(segment).decode_utf8_lossy()).collect();
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    match need(method, &segments) {
        Need::Nothing => Ok(()),
        Need::Monitor if caller.is_monitor() => Ok(()),
        Need::Monitor => Err(Refusal::not_authorised("Not monitor user")),
        Need::Administrator if caller.is_administrator() => Ok(()),
        Need::Administrator => Err(Refusal::not_authorised("Not administrator user")),
        Need::Policymaker(vhost) => {
            let is_in = vhost.is_none_or(|vhost| caller.is_administrator() || caller.may_enter(api, vhost));
            match caller.is_policymaker() && is_in {
                true => Ok(()),
                false => Err(Refusal::not_authorised("User not authorised to access object")),
            }
        }
        // What is not there is 404, for whoever may see all.
        Need::Sight(_) if caller.is_monitor() => Ok(()),
        Need::Sight(vhost) | Need::Entry(vhost) if caller.may_enter(api, vhost) => Ok(()),
        Need::Use(vhost, right, to) if caller.may_enter(api, vhost) => {
            let rights = caller.rights(api, vhost);
            rights.map_or(Ok(()), |rights| rights.check(right, to)).map_err(Refusal::from)
        }
        Need::Schedule(vhost, name) if caller.may_enter(api, vhost) => {
            let exchange = {
                let topology = api.board.topology();
                let schedule = topology.vhost(vhost).and_then(|vhost| topology.schedule(vhost, name));
                schedule.map(|schedule| schedule.exchange.clone())
            };
            let (Some(exchange), Some(rights)) = (exchange, caller.rights(api, vhost)) else { return Ok(()) };
            rights.check(Right::Write, Resource::Exchange(&exchange)).map_err(Refusal::from)
        }
        Need::Sight(vhost) | Need::Entry(vhost) | Need::Use(vhost, ..) | Need::Schedule(vhost, _) => {
            let is_there = api.board.topology().vhost(vhost).is_some();
            match !is_there && caller.is_monitor() {
                true => Err(Refusal::no_object()),
                false => Err(Refusal::not_authorised("User not authorised to access virtual host")),
            }
        }
    }
}

fn need<'a>(method: &Method, path: &[&'a str]) -> Need<'a> {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let either = |to_read, to_change| if reads { to_read } else { to_change };
    match *path {
        [] | ["" | "overview" | "version" | "whoami" | "extensions" | "feature-flags" | "deprecated-features"] => {
            either(Need::Nothing, Need::Administrator)
        }
        ["cluster-name"] => either(Need::Nothing, Need::Administrator),
        ["health" | "healthchecks", ..] => Need::Nothing,
        ["vhosts" | "connections" | "channels" | "consumers" | "leases" | "vhost-limits"] => {
            either(Need::Nothing, Need::Administrator)
        }
        ["exchanges" | "queues" | "bindings" | "schedules"] | ["queues", "detailed"] => Need::Nothing,
        // Whose it is decides the handler, which knows.
        ["connections", "username", _] | ["connections", _, ..] | ["channels", _, ..] => Need::Nothing,
        ["vhosts", vhost] => either(Need::Sight(vhost), Need::Administrator),
        ["vhosts", vhost, "connections" | "channels"] => Need::Sight(vhost),
        ["vhost-limits", vhost, ..] => either(Need::Sight(vhost), Need::Administrator),
        ["aliveness-test", vhost] => Need::Entry(vhost),
        ["policies" | "operator-policies"] => Need::Nothing,
        ["policies" | "operator-policies", vhost] => Need::Sight(vhost),
        ["parameters" | "global-parameters"] => Need::Policymaker(None),
        ["operator-policies", vhost, ..] => either(Need::Policymaker(Some(vhost)), Need::Administrator),
        ["parameters", limits::COMPONENT, ..] if !reads => Need::Administrator,
        ["policies", vhost, ..] | ["parameters", _, vhost, ..] => Need::Policymaker(Some(vhost)),
        ["parameters" | "global-parameters", _] => Need::Policymaker(None),
        ["queues", vhost, queue, "get" | "contents"] => Need::Use(vhost, Right::Read, Resource::Queue(queue)),
        ["queues", vhost, queue, "leases", ..] if !reads => Need::Use(vhost, Right::Read, Resource::Queue(queue)),
        ["queues", vhost, queue, "pause" | "resume" | "redrive"] if !reads => {
            Need::Use(vhost, Right::Configure, Resource::Queue(queue))
        }
        ["queues", vhost, queue, "messages", "move"] => Need::Use(vhost, Right::Configure, Resource::Queue(queue)),
        ["queues", vhost, queue, "messages", ..] => Need::Use(vhost, Right::Read, Resource::Queue(queue)),
        ["queues", vhost, queue, _, ..] if !reads => Need::Use(vhost, Right::Configure, Resource::Queue(queue)),
        ["exchanges", vhost, exchange, "publish"] => Need::Use(vhost, Right::Write, Resource::Exchange(exchange)),
        ["schedules", vhost, name, ..] if !reads => Need::Schedule(vhost, name),
        ["exchanges" | "queues" | "bindings" | "consumers" | "schedules", vhost, ..] => {
            either(Need::Sight(vhost), Need::Entry(vhost))
        }
        ["users" | "log" | "permissions" | "topic-permissions" | "user-limits" | "definitions", ..] => {
            Need::Administrator
        }
        _ => either(Need::Monitor, Need::Administrator),
    }
}

impl Caller {
    pub(super) fn is_administrator(&self) -> bool {
        self.is_local || self.user.has_tag("administrator")
    }

    pub(super) fn is_monitor(&self) -> bool {
        self.is_administrator() || self.user.has_tag("monitoring")
    }

    fn is_policymaker(&self) -> bool {
        self.is_administrator() || self.user.has_tag("policymaker")
    }

    fn may_enter(&self, api: &Api, vhost: &str) -> bool {
        let topology = api.board.topology();
        let vhost = topology.vhost(vhost);
        vhost.is_some_and(|vhost| self.is_local || topology.rights_of(&self.user.subject(), vhost).may_enter())
    }

    fn rights(&self, api: &Api, vhost: &str) -> Option<Rights> {
        let topology = api.board.topology();
        if self.is_local {
            None
        } else {
            topology.vhost(vhost).map(|vhost| topology.rights_of(&self.user.subject(), vhost))
        }
    }

    /// By whose rights the catalog acts.
    pub(super) fn subject(&self) -> Option<Subject> {
        (!self.is_local).then(|| self.user.subject())
    }

    /// What it may see in lists.
    pub(super) fn view(&self, api: &Api) -> View {
        if self.is_monitor() {
            return View::All;
        }
        let topology = api.board.topology();
        let subject = self.user.subject();
        let entered = topology.vhosts().filter(|(vhost, _)| topology.rights_of(&subject, *vhost).may_enter());
        let vhosts = entered.map(|(_, name)| name.to_string()).collect();
        View::Some { user: self.user.name.to_string(), vhosts }
    }
}

/// What of a list its reader may see.
#[derive(Clone, Debug, Default)]
pub(super) enum View {
    #[default]
    All,
    /// What is in these vhosts; of connections and channels their own.
    Some { user: String, vhosts: BTreeSet<String> },
}

impl View {
    /// Whether this one is to be seen.
    pub(super) fn shows(&self, object: &Value) -> bool {
        let Self::Some { user, .. } = self else { return true };
        let vhost = [&object["vhost"], &object["queue"]["vhost"]].into_iter().find_map(Value::as_str);
        let is_connection = object.get("peer_host").is_some() || object.get("connection_details").is_some();
        let is_own = object["user"].as_str() == Some(user);
        vhost.is_none_or(|vhost| self.shows_vhost(vhost)) && (!is_connection || is_own)
    }

    /// Whether what is in this vhost is.
    pub(super) fn shows_vhost(&self, vhost: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some { vhosts, .. } => vhosts.contains(vhost),
        }
    }
}

/// Refuses what the request's caller has no permission for in the vhost.
pub(super) fn check_use(api: &Api, vhost: VhostId, right: Right, to: Resource<'_>) -> Result<(), Refusal> {
    let subject = caller().and_then(|caller| caller.subject());
    let rights = subject.map(|subject| api.board.topology().rights_of(&subject, vhost));
    rights.map_or(Ok(()), |rights| rights.check(right, to)).map_err(Refusal::from)
}

/// Refuses a key that the request's caller may not publish with.
pub(super) fn check_key(api: &Api, vhost: VhostId, exchange: &str, key: &str) -> Result<(), Refusal> {
    let Some(subject) = caller().and_then(|caller| caller.subject()) else { return Ok(()) };
    let topology = api.board.topology();
    let is_topic = topology.exchange(vhost, exchange).is_some_and(|found| found.kind == ExchangeKind::Topic);
    let checked =
        if is_topic { topology.rights_of(&subject, vhost).check_topic(Right::Write, exchange, key) } else { Ok(()) };
    checked.map_err(|fault: Fault| fault.into())
}

/// Refuses somebody else's connection, unless the caller is one of those who may do that.
pub(super) fn check_owner(user: &str, may: impl Fn(&Caller) -> bool) -> Result<(), Refusal> {
    match caller() {
        Some(caller) if *caller.user.name != *user && !may(&caller) => {
            Err(Refusal::not_authorised("User not authorised to access object"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_thought_of_is_for_those_who_may_do_everything() {
        assert_eq!(need(&Method::GET, &["news"]), Need::Monitor);
        assert_eq!(need(&Method::POST, &["news", "x"]), Need::Administrator);
        assert_eq!(need(&Method::DELETE, &["vhosts", "/"]), Need::Administrator);
        assert_eq!(need(&Method::GET, &["vhosts", "/", "permissions"]), Need::Monitor);
    }

    #[test]
    fn paths_of_a_vhost_are_seen_or_used() {
        assert_eq!(need(&Method::GET, &["queues", "v", "q"]), Need::Sight("v"));
        assert_eq!(need(&Method::PUT, &["queues", "v", "q"]), Need::Entry("v"));
        let get = Need::Use("v", Right::Read, Resource::Queue("q"));
        assert_eq!(need(&Method::POST, &["queues", "v", "q", "get"]), get);
        assert_eq!(need(&Method::GET, &["queues", "v", "q", "messages"]), get, "messages are read");
    }
}

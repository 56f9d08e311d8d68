//! An operator who sets and clears policies: what was answered holds after every crash, and every queue is as they say.

use super::World;
use crate::trace;
use amqp::Value;
use broker::command::{CallId, CatalogAsk, CatalogInput, CatalogRequest, QueueSpec, VhostId};
use broker::policy::{AppliesTo, Pattern, Policy, PolicyKind};
use std::collections::BTreeMap;

/// What the operator knows.
#[derive(Debug, Default)]
pub(super) struct Policies {
    last_call: u64,
    /// Not answered yet: by which call, and which policy.
    asked: BTreeMap<CallId, usize>,
    /// What each may be, in the order of calls: the last thing that was answered, and what was asked for later.
    possible: BTreeMap<usize, Vec<(CallId, Option<u32>)>>,
}

impl World {
    /// Sets or clears a policy, so that nothing changes but the way in which queues are served.
    pub(super) fn change_policy(&mut self) {
        let which = self.random.index(PATTERNS.len());
        let policies = &mut self.policies;
        policies.last_call += 1;
        let (call, vhost) = (CallId(policies.last_call), VhostId(0));
        let value = (!self.random.one_in(3)).then_some(IN_FLIGHT_MIN + policies.last_call as u32);
        policies.asked.insert(call, which);
        policies.possible.entry(which).or_insert_with(|| vec![(CallId(0), None)]).push((call, value));
        let name = format!("p{which}");
        let ask = match value {
            None => CatalogAsk::ClearPolicy { kind: PolicyKind::User, name },
            Some(value) => CatalogAsk::SetPolicy(Box::new(Policy {
                kind: PolicyKind::User,
                vhost,
                name: name.into(),
                pattern: Pattern::new(PATTERNS[which]).expect("a pattern"),
                applies_to: AppliesTo::Queues,
                priority: which as i64,
                definition: [(KEY, i64::from(value))].into_iter().collect(),
            })),
        };
        let request = CatalogRequest { connection: crate::node::OPERATOR, user: None, call, vhost, ask };
        self.node.catalog_mailbox.push_back(CatalogInput::Request(request));
    }

    /// Takes in what the catalog answered.
    pub(super) fn hear_of_policies(&mut self) {
        for call in std::mem::take(&mut self.node.answered) {
            if call == super::schedules::CALL {
                continue;
            }
            let which = self.policies.asked.remove(&call).expect("an answer to a question");
            let possible = self.policies.possible.get_mut(&which).expect("it was asked");
            // Some are answered by the catalog and some by a shard, and so not in the order of asking.
            possible.retain(|(asked, _)| *asked >= call);
            trace::note(format_args!("p{which} is one of {possible:?} for certain"));
        }
    }

    /// After a restart: each is what was answered last, or what was asked later.
    pub(super) fn check_policies_after_restart(&mut self) {
        self.hear_of_policies();
        self.policies.asked.clear();
        for (which, possible) in &mut self.policies.possible {
            let policy = self.node.topology().policy(PolicyKind::User, VhostId(0), &format!("p{which}"));
            let found = policy.and_then(|policy| policy.definition.get(KEY)).and_then(Value::as_i64);
            let found = found.map(|value| u32::try_from(value).expect("as it was set"));
            let is_possible = possible.iter().any(|(_, value)| *value == found);
            assert!(is_possible, "p{which} is {found:?} after a restart, and may be {possible:?}");
            *possible = vec![(CallId(0), found)];
        }
    }

    /// At rest: every queue has what the policy says that comes first for it, where it wants no less itself.
    pub(super) fn check_policies(&mut self) {
        self.hear_of_policies();
        let views = self.all_views();
        let current = |which: usize| self.policies.possible.get(&which).and_then(|possible| possible.last()?.1);
        let first_of = |queue: &QueueSpec| {
            let matching = (0..PATTERNS.len()).rev().filter(|which| queue.name.contains(PATTERNS[*which]));
            matching.filter_map(current).next()
        };
        // Streams have no such limit.
        for view in views.iter().filter(|view| !view.spec.settings.is_stream()) {
            let own = view.spec.arguments.get("x-max-in-flight").and_then(Value::as_i64);
            let own = own.and_then(|own| u32::try_from(own).ok());
            let wanted = own.into_iter().chain(first_of(&view.spec)).min();
            assert_eq!(view.spec.settings.in_flight_max, wanted, "what {} may have in flight", view.spec.name);
        }
    }
}

const KEY: &str = "max-in-flight";
/// More than anybody has in flight here.
const IN_FLIGHT_MIN: u32 = 1_000_000;
/// Whose names have this: that with the higher number comes first.
const PATTERNS: [&str; 3] = ["", "e", "a"];

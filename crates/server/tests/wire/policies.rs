//! Policies as a client sees them: on queues that are there, on refusals, over a kill.

use super::real_client::*;
use super::*;
use broker::command::{CatalogAsk, Outcome};
use broker::policy::{AppliesTo, Pattern, Policy, PolicyKind};
use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::AMQPValue;

async fn set(server: &Server, kind: PolicyKind, name: &str, key: &str, value: impl Into<amqp::Value>) {
    let policy = Policy {
        kind,
        vhost: VhostId(0),
        name: name.into(),
        pattern: Pattern::new("^tasks").unwrap(),
        applies_to: AppliesTo::Queues,
        priority: 0,
        definition: [(key, value.into())].into_iter().collect(),
    };
    let outcome = server.board().operator().ask(VhostId(0), CatalogAsk::SetPolicy(Box::new(policy))).await.unwrap();
    assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
}

async fn redeclare(server: &Server, arguments: &[(&str, AMQPValue)]) -> Result<(), String> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    let declared = open(server).await.queue_declare("tasks".into(), options, table(arguments)).await;
    declared.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_policy_bounds_a_queue_that_is_there_and_one_that_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    for body in ["a", "b", "c"] {
        publish(&channel, ("", "tasks"), body, BasicProperties::default().with_delivery_mode(2)).await;
    }
    set(&server, PolicyKind::User, "short", "max-length", 2).await;
    eventually_places(&server, "tasks", (2, 0, 0)).await;
    set(&server, PolicyKind::Operator, "bounds", "max-length", 1).await;
    eventually_places(&server, "tasks", (1, 0, 0)).await;

    let (_copy, server) = start_on_remains_of(directory.path()).await;
    let channel = open_confirming(&server).await;
    publish(&channel, ("", "tasks"), "d", BasicProperties::default().with_delivery_mode(2)).await;
    eventually_places(&server, "tasks", (1, 0, 0)).await;
    let mut consumer = consume(&channel, "tasks").await;
    assert_eq!(body(&next(&mut consumer).await), "d");
}

#[tokio::test]
async fn other_arguments_are_refused_unless_a_policy_takes_them() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    declare(&open(&server).await, "tasks", &[("x-max-priority", AMQPValue::LongInt(3))]).await;
    let with_limit = [("x-max-priority", AMQPValue::LongInt(3)), ("x-max-length", AMQPValue::LongInt(7))];
    let refused = redeclare(&server, &with_limit).await.unwrap_err();
    assert!(
        refused.contains(
            "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'tasks' in vhost '/': received the value '7' of \
             type 'signedint' but current is none"
        ),
        "{refused}"
    );
    set(&server, PolicyKind::User, "deploys", "redeclare", "update").await;
    redeclare(&server, &with_limit).await.unwrap();
    let refused = redeclare(&server, &[("x-max-priority", AMQPValue::LongInt(4))]).await.unwrap_err();
    assert!(
        refused.contains(
            "PRECONDITION_FAILED - inequivalent arg 'x-max-priority' for queue 'tasks' in vhost '/': received '4' but current \
             is '3'"
        ),
        "{refused}"
    );

    let (_copy, server) = start_on_remains_of(directory.path()).await;
    redeclare(&server, &with_limit).await.unwrap();
    let spec = server.board().topology().queue(VhostId(0), "tasks").cloned().unwrap();
    assert_eq!(spec.settings.length_max, Some(7));
}

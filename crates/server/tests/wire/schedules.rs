//! Schedules as clients see their messages, over a stop and over what a kill leaves.

use super::real_client::*;
use super::*;
use broker::schedule::{Missed, Schedule, ScheduleId, Timing};

async fn set(server: &Server, name: &str, every_ms: u64, missed: Missed) {
    let mut properties = bytes::BytesMut::new();
    amqp::PropertyList { delivery_mode: Some(2), ..Default::default() }.encode(&mut properties);
    let schedule = Schedule {
        id: ScheduleId(0),
        vhost: VhostId(0),
        name: name.into(),
        timing: Timing::Every { ms: every_ms },
        exchange: String::new(),
        routing_key: name.to_owned(),
        properties: properties.freeze(),
        body: "beat".into(),
        missed,
        is_enabled: true,
        start_ms: None,
        end_ms: None,
        since_ms: server.board().clock().now().unix_ms,
    };
    let ask = CatalogAsk::SetSchedule(Box::new(schedule));
    let outcome = server.board().operator().ask(VhostId(0), ask).await.unwrap();
    assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
}

fn occurrence(delivery: &lapin::message::Delivery) -> i64 {
    header(&delivery.properties, "x-schedule-time").unwrap()
}

#[tokio::test]
async fn a_schedule_goes_on_after_a_stop_and_after_a_kill_and_makes_up_for_what_was_missed() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open(&server).await;
    declare(&channel, "tasks", &[]).await;
    set(&server, "tasks", 50, Missed::All).await;
    let mut consumer = consume(&channel, "tasks").await;
    let first = next(&mut consumer).await;
    assert_eq!(body(&first), "beat");
    let second = occurrence(&next(&mut consumer).await);
    assert_eq!(second, occurrence(&first) + 50);
    server.stop().await.unwrap();
    for _ in 0..3 {
        let (remains, killed) = start_on_remains_of(directory.path()).await;
        // Nothing is acknowledged: all of it comes again, and then what is new.
        let mut consumer = consume(&open(&killed).await, "tasks").await;
        let mut at = occurrence(&first);
        for number in 0..10 {
            let delivery = next(&mut consumer).await;
            assert_eq!(occurrence(&delivery), at, "message {number}");
            at += 50;
        }
        drop((remains, killed));
    }
}

#[tokio::test]
async fn a_schedule_that_was_deleted_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open(&server).await;
    declare(&channel, "tasks", &[]).await;
    set(&server, "tasks", 20, Missed::All).await;
    let mut consumer = consume(&channel, "tasks").await;
    next(&mut consumer).await;
    let ask = CatalogAsk::DeleteSchedule { name: "tasks".to_owned() };
    let outcome = server.board().operator().ask(VhostId(0), ask).await.unwrap();
    assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    let (_remains, killed) = start_on_remains_of(directory.path()).await;
    assert_eq!(killed.board().topology().schedules().count(), 0);
    // One of the same name is another one: it begins anew.
    set(&killed, "tasks", 3_600_000, Missed::All).await;
    let outcome = killed.board().operator().ask(VhostId(0), CatalogAsk::DeleteSchedule { name: "x".to_owned() }).await;
    assert!(matches!(outcome, Ok(Outcome::Missed)), "{outcome:?}");
}

//! Messages expire where they stand, as a client sees it.

use super::real_client::*;
use super::*;
use lapin::BasicProperties;

fn expiring(ms: u64) -> BasicProperties {
    BasicProperties::default().with_expiration(ms.to_string().into())
}

#[tokio::test]
async fn a_message_expires_behind_one_that_stays_and_becomes_a_dead_letter() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    let to_graves = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("graves"))];
    declare(&channel, "tasks", &to_graves).await;
    declare(&channel, "graves", &[]).await;
    publish(&channel, ("", "tasks"), "stays", Default::default()).await;
    publish(&channel, ("", "tasks"), "goes second", expiring(300)).await;
    publish(&channel, ("", "tasks"), "goes first", expiring(200)).await;
    let mut graves = consume(&channel, "graves").await;
    for expected in ["goes first", "goes second"] {
        let delivery = next(&mut graves).await;
        assert_eq!(body(&delivery), expected);
        let headers = delivery.properties.headers().clone().unwrap();
        assert_eq!(headers.inner().get("x-first-death-reason"), Some(&text("expired")));
    }
    assert_eq!(places(&server, "tasks").await, (1, 0, 0));
}

#[tokio::test]
async fn a_message_expires_behind_others_after_a_stop_and_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = start(directory.path()).await;
    let channel = open_confirming(&server).await;
    declare(&channel, "tasks", &[]).await;
    publish(&channel, ("", "tasks"), "first", Default::default()).await;
    publish(&channel, ("", "tasks"), "goes", expiring(1_000)).await;
    publish(&channel, ("", "tasks"), "last", Default::default()).await;
    let (_remains, servers) = killed_and_stopped(server, directory.path()).await;
    for server in servers {
        eventually_places(&server, "tasks", (2, 0, 0)).await;
        let channel = open(&server).await;
        for expected in ["first", "last"] {
            assert_eq!(body(&get(&channel, "tasks").await.unwrap().delivery), expected);
        }
    }
}

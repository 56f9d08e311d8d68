//! Users log in, or not; what they are like outlives the server.

use super::*;

const HASH: &str = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";

#[tokio::test]
async fn a_user_is_made_logs_in_changes_and_goes() {
    let desk = Desk::open().await;
    desk.user("app", "management,mine", [".*", ".*", ".*"]).await;
    let user = desk.get("/users/app").await;
    assert_eq!((&user["tags"], &user["hashing_algorithm"]), (&json!(["management", "mine"]), &json!("argon2id")));
    desk.client("app").await;
    let refused =
        "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.";
    assert_eq!(refusal(desk.connect("app:wrong", "%2f").await), (403, refused.to_owned()));
    desk.send("PUT", "/users/app", json!({"password": "new", "tags": []}), 204).await;
    assert_eq!(refusal(desk.connect("app:pw", "%2f").await).0, 403, "also right after it was right");
    desk.connect("app:new", "%2f").await.unwrap();
    desk.send("PUT", "/users/app", json!({"password": "", "tags": []}), 204).await;
    assert_eq!(refusal(desk.connect("app:new", "%2f").await).0, 403, "no password is right");
    desk.delete("/users/app", 204).await;
    desk.delete("/users/app", 404).await;
    assert_eq!(desk.get("/users").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_said_of_users_outlives_the_server() {
    let desk = Desk::open().await;
    desk.send("PUT", "/users/old", json!({"password_hash": HASH, "tags": "administrator"}), 201).await;
    desk.user("new", "", ["a", "b", "c"]).await;
    desk.permit("%2F", "old", [".*", ".*", ".*"]).await;
    desk.send("PUT", "/topic-permissions/%2F/new", json!({"exchange": "x", "write": "w", "read": "r"}), 201).await;
    desk.send("PUT", "/user-limits/new/max-channels", json!({"value": 3}), 204).await;
    let paths = ["/users", "/permissions", "/topic-permissions", "/user-limits", "/vhosts?columns=name,description"];
    let mut before = Vec::new();
    for path in paths {
        before.push(desk.get(path).await);
    }
    let desk = desk.again().await;
    for (path, before) in paths.iter().zip(before) {
        assert_eq!(desk.get(path).await, before, "{path}");
    }
    desk.connect("old:test12", "%2f").await.unwrap();
    desk.client("new").await;
    let answer = desk.browser("new").ask("GET", "/whoami", None).await;
    assert_eq!((answer.status, answer.json()["reason"].as_str()), (401, Some("Not management user")));
}

#[tokio::test]
async fn a_deleted_user_is_disconnected_and_stays_deleted() {
    let desk = Desk::open().await;
    desk.user("app", "", [".*", ".*", ".*"]).await;
    let app = desk.client("app").await;
    let channel = app.create_channel().await.unwrap();
    desk.delete("/users/app", 204).await;
    let text = "CONNECTION_FORCED - user 'app' is deleted";
    let closed = timeout(Duration::from_secs(10), async {
        loop {
            if let Err(error) = channel.basic_qos(0, Default::default()).await {
                return error;
            }
        }
    });
    let error = closed.await.unwrap();
    assert!(format!("{error:?}").contains(text) || !app.status().connected(), "{error:?}");
    let desk = desk.again().await;
    assert_eq!(refusal(desk.connect("app:pw", "%2f").await).0, 403);
    assert_eq!(desk.get("/permissions").await.as_array().unwrap().len(), 1, "its permissions go with it");
    // Somebody else of that name begins anew.
    desk.send("PUT", "/users/app", json!({"password": "pw", "tags": ""}), 201).await;
    assert_eq!(refusal(desk.connect("app:pw", "%2f").await).0, 530);
}

#[tokio::test]
async fn a_user_has_no_more_connections_and_channels_than_it_may() {
    let desk = Desk::open().await;
    desk.user("app", "", [".*", ".*", ".*"]).await;
    desk.send("PUT", "/user-limits/app/max-connections", json!({"value": 1}), 204).await;
    desk.send("PUT", "/user-limits/app/max-channels", json!({"value": 2}), 204).await;
    let app = desk.client("app").await;
    let text = "NOT_ALLOWED - connection refused for user 'app': user connection limit (1) is reached";
    assert_eq!(refusal(desk.connect("app:pw", "%2f").await), (530, text.to_owned()));
    let one = app.create_channel().await.unwrap();
    let _two = app.create_channel().await.unwrap();
    one.close(200, "bye".into()).await.unwrap();
    let _again = app.create_channel().await.unwrap();
    let text = "NOT_ALLOWED - number of channels opened for user 'app' has reached the maximum allowed user limit of 2";
    assert_eq!(refusal(app.create_channel().await), (530, text.to_owned()));
    desk.delete("/user-limits/app/max-connections", 204).await;
    let (_one, _other) = (desk.client("app").await, desk.client("app").await);
    assert_eq!(desk.get("/user-limits/app").await, json!([{"user": "app", "value": {"max-channels": 2}}]));
    desk.send("PUT", "/user-limits/app/max-sheep", json!({"value": 1}), 400).await;
}

#[tokio::test]
async fn wrong_passwords_cost_more_and_more_and_others_do_not_pay() {
    let desk = Desk::open().await;
    desk.user("app", "", [".*", ".*", ".*"]).await;
    desk.user("other", "", [".*", ".*", ".*"]).await;
    let begun = Instant::now();
    for _ in 0..6 {
        assert_eq!(refusal(desk.connect("app:wrong", "%2f").await).0, 403);
    }
    assert!(begun.elapsed() >= Duration::from_millis(700), "100, 200 and 400 ms: {:?}", begun.elapsed());
    let begun = Instant::now();
    desk.client("other").await;
    assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
    desk.client("app").await;
}

#[tokio::test]
async fn what_makes_no_user_is_refused() {
    let desk = Desk::open().await;
    for (document, reason) in [
        (json!({"password": "x"}), "tags_not_present"),
        (json!({"password": "x", "password_hash": HASH, "tags": ""}), "both_password_and_password_hash_are_provided"),
        (json!({"password_hash": "###", "tags": ""}), "password_hash is no hash of rabbit_password_hashing_sha256"),
        (json!({"password_hash": HASH, "hashing_algorithm": "rot13", "tags": ""}), "unknown hashing_algorithm 'rot13'"),
    ] {
        assert_eq!(desk.send("PUT", "/users/app", document, 400).await["reason"], reason);
    }
    desk.send("PUT", "/permissions/%2F/nobody", json!({"configure": "", "write": "", "read": ""}), 404).await;
    desk.send("PUT", "/permissions/nowhere/guest", json!({"configure": "", "write": "", "read": ""}), 404).await;
    let answer = desk.send("PUT", "/permissions/%2F/guest", json!({"configure": "(", "write": "", "read": ""}), 400);
    assert!(answer.await["reason"].as_str().unwrap().contains("regular expression"));
}

//! Tokens of an issuer in the place of passwords.

use super::issuer::{Issuer, Signer, claims, now_s};
use super::*;
use lapin::options::QueueBindOptions;
use server::config::{Backend, OAuth2};

/// A server that believes this key, told at an address.
async fn desk(keys: &[&Signer]) -> (Desk, Issuer) {
    let issuer = Issuer::open(keys.iter().map(|key| key.jwk()).collect()).await;
    let directory = tempfile::tempdir().unwrap();
    let oauth2 = OAuth2 {
        resource_server_id: "rabbitmq".into(),
        jwks_url: Some(issuer.url()),
        jwks_cooldown_ms: 0,
        ..OAuth2::default()
    };
    let auth_backends = vec![Backend::Internal, Backend::OAuth2];
    let config = server::Config { oauth2: Some(oauth2), auth_backends, ..config(directory.path()) };
    let server = Server::start(config).await.unwrap();
    let admin = Browser::logged_in(server.board().addresses().http[0]);
    (Desk { server, admin, directory }, issuer)
}

fn signer() -> Signer {
    Signer::new("k", "ES256")
}

impl Desk {
    /// The name beside a token means nothing.
    async fn bearer(&self, token: &str) -> Result<Connection, Error> {
        self.connect(&format!("whoever:{token}"), "%2f").await
    }
}

async fn channel(connection: &Connection) -> Channel {
    connection.create_channel().await.unwrap()
}

fn refused(right: &str, what: &str) -> (u16, String) {
    (403, format!("ACCESS_REFUSED - {right} access to {what} in vhost '/' refused for user 'app'"))
}

const NO_LOGIN: &str =
    "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.";

#[tokio::test]
async fn a_token_is_a_password_and_its_scopes_are_what_its_bearer_may_do() {
    let key = signer();
    let (desk, _issuer) = desk(&[&key]).await;
    let scopes =
        "rabbitmq.configure:*/mine.* rabbitmq.write:%2F/mine.* rabbitmq.write:%2F/amq.default rabbitmq.read:*/mine.*";
    let app = desk.bearer(&key.token(&claims("app", scopes))).await.unwrap();
    declare(&channel(&app).await, "mine.q").await.unwrap();
    assert_eq!(refusal(declare(&channel(&app).await, "other").await), refused("configure", "queue 'other'"));
    publish(&channel(&app).await, "", "mine.q").await.unwrap();
    let elsewhere = publish(&channel(&app).await, "amq.direct", "k").await;
    assert_eq!(refusal(elsewhere), refused("write", "exchange 'amq.direct'"));
    let get = async |queue: &str| channel(&app).await.basic_get(queue.into(), BasicGetOptions::default()).await;
    assert!(get("mine.q").await.unwrap().is_some());
    assert_eq!(refusal(get("other").await), refused("read", "queue 'other'"));
    let shown = desk.get("/connections").await;
    assert_eq!(shown[0]["user"], "app", "whose token it is, not what was said beside it: {shown}");
    // guest has a password still.
    desk.connect("guest:guest", "%2f").await.unwrap();
}

#[tokio::test]
async fn keys_at_a_topic_exchange_need_the_third_part() {
    let key = signer();
    let (desk, _issuer) = desk(&[&key]).await;
    let scopes =
        "rabbitmq.configure:*/* rabbitmq.write:*/q rabbitmq.write:*/amq.topic/app.* rabbitmq.read:*/amq.topic/*.in";
    let app = desk.bearer(&key.token(&claims("app", scopes))).await.unwrap();
    declare(&channel(&app).await, "q").await.unwrap();
    publish(&channel(&app).await, "amq.topic", "app.x").await.unwrap();
    let other = refusal(publish(&channel(&app).await, "amq.topic", "other").await);
    let text = "write access to topic 'other' in exchange topic 'amq.topic' in vhost '/' refused for user 'app'";
    assert_eq!(other, (403, format!("ACCESS_REFUSED - {text}")));
    let bind = async |routing_key: &str| {
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        channel(&app).await.queue_bind("q".into(), "amq.topic".into(), routing_key.into(), options, none).await
    };
    bind("a.in").await.unwrap();
    assert!(refusal(bind("a.out").await).1.contains("read access to topic 'a.out'"));
    let without = desk.bearer(&key.token(&claims("app", "rabbitmq.write:*/*"))).await.unwrap();
    assert_eq!(refusal(publish(&channel(&without).await, "amq.topic", "k").await).0, 403);
    publish(&channel(&without).await, "amq.direct", "k").await.unwrap();
}

#[tokio::test]
async fn who_is_no_bearer_is_told_what_a_wrong_password_is_told() {
    let key = signer();
    let (desk, _issuer) = desk(&[&key]).await;
    let mut expired = claims("app", "rabbitmq.read:*/*");
    expired["exp"] = json!(now_s() - 60);
    let mut other = claims("app", "rabbitmq.read:*/*");
    other["aud"] = json!("somebody else");
    let forged = signer().token(&claims("app", "rabbitmq.read:*/*"));
    for token in [key.token(&expired), key.token(&other), forged] {
        assert_eq!(refusal(desk.bearer(&token).await), (403, NO_LOGIN.to_owned()));
        let answer = Browser::new(desk.server.board().addresses().http[0], Some(&format!("Bearer {token}")));
        assert_eq!(answer.ask("GET", "/whoami", None).await.status, 401);
    }
    let elsewhere = key.token(&claims("app", "rabbitmq.read:other/*"));
    let stranger = refusal(desk.bearer(&elsewhere).await);
    assert_eq!(stranger, (530, "NOT_ALLOWED - access to vhost '/' refused for user 'app'".to_owned()));
}

#[tokio::test]
async fn a_token_is_taken_over_http_in_either_form_with_its_tags() {
    let key = signer();
    let (desk, _issuer) = desk(&[&key]).await;
    let http = desk.server.board().addresses().http[0];
    let token = key.token(&claims("app", "rabbitmq.tag:management rabbitmq.configure:*/mine* rabbitmq.read:%2F/mine*"));
    let basic = base64::engine::general_purpose::STANDARD.encode(format!(":{token}"));
    for login in [format!("Bearer {token}"), format!("bearer {token}"), format!("Basic {basic}")] {
        let app = Browser::new(http, Some(&login));
        let whoami = app.ask("GET", "/whoami", None).await;
        assert_eq!(whoami.json(), json!({"name": "app", "tags": ["management"]}));
        assert_eq!(app.ask("GET", "/users", None).await.status, 401, "not an administrator");
        assert!(matches!(app.ask("PUT", "/queues/%2F/mine", Some(&json!({}))).await.status, 201 | 204));
        assert_eq!(app.ask("PUT", "/queues/%2F/other", Some(&json!({}))).await.status, 401);
        let listed = app.ask("GET", "/queues", None).await;
        assert_eq!(listed.json().as_array().unwrap().len(), 1, "{}", listed.text);
    }
    desk.send("PUT", "/vhosts/v", json!({}), 201).await;
    let admin = key.token(&claims("root", "rabbitmq.tag:administrator"));
    let admin = Browser::new(http, Some(&format!("Bearer {admin}")));
    assert_eq!(admin.ask("GET", "/users", None).await.status, 200);
    let nobody = key.token(&claims("app", "rabbitmq.read:*/*"));
    let nobody = Browser::new(http, Some(&format!("Bearer {nobody}")));
    assert_eq!(nobody.ask("GET", "/overview", None).await.status, 401, "a tag is needed");
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_believed_at_once() {
    let (old, new) = (Signer::new("old", "ES256"), Signer::new("new", "EdDSA"));
    let (desk, issuer) = desk(&[&old]).await;
    desk.bearer(&old.token(&claims("app", "rabbitmq.read:*/*"))).await.unwrap();
    issuer.tell(Some(vec![new.jwk()]));
    desk.bearer(&new.token(&claims("app", "rabbitmq.read:*/*"))).await.unwrap();
    let taken_back = desk.bearer(&old.token(&claims("app", "rabbitmq.read:*/*"))).await;
    assert_eq!(refusal(taken_back).0, 403);
    issuer.tell(None);
    desk.bearer(&new.token(&claims("app", "rabbitmq.read:*/*"))).await.unwrap();
}

#[tokio::test]
async fn a_new_token_changes_what_an_open_connection_may_do() {
    let key = signer();
    let (desk, _issuer) = desk(&[&key]).await;
    let app = desk.bearer(&key.token(&claims("app", "rabbitmq.write:*/amq.direct"))).await.unwrap();
    let open = channel(&app).await;
    for _ in 0..5 {
        publish(&open, "amq.direct", "k").await.unwrap();
    }
    let fanout = key.token(&claims("app", "rabbitmq.write:*/amq.fanout"));
    app.update_secret(fanout.as_str().into(), "renewal".into()).await.unwrap();
    assert_eq!(refusal(publish(&open, "amq.direct", "k").await), refused("write", "exchange 'amq.direct'"));
    publish(&channel(&app).await, "amq.fanout", "k").await.unwrap();
    // With a password there is nothing to renew.
    let guest = desk.connect("guest:guest", "%2f").await.unwrap();
    guest.update_secret("whatever".into(), "renewal".into()).await.unwrap();
}

#[tokio::test]
async fn another_users_token_or_none_ends_the_connection_as_in_rabbitmq() {
    let key = signer();
    let (desk, _issuer) = desk(&[&key]).await;
    let token = |user: &str| key.token(&claims(user, "rabbitmq.write:*/*"));
    for secret in [token("other"), signer().token(&claims("app", "")), "nonsense".to_owned()] {
        let app = desk.bearer(&token("app")).await.unwrap();
        let refused = refusal(app.update_secret(secret.as_str().into(), "renewal".into()).await);
        assert_eq!(refused, (530, "NOT_ALLOWED - New secret was refused by one of the backends".to_owned()));
    }
}

#[tokio::test]
async fn after_its_time_a_token_allows_nothing_until_there_is_a_new_one() {
    let key = signer();
    let (desk, _issuer) = desk(&[&key]).await;
    let mut short = claims("app", "rabbitmq.configure:*/* rabbitmq.write:*/* rabbitmq.read:*/*");
    // Clocks may be five seconds apart: it is good for two more.
    let expires_s = now_s() - 3;
    short["exp"] = json!(expires_s);
    let app = desk.bearer(&key.token(&short)).await.unwrap();
    let open = channel(&app).await;
    publish(&open, "amq.direct", "k").await.unwrap();
    let (code, text) = loop {
        match publish(&open, "amq.direct", "k").await {
            Ok(()) => tokio::time::sleep(Duration::from_millis(50)).await,
            refused => break refusal(refused),
        }
    };
    assert!(now_s() >= expires_s + 5);
    let start = "ACCESS_REFUSED - write access to exchange 'amq.direct' in vhost '/' refused for user 'app', backend \
                 rabbit_auth_backend_oauth2 returned an error: \"Provided JWT token has expired at timestamp ";
    assert!(code == 403 && text.starts_with(&format!("{start}{expires_s} (validated at ")), "{code} {text}");
    let (code, text) = refusal(declare(&channel(&app).await, "q").await);
    assert!(code == 403 && text.contains("has expired"), "{code} {text}");
    let renewed = key.token(&claims("app", "rabbitmq.write:*/*"));
    app.update_secret(renewed.as_str().into(), "renewal".into()).await.unwrap();
    publish(&channel(&app).await, "amq.direct", "k").await.unwrap();
}

#[tokio::test]
async fn a_token_is_as_long_as_issuers_make_them() {
    let key = signer();
    let (desk, _issuer) = desk(&[&key]).await;
    let mut long = claims("app", "rabbitmq.read:*/*");
    long["groups"] = json!(vec!["a group with a rather long name"; 500]);
    let token = key.token(&long);
    assert!(token.len() > 16_000);
    desk.bearer(&token).await.unwrap();
}

#[tokio::test]
async fn without_an_issuer_a_token_is_a_wrong_password() {
    let desk = Desk::open().await;
    let token = signer().token(&claims("guest", "rabbitmq.tag:administrator"));
    assert_eq!(refusal(desk.bearer(&token).await), (403, NO_LOGIN.to_owned()));
    let browser = Browser::new(desk.server.board().addresses().http[0], Some(&format!("Bearer {token}")));
    assert_eq!(browser.ask("GET", "/overview", None).await.status, 401);
}

#[tokio::test]
async fn where_only_tokens_count_passwords_do_not() {
    let key = signer();
    let issuer = Issuer::open(vec![key.jwk()]).await;
    let directory = tempfile::tempdir().unwrap();
    let oauth2 = OAuth2 { resource_server_id: "rabbitmq".into(), jwks_url: Some(issuer.url()), ..OAuth2::default() };
    let auth_backends = vec![Backend::OAuth2];
    let config = server::Config { oauth2: Some(oauth2), auth_backends, ..config(directory.path()) };
    let server = Server::start(config).await.unwrap();
    let admin = Browser::logged_in(server.board().addresses().http[0]);
    let desk = Desk { server, admin, directory };
    assert_eq!(refusal(desk.connect("guest:guest", "%2f").await), (403, NO_LOGIN.to_owned()));
    assert_eq!(desk.admin.ask("GET", "/overview", None).await.status, 401);
    desk.bearer(&key.token(&claims("app", "rabbitmq.read:*/*"))).await.unwrap();
}

#[tokio::test]
async fn a_session_of_a_bearer_is_no_user_of_the_server_who_has_the_name() {
    let key = signer();
    let (desk, _issuer) = desk(&[&key]).await;
    let http = desk.server.board().addresses().http[0];
    let ask = async |request: String| {
        let mut socket = TcpStream::connect(http).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let form = format!("username=guest&password={}", key.token(&claims("guest", "rabbitmq.tag:management")));
    let length = form.len();
    let login = format!(
        "POST /api/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{form}"
    );
    let answer = ask(login).await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")?.split(';').next()).unwrap();
    let get = async |path: &str| {
        ask(format!("GET /api/{path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"))
            .await
    };
    assert!(get("whoami").await.ends_with(r#"{"name":"guest","tags":["management"]}"#));
    assert!(get("users").await.starts_with("HTTP/1.1 401"), "guest is an administrator here, its bearer is not");
}

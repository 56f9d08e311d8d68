//! What the first start makes, and what each start does.

use super::*;
use server::config::Secret;

async fn start(directory: TempDir, first: FirstStart) -> Result<Desk, server::StartError> {
    let server = Server::start(Config { first, ..config(directory.path()) }).await?;
    let admin = Browser::new(server.board().addresses().http[0], Some("Basic b3duZXI6c2VzYW1l"));
    Ok(Desk { server, admin, directory })
}

fn owner() -> FirstStart {
    FirstStart {
        user: Some("owner".into()),
        password: Some(Secret::new("sesame")),
        vhost: Some("jobs".into()),
        permissions: Some(["^job".into(), ".*".into(), ".*".into()]),
        queue_type: Some("quorum".into()),
        ..FirstStart::default()
    }
}

#[tokio::test]
async fn the_first_user_and_vhost_are_those_that_are_configured_and_no_others() {
    let desk = start(tempfile::tempdir().unwrap(), owner()).await.unwrap();
    let names = |list: Value| list.as_array().unwrap().iter().map(|one| one["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(desk.get("/users").await), ["owner"]);
    assert_eq!(names(desk.get("/vhosts").await), ["jobs"]);
    assert_eq!(desk.get("/vhosts/jobs").await["default_queue_type"], "quorum");
    assert_eq!(desk.get("/users/owner").await["tags"], json!(["administrator"]));
    let owner = desk.connect("owner:sesame", "jobs").await.unwrap();
    declare(&owner.create_channel().await.unwrap(), "job.q").await.unwrap();
    let other = declare(&owner.create_channel().await.unwrap(), "q").await;
    assert_eq!(refusal(other).0, 403, "the permissions are the configured ones");
    assert_eq!(refusal(desk.connect("guest:guest", "jobs").await).0, 403);
    assert_eq!(refusal(desk.connect("owner:sesame", "%2f").await).0, 530);
}

#[tokio::test]
async fn later_starts_leave_users_as_they_are() {
    let desk = start(tempfile::tempdir().unwrap(), owner()).await.unwrap();
    desk.send("PUT", "/users/owner", json!({"password": "changed", "tags": "management"}), 204).await;
    desk.server.stop().await.unwrap();
    let other = FirstStart { user: Some("another".into()), vhost: Some("else".into()), ..owner() };
    let desk = start(desk.directory, other).await.unwrap();
    desk.connect("owner:changed", "jobs").await.unwrap();
    assert_eq!(refusal(desk.connect("another:sesame", "jobs").await).0, 403);
}

#[tokio::test]
async fn guest_keeps_the_name_with_another_password_and_tags() {
    let first = FirstStart {
        password: Some(Secret::new("sesame")),
        tags: Some(vec!["monitoring".into()]),
        ..FirstStart::default()
    };
    let desk = start(tempfile::tempdir().unwrap(), first).await.unwrap();
    assert_eq!(refusal(desk.connect("guest:guest", "%2f").await).0, 403);
    desk.connect("guest:sesame", "%2f").await.unwrap();
    let guest = Browser::new(desk.server.board().addresses().http[0], Some("Basic Z3Vlc3Q6c2VzYW1l"));
    assert_eq!(guest.ask("GET", "/whoami", None).await.json()["tags"], json!(["monitoring"]));
}

#[tokio::test]
async fn a_user_without_a_password_stops_the_start() {
    let first = FirstStart { user: Some("owner".into()), ..FirstStart::default() };
    let Err(why) = start(tempfile::tempdir().unwrap(), first).await else { panic!("it starts") };
    assert_eq!(why.to_string(), "default_user is \"owner\" and there is no default_pass: set both");
    let wrong = FirstStart { permissions: Some(["[".into(), "".into(), "".into()]), ..owner() };
    let Err(why) = start(tempfile::tempdir().unwrap(), wrong).await else { panic!("it starts") };
    assert!(why.to_string().starts_with("default_permissions: "), "{why}");
}

#[tokio::test]
async fn definitions_are_loaded_at_each_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("definitions.json");
    let queue = |name: &str| json!({"queues": [{"name": name, "vhost": "/", "durable": true, "auto_delete": false, "arguments": {}}]});
    let first = || FirstStart { definitions: Some(file.clone()), ..FirstStart::default() };
    std::fs::write(&file, queue("one").to_string()).unwrap();
    let desk = start(directory, first()).await.unwrap();
    desk.server.stop().await.unwrap();
    std::fs::write(&file, queue("two").to_string()).unwrap();
    let server = Server::start(Config { first: first(), ..config(desk.directory.path()) }).await.unwrap();
    let admin = Browser::logged_in(server.board().addresses().http[0]);
    let desk = Desk { server, admin, directory: desk.directory };
    let queues = desk.get("/queues").await;
    let names: Vec<_> = queues.as_array().unwrap().iter().map(|queue| &queue["name"]).collect();
    assert_eq!(names, ["one", "two"], "what the file does not have any more stays");
}

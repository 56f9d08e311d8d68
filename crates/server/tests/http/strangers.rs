//! What strangers can do who have no login: take connections, and get a browser on this machine to ask for them.

use super::*;

#[tokio::test]
async fn who_connects_and_says_nothing_keeps_nobody_out() {
    let desk = Desk::open().await;
    let address = desk.server.board().addresses().http[0];
    let mut silent = Vec::new();
    // More than there are places; those beyond wait to be accepted.
    for _ in 0..300 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let answer = timeout(Duration::from_secs(20), desk.browser.ask("GET", "/whoami", None)).await;
    assert_eq!(answer.expect("it is let in before they give up").status, 200);
}

#[tokio::test]
async fn a_page_whose_name_leads_to_this_machine_is_not_on_it() {
    let desk = Desk::open().await;
    let user = json!({"password": "p", "tags": "administrator"});
    desk.send("PUT", "/users/boss", user, 201).await;
    let boss = Browser::new(desk.server.board().addresses().http[0], Some("Basic Ym9zczpw"));
    for (host, guest) in [
        ("evil.test:15672", 401),
        ("127.0.0.1.evil.test", 401),
        ("localhost:15672", 200),
        ("127.0.0.1:15672", 200),
        ("[::1]", 200),
    ] {
        let headers = [("Host", host)];
        assert_eq!(desk.browser.ask_with("GET", "/whoami", &headers).await.status, guest, "{host}");
        assert_eq!(boss.ask_with("GET", "/whoami", &headers).await.status, 200, "who may come from anywhere: {host}");
        let form = Browser::new(desk.server.board().addresses().http[0], None);
        let origin = format!("http://{host}");
        let headers = [("Host", host), ("Origin", origin.as_str())];
        let answer = form.send_form("/login", &headers, "username=guest&password=guest").await;
        assert_eq!(answer.status, if guest == 200 { 204 } else { 401 }, "{host}");
    }
}

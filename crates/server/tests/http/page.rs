//! The page's own paths: files for anybody, logins by a cookie, a stream of news, the log.

use super::*;
use server::recent_log::RecentLog;

const COOKIE: &str = "leveret-session=";

impl Desk {
    fn visitor(&self) -> Browser {
        Browser::new(self.server.board().addresses().http[0], None)
    }

    /// Logs in by the form; the answer, and the cookie if there is one.
    async fn log_in(&self, form: &str, headers: &[(&str, &str)]) -> (Answer, Option<String>) {
        let answer = self.visitor().send_form("/login", headers, form).await;
        let cookie = answer.header("set-cookie").and_then(|cookie| cookie.split(';').next()).map(str::to_owned);
        (answer, cookie)
    }
}

#[tokio::test]
async fn anybody_gets_the_page_and_what_it_is_made_of() {
    let desk = Desk::open().await;
    let root = Browser::at_root(desk.server.board().addresses().http[0]);
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/static/app.js", "text/javascript; charset=utf-8"),
        ("/static/views/queue.js", "text/javascript; charset=utf-8"),
        ("/static/style.css", "text/css; charset=utf-8"),
        ("/static/icon.svg", "image/svg+xml"),
    ] {
        let answer = root.ask("GET", path, None).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(content_type)), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    }
    assert_eq!(root.ask("GET", "/static/nothing.js", None).await.status, 404);
    assert_eq!(root.ask("GET", "/static/../Cargo.toml", None).await.status, 404);
}

#[tokio::test]
async fn a_form_gets_a_cookie_that_is_worth_a_login_until_the_logout() {
    let desk = Desk::open().await;
    let (answer, cookie) = desk.log_in("username=guest&password=guest", &[]).await;
    assert_eq!(answer.status, 204, "{}", answer.text);
    let set = answer.header("set-cookie").unwrap();
    assert!(set.starts_with(COOKIE) && set.ends_with("; Path=/; Max-Age=28800; HttpOnly; SameSite=Strict"), "{set}");
    let cookie = cookie.unwrap();
    let with_cookie = [("Cookie", cookie.as_str())];
    let from_page = [("Cookie", cookie.as_str()), ("X-Leveret-Page", "1")];
    let visitor = desk.visitor();
    assert_eq!(visitor.ask_with("GET", "/whoami", &with_cookie).await.json()["name"], "guest");

    let path = "/queues/%2F/by-cookie";
    let refused = visitor.ask_with("PUT", path, &with_cookie).await;
    assert_eq!(refused.status, 401, "a change needs the page's header");
    assert_eq!(refused.json()["reason"], "The request did not come from this server's own page");
    let elsewhere = [from_page.as_slice(), &[("Origin", "http://evil.example"), ("Host", "here")]].concat();
    assert_eq!(visitor.ask_with("PUT", path, &elsewhere).await.status, 401);
    let elsewhere = [from_page.as_slice(), &[("Sec-Fetch-Site", "same-site")]].concat();
    assert_eq!(visitor.ask_with("GET", "/queues", &elsewhere).await.status, 401);
    assert_eq!(visitor.ask_with("PUT", path, &from_page).await.status, 201);

    assert_eq!(visitor.ask_with("DELETE", "/login", &with_cookie).await.status, 401);
    assert_eq!(visitor.ask_with("DELETE", "/login", &from_page).await.status, 204);
    let over = visitor.ask_with("GET", "/whoami", &from_page).await;
    assert_eq!((over.status, over.header("www-authenticate")), (401, None), "the page asks for a login, no browser");
}

#[tokio::test]
async fn a_login_that_is_wrong_or_comes_from_elsewhere_gets_no_cookie() {
    let desk = Desk::open().await;
    let user = json!({"password": "p", "tags": ""});
    desk.send("PUT", "/users/worker", user, 201).await;
    for (form, headers, status) in [
        ("username=guest&password=wrong", vec![], 401),
        ("username=nobody&password=", vec![], 401),
        ("username=guest", vec![], 400),
        ("username=worker&password=p", vec![], 401),
        ("username=guest&password=guest", vec![("Origin", "http://evil.example"), ("Host", "here")], 401),
        ("username=guest&password=guest", vec![("Sec-Fetch-Site", "cross-site")], 401),
    ] {
        let (answer, cookie) = desk.log_in(form, &headers).await;
        assert_eq!((answer.status, cookie), (status, None), "{form} {headers:?}: {}", answer.text);
        assert_eq!(answer.header("www-authenticate"), None);
    }
}

#[tokio::test]
async fn another_password_or_the_end_of_the_user_ends_its_sessions() {
    let desk = Desk::open().await;
    let set = async |password: &str| {
        let answer =
            desk.browser.ask("PUT", "/users/eve", Some(&json!({"password": password, "tags": "monitoring"}))).await;
        assert!(answer.status < 300, "{}", answer.text);
    };
    for end in ["password", "deletion"] {
        set("one").await;
        let (_, cookie) = desk.log_in("username=eve&password=one", &[]).await;
        let cookie = cookie.unwrap();
        let status = async || desk.visitor().ask_with("GET", "/whoami", &[("Cookie", &cookie)]).await.status;
        assert_eq!(status().await, 200);
        match end {
            "password" => set("two").await,
            _ => {
                desk.delete("/users/eve", 204).await;
                set("one").await;
            }
        }
        assert_eq!(status().await, 401, "{end}");
    }
}

#[tokio::test]
async fn a_stream_tells_what_changed_and_ends_with_the_login() {
    let desk = Desk::open().await;
    desk.send("PUT", "/queues/%2F/watched", json!({"durable": true}), 201).await;
    let (_, cookie) = desk.log_in("username=guest&password=guest", &[]).await;
    let cookie = cookie.unwrap();
    let mut stream = TcpStream::connect(desk.server.board().addresses().http[0]).await.unwrap();
    let paths = "get=/queues/%252F/watched%3Fcolumns=messages&get=/queues/%252F/nothing";
    let request = format!("GET /api/page/events?{paths} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut told = String::new();
    let first = r#"data: [[0,200,{"messages":0}],[1,404,{"error":"Object Not Found","reason":"Not Found"}]]"#;
    wait_for(&mut stream, &mut told, first).await;
    desk.publish("watched", "x").await;
    wait_for(&mut stream, &mut told, r#"data: [[0,200,{"messages":1}]]"#).await;
    let from_page = [("Cookie", cookie.as_str()), ("X-Leveret-Page", "1")];
    assert_eq!(desk.visitor().ask_with("DELETE", "/login", &from_page).await.status, 204);
    wait_for(&mut stream, &mut told, "event: over").await;
}

async fn wait_for(stream: &mut TcpStream, told: &mut String, what: &str) {
    let wait = async {
        let mut buffer = [0; 4096];
        while !told.contains(what) {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the stream ended: {told}");
            told.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
    };
    timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what:?} is not told"));
}

#[tokio::test]
async fn streams_are_for_those_who_are_logged_in_and_lead_to_the_api_only() {
    let desk = Desk::open().await;
    assert_eq!(desk.visitor().ask("GET", "/page/events?get=/overview", None).await.status, 401);
    for query in [
        "",
        "get=overview",
        "get=/page/events",
        "put=/overview",
        "get=/a&get=/b&get=/c&get=/d&get=/e&get=/f&get=/g&get=/h&get=/i",
    ] {
        assert_eq!(desk.browser.ask("GET", &format!("/page/events?{query}"), None).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn the_log_is_shown_to_administrators() {
    let desk = Desk::open().await;
    assert_eq!(desk.get("/log").await, json!([]));
    let log = RecentLog::default();
    desk.server.board().show_log(log.clone());
    log.push(b"one\ntwo\n");
    assert_eq!(desk.get("/log?after=1").await, json!([{"seq": 2, "text": "two"}]));
    desk.send("PUT", "/users/mona", json!({"password": "p", "tags": "monitoring"}), 201).await;
    let mona = Browser::new(desk.server.board().addresses().http[0], Some("Basic bW9uYTpw"));
    assert_eq!(mona.ask("GET", "/log", None).await.status, 401);
    assert_eq!(mona.ask("GET", "/page/vitals", None).await.status, 200);
}

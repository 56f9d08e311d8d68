//! TLS, and logins by certificate.

use super::authority::{Authority, Signed, connect, connect_by, connect_over};
use super::client::{Client, Login, get};
use super::*;
use server::config::{LoginFrom, Mechanism, Verify};
use std::net::SocketAddr;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LAST_YEAR: i32 = 2999;

struct Desk {
    server: Server,
    directory: TempDir,
    authority: Authority,
    amqps: SocketAddr,
}

impl Desk {
    /// A server at `broker.test` that asks clients for a certificate.
    async fn open(is_needed: bool, change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("Authority");
        let (certificate, key) = authority.sign("broker", "broker.test", LAST_YEAR).store(directory.path(), "server");
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, &authority.pem).unwrap();
        let settings = Settings {
            tls_certificate: Some(vec![certificate]),
            tls_key: Some(vec![key]),
            tls_ca: Some(ca),
            tls_verify: Some(Verify::Peer),
            tls_fail_if_no_peer_cert: Some(is_needed),
            auth_mechanisms: Some(vec![Mechanism::Plain, Mechanism::External]),
            ..Settings::default()
        };
        let mut config = Config { amqps: any_port(), http: any_port(), ..config(directory.path(), settings) };
        change(&mut config);
        let server = Server::start(config).await.unwrap();
        let amqps = server.board().addresses().amqps[0];
        Self { server, directory, authority, amqps }
    }

    /// A client with this certificate; its mechanisms, if the server takes it.
    async fn greet(&self, shows: Option<&Signed>) -> Result<String, String> {
        let stream = connect(self.amqps, &self.authority, shows, "broker.test").await.map_err(|why| why.to_string())?;
        // Of TLS 1.3 a client learns only now what the server thinks of its certificate.
        Client::greet(stream).await.map(|client| client.mechanisms).map_err(|why| why.to_string())
    }
}

#[tokio::test]
async fn a_client_works_over_either_version_and_is_shown_with_its_certificate() {
    let desk = Desk::open(false, |_| {}).await;
    let worker = desk.authority.sign("worker", "worker.test", LAST_YEAR);
    for (version, protocol, exchange) in
        [(&rustls::version::TLS12, "tlsv1.2", "ecdhe_ecdsa"), (&rustls::version::TLS13, "tlsv1.3", "any")]
    {
        let stream = connect_by(desk.amqps, &desk.authority, Some(&worker), "broker.test", &[version]).await.unwrap();
        let mut client = Client::connect(stream).await;
        let body = vec![7; 1_000_000];
        assert!(client.round_trip(&body).await == body, "more than any buffer on the way");
        let shown = connections(&desk.server).await;
        let shown = &shown[0];
        assert_eq!((&shown["ssl"], &shown["ssl_protocol"]), (&true.into(), &protocol.into()));
        assert_eq!((&shown["ssl_key_exchange"], &shown["ssl_hash"]), (&exchange.into(), &"aead".into()));
        assert_eq!(shown["ssl_cipher"], "aes_256_gcm");
        assert_eq!(shown["peer_cert_subject"], "CN=worker,O=Work");
        assert_eq!(shown["peer_cert_issuer"], "CN=Authority,O=Work");
        assert_eq!(shown["peer_cert_validity"], "2020-01-01T00:00:00Z - 2999-12-31T00:00:00Z");
        drop(client);
        while desk.server.board().connections() > 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut plain =
        Client::connect(tokio::net::TcpStream::connect(desk.server.board().addresses().amqp[0]).await.unwrap()).await;
    assert_eq!(plain.round_trip(b"x").await, b"x");
    let shown = connections(&desk.server).await;
    assert_eq!((&shown[0]["ssl"], &shown[0]["ssl_protocol"]), (&false.into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn wrong_certificates_of_clients_are_refused() {
    let desk = Desk::open(true, |_| {}).await;
    let stranger = Authority::new("Authority");
    let told = |refusal: Result<String, String>| refusal.unwrap_err();
    assert!(told(desk.greet(None).await).contains("CertificateRequired"));
    let expired = desk.authority.sign("guest", "worker.test", 2024);
    assert!(told(desk.greet(Some(&expired)).await).contains("CertificateExpired"));
    let unknown = stranger.sign("guest", "worker.test", LAST_YEAR);
    let refusal = told(desk.greet(Some(&unknown)).await);
    assert!(
        refusal.contains("DecryptError") || refusal.contains("UnknownCA") || refusal.contains("BadCertificate"),
        "{refusal}"
    );
    assert_eq!(desk.server.board().churn().opened, 0, "none of them was a connection");
    let right = desk.authority.sign("guest", "worker.test", LAST_YEAR);
    assert_eq!(desk.greet(Some(&right)).await.unwrap(), "PLAIN EXTERNAL");
}

#[tokio::test]
async fn clients_refuse_a_server_of_another_name_authority_or_time() {
    let desk = Desk::open(false, |_| {}).await;
    let refusal = connect(desk.amqps, &desk.authority, None, "other.test").await.unwrap_err().to_string();
    assert!(refusal.contains("not valid for name"), "{refusal}");
    assert!(connect(desk.amqps, &Authority::new("Stranger"), None, "broker.test").await.is_err());
    desk.authority.sign("broker", "broker.test", 2024).store(desk.directory.path(), "expired");
    let old = Desk::open(false, |config| {
        config.tls.certificates = vec![desk.directory.path().join("expired.pem")];
        config.tls.keys = vec![desk.directory.path().join("expired.key")];
    })
    .await;
    let refusal = connect(old.amqps, &desk.authority, None, "broker.test").await.unwrap_err().to_string();
    assert!(refusal.contains("expired"), "{refusal}");
}

#[tokio::test]
async fn a_client_without_a_certificate_may_log_in_by_password_unless_one_is_needed() {
    let desk = Desk::open(false, |_| {}).await;
    assert_eq!(desk.greet(None).await.unwrap(), "PLAIN", "nobody without one is offered EXTERNAL");
    let stream = connect(desk.amqps, &desk.authority, None, "broker.test").await.unwrap();
    let mut client = Client::greet(stream).await.unwrap();
    let refused = Login::Refused(503, "COMMAND_INVALID - unknown authentication mechanism 'EXTERNAL'".to_owned());
    assert_eq!(client.log_in("EXTERNAL", b"guest").await, refused);
}

#[tokio::test]
async fn a_certificate_that_names_a_user_logs_in_and_no_other() {
    let desk = Desk::open(true, |_| {}).await;
    let log_in = async |name: &str, response: &[u8]| {
        let signed = desk.authority.sign(name, "worker.test", LAST_YEAR);
        let stream = connect(desk.amqps, &desk.authority, Some(&signed), "broker.test").await.unwrap();
        let mut client = Client::greet(stream).await.unwrap();
        let login = client.log_in("EXTERNAL", response).await;
        (client, login)
    };
    let (mut guest, login) = log_in("guest", b"").await;
    assert_eq!(login, Login::Accepted);
    guest.work().await;
    let shown = connections(&desk.server).await;
    assert_eq!((&shown[0]["user"], &shown[0]["auth_mechanism"]), (&"guest".into(), &"EXTERNAL".into()));
    let text = "ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL. For details see the broker logfile.";
    let (_client, login) = log_in("nobody", b"guest").await;
    assert_eq!(login, Login::Refused(403, text.to_owned()), "whatever it says its name is");
}

#[tokio::test]
async fn a_certificate_does_not_let_guest_in_from_elsewhere() {
    let desk = Desk::open(true, |config| config.proxy_protocol = true).await;
    let signed = desk.authority.sign("guest", "worker.test", LAST_YEAR);
    for (from, is_let_in) in [("127.0.0.9", true), ("192.0.2.7", false)] {
        let mut socket = tokio::net::TcpStream::connect(desk.amqps).await.unwrap();
        socket.write_all(format!("PROXY TCP4 {from} 192.0.2.8 5000 5671\r\n").as_bytes()).await.unwrap();
        let versions = rustls::ALL_VERSIONS;
        let stream = connect_over(socket, &desk.authority, Some(&signed), "broker.test", versions).await.unwrap();
        let login = Client::greet(stream).await.unwrap().log_in("EXTERNAL", b"").await;
        let text = "Login was refused using authentication mechanism EXTERNAL. For details see the broker logfile.";
        let refused = Login::Refused(403, format!("ACCESS_REFUSED - {text}"));
        assert_eq!(login, if is_let_in { Login::Accepted } else { refused }, "{from}");
    }
}

#[tokio::test]
async fn the_users_name_may_be_elsewhere_in_the_certificate() {
    let desk = Desk::open(true, |config| config.tls_login_from = LoginFrom::SanDns).await;
    let signed = desk.authority.sign("nobody", "guest", LAST_YEAR);
    let stream = connect(desk.amqps, &desk.authority, Some(&signed), "broker.test").await.unwrap();
    let mut client = Client::greet(stream).await.unwrap();
    assert_eq!(client.log_in("EXTERNAL", b"").await, Login::Accepted);
}

#[tokio::test]
async fn each_host_has_its_own_certificate() {
    let other = Authority::new("Other");
    let desk = Desk::open(false, |config| {
        let directory = config.data_dir.parent().unwrap().to_owned();
        let (certificate, key) = other.sign("other", "*.other.test", LAST_YEAR).store(&directory, "other");
        config.tls.certificates.push(certificate);
        config.tls.keys.push(key);
    })
    .await;
    assert!(connect(desk.amqps, &desk.authority, None, "broker.test").await.is_ok());
    assert!(connect(desk.amqps, &other, None, "a.other.test").await.is_ok());
    assert!(connect(desk.amqps, &other, None, "broker.test").await.is_err());
}

#[tokio::test]
async fn the_http_api_is_served_over_tls() {
    let desk = Desk::open(false, |config| {
        config.https = any_port();
        config.https_tls = config.tls.clone();
    })
    .await;
    let https = desk.server.board().addresses().https[0];
    let mut stream = connect(https, &desk.authority, None, "broker.test").await.unwrap();
    assert_eq!(get(&mut stream, "/api/whoami").await["name"], "guest");
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_said_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("Authority");
    let (certificate, key) = authority.sign("a", "a.test", LAST_YEAR).store(directory.path(), "a");
    let (_, other_key) = authority.sign("b", "b.test", LAST_YEAR).store(directory.path(), "b");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let locked = file("locked", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let empty = file("empty", "");
    let missing = directory.path().join("missing");
    let ca = Some(empty.clone());
    for (certificate, key, ca, expected) in [
        (&certificate, &other_key, None, "b.key: it is not the key of the certificate in "),
        (&certificate, &locked, None, "locked: the key in it has a password"),
        (&certificate, &empty, None, "empty: there is no private key in it"),
        (&empty, &key, None, "empty: there is no certificate in it"),
        (&missing, &key, None, "missing: it cannot be read: "),
        (&certificate, &key, ca, "empty: there is no certificate in it"),
    ] {
        let settings = Settings {
            tls_verify: ca.as_ref().map(|_| Verify::Peer),
            tls_certificate: Some(vec![certificate.clone()]),
            tls_key: Some(vec![key.clone()]),
            tls_ca: ca,
            ..Settings::default()
        };
        let config = Config { amqps: any_port(), ..config(directory.path(), settings) };
        let refusal = Server::start(config).await.unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
    assert!(!directory.path().join("data").exists());
}

#[tokio::test]
async fn what_is_not_tls_is_dropped() {
    let desk = Desk::open(false, |_| {}).await;
    let mut socket = tokio::net::TcpStream::connect(desk.amqps).await.unwrap();
    socket.write_all(&amqp::frame::PROTOCOL_HEADER).await.unwrap();
    let mut answer = Vec::new();
    let _reset_or_not = socket.read_to_end(&mut answer).await;
    assert!(answer.len() < 10 && !answer.starts_with(b"\x01"), "an alert of TLS at most: {answer:?}");
    assert_eq!(desk.server.board().churn().opened, 0);
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_handshake_is_dropped() {
    let desk = Desk::open(false, |config| config.handshake_timeout_ms = 50).await;
    let mut silent = tokio::net::TcpStream::connect(desk.amqps).await.unwrap();
    let mut answer = Vec::new();
    silent.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"");
    assert_eq!(desk.server.board().churn().opened, 0);
}

#[tokio::test]
async fn a_certificate_that_runs_out_in_time_fails_the_health_check() {
    let desk = Desk::open(false, |_| {}).await;
    let check = async |within: &str| {
        let mut socket = tokio::net::TcpStream::connect(desk.server.board().addresses().http[0]).await.unwrap();
        get(&mut socket, &format!("/api/health/checks/certificate-expiration/{within}")).await
    };
    assert_eq!(check("4/weeks").await["status"], "ok");
    let failed = check("2000/years").await;
    assert_eq!((&failed["status"], &failed["reason"]), (&"failed".into(), &"Certificates expiring".into()));
    let expired = &failed["expired"][0];
    assert_eq!((&expired["protocol"], &expired["port"]), (&"amqp/ssl".into(), &desk.amqps.port().into()));
    assert_eq!(expired["certfile_expires_on"], "2999-12-31T00:00:00Z");
}

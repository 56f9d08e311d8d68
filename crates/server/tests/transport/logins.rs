//! What clients say to log in that is wrong, over a socket, and what each is told.

use super::client::{Client, Login};
use super::*;
use server::config::Mechanism;
use tokio::net::TcpStream;

async fn open(mechanisms: &[Mechanism]) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { auth_mechanisms: Some(mechanisms.to_vec()), ..Settings::default() };
    let server = Server::start(config(directory.path(), settings)).await.unwrap();
    (directory, server)
}

async fn log_in(server: &Server, mechanism: &str, response: &[u8]) -> Login {
    let socket = TcpStream::connect(server.board().addresses().amqp[0]).await.unwrap();
    Client::greet(socket).await.unwrap().log_in(mechanism, response).await
}

/// A table without its length, as AMQPLAIN has it.
fn table(entries: &[(&str, amqp::Value)]) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    let table: amqp::Table = entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    table.encode(&mut out);
    out[4..].to_vec()
}

fn text(text: &str) -> amqp::Value {
    amqp::Value::Str(text.as_bytes().to_vec())
}

#[tokio::test]
async fn each_malformed_response_is_a_syntax_error_and_each_wrong_one_is_refused_alike() {
    let (_directory, server) = open(&[Mechanism::Plain, Mechanism::AmqPlain]).await;
    let invalid = |mechanism: &str| (502, format!("SYNTAX_ERROR - response to {mechanism} invalid"));
    let refused = |mechanism: &str| {
        let text = "Login was refused using authentication mechanism";
        (403, format!("ACCESS_REFUSED - {text} {mechanism}. For details see the broker logfile."))
    };
    let unknown = |mechanism: &str| (503, format!("COMMAND_INVALID - unknown authentication mechanism '{mechanism}'"));
    let whole = table(&[("LOGIN", text("guest")), ("PASSWORD", text("guest"))]);
    assert_eq!(log_in(&server, "AMQPLAIN", &whole).await, Login::Accepted);
    for (mechanism, response, (code, text)) in [
        ("PLAIN", b"".to_vec(), invalid("PLAIN")),
        ("PLAIN", b"guest".to_vec(), invalid("PLAIN")),
        ("PLAIN", b"guest\0guest".to_vec(), invalid("PLAIN")),
        ("PLAIN", b"\0guest\0guest\0".to_vec(), invalid("PLAIN")),
        ("PLAIN", b"\0guest\0".to_vec(), refused("PLAIN")),
        ("PLAIN", b"\0\0guest".to_vec(), refused("PLAIN")),
        ("PLAIN", b"\0\xff\xfe\0guest".to_vec(), refused("PLAIN")),
        ("AMQPLAIN", b"".to_vec(), invalid("AMQPLAIN")),
        ("AMQPLAIN", whole[..whole.len() - 1].to_vec(), invalid("AMQPLAIN")),
        ("AMQPLAIN", [&whole[..], b"\x05"].concat(), invalid("AMQPLAIN")),
        ("AMQPLAIN", table(&[("LOGIN", text("guest"))]), invalid("AMQPLAIN")),
        ("AMQPLAIN", table(&[("PASSWORD", text("guest"))]), invalid("AMQPLAIN")),
        ("AMQPLAIN", table(&[("LOGIN", amqp::Value::Bool(true)), ("PASSWORD", text("x"))]), invalid("AMQPLAIN")),
        ("AMQPLAIN", table(&[("LOGIN", text("guest")), ("PASSWORD", text("x"))]), refused("AMQPLAIN")),
        ("RABBIT-CR-DEMO", b"guest".to_vec(), unknown("RABBIT-CR-DEMO")),
        ("plain", b"\0guest\0guest".to_vec(), unknown("plain")),
        ("", b"".to_vec(), unknown("")),
        ("EXTERNAL", b"guest".to_vec(), unknown("EXTERNAL")),
    ] {
        let login = log_in(&server, mechanism, &response).await;
        assert_eq!(login, Login::Refused(code, text), "{mechanism} {response:?}");
    }
}

#[tokio::test]
async fn without_tls_a_certificate_is_not_offered_nor_taken() {
    let (_directory, server) = open(&[Mechanism::Plain, Mechanism::External]).await;
    let socket = TcpStream::connect(server.board().addresses().amqp[0]).await.unwrap();
    let mut client = Client::greet(socket).await.unwrap();
    assert_eq!(client.mechanisms, "PLAIN");
    let text = "COMMAND_INVALID - unknown authentication mechanism 'EXTERNAL'".to_owned();
    assert_eq!(client.log_in("EXTERNAL", b"guest").await, Login::Refused(503, text));
    assert!(matches!(log_in(&server, "AMQPLAIN", b"").await, Login::Refused(503, _)), "it was not offered");
}

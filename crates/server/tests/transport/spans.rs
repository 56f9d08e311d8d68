//! Spans over TLS.

use super::authority::Authority;
use super::client::Client;
use super::collector::{Collector, Wrap, spans_of};
use super::*;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use server::config::Tracing;
use std::io;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

#[derive(Clone)]
struct Tls(TlsAcceptor);

impl Wrap for Tls {
    type Stream = TlsStream<TcpStream>;

    async fn wrap(&self, socket: TcpStream) -> io::Result<Self::Stream> {
        self.0.accept(socket).await
    }
}

async fn collector(by: &Authority) -> Collector {
    let signed = by.sign("collector", "localhost", 2099);
    let certificate = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Collector::listen(listener, Tls(TlsAcceptor::from(Arc::new(config))))
}

#[tokio::test]
async fn spans_go_to_a_collector_whose_certificate_is_from_a_known_authority_and_to_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (known, unknown) = (Authority::new("known"), Authority::new("unknown"));
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, &known.pem).unwrap();
    for (authority, is_known) in [(&known, true), (&unknown, false)] {
        let mut collector = collector(authority).await;
        let endpoint = Some(format!("https://localhost:{}", collector.address.port()));
        let tracing = Tracing { endpoint, ca: Some(ca.clone()), ..Tracing::default() };
        let settings = Settings { tracing: Some(tracing), ..Settings::default() };
        let server = Server::start(config(directory.path(), settings)).await.unwrap();
        let mut client = Client::connect(TcpStream::connect(server.board().addresses().amqp[0]).await.unwrap()).await;
        client.publish_traced("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").await;
        let request = collector.request().await;
        if is_known {
            assert_eq!(spans_of(&request.body)[0]["name"], "publish unknown");
        } else {
            assert!(request.head.starts_with("no connection: "), "{}", request.head);
        }
        drop(client);
        let board = Arc::clone(server.board());
        server.stop().await.unwrap();
        let is_taken = u64::from(is_known);
        assert_eq!(board.exported_spans(), (is_taken, 1 - is_taken));
    }
    let missing =
        Tracing { endpoint: Some("https://c".to_owned()), ca: Some("no-such.pem".into()), ..Tracing::default() };
    let settings = Settings { tracing: Some(missing), ..Settings::default() };
    let refused = Server::start(config(directory.path(), settings)).await.unwrap_err().to_string();
    assert!(refused.contains("no-such.pem"), "{refused}");
}

//! HTTP requests of the server's own: to issuers of tokens, and to collectors of spans. One connection each, no redirects,
//! bounded answers, and authorities that the configuration names.

use crate::tls::{self, TlsError};
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Whom others' certificates may be from.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    tls: Arc<ClientConfig>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Outgoing {
    /// Trusts the authorities in this file, else the system's.
    pub(crate) fn new(ca: Option<&Path>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        match ca {
            Some(ca) => {
                for certificate in tls::read_certificates(ca)? {
                    let wrong = |why| TlsError::new(ca, &format!("a certificate in it is no authority's: {why}"));
                    roots.add(certificate).map_err(wrong)?;
                }
            }
            None => {
                let bundle = SYSTEM_BUNDLES.into_iter().map(Path::new).find(|bundle| bundle.exists());
                let found = bundle.map(tls::read_certificates).transpose()?.unwrap_or_default();
                // One among many that rustls does not like is no reason to trust none.
                let _added = roots.add_parsable_certificates(found);
            }
        }
        let versions = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| TlsError::new(&PathBuf::from("TLS"), &why.to_string()))?;
        Ok(Self { tls: Arc::new(versions.with_root_certificates(roots).with_no_client_auth()) })
    }

    /// Asks the host of this address. The request's own address is the path alone; `Host` is added to its headers.
    ///
    /// # Errors
    /// A clause for the log: no answer, none in time, or one whose body is longer than that.
    pub(crate) async fn ask(
        &self,
        uri: &Uri,
        request: Request<Body>,
        patience: Duration,
        bytes_max: usize,
    ) -> Result<Answer, String> {
        match timeout(patience, self.exchange(uri, request, bytes_max)).await {
            Ok(answered) => answered,
            Err(_) => Err(format!("it did not answer in {} s", patience.as_secs())),
        }
    }

    async fn exchange(&self, uri: &Uri, mut request: Request<Body>, bytes_max: usize) -> Result<Answer, String> {
        let is_https = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or("it names no host")?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let authority = authority.parse().map_err(|_| "its host cannot be named")?;
        request.headers_mut().insert(header::HOST, authority);
        let socket = TcpStream::connect((host.as_str(), port)).await.map_err(|why| why.to_string())?;
        if !is_https {
            return converse(socket, request, bytes_max).await;
        }
        let name = ServerName::try_from(host).map_err(|why| why.to_string())?;
        let socket = TlsConnector::from(Arc::clone(&self.tls)).connect(name, socket).await;
        converse(socket.map_err(|why| why.to_string())?, request, bytes_max).await
    }
}

async fn converse(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
    bytes_max: usize,
) -> Result<Answer, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(socket)).await.map_err(|why: hyper::Error| why.to_string())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(|why| why.to_string())?;
        let (head, body) = answer.into_parts();
        let body = to_bytes(Body::new(body), bytes_max).await.map_err(|why| why.to_string())?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_vec() })
    };
    // The connection lives as long as its answer, and no longer.
    tokio::pin!(connection, answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = &mut connection => match ended {
            Ok(()) => answered.await,
            Err(why) => Err(why.to_string()),
        },
    }
}

/// Where systems keep the authorities that they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

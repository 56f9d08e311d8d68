//! One document from an issuer, over HTTPS. No redirects, no more than a megabyte, and no longer than a few seconds.

use crate::config::OAuth2;
use crate::tls::{self, TlsError};
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, Uri, header};
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

/// Whom issuers' certificates may be from.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    tls: Arc<ClientConfig>,
}

impl Fetcher {
    /// Trusts the authorities that the configuration names, else the system's.
    pub(crate) fn new(config: &OAuth2) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        match &config.ca {
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

    /// The document at this address.
    ///
    /// # Errors
    /// A clause for the log.
    pub(crate) async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let uri: Uri = url.parse().map_err(|why| format!("{url:?} is no URL: {why}"))?;
        match timeout(PATIENCE, self.get_uri(&uri)).await {
            Ok(answered) => answered.map_err(|why| format!("{uri}: {why}")),
            Err(_) => Err(format!("{uri} did not answer in {} s", PATIENCE.as_secs())),
        }
    }

    async fn get_uri(&self, uri: &Uri) -> Result<Vec<u8>, String> {
        let is_https = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or("it names no host")?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let socket = TcpStream::connect((host.as_str(), port)).await.map_err(|why| why.to_string())?;
        if !is_https {
            return ask(socket, uri).await;
        }
        let name = ServerName::try_from(host).map_err(|why| why.to_string())?;
        let socket = TlsConnector::from(Arc::clone(&self.tls)).connect(name, socket).await;
        ask(socket.map_err(|why| why.to_string())?, uri).await
    }
}

async fn ask(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, uri: &Uri) -> Result<Vec<u8>, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(socket)).await.map_err(|why: hyper::Error| why.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .body(Body::empty())
        .map_err(|why| why.to_string())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(|why| why.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("it answered {} (redirects are not followed)", answer.status()));
        }
        let body = to_bytes(Body::new(answer.into_body()), BYTES_MAX).await;
        body.map(|body| body.to_vec()).map_err(|why| why.to_string())
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

const PATIENCE: Duration = Duration::from_secs(5);

const BYTES_MAX: usize = 1 << 20;

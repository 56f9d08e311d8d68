//! TLS of a client: whom to trust, and who to be. The broker's certificate is always verified.

use super::Gone;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What a URL says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Who may have signed the broker's certificate; `None` = whom the system trusts.
    pub(crate) authorities: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    /// Whose certificate it should be; `None` = the host's.
    pub(crate) server_name: Option<String>,
}

impl Tls {
    /// Files are read anew each time: they may have been replaced.
    pub(crate) async fn shake_hands(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, Gone> {
        let config = self.config()?;
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name.clone())
            .map_err(|_| Gone::Tls(format!("{name:?} is no name that a certificate could have")))?;
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        shaken.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => Gone::Tls(format!(
                "the certificate of {host} is not to be trusted ({why}); ?cacertfile=FILE in the URL names who signed it"
            )),
            Some(other) => Gone::Tls(format!("{host} and this program do not agree on TLS: {other}")),
            None => Gone::Lost(format!("the TLS handshake with {host} broke: {error}")),
        })
    }

    fn config(&self) -> Result<ClientConfig, Gone> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Gone::Tls(error.to_string()))?
            .with_root_certificates(self.roots()?);
        match (&self.certificate, &self.key) {
            (Some(certificate), key) => {
                let key = key.as_ref().unwrap_or(certificate);
                let chain = certificates(certificate)?;
                let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error))?;
                builder.with_client_auth_cert(chain, secret).map_err(|error| wrong(certificate, error))
            }
            (None, _) => Ok(builder.with_no_client_auth()),
        }
    }

    fn roots(&self) -> Result<RootCertStore, Gone> {
        let mut roots = RootCertStore::empty();
        if let Some(file) = &self.authorities {
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| wrong(file, error))?;
            }
            return Ok(roots);
        }
        let named = std::env::var_os(BUNDLE_VARIABLE).map(PathBuf::from);
        let bundle = named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|bundle| bundle.exists()));
        let bundle = bundle.ok_or_else(|| {
            let text = "this system has no list of authorities; ?cacertfile=FILE in the URL names whom to trust";
            Gone::Tls(text.to_owned())
        })?;
        // A system's list may have some that nobody can use.
        roots.add_parsable_certificates(certificates(&bundle)?);
        Ok(roots)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Gone> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(none) if none.is_empty() => Err(wrong(file, "there is no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(wrong(file, error)),
    }
}

fn wrong(file: &Path, why: impl Display) -> Gone {
    Gone::Tls(format!("{}: {why}", file.display()))
}

/// Where Debian, Fedora, SUSE and Alpine have theirs.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";

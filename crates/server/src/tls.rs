//! TLS: what the files of certificates and keys come to, and what a handshake came to.
//!
//! rustls does the work. Files are read as a whole before anything is changed, so that a wrong one leaves the server
//! with what it had; each error names its file. A client that comes after that sees the new certificates, one that is
//! connected is left alone.

use crate::config::{Config, LoginFrom, TlsConfig, TlsVersion, Verify};
use broker::inspect::{CertificateView, TlsView};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;
use tokio_rustls::TlsAcceptor;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

/// A file is not what it ought to be. Its text is one sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {why}", file = file.display())]
pub struct TlsError {
    file: PathBuf,
    why: String,
}

impl TlsError {
    pub(crate) fn new(file: &Path, why: &str) -> Self {
        Self { file: file.to_owned(), why: why.to_owned() }
    }
}

/// Both services' TLS, as their next client will meet it; `None` = that service has none.
#[derive(Debug, Default)]
pub(crate) struct Tls {
    amqps: RwLock<Option<Arc<ServerConfig>>>,
    https: RwLock<Option<Arc<ServerConfig>>>,
}

/// What was read and is not in use yet.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    amqps: Option<Arc<ServerConfig>>,
    https: Option<Arc<ServerConfig>>,
}

impl Loaded {
    /// Reads the files of the services that are on.
    pub(crate) fn read(config: &Config) -> Result<Self, TlsError> {
        let is_on = |addresses: &[_]| !addresses.is_empty();
        Ok(Self {
            amqps: is_on(&config.amqps.addresses).then(|| load(&config.tls, &[])).transpose()?,
            https: is_on(&config.https.addresses).then(|| load(&config.https_tls, &[b"http/1.1"])).transpose()?,
        })
    }
}

impl Tls {
    /// Meets clients by this from now on.
    pub(crate) fn use_from_now_on(&self, loaded: Loaded) {
        *self.amqps.write().unwrap_or_else(PoisonError::into_inner) = loaded.amqps;
        *self.https.write().unwrap_or_else(PoisonError::into_inner) = loaded.https;
    }

    /// For the next AMQP client.
    pub(crate) fn amqps(&self) -> Option<TlsAcceptor> {
        self.amqps.read().unwrap_or_else(PoisonError::into_inner).clone().map(TlsAcceptor::from)
    }

    /// For the next HTTP client.
    pub(crate) fn https(&self) -> Option<TlsAcceptor> {
        self.https.read().unwrap_or_else(PoisonError::into_inner).clone().map(TlsAcceptor::from)
    }
}

/// What of the services' files would show that one was changed: when it was, and how long it is.
pub(crate) fn fingerprint(config: &Config) -> Vec<Option<(SystemTime, u64)>> {
    let files = [&config.tls, &config.https_tls]
        .into_iter()
        .flat_map(|tls| tls.certificates.iter().chain(&tls.keys).chain(&tls.ca));
    let look = |file: &PathBuf| {
        let found = std::fs::metadata(file).ok()?;
        Some((found.modified().ok()?, found.len()))
    };
    files.map(look).collect()
}

fn load(config: &TlsConfig, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut certificates = Vec::new();
    for (certificate, key) in config.certificates.iter().zip(&config.keys) {
        certificates.push(Named::read(certificate, key, &provider)?);
    }
    let versions = config.versions.iter().map(|version| match version {
        TlsVersion::Tls12 => &rustls::version::TLS12,
        TlsVersion::Tls13 => &rustls::version::TLS13,
    });
    let versions: Vec<_> = versions.collect();
    let first = config.certificates.first().cloned().unwrap_or_default();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|why| TlsError { file: first, why: why.to_string() })?;
    let builder = match (config.verify, &config.ca) {
        (Verify::Peer, Some(ca)) => {
            let mut roots = RootCertStore::empty();
            for certificate in read_certificates(ca)? {
                let wrong =
                    |why| TlsError { file: ca.clone(), why: format!("a certificate in it is no authority's: {why}") };
                roots.add(certificate).map_err(wrong)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if config.fail_if_no_peer_cert { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|why| TlsError { file: ca.clone(), why: why.to_string() })?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(Certificates(certificates)));
    server.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(server))
}

/// A certificate with its key, and the names it is for.
#[derive(Debug)]
struct Named {
    key: Arc<CertifiedKey>,
    /// In small letters; `*.` stands for one label.
    names: Vec<String>,
}

impl Named {
    fn read(file: &Path, key_file: &Path, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let chain = read_certificates(file)?;
        let key = read_key(key_file)?;
        let wrong = |why: String| TlsError { file: file.to_owned(), why };
        let leaf =
            Certificate::from_der(&chain[0]).map_err(|why| wrong(format!("it holds no X.509 certificate: {why}")))?;
        warn_of_age(file, &leaf);
        let mut names: Vec<_> = alternative_names(&leaf)
            .filter_map(|name| match name {
                GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
                _ => None,
            })
            .collect();
        names.extend(common_name(&leaf).filter(|_| names.is_empty()).map(|name| name.to_ascii_lowercase()));
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|why| match why {
            rustls::Error::InconsistentKeys(_) => TlsError {
                file: key_file.to_owned(),
                why: format!("it is not the key of the certificate in {}", file.display()),
            },
            why => TlsError { file: key_file.to_owned(), why: format!("it cannot be used as a key: {why}") },
        })?;
        Ok(Self { key: Arc::new(key), names })
    }

    fn is_for(&self, host: &str) -> bool {
        let domain = host.split_once('.').map_or("", |(_, domain)| domain);
        self.names.iter().any(|name| name == host || name.strip_prefix("*.").is_some_and(|rest| rest == domain))
    }
}

/// Chosen from by the name that a client asks for.
#[derive(Debug)]
struct Certificates(Vec<Named>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name().map(str::to_ascii_lowercase);
        let named = host.and_then(|host| self.0.iter().find(|named| named.is_for(&host)));
        named.or(self.0.first()).map(|named| Arc::clone(&named.key))
    }
}

pub(crate) fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |why| TlsError { file: file.to_owned(), why };
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => {
            Err(wrong("there is no certificate in it (-----BEGIN CERTIFICATE-----)".to_owned()))
        }
        Ok(found) => Ok(found),
        Err(why) => Err(wrong(pem_error(why))),
    }
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(file).map_err(|why| {
        let is_locked = || {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            text.contains("ENCRYPTED")
        };
        let why = match why {
            pem::Error::NoItemsFound if is_locked() => {
                "the key in it has a password; take that off (openssl pkey -in FILE -out FILE) and protect the file instead".to_owned()
            }
            pem::Error::NoItemsFound => "there is no private key in it (-----BEGIN PRIVATE KEY-----)".to_owned(),
            why => pem_error(why),
        };
        TlsError { file: file.to_owned(), why }
    })
}

fn pem_error(why: pem::Error) -> String {
    match why {
        pem::Error::Io(why) => format!("it cannot be read: {why}"),
        why => format!("it is not PEM: {why}"),
    }
}

/// When the first certificate in each of these files runs out, and how that is written. A file that cannot be read has
/// none: whoever loads it says why.
pub(crate) fn expiries(files: &[PathBuf]) -> Vec<(&Path, SystemTime, String)> {
    let expiry = |file: &PathBuf| {
        let first = CertificateDer::pem_file_iter(file).ok()?.next()?.ok()?;
        let not_after = Certificate::from_der(&first).ok()?.tbs_certificate.validity.not_after;
        Some((not_after.to_system_time(), moment(not_after)))
    };
    files.iter().filter_map(|file| expiry(file).map(|(at, shown)| (file.as_path(), at, shown))).collect()
}

/// A certificate that has run out is served, as by RabbitMQ: some clients do not look. But nobody should have to guess.
fn warn_of_age(file: &Path, certificate: &Certificate) {
    let validity = &certificate.tbs_certificate.validity;
    let now = SystemTime::now();
    if validity.not_after.to_system_time() < now {
        tracing::warn!(
            "the certificate in {} ran out on {}: clients will refuse it",
            file.display(),
            moment(validity.not_after)
        );
    } else if validity.not_before.to_system_time() > now {
        tracing::warn!("the certificate in {} holds from {} only", file.display(), moment(validity.not_before));
    }
}

/// What a handshake came to.
pub(crate) fn view(connection: &ServerConnection, login_from: LoginFrom) -> TlsView {
    let protocol = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "tlsv1.2",
        Some(rustls::ProtocolVersion::TLSv1_3) => "tlsv1.3",
        _ => "",
    };
    let suite = connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite())).unwrap_or_default();
    let suite = suite.to_ascii_lowercase();
    // TLS13_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: the end is the key derivation's hash.
    let (exchange, cipher) = suite
        .strip_prefix("tls_")
        .and_then(|rest| rest.split_once("_with_"))
        .unwrap_or_else(|| ("any", suite.strip_prefix("tls13_").unwrap_or(&suite)));
    let cipher = cipher.rsplit_once("_sha").map_or(cipher, |(cipher, _)| cipher);
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let certificate = leaf.and_then(|der| Certificate::from_der(der).ok());
    TlsView {
        protocol: protocol.to_owned(),
        key_exchange: exchange.to_owned(),
        cipher: cipher.to_owned(),
        hash: "aead".to_owned(),
        certificate: certificate.map(|certificate| {
            let fields = &certificate.tbs_certificate;
            CertificateView {
                subject: fields.subject.to_string(),
                issuer: fields.issuer.to_string(),
                validity: format!("{} - {}", moment(fields.validity.not_before), moment(fields.validity.not_after)),
                user: user(&certificate, login_from),
            }
        }),
    }
}

/// The user's name in a certificate (RabbitMQ's `ssl_cert_login_from`).
fn user(certificate: &Certificate, from: LoginFrom) -> Option<String> {
    let mut names = alternative_names(certificate);
    let found = match from {
        LoginFrom::DistinguishedName => Some(certificate.tbs_certificate.subject.to_string()),
        LoginFrom::CommonName => common_name(certificate),
        LoginFrom::SanDns => names.find_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
            _ => None,
        }),
        LoginFrom::SanEmail => names.find_map(|name| match name {
            GeneralName::Rfc822Name(name) => Some(name.as_str().to_owned()),
            _ => None,
        }),
        LoginFrom::SanUri => names.find_map(|name| match name {
            GeneralName::UniformResourceIdentifier(name) => Some(name.as_str().to_owned()),
            _ => None,
        }),
    };
    found.filter(|name| !name.is_empty())
}

/// All common names of the subject, with commas between them, as RabbitMQ has it.
fn common_name(certificate: &Certificate) -> Option<String> {
    const COMMON_NAME: &str = "2.5.4.3";
    let mut joined = String::new();
    for part in certificate.tbs_certificate.subject.0.iter().flat_map(|set| set.0.iter()) {
        if part.oid.to_string() == COMMON_NAME {
            let value = &part.value;
            let text = value
                .decode_as::<Utf8StringRef<'_>>()
                .map(|text| text.as_str().to_owned())
                .or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned()))
                .or_else(|_| value.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().to_owned()))
                .or_else(|_| value.decode_as::<TeletexStringRef<'_>>().map(|text| text.as_str().to_owned()))
                .ok()?;
            let comma = if joined.is_empty() { "" } else { "," };
            write!(joined, "{comma}{text}").ok()?;
        }
    }
    (!joined.is_empty()).then_some(joined)
}

fn alternative_names(certificate: &Certificate) -> impl Iterator<Item = GeneralName> + use<> {
    let found = certificate.tbs_certificate.get::<SubjectAltName>().ok().flatten();
    found.map(|(_, names)| names.0).unwrap_or_default().into_iter()
}

/// `2026-01-31T12:00:00Z`
fn moment(time: Time) -> String {
    time.to_date_time().to_string()
}

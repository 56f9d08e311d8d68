//! One document from an issuer, over HTTPS. No redirects, no more than a megabyte, and no longer than a few seconds.

use crate::config::OAuth2;
use crate::outgoing::Outgoing;
use crate::tls::TlsError;
use axum::body::Body;
use axum::http::{Request, StatusCode, Uri, header};
use std::time::Duration;

/// Whom issuers' certificates may be from.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    outgoing: Outgoing,
}

impl Fetcher {
    /// Trusts the authorities that the configuration names, else the system's.
    pub(crate) fn new(config: &OAuth2) -> Result<Self, TlsError> {
        Ok(Self { outgoing: Outgoing::new(config.ca.as_deref())? })
    }

    /// The document at this address.
    ///
    /// # Errors
    /// A clause for the log.
    pub(crate) async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let uri: Uri = url.parse().map_err(|why| format!("{url:?} is no URL: {why}"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path).header(header::ACCEPT, "application/json").body(Body::empty());
        let request = request.map_err(|why| format!("{uri}: {why}"))?;
        let answer = self.outgoing.ask(&uri, request, PATIENCE, BYTES_MAX).await;
        let answer = answer.map_err(|why| format!("{uri}: {why}"))?;
        if answer.status != StatusCode::OK {
            return Err(format!("{uri}: it answered {} (redirects are not followed)", answer.status));
        }
        Ok(answer.body)
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

const BYTES_MAX: usize = 1 << 20;

//! `[oauth2]`: whose tokens are believed, and how they are read. The keys are RabbitMQ's `auth_oauth2.*`.

use super::{ConfigError, contradiction};
use crate::oauth::Algorithm;
use axum::http::Uri;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct OAuth2 {
    /// What tokens call this server in `aud`, and what scopes begin with.
    pub resource_server_id: String,
    /// Where the issuer's OpenID configuration is, which says where its keys are.
    pub issuer: Option<String>,
    /// The path of that below `issuer`.
    pub discovery_endpoint_path: Option<String>,
    /// Where its keys are, without asking for that.
    pub jwks_url: Option<String>,
    /// A file of keys, shared secrets among them.
    pub jwks_file: Option<PathBuf>,
    /// Files of public keys or certificates, by the ids that tokens call them.
    pub signing_keys: BTreeMap<String, PathBuf>,
    /// The key of tokens that name none.
    pub default_key: Option<String>,
    /// The only algorithms that are taken; empty = all that fit the keys.
    pub algorithms: Vec<String>,
    /// A file of authorities that the issuer's certificate may be from; `None` = the system's.
    pub ca: Option<PathBuf>,
    /// How long nobody is asked for keys after somebody was, in milliseconds.
    pub jwks_cooldown_ms: u64,
    /// Whether `aud` must name this server.
    pub verify_aud: bool,
    /// What scopes begin with; `None` = `RESOURCE_SERVER_ID.`
    pub scope_prefix: Option<String>,
    /// What scopes stand for.
    pub scope_aliases: BTreeMap<String, Alias>,
    /// Claims that have scopes besides `scope`, divided by spaces; a dot leads into an object.
    pub additional_scopes_key: Option<String>,
    /// Claims that name the user, before `sub` and `client_id`.
    pub preferred_username_claims: Vec<String>,
}

/// Scopes, as a list or divided by spaces.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "expected a scope, scopes divided by spaces, or a list of them")]
#[expect(missing_docs, reason = "the names are the meaning")]
pub enum Alias {
    Text(String),
    List(Vec<String>),
}

impl Alias {
    /// Each of them.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        let texts = match self {
            Self::Text(text) => std::slice::from_ref(text),
            Self::List(list) => list,
        };
        texts.iter().flat_map(|text| text.split(' ')).filter(|scope| !scope.is_empty())
    }
}

impl Default for OAuth2 {
    fn default() -> Self {
        Self {
            resource_server_id: String::new(),
            issuer: None,
            discovery_endpoint_path: None,
            jwks_url: None,
            jwks_file: None,
            signing_keys: BTreeMap::new(),
            default_key: None,
            algorithms: Vec::new(),
            ca: None,
            jwks_cooldown_ms: 10_000,
            verify_aud: true,
            scope_prefix: None,
            scope_aliases: BTreeMap::new(),
            additional_scopes_key: None,
            preferred_username_claims: Vec::new(),
        }
    }
}

impl OAuth2 {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.resource_server_id.is_empty() {
            return Err(contradiction(
                "oauth2.resource_server_id",
                "tokens name the server that they are for; say what they call this one, such as \"rabbitmq\"",
            ));
        }
        for (key, url) in [("oauth2.issuer", &self.issuer), ("oauth2.jwks_url", &self.jwks_url)] {
            url.as_ref().map_or(Ok(()), |url| Self::check_url(url)).map_err(|why| contradiction(key, &why))?;
        }
        if let Some(unknown) = self.algorithms.iter().find(|name| Algorithm::named(name).is_none()) {
            let known = "RS, PS and HS with 256, 384 and 512, ES256, ES384 and EdDSA";
            return Err(contradiction("oauth2.algorithms", &format!("{unknown:?} is none of {known}")));
        }
        let has_keys = self.issuer.is_some() || self.jwks_url.is_some() || self.jwks_file.is_some();
        if !has_keys && self.signing_keys.is_empty() {
            return Err(contradiction(
                "oauth2.issuer",
                "nobody's tokens could be checked; name the issuer, or its keys: jwks_url, jwks_file or signing_keys",
            ));
        }
        Ok(())
    }

    /// Refuses an address that anybody could answer for.
    pub(crate) fn check_url(url: &str) -> Result<(), String> {
        let uri: Uri = url.parse().map_err(|_| format!("{url:?} is not a URL"))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        match uri.scheme_str() {
            Some("https") if !host.is_empty() => Ok(()),
            Some("http") if is_here => Ok(()),
            _ => Err(format!(
                "{url:?} must begin with https://, for whoever answers makes users; http:// is for this machine only"
            )),
        }
    }
}

//! OAuth 2: tokens (JWT) in the place of passwords. Who is who, and who may do what, is then the issuer's to say.
//!
//! A token is believed if a key of the issuer signed it, by an algorithm that the key is for, and it is for this server and for
//! now. Keys are from files, and from an address that is asked again when a token names a key that is not known, and after a
//! while; at most so often, and what was known stays in use while it does not answer.

mod claims;
mod fetch;
mod signature;

use crate::config::{Backend, Config, OAuth2};
use crate::tls::TlsError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::access::User;
use fetch::Fetcher;
use serde_json::{Map, Value};
pub(crate) use signature::Algorithm;
use signature::Key;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The issuer, as it is known here.
#[derive(Debug)]
pub(crate) struct Issuer {
    config: OAuth2,
    /// From files.
    kept: Vec<Key>,
    fetcher: Option<Fetcher>,
    fetched: Mutex<Fetched>,
    /// Held by the one who asks.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct Fetched {
    keys: Arc<Vec<Key>>,
    /// When those came.
    at: Option<Instant>,
    /// When somebody last asked.
    tried: Option<Instant>,
}

impl Issuer {
    /// The one that the configuration names, if tokens are taken at all.
    pub(crate) fn of(config: &Config) -> Result<Option<Arc<Self>>, TlsError> {
        let is_asked = config.auth_backends.contains(&Backend::OAuth2);
        let oauth2 = config.oauth2.as_ref().filter(|_| is_asked);
        oauth2.map(|oauth2| Self::read(oauth2).map(Arc::new)).transpose()
    }

    /// Reads the files that the configuration names.
    fn read(config: &OAuth2) -> Result<Self, TlsError> {
        let mut kept = Vec::new();
        for (id, file) in &config.signing_keys {
            let pem = std::fs::read(file).map_err(|why| TlsError::new(file, &format!("it cannot be read: {why}")))?;
            kept.push(Key::from_pem(id, &pem).map_err(|why| TlsError::new(file, &why))?);
        }
        if let Some(file) = &config.jwks_file {
            let text = std::fs::read(file).map_err(|why| TlsError::new(file, &format!("it cannot be read: {why}")))?;
            kept.extend(key_set(&text, true).map_err(|why| TlsError::new(file, &why))?);
        }
        let is_elsewhere = config.jwks_url.is_some() || config.issuer.is_some();
        let fetcher = is_elsewhere.then(|| Fetcher::new(config)).transpose()?;
        let (fetched, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self { config: config.clone(), kept, fetcher, fetched, turn })
    }

    /// Takes over what an earlier one has fetched, if it is from the same place.
    pub(crate) fn inherit(&self, earlier: &Self) {
        let place =
            |config: &OAuth2| (config.jwks_url.clone(), config.issuer.clone(), config.discovery_endpoint_path.clone());
        if place(&self.config) == place(&earlier.config) {
            *self.fetched() = earlier.fetched().clone();
        }
    }

    /// Whom the token is of.
    ///
    /// # Errors
    /// Why it is not to be believed, for the log: never any part of the token but names.
    pub(crate) async fn judge(self: &Arc<Self>, token: &[u8], now_s: u64) -> Result<User, String> {
        let token = Token::read(token)?;
        if Algorithm::named(&token.algorithm).is_none() {
            return Err(format!("its algorithm, {:?}, is none that is taken", token.algorithm));
        }
        let algorithms = &self.config.algorithms;
        if !algorithms.is_empty() && !algorithms.contains(&token.algorithm) {
            return Err(format!("its algorithm, {:?}, is not one of oauth2.algorithms", token.algorithm));
        }
        let id = token.key_id.as_deref().or(self.config.default_key.as_deref());
        self.key(id).await?.check(&token.algorithm, token.signed.as_bytes(), &token.signature)?;
        claims::user(&token.claims, &self.config, now_s)
    }

    /// The key of this id; the only one for tokens that name none.
    async fn key(self: &Arc<Self>, id: Option<&str>) -> Result<Key, String> {
        let find = || {
            let fetched = Arc::clone(&self.fetched().keys);
            let mut all = self.kept.iter().chain(fetched.iter());
            match id {
                Some(id) => all.find(|key| key.id.as_deref() == Some(id)).cloned(),
                None => {
                    let only = all.next().cloned();
                    only.filter(|_| all.next().is_none())
                }
            }
        };
        match find() {
            Some(found) => {
                let is_old = self.fetched().at.is_none_or(|at| at.elapsed() >= KEYS_GOOD_FOR);
                if is_old && self.fetcher.is_some() {
                    let issuer = Arc::clone(self);
                    tokio::spawn(async move { issuer.refresh().await });
                }
                return Ok(found);
            }
            None => self.refresh().await,
        }
        find().ok_or_else(|| match id {
            Some(id) => format!("nobody knows its key, {id:?}"),
            None => "it names no key (kid), and there is not just one: set oauth2.default_key".to_owned(),
        })
    }

    /// Asks for the keys, unless somebody did so just now; whoever comes while somebody asks waits for what they get.
    async fn refresh(&self) {
        let Some(fetcher) = &self.fetcher else { return };
        let asked = self.fetched().tried;
        let _turn = self.turn.lock().await;
        let now = Instant::now();
        {
            let mut fetched = self.fetched();
            let was_asked_meanwhile = fetched.tried != asked;
            let cooldown = Duration::from_millis(self.config.jwks_cooldown_ms);
            if was_asked_meanwhile || fetched.tried.is_some_and(|tried| now - tried < cooldown) {
                return;
            }
            fetched.tried = Some(now);
        }
        match self.ask(fetcher).await {
            Ok(keys) => {
                tracing::debug!("the issuer has {} keys to check tokens with", keys.len());
                let mut fetched = self.fetched();
                (fetched.keys, fetched.at) = (Arc::new(keys), Some(Instant::now()));
            }
            Err(why) => {
                tracing::warn!("the keys to check tokens with cannot be had, and those of before stay in use: {why}");
            }
        }
    }

    async fn ask(&self, fetcher: &Fetcher) -> Result<Vec<Key>, String> {
        let url = match (&self.config.jwks_url, &self.config.issuer) {
            (Some(url), _) => url.clone(),
            (None, Some(issuer)) => {
                let path = self.config.discovery_endpoint_path.as_deref().unwrap_or(DISCOVERY).trim_start_matches('/');
                let document = fetcher.get(&format!("{}/{path}", issuer.trim_end_matches('/'))).await?;
                let document: Value = serde_json::from_slice(&document).map_err(|why| why.to_string())?;
                let url = document["jwks_uri"].as_str().ok_or("the issuer's document names no jwks_uri")?;
                OAuth2::check_url(url).map_err(|why| format!("the issuer's jwks_uri {why}"))?;
                url.to_owned()
            }
            (None, None) => return Ok(Vec::new()),
        };
        key_set(&fetcher.get(&url).await?, false)
    }

    fn fetched(&self) -> std::sync::MutexGuard<'_, Fetched> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this can only be a token, not a password that somebody chose.
pub(crate) fn looks_like_token(secret: &[u8]) -> bool {
    Token::read(secret).is_ok()
}

/// A set of JSON Web Keys. Those that are not to check signatures with are passed over.
fn key_set(text: &[u8], may_be_secret: bool) -> Result<Vec<Key>, String> {
    let document: Value = serde_json::from_slice(text).map_err(|why| format!("it is not JSON: {why}"))?;
    let keys = document["keys"].as_array().ok_or("it has no list \"keys\"")?;
    let keys: Vec<_> =
        keys.iter().filter_map(Value::as_object).filter_map(|jwk| Key::from_jwk(jwk, may_be_secret)).collect();
    if keys.is_empty() { Err("it has no key to check signatures with".to_owned()) } else { Ok(keys) }
}

/// A token in its parts. Nothing of it is to be believed yet.
struct Token<'a> {
    algorithm: String,
    key_id: Option<String>,
    claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    fn read(token: &'a [u8]) -> Result<Self, String> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(format!("it is longer than {TOKEN_BYTES_MAX} bytes"));
        }
        let malformed = || "it is no JWT: three parts of Base64 divided by dots".to_owned();
        let text = std::str::from_utf8(token).map_err(|_| malformed())?;
        let (signed, signature) = text.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').filter(|(_, rest)| !rest.contains('.')).ok_or_else(malformed)?;
        let object = |part: &str| {
            let octets = URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed())?;
            serde_json::from_slice::<Map<String, Value>>(&octets)
                .map_err(|_| "it is no JWT: its header and claims must be JSON objects".to_owned())
        };
        let (header, claims) = (object(header)?, object(claims)?);
        if header.contains_key("crit") {
            return Err("it wants something understood (crit) that is not".to_owned());
        }
        let text = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            algorithm: text("alg").ok_or("it does not say its algorithm (alg)")?,
            key_id: text("kid"),
            claims,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed())?,
        })
    }
}

/// What clients may send to log in with has to fit into one frame with a token of this size.
pub(crate) const LOGIN_FRAME_MAX: u32 = 32 << 10;
const TOKEN_BYTES_MAX: usize = 28 << 10;

/// When keys are asked for again though all that tokens name are known: one that the issuer took back is to go.
const KEYS_GOOD_FOR: Duration = Duration::from_secs(60 * 60);

/// Where an issuer tells of itself (OpenID Connect Discovery).
const DISCOVERY: &str = ".well-known/openid-configuration";

#[cfg(test)]
mod tests;

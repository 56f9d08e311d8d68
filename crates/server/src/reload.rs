//! Reloading: what the configuration says is read anew while the server runs, and what can change then does.
//!
//! It is all or nothing: a configuration that is wrong, or names a file that is, changes nothing. What takes a restart is
//! named each time until the restart. Certificates are read anew by every reload, and when their files change.

use crate::audit::Entry;
use crate::config::{Config, ConfigError, LogLevel};
use crate::oauth::Issuer;
use crate::spans::Collector;
use crate::switchboard::Switchboard;
use crate::tls::{self, Loaded, TlsError};
use broker::command::ShardInput;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Reads all sources of the configuration anew. Sentences beside it are warnings.
pub type Read = dyn Fn() -> Result<(Config, Vec<String>), ConfigError> + Send + Sync;

/// What the process that runs the server can do about it.
pub struct Reload {
    /// The way to the sources.
    pub read: Box<Read>,
    /// Logs this, and what is more severe, from now on.
    pub log: Box<dyn Fn(LogLevel) + Send + Sync>,
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys whose new value holds from now on.
    pub changed: Vec<String>,
    /// Keys whose new value waits for a restart.
    pub restart: Vec<String>,
    /// What is said in vain.
    pub warnings: Vec<String>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration cannot be read, or is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate, or what belongs to it.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Whoever runs the server did not say how.
    #[error("this server's configuration is not from anywhere")]
    NoSource,
}

impl Switchboard {
    /// Reads the configuration anew at a signal, and records that.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        let reloaded = self.read_anew();
        let outcome = reloaded.as_ref().map_or_else(|why| format!("refused: {why}"), |_| "done".to_owned());
        let text = str::to_owned;
        let details = reloaded.as_ref().ok().map(|reloaded| serde_json::json!({"changed": reloaded.changed}));
        let entry = Entry { user: String::new(), peer: text("signal"), what: text("reload"), details, outcome };
        self.audit().record_here(self.clock().now().unix_ms, &entry);
        reloaded
    }

    /// Reads the configuration anew and takes over what can change while the server runs. Logs what came of it.
    ///
    /// # Errors
    /// [`ReloadError`]; then nothing has changed.
    pub(crate) fn read_anew(&self) -> Result<Reloaded, ReloadError> {
        let reloaded = self.try_reload();
        match &reloaded {
            Ok(reloaded) => {
                let list = |keys: &[String]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
                tracing::info!("the configuration was read anew; changed: {}", list(&reloaded.changed));
                reloaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                if !reloaded.restart.is_empty() {
                    tracing::warn!("these keys take a restart: {}", reloaded.restart.join(", "));
                }
            }
            Err(why) => tracing::error!("the configuration is not reloaded, and nothing is changed: {why}"),
        }
        reloaded
    }

    fn try_reload(&self) -> Result<Reloaded, ReloadError> {
        let source = self.reload_source().ok_or(ReloadError::NoSource)?;
        let (new, warnings) = (source.read)()?;
        let old = self.config();
        // What waits for a restart stays as it is, so that it is told again next time.
        let merged = Config {
            data_dir: old.data_dir.clone(),
            amqp: old.amqp.clone(),
            amqps: old.amqps.clone(),
            http: old.http.clone(),
            https: old.https.clone(),
            metrics: old.metrics.clone(),
            shards: old.shards,
            audit_log_bytes: old.audit_log_bytes,
            audit_clients_bytes: old.audit_clients_bytes,
            first: old.first.clone(),
            ..new.clone()
        };
        let loaded = Loaded::read(&merged)?;
        let issuer = Issuer::of(&merged)?;
        let collector = Collector::of(&merged)?;
        let keys = |from: &Config, to: &Config| -> Vec<String> {
            let (from, to) = (from.explain(&[]), to.explain(&[]));
            let in_both = |key: &str| (value_of(&from, key), value_of(&to, key));
            let mut keys: Vec<_> = from.iter().chain(&to).map(|(key, ..)| key.clone()).collect();
            keys.sort();
            keys.dedup();
            keys.retain(|key| matches!(in_both(key), (one, other) if one != other));
            keys
        };
        let mut changed = keys(&old, &merged);
        // Their values are hidden where keys are compared.
        let headers = |config: &Config| config.tracing.as_ref().and_then(|tracing| tracing.headers.clone());
        if headers(&old) != headers(&merged) && !changed.iter().any(|key| key.starts_with("tracing.headers")) {
            changed.push("tracing.headers".to_owned());
        }
        let address = |config: &Config| config.tracing.as_ref().and_then(|tracing| tracing.traces_endpoint.clone());
        if address(&old) != address(&merged) && !changed.iter().any(|key| key == "tracing.traces_endpoint") {
            changed.push("tracing.traces_endpoint".to_owned());
        }
        let reloaded = Reloaded { changed, restart: keys(&merged, &new), warnings };
        self.tls().use_from_now_on(loaded);
        self.believe(issuer);
        // The file of authorities may hold others under the same name.
        let has_authorities = merged.tracing.as_ref().is_some_and(|tracing| tracing.ca.is_some());
        if merged.tracing != old.tracing || has_authorities {
            self.trace_by(collector);
        }
        if merged.log != old.log {
            (source.log)(merged.log);
        }
        // An operator may have set other limits since; a file that says nothing new is no reason to forget them.
        if merged.memory_limit != old.memory_limit {
            self.set_memory_limit(merged.memory_limit);
        }
        if merged.disk_free_limit != old.disk_free_limit {
            self.set_disk_free_limit(merged.disk_free_limit);
        }
        if merged.consumer_timeout_ms != old.consumer_timeout_ms {
            self.tell_shards(|| ShardInput::ConsumerTimeout { timeout_ms: merged.consumer_timeout_ms });
        }
        self.run_by(merged);
        Ok(reloaded)
    }
}

fn value_of<'a>(explained: &'a [(String, String, String)], key: &str) -> Option<&'a str> {
    explained.iter().find(|(name, ..)| name == key).map(|(_, value, _)| value.as_str())
}

/// Reads certificates anew when their files change, for as long as the server runs.
pub(crate) async fn watch_certificates(board: Arc<Switchboard>) {
    let mut known = tls::fingerprint(&board.config());
    loop {
        sleep(LOOK_EVERY).await;
        let config = board.config();
        let found = tls::fingerprint(&config);
        if found == known {
            continue;
        }
        known = found;
        match Loaded::read(&config) {
            Ok(loaded) => {
                board.tls().use_from_now_on(loaded);
                tracing::info!("the files of certificates changed: new clients see what they hold now");
            }
            // Whoever replaces two files one after the other is between them for a moment: the next look is right.
            Err(why) => tracing::error!("the files of certificates changed, and those of before stay in use: {why}"),
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(2);

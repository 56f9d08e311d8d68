//! RabbitMQ's `rabbitmq.conf`, read as it is: the keys that mean something here become [`Settings`], each of the others
//! is named in one warning.

use crate::config::{Alias, Backend, LogLevel, LoginFrom, Mechanism, OAuth2, Secret, Settings, TlsVersion, Verify};
use crate::footprint;
use crate::limits::{MemoryLimit, parse_bytes};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// What such a file says.
#[derive(Debug, Default)]
pub(crate) struct Conf {
    pub(crate) settings: Settings,
    /// Where each of our keys was said.
    pub(crate) lines: BTreeMap<&'static str, usize>,
    /// What is ignored: a line's number, and a sentence.
    pub(crate) warnings: Vec<(usize, String)>,
    /// What is wrong, likewise.
    pub(crate) errors: Vec<(usize, String)>,
    /// Address and port of a service, which are two keys.
    management: (Option<IpAddr>, Option<u16>),
    management_tls: (Option<IpAddr>, Option<u16>),
    prometheus: (Option<IpAddr>, Option<u16>),
    /// Which alternative name is the user's, if one is.
    san: Option<LoginFrom>,
    oauth2: OAuth2,
    /// Scopes and what they stand for, by the number under which they are said.
    aliases: BTreeMap<String, (Option<String>, Option<String>)>,
}

/// Reads a whole file.
pub(crate) fn parse(text: &str) -> Conf {
    let mut conf = Conf::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            // It goes to the log, and a password does not.
            let (key, dots) = match line.contains("pass") {
                true => (line.split_whitespace().next().unwrap_or_default(), " …"),
                false => (line, ""),
            };
            conf.errors.push((number, format!("{key:?}{dots} is not `key = value`")));
            continue;
        };
        let (key, value) = (key.trim(), unquoted(without_comment(value.trim())));
        match conf.take(key, value) {
            Ok(Taken::As(ours)) => ours.iter().for_each(|ours| {
                conf.lines.insert(ours, number);
            }),
            Ok(Taken::Ignored(why)) => conf.warnings.push((number, format!("{key} is not used: {why}"))),
            // The value may be a password; no refusal of one repeats it.
            Err(allowed) => conf.errors.push((number, format!("{key}: {allowed}"))),
        }
    }
    conf.join_addresses();
    conf.finish_oauth2();
    if let (Some(LoginFrom::SanDns), Some(san)) = (conf.settings.tls_login_from, conf.san) {
        conf.settings.tls_login_from = Some(san);
    }
    conf
}

/// What became of a key.
enum Taken {
    /// It is these keys of ours.
    As(&'static [&'static str]),
    /// It means nothing here.
    Ignored(&'static str),
}

impl Conf {
    fn take(&mut self, key: &str, value: &str) -> Result<Taken, String> {
        let settings = &mut self.settings;
        let taken: &'static [&'static str] = match key {
            "heartbeat" => put(&mut settings.heartbeat_s, number(value)?, &["heartbeat_s"]),
            "channel_max" => {
                let asked: u16 = number(value)?;
                put(&mut settings.channel_max, if asked == 0 { u16::MAX } else { asked }, &["channel_max"])
            }
            "frame_max" => {
                let asked: u32 = number(value)?;
                put(&mut settings.frame_max, if asked == 0 { 16 << 20 } else { asked }, &["frame_max"])
            }
            "max_message_size" => put(&mut settings.max_message_bytes, number(value)?, &["max_message_bytes"]),
            "consumer_timeout" => put(&mut settings.consumer_timeout_ms, number(value)?, &["consumer_timeout_ms"]),
            "handshake_timeout" => put(&mut settings.handshake_timeout_ms, number(value)?, &["handshake_timeout_ms"]),
            "proxy_protocol" => put(&mut settings.proxy_protocol, flag(value)?, &["proxy_protocol"]),
            "default_queue_type" => put(&mut settings.default_queue_type, value.to_owned(), &["default_queue_type"]),
            "vm_memory_high_watermark.relative" => {
                let share = value.parse().ok().and_then(MemoryLimit::share);
                put(&mut settings.memory_limit, share.ok_or("must be a number from 0 to 1")?, &["memory_limit"])
            }
            "vm_memory_high_watermark.absolute" => {
                put(&mut settings.memory_limit, MemoryLimit::Bytes(parse_bytes(value)?), &["memory_limit"])
            }
            "disk_free_limit.absolute" => put(&mut settings.disk_free_limit, parse_bytes(value)?, &["disk_free_limit"]),
            "disk_free_limit.relative" => {
                put(&mut settings.disk_free_limit, times_memory(value)?, &["disk_free_limit"])
            }
            "log.console.level" | "log.file.level" | "log.default.level" => {
                put(&mut settings.log, log_level(value)?, &["log"])
            }
            "default_user" => put(&mut settings.default_user, value.to_owned(), &["default_user"]),
            "default_pass" => put(&mut settings.default_pass, Secret::new(value), &["default_pass"]),
            "default_vhost" => put(&mut settings.default_vhost, value.to_owned(), &["default_vhost"]),
            "load_definitions" | "management.load_definitions" | "definitions.local.path" => {
                put(&mut settings.load_definitions, PathBuf::from(value), &["load_definitions"])
            }
            "definitions.import_backend" if value == "local_filesystem" => &[],
            "log.console" if value == "true" => &[],
            "ssl_cert_login_from" => put(&mut settings.tls_login_from, login_from(value)?, &["tls_login_from"]),
            "ssl_cert_login_san_type" => put(&mut self.san, san_type(value)?, &[]),
            "ssl_options.cacertfile" => put(&mut settings.tls_ca, value.into(), &["tls_ca"]),
            "ssl_options.certfile" => put(&mut settings.tls_certificate, vec![value.into()], &["tls_certificate"]),
            "ssl_options.keyfile" => put(&mut settings.tls_key, vec![value.into()], &["tls_key"]),
            "ssl_options.verify" => put(&mut settings.tls_verify, verify(value)?, &["tls_verify"]),
            "ssl_options.fail_if_no_peer_cert" => {
                put(&mut settings.tls_fail_if_no_peer_cert, flag(value)?, &["tls_fail_if_no_peer_cert"])
            }
            "management.ssl.cacertfile" => put(&mut settings.https_ca, value.into(), &["https_ca"]),
            "management.ssl.certfile" => {
                put(&mut settings.https_certificate, vec![value.into()], &["https_certificate"])
            }
            "management.ssl.keyfile" => put(&mut settings.https_key, vec![value.into()], &["https_key"]),
            "management.ssl.verify" => put(&mut settings.https_verify, verify(value)?, &["https_verify"]),
            "management.ssl.fail_if_no_peer_cert" => {
                put(&mut settings.https_fail_if_no_peer_cert, flag(value)?, &["https_fail_if_no_peer_cert"])
            }
            "management.cors.max_age" => put(&mut settings.cors_max_age_s, number(value)?, &["cors_max_age_s"]),
            "management.tcp.port" => put(&mut self.management.1, number(value)?, &["http"]),
            "management.tcp.ip" => put(&mut self.management.0, ip(value)?, &["http"]),
            "management.ssl.port" => put(&mut self.management_tls.1, number(value)?, &["https"]),
            "management.ssl.ip" => put(&mut self.management_tls.0, ip(value)?, &["https"]),
            "prometheus.tcp.port" => put(&mut self.prometheus.1, number(value)?, &["metrics"]),
            "prometheus.tcp.ip" => put(&mut self.prometheus.0, ip(value)?, &["metrics"]),
            "listeners.tcp" | "listeners.ssl" if value == "none" => {
                let (addresses, key): (_, &'static [_]) = match key {
                    "listeners.tcp" => (&mut settings.amqp, &["amqp"]),
                    _ => (&mut settings.amqps, &["amqps"]),
                };
                put(addresses, Vec::new(), key)
            }
            "loopback_users" if value == "none" => put(&mut settings.loopback_users, Vec::new(), &["loopback_users"]),
            _ => return self.take_listed(key, value),
        };
        Ok(Taken::As(taken))
    }

    /// `auth_oauth2.` and this.
    fn take_oauth2(&mut self, key: &str, value: &str) -> Result<Taken, String> {
        let (oauth2, text) = (&mut self.oauth2, value.to_owned());
        match key.split('.').collect::<Vec<_>>().as_slice() {
            ["resource_server_id"] => oauth2.resource_server_id = text,
            ["issuer"] => oauth2.issuer = Some(text),
            ["discovery_endpoint_path"] => oauth2.discovery_endpoint_path = Some(text),
            ["jwks_url" | "jwks_uri"] => oauth2.jwks_url = Some(text),
            ["default_key"] => oauth2.default_key = Some(text),
            ["scope_prefix"] => oauth2.scope_prefix = Some(text),
            ["additional_scopes_key" | "extra_scopes_source"] => oauth2.additional_scopes_key = Some(text),
            ["verify_aud"] => oauth2.verify_aud = flag(value)?,
            ["https", "cacertfile"] => oauth2.ca = Some(text.into()),
            ["https", "peer_verification"] if value == "verify_peer" => {}
            ["https", "peer_verification"] => {
                return Err("an issuer whose certificate is not checked could be anybody; name its authority: \
                            auth_oauth2.https.cacertfile"
                    .to_owned());
            }
            ["https", ..] => return Ok(Taken::Ignored("the issuer's certificate and name are always checked")),
            ["algorithms", _] => oauth2.algorithms.push(text),
            ["preferred_username_claims", _] => oauth2.preferred_username_claims.push(text),
            ["signing_keys", id] => drop(oauth2.signing_keys.insert((*id).to_owned(), text.into())),
            ["scope_aliases", number, "alias"] => self.aliases.entry((*number).to_owned()).or_default().0 = Some(text),
            ["scope_aliases", number, "scope"] => self.aliases.entry((*number).to_owned()).or_default().1 = Some(text),
            ["scope_aliases", alias @ ..] if !alias.is_empty() => {
                oauth2.scope_aliases.insert(alias.join("."), Alias::Text(text));
            }
            _ => {
                return Ok(Taken::Ignored(
                    "there is one resource server with one issuer, and scopes are read from tokens",
                ));
            }
        }
        Ok(Taken::As(&["oauth2"]))
    }

    /// RabbitMQ takes tokens only where `auth_backends` says so.
    fn finish_oauth2(&mut self) {
        let aliases = std::mem::take(&mut self.aliases).into_values();
        let whole = aliases.filter_map(|(alias, scope)| Some((alias?, Alias::Text(scope?))));
        self.oauth2.scope_aliases.extend(whole);
        if self.oauth2 != OAuth2::default() {
            self.settings.oauth2 = Some(std::mem::take(&mut self.oauth2));
            self.settings.auth_backends.get_or_insert_with(|| vec![Backend::Internal]);
        }
    }

    /// Keys that end in a name of their own.
    fn take_listed(&mut self, key: &str, value: &str) -> Result<Taken, String> {
        if let Some(key) = key.strip_prefix("auth_oauth2.") {
            return self.take_oauth2(key, value);
        }
        let settings = &mut self.settings;
        let (family, name) = key.rsplit_once('.').unwrap_or((key, ""));
        let taken: &'static [&'static str] = match family {
            "listeners.tcp" => add(&mut settings.amqp, addresses(value)?, &["amqp"]),
            "listeners.ssl" => add(&mut settings.amqps, addresses(value)?, &["amqps"]),
            "ssl_options.versions" => add(&mut settings.tls_versions, version(value)?, &["tls_versions"]),
            "auth_mechanisms" => {
                let mechanism = Mechanism::from_str(value)?;
                add(&mut settings.auth_mechanisms, Some(mechanism), &["auth_mechanisms"])
            }
            "management.cors.allow_origins" => {
                add(&mut settings.cors_allow_origins, [value.to_owned()], &["cors_allow_origins"])
            }
            "auth_backends" if backend(value).is_some() => {
                add(&mut settings.auth_backends, backend(value), &["auth_backends"])
            }
            "loopback_users" => {
                let is_bound = flag(value)?;
                // RabbitMQ's list has guest unless it is taken out.
                let users = settings.loopback_users.get_or_insert_with(|| vec!["guest".to_owned()]);
                users.retain(|user| user != name);
                if is_bound {
                    users.push(name.to_owned());
                }
                &["loopback_users"]
            }
            "default_user_tags" => {
                let tags = settings.default_user_tags.get_or_insert_default();
                tags.retain(|tag| tag != name);
                if flag(value)? {
                    tags.push(name.to_owned());
                }
                &["default_user_tags"]
            }
            "default_permissions" => {
                let place = ["configure", "write", "read"].iter().position(|other| *other == name);
                let place = place.ok_or("only default_permissions.configure, .write and .read are known")?;
                let everything = || [".*".to_owned(), ".*".to_owned(), ".*".to_owned()];
                settings.default_permissions.get_or_insert_with(everything)[place] = value.to_owned();
                &["default_permissions"]
            }
            _ => {
                let why = MEANINGLESS.iter().find(|(start, _)| key.starts_with(start)).map(|(_, why)| *why);
                return Ok(Taken::Ignored(why.unwrap_or("Leveret does not know it")));
            }
        };
        Ok(Taken::As(taken))
    }

    /// A service has one address of its own, or all.
    fn join_addresses(&mut self) {
        let services = [
            (self.management, 15672, &mut self.settings.http),
            (self.management_tls, 15671, &mut self.settings.https),
            (self.prometheus, 15692, &mut self.settings.metrics),
        ];
        for ((ip, port), default, addresses) in services {
            match (ip, port) {
                (None, None) => {}
                (Some(ip), port) => *addresses = Some(vec![(ip, port.unwrap_or(default)).into()]),
                (None, Some(port)) => *addresses = Some(everywhere(port)),
            }
        }
    }
}

fn put<T>(place: &mut Option<T>, value: T, ours: &'static [&'static str]) -> &'static [&'static str] {
    *place = Some(value);
    ours
}

fn add<T>(
    place: &mut Option<Vec<T>>,
    values: impl IntoIterator<Item = T>,
    ours: &'static [&'static str],
) -> &'static [&'static str] {
    place.get_or_insert_default().extend(values);
    ours
}

fn number<T: FromStr>(value: &str) -> Result<T, String> {
    let bits = size_of::<T>() * 8;
    value.parse().map_err(|_| format!("{value:?} is not a whole number from 0 to 2^{bits} - 1"))
}

fn flag(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("{value:?} is neither true nor false"))
}

fn ip(value: &str) -> Result<IpAddr, String> {
    value.parse().map_err(|_| format!("{value:?} is not an IP address"))
}

/// A port alone is on every address.
fn addresses(value: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(port) = value.parse() {
        return Ok(everywhere(port));
    }
    let with_brackets = value.rsplit_once(':').and_then(|(ip, port)| Some((ip.parse().ok()?, port.parse().ok()?)));
    let read = value.parse().ok().or_else(|| with_brackets.map(|(ip, port): (IpAddr, u16)| (ip, port).into()));
    read.map(|address| vec![address])
        .ok_or_else(|| format!("{value:?} is neither a port nor ADDR:PORT, such as 5672 or 127.0.0.1:5672"))
}

fn everywhere(port: u16) -> Vec<SocketAddr> {
    vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
}

fn verify(value: &str) -> Result<Verify, String> {
    match value {
        "verify_peer" => Ok(Verify::Peer),
        "verify_none" => Ok(Verify::None),
        _ => Err(format!("{value:?} is neither verify_peer nor verify_none")),
    }
}

/// Older versions than 1.2 are not offered, whatever else is.
fn version(value: &str) -> Result<Option<TlsVersion>, String> {
    match value {
        "tlsv1.3" => Ok(Some(TlsVersion::Tls13)),
        "tlsv1.2" => Ok(Some(TlsVersion::Tls12)),
        "tlsv1.1" | "tlsv1" => Ok(None),
        _ => Err(format!("{value:?} is neither tlsv1.3 nor tlsv1.2")),
    }
}

fn backend(value: &str) -> Option<Backend> {
    match value {
        "internal" | "rabbit_auth_backend_internal" => Some(Backend::Internal),
        "oauth2" | "oauth" | "rabbit_auth_backend_oauth2" => Some(Backend::OAuth2),
        _ => None,
    }
}

fn log_level(value: &str) -> Result<LogLevel, String> {
    match value {
        "debug" => Ok(LogLevel::Debug),
        "info" | "notice" => Ok(LogLevel::Info),
        "warning" => Ok(LogLevel::Warn),
        "error" | "critical" | "alert" | "emergency" => Ok(LogLevel::Error),
        "none" => Ok(LogLevel::Off),
        _ => Err(format!("{value:?} is none of debug, info, warning, error, critical and none")),
    }
}

fn login_from(value: &str) -> Result<LoginFrom, String> {
    match value {
        "common_name" => Ok(LoginFrom::CommonName),
        "distinguished_name" => Ok(LoginFrom::DistinguishedName),
        // RabbitMQ's type is dns unless it says otherwise.
        "subject_alternative_name" | "subject_alt_name" => Ok(LoginFrom::SanDns),
        _ => Err(format!("{value:?} is none of common_name, distinguished_name and subject_alternative_name")),
    }
}

fn san_type(value: &str) -> Result<LoginFrom, String> {
    match value {
        "dns" => Ok(LoginFrom::SanDns),
        "email" => Ok(LoginFrom::SanEmail),
        "uri" => Ok(LoginFrom::SanUri),
        _ => Err(format!("{value:?} is none of dns, email and uri")),
    }
}

fn times_memory(value: &str) -> Result<u64, String> {
    let times: Option<f64> = value.parse().ok().filter(|times| *times >= 0.0 && f64::is_finite(*times));
    let times = times.ok_or_else(|| format!("{value:?} is not a number of at least 0"))?;
    let memory = footprint::memory_bytes().ok_or("this system does not tell how much memory it has")?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "it is positive, the cast saturates, and a limit need not be exact to the byte"
    )]
    Ok((memory as f64 * times) as u64)
}

/// What stands behind ` #` is a comment.
fn without_comment(value: &str) -> &str {
    value.split_once(" #").map_or(value, |(value, _)| value.trim_end())
}

fn unquoted(value: &str) -> &str {
    let inner = |quote| value.strip_prefix(quote).and_then(|rest: &str| rest.strip_suffix(quote));
    inner('\'').or_else(|| inner('"')).unwrap_or(value)
}

/// What keys begin with that mean nothing here, and why.
const MEANINGLESS: [(&str, &str); 20] = [
    ("cluster_", "there is one node and no cluster"),
    ("deprecated_features.", "nothing that RabbitMQ deprecated is switched off here"),
    ("queue_master_locator", "there is one node, so queues have no place to choose"),
    ("queue_leader_locator", "there is one node, so queues have no place to choose"),
    ("log.", "logs go to stderr, for the service manager or the container to keep"),
    ("auth_backends.", "users are in the server itself (internal), or in tokens (oauth2)"),
    ("management.oauth_", "log in to the page with a token as the password"),
    ("auth_ldap.", "users are in the server itself"),
    ("auth_http.", "users are in the server itself"),
    ("definitions.", "definitions are read from a file only: load_definitions"),
    (
        "ssl_options.",
        "rustls chooses ciphers and curves itself, takes keys without a password, and has no renegotiation",
    ),
    ("management.ssl.", "rustls chooses ciphers and curves itself, takes keys without a password"),
    ("tcp_listen_options.", "the sockets' options are fixed"),
    ("num_acceptors.", "one task accepts, which is enough"),
    ("collect_statistics", "values are live, nothing is sampled"),
    ("mqtt.", "only AMQP 0-9-1 is spoken"),
    ("stomp.", "only AMQP 0-9-1 is spoken"),
    ("stream.", "only AMQP 0-9-1 is spoken"),
    ("web_", "only AMQP 0-9-1 is spoken"),
    ("total_memory_available_override_value", "give memory_limit in bytes instead"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_work_queue_setup_become_ours() {
        let conf = parse(
            "## Listeners\nlisteners.tcp.default = 5672\nlisteners.ssl.default = 127.0.0.1:5671\nheartbeat = 30\n\
             channel_max=0\nframe_max = 65536\nmax_message_size = 1048576 # 1 MiB\nconsumer_timeout = 3600000\n\
             default_user = app\ndefault_pass = 's3 = cret'\ndefault_vhost = jobs\ndefault_user_tags.administrator = true\n\
             default_permissions.configure = ^app\nloopback_users.guest = false\n\
             vm_memory_high_watermark.relative = 0.4\ndisk_free_limit.absolute = 2GB\ndefault_queue_type = quorum\n\
             log.console.level = warning\nmanagement.tcp.port = 8080\nmanagement.tcp.ip = 127.0.0.1\n\
             prometheus.tcp.port = 9419\nload_definitions = /etc/definitions.json\nauth_mechanisms.1 = PLAIN\n\
             auth_mechanisms.2 = EXTERNAL\nssl_options.cacertfile = ca.pem\nssl_options.certfile = server.pem\n\
             ssl_options.keyfile = key.pem\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n\
             ssl_options.versions.1 = tlsv1.3\nssl_cert_login_from = common_name\nproxy_protocol = true\n",
        );
        assert_eq!((conf.errors.as_slice(), conf.warnings.as_slice()), (&[][..], &[][..]));
        let said = conf.settings;
        assert_eq!(said.amqp, Some(everywhere(5672)));
        assert_eq!(said.amqps, Some(vec![([127, 0, 0, 1], 5671).into()]));
        assert_eq!((said.heartbeat_s, said.channel_max, said.frame_max), (Some(30), Some(65535), Some(65536)));
        assert_eq!((said.max_message_bytes, said.consumer_timeout_ms), (Some(1 << 20), Some(3_600_000)));
        assert_eq!((said.default_user.as_deref(), said.default_vhost.as_deref()), (Some("app"), Some("jobs")));
        assert_eq!(said.default_pass.map(|pass| pass.reveal().to_owned()).as_deref(), Some("s3 = cret"));
        assert_eq!(said.default_permissions.unwrap(), ["^app", ".*", ".*"]);
        assert_eq!((said.loopback_users, said.default_user_tags), (Some(vec![]), Some(vec!["administrator".into()])));
        assert_eq!(said.memory_limit.unwrap().to_string(), "0.4");
        assert_eq!((said.disk_free_limit, said.log), (Some(2_000_000_000), Some(LogLevel::Warn)));
        assert_eq!((said.http, said.metrics), (Some(vec![([127, 0, 0, 1], 8080).into()]), Some(everywhere(9419))));
        assert_eq!(said.auth_mechanisms, Some(vec![Mechanism::Plain, Mechanism::External]));
        assert_eq!((said.tls_verify, said.tls_fail_if_no_peer_cert), (Some(Verify::Peer), Some(true)));
        assert_eq!((said.tls_versions, said.proxy_protocol), (Some(vec![TlsVersion::Tls13]), Some(true)));
        assert_eq!((conf.lines["heartbeat_s"], conf.lines["http"]), (4, 20), "of the last of several");
    }

    #[test]
    fn oauth_2_is_configured_as_in_rabbitmq() {
        let conf = parse(
            "auth_backends.1 = rabbit_auth_backend_oauth2\nauth_backends.2 = internal\n\
             auth_oauth2.resource_server_id = rabbitmq\nauth_oauth2.issuer = https://sso.example/realms/jobs\n\
             auth_oauth2.https.cacertfile = ca.pem\nauth_oauth2.algorithms.1 = RS256\n\
             auth_oauth2.additional_scopes_key = extra\nauth_oauth2.preferred_username_claims.1 = user_name\n\
             auth_oauth2.scope_prefix = api.\nauth_oauth2.verify_aud = false\nauth_oauth2.default_key = k\n\
             auth_oauth2.signing_keys.k = key.pem\nauth_oauth2.scope_aliases.admin = api.tag:administrator\n\
             auth_oauth2.scope_aliases.1.alias = api:reader\nauth_oauth2.scope_aliases.1.scope = api.read:*/*\n\
             management.cors.allow_origins.1 = https://ops.example\nmanagement.cors.max_age = 60\n",
        );
        assert_eq!((conf.errors.as_slice(), conf.warnings.as_slice()), (&[][..], &[][..]));
        let said = conf.settings;
        assert_eq!(said.auth_backends, Some(vec![Backend::OAuth2, Backend::Internal]));
        assert_eq!(
            (said.cors_allow_origins, said.cors_max_age_s),
            (Some(vec!["https://ops.example".into()]), Some(60))
        );
        let oauth2 = said.oauth2.unwrap();
        assert_eq!((oauth2.resource_server_id.as_str(), oauth2.verify_aud), ("rabbitmq", false));
        assert_eq!(oauth2.issuer.as_deref(), Some("https://sso.example/realms/jobs"));
        assert_eq!((oauth2.ca, oauth2.algorithms), (Some("ca.pem".into()), vec!["RS256".to_owned()]));
        assert_eq!(oauth2.signing_keys["k"], PathBuf::from("key.pem"));
        let aliases: Vec<_> =
            oauth2.scope_aliases.iter().map(|(alias, scope)| (alias.as_str(), scope.clone())).collect();
        let text = |text: &str| Alias::Text(text.to_owned());
        assert_eq!(aliases, [("admin", text("api.tag:administrator")), ("api:reader", text("api.read:*/*"))]);
        assert_eq!(conf.lines["oauth2"], 15, "of the last of several");
        // Tokens are not believed where only their issuer is named.
        let alone = parse("auth_oauth2.resource_server_id = rabbitmq").settings;
        assert_eq!(alone.auth_backends, Some(vec![Backend::Internal]));
        assert!(parse("auth_oauth2.https.peer_verification = verify_none").errors[0].1.contains("could be anybody"));
        assert!(parse("auth_oauth2.oauth_providers.a.issuer = x").warnings[0].1.contains("one issuer"));
    }

    #[test]
    fn each_other_key_is_named_once_with_a_reason() {
        let conf = parse("cluster_formation.peer_discovery_backend = k8s\nlog.file.rotation.size = 1\nnonsense = 1");
        assert_eq!(
            conf.warnings,
            [
                (1, "cluster_formation.peer_discovery_backend is not used: there is one node and no cluster".into()),
                (
                    2,
                    "log.file.rotation.size is not used: logs go to stderr, for the service manager or the container \
                     to keep"
                        .into()
                ),
                (3, "nonsense is not used: Leveret does not know it".into()),
            ]
        );
        assert_eq!(conf.settings, Settings::default());
    }

    #[test]
    fn the_kind_of_alternative_name_counts_only_where_the_user_is_in_one() {
        let from = |text: &str| parse(text).settings.tls_login_from;
        let (san, email) = ("ssl_cert_login_from = subject_alternative_name\n", "ssl_cert_login_san_type = email\n");
        assert_eq!(from(&format!("{email}{san}")), Some(LoginFrom::SanEmail));
        assert_eq!((from(san), from(email)), (Some(LoginFrom::SanDns), None));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_is_allowed() {
        for (text, expected) in [
            ("\nheartbeat = often", (2, "heartbeat: \"often\" is not a whole number from 0 to 2^16 - 1")),
            ("heartbeat", (1, "\"heartbeat\" is not `key = value`")),
            ("default_pass sesame", (1, "\"default_pass\" … is not `key = value`")),
            ("proxy_protocol = on", (1, "proxy_protocol: \"on\" is neither true nor false")),
            ("ssl_options.verify = peer", (1, "ssl_options.verify: \"peer\" is neither verify_peer nor verify_none")),
            (
                "vm_memory_high_watermark.relative = 40",
                (1, "vm_memory_high_watermark.relative: must be a number from 0 to 1"),
            ),
        ] {
            let (line, sentence) = expected;
            assert_eq!(parse(text).errors, [(line, sentence.to_owned())], "{text}");
        }
        assert!(parse("listeners.tcp.1 = somewhere").errors[0].1.contains("5672 or 127.0.0.1:5672"));
        assert_eq!(parse("listeners.tcp.1 = ::1:5672").settings.amqp, Some(vec!["[::1]:5672".parse().unwrap()]));
    }
}

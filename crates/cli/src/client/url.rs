//! Which broker, as `amqp://user:password@host:port/vhost` or `amqps://…`, with RabbitMQ's query parameters.

use super::tls::Tls;
use percent_encoding::percent_decode_str;
use std::fmt;
use std::str::FromStr;

/// A broker, and who to be there.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) vhost: String,
    /// `None` = in the clear.
    pub(crate) tls: Option<Tls>,
    /// The certificate says who it is.
    pub(super) is_external: bool,
    /// 0 = none; `None` = as the broker likes.
    pub(super) heartbeat_s: Option<u16>,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, is_tls) = match (text.strip_prefix("amqp://"), text.strip_prefix("amqps://")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => return Err("a broker's URL begins with amqp:// or amqps://".to_owned()),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (decode(user)?, decode(password)?),
            None if login.is_empty() => (GUEST.to_owned(), GUEST.to_owned()),
            None => (decode(login)?, String::new()),
        };
        let (host, port) = split_address(address)?;
        let mut url = Self {
            host: if host.is_empty() { LOCALHOST.to_owned() } else { decode(host)? },
            port: port.unwrap_or(if is_tls { TLS_PORT } else { PORT }),
            user,
            password,
            vhost: if path.is_empty() { "/".to_owned() } else { decode(path)? },
            tls: is_tls.then(Tls::default),
            is_external: false,
            heartbeat_s: None,
        };
        if url.vhost.len() > usize::from(u8::MAX) {
            return Err("a vhost's name has at most 255 bytes".to_owned());
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            url.set(key, decode(value)?)?;
        }
        Ok(url)
    }
}

impl Url {
    fn set(&mut self, key: &str, value: String) -> Result<(), String> {
        let tls = self.tls.as_mut();
        match (key, tls) {
            ("heartbeat", _) => {
                let seconds = value.parse().map_err(|_| format!("heartbeat={value} is no number of seconds"))?;
                self.heartbeat_s = Some(seconds);
            }
            ("auth_mechanism", _) => match value.to_ascii_lowercase().as_str() {
                "external" => self.is_external = true,
                "plain" => self.is_external = false,
                _ => return Err(format!("auth_mechanism={value}: plain and external are spoken")),
            },
            ("cacertfile", Some(tls)) => tls.authorities = Some(value.into()),
            ("certfile", Some(tls)) => tls.certificate = Some(value.into()),
            ("keyfile", Some(tls)) => tls.key = Some(value.into()),
            ("server_name_indication", Some(tls)) => tls.server_name = Some(value),
            ("verify", Some(_)) if value == "verify_peer" => {}
            ("verify", Some(_)) => {
                return Err(
                    "the broker's certificate is always verified; cacertfile=FILE names who signed it".to_owned()
                );
            }
            ("cacertfile" | "certfile" | "keyfile" | "server_name_indication" | "verify", None) => {
                return Err(format!("{key} is for amqps:// URLs"));
            }
            // Others mean something to other clients.
            _ => {}
        }
        Ok(())
    }
}

impl fmt::Display for Url {
    /// Without the login: passwords are shown to nobody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "amqps" } else { "amqp" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "{scheme}://{host}:{}", self.port)?;
        if self.vhost == "/" { Ok(()) } else { write!(f, " (vhost {})", self.vhost) }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

fn decode(part: &str) -> Result<String, String> {
    let decoded = percent_decode_str(part).decode_utf8();
    decoded.map(|text| text.into_owned()).map_err(|_| "what a URL's percent signs stand for must be UTF-8".to_owned())
}

/// Host, without the brackets of an IPv6 address, and port.
fn split_address(address: &str) -> Result<(&str, Option<u16>), String> {
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').ok_or("an IPv6 address ends with ]")?,
        None => address.find(':').map_or((address, ""), |colon| address.split_at(colon)),
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, None)),
        Some(digits) => Ok((host, Some(digits.parse().map_err(|_| format!("{digits:?} is no port"))?))),
        None => Err(format!("{port:?} after the host is no port")),
    }
}

/// Those to try, in this order: as given, else by the environment, else the one on this machine.
pub(crate) fn all(given: &[Url]) -> Result<Vec<Url>, String> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let named = std::env::var(VARIABLE).unwrap_or_default();
    let urls: Vec<&str> = named.split(',').map(str::trim).filter(|url| url.starts_with("amqp")).collect();
    if urls.is_empty() {
        return Ok(vec![LOCAL.parse()?]);
    }
    urls.into_iter().map(|url| url.parse().map_err(|why| format!("{VARIABLE}: {why}"))).collect()
}

/// That of `leveret ctl`, whose URLs begin with `http`; several are separated by commas.
const VARIABLE: &str = "LEVERET_URL";
const LOCAL: &str = "amqp://127.0.0.1";
const GUEST: &str = "guest";
const LOCALHOST: &str = "127.0.0.1";
const PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn each_part_may_be_left_out() {
        for text in ["amqp://", "amqp://127.0.0.1", "amqp://127.0.0.1:5672/", "amqp://guest:guest@127.0.0.1:5672/%2f"] {
            assert_eq!(parsed(text), parsed("amqp://"), "{text}");
        }
        let url = parsed("amqp://me@mq");
        assert_eq!((url.user.as_str(), url.password.as_str(), url.host.as_str()), ("me", "", "mq"));
    }

    #[test]
    fn parts_are_percent_encoded_and_shown_without_the_login() {
        let url = parsed("amqp://a%40b:p%2Fw%3A@[::1]:5800/team%2fone?heartbeat=5&unknown=1");
        assert_eq!((url.user.as_str(), url.password.as_str(), url.vhost.as_str()), ("a@b", "p/w:", "team/one"));
        assert_eq!(url.heartbeat_s, Some(5));
        assert_eq!(
            format!("{url} {url:?}"),
            "amqp://[::1]:5800 (vhost team/one) Url(amqp://[::1]:5800 (vhost team/one))"
        );
    }

    #[test]
    fn tls_has_its_port_and_its_files() {
        let url = parsed("amqps://mq?cacertfile=/ca.pem&certfile=c.pem&keyfile=k.pem&auth_mechanism=EXTERNAL");
        let tls = url.tls.clone().unwrap();
        assert_eq!((url.port, url.is_external), (5671, true));
        assert_eq!(tls.authorities, Some("/ca.pem".into()));
        assert!(parsed("amqp://mq").tls.is_none());
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in [
            "",
            "127.0.0.1",
            "http://host",
            "amqp://host:port",
            "amqp://[::1",
            "amqp://[::1]5",
            "amqp://h?cacertfile=x",
            "amqps://h?verify=verify_none",
            "amqp://h?heartbeat=soon",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }
}

//! Which broker to load, as `amqp://user:password@host:port/vhost`.
//!
//! Follows RabbitMQ's URI specification: parts are percent-encoded and each may be left out. A lone
//! `/` as the path means vhost `/`, as most clients read it. TLS is not spoken.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Where a broker listens, and who to be there.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BrokerUrl {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) vhost: String,
}

impl BrokerUrl {
    /// The URL, password included, as it can be parsed again.
    pub(super) fn in_full(&self) -> String {
        let Self { host, port, user, password, vhost } = self;
        let encoded = |part| utf8_percent_encode(part, NON_ALPHANUMERIC);
        // The colons of an IPv6 address stand in brackets.
        let host = if host.contains(':') { format!("[{host}]") } else { encoded(host).to_string() };
        format!("amqp://{}:{}@{host}:{port}/{}", encoded(user), encoded(password), encoded(vhost))
    }
}

impl FromStr for BrokerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("amqps:") {
            return Err("amqps is not supported: the load is sent without TLS".to_owned());
        }
        let rest = text.strip_prefix("amqp://").ok_or("a URL begins with amqp://")?;
        let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (decode(user)?, decode(password)?),
            None if login.is_empty() => (GUEST.to_owned(), GUEST.to_owned()),
            None => (decode(login)?, String::new()),
        };
        let (host, port) = split_address(address)?;
        let host = if host.is_empty() { LOCALHOST.to_owned() } else { decode(host)? };
        let vhost = if path.is_empty() { "/".to_owned() } else { decode(path)? };
        if vhost.len() > VHOST_BYTES_MAX {
            return Err(format!("a vhost's name has at most {VHOST_BYTES_MAX} bytes"));
        }
        Ok(Self { host, port, user, password, vhost })
    }
}

impl fmt::Display for BrokerUrl {
    /// Address and vhost only: figures are shown to others, passwords are not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, vhost, .. } = self;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        write!(f, "{host}:{port}")?;
        if vhost == "/" { Ok(()) } else { write!(f, " vhost {vhost}") }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

fn decode(part: &str) -> Result<String, String> {
    let decoded = percent_decode_str(part).decode_utf8();
    decoded.map(|text| text.into_owned()).map_err(|_| "what a URL's percent signs stand for must be UTF-8".to_owned())
}

/// Host, without the brackets of an IPv6 address, and port.
fn split_address(address: &str) -> Result<(&str, u16), String> {
    let (host, port) = match address.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').ok_or("an IPv6 address ends with ]")?,
        None => address.find(':').map_or((address, ""), |colon| address.split_at(colon)),
    };
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok((host, PORT)),
        Some(digits) => Ok((host, digits.parse().map_err(|_| format!("{digits:?} is no port"))?)),
        None => Err(format!("{port:?} after the host is no port")),
    }
}

const GUEST: &str = "guest";
const LOCALHOST: &str = "127.0.0.1";
const PORT: u16 = 5672;
const VHOST_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, u16, String, String, String) {
        let url: BrokerUrl = text.parse().unwrap();
        (url.host, url.port, url.user, url.password, url.vhost)
    }

    fn expected(
        host: &str,
        port: u16,
        user: &str,
        password: &str,
        vhost: &str,
    ) -> (String, u16, String, String, String) {
        (host.into(), port, user.into(), password.into(), vhost.into())
    }

    #[test]
    fn each_part_may_be_left_out() {
        let local = expected("127.0.0.1", 5672, "guest", "guest", "/");
        for text in ["amqp://", "amqp://127.0.0.1", "amqp://127.0.0.1:5672/", "amqp://guest:guest@127.0.0.1:5672/%2f"] {
            assert_eq!(parsed(text), local, "{text}");
        }
        assert_eq!(parsed("amqp://me@mq"), expected("mq", 5672, "me", "", "/"));
    }

    #[test]
    fn parts_are_percent_encoded() {
        let url = "amqp://a%40b:p%2Fw%3A@[::1]:5800/team%2fone?heartbeat=5";
        assert_eq!(parsed(url), expected("::1", 5800, "a@b", "p/w:", "team/one"));
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in ["", "127.0.0.1", "amqps://host", "http://host", "amqp://host:port", "amqp://[::1", "amqp://[::1]5"]
        {
            assert!(text.parse::<BrokerUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let url: BrokerUrl = "amqp://me:secret@[::1]/v".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "[::1]:5672 vhost v BrokerUrl([::1]:5672 vhost v)");
    }
}

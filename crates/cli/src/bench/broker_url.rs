//! Which broker to load, as `amqp://user:password@host:port/vhost`.
//!
//! It is read as by the commands that are clients, but TLS is not spoken.

use std::fmt;
use std::str::FromStr;

use crate::client::Url;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

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
        let Url { host, port, user, password, vhost, tls, .. } = text.parse()?;
        if tls.is_some() {
            return Err("amqps is not supported: the load is sent without TLS".to_owned());
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

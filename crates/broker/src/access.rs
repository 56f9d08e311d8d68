//! Who may log in, and from where. Pure: it is given what the peer said and says yes, or why not.
//!
//! A refusal has two texts: a short one for the peer, who must not learn which part was wrong, and one for the log, where
//! the operator must.

use crate::command::Fault;
use amqp::{ReplyCode, Table, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The mechanisms offered in connection.start unless the configuration says otherwise.
pub const MECHANISMS: &str = "PLAIN AMQPLAIN";

/// Login by the certificate that the client showed to TLS.
pub const EXTERNAL: &str = "EXTERNAL";

/// All users.
#[derive(Debug)]
pub struct Users {
    accounts: BTreeMap<Arc<str>, Account>,
}

#[derive(Debug)]
struct Account {
    password: Vec<u8>,
    tags: Vec<String>,
    /// Refused from other machines: its password is public.
    loopback_only: bool,
}

/// Someone who logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: Arc<str>,
    /// What the user may do beyond using vhosts: `administrator`, `monitoring`, …
    pub tags: Vec<String>,
}

impl User {
    /// Whether the user has this tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|other| other == tag)
    }
}

/// Why a login failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The client chose a mechanism that was not offered.
    UnknownMechanism {
        /// Its choice.
        mechanism: String,
    },
    /// The response is not what its mechanism prescribes.
    Malformed {
        /// How it ought to be, for the log.
        mechanism: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// The user is unknown, the password wrong or blank, or the place not allowed.
    Refused {
        /// `PLAIN`, `AMQPLAIN` or `Basic`.
        mechanism: &'static str,
        /// The login name as given.
        user: String,
        /// Which of these.
        why: Denial,
    },
}

/// Which part of a login was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No such user, or another password.
    Credentials,
    /// The password is empty.
    BlankPassword,
    /// The user may only log in from this machine.
    NotLocal,
}

impl Refusal {
    /// What to close the connection with.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::UnknownMechanism { mechanism } => {
                Fault::new(ReplyCode::CommandInvalid, format!("unknown authentication mechanism '{mechanism}'"))
            }
            // RabbitMQ repeats the response here, and with it perhaps a password.
            Self::Malformed { mechanism, .. } => {
                Fault::new(ReplyCode::SyntaxError, format!("response to {mechanism} invalid"))
            }
            Self::Refused { mechanism, .. } => Fault::new(
                ReplyCode::AccessRefused,
                format!(
                    "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
                ),
            ),
        }
    }

    /// What the log should say, with what can be done about it.
    #[must_use]
    pub fn log_text(&self) -> String {
        match self {
            Self::UnknownMechanism { mechanism } => {
                format!(
                    "the client chose authentication mechanism '{mechanism}'; it is not offered: see auth_mechanisms, and for EXTERNAL the client needs a certificate that names its user"
                )
            }
            Self::Malformed { mechanism, why } => format!("malformed {mechanism} response: {why}"),
            Self::Refused { user, why: Denial::Credentials, .. } => {
                format!("user '{user}' - invalid credentials; check the name and the password that the client uses")
            }
            Self::Refused { user, why: Denial::BlankPassword, .. } => {
                format!("user '{user}' - blank password; blank passwords are never accepted")
            }
            Self::Refused { user, why: Denial::NotLocal, .. } => format!(
                "user '{user}' can only connect via localhost; connect from this machine, for instance through an SSH tunnel"
            ),
        }
    }
}

impl Users {
    /// The user of an empty server: `guest` with password `guest`, an administrator, from this machine only.
    #[must_use]
    pub fn guest_only() -> Self {
        let guest =
            Account { password: b"guest".to_vec(), tags: vec!["administrator".to_owned()], loopback_only: true };
        Self { accounts: BTreeMap::from([("guest".into(), guest)]) }
    }

    /// All login names.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.accounts.keys()
    }

    /// Judges the response of connection.start-ok.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn login(&self, mechanism: &str, response: &[u8], peer_is_loopback: bool) -> Result<User, Refusal> {
        match mechanism {
            PLAIN => {
                let (user, password) = plain(response)?;
                self.check(PLAIN, user, password, peer_is_loopback)
            }
            AMQPLAIN => {
                let malformed = |why| Refusal::Malformed { mechanism: AMQPLAIN, why };
                let table = Table::decode_body(response).map_err(|_| malformed("it is not a field table"))?;
                let field = |name| match table.get(name) {
                    Some(Value::Str(octets)) => Ok(octets.as_slice()),
                    _ => Err(malformed("LOGIN or PASSWORD is missing or not a longstr")),
                };
                self.check(AMQPLAIN, field("LOGIN")?, field("PASSWORD")?, peer_is_loopback)
            }
            _ => Err(Refusal::UnknownMechanism { mechanism: mechanism.to_owned() }),
        }
    }

    /// Lets in the user that a verified client certificate stands for.
    ///
    /// # Errors
    /// [`Refusal::Refused`]: no such user, or not from there.
    pub fn login_external(&self, user: &str, peer_is_loopback: bool) -> Result<User, Refusal> {
        let refused = |why| Refusal::Refused { mechanism: EXTERNAL, user: user.to_owned(), why };
        let (name, account) = self.accounts.get_key_value(user).ok_or_else(|| refused(Denial::Credentials))?;
        if account.loopback_only && !peer_is_loopback {
            return Err(refused(Denial::NotLocal));
        }
        Ok(User { name: Arc::clone(name), tags: account.tags.clone() })
    }

    /// Judges HTTP's Basic authentication.
    ///
    /// # Errors
    /// [`Refusal::Refused`].
    pub fn login_basic(&self, user: &str, password: &[u8], peer_is_loopback: bool) -> Result<User, Refusal> {
        self.check("Basic", user.as_bytes(), password, peer_is_loopback)
    }

    fn check(&self, mechanism: &'static str, name: &[u8], password: &[u8], is_loopback: bool) -> Result<User, Refusal> {
        let shown = String::from_utf8_lossy(name);
        let refused = |why| Refusal::Refused { mechanism, user: shown.clone().into_owned(), why };
        if password.is_empty() {
            return Err(refused(Denial::BlankPassword));
        }
        let known = std::str::from_utf8(name).ok().and_then(|name| self.accounts.get_key_value(name));
        let (name, account) = known.ok_or_else(|| refused(Denial::Credentials))?;
        if account.loopback_only && !is_loopback {
            return Err(refused(Denial::NotLocal));
        }
        if !is_same(&account.password, password) {
            return Err(refused(Denial::Credentials));
        }
        Ok(User { name: Arc::clone(name), tags: account.tags.clone() })
    }
}

/// `authzid NUL user NUL password`; whom the user wants to act for is ignored, as RabbitMQ does.
fn plain(response: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let mut parts = response.split(|octet| *octet == 0);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_authzid), Some(user), Some(password), None) => Ok((user, password)),
        _ => Err(Refusal::Malformed { mechanism: PLAIN, why: "it is not three parts divided by NUL" }),
    }
}

/// Compares in a time that depends on the offered password's length only, so that it cannot be guessed byte by byte.
fn is_same(password: &[u8], offered: &[u8]) -> bool {
    let padded = password.iter().chain(std::iter::repeat(&0));
    let difference = offered.iter().zip(padded).fold(0, |difference, (a, b)| difference | (a ^ b));
    difference == 0 && password.len() == offered.len()
}

const PLAIN: &str = "PLAIN";
const AMQPLAIN: &str = "AMQPLAIN";

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    fn login(mechanism: &str, response: &[u8]) -> Result<User, Refusal> {
        Users::guest_only().login(mechanism, response, true)
    }

    fn amqplain(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut out = BytesMut::new();
        entries.iter().copied().collect::<Table>().encode(&mut out);
        out[4..].to_vec()
    }

    #[test]
    fn guest_logs_in_by_either_mechanism_and_over_http() {
        let user = login("PLAIN", b"\0guest\0guest").unwrap();
        assert_eq!(user.name.as_ref(), "guest");
        assert!(user.has_tag("administrator") && !user.has_tag("impersonator"));
        assert!(login("PLAIN", b"ignored\0guest\0guest").is_ok());
        assert!(login("AMQPLAIN", &amqplain(&[("LOGIN", "guest"), ("PASSWORD", "guest")])).is_ok());
        assert!(Users::guest_only().login_basic("guest", b"guest", true).is_ok());
    }

    #[test]
    fn a_wrong_login_is_refused_alike_whatever_is_wrong_and_logged_apart() {
        let text = "Login was refused using authentication mechanism PLAIN. For details see the broker logfile.";
        let log = "user 'nobody' - invalid credentials; check the name and the password that the client uses";
        for (response, logged) in [
            (&b"\0nobody\0guest"[..], log),
            (b"\0guest\0guesx", "user 'guest' - invalid credentials"),
            (b"\0guest\0gues", "user 'guest' - invalid credentials"),
            (b"\0guest\0guest2", "user 'guest' - invalid credentials"),
            (b"\0guest\0", "user 'guest' - blank password"),
            (b"\0\0", "user '' - blank password"),
            (b"\0\xff\0x", "user '\u{FFFD}' - invalid credentials"),
        ] {
            let refusal = login("PLAIN", response).unwrap_err();
            assert_eq!(refusal.fault(), Fault::new(ReplyCode::AccessRefused, text));
            assert!(refusal.log_text().starts_with(logged), "{}", refusal.log_text());
        }
    }

    #[test]
    fn guest_is_refused_from_elsewhere_and_the_log_says_what_to_do() {
        let refusal = Users::guest_only().login("PLAIN", b"\0guest\0guest", false).unwrap_err();
        assert_eq!(refusal.fault().code, ReplyCode::AccessRefused);
        assert!(refusal.log_text().starts_with("user 'guest' can only connect via localhost; "));
    }

    #[test]
    fn malformed_responses_are_syntax_errors() {
        let cut = &amqplain(&[("LOGIN", "guest"), ("PASSWORD", "guest")])[..12];
        let missing = amqplain(&[("LOGIN", "guest")]);
        for (mechanism, response) in [
            ("PLAIN", &b""[..]),
            ("PLAIN", b"guest\0guest"),
            ("PLAIN", b"\0a\0b\0c"),
            ("AMQPLAIN", cut),
            ("AMQPLAIN", &missing),
        ] {
            let fault = login(mechanism, response).unwrap_err().fault();
            assert_eq!((fault.code, fault.text), (ReplyCode::SyntaxError, format!("response to {mechanism} invalid")));
        }
    }

    #[test]
    fn an_unknown_mechanism_is_named() {
        let fault = login("EXTERNAL", b"").unwrap_err().fault();
        assert_eq!(fault, Fault::new(ReplyCode::CommandInvalid, "unknown authentication mechanism 'EXTERNAL'"));
    }
}

//! Who may log in, and what they may do: what a client says to log in, read and worded; a user's rights in a vhost.
//! Pure: whether a password is right is the host's to find out, which takes long.
//!
//! A refusal has two texts: a short one for the peer, who must not learn which part was wrong, and one for the log, where
//! the operator must.

use crate::command::Fault;
use crate::grant::{Grant, Scope};
use crate::identity::{GUEST, NAME_BYTES_MAX, Permission, TopicPermission, UserRecord};
use crate::policy::Pattern;
use crate::resource::{exchange_title, queue_title};
use crate::topology::Topology;
use amqp::{ReplyCode, Table, Value};
use std::fmt;
use std::sync::Arc;

/// The mechanisms offered in connection.start unless the configuration says otherwise.
pub const MECHANISMS: &str = "PLAIN AMQPLAIN";

/// HTTP's way to log in.
pub const BASIC: &str = "Basic";

/// HTTP's way to show a token.
pub const BEARER: &str = "Bearer";

/// Login by the certificate that the client showed to TLS.
pub const EXTERNAL: &str = "EXTERNAL";

/// Someone who logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: Arc<str>,
    /// What the user may do beyond using vhosts: `administrator`, `monitoring`, …
    pub tags: Vec<String>,
    /// [`UserRecord::id`]
    pub id: u64,
    /// What a token says that they may do, in the place of what is kept of users.
    pub grant: Option<Arc<Grant>>,
}

/// By whose rights something is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The user's name.
    pub name: Arc<str>,
    /// As in [`User`].
    pub grant: Option<Arc<Grant>>,
}

impl User {
    /// Its bearer.
    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject { name: Arc::clone(&self.name), grant: self.grant.clone() }
    }

    /// Whether the user has this tag.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|other| other == tag)
    }
}

impl From<&UserRecord> for User {
    fn from(record: &UserRecord) -> Self {
        Self { name: Arc::clone(&record.name), tags: record.tags.clone(), id: record.id, grant: None }
    }
}

/// A password as somebody typed it. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub Vec<u8>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// What someone says to log in, of whom it is not known whether they are who they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// `PLAIN`, `AMQPLAIN`, `EXTERNAL`, `Basic` or `Bearer`.
    pub mechanism: &'static str,
    /// The login name.
    pub user: String,
    /// The password; empty only if there is no need of one.
    pub password: Password,
    /// A certificate has shown already that it is they.
    pub is_proven: bool,
}

impl Login {
    /// Reads the response of connection.start-ok.
    ///
    /// # Errors
    /// [`Refusal`] for what is no login, whatever users there are.
    pub fn read(mechanism: &str, response: &[u8]) -> Result<Self, Refusal> {
        match mechanism {
            PLAIN => {
                let (user, password) = plain(response)?;
                Self::new(PLAIN, user, password)
            }
            AMQPLAIN => {
                let malformed = |why| Refusal::Malformed { mechanism: AMQPLAIN, why };
                let table = Table::decode_body(response).map_err(|_| malformed("it is not a field table"))?;
                let field = |name| match table.get(name) {
                    Some(Value::Str(octets)) => Ok(octets.as_slice()),
                    _ => Err(malformed("LOGIN or PASSWORD is missing or not a longstr")),
                };
                Self::new(AMQPLAIN, field("LOGIN")?, field("PASSWORD")?)
            }
            _ => Err(Refusal::UnknownMechanism { mechanism: mechanism.to_owned() }),
        }
    }

    /// HTTP's Basic authentication.
    ///
    /// # Errors
    /// [`Refusal::Refused`].
    pub fn basic(user: &str, password: &[u8]) -> Result<Self, Refusal> {
        Self::new(BASIC, user.as_bytes(), password)
    }

    /// A token that comes in the place of name and password.
    #[must_use]
    pub fn bearer(token: &[u8]) -> Self {
        Self { mechanism: BEARER, user: String::new(), password: Password(token.to_vec()), is_proven: false }
    }

    /// The user that a verified client certificate stands for.
    #[must_use]
    pub fn external(user: &str) -> Self {
        Self { mechanism: EXTERNAL, user: user.to_owned(), password: Password(Vec::new()), is_proven: true }
    }

    fn new(mechanism: &'static str, user: &[u8], password: &[u8]) -> Result<Self, Refusal> {
        // Names are remembered and logged, and a stranger gives many.
        let shown = String::from_utf8_lossy(&user[..user.len().min(NAME_BYTES_MAX)]).into_owned();
        let login = Self { mechanism, user: shown, password: Password(password.to_vec()), is_proven: false };
        if password.is_empty() {
            return Err(login.refused(Denial::BlankPassword));
        }
        match std::str::from_utf8(user) {
            Ok(_) if user.len() <= NAME_BYTES_MAX => Ok(login),
            // No user has such a name.
            _ => Err(login.refused(Denial::Credentials)),
        }
    }

    /// Its refusal.
    #[must_use]
    pub fn refused(&self, why: Denial) -> Refusal {
        Refusal::Refused { mechanism: self.mechanism, user: self.user.clone(), why }
    }

    /// Judges a login where there is nobody but `guest` with that password, for hosts that check no hashes.
    ///
    /// # Errors
    /// [`Refusal::Refused`].
    pub fn as_guest(&self, topology: &Topology) -> Result<User, Refusal> {
        let is_guest = self.user == GUEST && (self.is_proven || self.password.0 == GUEST.as_bytes());
        let user = topology.user(&self.user).filter(|_| is_guest);
        user.map(|user| User::from(&**user)).ok_or_else(|| self.refused(Denial::Credentials))
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No such user, or another password.
    Credentials,
    /// The password is empty.
    BlankPassword,
    /// The user may only log in from this machine.
    NotLocal,
    /// The token that came as the password is not to be believed, for this reason.
    Token(String),
    /// Too many wrong passwords came from there for this user: it was not looked at.
    TooMany,
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
            Self::Refused { user, why: Denial::Token(why), .. } => {
                format!("user '{user}' - Authentication using an OAuth 2/JWT token failed: {why}")
            }
            Self::Refused { user, why: Denial::BlankPassword, .. } => {
                format!("user '{user}' - blank password; blank passwords are never accepted")
            }
            Self::Refused { user, why: Denial::TooMany, .. } => {
                format!("user '{user}' - not looked at: too many wrong passwords for it come from this address")
            }
            Self::Refused { user, why: Denial::NotLocal, .. } => format!(
                "user '{user}' can only connect via localhost; connect from this machine, for instance through an SSH tunnel, and with a browser to localhost, to an address or to this machine's own name"
            ),
        }
    }
}

// --- rights -------------------------------------------------------------------------------------------------------

/// What can be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To declare and delete.
    Configure,
    /// To publish to, and to bind to something.
    Write,
    /// To consume from, and to bind something to.
    Read,
}

/// What it can be allowed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The queue of this name.
    Queue(&'a str),
    /// The exchange of this name; empty for the default exchange.
    Exchange(&'a str),
}

impl Right {
    const fn name(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// What a user may do in a vhost, put together from their permissions there, or from what their token says of it.
#[derive(Debug)]
pub struct Rights {
    user: Arc<str>,
    vhost: Arc<str>,
    basis: Basis,
}

#[derive(Debug)]
enum Basis {
    Permissions {
        permission: Option<Arc<Permission>>,
        topics: Vec<TopicRights>,
    },
    Token {
        scopes: Vec<Scope>,
        /// What is said behind each refusal.
        lapse: Option<String>,
    },
}

#[derive(Debug)]
struct TopicRights {
    exchange: Arc<str>,
    /// `None` for what is no regular expression: nothing matches that.
    write: Option<Pattern>,
    read: Option<Pattern>,
}

impl Rights {
    pub(crate) fn new<'a>(
        user: &str,
        vhost: &Arc<str>,
        permission: Option<Arc<Permission>>,
        topics: impl Iterator<Item = &'a Arc<TopicPermission>>,
    ) -> Self {
        let topics = topics
            .map(|topic| TopicRights {
                exchange: Arc::clone(&topic.exchange),
                write: expanded(&topic.write, user, vhost),
                read: expanded(&topic.read, user, vhost),
            })
            .collect();
        Self { user: user.into(), vhost: Arc::clone(vhost), basis: Basis::Permissions { permission, topics } }
    }

    /// What a token says of this vhost.
    pub(crate) fn granted(user: &Arc<str>, vhost: &Arc<str>, grant: &Grant) -> Self {
        let basis = Basis::Token { scopes: grant.scopes_in(vhost), lapse: grant.lapse_text() };
        Self { user: Arc::clone(user), vhost: Arc::clone(vhost), basis }
    }

    /// Whose they are.
    pub(crate) const fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// Whether the user has any business in the vhost.
    #[must_use]
    pub fn may_enter(&self) -> bool {
        match &self.basis {
            Basis::Permissions { permission, .. } => permission.is_some(),
            Basis::Token { scopes, .. } => !scopes.is_empty(),
        }
    }

    /// Whether there are keys that the user may not publish or bind with.
    #[must_use]
    pub const fn has_topics(&self) -> bool {
        match &self.basis {
            Basis::Permissions { topics, .. } => !topics.is_empty(),
            Basis::Token { .. } => true,
        }
    }

    /// Whether the user may do this.
    #[must_use]
    pub fn has(&self, right: Right, to: Resource<'_>) -> bool {
        match &self.basis {
            Basis::Permissions { permission: Some(permission), .. } => {
                let pattern = match right {
                    Right::Configure => &permission.configure,
                    Right::Write => &permission.write,
                    Right::Read => &permission.read,
                };
                matches(pattern, to.name())
            }
            Basis::Permissions { permission: None, .. } => false,
            Basis::Token { scopes, .. } => scopes.iter().any(|scope| scope.allows(right, to.name())),
        }
    }

    fn has_key(&self, right: Right, exchange: &str, key: &str) -> bool {
        match &self.basis {
            // What nothing is said of is allowed.
            Basis::Permissions { topics, .. } => {
                topics.iter().find(|topic| *topic.exchange == *exchange).is_none_or(|topic| {
                    let pattern = if right == Right::Write { &topic.write } else { &topic.read };
                    pattern.as_ref().is_some_and(|pattern| matches(pattern, key))
                })
            }
            Basis::Token { scopes, .. } => scopes.iter().any(|scope| scope.allows_key(right, exchange, key)),
        }
    }

    fn refused(&self, code: ReplyCode, mut text: String) -> Fault {
        if let Basis::Token { lapse: Some(lapse), .. } = &self.basis {
            text.push_str(lapse);
        }
        Fault::new(code, text)
    }

    /// The same.
    ///
    /// # Errors
    /// 403 in RabbitMQ's words.
    pub fn check(&self, right: Right, to: Resource<'_>) -> Result<(), Fault> {
        if self.has(right, to) {
            return Ok(());
        }
        let title = match to {
            Resource::Queue(name) => queue_title(name, &self.vhost),
            Resource::Exchange(_) => exchange_title(to.name(), &self.vhost),
        };
        let (right, user) = (right.name(), &self.user);
        let text = format!("{right} access to {title} refused for user '{user}'");
        Err(self.refused(ReplyCode::AccessRefused, text))
    }

    /// Whether the user may publish or bind with this key at a topic exchange.
    ///
    /// # Errors
    /// 403 in RabbitMQ's words.
    pub fn check_topic(&self, right: Right, exchange: &str, key: &str) -> Result<(), Fault> {
        if self.has_key(right, exchange, key) {
            return Ok(());
        }
        let (right, user, vhost) = (right.name(), &self.user, &self.vhost);
        let text = format!(
            "{right} access to topic '{key}' in exchange topic '{exchange}' in vhost '{vhost}' refused for user '{user}'"
        );
        Err(self.refused(ReplyCode::AccessRefused, text))
    }

    /// What a connection is told that opens a vhost where its user has no business.
    #[must_use]
    pub fn stranger(&self) -> Fault {
        let (user, vhost) = (&self.user, &self.vhost);
        self.refused(ReplyCode::NotAllowed, format!("access to vhost '{vhost}' refused for user '{user}'"))
    }
}

impl<'a> Resource<'a> {
    /// As patterns see it.
    fn name(self) -> &'a str {
        match self {
            Self::Exchange("") => "amq.default",
            Self::Queue(name) | Self::Exchange(name) => name,
        }
    }
}

/// An empty pattern allows nothing but an empty name.
fn matches(pattern: &Pattern, name: &str) -> bool {
    match pattern.source() {
        "" => name.is_empty(),
        _ => pattern.is_in(name),
    }
}

/// The pattern with the names put in. They stand for themselves: RabbitMQ takes a user's name for a part of the pattern.
fn expanded(pattern: &str, user: &str, vhost: &str) -> Option<Pattern> {
    let literal = |name: &str| -> String {
        let escape = |c: char| if c.is_alphanumeric() || c == '_' { [None, Some(c)] } else { [Some('\\'), Some(c)] };
        name.chars().flat_map(escape).flatten().collect()
    };
    Pattern::new(&pattern.replace("{username}", &literal(user)).replace("{vhost}", &literal(vhost))).ok()
}

/// `authzid NUL user NUL password`; whom the user wants to act for is ignored, as RabbitMQ does.
fn plain(response: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let mut parts = response.split(|octet| *octet == 0);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_authzid), Some(user), Some(password), None) => Ok((user, password)),
        _ => Err(Refusal::Malformed { mechanism: PLAIN, why: "it is not three parts divided by NUL" }),
    }
}

const PLAIN: &str = "PLAIN";
const AMQPLAIN: &str = "AMQPLAIN";

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    fn login(mechanism: &str, response: &[u8]) -> Result<User, Refusal> {
        Login::read(mechanism, response)?.as_guest(&Topology::new())
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
        assert!(Login::basic("guest", b"guest").unwrap().as_guest(&Topology::new()).is_ok());
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
        let refusal = Login::read("PLAIN", b"\0guest\0guest").unwrap().refused(Denial::NotLocal);
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
    fn no_user_has_a_name_that_is_too_long_and_little_of_it_is_remembered() {
        let name = "é".repeat(300);
        let refusal = Login::basic(&name, b"x").unwrap_err();
        assert_eq!(refusal.fault().code, ReplyCode::AccessRefused);
        assert!(refusal.log_text().len() < 400);
        assert!(Login::basic(&"x".repeat(255), b"x").is_ok());
    }

    #[test]
    fn an_unknown_mechanism_is_named() {
        let fault = login("EXTERNAL", b"").unwrap_err().fault();
        assert_eq!(fault, Fault::new(ReplyCode::CommandInvalid, "unknown authentication mechanism 'EXTERNAL'"));
    }
}

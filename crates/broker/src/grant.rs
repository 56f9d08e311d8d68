//! What a token says that its bearer may do: scopes as RabbitMQ's OAuth 2 back end reads them.
//!
//! A scope is `RIGHT:VHOST/NAME` or `RIGHT:VHOST/NAME/KEY`; the key counts at topic exchanges only, and without one nothing is
//! allowed there. In each part `*` stands for anything, and what is percent-encoded for itself. `{vhost}` is the name of the vhost
//! that is asked about. What is no such scope grants nothing.

use crate::access::Right;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    scopes: Vec<String>,
    expires_s: u64,
    /// When it was found to be too old.
    lapsed_s: Option<u64>,
}

impl Grant {
    /// Of these scopes, until this time in seconds since 1970.
    #[must_use]
    pub fn new(scopes: Vec<String>, expires_s: u64) -> Self {
        Self { scopes, expires_s, lapsed_s: None }
    }

    /// The same once its time is over: it allows nothing. `None` before that, and if it is known already.
    pub(crate) fn lapsed(&self, now_s: u64) -> Option<Self> {
        (self.is_over(now_s) && self.lapsed_s.is_none()).then(|| Self {
            scopes: Vec::new(),
            expires_s: self.expires_s,
            lapsed_s: Some(now_s),
        })
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_over(&self, now_s: u64) -> bool {
        self.expires_s + LEEWAY_S <= now_s
    }

    /// What RabbitMQ puts behind a refusal for that reason.
    pub(crate) fn lapse_text(&self) -> Option<String> {
        let (expires, found) = (self.expires_s, self.lapsed_s?);
        Some(format!(
            ", backend rabbit_auth_backend_oauth2 returned an error: \"Provided JWT token has expired at timestamp \
             {expires} (validated at {found})\""
        ))
    }

    /// The scopes that are about this vhost.
    pub(crate) fn scopes_in(&self, vhost: &str) -> Vec<Scope> {
        self.scopes.iter().filter_map(|text| Scope::read(text, vhost)).collect()
    }

    /// Whether its bearer has any business in this vhost.
    #[must_use]
    pub fn may_enter(&self, vhost: &str) -> bool {
        self.scopes.iter().any(|text| Scope::read(text, vhost).is_some())
    }
}

/// How far clocks may be apart, in seconds: a token is good for so much longer than it says.
pub const LEEWAY_S: u64 = 5;

/// One scope, in a vhost that it is about.
#[derive(Debug)]
pub(crate) struct Scope {
    right: Right,
    name: Wildcard,
    key: Option<Wildcard>,
}

impl Scope {
    /// `None` if it is none, or of other vhosts.
    fn read(text: &str, vhost: &str) -> Option<Self> {
        let (right, pattern) = text.split_once(':')?;
        let right = match right {
            "configure" => Right::Configure,
            "write" => Right::Write,
            "read" => Right::Read,
            _ => return None,
        };
        let mut parts = pattern.split('/').map(|part| Wildcard::read(part, vhost));
        let (in_vhost, name, key) = (parts.next()??, parts.next()??, parts.next());
        if parts.next().is_some() || !in_vhost.matches(vhost) {
            return None;
        }
        let key = match key {
            Some(key) => Some(key?),
            None => None,
        };
        Some(Self { right, name, key })
    }

    pub(crate) fn allows(&self, right: Right, name: &str) -> bool {
        self.right == right && self.name.matches(name)
    }

    pub(crate) fn allows_key(&self, right: Right, exchange: &str, key: &str) -> bool {
        self.allows(right, exchange) && self.key.as_ref().is_some_and(|pattern| pattern.matches(key))
    }
}

/// What stands between the asterisks.
#[derive(Debug)]
struct Wildcard(Vec<Vec<u8>>);

impl Wildcard {
    /// `None` if a percent sign is not followed by two hexadecimal digits.
    fn read(text: &str, vhost: &str) -> Option<Self> {
        let literal = |part: &str| {
            let pieces = part.split("{vhost}").map(decoded).collect::<Option<Vec<_>>>()?;
            Some(pieces.join(vhost.as_bytes()))
        };
        text.split('*').map(literal).collect::<Option<_>>().map(Self)
    }

    /// Takes each piece where it is found first, and the last one at the end: no backtracking, so that nobody's pattern is costly.
    fn matches(&self, subject: &str) -> bool {
        let subject = subject.as_bytes();
        let [first, middle @ .., last] = self.0.as_slice() else {
            return self.0.first().is_some_and(|only| only == subject);
        };
        let Some(mut rest) = subject.strip_prefix(first.as_slice()) else { return false };
        for piece in middle.iter().filter(|piece| !piece.is_empty()) {
            let Some(at) = rest.windows(piece.len()).position(|found| found == piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last)
    }
}

/// Form encoding, which RabbitMQ reads patterns by: a percent sign and two digits, and a plus for a space.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut octets = text.bytes();
    let mut out = Vec::new();
    while let Some(octet) = octets.next() {
        out.push(match octet {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(octets.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            octet => octet,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, subject: &str) -> bool {
        Wildcard::read(pattern, "v").is_some_and(|pattern| pattern.matches(subject))
    }

    #[test]
    fn an_asterisk_stands_for_anything_and_percent_for_what_it_encodes() {
        for (pattern, subject, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("", "x", false),
            ("jobs", "jobs", true),
            ("jobs", "jobs2", false),
            ("jobs*", "jobs2", true),
            ("*.dead", "jobs.dead", true),
            ("*.dead", "jobs.dead.not", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a**c", "abc", true),
            ("a*a", "a", false),
            ("*ab", "aab", true),
            ("*ab", "abab", true),
            ("%2F", "/", true),
            ("a%2Fb*", "a/b/c", true),
            ("%2A", "*", true),
            ("%2A", "x", false),
            ("a+b", "a b", true),
            ("app-{vhost}-*", "app-v-1", true),
            ("app-{vhost}-*", "app-w-1", false),
            ("%", "%", false),
            ("%2", "%2", false),
            ("%zz", "%zz", false),
            ("%C3%A9*", "é", true),
        ] {
            assert_eq!(matches(pattern, subject), expected, "{pattern} {subject}");
        }
    }

    #[test]
    fn what_is_no_scope_grants_nothing() {
        for text in [
            "",
            "read",
            "read:",
            "read:*",
            "read:*/*/*/*",
            "Read:*/*",
            "own:*/*",
            "read:%/*",
            "read:*/%1",
            "read:*/*/%",
            "tag:administrator",
            "read:w/*",
        ] {
            assert!(Scope::read(text, "v").is_none(), "{text}");
            assert!(!Grant::new(vec![text.to_owned()], 0).may_enter("v"), "{text}");
        }
        assert!(Grant::new(vec!["nonsense".to_owned(), "read:v/q".to_owned()], 0).may_enter("v"), "the others count");
    }

    #[test]
    fn a_scope_grants_one_right_and_keys_only_if_it_names_them() {
        let without = Scope::read("write:*/logs", "v").unwrap();
        assert!(without.allows(Right::Write, "logs") && !without.allows(Right::Read, "logs"));
        assert!(!without.allows(Right::Write, "other") && !without.allows_key(Right::Write, "logs", "k"));
        let with = Scope::read("write:*/logs/app.*", "v").unwrap();
        assert!(with.allows_key(Right::Write, "logs", "app.x") && !with.allows_key(Right::Write, "logs", "x"));
        assert!(with.allows(Right::Write, "logs"), "the key counts for topics only");
    }

    #[test]
    fn a_vhosts_name_stands_for_itself() {
        assert!(Scope::read("read:{vhost}/*", "a*b%").is_some());
        assert!(!Wildcard::read("{vhost}", "a*b").unwrap().matches("aXb"));
    }

    #[test]
    fn a_grant_lapses_once_and_then_allows_nothing() {
        let grant = Grant::new(vec!["read:*/*".to_owned()], 100);
        assert!(grant.lapsed(100 + LEEWAY_S - 1).is_none());
        let lapsed = grant.lapsed(100 + LEEWAY_S).unwrap();
        assert!(!lapsed.may_enter("v") && lapsed.lapsed(1000).is_none());
        assert!(lapsed.lapse_text().unwrap().contains("expired at timestamp 100 (validated at 105)"));
        assert_eq!(grant.lapse_text(), None);
    }
}

//! Who is who: judges logins, slows down those who guess, and counts the connections of vhosts and users.
//!
//! - A password is checked on a thread for that, a few at a time, see [`crate::turns`]. One that was right is remembered for a while as a keyed
//!   digest, so that clients that connect all the time do not pay for it each time.
//! - A wrong password makes the next attempt for the same user from the same address wait, twice as long each time, up
//!   to [`DELAY_MAX`]; attempts beyond the few that wait are refused unseen. What is remembered of that is bounded.

use crate::audit::Entry;
use crate::oauth;
use crate::passwords;
use crate::switchboard::Switchboard;
use crate::turns::Turns;
use broker::access::{BASIC, BEARER, Denial, Login, Refusal, User};
use broker::command::{Admission, VhostId};
use broker::connection::HostQuestion;
use broker::identity::UserRecord;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// See the module.
#[derive(Debug)]
pub(crate) struct Logins {
    /// Keys the digests; `None` where the system gave no random bytes, and then nothing is remembered.
    key: Option<[u8; 32]>,
    known: Mutex<HashMap<[u8; 32], Instant>>,
    guesses: Mutex<HashMap<(IpAddr, String), Guesses>>,
    /// Of threads that check passwords.
    turns: Arc<Turns>,
    census: Mutex<Census>,
    /// Over AMQP, and over HTTP.
    attempts: Mutex<[Attempts; 2]>,
}

/// Attempts to log in since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempts {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
}

#[derive(Debug)]
struct Guesses {
    wrong: u32,
    /// When the next one is looked at.
    next: Instant,
}

/// Connections that are open, and channels.
#[derive(Debug, Default)]
struct Census {
    vhosts: HashMap<VhostId, u64>,
    users: HashMap<Arc<str>, Tally>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    connections: u64,
    channels: u64,
}

/// What a connection counts for; gives it back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    entered: Option<(VhostId, Arc<str>)>,
    channels: u64,
}

impl Default for Logins {
    fn default() -> Self {
        let mut key = [0; 32];
        // Whoever guesses passwords leaves processors for those who send messages.
        let threads = std::thread::available_parallelism().map_or(1, |count| (count.get() / 2).clamp(1, 4));
        Self {
            key: getrandom::fill(&mut key).is_ok().then_some(key),
            known: Mutex::default(),
            guesses: Mutex::default(),
            turns: Arc::new(Turns::new(threads)),
            census: Mutex::default(),
            attempts: Mutex::default(),
        }
    }
}

impl Switchboard {
    /// Judges a login from this address, which is really on this machine or not; may take seconds.
    ///
    /// # Errors
    /// [`Refusal`]
    pub(crate) async fn log_in(&self, mut login: Login, peer: IpAddr, is_local: bool) -> Result<User, Refusal> {
        let is_http = [BASIC, BEARER].contains(&login.mechanism);
        // Some put it there by mistake, and names are logged.
        if oauth::looks_like_token(login.user.as_bytes()) {
            login.user = "(a token)".to_owned();
        }
        let judged = self.judge(&login, peer, is_local).await;
        if let Err(refusal) = &judged {
            let entry = Entry {
                user: login.user.clone(),
                peer: peer.to_string(),
                what: format!("login {}", login.mechanism),
                details: None,
                outcome: format!("refused: {}", refusal.log_text()),
            };
            self.audit().record_login(self.clock().now().unix_ms, entry);
        }
        let mut attempts = locked(&self.logins().attempts);
        let Attempts { succeeded, failed } = &mut attempts[usize::from(is_http)];
        *(if judged.is_ok() { succeeded } else { failed }) += 1;
        judged
    }

    async fn judge(&self, login: &Login, peer: IpAddr, is_local: bool) -> Result<User, Refusal> {
        let logins = self.logins();
        let is_bearer = login.mechanism == BEARER;
        let user = self.topology().user(&login.user).filter(|_| self.config().has_internal_users()).cloned();
        // What reads as a token is nobody's password, unless it is theirs whose name stands beside it.
        if is_bearer || (self.issuer().is_some() && oauth::looks_like_token(&login.password.0)) {
            let judged = self.judge_token(login, is_local).await;
            if judged.is_ok() || is_bearer || user.is_none() {
                return judged;
            }
        }
        if !is_local && self.config().is_loopback_user(&login.user) {
            return Err(login.refused(Denial::NotLocal));
        }
        if login.is_proven {
            return user.map(|user| User::from(&*user)).ok_or_else(|| login.refused(Denial::Credentials));
        }
        let digest = user.as_deref().and_then(|user| logins.digest(user, login));
        if let Some(user) = &user
            && digest.is_some_and(|digest| logins.knows(&digest))
        {
            return Ok(User::from(&**user));
        }
        let guesser = (peer, login.user.clone());
        match logins.turn(&guesser) {
            Some(turn) => sleep_until(turn).await,
            None => return Err(login.refused(Denial::TooMany)),
        }
        let turn = logins.turns.take(peer).await;
        // A thousand clients that come at once with one password are one check.
        let (turn, is_right) = if digest.is_some_and(|digest| logins.knows(&digest)) {
            (Some(turn), true)
        } else {
            let (hash, password) = (user.as_ref().and_then(|user| user.password.clone()), login.password.clone());
            // It goes along: who hangs up meanwhile does not make room for one check more.
            let check = tokio::task::spawn_blocking(move || match hash {
                Some(hash) if passwords::is_right(&hash, &password.0) => (Some(turn), true),
                // Nobody learns from how long it takes who is a user here.
                Some(hash) if !passwords::is_cheap(&hash) => (Some(turn), false),
                _ => {
                    passwords::waste_time(&password.0);
                    (Some(turn), false)
                }
            });
            check.await.unwrap_or((None, false))
        };
        // Whose password was changed, or who was deleted, while this took its time is not let in by what was.
        let now = self.topology().user(&login.user).cloned();
        let is_same = |then: &UserRecord, now: &UserRecord| (then.id, &then.password) == (now.id, &now.password);
        match now.filter(|now| is_right && user.as_deref().is_some_and(|then| is_same(then, now))) {
            Some(user) => {
                locked(&logins.guesses).remove(&guesser);
                if let Some(digest) = digest {
                    logins.remember(digest);
                }
                drop(turn);
                Ok(User::from(&*user))
            }
            None => {
                drop(turn);
                let delay = logins.punish(guesser);
                tokio::time::sleep(delay).await;
                Err(login.refused(Denial::Credentials))
            }
        }
    }

    /// Judges a token, whatever the name beside it.
    ///
    /// # Errors
    /// [`Refusal`]
    pub(crate) async fn judge_token(&self, login: &Login, is_local: bool) -> Result<User, Refusal> {
        let Some(issuer) = self.issuer() else {
            let why = "tokens are not taken here; see auth_backends and [oauth2] in the configuration";
            return Err(login.refused(Denial::Token(why.to_owned())));
        };
        let now_s = self.clock().now().unix_ms / 1000;
        let judged = issuer.judge(&login.password.0, now_s).await;
        let user = judged.map_err(|why| login.refused(Denial::Token(why)))?;
        if !is_local && self.config().is_loopback_user(&user.name) {
            return Err(Login { user: user.name.to_string(), ..login.clone() }.refused(Denial::NotLocal));
        }
        Ok(user)
    }

    /// Answers whether there is room.
    pub(crate) fn admit(&self, question: &HostQuestion, presence: &mut Presence) -> Admission {
        let mut census = locked(&self.logins().census);
        match question {
            HostQuestion::LogIn(_) | HostQuestion::Renew(_) => Admission::Granted,
            HostQuestion::Enter { vhost, vhost_max, user, user_max } => {
                let in_vhost = census.vhosts.get(vhost).copied().unwrap_or(0);
                let of_user = census.users.get(user).map_or(0, |tally| tally.connections);
                if vhost_max.is_some_and(|most| in_vhost >= most) {
                    return Admission::VhostFull;
                }
                if user_max.is_some_and(|most| of_user >= most) {
                    return Admission::UserFull;
                }
                *census.vhosts.entry(*vhost).or_default() += 1;
                census.users.entry(Arc::clone(user)).or_default().connections += 1;
                presence.entered = Some((*vhost, Arc::clone(user)));
                Admission::Granted
            }
            HostQuestion::OpenChannel { user, user_max } => {
                let tally = census.users.entry(Arc::clone(user)).or_default();
                if tally.channels >= *user_max {
                    return Admission::UserFull;
                }
                tally.channels += 1;
                presence.channels += 1;
                Admission::Granted
            }
        }
    }

    /// So many channels of the connection are open now.
    pub(crate) fn count_channels(&self, presence: &mut Presence, channels: usize) {
        let channels = channels as u64;
        if presence.channels == channels {
            return;
        }
        let Some((_, user)) = &presence.entered else { return };
        if let Some(tally) = locked(&self.logins().census).users.get_mut(user) {
            tally.channels = (tally.channels + channels).saturating_sub(presence.channels);
        }
        presence.channels = channels;
    }

    /// The connection is over.
    pub(crate) fn leave(&self, presence: &mut Presence) {
        self.count_channels(presence, 0);
        let Some((vhost, user)) = presence.entered.take() else { return };
        let mut census = locked(&self.logins().census);
        if let Some(count) = census.vhosts.get_mut(&vhost) {
            *count -= 1;
            if *count == 0 {
                census.vhosts.remove(&vhost);
            }
        }
        if let Some(tally) = census.users.get_mut(&user) {
            tally.connections -= 1;
            if tally.connections == 0 {
                census.users.remove(&user);
            }
        }
    }
}

impl Logins {
    /// Attempts since the server started, or somebody forgot them, by protocol.
    pub(crate) fn attempts(&self) -> [(&'static str, Attempts); 2] {
        let [amqp, http] = *locked(&self.attempts);
        [("amqp091", amqp), ("http", http)]
    }

    pub(crate) fn forget_attempts(&self) {
        *locked(&self.attempts) = Default::default();
    }

    fn digest(&self, user: &UserRecord, login: &Login) -> Option<[u8; 32]> {
        let hash = user.password.as_ref()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_ref()?).ok()?;
        for part in [login.user.as_bytes(), hash.text.as_bytes(), &login.password.0] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        Some(mac.finalize().into_bytes().into())
    }

    fn knows(&self, digest: &[u8; 32]) -> bool {
        locked(&self.known).get(digest).is_some_and(|until| *until > Instant::now())
    }

    fn remember(&self, digest: [u8; 32]) {
        let (mut known, now) = (locked(&self.known), Instant::now());
        if known.len() >= KNOWN_MAX {
            known.retain(|_, until| *until > now);
        }
        if known.len() < KNOWN_MAX {
            known.insert(digest, now + KNOWN_FOR);
        }
    }

    /// When this attempt is looked at: now, or after what wrong ones before it cost. `None` = not at all.
    fn turn(&self, guesser: &(IpAddr, String)) -> Option<Instant> {
        let now = Instant::now();
        let mut guesses = locked(&self.guesses);
        let Some(found) = guesses.get_mut(guesser) else { return Some(now) };
        let turn = found.next.max(now);
        if turn > now + WAIT_MAX {
            return None;
        }
        found.next = turn + found.delay();
        Some(turn)
    }

    /// Notes a wrong password; how long its answer is to wait.
    fn punish(&self, guesser: (IpAddr, String)) -> Duration {
        let now = Instant::now();
        let mut guesses = locked(&self.guesses);
        if guesses.len() >= GUESSERS_MAX && !guesses.contains_key(&guesser) {
            guesses.retain(|_, found| found.next + FORGET > now);
            if guesses.len() >= GUESSERS_MAX {
                // Somebody tries many names: each costs as much as the last one would.
                return DELAY_MAX;
            }
        }
        let found = guesses.entry(guesser).or_insert(Guesses { wrong: 0, next: now });
        if found.next + FORGET < now {
            found.wrong = 0;
        }
        found.wrong = found.wrong.saturating_add(1);
        found.delay()
    }
}

impl Guesses {
    /// Nothing for the first few: people mistype.
    fn delay(&self) -> Duration {
        match self.wrong.checked_sub(FREE) {
            None | Some(0) => Duration::ZERO,
            Some(more) => (DELAY_FIRST * 2_u32.saturating_pow(more - 1)).min(DELAY_MAX),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a password that was right is remembered, and how many of them.
const KNOWN_FOR: Duration = Duration::from_secs(60);
const KNOWN_MAX: usize = 4096;

/// How many pairs of address and user wrong passwords are remembered of, and for how long.
const GUESSERS_MAX: usize = 4096;
const FORGET: Duration = Duration::from_secs(15 * 60);

/// Wrong passwords that cost nothing.
const FREE: u32 = 3;
/// What the first one after those costs.
const DELAY_FIRST: Duration = Duration::from_millis(100);
/// What one costs at most: less than a client may take to open its connection, so that it is told.
const DELAY_MAX: Duration = Duration::from_secs(4);
/// How long an attempt may have to wait for those before it.
const WAIT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn guesser(name: &str) -> (IpAddr, String) {
        ([192, 0, 2, 1].into(), name.to_owned())
    }

    #[test]
    fn each_wrong_password_costs_more_than_the_last_up_to_a_bound() {
        let logins = Logins::default();
        let delays: Vec<_> = (0..12).map(|_| logins.punish(guesser("app")).as_millis()).collect();
        assert_eq!(delays, [0, 0, 0, 100, 200, 400, 800, 1600, 3200, 4000, 4000, 4000]);
        assert_eq!(logins.punish(guesser("other")), Duration::ZERO, "another user is another matter");
    }

    #[test]
    fn attempts_at_once_wait_for_each_other_and_too_many_are_not_looked_at() {
        let logins = Logins::default();
        for _ in 0..12 {
            logins.punish(guesser("app"));
        }
        let turns: Vec<_> = (0..6).map(|_| logins.turn(&guesser("app"))).collect();
        assert!(turns[0].is_some() && turns[1].is_some(), "those wait");
        assert!(turns[1] >= turns[0].map(|turn| turn + DELAY_MAX));
        assert_eq!(turns[5], None);
    }

    #[tokio::test]
    async fn guest_may_not_come_from_elsewhere_unless_that_is_configured() {
        for (loopback_users, is_let_in) in [(vec!["guest".to_owned()], false), (vec![], true)] {
            let directory = tempfile::tempdir().unwrap();
            let any_port = crate::config::Listen { addresses: vec![([127, 0, 0, 1], 0).into()], by_default: false };
            let none = crate::config::Listen { addresses: vec![], by_default: false };
            let defaults = crate::Config::new(&[crate::config::Settings::default()]).unwrap();
            let data_dir = directory.path().join("data");
            let (http, metrics) = (none.clone(), none);
            let first = crate::config::FirstStart { loopback_users: Some(loopback_users), ..defaults.first.clone() };
            let config = crate::Config { data_dir, amqp: any_port, http, metrics, first, ..defaults };
            let server = crate::Server::start(config).await.unwrap();
            let login = || Login::read("PLAIN", b"\0guest\0guest").unwrap();
            let judged = server.board().log_in(login(), [192, 0, 2, 1].into(), false).await;
            assert_eq!(judged.is_ok(), is_let_in, "{judged:?}");
            assert!(server.board().log_in(login(), [127, 0, 0, 1].into(), true).await.is_ok());
            server.stop().await.unwrap();
        }
    }

    #[tokio::test]
    async fn who_is_deleted_while_a_password_is_looked_at_is_not_let_in() {
        let directory = tempfile::tempdir().unwrap();
        let none = crate::config::Listen { addresses: vec![], by_default: false };
        let defaults = crate::Config::new(&[crate::config::Settings::default()]).unwrap();
        let (amqp, http, metrics) = (none.clone(), none.clone(), none);
        let config = crate::Config { data_dir: directory.path().join("data"), amqp, http, metrics, ..defaults };
        let server = crate::Server::start(config).await.unwrap();
        let board = server.board();
        let mut all = Vec::new();
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| (count.get() / 2).clamp(1, 4)) {
            all.push(board.logins().turns.take([127, 0, 0, 1].into()).await);
        }
        let login = Login::read("PLAIN", b"\0guest\0guest").unwrap();
        let mut judged = Box::pin(board.log_in(login, [127, 0, 0, 1].into(), true));
        let is_pending = std::future::poll_fn(|cx| std::task::Poll::Ready(judged.as_mut().poll(cx).is_pending()));
        assert!(is_pending.await);
        let delete = broker::identity::IdentityAsk::DeleteUser { name: "guest".to_owned() };
        let ask = broker::command::CatalogAsk::Identity(Box::new(delete));
        board.operator().ask(VhostId(0), ask).await.unwrap();
        drop(all);
        assert!(judged.await.is_err());
        server.stop().await.unwrap();
    }

    #[test]
    fn what_is_remembered_of_guesses_is_bounded() {
        let logins = Logins::default();
        for number in 0..2 * GUESSERS_MAX {
            logins.punish(guesser(&number.to_string()));
        }
        assert_eq!(locked(&logins.guesses).len(), GUESSERS_MAX);
        assert_eq!(logins.punish(guesser("one more")), DELAY_MAX);
    }
}

//! Who is connected and has not said who it is: from where, since when, and who goes when there is no room for another.
//!
//! Places are bounded, since each takes an open file and some memory. Where all are taken, somebody who has had one for
//! longer than its grace loses it: the one who came first, of the address that holds most. So whoever takes all places and
//! says nothing, or nothing but wrong passwords, is in nobody's way but its own, while honest clients that come all at once
//! have time to be served.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

/// See the module.
#[derive(Debug)]
pub(crate) struct Strangers {
    /// How long anybody has to say who it is, if others wait.
    grace: Duration,
    present: Mutex<Present>,
    /// Held by the one who waits for a place; others wait for this.
    line: tokio::sync::Mutex<()>,
    /// Somebody left.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Present {
    /// In the order in which they came.
    all: BTreeMap<u64, Stranger>,
    next: u64,
}

#[derive(Debug)]
struct Stranger {
    source: IpAddr,
    since: Instant,
    /// Somebody knows it now: it has its place for as long as it likes.
    is_known: bool,
    /// Tells it to go; `None` once it was told.
    leave: Option<oneshot::Sender<()>>,
}

/// What somebody holds who is not known yet.
#[derive(Debug)]
pub(crate) struct Place {
    standing: Standing,
    sent_away: oneshot::Receiver<()>,
}

/// Which place it is, for whoever comes to know who has it.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    strangers: Arc<Strangers>,
    number: u64,
}

/// Whose share an address counts to: nobody is given a single one of IPv6's.
pub(crate) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

impl Strangers {
    /// With this grace.
    pub(crate) fn new(grace: Duration) -> Self {
        Self { grace, present: Mutex::default(), line: tokio::sync::Mutex::default(), freed: Notify::new() }
    }

    /// Takes one of `places`, for somebody at this address; waits for at most the grace if those who have them are new, too,
    /// and for as long as it takes if they are known.
    pub(crate) async fn enter(self: &Arc<Self>, address: IpAddr, places: usize) -> Place {
        // To look who has to go takes a walk over all places: it is not done by all who wait, each time somebody leaves.
        let _first_in_line = self.line.lock().await;
        loop {
            let entered = self.locked().enter(source(address), places, Instant::now(), self.grace);
            match entered {
                Ok((number, sent_away)) => {
                    return Place { standing: Standing { strangers: Arc::clone(self), number }, sent_away };
                }
                Err(again) => tokio::select! {
                    () = self.freed.notified() => {}
                    () = sleep_until(again) => {}
                },
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    /// A place's number and how its holder is told to go, or when to ask again if nobody leaves before.
    fn enter(
        &mut self,
        source: IpAddr,
        places: usize,
        now: Instant,
        grace: Duration,
    ) -> Result<(u64, oneshot::Receiver<()>), Instant> {
        if self.all.len() >= places {
            return Err(self.make_room(now, grace));
        }
        let (leave, sent_away) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.all.insert(number, Stranger { source, since: now, is_known: false, leave: Some(leave) });
        Ok((number, sent_away))
    }

    /// Sends one away who has been there for long enough, if there is one. Returns when to do so again.
    fn make_room(&mut self, now: Instant, grace: Duration) -> Instant {
        let mut shares: HashMap<IpAddr, usize> = HashMap::new();
        let may_go = |stranger: &Stranger| !stranger.is_known && stranger.leave.is_some();
        for stranger in self.all.values().filter(|stranger| may_go(stranger)) {
            *shares.entry(stranger.source).or_default() += 1;
        }
        let mut going: Option<(usize, &mut Stranger)> = None;
        let mut soonest = now + grace;
        for stranger in self.all.values_mut().filter(|stranger| may_go(stranger)) {
            let until = stranger.since + grace;
            let share = shares.get(&stranger.source).copied().unwrap_or_default();
            if until > now {
                soonest = soonest.min(until);
            } else if going.as_ref().is_none_or(|(most, _)| share > *most) {
                going = Some((share, stranger));
            }
        }
        if let Some(leave) = going.and_then(|(_, stranger)| stranger.leave.take()) {
            let _left_already = leave.send(());
        }
        soonest
    }
}

impl Place {
    /// Who has it.
    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Is ready when its holder has to go.
    pub(crate) fn poll_sent_away(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error cannot be: the sender is kept until it sends.
        Pin::new(&mut self.sent_away).poll(cx).map(drop)
    }

    /// The same.
    pub(crate) async fn sent_away(&mut self) {
        std::future::poll_fn(|cx| self.poll_sent_away(cx)).await;
    }
}

impl Standing {
    /// It is known now where the holder really is.
    pub(crate) fn came_from(&self, address: IpAddr) {
        self.change(|stranger| stranger.source = source(address));
    }

    /// The holder is no stranger any more.
    pub(crate) fn is_known(&self) {
        self.change(|stranger| stranger.is_known = true);
    }

    fn change(&self, change: impl FnOnce(&mut Stranger)) {
        self.strangers.locked().all.get_mut(&self.number).map(change);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Standing { strangers, number } = &self.standing;
        strangers.locked().all.remove(number);
        strangers.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: usize = 8;
    const GRACE: Duration = Duration::from_secs(2);

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// Those who were told to go, of these.
    fn gone(receivers: &mut [(u64, oneshot::Receiver<()>)]) -> Vec<u64> {
        let told = receivers.iter_mut().filter_map(|(number, told)| told.try_recv().is_ok().then_some(*number));
        told.collect()
    }

    #[test]
    fn of_those_who_hold_most_the_first_goes_and_nobody_before_its_time() {
        let (mut present, now) = (Present::default(), Instant::now());
        let mut come = |last: u8, at: Instant| present.enter(address(last), PLACES, at, GRACE);
        let mut receivers: Vec<_> = [1, 2, 2, 3, 2, 2, 2, 1].map(|last| come(last, now).unwrap()).into();
        assert_eq!(come(4, now + GRACE / 2).unwrap_err(), now + GRACE, "all are new");
        assert!(gone(&mut receivers).is_empty());
        assert!(come(4, now + GRACE).is_err());
        assert!(come(4, now + GRACE).is_err());
        assert_eq!(gone(&mut receivers), [1, 2], "one for each who comes");
        present.all.remove(&1);
        assert!(present.enter(address(4), PLACES, now + GRACE, GRACE).is_ok());
    }

    #[test]
    fn who_is_known_is_left_alone() {
        let (mut present, now) = (Present::default(), Instant::now());
        let mut receivers: Vec<_> = (0..8).map(|_| present.enter(address(1), PLACES, now, GRACE).unwrap()).collect();
        for number in 0..7 {
            present.all.get_mut(&number).unwrap().is_known = true;
        }
        let later = now + 2 * GRACE;
        assert!(present.enter(address(2), PLACES, later, GRACE).is_err());
        assert_eq!(gone(&mut receivers), [7]);
        present.all.remove(&7);
        assert!(present.enter(address(2), PLACES, later, GRACE).is_ok());
        assert_eq!(present.enter(address(3), PLACES, later, GRACE).unwrap_err(), later + GRACE);
        assert!(gone(&mut receivers[..7]).is_empty());
    }

    #[tokio::test]
    async fn a_place_that_is_given_back_is_anothers() {
        let strangers = Arc::new(Strangers::new(GRACE));
        let place = strangers.enter(address(1), 1).await;
        let (other, ()) = tokio::join!(strangers.enter(address(2), 1), async { drop(place) });
        assert_eq!(strangers.locked().all.len(), 1);
        drop(other);
        assert!(strangers.locked().all.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let parse = |text: &str| source(text.parse().unwrap());
        assert_eq!(parse("2001:db8:0:1:a::1"), parse("2001:db8:0:1:b::2"));
        assert_ne!(parse("2001:db8:0:1::1"), parse("2001:db8:0:2::1"));
        assert_eq!(parse("::ffff:192.0.2.1"), address(1));
    }
}

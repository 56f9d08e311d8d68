//! Whose password is looked at next: a few are at once, since each takes a processor for a while, and the addresses that
//! wait take turns. So whoever sends a thousand wrong ones stands behind itself, and another address is next but one.
//!
//! What waits is bounded by who may: connections that have not logged in, and those of the HTTP API.

use crate::strangers::source;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// See the module.
#[derive(Debug)]
pub(crate) struct Turns(Mutex<Line>);

#[derive(Debug)]
struct Line {
    free: usize,
    /// Who waits, by address; the first address is next.
    waiting: VecDeque<(IpAddr, VecDeque<oneshot::Sender<Turn>>)>,
}

/// The right to have a password looked at now; the next one has it when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Arc<Turns>);

impl Turns {
    /// So many at once.
    pub(crate) fn new(at_once: usize) -> Self {
        Self(Mutex::new(Line { free: at_once, waiting: VecDeque::new() }))
    }

    /// Waits for a turn of somebody at this address.
    pub(crate) async fn take(self: &Arc<Self>, address: IpAddr) -> Turn {
        loop {
            let turn = {
                let mut line = self.locked();
                if line.free > 0 {
                    line.free -= 1;
                    return Turn(Arc::clone(self));
                }
                line.wait(source(address))
            };
            // The sender is never dropped before it has sent.
            if let Ok(turn) = turn.await {
                return turn;
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn wait(&mut self, source: IpAddr) -> oneshot::Receiver<Turn> {
        let (sender, turn) = oneshot::channel();
        match self.waiting.iter_mut().find(|(other, _)| *other == source) {
            Some((_, line)) => {
                // Those who gave up are not kept until their turn.
                line.retain(|waiting| !waiting.is_closed());
                line.push_back(sender);
            }
            None => self.waiting.push_back((source, [sender].into())),
        }
        turn
    }

    /// The next one who still waits.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some((source, mut line)) = self.waiting.pop_front() {
            let next = std::iter::from_fn(|| line.pop_front()).find(|waiting| !waiting.is_closed());
            if !line.is_empty() {
                self.waiting.push_back((source, line));
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut line = self.0.locked();
            let next = line.next();
            line.free += usize::from(next.is_none());
            next
        };
        if let Some(next) = next {
            // Who gave up just now does not take it, and it is dropped once more.
            let _not_taken = next.send(Turn(Arc::clone(&self.0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    type Waiting = Pin<Box<dyn Future<Output = Turn>>>;

    fn wait(turns: &Arc<Turns>, last: u8) -> Waiting {
        let turns = Arc::clone(turns);
        let mut waiting: Waiting = Box::pin(async move { turns.take([192, 0, 2, last].into()).await });
        assert!(poll(&mut waiting).is_none());
        waiting
    }

    fn poll(waiting: &mut Waiting) -> Option<Turn> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn addresses_take_turns_however_many_wait_at_one() {
        let turns = Arc::new(Turns::new(1));
        let first = turns.take([192, 0, 2, 1].into()).await;
        let mut guesses: Vec<_> = (0..100).map(|_| wait(&turns, 1)).collect();
        let mut honest = wait(&turns, 2);
        drop(first);
        let turn = poll(&mut guesses[0]).unwrap();
        drop(turn);
        let turn = poll(&mut honest).expect("it is next but one");
        drop(turn);
        for guess in &mut guesses[1..] {
            drop(poll(guess).expect("nobody is forgotten"));
        }
        assert_eq!(turns.locked().free, 1);
    }

    #[tokio::test]
    async fn who_gives_up_takes_nobodys_turn() {
        let turns = Arc::new(Turns::new(1));
        let first = turns.take([192, 0, 2, 1].into()).await;
        let (gone, mut late, mut stays) = (wait(&turns, 1), wait(&turns, 2), wait(&turns, 3));
        drop(gone);
        drop(first);
        // It was called and gives up before it hears that.
        drop(std::mem::replace(&mut late, wait(&turns, 4)));
        assert!(poll(&mut stays).is_some());
        assert!(poll(&mut late).is_some());
        let line = turns.locked();
        assert_eq!((line.free, line.waiting.len()), (1, 0));
    }
}

//! A connection that publishes: as fast as the broker reads, as its confirms allow, or at a rate.

use amqp::method::basic;
use amqp::{Frame, frame};
use anyhow::{Context, Result, bail};

use super::confirm_window::ConfirmWindow;
use super::connection::{method_id, pass_over};
use super::drive::{Client, Next, Turn};
use super::link::Link;
use super::pace::Pace;
use super::publish_batch::{BATCH_BYTES, PublishBatch};

/// A producer, and how far it has come.
#[derive(Debug)]
pub(super) struct Producer {
    link: Link,
    batch: PublishBatch,
    window: Option<ConfirmWindow>,
    pace: Option<Pace>,
    /// How many messages it has still to begin.
    left: u64,
    /// How many it has begun.
    begun: u64,
    /// Octets of begun messages that are not sent yet.
    unsent: usize,
    /// Octets sent of the message that is on its way.
    sent_of_message: usize,
    from: From,
}

/// Where the octets to send are.
#[derive(Debug)]
enum From {
    /// In the batch, which is a ring, at this place.
    Ring(usize),
    /// In a buffer of stamped messages, at this place.
    Stamped { octets: Vec<u8>, at: usize },
}

impl Producer {
    /// A producer of `messages` like those in `batch`, each with a timestamp if `is_stamped`.
    pub(super) fn new(link: Link, batch: PublishBatch, messages: u64, is_stamped: bool) -> Self {
        let from = if is_stamped { From::Stamped { octets: Vec::new(), at: 0 } } else { From::Ring(0) };
        Self { link, batch, window: None, pace: None, left: messages, begun: 0, unsent: 0, sent_of_message: 0, from }
    }

    /// Has at most `width` messages unconfirmed, on a channel that is in confirm mode.
    pub(super) fn with_window(mut self, width: u32) -> Self {
        self.window = (width > 0).then(|| ConfirmWindow::new(width.into()));
        self
    }

    /// Begins messages when they are due.
    pub(super) fn with_pace(mut self, pace: Option<Pace>) -> Self {
        self.pace = pace;
        self
    }

    /// Its connection and the octets that end the message it was writing.
    pub(super) fn into_rest(self) -> (Link, Vec<u8>) {
        let rest = match self.sent_of_message {
            0 => Vec::new(),
            sent => {
                let octets = match &self.from {
                    From::Ring(at) => &self.batch.ring()[*at..],
                    From::Stamped { octets, at } => &octets[*at..],
                };
                octets[..self.batch.message_bytes() - sent].to_vec()
            }
        };
        (self.link, rest)
    }

    /// Begins messages, about a write's worth, if they may be sent.
    fn begin(&mut self, turn: &Turn<'_>) {
        let free = self.window.as_ref().map_or(u64::MAX, ConfirmWindow::free);
        let at_once = (BATCH_BYTES / self.batch.message_bytes()).max(1) as u64;
        let most = free.min(self.left).min(at_once);
        let messages = match &mut self.from {
            From::Ring(_) => match &mut self.pace {
                None => most,
                Some(pace) => {
                    let due = pace.due(turn.now_ns, most);
                    pace.take_many(due);
                    due
                }
            },
            From::Stamped { octets, at } => {
                if *at == octets.len() {
                    octets.clear();
                    *at = 0;
                }
                let mut messages = 0;
                while messages < most {
                    let stamp_ns = match &mut self.pace {
                        None => turn.clock.now_ns(),
                        Some(pace) => match pace.take(turn.now_ns) {
                            // What came due while this program overslept is not the broker's fault.
                            Some(due_ns) => due_ns.max(turn.woke_ns),
                            None => break,
                        },
                    };
                    self.batch.append_stamped(self.begun + messages, stamp_ns, octets);
                    messages += 1;
                }
                messages
            }
        };
        self.begun += messages;
        self.left -= messages;
        self.unsent += messages as usize * self.batch.message_bytes();
        if let Some(window) = &mut self.window {
            window.send(messages);
        }
    }

    /// Sends what is begun, a write's worth.
    fn send(&mut self, turn: &mut Turn<'_>) -> Result<()> {
        let sent = match &mut self.from {
            From::Ring(at) => {
                let ring = self.batch.ring();
                let end = ring.len().min(*at + self.unsent.min(WRITE_BYTES));
                let sent = self.link.send(&ring[*at..end])?;
                *at = (*at + sent) % ring.len();
                sent
            }
            From::Stamped { octets, at } => {
                let sent = self.link.send(&octets[*at..])?;
                *at += sent;
                sent
            }
        };
        self.unsent -= sent;
        self.sent_of_message += sent;
        turn.counts.published += (self.sent_of_message / self.batch.message_bytes()) as u64;
        self.sent_of_message %= self.batch.message_bytes();
        Ok(())
    }

    fn next(&self) -> Next {
        if self.unsent > 0 {
            return if self.link.is_writable { Next::Again } else { Next::News };
        }
        if self.left == 0 {
            let is_confirmed = self.window.as_ref().is_none_or(|window| window.confirmed() == self.begun);
            return if is_confirmed { Next::Done } else { Next::News };
        }
        match (&self.window, &self.pace) {
            (Some(window), _) if window.free() == 0 => Next::News,
            (_, Some(pace)) => Next::At(pace.next_due_ns()),
            _ => Next::Again,
        }
    }
}

impl Client for Producer {
    fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    #[inline]
    fn step(&mut self, turn: &mut Turn<'_>) -> Result<Next> {
        if self.link.is_readable {
            let window = &mut self.window;
            let before = window.as_ref().map_or(0, ConfirmWindow::confirmed);
            self.link.read(turn.room, |octets, frame_max| {
                let Some((frame, taken)) = frame::decode(octets, frame_max)? else { return Ok(None) };
                read_confirm(&frame, window.as_mut())?;
                Ok(Some(taken))
            })?;
            turn.counts.confirmed += window.as_ref().map_or(0, ConfirmWindow::confirmed) - before;
        }
        if self.link.is_writable {
            if self.unsent == 0 {
                self.begin(turn);
            }
            if self.unsent > 0 {
                self.send(turn)?;
            }
        }
        Ok(if self.link.is_readable { Next::Again } else { self.next() })
    }
}

/// Takes a publisher's frame: a confirm, or what a broker may say besides. Without a window no confirm is expected.
#[inline]
pub(super) fn read_confirm(frame: &Frame<'_>, window: Option<&mut ConfirmWindow>) -> Result<()> {
    let Some(window) = window else { return pass_over(frame) };
    match method_id(frame) {
        Some(basic::Ack::ID) => {
            let (tag, multiple) =
                frame.payload.get(4..).and_then(<[u8]>::split_first_chunk).context("a basic.ack is too short")?;
            window.confirm(u64::from_be_bytes(*tag), multiple.first().is_some_and(|bits| bits & 1 == 1))
        }
        Some(basic::Nack::ID) => bail!(
            "the broker refused a message (basic.nack): a queue may be full, or its disk or replicas failed; its log tells"
        ),
        _ => pass_over(frame),
    }
}

/// What is written at once at most, of a message larger than a batch.
const WRITE_BYTES: usize = 4 * BATCH_BYTES;

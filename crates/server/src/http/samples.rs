//! Samples of all counters, so that rates can be told: counters are looked at live, and compared with how they stood
//! some seconds ago.
//!
//! Samples are only taken while somebody asks for rates; a server that nobody watches does no work for this. So the
//! first look after a long time finds rates of 0.

use super::message_stats::Named;
use super::{Api, published};
use crate::switchboard::{Churn, Unanswered};
use broker::command::{ChannelKey, ConnectionId, QueueId};
use broker::inspect::{ChannelCounters, ConnectionView, ExchangeCounters, QueueCounters, QueueView};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The latest samples.
#[derive(Debug, Default)]
pub(super) struct Samples {
    kept: Mutex<Kept>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first.
    samples: VecDeque<Arc<Sample>>,
    /// The server's own counters, which take little, further back. Oldest first.
    totals: VecDeque<(Instant, Totals)>,
    /// When somebody last asked, in [`broker::command::Now::ms`].
    asked_ms: u64,
}

/// A moment: by the server's clock, and by everybody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Instant {
    pub(super) ms: u64,
    pub(super) unix_ms: u64,
}

/// All counters at one moment.
#[derive(Debug, Default)]
pub(super) struct Sample {
    at_ms: u64,
    queues: HashMap<QueueId, QueueSample>,
    connections: HashMap<ConnectionId, Octets>,
    channels: HashMap<ChannelKey, ChannelCounters>,
    /// By exchange, and those by channel.
    exchanges: BTreeMap<u64, ExchangeCounters>,
    channel_exchanges: HashMap<(ChannelKey, u64), ExchangeCounters>,
    pub(super) totals: Totals,
}

/// A queue's numbers at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QueueSample {
    pub(super) counters: QueueCounters,
    pub(super) ready: u64,
    pub(super) unacked: u64,
    pub(super) delayed: u64,
    pub(super) owed: u64,
}

impl QueueSample {
    pub(super) fn messages(&self) -> u64 {
        self.ready + self.unacked + self.delayed + self.owed
    }
}

/// Bytes of a connection, or of several.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Octets {
    pub(super) received: u64,
    pub(super) sent: u64,
}

/// The server's own counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// What happened on all channels, those that are closed too.
    pub(super) channels: ChannelCounters,
    pub(super) channels_opened: u64,
    pub(super) channels_closed: u64,
    pub(super) churn: Churn,
    pub(super) ready: u64,
    pub(super) unacked: u64,
    pub(super) delayed: u64,
    pub(super) owed: u64,
}

impl Totals {
    pub(super) fn messages(&self) -> u64 {
        self.ready + self.unacked + self.delayed + self.owed
    }
}

/// The present beside the past: tells rates.
#[derive(Clone, Debug)]
pub(super) struct Past {
    sample: Option<Arc<Sample>>,
    now_ms: u64,
}

impl Past {
    /// A queue as it was; all zeros if it did not exist then.
    pub(super) fn queue(&self, queue: QueueId) -> QueueSample {
        self.sample.as_ref().and_then(|sample| sample.queues.get(&queue)).copied().unwrap_or_default()
    }

    pub(super) fn connection(&self, connection: ConnectionId) -> Octets {
        self.sample.as_ref().and_then(|sample| sample.connections.get(&connection)).copied().unwrap_or_default()
    }

    pub(super) fn channel(&self, channel: ChannelKey) -> ChannelCounters {
        self.sample.as_ref().and_then(|sample| sample.channels.get(&channel)).copied().unwrap_or_default()
    }

    /// What was published to an exchange.
    pub(super) fn exchange(&self, exchange: u64) -> ExchangeCounters {
        self.sample.as_ref().and_then(|sample| sample.exchanges.get(&exchange)).copied().unwrap_or_default()
    }

    /// What a channel published to an exchange.
    pub(super) fn channel_exchange(&self, channel: ChannelKey, exchange: u64) -> ExchangeCounters {
        let sample = self.sample.as_ref();
        sample.and_then(|sample| sample.channel_exchanges.get(&(channel, exchange))).copied().unwrap_or_default()
    }

    pub(super) fn totals(&self) -> Totals {
        self.sample.as_ref().map(|sample| sample.totals).unwrap_or_default()
    }

    /// How much a number changed a second since then.
    pub(super) fn rate(&self, now: u64, then: u64) -> f64 {
        let Some(sample) = &self.sample else { return 0.0 };
        let ms = self.now_ms.saturating_sub(sample.at_ms);
        if ms == 0 {
            return 0.0;
        }
        (now as f64 - then as f64) * 1000.0 / ms as f64
    }
}

impl Totals {
    /// How long the queues are together, by the API's names.
    pub(super) fn lengths(&self) -> Named {
        vec![
            ("messages", self.messages()),
            ("messages_ready", self.ready),
            ("messages_unacknowledged", self.unacked),
            ("messages_delayed", self.delayed),
            ("messages_dlx", self.owed),
        ]
    }

    /// What came and went, by the API's names.
    pub(super) fn churn(&self) -> Named {
        vec![
            ("connection_created", self.churn.opened),
            ("connection_closed", self.churn.closed),
            ("channel_created", self.channels_opened),
            ("channel_closed", self.channels_closed),
            ("queue_declared", self.churn.queues_declared),
            ("queue_created", self.churn.queues_created),
            ("queue_deleted", self.churn.queues_deleted),
        ]
    }
}

impl Samples {
    /// Says that rates are wanted, and what they are measured against.
    pub(super) fn past(&self, now_ms: u64) -> Past {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.asked_ms = now_ms;
        let is_old = |sample: &&Arc<Sample>| sample.at_ms + WINDOW_MS <= now_ms;
        let newest_old = kept.samples.iter().rev().find(is_old);
        let sample = newest_old.or(kept.samples.front()).cloned();
        self.wanted.notify_one();
        Past { sample, now_ms }
    }

    /// Forgets the past.
    pub(super) fn forget(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.samples.clear();
        kept.totals.clear();
    }

    fn are_wanted(&self, now_ms: u64) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = now_ms < kept.asked_ms + INTEREST_MS;
        if !wanted {
            kept.samples.clear();
            kept.totals.clear();
        }
        wanted
    }

    /// The server's own counters as they were, the latest first: those of the last `age_ms`, and of any that are less
    /// than `step_ms` apart the later one.
    pub(super) fn history(&self, now_ms: u64, age_ms: u64, step_ms: u64) -> Vec<(Instant, Totals)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut history: Vec<(Instant, Totals)> = Vec::new();
        for (at, totals) in kept.totals.iter().rev().take_while(|(at, _)| at.ms + age_ms >= now_ms) {
            if history.last().is_none_or(|(later, _)| at.ms + step_ms <= later.ms) {
                history.push((*at, *totals));
            }
        }
        history
    }

    fn add(&self, sample: Sample, at: Instant) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.totals.push_back((at, sample.totals));
        while kept.totals.len() > TOTALS_KEPT {
            kept.totals.pop_front();
        }
        kept.samples.push_back(Arc::new(sample));
        // Rates need one that is at least a window old.
        while kept.samples.len() > 3 {
            kept.samples.pop_front();
        }
    }
}

/// Takes samples for as long as the server runs.
pub(super) async fn keep(api: Arc<Api>) {
    loop {
        api.samples.wanted.notified().await;
        while api.samples.are_wanted(api.board.clock().now().ms) {
            match take(&api).await {
                Ok(sample) => {
                    let at = Instant { ms: sample.at_ms, unix_ms: api.board.clock().now().unix_ms };
                    api.samples.add(sample, at);
                }
                Err(Unanswered) => tracing::debug!("no sample was taken: the queues did not answer"),
            }
            tokio::time::sleep(Duration::from_millis(WINDOW_MS)).await;
        }
    }
}

async fn take(api: &Api) -> Result<Sample, Unanswered> {
    let queues = api.board.inspect_queues().await?;
    let (connections, published) = published::look(api).await;
    let channels = connections.iter().flat_map(|connection| {
        let key = |channel| ChannelKey { connection: connection.id, channel };
        connection.channels.iter().map(move |channel| (key(channel.number), channel.counters))
    });
    let channel_exchanges = connections.iter().flat_map(|connection| {
        connection.channels.iter().flat_map(move |channel| {
            let key = ChannelKey { connection: connection.id, channel: channel.number };
            channel.exchanges.iter().map(move |(exchange, counted)| ((key, *exchange), *counted))
        })
    });
    Ok(Sample {
        channel_exchanges: channel_exchanges.collect(),
        exchanges: published.exchanges,
        at_ms: api.board.clock().now().ms,
        totals: totals(api, &queues, &connections),
        channels: channels.collect(),
        queues: queues.iter().map(|queue| (queue.spec.queue.id, queue_sample(queue))).collect(),
        connections: connections.iter().map(|connection| (connection.id, octets(connection))).collect(),
    })
}

/// Sums up the server.
pub(super) fn totals(api: &Api, queues: &[QueueView], connections: &[ConnectionView]) -> Totals {
    let past = api.board.past_connections();
    let (mut channels, mut channels_opened, mut channels_open) = (past.counters, past.channels, 0);
    for connection in connections {
        channels.add(&connection.closed_channels);
        connection.channels.iter().for_each(|channel| channels.add(&channel.counters));
        channels_opened += connection.channels_opened;
        channels_open += connection.channels.len() as u64;
    }
    Totals {
        channels,
        channels_opened,
        channels_closed: channels_opened.saturating_sub(channels_open),
        churn: api.board.churn(),
        ready: queues.iter().map(|queue| queue.ready).sum(),
        unacked: queues.iter().map(|queue| queue.unacked).sum(),
        delayed: queues.iter().map(|queue| queue.delayed).sum(),
        owed: queues.iter().map(|queue| queue.owed).sum(),
    }
}

pub(super) fn add_queue(sum: &mut QueueCounters, part: &QueueCounters) {
    sum.publish += part.publish;
    sum.deliver += part.deliver;
    sum.deliver_no_ack += part.deliver_no_ack;
    sum.get += part.get;
    sum.get_no_ack += part.get_no_ack;
    sum.get_empty += part.get_empty;
    sum.redeliver += part.redeliver;
    sum.ack += part.ack;
    sum.refused += part.refused;
    sum.expired += part.expired;
    sum.rejected += part.rejected;
    sum.maxlen += part.maxlen;
    sum.delivery_limit += part.delivery_limit;
    sum.purged += part.purged;
    sum.deduplicated += part.deduplicated;
}

pub(super) fn queue_sample(queue: &QueueView) -> QueueSample {
    let QueueView { counters, ready, unacked, delayed, owed, .. } = *queue;
    QueueSample { counters, ready, unacked, delayed, owed }
}

pub(super) fn octets(connection: &ConnectionView) -> Octets {
    Octets { received: connection.received_bytes, sent: connection.sent_bytes }
}

/// Rates are over at least this time, once there are samples; a sample is taken as often.
const WINDOW_MS: u64 = 5_000;

/// How many times the server's own counters are remembered: those of the last ten minutes.
const TOTALS_KEPT: usize = 120;

/// How long after the last question samples are still taken: longer than monitors wait between two questions.
const INTEREST_MS: u64 = 120_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64) -> Sample {
        Sample { at_ms, ..Sample::default() }
    }

    #[test]
    fn rates_are_measured_against_the_newest_sample_that_is_a_window_old() {
        let samples = Samples::default();
        for at_ms in [1_000, 6_000, 11_000] {
            samples.add(sample(at_ms), Instant::default());
        }
        let past = samples.past(13_000);
        assert_eq!(past.rate(170, 100), 10.0);
        assert_eq!(past.rate(30, 100), -10.0);
    }

    #[test]
    fn before_there_is_a_past_nothing_moves() {
        assert_eq!(Samples::default().past(1).rate(100, 0), 0.0);
    }

    #[test]
    fn a_young_sample_is_better_than_none() {
        let samples = Samples::default();
        samples.add(sample(1_000), Instant::default());
        assert_eq!(samples.past(2_000).rate(5, 0), 5.0);
        assert_eq!(samples.past(1_000).rate(5, 0), 0.0);
    }

    #[test]
    fn history_goes_back_as_far_and_in_such_steps_as_asked_for() {
        let samples = Samples::default();
        for ms in (0..=100_000).step_by(5_000) {
            samples.add(sample(ms), Instant { ms, unix_ms: ms + 1 });
        }
        let moments = |age_ms, step_ms| -> Vec<u64> {
            samples.history(101_000, age_ms, step_ms).iter().map(|(at, _)| at.unix_ms).collect()
        };
        assert_eq!(moments(11_000, 1), [100_001, 95_001, 90_001]);
        assert_eq!(moments(60_000, 20_000), [100_001, 80_001, 60_001]);
        assert_eq!(moments(500, 1), [0_u64; 0]);
        samples.forget();
        assert_eq!(moments(60_000, 1), [0_u64; 0]);
    }

    #[test]
    fn samples_are_wanted_for_a_while_after_a_question() {
        let samples = Samples::default();
        samples.past(1_000);
        assert!(samples.are_wanted(100_000));
        assert!(!samples.are_wanted(121_001));
    }
}

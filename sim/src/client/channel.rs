//! One channel of a client: what it asked, what it holds, what it published.

use crate::ledger::{Content, Deaths, Ledger, Sight};
use amqp::Method;
use std::collections::{BTreeMap, VecDeque};

/// See the module.
#[derive(Debug)]
pub(super) struct Channel {
    /// Tells it from earlier channels of the same number.
    pub(super) serial: u64,
    /// What has to be answered, in order.
    pub(super) expects: VecDeque<Expect>,
    pub(super) last_tag: u64,
    pub(super) unsettled: BTreeMap<u64, Delivered>,
    pub(super) consumers: BTreeMap<String, Consumer>,
    pub(super) mode: Mode,
    /// The message that is coming in.
    pub(super) content: Option<Content>,
    /// Addresses that it may reply to.
    pub(super) requests: Vec<String>,
    /// For consumers to come.
    pub(super) prefetch: u16,
    /// For all consumers together; 0 = any number.
    limit: u16,
}

/// What an answer is awaited to.
#[derive(Debug)]
pub(super) enum Expect {
    OpenChannel,
    CloseChannel,
    DeclareExchange,
    DeleteExchange,
    BindExchange,
    Declare { queue: String },
    Delete,
    Purge,
    Bind,
    Unbind,
    Consume { tag: String, consumer: Consumer },
    Cancel { tag: String },
    Get { queue: String, no_ack: bool },
    Qos { count: u16, global: bool },
    Recover,
    SelectConfirms,
    SelectTransactions,
    Commit { published: Vec<u64>, acked: Vec<Delivered> },
    Rollback { published: Vec<u64>, settled: Vec<Settled> },
}

/// A consumer, from its method on.
#[derive(Clone, Debug)]
pub(super) struct Consumer {
    pub(super) queue: String,
    pub(super) no_ack: bool,
    /// 0 = any number.
    pub(super) prefetch: u16,
    /// Deliveries not settled.
    pub(super) unsettled: usize,
    /// It was cancelled, and no answer will say when.
    pub(super) is_ending: bool,
}

/// A delivery to be settled.
#[derive(Clone, Debug)]
pub(super) struct Delivered {
    pub(super) queue: String,
    /// `None`: it was asked for by basic.get.
    pub(super) consumer: Option<String>,
    pub(super) message: u64,
    /// How it came to its queue.
    pub(super) deaths: Deaths,
}

/// What becomes of publishes.
#[derive(Debug)]
pub(super) enum Mode {
    Plain,
    /// Tags of publishes that are not confirmed, with their messages.
    Confirm {
        next: u64,
        waiting: BTreeMap<u64, u64>,
    },
    Transaction {
        published: Vec<u64>,
        settled: Vec<Settled>,
    },
}

/// A delivery that a transaction settles.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    pub(super) tag: u64,
    pub(super) delivered: Delivered,
    pub(super) is_acked: bool,
}

impl Channel {
    pub(super) fn new(serial: u64) -> Self {
        Self {
            serial,
            expects: VecDeque::from([Expect::OpenChannel]),
            last_tag: 0,
            unsettled: BTreeMap::new(),
            consumers: BTreeMap::new(),
            mode: Mode::Plain,
            content: None,
            requests: Vec::new(),
            prefetch: 0,
            limit: 0,
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.expects.back(), Some(Expect::CloseChannel))
    }

    /// The server closed it when we had done so, too.
    pub(super) fn forget_all_but_close(&mut self) {
        let serial = self.serial;
        *self = Self::new(serial);
        self.expects = VecDeque::from([Expect::CloseChannel]);
    }

    /// Takes the answer to what was asked; false if it is none.
    pub(super) fn answered(&mut self, asked: Expect, answer: &Method<'_>, client: u64, ledger: &mut Ledger) -> bool {
        match (asked, answer) {
            (Expect::OpenChannel, Method::ChannelOpenOk(_))
            | (Expect::CloseChannel, Method::ChannelCloseOk(_))
            | (Expect::DeclareExchange, Method::ExchangeDeclareOk(_))
            | (Expect::DeleteExchange, Method::ExchangeDeleteOk(_))
            | (Expect::BindExchange, Method::ExchangeBindOk(_))
            | (Expect::Delete, Method::QueueDeleteOk(_))
            | (Expect::Purge, Method::QueuePurgeOk(_))
            | (Expect::Bind, Method::QueueBindOk(_))
            | (Expect::Unbind, Method::QueueUnbindOk(_))
            | (Expect::Get { .. }, Method::BasicGetEmpty(_))
            | (Expect::SelectConfirms, Method::ConfirmSelectOk(_))
            | (Expect::SelectTransactions, Method::TxSelectOk(_)) => true,
            (Expect::Recover, Method::BasicRecoverOk(_)) => {
                self.unsettled.clear();
                self.consumers.values_mut().for_each(|consumer| consumer.unsettled = 0);
                true
            }
            (Expect::Declare { queue }, Method::QueueDeclareOk(declared)) => {
                declared.queue == queue || queue.is_empty() && declared.queue.starts_with("amq.gen-")
            }
            (Expect::Consume { tag, consumer }, Method::BasicConsumeOk(consuming)) => {
                let is_right = tag.is_empty() || tag == consuming.consumer_tag;
                let former = self.consumers.insert(consuming.consumer_tag.to_owned(), consumer);
                is_right && former.is_none()
            }
            (Expect::Cancel { tag }, Method::BasicCancelOk(cancelled)) => {
                self.consumers.remove(&tag);
                tag == cancelled.consumer_tag
            }
            (Expect::Qos { count, global }, Method::BasicQosOk(_)) => {
                self.limit = if global { count } else { 0 };
                true
            }
            (Expect::Commit { published, acked }, Method::TxCommitOk(_)) => {
                published.into_iter().for_each(|message| ledger.committed(message));
                for Delivered { queue, message, deaths, .. } in acked {
                    ledger.ended_by_commit(message, Sight { client, queue, deaths });
                }
                true
            }
            (Expect::Rollback { published, settled }, Method::TxRollbackOk(_)) => {
                published.into_iter().for_each(|message| ledger.rolled_back(message));
                self.unsettled.extend(settled.into_iter().map(|settled| (settled.tag, settled.delivered)));
                true
            }
            _ => false,
        }
    }

    /// Keeps a delivery until it is settled; says what is wrong with it, if anything is.
    pub(super) fn hold(&mut self, tag: u64, delivered: Delivered) -> Option<String> {
        let consumer = delivered.consumer.as_ref().and_then(|tag| self.consumers.get_mut(tag));
        let is_consumed = delivered.consumer.is_some();
        self.unsettled.insert(tag, delivered);
        // What a transaction has settled comes off these limits at once, but on it only with the commit.
        if matches!(self.mode, Mode::Transaction { .. }) {
            return None;
        }
        if let Some(consumer) = consumer {
            consumer.unsettled += 1;
            if consumer.prefetch > 0 && consumer.unsettled > usize::from(consumer.prefetch) {
                return Some(format!("{} unacked where prefetch is {}", consumer.unsettled, consumer.prefetch));
            }
        }
        let is_limited = is_consumed && self.limit > 0 && !self.awaits_qos();
        let consumed = self.unsettled.values().filter(|delivered| delivered.consumer.is_some()).count();
        (is_limited && consumed > usize::from(self.limit))
            .then(|| format!("{consumed} unacked where the channel's limit is {}", self.limit))
    }

    /// A delivery is settled, as far as the client is concerned.
    pub(super) fn settle(&mut self, tag: u64, is_acked: bool) {
        let Some(delivered) = self.unsettled.remove(&tag) else { return };
        if let Mode::Transaction { settled, .. } = &mut self.mode {
            settled.push(Settled { tag, delivered, is_acked });
            return;
        }
        if let Some(consumer) = delivered.consumer.and_then(|tag| self.consumers.get_mut(&tag)) {
            consumer.unsettled -= 1;
        }
    }

    /// It consumes replies, or has asked to.
    pub(super) fn has_replies(&self) -> bool {
        let is_asked = |expect: &Expect| matches!(expect, Expect::Consume { tag, .. } if tag == "replies");
        self.consumers.contains_key("replies") || self.expects.iter().any(is_asked)
    }

    /// Between basic.recover and its answer nobody can know which deliveries it takes back; the same goes for
    /// tx.rollback, and which it brings back.
    pub(super) fn is_recovering(&self) -> bool {
        self.expects.iter().any(|expect| matches!(expect, Expect::Recover | Expect::Rollback { .. }))
    }

    /// Whether its consumers have limits of their own and no other, as streams want it.
    pub(super) fn may_read_streams(&self) -> bool {
        self.prefetch > 0 && self.limit == 0 && !self.awaits_qos()
    }

    /// Whether that is so as soon as it has asked for a prefetch.
    pub(super) fn may_get_a_prefetch(&self) -> bool {
        self.limit == 0 && !self.awaits_qos()
    }

    fn awaits_qos(&self) -> bool {
        self.expects.iter().any(|expect| matches!(expect, Expect::Qos { .. }))
    }
}

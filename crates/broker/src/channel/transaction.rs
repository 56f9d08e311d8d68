//! Transactions: publishes and settlements wait in the channel until tx.commit (amqp-0-9-1 §1.9, RabbitMQ's tx).

use super::publish::{Routed, return_unroutable};
use super::tally::Fate;
use super::unacked::Unacked;
use crate::command::{Command, Fault, Now, Settle, Settlement};
use crate::connection::{Connection, Effects, Failure, Marked, Then};
use crate::topology::Topology;
use amqp::ChannelId;
use amqp::ReplyCode;
use amqp::method::tx;

/// What a channel in transactional mode has not committed.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    publishes: Vec<Routed>,
    settlements: Vec<(Unacked, Settlement)>,
}

impl Transaction {
    pub(super) fn publish(&mut self, routed: Routed) {
        self.publishes.push(routed);
    }

    pub(super) fn settle(&mut self, unacked: Unacked, how: Settlement) {
        self.settlements.push((unacked, how));
    }

    pub(super) fn publishes(&self) -> usize {
        self.publishes.len()
    }

    pub(super) fn settlements(&self) -> usize {
        self.settlements.len()
    }
}

impl Connection {
    pub(super) fn tx_commit(
        &mut self,
        now: Now,
        number: ChannelId,
        topology: &Topology,
        fx: &mut Effects,
    ) -> Result<(), Fault> {
        let (frame_max, vhost) = (self.frame_max as usize, self.vhost);
        let channel = self.open_channel(number);
        let mut transaction = channel.transaction.as_mut().map(std::mem::take).ok_or_else(not_transactional)?;
        transaction.publishes.iter_mut().for_each(|routed| routed.forget_deleted_queues(topology));
        for routed in transaction.publishes.iter().filter(|routed| routed.is_unroutable()) {
            return_unroutable(routed, number, channel, frame_max, fx);
        }
        for routed in &transaction.publishes {
            let exchange = topology.exchange(vhost, routed.message.exchange());
            if let Some((exchange, tally)) = exchange.zip(channel.tally.as_mut()) {
                let fate = Fate::of(routed.is_unroutable(), routed.mandatory);
                tally.commit(exchange.number(), routed.queues(), fate);
                if tally.is_full() {
                    tally.take(&channel.counters, fx.tallied.get_or_insert_default());
                }
            }
        }
        let mut by_shard: Vec<Vec<Command>> = fx.shards.iter().map(|_| Vec::new()).collect();
        for routed in transaction.publishes {
            routed.keep(|shard, command| by_shard[usize::from(shard.0)].push(command));
            routed.send(true, |shard, command| by_shard[usize::from(shard.0)].push(command));
        }
        for (Unacked { queue, seq, .. }, how) in transaction.settlements {
            by_shard[usize::from(queue.shard.0)].push(Command::Settle(Settle { queue: queue.id, seq, count: 1, how }));
        }
        let mut answers = 0;
        for ((ledger, commands), transaction) in self.ledgers.iter_mut().zip(&mut fx.shards).zip(by_shard) {
            if transaction.is_empty() {
                continue;
            }
            if !ledger.open.is_empty() {
                let runs = std::mem::take(&mut ledger.open);
                ledger.mark(Marked::Publishes(runs), commands);
            }
            let (replies, transaction) =
                transaction.into_iter().partition(|command| matches!(command, Command::Reply { .. }));
            commands.extend::<Vec<_>>(replies);
            commands.push(Command::Transaction(transaction));
            ledger.mark(Marked::Commit, commands);
            answers += 1;
        }
        self.next_call();
        self.wait(answers, number, tx::Commit::ID, Then::Commit { refused: false });
        self.go_on_if_answered(now, fx);
        Ok(())
    }

    /// Everything that was committed is stored, if nothing was refused.
    pub(crate) fn committed(&mut self, now: Now, number: ChannelId, refused: bool, fx: &mut Effects) {
        if refused {
            let fault = Fault::new(ReplyCode::PreconditionFailed, "partial tx completion");
            self.fail_channel(now, number, Failure::new(fault, tx::Commit::ID), fx);
        } else if self.is_open(number) {
            tx::CommitOk.encode(number, fx.out.tail());
        }
    }

    pub(super) fn tx_rollback(&mut self, number: ChannelId, fx: &mut Effects) -> Result<(), Fault> {
        let channel = self.open_channel(number);
        let transaction = channel.transaction.as_mut().map(std::mem::take).ok_or_else(not_transactional)?;
        if !transaction.settlements.is_empty() {
            channel.unacked.put_back(transaction.settlements.into_iter().map(|(unacked, _)| unacked));
        }
        tx::RollbackOk.encode(number, fx.out.tail());
        Ok(())
    }
}

fn not_transactional() -> Fault {
    Fault::new(ReplyCode::PreconditionFailed, "channel is not transactional")
}

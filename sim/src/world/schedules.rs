//! A schedule, and whoever asks shards to fire it: again where no answer came. Each occurrence comes once to each queue,
//! whatever crashes between.

use super::World;
use crate::ledger::{Draft, Target};
use crate::plan::SCHEDULED;
use crate::trace;
use broker::command::{
    CallId, CatalogAsk, CatalogInput, CatalogRequest, Publish, QueueRef, ShardId, ShardInput, VhostId,
};
use broker::message::{Message, MessageParts};
use broker::operation::Answer;
use broker::schedule::{Fire, Firing, Missed, Schedule, ScheduleId, Timing};
use bytes::Bytes;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    /// The occurrence that not all have answered.
    asked: Option<Occurrence>,
    last_ms: u64,
}

/// One time at which it is due.
#[derive(Clone, Debug)]
struct Occurrence {
    schedule: ScheduleId,
    at_ms: u64,
    /// The message.
    number: u64,
    properties: Vec<u8>,
    body: Vec<u8>,
    /// By shard.
    queues: Vec<(ShardId, Vec<QueueRef>)>,
    /// Who has not answered.
    left: Vec<ShardId>,
}

impl World {
    /// Somebody declares it, if there is to be one.
    pub(super) fn declare_schedule(&mut self) {
        if self.plan.fires == 0 {
            return;
        }
        let schedule = Schedule {
            id: ScheduleId::default(),
            vhost: VhostId(0),
            name: NAME.into(),
            timing: Timing::Every { ms: 1 },
            exchange: String::new(),
            routing_key: SCHEDULED[0].to_owned(),
            properties: Bytes::from_static(&[0, 0]),
            body: Bytes::new(),
            missed: Missed::All,
            is_enabled: true,
            start_ms: None,
            end_ms: None,
            since_ms: 0,
        };
        let ask = CatalogAsk::SetSchedule(Box::new(schedule));
        let request =
            CatalogRequest { connection: crate::node::OPERATOR, user: None, call: CALL, vhost: VhostId(0), ask };
        self.node.catalog_mailbox.push_back(CatalogInput::Request(request));
        self.come_to_rest();
    }

    /// Fires the next occurrence, or asks again for the last one.
    pub(super) fn fire(&mut self) {
        self.hear_of_firings();
        let Some(schedule) = self.node.topology().schedule(VhostId(0), NAME).map(|schedule| schedule.id) else {
            return;
        };
        // What is asked for a schedule that a crash took is not asked for again.
        let is_old = |asked: &Occurrence| asked.schedule != schedule;
        let _lost = self.schedules.asked.take_if(|asked| is_old(asked));
        if self.schedules.asked.is_none() {
            self.schedules.asked = self.next_occurrence(schedule);
        }
        let Some(asked) = self.schedules.asked.clone() else { return };
        trace::note(format_args!("m{} is fired at {} into {:?}", asked.number, asked.at_ms, asked.queues));
        let shards: Vec<ShardId> = asked.queues.iter().map(|(shard, _)| *shard).collect();
        for (shard, queues) in &asked.queues {
            if self.random.one_in(4) {
                // This one hears of it later.
                continue;
            }
            let parts = MessageParts {
                exchange: "",
                routing_key: SCHEDULED[0],
                properties: &asked.properties,
                died_here: false,
            };
            let publish = Publish {
                queues: queues.iter().map(|queue| queue.id).collect(),
                message: Message::new(parts, &asked.body),
                more: Vec::new(),
                persistent: true,
                expiration_ms: None,
                priority: None,
                delay: None,
                confirm: false,
            };
            let firing = Firing {
                schedule: asked.schedule,
                at_ms: asked.at_ms,
                fired_ms: self.now().unix_ms,
                shards: shards.clone(),
                ..Firing::default()
            };
            let fire = Fire { ticket: TICKET + asked.number, firing, publish: Some(publish) };
            self.node.shards[usize::from(shard.0)].mailbox.push_back(ShardInput::Fire(Box::new(fire)));
        }
    }

    fn next_occurrence(&mut self, schedule: ScheduleId) -> Option<Occurrence> {
        let mut queues: Vec<(ShardId, Vec<QueueRef>)> = Vec::new();
        for name in SCHEDULED {
            let queue = self.node.topology().queue(VhostId(0), name)?.queue;
            match queues.iter_mut().find(|(shard, _)| *shard == queue.shard) {
                Some((_, others)) => others.push(queue),
                None => queues.push((queue.shard, vec![queue])),
            }
        }
        let draft = Draft {
            target: Target::Queue(SCHEDULED[0].to_owned()),
            persistent: true,
            expiration_ms: None,
            priority: None,
            delay_ms: None,
            mandatory: false,
            has_headers: false,
            wants_reply: false,
            body_bytes: self.random.index(40),
            is_named: true,
            once: None,
        };
        let message = self.ledger.publish(draft, 0, 0);
        self.schedules.last_ms += 1;
        Some(Occurrence {
            schedule,
            at_ms: self.schedules.last_ms,
            number: message.number,
            properties: message.properties.to_vec(),
            body: message.body(),
            left: queues.iter().map(|(shard, _)| *shard).collect(),
            queues,
        })
    }

    /// Takes in what shards answered.
    pub(super) fn hear_of_firings(&mut self) {
        for (shard, ticket, answer) in std::mem::take(&mut self.node.answers) {
            self.hear_of_redrive(ticket, &answer);
            let (Some(asked), Answer::Fired(firing)) = (&mut self.schedules.asked, answer) else { continue };
            if ticket != TICKET + asked.number {
                continue;
            }
            assert_eq!(firing.at_ms, asked.at_ms, "a shard has fired what was never asked for");
            asked.left.retain(|left| *left != shard);
            self.ledger.fired(shard, asked.number);
            if asked.left.is_empty() {
                self.schedules.asked = None;
            }
        }
    }

    /// Every occurrence that was begun is fired everywhere.
    pub(super) fn finish_firing(&mut self) {
        self.hear_of_firings();
        while self.schedules.asked.is_some() {
            let before = self.schedules.last_ms;
            self.fire();
            if self.schedules.last_ms != before {
                // That was another one, because the schedule is another.
                continue;
            }
            self.come_to_rest();
            self.hear_of_firings();
        }
    }
}

/// Its name.
const NAME: &str = "every";
/// The question by which it is declared.
pub(super) const CALL: CallId = CallId(u64::MAX);
/// What an occurrence is asked for by: other tickets are 0.
const TICKET: u64 = 1;

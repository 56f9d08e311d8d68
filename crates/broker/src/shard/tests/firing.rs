//! Occurrences of schedules are fired once.

use super::*;
use crate::operation::Answer;
use crate::schedule::{FULL, Fire, Firing, ScheduleId};

impl World {
    fn fire(&mut self, at_ms: u64, publish: Option<Publish>) -> Firing {
        let firing = Firing {
            schedule: ScheduleId(7),
            at_ms,
            fired_ms: at_ms + 1,
            fired: 10,
            failed: 20,
            shards: vec![ShardId(0)],
            ..Firing::default()
        };
        self.step(vec![ShardInput::Fire(Box::new(Fire { ticket: 5, firing, publish }))]);
        for _ in 0..5 {
            if let Some((5, Answer::Fired(firing))) = self.out.answers.pop() {
                return firing;
            }
            self.step(vec![]);
        }
        panic!("not answered: {:?}", self.out);
    }
}

fn kept(body: &str) -> Option<Publish> {
    let list = PropertyList { delivery_mode: Some(2), ..PropertyList::default() };
    Some(publication(&[1], body, &list))
}

#[test]
fn an_occurrence_is_fired_once_and_a_restart_remembers_it() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    let first = world.fire(1_000, kept("first"));
    assert_eq!((first.fired, first.failed, first.error.as_str()), (11, 20, ""));
    assert_eq!(world.fire(1_000, kept("again")), first, "what is known of it is told");
    assert_eq!(world.fire(999, kept("earlier")), first);
    world.fire(2_000, kept("second"));
    let mut world = world.restart();
    assert_eq!(world.fire(2_000, kept("again")).at_ms, 2_000);
    world.fire(3_000, kept("third"));
    assert_eq!(world.drain(1), ["first", "second", "third"]);
}

#[test]
fn a_message_that_no_queue_takes_is_counted_as_failed() {
    let mut world = World::new();
    let full = QueueSettings { length_max: Some(0), overflow: Overflow::RejectPublish, ..QueueSettings::default() };
    world.durable_queue(1, full);
    let refused = world.fire(1_000, kept("refused"));
    assert_eq!((refused.fired, refused.failed, refused.error.as_str()), (10, 21, FULL));
    let nowhere = world.fire(2_000, None);
    assert_eq!((nowhere.fired, nowhere.failed), (10, 21));
    let mut world = world.restart();
    assert_eq!(world.fire(2_000, kept("again")), nowhere, "that is remembered, too");
}

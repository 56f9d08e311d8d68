//! What workers say of their jobs: why they failed, for as long as the message is there, and how far they are.

use super::*;
use crate::operation::{Act, Answer, Filter, Lease, Operation, Scan, Shown, Which};
use crate::queue::dead_letter::told_failure;
use crate::shard::checkpoint::Pass;
use store::Store as _;

/// Waits five seconds after a failure, has two, and dies into the second queue.
fn retrying() -> QueueSettings {
    let retry = Retry { min_ms: 5_000, max_ms: 5_000, backoff: Backoff::Linear, jitter_percent: 0 };
    QueueSettings {
        delayed_retry: Some(retry),
        delivery_limit: Some(2),
        dead_letter_exchange: Some(String::new()),
        dead_letter_key: Some("q2".to_owned()),
        ..QueueSettings::default()
    }
}

impl World {
    fn with_jobs(jobs: &[&str]) -> Self {
        let mut world = World::new();
        world.durable_queue(1, retrying());
        world.durable_queue(2, QueueSettings::default());
        world.commands(9, jobs.iter().map(|job| persistent(&[1], job)).collect());
        world
    }

    fn report(&mut self, connection: u64, seq: u64, report: Report) -> bool {
        let told = |call| Command::Report { call, queue: Q, seq: Seq(seq), report: Box::new(report) };
        match self.ask(connection, told) {
            Outcome::Applied => true,
            Outcome::Empty => false,
            other => panic!("{other:?}"),
        }
    }

    fn fail(&mut self, seq: u64, reason: &str) -> bool {
        let at_unix_ms = self.now.unix_ms;
        self.report(1, seq, Report::Failure(Failure::new(reason, b"the end of stderr", at_unix_ms)))
    }

    fn operate_on(&mut self, queue: u64, operation: Operation) -> Answer {
        self.step(vec![ShardInput::Operate { ticket: 5, queue: QueueId(queue), operation }]);
        for _ in 0..10 {
            if let Some((_, answer)) = self.out.answers.pop() {
                return answer;
            }
            self.step(vec![]);
        }
        panic!("not answered");
    }

    fn shown(&mut self, queue: u64, seq: u64) -> Shown {
        let which = Which::These(vec![Seq(seq)]);
        let scan = Scan { which, filter: Filter::default(), count: 1, act: Act::Show };
        match self.operate_on(queue, Operation::Scan(scan)) {
            Answer::Page(mut page) => page.shown.pop().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn reason(&mut self, seq: u64) -> Option<String> {
        self.shown(1, seq).failure.map(|failure| failure.reason)
    }

    fn lease_of(&mut self, seq: u64) -> Lease {
        match self.operate_on(1, Operation::Leases { from: Seq(seq), count: 1 }) {
            Answer::Leases { mut leases, .. } => leases.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// Failures that the log has.
    fn logged(&self) -> usize {
        self.shard.log.facts().iter().filter(|(key, _)| key.starts_with(b"e/")).count()
    }

    fn dead(&mut self) -> Message {
        self.get(1, 2).unwrap().message
    }
}

#[test]
fn what_came_back_tells_why_also_after_a_crash_and_a_checkpoint() {
    let mut world = World::with_jobs(&["a", "b"]);
    world.get(1, 1).unwrap();
    assert!(world.fail(1, "no route to host"));
    assert_eq!(world.reason(1).as_deref(), Some("no route to host"), "even before it is settled");
    world.settle(1, 1, Settlement::Requeue);
    let expected = Failure::new("no route to host", b"the end of stderr", START.unix_ms);
    assert_eq!(world.shown(1, 1).failure, Some(expected.clone()));
    assert_eq!(world.reason(2), None);
    world.settle_down();
    let mut world = world.restart();
    assert_eq!(world.shown(1, 1).failure, Some(expected.clone()));
    world.shard.checkpoint = Some(Pass::of(world.shard.log.facts()));
    world.shard.log.store().begin_checkpoint();
    world.settle_down();
    let mut world = world.restart();
    assert_eq!(world.shown(1, 1).failure, Some(expected));
    assert_eq!((world.reason(2), world.logged()), (None, 1));
}

#[test]
fn a_dead_letter_tells_the_last_failure_however_it_died() {
    let mut world = World::with_jobs(&["rejected"]);
    world.get(1, 1).unwrap();
    world.fail(1, "exit 65");
    world.settle(1, 1, Settlement::Discard);
    assert_eq!(told_failure(&world.dead()).unwrap().reason, "exit 65");

    let mut world = World::with_jobs(&["too often"]);
    for attempt in 0..3 {
        world.get(1, 1).unwrap();
        if attempt < 2 {
            world.fail(1, &format!("attempt {attempt}"));
        }
        world.settle(1, 1, Settlement::Requeue);
        world.pass(5_000);
    }
    assert_eq!(told_failure(&world.dead()).unwrap().reason, "attempt 1");

    let mut world = World::new();
    world.durable_queue(1, QueueSettings { message_ttl_ms: Some(6_000), ..retrying() });
    world.durable_queue(2, QueueSettings::default());
    world.command(9, persistent(&[1], "expired"));
    world.get(1, 1).unwrap();
    world.fail(1, "once");
    world.settle(1, 1, Settlement::Requeue);
    world.settle_down();
    let mut world = world.restart();
    world.pass(6_000);
    assert_eq!(told_failure(&world.dead()).unwrap().reason, "once", "read from the log, after a crash");
}

#[test]
fn only_who_has_a_message_can_say_something_of_it() {
    let mut world = World::with_jobs(&["a"]);
    assert!(!world.fail(1, "ready"));
    world.get(1, 1).unwrap();
    let failure = || Report::Failure(Failure::new("not mine", b"", 0));
    assert!(!world.report(2, 1, failure()));
    let progress = Progress { said: Said::Percent(40.0), at_unix_ms: 7 };
    assert!(!world.report(2, 1, Report::Progress(progress.clone())));
    assert!(world.report(1, 1, Report::Progress(progress)));
    world.settle(1, 1, Settlement::Ack);
    assert!(!world.fail(1, "settled"));
    assert_eq!(world.logged(), 0);
}

#[test]
fn progress_is_the_leases_and_goes_with_it() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, QueueSettings::default());
        world.commands(9, vec![persistent(&[1], "a"), persistent(&[1], "b")]);
        world.get(1, 1).unwrap();
        world.get(1, 1).unwrap();
        let said = |text: &str| Progress { said: Said::Text(text.to_owned()), at_unix_ms: 9 };
        for text in ["begun", "half of it"] {
            assert!(world.report(1, 2, Report::Progress(said(text))));
        }
        assert_eq!((world.lease_of(1).progress, world.lease_of(2).progress), (None, Some(said("half of it"))));
        world.ask(1, |call| Command::CloseChannel { call, channel: ChannelId(1) });
        world.get(1, 1).unwrap();
        world.get(1, 1).unwrap();
        assert_eq!(world.lease_of(2).progress, None);
    }
}

#[test]
fn failures_go_with_their_messages_and_with_their_queue() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings::default());
    let jobs = 600;
    world.commands(9, (0..jobs).map(|_| persistent(&[1], "job")).collect());
    let details = vec![b'x'; Failure::DETAILS_BYTES];
    for seq in 1..=jobs {
        world.get(1, 1).unwrap();
        world.report(1, seq, Report::Failure(Failure::new("why", &details, 0)));
        // The first stays.
        if seq > 1 {
            world.settle(1, seq, Settlement::Ack);
        }
    }
    let taken = world.shard.failures_bytes();
    assert!(taken < 2 << 20 && world.logged() < 250, "{taken} bytes, {} facts", world.logged());
    assert_eq!(world.reason(1).as_deref(), Some("why"));
    world.step(vec![ShardInput::DeleteQueue { queue: Q, if_unused: false, if_empty: false, ticket: CatalogTicket(1) }]);
    assert_eq!((world.shard.failures_bytes(), world.logged()), (0, 0));
}

#[test]
fn a_restart_takes_over_no_failure_of_what_is_gone() {
    let mut world = World::with_jobs(&["a", "b"]);
    for seq in [1, 2] {
        world.get(1, 1).unwrap();
        world.fail(seq, "why");
    }
    world.settle(1, 1, Settlement::Ack);
    world.settle(1, 2, Settlement::Requeue);
    world.settle_down();
    assert_eq!(world.logged(), 2);
    let mut world = world.restart();
    assert_eq!((world.logged(), world.reason(2).as_deref()), (1, Some("why")));
}

#[test]
fn what_no_restart_keeps_has_its_failure_in_memory_only() {
    let mut world = World::new();
    world.queue(1, QueueSettings::default());
    world.publish(1, "a");
    world.get(1, 1).unwrap();
    world.fail(1, "why");
    world.settle(1, 1, Settlement::Requeue);
    assert_eq!((world.reason(1).as_deref(), world.logged()), (Some("why"), 0));
}

#[test]
fn beyond_their_room_failures_are_kept_in_short_and_then_not_at_all() {
    let mut world = World::with_jobs(&["a", "b", "c"]);
    for _ in 0..3 {
        world.get(1, 1).unwrap();
    }
    world.fail(1, "why");
    for (seq, bytes, expected) in [(2, 64 << 20, Some(String::new())), (3, 128 << 20, None)] {
        world.shard.fill_failures(bytes);
        assert!(world.fail(seq, "why"), "the settlement that comes with it counts");
        assert_eq!(world.shown(1, seq).failure.map(|failure| failure.details), expected);
    }
    assert!(!world.shown(1, 1).failure.unwrap().details.is_empty());
}

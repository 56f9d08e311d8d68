//! What operators do to a queue: pause, look, delete, move, requeue, redrive.

use super::*;
use crate::histogram::Histogram;
use crate::operation::*;
use crate::redrive::{End, Redrive, Way};
use amqp::Value;

impl World {
    pub(super) fn operate(&mut self, queue: u64, operation: Operation) -> Answer {
        self.calls += 1;
        let ticket = self.calls;
        self.step(vec![ShardInput::Operate { ticket, queue: QueueId(queue), operation }]);
        self.answer(ticket).unwrap_or_else(|| panic!("not answered: {:?}", self.out))
    }

    fn answer(&mut self, ticket: u64) -> Option<Answer> {
        for _ in 0..10 {
            if let Some(at) = self.out.answers.iter().position(|(found, _)| *found == ticket) {
                return Some(self.out.answers.remove(at).1);
            }
            self.step(vec![]);
        }
        None
    }

    pub(super) fn scan(&mut self, queue: u64, scan: Scan) -> Page {
        match self.operate(queue, Operation::Scan(scan)) {
            Answer::Page(page) => page,
            other => panic!("{other:?}"),
        }
    }

    /// Goes through all ready messages, a piece after the other.
    pub(super) fn scan_all(&mut self, queue: u64, scan: Scan) -> Page {
        let mut sum = Page::new(Seq(0), None);
        let mut scan = scan;
        loop {
            let page = self.scan(queue, scan.clone());
            sum.shown.extend(page.shown);
            sum.done += page.done;
            sum.passed += page.passed;
            sum.unroutable += page.unroutable;
            sum.refused += page.refused;
            match page.next.filter(|_| page.refused == 0) {
                Some(Next::Ready(from)) => scan.which = Which::Ready { from, until: None },
                Some(Next::Unacked(from)) => scan.which = Which::Unacked { from },
                Some(Next::Delayed(from)) => scan.which = Which::Delayed { from, until: None },
                Some(Next::Owed(from)) => scan.which = Which::Owed { from },
                Some(Next::These(_)) | None => return sum,
            }
        }
    }
}

fn all(act: Act) -> Scan {
    let which = Which::Ready { from: Cursor::HEAD, until: None };
    Scan { which, filter: Filter::default(), count: u32::MAX, act }
}

fn these(seqs: &[u64], act: Act) -> Scan {
    Scan { which: Which::These(seqs.iter().copied().map(Seq).collect()), ..all(act) }
}

fn seqs(page: &Page) -> Vec<u64> {
    page.shown.iter().map(|shown| shown.seq.0).collect()
}

fn body_is(text: &str) -> Filter {
    Filter { terms: vec![Term::Body(text.as_bytes().to_vec())] }
}

fn to_queue(name: &str) -> Act {
    Act::Move(Target::Queue(name.to_owned()))
}

/// Queues 1 and 2 and persistent messages 0, 1, … in the first.
fn filled(mut world: World, count: u64) -> World {
    world.durable_queue(1, QueueSettings::default());
    world.durable_queue(2, QueueSettings::default());
    (0..count).for_each(|number| world.command(9, persistent(&[1], &number.to_string())));
    world
}

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn a_paused_queue_delivers_nothing_and_takes_what_is_published() {
    let mut world = filled(World::new(), 1);
    world.consume(1, 1, 1, 0);
    assert_eq!(world.bodies(), ["0"]);
    assert!(matches!(world.operate(1, Operation::Pause), Answer::Done));
    world.command(9, persistent(&[1], "1"));
    world.settle(1, 1, Settlement::Requeue);
    assert!(world.bodies().is_empty());
    assert!(world.get(2, 1).is_none());
    assert_eq!(world.depths(1), (2, 0));
    assert!(world.view(1).is_paused && !world.view(2).is_paused);
    assert!(matches!(world.operate(1, Operation::Resume), Answer::Done));
    assert_eq!(world.bodies(), ["0", "1"]);
    assert!(matches!(world.operate(77, Operation::Pause), Answer::Missing));
}

#[test]
fn a_pause_outlives_the_server_and_so_does_its_end() {
    for mut world in [filled(World::new(), 1), filled(World::without_room(), 1)] {
        world.operate(1, Operation::Pause);
        let mut world = world.restart();
        assert!(world.get(2, 1).is_none());
        assert!(world.view(1).is_paused);
        world.operate(1, Operation::Resume);
        let mut world = world.restart();
        assert!(!world.view(1).is_paused);
        assert_eq!(world.drain(1), ["0"]);
    }
}

#[test]
fn a_look_changes_nothing_wherever_the_messages_are() {
    for mut world in [filled(World::new(), 30), filled(World::without_room(), 30)] {
        let page = world.scan_all(1, Scan { count: 7, ..all(Act::Show) });
        assert_eq!(seqs(&page), (1..=30).collect::<Vec<_>>());
        assert!(page.shown.iter().all(|shown| !shown.redelivered && shown.lease.is_none() && shown.attempts == 0));
        let from = Cursor { skip: 12, ..Cursor::HEAD };
        let page = world.scan(1, Scan { which: Which::Ready { from, until: None }, count: 2, ..all(Act::Show) });
        assert_eq!(seqs(&page), [13, 14]);
        let page = world.scan_all(1, Scan { filter: body_is("7"), ..all(Act::Show) });
        assert_eq!((seqs(&page), page.passed), (vec![8, 18, 28], 27));
        assert_eq!(seqs(&world.scan(1, these(&[5, 77, 3], Act::Show))), [5, 3]);
        let got = world.get(2, 1).unwrap();
        assert!(!got.redelivered && got.seq == Seq(1));
    }
}

#[test]
fn a_look_goes_by_priority_as_deliveries_do() {
    let mut world = World::new();
    world.durable_queue(1, QueueSettings { priority_max: Some(5), ..QueueSettings::default() });
    for (body, priority) in [("a", 0), ("b", 5), ("c", 2), ("d", 5)] {
        let list = PropertyList { priority: Some(priority), ..PropertyList::default() };
        world.command(9, Command::Publish(publication(&[1], body, &list)));
    }
    let page = world.scan_all(1, Scan { count: 1, ..all(Act::Show) });
    assert_eq!(seqs(&page), [2, 4, 3, 1]);
    let from = Cursor { skip: 3, ..Cursor::HEAD };
    assert_eq!(seqs(&world.scan(1, Scan { which: Which::Ready { from, until: None }, ..all(Act::Show) })), [1]);
}

#[test]
fn unacked_messages_show_who_holds_them() {
    for mut world in [filled(World::new(), 5), filled(World::without_room(), 5)] {
        world.consume(1, 1, 1, 3);
        world.pass(1_000);
        assert!(world.get(2, 1).is_some());
        world.pass(1_000);
        let which = Which::Unacked { from: Seq(0) };
        let page = world.scan_all(1, Scan { which, count: 2, ..all(Act::Show) });
        assert_eq!(seqs(&page), [1, 2, 3, 4]);
        let leases: Vec<_> = page.shown.iter().filter_map(|shown| shown.lease.as_ref()).collect();
        assert_eq!((leases[0].tag.as_deref(), leases[3].tag.as_deref()), (Some("tag-1"), None));
        assert!((1_500..=2_500).contains(&leases[0].age_ms), "{leases:?}");
        assert!((500..=1_500).contains(&leases[3].age_ms), "{leases:?}");
        assert_eq!(leases[0].connection, ConnectionId(1));
        assert!((1_500..=2_500).contains(&world.view(1).oldest_unacked_ms.unwrap()));
        let Answer::Leases { leases, next } = world.operate(1, Operation::Leases { from: Seq(2), count: 2 }) else {
            panic!()
        };
        assert_eq!((leases.iter().map(|lease| lease.seq.0).collect::<Vec<_>>(), next), (vec![2, 3], Some(Seq(4))));
    }
}

#[test]
fn what_is_deleted_is_gone_and_stays_so() {
    for mut world in [filled(World::new(), 30), filled(World::without_room(), 30)] {
        assert_eq!(world.scan(1, these(&[2, 2, 99], Act::Delete)).done, 1);
        let page = world.scan_all(1, Scan { filter: body_is("3"), ..all(Act::Delete) });
        assert_eq!((page.done, world.view(1).counters.purged), (3, 4));
        let mut world = world.restart();
        let mut left = numbers(0..30);
        left.retain(|body| body != "1" && !body.contains('3'));
        assert_eq!(world.drain(1), left);
    }
}

#[test]
fn messages_move_once_and_as_they_are() {
    for mut world in [filled(World::new(), 30), filled(World::without_room(), 30)] {
        let page = world.scan_all(1, Scan { filter: body_is("2"), ..all(to_queue("q2")) });
        assert_eq!(page.done, 12);
        let mut world = world.restart();
        let is_moved = |body: &String| body.contains('2');
        let (moved, left): (Vec<_>, Vec<_>) = numbers(0..30).into_iter().partition(is_moved);
        let shown = world.scan_all(2, all(Act::Show)).shown;
        assert!(shown.iter().all(|shown| shown.message.routing_key() == "key"));
        assert_eq!(world.drain(1), left);
        assert_eq!(world.drain(2), moved);
    }
}

#[test]
fn after_every_crash_a_moved_message_is_in_one_of_the_queues() {
    // Nothing of the last step is durable: the store forgets what was not flushed.
    let mut world = filled(World::new(), 10);
    let half = Scan { count: 5, ..all(to_queue("q2")) };
    world.scan(1, half.clone());
    let mut inbox = vec![ShardInput::Operate { ticket: 99, queue: Q, operation: Operation::Scan(half) }];
    world.shard.step(world.now, &mut inbox, &world.topology, &mut world.out);
    let mut world = world.restart();
    let (first, second) = (world.drain(1), world.drain(2));
    let mut both: Vec<String> = first.into_iter().chain(second).collect();
    both.sort();
    assert_eq!(both, numbers(0..10));
}

#[test]
fn what_has_nowhere_to_go_stays_in_its_place() {
    let mut world = filled(World::new(), 3);
    assert_eq!(world.scan(1, all(to_queue("nowhere"))).unroutable, 3);
    let target = |exchange: &str| Target::Exchange { exchange: exchange.to_owned(), routing_key: None };
    assert_eq!(world.scan(1, all(Act::Move(target("nowhere")))).unroutable, 3);
    assert_eq!(world.scan(1, all(Act::Move(target("")))).unroutable, 3, "no queue has the name of its key");
    assert_eq!(world.scan(1, all(Act::Redrive(Origin::Last))).unroutable, 3, "it never died");
    let full = QueueSettings { length_max: Some(1), overflow: Overflow::RejectPublish, ..QueueSettings::default() };
    world.durable_queue(3, full);
    let page = world.scan(1, all(to_queue("q3")));
    assert_eq!((page.done, page.refused), (1, 1));
    assert!(matches!(page.next, Some(Next::Ready(Cursor { seq: Seq(2), .. }))), "{page:?}");
    assert_eq!(world.drain(3), ["0"]);
    let mut world = world.restart();
    assert_eq!(world.drain(1), ["1", "2"]);
}

#[test]
fn a_move_through_an_exchange_is_published_anew() {
    let mut world = filled(World::without_room(), 2);
    let target = Target::Exchange { exchange: String::new(), routing_key: Some("q2".to_owned()) };
    assert_eq!(world.scan(1, all(Act::Move(target))).done, 2);
    let delivery = world.get(1, 2).unwrap();
    assert_eq!((delivery.message.exchange(), delivery.message.routing_key()), ("", "q2"));
    assert_eq!(world.depths(1), (0, 0));
}

#[test]
fn a_message_for_another_shard_stays_until_it_is_there() {
    for mut world in [filled(World::new(), 2), filled(World::without_room(), 2)] {
        let queue = QueueRef { id: QueueId(50), shard: ShardId(1) };
        world.topology.add_queue(Arc::new(QueueSpec {
            queue,
            name: "far".into(),
            ..spec(50, QueueSettings::default())
        }));
        let operation = Operation::Scan(all(to_queue("far")));
        world.step(vec![ShardInput::Operate { ticket: 7, queue: Q, operation }]);
        let transfers: Vec<u64> = world
            .out
            .shards
            .drain(..)
            .map(|(_, input)| match input {
                ShardInput::Transfer { transfer, publish, .. } if publish.confirm => transfer,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(world.answer(7).is_none(), "the answer waits for the other shard");
        assert!(world.get(1, 1).is_none());
        let by = ShardId(1);
        world.step(vec![ShardInput::TransferStored { transfer: transfers[0], by }]);
        world.step(vec![ShardInput::TransferRefused { transfer: transfers[1], by }]);
        let Some(Answer::Page(page)) = world.answer(7) else { panic!("not answered") };
        assert_eq!((page.done, page.refused), (1, 1));
        let mut world = world.restart();
        assert_eq!(world.drain(1), ["1"]);
    }
}

#[test]
fn a_delayed_message_for_another_shard_keeps_its_time_whatever_the_clock_does_on_the_way() {
    let mut world = filled(World::new(), 0);
    let queue = QueueRef { id: QueueId(50), shard: ShardId(1) };
    let far = spec(50, QueueSettings::default());
    world.topology.add_queue(Arc::new(QueueSpec { queue, name: "far".into(), ..far.clone() }));
    let headers = Some([("x-delay".to_owned(), Value::I64(3_600_000))].into_iter().collect());
    world.command(9, Command::Publish(publication(&[1], "a", &PropertyList { headers, ..PropertyList::default() })));
    let due_ms = world.now.unix_ms + 3_600_000;
    let operation =
        Operation::Scan(Scan { which: Which::Delayed { from: Time::FIRST, until: None }, ..all(to_queue("far")) });
    world.step(vec![ShardInput::Operate { ticket: 7, queue: Q, operation }]);
    let Some((_, transfer)) = world.out.shards.pop() else { panic!("nothing is on its way") };
    let mut other = World::new();
    other.declare(far);
    other.now.unix_ms = due_ms - 10;
    other.step(vec![transfer]);
    assert_eq!((other.view(50).delayed, other.depths(50)), (1, (0, 0)));
    other.pass(10);
    assert_eq!(other.drain(50), ["a"]);
}

#[test]
fn a_delayed_message_that_is_released_stays_so_over_a_restart() {
    for mut world in [filled(World::new(), 0), filled(World::without_room(), 0)] {
        let headers = Some([("x-delay".to_owned(), Value::I64(3_600_000))].into_iter().collect());
        let list = PropertyList { headers, delivery_mode: Some(2), ..PropertyList::default() };
        world.command(9, Command::Publish(publication(&[1], "a", &list)));
        assert_eq!(world.view(1).delayed, 1);
        assert_eq!(world.scan(1, these(&[1], Act::Release)).done, 1);
        assert_eq!(world.depths(1), (1, 0));
        let mut world = world.restart();
        assert_eq!((world.depths(1), world.view(1).delayed), ((1, 0), 0));
        assert_eq!(world.drain(1), ["a"]);
    }
}

#[test]
fn another_shards_message_is_refused_where_no_queue_takes_it() {
    let mut world = World::new();
    let full = QueueSettings { length_max: Some(0), overflow: Overflow::RejectPublish, ..QueueSettings::default() };
    world.durable_queue(1, full);
    let moved = |queue, if_refused: IfRefused| {
        let publish = publication(&[queue], "a", &PropertyList::default());
        ShardInput::Transfer { from: ShardId(1), transfer: queue, publish, if_refused }
    };
    let wishes = [moved(1, IfRefused::Stays), moved(2, IfRefused::Stays), moved(1, IfRefused::Owed)];
    world.step(wishes.into_iter().chain([moved(1, IfRefused::Dropped), moved(2, IfRefused::Owed)]).collect());
    world.settle_down();
    let told: Vec<_> =
        world.out.shards.iter().map(|(_, input)| matches!(input, ShardInput::TransferRefused { .. })).collect();
    assert_eq!(told, [true, true, true, false, false], "nobody keeps what may be dropped, or has nobody to go to");
}

#[test]
fn a_requeued_message_goes_to_the_end_as_if_it_were_new() {
    for mut world in [filled(World::new(), 3), filled(World::without_room(), 3)] {
        let seq = world.get(2, 1).unwrap().seq.0;
        world.settle(2, seq, Settlement::Requeue);
        assert_eq!(world.scan(1, these(&[1], Act::Requeue)).done, 1);
        let shown = world.scan_all(1, all(Act::Show)).shown;
        assert_eq!(
            shown.iter().map(|shown| (shown.seq.0, shown.redelivered)).collect::<Vec<_>>(),
            [(2, false), (3, false), (4, false)]
        );
        let mut world = world.restart();
        assert_eq!(world.drain(1), ["1", "2", "0"]);
    }
}

#[test]
fn an_unacked_message_can_be_taken_from_who_holds_it() {
    for mut world in [filled(World::new(), 2), filled(World::without_room(), 2)] {
        world.consume(1, 1, 1, 1);
        assert_eq!(world.bodies(), ["0"]);
        assert_eq!(world.scan(1, these(&[1], Act::Requeue)).done, 1);
        assert_eq!(
            world.deliveries()[0],
            Got { connection: 1, consumer: 1, seq: 1, body: "0".into(), redelivered: true }
        );
        assert_eq!(world.scan(1, these(&[1], Act::Delete)).done, 0, "only ready ones are deleted");
        assert_eq!(world.depths(1), (1, 1));
    }
}

#[test]
fn dead_letters_go_back_to_where_they_died_with_their_own_names() {
    let to = |key: &str| QueueSettings {
        dead_letter_exchange: Some(String::new()),
        dead_letter_key: Some(key.to_owned()),
        ..QueueSettings::default()
    };
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, to("q3"));
        world.durable_queue(2, QueueSettings { message_ttl_ms: Some(0), ..to("q3") });
        world.durable_queue(3, QueueSettings::default());
        world.commands(9, vec![persistent(&[1], "a"), persistent(&[2], "b"), persistent(&[3], "c")]);
        let delivery = world.get(1, 1).unwrap();
        world.settle(1, delivery.seq.0, Settlement::Discard);
        world.pass(10);
        assert_eq!(world.depths(3), (3, 0));
        let history = |message: &Message| {
            let properties = amqp::Properties::parse(message.properties()).unwrap();
            let headers = properties.headers().unwrap();
            let Some(Value::Array(deaths)) = headers.get("x-death") else { panic!("{headers:?}") };
            let Value::Table(death) = &deaths[0] else { panic!("{deaths:?}") };
            death.get("count").and_then(Value::as_i64).unwrap()
        };
        for round in 1..=3 {
            // The one of the queue that lets everything expire comes back at once.
            let page = world.scan(
                3,
                Scan {
                    which: Which::Ready { from: Cursor::HEAD, until: Some(Seq(100)) },
                    ..all(Act::Redrive(Origin::Last))
                },
            );
            assert_eq!((page.done, page.unroutable), (2, 1), "round {round}");
            world.pass(10);
            let delivery = world.get(1, 1).unwrap();
            assert_eq!((delivery.message.exchange(), delivery.message.routing_key()), ("", "key"));
            assert_eq!((delivery.message.body(), history(&delivery.message)), (&b"a"[..], round));
            world.settle(1, delivery.seq.0, Settlement::Discard);
            world.settle_down();
            assert_eq!(world.depths(3), (3, 0), "the history does not end the cycle");
        }
        let mut world = world.restart();
        let mut left = world.drain(3);
        left.sort();
        assert_eq!(left, ["a", "b", "c"]);
    }
}

#[test]
fn a_walk_that_meets_much_goes_in_pieces() {
    let mut world = filled(World::without_room(), 3_000);
    let page = world.scan(1, Scan { filter: body_is("none"), ..all(Act::Show) });
    assert!(page.passed <= 1_024 && page.next.is_some(), "{page:?}");
    let page = world.scan_all(1, Scan { filter: body_is("none"), ..all(Act::Show) });
    assert_eq!(page.passed, 3_000);
}

#[test]
fn what_leaves_while_a_walk_reads_it_is_passed_over() {
    let mut world = filled(World::without_room(), 4);
    let operate = ShardInput::Operate { ticket: 5, queue: Q, operation: Operation::Scan(all(to_queue("q2"))) };
    let purge = Command::Purge { call: CallId(600), queue: Q };
    world.step(vec![operate, ShardInput::Batch(Batch { connection: ConnectionId(1), commands: vec![purge] })]);
    let Some(Answer::Page(page)) = world.answer(5) else { panic!("not answered") };
    assert_eq!(page.done, 0);
    assert_eq!((world.depths(1), world.depths(2)), ((0, 0), (0, 0)));
    let operate = ShardInput::Operate { ticket: 6, queue: Q, operation: Operation::Scan(all(Act::Show)) };
    let delete = ShardInput::DeleteQueue { queue: Q, if_unused: false, if_empty: false, ticket: CatalogTicket(1) };
    world.commands(9, vec![persistent(&[1], "x"), persistent(&[1], "y")]);
    world.step(vec![operate, delete]);
    assert!(matches!(world.answer(6), Some(Answer::Missing)));
}

#[test]
fn the_age_of_the_oldest_ready_message_is_told() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, QueueSettings::default());
        assert_eq!(world.view(1).oldest_ready_ms, None);
        for body in ["a", "b", "c"] {
            world.pass(10_000);
            world.command(9, Command::Publish(publication(&[1], body, &PropertyList::default())));
        }
        let about = |world: &mut World, ms: u64| {
            let told = world.view(1).oldest_ready_ms.unwrap();
            assert!((ms..=ms + 1_000).contains(&told), "{told} is not about {ms}");
        };
        about(&mut world, 20_000);
        world.consume(1, 1, 1, 1);
        world.pass(1_000);
        about(&mut world, 11_000);
    }
}

#[test]
fn how_long_messages_took_is_told_by_those_that_went_first() {
    for mut world in [World::new(), World::without_room()] {
        world.durable_queue(1, QueueSettings::default());
        assert!(world.view(1).latencies.is_none());
        for body in ["a", "b"] {
            world.command(9, Command::Publish(publication(&[1], body, &PropertyList::default())));
        }
        world.pass(100);
        world.consume(1, 1, 1, 2);
        world.pass(5_000);
        let both = Settle { queue: QueueId(1), seq: Seq(1), count: 2, how: Settlement::Ack };
        world.command(1, Command::Settle(both));
        let times = world.view(1).latencies.unwrap();
        let below = |ms| Histogram::BOUNDS_MS.partition_point(|bound| *bound <= ms);
        assert_eq!(times.in_queue.counts()[below(100)], 2, "{times:?}");
        assert_eq!(times.to_ack.counts()[below(5_000)], 2, "{times:?}");
        assert!((200..=204).contains(&times.in_queue.sum_ms()), "{times:?}");
        // Of those that the log has, when they were delivered is known to half a second.
        assert!((9_000..=10_000).contains(&times.to_ack.sum_ms()), "{times:?}");
    }
}

#[test]
fn deliveries_past_half_their_timeout_are_counted() {
    for mut world in [filled(World::new(), 5), filled(World::without_room(), 5)] {
        world.consume(1, 1, 1, 3);
        assert_eq!(world.view(1).late_leases, 0);
        let timeout_ms = world.view(1).consumers[0].timeout_ms;
        world.pass(timeout_ms / 2 - 1_000);
        assert_eq!(world.view(1).late_leases, 0);
        world.pass(2_000);
        assert_eq!(world.view(1).late_leases, 3);
        assert!(matches!(world.operate(1, Operation::Extend { seq: Seq(2), ms: None }), Answer::Done));
        assert_eq!(world.view(1).late_leases, 2, "it is not late any more");
    }
}

#[test]
fn how_far_a_redrive_is_outlives_the_server_and_goes_with_its_queue() {
    let redrive = |moved, end| {
        let (total, rate, until) = (30, Some(5), Seq(31));
        let (filter, way) = (body_is("7"), Way::Back(Origin::Last));
        Arc::new(Redrive { began_unix_ms: 9, total, rate, until, filter, way, moved, unroutable: 0, passed: 0, end })
    };
    let mut world = filled(World::new(), 30);
    assert!(matches!(world.operate(1, Operation::Redrive(redrive(0, None))), Answer::Done));
    world.operate(1, Operation::Redrive(redrive(12, None)));
    world.operate(1, Operation::Pause);
    let mut world = world.restart();
    assert_eq!(world.view(1).redrive, Some(redrive(12, None)));
    assert!(world.view(1).is_paused, "both are told by one fact");
    world.operate(1, Operation::Resume);
    world.operate(1, Operation::Redrive(redrive(30, Some(End::Done))));
    let mut world = world.restart();
    assert_eq!((world.view(1).redrive, world.view(2).redrive), (Some(redrive(30, Some(End::Done))), None));
    assert!(matches!(world.operate(77, Operation::Redrive(redrive(0, None))), Answer::Missing));
}

//! Facts come back as they went.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn queue(arguments: Table) -> QueueSpec {
    QueueSpec {
        queue: QueueRef { id: QueueId(77), shard: ShardId(3) },
        vhost: VhostId(0),
        vhost_name: "/".into(),
        name: "work/a".into(),
        durable: true,
        auto_delete: true,
        owner: None,
        settings: QueueSettings::parse(&arguments, "").unwrap(),
        arguments,
        policies: Default::default(),
    }
}

fn nested(depth: usize) -> Table {
    (0..depth).fold(Table::new(), |inner, _| [("t", Value::Table(inner))].into_iter().collect())
}

fn read_queue(shard: ShardId, (key, value): &(Bytes, Bytes)) -> Result<Option<QueueSpec>, CorruptFact> {
    QueueSpec::from_fact(shard, key, value)
}

#[test]
fn a_queue_comes_back_with_its_arguments_and_their_meaning() {
    let mut arguments = nested(amqp::table::DEPTH_MAX);
    arguments.insert("x-max-length", 5_i32);
    arguments.insert("x-vendor", Value::Array(vec![Value::Void]));
    let spec = queue(arguments);
    assert_eq!(spec.fact().0, "q/77");
    assert_eq!(read_queue(ShardId(3), &spec.fact()), Ok(Some(spec)));
}

#[test]
fn other_facts_are_no_queues() {
    let exchange = Exchange::new(VhostId(0), "x", ExchangeKind::Topic);
    assert_eq!(read_queue(ShardId(0), &exchange_fact("/", &exchange)), Ok(None));
}

#[test]
fn an_exchange_comes_back() {
    let arguments: Table = [("alternate-exchange", "other")].into_iter().collect();
    for (kind, auto_delete, internal) in
        [(ExchangeKind::Direct, true, false), (ExchangeKind::Fanout, false, true), (ExchangeKind::Headers, true, true)]
    {
        let exchange = Exchange::new(VhostId(0), "näme", kind).with_arguments(arguments.clone());
        let exchange = Exchange { durable: true, auto_delete, internal, ..exchange };
        let (key, value) = exchange_fact("/", &exchange);
        assert_eq!(key, "x/1///näme");
        let Ok(CatalogFact::Exchange(read)) = CatalogFact::read(&key, &value) else { panic!("not an exchange") };
        assert_eq!((read.kind, read.durable, read.auto_delete, read.internal), (kind, true, auto_delete, internal));
        assert_eq!(
            (read.name, read.arguments, read.alternate.as_deref()),
            ("näme".into(), arguments.clone(), Some("other"))
        );
    }
}

#[test]
fn keys_of_different_exchanges_differ_whatever_slashes_their_names_hold() {
    assert_ne!(exchange_key("a", "b/c"), exchange_key("a/b", "c"));
    assert_ne!(exchange_key("", "/c"), exchange_key("/", "c"));
}

fn binding(arguments: Table) -> BindingSpec {
    BindingSpec {
        source: "x".to_owned(),
        destination: "q".to_owned(),
        kind: DestinationKind::Queue,
        key: "k.#".to_owned(),
        arguments,
    }
}

#[test]
fn a_binding_comes_back_and_its_key_knows_no_order_of_arguments() {
    let one: Table = [("a", Value::I32(1)), ("b", nested(amqp::table::DEPTH_MAX - 1).into())].into_iter().collect();
    let other: Table =
        one.iter().map(|(name, value)| (name, value.clone())).collect::<Vec<_>>().into_iter().rev().collect();
    assert_eq!(binding_key("/", &binding(one.clone())), binding_key("/", &binding(other)));
    let (key, value) = binding_fact(VhostId(0), "/", &binding(one.clone()), Some(QueueId(u64::MAX)));
    assert_eq!(key, binding_key("/", &binding(one.clone())));
    let Ok(CatalogFact::Binding { vhost, spec, queue }) = CatalogFact::read(&key, &value) else { panic!("no binding") };
    assert_eq!((vhost, spec, queue), (VhostId(0), binding(one), Some(QueueId(u64::MAX))));
}

#[test]
fn each_part_of_a_binding_is_part_of_its_key() {
    let plain = binding(Table::new());
    let others = [
        BindingSpec { source: "y".to_owned(), ..plain.clone() },
        BindingSpec { destination: "y".to_owned(), ..plain.clone() },
        BindingSpec { kind: DestinationKind::Exchange, ..plain.clone() },
        BindingSpec { key: "y".to_owned(), ..plain.clone() },
        binding([("a", 1_i32)].into_iter().collect()),
    ];
    for other in others {
        assert_ne!(binding_key("/", &plain), binding_key("/", &other));
    }
}

#[test]
fn entries_of_later_versions_are_ignored_and_later_versions_refused() {
    let (key, value) = queue(Table::new()).fact();
    let mut table = Table::decode(&value).unwrap().0;
    table.insert("colour", "green");
    assert!(QueueSpec::from_fact(ShardId(0), &key, &encoded(&table)).is_ok());
    table.insert("v", 2_i64);
    let error = QueueSpec::from_fact(ShardId(0), &key, &encoded(&table)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the stored fact 'q/77' cannot be used: a newer version of Leveret wrote it; start that version"
    );
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    let (key, value) = queue(Table::new()).fact();
    let without = |name: &str| {
        let mut table = Table::decode(&value).unwrap().0;
        table.remove(name);
        encoded(&table)
    };
    for (key, value, why) in [
        (&b"q/x"[..], value.clone(), "its key holds no queue id"),
        (&key, without("name"), "its entry 'name' is missing or of another type"),
        (&key, without("auto_delete"), "its entry 'auto_delete' is missing or of another type"),
        (&key, without("v"), "its version is missing"),
        (&key, value.slice(1..), "its value is not one field table"),
        (&key, Bytes::new(), "its value is not one field table"),
    ] {
        assert_eq!(QueueSpec::from_fact(ShardId(0), key, &value).unwrap_err().why, why);
    }
    let why = CatalogFact::read(b"u/guest", &value).err().unwrap().why;
    assert_eq!(why, "this version does not know facts of this kind; start the version that wrote it");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(kind in "[qxb]/", key in vec(any::<u8>(), 0..30), value in vec(any::<u8>(), 0..80)) {
        let key = [kind.as_bytes(), &key].concat();
        let _ = QueueSpec::from_fact(ShardId(0), &key, &value);
        let _ = CatalogFact::read(&key, &value);
    }

    #[test]
    fn a_cut_or_changed_fact_never_panics(at in 0..120_usize, octet in any::<u8>()) {
        let (key, value) = binding_fact(VhostId(0), "/", &binding(nested(3)), Some(QueueId(1)));
        let mut value = value.to_vec();
        let at = at % value.len();
        let _ = CatalogFact::read(&key, &value[..at]);
        value[at] = octet;
        let _ = CatalogFact::read(&key, &value);
    }
}

#[test]
fn a_schedule_and_its_firings_come_back() {
    use crate::fact::schedule_fact;
    use crate::schedule::{Firing, Missed, ScheduleId, Timing};
    let schedule = Schedule {
        id: ScheduleId(u64::MAX),
        vhost: VhostId(0),
        name: "nächtlich".into(),
        timing: Timing::Cron { expression: "0 3 * * *".to_owned(), zone: "Europe/Berlin".to_owned() },
        exchange: "x".to_owned(),
        routing_key: "k".to_owned(),
        properties: Bytes::from_static(&[0x10, 0, 2]),
        body: Bytes::from_static(b"\0\xff"),
        missed: Missed::All,
        is_enabled: false,
        start_ms: Some(1),
        end_ms: Some(u64::MAX),
        since_ms: 1_700_000_000_000,
    };
    let every = Schedule { timing: Timing::Every { ms: 100 }, start_ms: None, end_ms: None, ..schedule.clone() };
    for schedule in [schedule, every] {
        let (key, value) = schedule_fact("/", &schedule);
        assert_eq!(key, "s/1///nächtlich");
        let Ok(CatalogFact::Schedule(read)) = CatalogFact::read(&key, &value) else { panic!("not a schedule") };
        assert_eq!(read, schedule);
    }
    for (shards, error) in [(vec![ShardId(3)], ""), (vec![ShardId(3), ShardId(9)], "full")] {
        let firing = Firing {
            schedule: ScheduleId(12),
            at_ms: 1,
            fired_ms: u64::MAX,
            fired: 3,
            missed: 4,
            failed: 5,
            error: error.to_owned(),
            shards,
        };
        let (key, value) = firing.fact();
        assert_eq!(key, "f/12");
        assert_eq!(Firing::from_fact(ShardId(3), &key, &value), Ok(Some(firing)));
    }
    assert_eq!(Firing::from_fact(ShardId(0), b"q/1", b""), Ok(None));
}

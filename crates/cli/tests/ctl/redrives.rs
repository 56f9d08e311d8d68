//! A redrive outlives the server: killed in the middle, it goes on at the next start.

use super::*;
use std::time::{Duration, Instant};

#[test]
fn a_redrive_that_a_kill_cut_short_goes_on_at_the_next_start_and_moves_each_message_once() {
    const MESSAGES: u64 = 3_000;
    // More than a second's.
    const MOVED: u64 = 700;
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut desk = Desk::open();
    let mut client = desk.client();
    let dying = [
        ("x-message-ttl", Value::from(0)),
        ("x-dead-letter-exchange", "".into()),
        ("x-dead-letter-routing-key", "dead".into()),
    ];
    client.declare("dead", true, false, Table::new());
    client.declare("work", true, false, dying.into_iter().collect());
    client.send(CHANNEL, &Method::ConfirmSelect(amqp::method::confirm::Select { nowait: false }));
    client.expect(|method| matches!(method, Method::ConfirmSelectOk(_)).then_some(()));
    for number in 0..MESSAGES {
        client.publish_persistent("work", number.to_string().as_bytes());
    }
    let mut confirmed = 0;
    while confirmed < MESSAGES {
        confirmed = client.expect(|method| match method {
            Method::BasicAck(ack) => Some(ack.delivery_tag),
            _ => None,
        });
    }
    let count = |desk: &Desk, queue: &str| -> u64 {
        let listed = desk.say("-s list_queues name messages").out;
        let line = listed.lines().find_map(|line| line.strip_prefix(&format!("{queue}\t")));
        line.map_or(0, |count| count.parse().unwrap())
    };
    let until = Instant::now() + PATIENCE;
    while count(&desk, "dead") < MESSAGES {
        assert!(Instant::now() < until, "they die at once");
    }
    assert_eq!(desk.say("-q delete_queue work").code, 0);
    client.declare("work", true, false, Table::new());

    let path = desk.directory.path().join("rabbitmqctl");
    let mut driver = Command::new(path)
        .env_clear()
        .env("LEVERET_DATA_DIR", desk.data_dir())
        .args(["-q", "redrive_queue", "dead", "--rate", "500"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Later than the first time at which it is said how far it is.
    let until = Instant::now() + PATIENCE;
    while count(&desk, "work") < MOVED {
        assert!(Instant::now() < until, "it moves five hundred a second");
        assert!(driver.try_wait().unwrap().is_none(), "it ends before the server does");
    }
    desk.server.kill().unwrap();
    desk.server.wait().unwrap();
    assert_eq!(driver.wait().unwrap().code(), Some(69), "whoever watched is told");
    desk.start_again();

    let followed = desk.say("-q redrive_queue dead --follow --formatter json");
    assert_eq!(followed.code, 0, "{followed:?}");
    assert!(
        followed.out.contains("\"state\":\"done\"") && !followed.out.contains("\"resumed_at\":null"),
        "{followed:?}"
    );
    let moved = followed.out.split("\"moved\":").nth(1).and_then(|rest| rest.split(',').next());
    let moved: u64 = moved.unwrap().parse().unwrap();
    assert!((MESSAGES / 2..=MESSAGES).contains(&moved), "what was moved before the kill counts, about: {moved}");
    assert_eq!(count(&desk, "dead"), 0);
    let peeked = desk.say("-s peek_messages work --count 6000");
    let body = |line: &str| line.rsplit('\t').next().unwrap().parse::<u64>().unwrap();
    let mut bodies: Vec<u64> = peeked.out.lines().map(body).collect();
    bodies.sort_unstable();
    assert!(bodies.into_iter().eq(0..MESSAGES), "each is there, and once");

    // Its end is known after another start, too, and it does not begin again.
    desk.server.kill().unwrap();
    desk.server.wait().unwrap();
    desk.start_again();
    let again = desk.say("-q redrive_queue dead --follow --formatter json");
    assert!(again.out.contains("\"state\":\"done\"") && again.out.contains("\"resumed_at\":null"), "{again:?}");
}

#[test]
fn who_follows_no_redrive_is_told_so() {
    let desk = Desk::open();
    desk.client().declare("dead", true, false, Table::new());
    let text = "Error:\nno redrive of queue 'dead' is known: begin one without --follow\n";
    assert_eq!(desk.say("-q redrive_queue dead --follow"), failed(69, "", text));
}

//! Schedules over kills: what is fired is fired once.

use super::*;
use serde_json::Value as Json;

/// What the API tells.
fn get(desk: &Desk, path: &str) -> Json {
    let mut stream = TcpStream::connect(desk.address("HTTP")).unwrap();
    let request = format!("GET /api{path} HTTP/1.0\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// The occurrences of which a queue has the messages, in order.
fn occurrences(desk: &Desk, queue: &str) -> Vec<u64> {
    let found = get(desk, &format!("/queues/%2F/{queue}/messages?count=10000"));
    let at = |item: &Json| item["properties"]["headers"]["x-schedule-time"].as_u64().unwrap();
    let mut found: Vec<u64> = found["items"].as_array().unwrap().iter().map(at).collect();
    found.sort_unstable();
    found
}

#[test]
fn each_occurrence_is_fired_once_whatever_is_killed() {
    let mut desk = Desk::open();
    let mut client = desk.client();
    // Into two queues, which are in different shards where there are several.
    for queue in ["a", "b"] {
        client.declare(queue, true, false, Table::new());
        let bind = amqp::method::queue::Bind {
            queue,
            exchange: "amq.fanout",
            routing_key: "",
            nowait: false,
            arguments: Table::new(),
        };
        client.send(CHANNEL, &Method::QueueBind(bind));
        client.expect(|method| matches!(method, Method::QueueBindOk(_)).then_some(()));
    }
    for queue in ["all", "skip"] {
        client.declare(queue, true, false, Table::new());
    }
    drop(client);
    let set = |name: &str, definition: &str| {
        assert_eq!(desk.ctl(&["-q", "set_schedule", name, definition]), printed(""));
    };
    set("both", r#"{"every_ms": 100, "if_missed": "all", "exchange": "amq.fanout"}"#);
    set("all", r#"{"every_ms": 100, "if_missed": "all", "routing_key": "all"}"#);
    set("skip", r#"{"every_ms": 100, "routing_key": "skip"}"#);
    for round in 0..5_u64 {
        let fired = |desk: &Desk| {
            ["both", "all", "skip"].map(|name| get(desk, &format!("/schedules/%2F/{name}"))["fired"].as_u64().unwrap())
        };
        let before = fired(&desk);
        while fired(&desk).iter().zip(before).any(|(now, before)| *now <= before + 2 + round) {}
        desk.server.kill().unwrap();
        desk.server.wait().unwrap();
        desk.start_again();
    }
    for name in ["both", "all", "skip"] {
        assert_eq!(desk.say(&format!("-q pause_schedule {name}")), printed(""));
    }
    // What is being fired at this moment arrives yet: until two looks see the same.
    let look = |desk: &Desk| ["a", "b", "all", "skip"].map(|queue| occurrences(desk, queue));
    let mut found = look(&desk);
    loop {
        let again = look(&desk);
        if again == found && again[0] == again[1] {
            break;
        }
        found = again;
    }
    let [a, b, all, skip] = found;
    for (queue, found) in [("a", &a), ("b", &b), ("all", &all)] {
        assert!(found.len() > 10, "{queue}: {found:?}");
        assert!(found.windows(2).all(|pair| pair[1] == pair[0] + 100), "each, and once, in {queue}: {found:?}");
    }
    assert!(skip.len() > 10 && skip.windows(2).all(|pair| pair[1] > pair[0]), "none twice: {skip:?}");
    assert!(skip.windows(2).all(|pair| (pair[1] - pair[0]) % 100 == 0), "{skip:?}");
    for (name, found) in [("both", &a), ("all", &all), ("skip", &skip)] {
        let shown = get(&desk, &format!("/schedules/%2F/{name}"));
        assert_eq!(shown["fired"].as_u64(), Some(found.len() as u64), "{shown}");
        let missed = (found[found.len() - 1] - found[0]) / 100 + 1 - found.len() as u64;
        assert_eq!(shown["missed"].as_u64(), Some(missed), "{shown}");
    }
}

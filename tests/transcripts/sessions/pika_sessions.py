"""Sessions recorded with pika: `python3 pika_sessions.py PORT NAME`."""

import sys
import time

import pika
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker, NackError, UnroutableError

PERSISTENT = pika.BasicProperties(delivery_mode=2)


def connect(port):
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, heartbeat=0))


def refused(connection, act):
    """Does something that ends its channel."""
    channel = connection.channel()
    try:
        act(channel)
        end = time.monotonic() + 2
        while channel.is_open and time.monotonic() < end:
            connection.process_data_events(time_limit=0.1)
    except ChannelClosedByBroker:
        return
    if channel.is_open:
        raise SystemExit(f"{act} was not refused")


def work_queue(port):
    connection = connect(port)
    channel = connection.channel()
    channel.queue_declare("tasks", durable=True)
    for body in (b"first", b"second", b"", b"fourth" * 50):
        channel.basic_publish("", "tasks", body, PERSISTENT)
    channel.basic_qos(prefetch_count=1)
    for method, _, body in channel.consume("tasks"):
        channel.basic_ack(method.delivery_tag)
        if len(body) > 100:
            break
    channel.cancel()
    channel.queue_delete("tasks")
    connection.close()


def confirms(port):
    connection = connect(port)
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare("confirmed", durable=True)
    channel.basic_publish("", "confirmed", b"kept", PERSISTENT, mandatory=True)
    channel.basic_publish("", "confirmed", b"not kept")
    channel.basic_publish("", "nowhere", b"dropped")
    try:
        channel.basic_publish("", "nowhere", b"returned", pika.BasicProperties(headers={"a": 1}), mandatory=True)
    except UnroutableError:
        pass
    channel.queue_declare("full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.basic_publish("", "full", b"fits")
    try:
        channel.basic_publish("", "full", b"does not fit")
    except NackError:
        pass
    channel.queue_delete("full")
    channel.queue_delete("confirmed")
    connection.close()


def channel_errors(port):
    connection = connect(port)
    own = connection.channel()
    own.queue_declare("durable", durable=True)
    own.queue_declare("filled", durable=False, arguments={"x-message-ttl": 60000})
    own.basic_publish("", "filled", b"one")
    time.sleep(0.05)
    own.exchange_declare("internal", "fanout", internal=True)
    for act in (
        lambda it: it.queue_declare("missing", passive=True),
        lambda it: it.exchange_declare("missing", passive=True),
        lambda it: it.basic_publish("missing", "k", b""),
        lambda it: it.basic_consume("missing", lambda *_: None),
        lambda it: it.basic_get("missing"),
        lambda it: it.queue_bind("durable", "missing", "k"),
        lambda it: it.queue_bind("missing", "amq.direct", "k"),
        lambda it: it.queue_declare("durable", durable=False),
        lambda it: it.queue_declare("durable", durable=True, arguments={"x-message-ttl": 1000}),
        lambda it: it.queue_declare("filled", durable=False, arguments={"x-message-ttl": 1000}),
        lambda it: it.queue_declare("filled", durable=False),
        lambda it: it.queue_declare("bad", arguments={"x-message-ttl": -1}),
        lambda it: it.queue_declare("bad", arguments={"x-dead-letter-routing-key": "k"}),
        lambda it: it.queue_delete("filled", if_empty=True),
        lambda it: it.queue_declare("amq.mine"),
        lambda it: it.exchange_declare("amq.mine"),
        lambda it: it.exchange_declare("amq.direct", "fanout", durable=True),
        lambda it: it.exchange_delete("amq.direct"),
        lambda it: it.exchange_delete(""),
        lambda it: it.queue_bind("durable", "", "k"),
        lambda it: it.basic_publish("internal", "k", b""),
        lambda it: it.basic_ack(82),
        lambda it: it.basic_nack(0),
        lambda it: it.basic_reject(5),
        lambda it: it.basic_publish("", "filled", b"", pika.BasicProperties(expiration="soon")),
        lambda it: it.basic_publish("", "filled", b"", pika.BasicProperties(user_id="somebody")),
        lambda it: it.tx_commit(),
        lambda it: (it.tx_select(), it.confirm_delivery()),
        lambda it: it.queue_bind("durable", "amq.headers", "", arguments={"x-match": "some"}),
    ):
        refused(connection, act)
    own.queue_delete("missing")
    own.exchange_delete("missing")
    own.queue_unbind("durable", "amq.direct", "not bound")
    own.exchange_delete("internal")
    own.queue_delete("filled")
    own.queue_delete("durable")
    connection.close()


def exclusive(port):
    owner, other = connect(port), connect(port)
    channel = owner.channel()
    channel.queue_declare("mine", exclusive=True)
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.basic_publish("", name, b"to a name that the server made")
    time.sleep(0.05)
    channel.basic_get(name, auto_ack=True)
    for act in (
        lambda it: it.queue_declare("mine", exclusive=True),
        lambda it: it.queue_declare("mine", passive=True),
        lambda it: it.basic_consume("mine", lambda *_: None),
        lambda it: it.queue_delete("mine"),
        lambda it: it.queue_purge("mine"),
    ):
        refused(other, act)
    shared = other.channel()
    shared.queue_declare("shared")
    shared.basic_consume("shared", lambda *_: None, exclusive=True)
    refused(owner, lambda it: it.basic_consume("shared", lambda *_: None))
    refused(owner, lambda it: it.queue_delete("shared", if_unused=True))
    owner.close()
    refused(other, lambda it: it.queue_declare("mine", passive=True))
    shared.queue_delete("shared")
    other.close()


def cancelled(port):
    connection = connect(port)
    consuming, deleting = connection.channel(), connection.channel()
    consuming.queue_declare("going")
    consuming.queue_declare("lonely", auto_delete=True)
    told = []
    consuming.add_on_cancel_callback(told.append)
    consuming.basic_consume("going", lambda *_: None, consumer_tag="watcher")
    deleting.queue_delete("going")
    while not told:
        connection.process_data_events(time_limit=1)
    tag = consuming.basic_consume("lonely", lambda *_: None)
    consuming.basic_cancel(tag)
    refused(connection, lambda it: it.queue_declare("lonely", passive=True))
    connection.close()


def taking(port):
    connection = connect(port)
    channel = connection.channel()
    channel.queue_declare("taken")
    channel.basic_get("taken")
    for body in (b"a", b"b", b"c", b"d"):
        channel.basic_publish("", "taken", body)
    time.sleep(0.05)
    tags = [channel.basic_get("taken")[0].delivery_tag for _ in range(3)]
    channel.basic_nack(tags[0], requeue=True)
    channel.basic_reject(tags[1], requeue=False)
    again = channel.basic_get("taken")[0]
    channel.basic_ack(again.delivery_tag, multiple=True)
    channel.basic_get("taken", auto_ack=True)
    channel.basic_publish("", "taken", b"e")
    time.sleep(0.05)
    channel.queue_purge("taken")
    channel.queue_declare("taken", passive=True)
    channel.queue_delete("taken")
    connection.close()


def arguments(port):
    """What RabbitMQ thinks of arguments, right and wrong, and of the same names declared again."""
    connection = connect(port)
    own = connection.channel()
    own.queue_declare("fixed", durable=True, auto_delete=False, arguments={
        "x-max-length": 5, "x-dead-letter-exchange": "amq.direct", "x-unknown": "yes"})
    own.exchange_declare("fixed", "topic", durable=True, arguments={"alternate-exchange": "amq.fanout"})
    own.queue_declare("fixed", durable=True, arguments={"x-max-length": 5, "x-dead-letter-exchange": "amq.direct"})
    for arguments in (
        {"x-max-length": 6, "x-dead-letter-exchange": "amq.direct"},
        {"x-max-length": 5},
        {"x-max-length": "5", "x-dead-letter-exchange": "amq.direct"},
        {"x-max-length": 5, "x-dead-letter-exchange": "amq.direct", "x-max-priority": 3},
        {"x-max-length": 5, "x-dead-letter-exchange": "amq.direct", "x-queue-type": "quorum"},
    ):
        refused(connection, lambda it: it.queue_declare("fixed", durable=True, arguments=arguments))
    for arguments in (
        {"x-message-ttl": "soon"}, {"x-expires": 0}, {"x-expires": -5}, {"x-max-length": -1},
        {"x-max-length-bytes": True}, {"x-overflow": "explode"}, {"x-overflow": 1}, {"x-dead-letter-exchange": 4},
        {"x-max-priority": 256}, {"x-max-priority": -1}, {"x-max-priority": "high"},
        {"x-single-active-consumer": "yes"}, {"x-queue-mode": "fast"}, {"x-queue-type": 3},
        {"x-message-ttl": 315360000001}, {"x-expires": 315360000001}, {"x-dead-letter-routing-key": 4},
        {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": 4},
        {"x-queue-version": 3},
    ):
        refused(connection, lambda it: it.queue_declare("wrong", arguments=arguments))
    for options in (
        {"exchange_type": "fanout", "durable": True}, {"exchange_type": "topic"},
        {"exchange_type": "topic", "durable": True},
        {"exchange_type": "topic", "durable": True, "arguments": {"alternate-exchange": "amq.topic"}},
        {"exchange_type": "topic", "durable": True, "auto_delete": True, "arguments": {"alternate-exchange": "amq.fanout"}},
        {"exchange_type": "topic", "durable": True, "internal": True, "arguments": {"alternate-exchange": "amq.fanout"}},
    ):
        refused(connection, lambda it: it.exchange_declare("fixed", **options))
    refused(connection, lambda it: it.queue_declare("fixed", durable=True, auto_delete=True))
    refused(connection, lambda it: it.queue_declare("fixed", durable=True, exclusive=True))
    own.queue_bind("fixed", "fixed", "a.*")
    refused(connection, lambda it: it.exchange_delete("fixed", if_unused=True))
    refused(connection, lambda it: it.exchange_bind("fixed", "missing", "k"))
    own.exchange_unbind("missing", "fixed", "k")
    own.queue_unbind("missing", "fixed", "k")
    refused(connection, lambda it: it.exchange_declare("wrong", arguments={"alternate-exchange": 4}))
    refused(connection, lambda it: it.queue_bind("fixed", "amq.headers", "", arguments={"x-match": 1}))
    refused(connection, lambda it: it.basic_consume("fixed", print, arguments={"x-priority": "high"}))
    refused(connection, lambda it: it.basic_consume("amq.rabbitmq.reply-to", print))
    refused(connection, lambda it: it.basic_publish(
        "", "fixed", b"", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to")))
    refused(connection, lambda it: it.basic_publish("", "fixed", b"", pika.BasicProperties(headers={"CC": "no array"})))
    refused(connection, lambda it: it.queue_bind("amq.rabbitmq.reply-to", "fixed", "k"))
    own.queue_delete("fixed")
    own.exchange_delete("fixed")
    connection.close()


def shortcuts(port):
    """Empty names, methods without answers, and methods that change nothing."""
    connection = connect(port)
    channel = connection.channel()
    refused(connection, lambda it: it._impl._send_method(pika.spec.Queue.Bind(exchange="amq.fanout")))
    refused(connection, lambda it: it._impl._send_method(pika.spec.Queue.Purge()))
    send = channel._impl._send_method
    send(pika.spec.Queue.Declare(queue="last", nowait=True))
    send(pika.spec.Queue.Bind(queue="", exchange="amq.topic", routing_key="", nowait=True))
    send(pika.spec.Exchange.Declare(exchange="quiet", type="fanout", nowait=True))
    send(pika.spec.Exchange.Bind(destination="quiet", source="amq.topic", routing_key="#", nowait=True))
    send(pika.spec.Basic.Consume(queue="", consumer_tag="silent", no_ack=True, nowait=True))
    channel.basic_publish("amq.topic", "last", b"bound by its own name", mandatory=True)
    channel.basic_publish("amq.topic", "other", b"not bound", mandatory=True)
    connection.process_data_events(time_limit=0.2)
    send(pika.spec.Basic.Cancel(consumer_tag="silent", nowait=True))
    channel.basic_cancel("never there")
    send(pika.spec.Basic.RecoverAsync(requeue=True))
    send(pika.spec.Channel.Flow(active=True))
    send(pika.spec.Queue.Purge(queue="last", nowait=True))
    send(pika.spec.Queue.Delete(queue="last", nowait=True))
    send(pika.spec.Exchange.Unbind(destination="quiet", source="amq.topic", routing_key="#", nowait=True))
    send(pika.spec.Exchange.Delete(exchange="quiet", nowait=True))
    channel.queue_declare("last", auto_delete=True)
    channel.confirm_delivery()
    send(pika.spec.Confirm.Select(nowait=False))
    connection.process_data_events(time_limit=0.2)
    channel.queue_delete("last", if_unused=True, if_empty=True)
    connection.close()


def expiry(port):
    """Times to live, of messages and of a queue, and lengths."""
    connection = connect(port)
    channel = connection.channel()
    channel.queue_declare("aging", arguments={"x-message-ttl": 300})
    channel.queue_declare("bounded", arguments={"x-max-length-bytes": 10})
    channel.queue_declare("unused", arguments={"x-expires": 200})
    for body, expiration in ((b"long", "60000"), (b"none", None), (b"short", "100")):
        channel.basic_publish("", "aging", body, pika.BasicProperties(expiration=expiration))
        channel.basic_publish("", "bounded", body)
    channel.basic_publish("", "aging", b"at once", pika.BasicProperties(expiration="0"))
    time.sleep(0.05)
    channel.queue_declare("aging", passive=True)
    channel.basic_get("bounded", auto_ack=True)
    channel.basic_get("bounded", auto_ack=True)
    got = channel.basic_get("aging")[0]
    time.sleep(0.6)
    channel.queue_declare("aging", passive=True)
    channel.basic_nack(got.delivery_tag, requeue=True)
    time.sleep(0.05)
    channel.basic_get("aging")
    refused(connection, lambda it: it.queue_declare("unused", passive=True))
    channel.queue_delete("aging")
    channel.queue_delete("bounded")
    connection.close()


def connection_errors(port):
    for act in (
        lambda it: it.basic_publish("", "k", b"", mandatory=False) or it._impl._send_method(
            pika.spec.Basic.Publish(exchange="", routing_key="k", immediate=True), (pika.BasicProperties(), b"")),
        lambda it: (it.queue_declare("twice", auto_delete=True), it.basic_consume("twice", print, consumer_tag="t"),
                    it._impl._send_method(pika.spec.Basic.Consume(queue="twice", consumer_tag="t"))),
        lambda it: it._impl._send_method(pika.spec.Basic.Qos(prefetch_size=9)),
        lambda it: it._impl._send_method(pika.spec.Basic.Recover(requeue=False)),
        lambda it: it._impl._send_method(pika.spec.Channel.Open()),
        lambda it: it._impl._send_method(pika.spec.Basic.GetEmpty()),
        lambda it: it._impl._send_method(pika.spec.Queue.DeclareOk("q", 0, 0)),
    ):
        connection = connect(port)
        try:
            act(connection.channel())
            for _ in range(20):
                connection.process_data_events(time_limit=0.1)
        except (ConnectionClosedByBroker, ChannelClosedByBroker):
            continue
        raise SystemExit(f"{act} was not refused")


def refused_logins(port):
    guest = pika.PlainCredentials("guest", "wrong")
    for parameters in (
        pika.ConnectionParameters("127.0.0.1", port, credentials=guest),
        pika.ConnectionParameters("127.0.0.1", port, virtual_host="nowhere"),
    ):
        try:
            pika.BlockingConnection(parameters)
        except pika.exceptions.AMQPError:
            continue
        raise SystemExit("a login was not refused")


if __name__ == "__main__":
    globals()[sys.argv[2]](int(sys.argv[1]))
    time.sleep(0.2)

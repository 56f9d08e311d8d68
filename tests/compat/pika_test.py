"""The promises of the broker, one test each, held against pika's blocking connection."""

import datetime
import decimal
import random
import signal
import subprocess
import sys
import threading
import time
import uuid

import pika
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    NackError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    UnroutableError,
)

from harness import HOST, PORT, equal, limit_free_disk, restart, run, test

PERSISTENT = pika.BasicProperties(delivery_mode=2)
connections = []
queues = []
processes = []


def connect(user="guest", password="guest", vhost="/", heartbeat=None):
    parameters = pika.ConnectionParameters(
        HOST, PORT, vhost, pika.PlainCredentials(user, password), heartbeat=heartbeat
    )
    connection = pika.BlockingConnection(parameters)
    connections.append(connection)
    return connection


def channel():
    """A channel on a connection of its own."""
    return connect().channel()


def fresh(kind="queue"):
    name = f"{kind}-{uuid.uuid4()}"
    if kind == "queue":
        queues.append(name)
    return name


def declare(at, **options):
    """A new queue's name; its removal is the end of the test's."""
    arguments = {"x-" + key.replace("_", "-"): options.pop(key) for key in list(options) if key not in FLAGS}
    name = fresh()
    at.queue_declare(name, arguments=arguments, **options)
    return name


FLAGS = ("durable", "exclusive", "auto_delete")


def publish(at, queue, *bodies, **properties):
    for body in bodies:
        at.basic_publish("", queue, body, pika.BasicProperties(**properties))


def pump(done, *at, seconds=10, what="an event"):
    """Serves the connections of the channels until done() holds."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {seconds} s")
        for each in at:
            each.connection.process_data_events(time_limit=0.005)


def count(at, queue):
    return at.queue_declare(queue, passive=True).method.message_count


def exists(queue):
    """Asked by a publish, which does not count as use of the queue."""
    at = channel()
    at.confirm_delivery()
    try:
        at.basic_publish("", queue, "asks", mandatory=True)
        return True
    except UnroutableError:
        return False
    finally:
        at.connection.close()


class Worker:
    """A consumer on a connection of its own unless it gets a channel; keeps its deliveries."""

    def __init__(self, queue, prefetch=0, auto_ack=False, acks=False, at=None, **options):
        self.at = at or channel()
        self.deliveries = []
        self.acks = acks
        if prefetch:
            self.at.basic_qos(prefetch_count=prefetch)
        self.tag = self.at.basic_consume(queue, self.receive, auto_ack=auto_ack, **options)

    def receive(self, _channel, method, properties, body):
        self.deliveries.append((method, properties, body))
        if self.acks:
            self.at.basic_ack(method.delivery_tag)

    @property
    def bodies(self):
        return [body.decode() for _, _, body in self.deliveries]

    @property
    def redelivered(self):
        return [method.redelivered for method, _, _ in self.deliveries]

    @property
    def last_tag(self):
        return self.deliveries[-1][0].delivery_tag

    def wait(self, wanted, seconds=10):
        pump(lambda: len(self.deliveries) >= wanted, self.at, seconds=seconds, what=f"delivery {wanted}")
        return self


def refused(action, code, text, whole=True):
    """The action, or the next call on its channel, is answered with this close."""
    try:
        action()
    except (ProbableAccessDeniedError, ProbableAuthenticationError) as error:
        equal(str(error), f"ConnectionClosedByBroker: ({code}) {text!r}")
        return
    except (ChannelClosedByBroker, ConnectionClosedByBroker) as error:
        equal(error.reply_code, code)
        text = text if len(text) <= 255 else text[:252] + "..."
        if whole:
            equal(error.reply_text, text)
        elif not error.reply_text.startswith(text):
            equal(error.reply_text, text + "...")
        return
    raise AssertionError(f"not refused; expected {code} {text}")


def after(at, action):
    """An unanswered method, then one that is answered, so that its refusal is seen."""

    def both():
        action()
        at.basic_qos()

    return both


def spawn_worker(queue, heartbeat=60):
    """A worker process that prints each body it gets and acknowledges none."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--worker", queue, str(heartbeat)], stdout=subprocess.PIPE, text=True
    )
    processes.append(process)
    return process


def hold_messages(queue, heartbeat):
    """What the worker process does."""
    at = connect(heartbeat=heartbeat).channel()
    at.basic_consume(queue, lambda _c, _m, _p, body: print(body.decode(), flush=True))
    at.start_consuming()


def around(body):
    """Gives a test clean lists, and takes away what it left."""
    try:
        body()
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for connection in connections:
            try:
                connection.close()
            except AMQPError:
                pass  # closed in the test, or lost with the server
        if queues:
            at = channel()
            for name in queues:
                try:
                    at.queue_delete(name)
                except ChannelClosedByBroker:
                    at = channel()
            at.connection.close()
        for each in (connections, queues, processes):
            each.clear()


# ---- dispatch


@test()
def round_robin_in_strict_order():
    at = channel()
    queue = declare(at)
    workers = [Worker(queue) for _ in range(3)]
    publish(at, queue, *map(str, range(30)))
    for worker in workers:
        worker.wait(10)
    equal([w.bodies for w in workers], [[str(n) for n in range(first, 30, 3)] for first in range(3)])


@test()
def round_robin_one_message_at_a_time():
    at = channel()
    queue = declare(at)
    workers = [Worker(queue, auto_ack=True) for _ in range(3)]
    for n in range(9):
        publish(at, queue, str(n))
        workers[n % 3].wait(n // 3 + 1)
        equal([len(w.deliveries) for w in workers], [(n + 3 - i) // 3 for i in range(3)])


@test()
def prefetch_one_is_fair():
    at = channel()
    queue = declare(at)
    slow, fast = Worker(queue, prefetch=1), Worker(queue, prefetch=1, acks=True)
    publish(at, queue, *map(str, range(20)))
    slow.wait(1)
    fast.wait(19)
    equal(slow.bodies + fast.bodies, [str(n) for n in range(20)])
    slow.at.basic_ack(slow.last_tag)
    publish(at, queue, "next")
    pump(lambda: "next" in slow.bodies + fast.bodies, slow.at, fast.at)


@test()
def prefetch_is_per_consumer_and_for_later_ones():
    at = channel()
    queue = declare(at)
    publish(at, queue, *map(str, range(10)))
    first = Worker(queue, prefetch=2, at=at)
    second = Worker(queue, prefetch=3, at=at)
    first.wait(2)
    second.wait(3)
    equal(count(at, queue), 5)
    at.basic_ack(first.last_tag)
    first.wait(3)
    equal(first.bodies + second.bodies, ["0", "1", "5", "2", "3", "4"])


@test()
def global_prefetch_is_the_channels_and_changes_at_once():
    at = channel()
    queue = declare(at)
    at.basic_qos(prefetch_count=3, global_qos=True)
    workers = [Worker(queue, at=at) for _ in range(2)]
    publish(at, queue, *map(str, range(10)))

    def held():
        return sum(len(w.deliveries) for w in workers)

    pump(lambda: held() == 3, at)
    pump(lambda: count(at, queue) == 7, at)
    at.basic_qos(prefetch_count=5, global_qos=True)
    pump(lambda: held() == 5, at)
    pump(lambda: count(at, queue) == 5, at)
    at.basic_ack(0, multiple=True)
    pump(lambda: held() == 10, at)


@test()
def consumer_priority_goes_first():
    at = channel()
    queue = declare(at)
    low = Worker(queue)
    high = Worker(queue, prefetch=2, arguments={"x-priority": 10})
    publish(at, queue, *map(str, range(5)))
    equal(high.wait(2).bodies + low.wait(3).bodies, ["0", "1", "2", "3", "4"])


@test()
def single_active_consumer():
    at = channel()
    queue = declare(at, single_active_consumer=True)
    active, waiting = Worker(queue), Worker(queue)
    publish(at, queue, "a", "b")
    equal(active.wait(2).bodies, ["a", "b"])
    equal(waiting.bodies, [])
    active.at.connection.close()
    equal(waiting.wait(2).bodies, ["a", "b"])
    equal(waiting.redelivered, [True, True])


# ---- acknowledgement and redelivery


@test()
def manual_ack_removes():
    at = channel()
    queue = declare(at)
    publish(at, queue, "a", "b", "c")
    worker = Worker(queue).wait(3)
    worker.at.basic_ack(worker.last_tag, multiple=True)
    worker.at.connection.close()
    equal(count(at, queue), 0)


@test()
def auto_ack_forgets_with_its_worker():
    at = channel()
    queue = declare(at)
    publish(at, queue, "a", "b", "c")
    worker = Worker(queue, auto_ack=True).wait(3)
    worker.at.connection.close()
    equal(count(at, queue), 0)


def redelivers(at, queue, end):
    """Five messages held by a worker that then ends go to one that waits: at once, in order, flagged."""
    waiting = Worker(queue, at=at)
    began = time.monotonic()
    end()
    waiting.wait(5, seconds=5)
    equal(waiting.bodies, ["0", "1", "2", "3", "4"])
    equal(waiting.redelivered, [True] * 5)
    if time.monotonic() - began > 2:
        raise AssertionError("redelivery took over 2 s")


@test()
def redelivery_when_the_channel_closes():
    at = channel()
    queue = declare(at)
    publish(at, queue, *"01234")
    redelivers(at, queue, Worker(queue).wait(5).at.close)


@test()
def redelivery_when_the_connection_closes():
    at = channel()
    queue = declare(at)
    publish(at, queue, *"01234")
    redelivers(at, queue, Worker(queue).wait(5).at.connection.close)


@test()
def redelivery_when_the_worker_is_killed():
    at = channel()
    queue = declare(at)
    publish(at, queue, *"01234")
    worker = spawn_worker(queue)
    equal([worker.stdout.readline().strip() for _ in range(5)], list("01234"))
    redelivers(at, queue, worker.kill)


@test()
def redelivery_when_the_heartbeat_stops():
    at = channel()
    queue = declare(at)
    publish(at, queue, *"01234")
    worker = spawn_worker(queue, heartbeat=1)
    equal([worker.stdout.readline().strip() for _ in range(5)], list("01234"))
    waiting = Worker(queue, at=at)
    worker.send_signal(signal.SIGSTOP)
    equal(waiting.wait(5, seconds=8).bodies, list("01234"))
    equal(waiting.redelivered, [True] * 5)


@test()
def redelivery_keeps_the_order_among_newer_ones():
    at = channel()
    queue = declare(at)
    publish(at, queue, *"01234567")
    worker = Worker(queue, prefetch=4).wait(4)
    worker.at.basic_ack(2)
    pump(lambda: len(worker.deliveries) == 5, worker.at)
    worker.at.connection.close()
    rest = Worker(queue, at=at).wait(7)
    equal(rest.bodies, ["0", "2", "3", "4", "5", "6", "7"])
    equal(rest.redelivered, [True] * 4 + [False] * 3)


@test()
def nack_and_reject_requeue_to_the_place_they_had():
    at = channel()
    queue = declare(at)
    publish(at, queue, "a", "b", "c", "d")
    tags = [at.basic_get(queue)[0].delivery_tag for _ in range(3)]
    at.basic_nack(tags[1], requeue=True)
    at.basic_reject(tags[0], requeue=True)
    at.basic_nack(tags[2], requeue=True)
    got = [at.basic_get(queue) for _ in range(4)]
    equal([body.decode() for _, _, body in got], ["a", "b", "c", "d"])
    equal([method.redelivered for method, _, _ in got], [True, True, True, False])
    at.basic_nack(got[2][0].delivery_tag, multiple=True, requeue=True)
    equal([at.basic_get(queue)[2].decode() for _ in range(3)], ["a", "b", "c"])


@test()
def nack_without_requeue_drops():
    at = channel()
    queue = declare(at)
    publish(at, queue, "a", "b")
    for _ in range(2):
        at.basic_reject(at.basic_get(queue)[0].delivery_tag, requeue=False)
    equal(count(at, queue), 0)


@test()
def recover_redelivers_what_is_unacked():
    at = channel()
    queue = declare(at)
    publish(at, queue, "a", "b")
    worker = Worker(queue, at=at).wait(2)
    at.basic_recover(requeue=True)
    worker.wait(4)
    equal(worker.bodies, ["a", "b", "a", "b"])
    equal(worker.redelivered, [False, False, True, True])
    equal(worker.last_tag, 4)


@test()
def unknown_delivery_tag():
    at = channel()
    refused(after(at, lambda: at.basic_ack(99)), 406, "PRECONDITION_FAILED - unknown delivery tag 99")
    at = at.connection.channel()
    queue = declare(at)
    publish(at, queue, "a")
    tag = at.basic_get(queue)[0].delivery_tag
    at.basic_ack(tag)
    refused(after(at, lambda: at.basic_ack(tag)), 406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
    at = at.connection.channel()
    publish(at, queue, "a")
    tag = at.basic_get(queue, auto_ack=True)[0].delivery_tag
    refused(after(at, lambda: at.basic_nack(tag)), 406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")


@test()
def ack_on_another_channel():
    connection = connect()
    owner, other = connection.channel(), connection.channel()
    queue = declare(owner)
    publish(owner, queue, "a")
    worker = Worker(queue, at=owner).wait(1)
    tag = worker.last_tag
    refused(after(other, lambda: other.basic_ack(tag)), 406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
    equal(owner.is_open, True)
    owner.basic_ack(tag)
    publish(owner, queue, "b")
    equal(worker.wait(2).bodies, ["a", "b"])
    owner.basic_ack(worker.last_tag)
    owner.basic_cancel(worker.tag)
    equal(count(owner, queue), 0)


def acknowledgement_times_out(queue, waits_ms, **options):
    at = channel()
    publish(at, queue, "a")
    first = Worker(queue, **options)
    first.wait(1)
    spare = Worker(queue, acks=True)
    began = time.monotonic()
    spare.wait(1, seconds=waits_ms / 1000 + 3)
    took = time.monotonic() - began
    if not waits_ms / 1000 - 0.1 <= took <= waits_ms / 1000 + 1.1:
        raise AssertionError(f"redelivered after {took:.2f} s")
    equal(spare.bodies + spare.redelivered, ["a", True])
    refused(
        first.at.basic_qos,
        406,
        f"PRECONDITION_FAILED - delivery acknowledgement on channel {first.at.channel_number} timed out. "
        f"Timeout value used: {waits_ms} ms. This timeout value can be configured, see consumers doc guide to "
        "learn more",
    )
    first.at.connection.channel().basic_qos()


@test("leveret")
def acknowledgement_timeout_of_the_queue():
    acknowledgement_times_out(declare(channel(), consumer_timeout=1000), 1000)


@test("leveret")
def acknowledgement_timeout_of_a_quorum_queue():
    acknowledgement_times_out(declare(channel(), consumer_timeout=1000, queue_type="quorum", durable=True), 1000)


@test("leveret")
def acknowledgement_timeout_of_the_consumer():
    acknowledgement_times_out(declare(channel()), 700, arguments={"x-consumer-timeout": 700})


@test("leveret")
def acknowledgement_timeout_that_cancels_the_consumer():
    at = channel()
    queue = declare(at, consumer_timeout=1000, consumer_timeout_action="cancel-consumer")
    publish(at, queue, "a", "b")
    late, cancelled = Worker(queue).wait(2), []
    late.at.basic_ack(late.last_tag)
    late.at.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    pump(lambda: cancelled == [late.tag], late.at, what="the end of the consumer")
    again = Worker(queue, at=late.at).wait(1)
    equal([again.bodies, again.redelivered], [["a"], [True]])


@test("leveret")
def acknowledgement_timeout_of_the_server():
    restart("term", "consumer_timeout_ms=1200")
    try:
        acknowledgement_times_out(declare(channel()), 1200)
    finally:
        restart("term", "consumer_timeout_ms=1800000")


@test()
def delivery_limit_of_a_quorum_queue():
    at = channel()
    dead = declare(at)
    queue = declare(
        at, durable=True, queue_type="quorum", delivery_limit=2, dead_letter_exchange="", dead_letter_routing_key=dead
    )
    publish(at, queue, "a", delivery_mode=2)
    worker = Worker(queue, at=at)
    for tries in range(1, 4):
        worker.wait(tries)
        at.basic_reject(worker.last_tag, requeue=True)
    properties = Worker(dead).wait(1).deliveries[0][1]
    equal(properties.headers["x-death"][0]["reason"], "delivery_limit")
    equal([p.headers.get("x-delivery-count") if p.headers else None for _, p, _ in worker.deliveries], [None, 1, 2])


# ---- declaring


@test()
def redeclaring_differently():
    at = channel()
    where = "for queue '{}' in vhost '/': received"
    lasting, passing = declare(at, durable=True), declare(at, durable=False)
    for name, had in ((lasting, "true"), (passing, "false")):
        at = channel()
        at.queue_declare(name, durable=had == "true")
        wants = "false" if had == "true" else "true"
        refused(
            lambda: at.queue_declare(name, durable=wants == "true"),
            406,
            f"PRECONDITION_FAILED - inequivalent arg 'durable' {where.format(name)} '{wants}' but current is '{had}'",
        )
    at = channel()
    refused(
        lambda: at.queue_declare(lasting, durable=True, auto_delete=True),
        406,
        f"PRECONDITION_FAILED - inequivalent arg 'auto_delete' {where.format(lasting)} 'true' but current is 'false'",
    )
    at = channel()
    refused(
        lambda: at.queue_declare(lasting, durable=True, arguments={"x-max-length": 5}),
        406,
        f"PRECONDITION_FAILED - inequivalent arg 'x-max-length' {where.format(lasting)} the value '5' of type "
        "'signedint' but current is none",
    )
    at = channel()
    at.queue_declare(lasting, durable=True, arguments={"x-of-nobody": "kept"})


@test()
def server_named_queues():
    at = channel()
    name = at.queue_declare("", exclusive=True).method.queue
    if not name.startswith("amq.gen-"):
        equal(name, "amq.gen-...")
    at.queue_bind("", "amq.direct", "key")
    at.basic_publish("amq.direct", "key", "a")
    worker = Worker("", at=at)
    equal(worker.wait(1).bodies, ["a"])
    other = at.queue_declare("", exclusive=True).method.queue
    equal(other != name, True)


@test()
def exclusive_queues():
    at, other = channel(), channel()
    queue = declare(at, exclusive=True)
    text = (
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be "
        "originally declared on another connection or the exclusive property value does not match that of the "
        "original declaration."
    )
    refused(lambda: other.queue_declare(queue, passive=True), 405, text)
    refused(lambda: other.connection.channel().basic_consume(queue, print), 405, text)
    at.connection.close()
    equal(other.connection.channel().queue_declare(queue, durable=True).method.message_count, 0)


@test()
def auto_delete_queues():
    at = channel()
    queue = declare(at, auto_delete=True)
    publish(at, queue, "a")
    at.basic_get(queue, auto_ack=True)
    first, second = Worker(queue), Worker(queue)
    first.at.basic_cancel(first.tag)
    equal(count(at, queue), 0)
    second.at.connection.close()
    pump(lambda: not exists(queue), at)


@test()
def exclusive_consumers():
    at = channel()
    queue = declare(at)
    Worker(queue, exclusive=True)
    refused(
        lambda: at.basic_consume(queue, print), 403, f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"
    )


@test()
def get_purge_and_delete_count():
    at = channel()
    queue = declare(at)
    equal(at.basic_get(queue)[0], None)
    publish(at, queue, "a", "b", "c", "d", "e")
    method, _, body = at.basic_get(queue)
    equal(count(at, queue), 4)
    equal((method.message_count, method.redelivered, method.routing_key, body), (4, False, queue, b"a"))
    equal(at.queue_purge(queue).method.message_count, 4)
    equal(at.basic_get(queue)[0], None)
    publish(at, queue, "f", "g")
    equal(at.queue_delete(queue).method.message_count, 2)
    equal(at.queue_delete(queue).method.message_count, 0)
    equal(exists(queue), False)


@test()
def refusals_close_the_channel_with_their_text():
    connection = connect()
    at = connection.channel()
    full = declare(at)
    publish(at, full, "a")
    used = declare(at)
    Worker(used)
    internal = fresh("exchange")
    at.exchange_declare(internal, "fanout", internal=True, auto_delete=True)
    at.queue_bind(full, internal)
    bad_user = pika.BasicProperties(user_id="somebody")
    bad_expiration = pika.BasicProperties(expiration="abc")
    no_queue = "NOT_FOUND - no queue 'nope' in vhost '/'"
    no_exchange = "NOT_FOUND - no exchange 'nope' in vhost '/'"
    for code, text, action in (
        (404, no_queue, lambda at: at.queue_declare("nope", passive=True)),
        (404, no_queue, lambda at: at.basic_consume("nope", print)),
        (404, no_queue, lambda at: at.basic_get("nope")),
        (404, no_queue, lambda at: at.queue_purge("nope")),
        (404, no_queue, lambda at: at.queue_bind("nope", "amq.direct", "k")),
        (404, no_exchange, lambda at: at.queue_bind(full, "nope", "k")),
        (404, no_exchange, lambda at: at.exchange_declare("nope", passive=True)),
        (404, no_exchange, lambda at: at.basic_publish("nope", "k", "a")),
        (403, "ACCESS_REFUSED - queue name 'amq.x' contains reserved prefix 'amq.*'",
         lambda at: at.queue_declare("amq.x")),
        (403, "ACCESS_REFUSED - exchange name 'amq.x' contains reserved prefix 'amq.*'",
         lambda at: at.exchange_declare("amq.x", "direct")),
        (403, "ACCESS_REFUSED - operation not permitted on the default exchange",
         lambda at: at.queue_bind(full, "", "k")),
        (403, f"ACCESS_REFUSED - cannot publish to internal exchange '{internal}' in vhost '/'",
         lambda at: at.basic_publish(internal, "k", "a")),
        (406, f"PRECONDITION_FAILED - queue '{full}' in vhost '/' not empty",
         lambda at: at.queue_delete(full, if_empty=True)),
        (406, f"PRECONDITION_FAILED - queue '{used}' in vhost '/' in use",
         lambda at: at.queue_delete(used, if_unused=True)),
        (406, f"PRECONDITION_FAILED - exchange '{internal}' in vhost '/' in use",
         lambda at: at.exchange_delete(internal, if_unused=True)),
        (406, f"PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received "
              "'fanout' but current is 'direct'",
         lambda at: at.exchange_declare("amq.direct", "fanout", durable=True)),
        (406, "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'",
         lambda at: at.basic_publish("", full, "a", bad_user)),
        (406, "PRECONDITION_FAILED - invalid expiration 'abc'", lambda at: at.basic_publish("", full, "a", bad_expiration)),
        (406, "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'nope' in vhost '/'",
         lambda at: at.queue_declare("nope", arguments={"x-message-ttl": -1})),
        (406, "PRECONDITION_FAILED - invalid arg 'x-max-length' for queue 'nope' in vhost '/'",
         lambda at: at.queue_declare("nope", arguments={"x-max-length": "many"})),
        (406, "PRECONDITION_FAILED - channel is not transactional", lambda at: at.tx_commit()),
        (406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode",
         lambda at: (at.tx_select(), at.confirm_delivery())),
    ):
        at = connection.channel()
        refused(after(at, lambda: action(at)), code, text, whole="invalid" not in text)
    equal(connection.is_open, True)


@test()
def refusals_close_the_connection_with_their_text():
    at = channel()
    refused(lambda: at.basic_qos(prefetch_size=10), 540, "NOT_IMPLEMENTED - prefetch_size!=0 (10)")
    at = channel()
    refused(lambda: at.basic_recover(requeue=False), 540, "NOT_IMPLEMENTED - requeue=false")


@test("leveret")
def unknown_exchange_type():
    at = channel()
    refused(lambda: at.exchange_declare(fresh("x"), "foo"), 406, "PRECONDITION_FAILED - unknown exchange type 'foo'")
    equal(at.connection.is_open, True)


@test()
def login_and_vhost():
    refused(
        lambda: connect(password="wrong"),
        403,
        "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.",
    )
    refused(lambda: connect(vhost="nope"), 530, "NOT_ALLOWED - vhost nope not found")


# ---- publishing


@test()
def mandatory_messages_return():
    at = channel()
    returned = []
    at.add_on_return_callback(lambda _c, method, properties, body: returned.append((method, properties, body)))
    at.basic_publish("amq.direct", "nowhere", "a", pika.BasicProperties(message_id="7"), mandatory=True)
    pump(lambda: returned, at)
    method, properties, body = returned[0]
    equal((method.reply_code, method.reply_text, method.exchange, method.routing_key, properties.message_id, body),
          (312, "NO_ROUTE", "amq.direct", "nowhere", "7", b"a"))
    at.confirm_delivery()
    try:
        at.basic_publish("amq.direct", "nowhere", "b", mandatory=True)
        raise AssertionError("not returned")
    except UnroutableError as error:
        equal([m.body for m in error.messages], [b"b"])
    at.basic_publish("amq.direct", "nowhere", "c")


@test(seconds=60)
def bodies_of_any_size_and_byte():
    at = channel()
    queue = declare(at)
    every = bytes(range(256))
    bodies = [b"", b"\xce", every, every * 4096, every * 81920]
    worker = Worker(queue, prefetch=1, acks=True)
    for n, body in enumerate(bodies):
        publish(at, queue, body)
        worker.wait(n + 1, seconds=30)
        equal(len(worker.deliveries[n][2]), len(body))
        equal(worker.deliveries[n][2] == body, True, f"body {n} unchanged")


@test()
def properties_come_back_whole():
    at = channel()
    queue = declare(at)
    headers = {
        "text": "zażółć \u2603", "bytes": bytes(range(256)), "true": True, "false": False, "int": -7, "long": 1 << 40,
        "decimal": decimal.Decimal("3.14"), "time": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc),
        "none": None, "list": [1, "two", [3, None], {"four": 4}], "table": {"nested": {"deeper": [True]}},
        "": "empty key",
    }
    wanted = pika.BasicProperties(
        content_type="application/json", content_encoding="utf-8", headers=headers, delivery_mode=2, priority=200,
        correlation_id="c" * 255, reply_to="r", expiration="60000", message_id="m", timestamp=1_700_000_000,
        type="t", user_id="guest", app_id="a", cluster_id="k",
    )
    at.basic_publish("", queue, "a", wanted)
    at.basic_publish("", queue, "b")
    equal(vars(at.basic_get(queue)[1]), vars(wanted))
    equal(vars(at.basic_get(queue)[1]), vars(pika.BasicProperties()))


@test()
def exchange_types_route():
    at = channel()
    queues_of = {}

    def bound(exchange, *keys, arguments=None):
        queue = declare(at)
        for key in keys:
            at.queue_bind(queue, exchange, key, arguments)
        queues_of[queue] = exchange
        return queue

    direct, fanout, topic, headers = (fresh(kind) for kind in ("direct", "fanout", "topic", "headers"))
    for name in (direct, fanout, topic, headers):
        at.exchange_declare(name, name.split("-")[0], auto_delete=True)
    red, both = bound(direct, "red"), bound(direct, "red", "blue")
    any_key = bound(fanout, "ignored")
    star, hash_, exact = bound(topic, "a.*.c"), bound(topic, "a.#", "#.a"), bound(topic, "a.b.c")
    all_of = bound(headers, "", arguments={"x-match": "all", "k": "v", "n": 1})
    any_of = bound(headers, "", arguments={"x-match": "any", "k": "v", "n": 1})
    at.exchange_bind(fanout, direct, "blue")

    def goes(exchange, key, wanted, **table):
        at.basic_publish(exchange, key, "a", pika.BasicProperties(headers=table))
        got = [name for name in queues_of if at.basic_get(name, auto_ack=True)[0]]
        equal(sorted(got), sorted(wanted), f"{exchange} {key} {table}")
        equal([count(at, name) for name in queues_of], [0] * len(queues_of), "copies left")

    goes(direct, "red", [red, both])
    goes(direct, "blue", [both, any_key])
    goes(direct, "green", [])
    goes(fanout, "x", [any_key])
    goes(topic, "a.b.c", [star, hash_, exact])
    goes(topic, "a", [hash_])
    goes(topic, "a..c", [star, hash_])
    goes(topic, "b.a", [hash_])
    goes(topic, "a.c", [hash_])
    goes(topic, "b.c", [])
    goes(headers, "", [all_of, any_of], k="v", n=1, other=True)
    goes(headers, "", [any_of], k="v")
    goes(headers, "", [], k="w")
    goes("", red, [red])
    at.queue_unbind(red, direct, "red")
    goes(direct, "red", [both])


@test()
def alternate_exchange():
    at = channel()
    spare, main = fresh("spare"), fresh("main")
    at.exchange_declare(spare, "fanout", auto_delete=True)
    at.exchange_declare(main, "direct", auto_delete=True, arguments={"alternate-exchange": spare})
    queue, caught = declare(at), declare(at)
    at.queue_bind(queue, main, "known")
    at.queue_bind(caught, spare)
    at.confirm_delivery()
    at.basic_publish(main, "known", "a", mandatory=True)
    at.basic_publish(main, "other", "b", mandatory=True)
    equal((at.basic_get(queue)[2], at.basic_get(caught)[2]), (b"a", b"b"))


@test()
def cc_and_bcc():
    at = channel()
    one, two, three = (declare(at) for _ in range(3))
    at.basic_publish("", one, "a", pika.BasicProperties(headers={"CC": [two, one], "BCC": [three]}))
    for name in (one, two, three):
        method, properties, _ = at.basic_get(name)
        equal((method.message_count, properties.headers), (0, {"CC": [two, one]}))


@test()
def transactions():
    at, other = channel(), channel()
    queue = declare(other)
    at.tx_select()
    publish(at, queue, "a", "b")
    at.basic_qos(prefetch_count=0)
    equal(count(other, queue), 0)
    at.tx_commit()
    equal(count(other, queue), 2)
    publish(at, queue, "c")
    at.tx_rollback()
    equal(count(other, queue), 2)
    tag = at.basic_get(queue)[0].delivery_tag
    at.basic_ack(tag)
    at.tx_rollback()
    at.basic_ack(tag)
    at.tx_commit()
    at.basic_ack(at.basic_get(queue)[0].delivery_tag)
    at.connection.close()
    method, _, body = other.basic_get(queue)
    equal((body, method.redelivered, method.message_count), (b"b", True, 0))


@test()
def direct_reply_to():
    client, server = channel(), channel()
    queue = declare(server)
    replies = Worker("amq.rabbitmq.reply-to", auto_ack=True, at=client)
    publish(client, queue, "ping", reply_to="amq.rabbitmq.reply-to", correlation_id="1")
    _, request, _ = Worker(queue, acks=True, at=server).wait(1).deliveries[0]
    if not request.reply_to.startswith("amq.rabbitmq.reply-to."):
        equal(request.reply_to, "amq.rabbitmq.reply-to....")
    publish(server, request.reply_to, "pong", correlation_id=request.correlation_id)
    method, reply, body = replies.wait(1).deliveries[0]
    equal((method.exchange, method.redelivered, reply.correlation_id, body), ("", False, "1", b"pong"))
    lone = channel()
    refused(
        after(lone, lambda: publish(lone, queue, "x", reply_to="amq.rabbitmq.reply-to")),
        406,
        "PRECONDITION_FAILED - fast reply consumer does not exist",
    )


@test()
def consumers_hear_of_their_queues_end():
    at, other = channel(), channel()
    queue = declare(other)
    worker = Worker(queue, at=at)
    cancelled = []
    at.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    other.queue_delete(queue)
    pump(lambda: cancelled, at)
    equal(cancelled, [worker.tag])
    equal(at.is_open, True)


# ---- limits of queues


@test()
def message_ttl():
    at = channel()
    dead = declare(at)
    dead_letters = Worker(dead)
    to_dead = {"dead_letter_exchange": "", "dead_letter_routing_key": dead}
    of_queue = declare(at, message_ttl=200, **to_dead)
    of_message = declare(at, **to_dead)
    began = time.monotonic()
    publish(at, of_queue, "of-queue")
    publish(at, of_message, "of-message", expiration="300")
    publish(at, of_message, "stays")
    publish(at, of_queue, "the-smaller", expiration="60000")
    dead_letters.wait(3)
    equal(sorted(dead_letters.bodies), ["of-message", "of-queue", "the-smaller"])
    took = time.monotonic() - began
    if not 0.29 <= took <= 2:
        raise AssertionError(f"expired after {took:.2f} s")
    equal([count(at, of_queue), count(at, of_message)], [0, 1])


@test()
def ttl_of_zero_reaches_only_a_waiting_consumer():
    at = channel()
    queue = declare(at, message_ttl=0)
    publish(at, queue, "lost")
    pump(lambda: count(at, queue) == 0, at)
    worker = Worker(queue, at=at)
    publish(at, queue, "seen")
    equal(worker.wait(1).bodies, ["seen"])


@test()
def unused_queues_expire():
    at = channel()
    used, clock = declare(at, expires=300), declare(at, expires=700)
    Worker(used)
    pump(lambda: not exists(clock), at, what="the expiry of an unused queue")
    equal(exists(used), True)


@test()
def max_length_drops_the_head():
    at = channel()
    dead = declare(at)
    by_count = declare(at, max_length=3, dead_letter_exchange="", dead_letter_routing_key=dead)
    by_bytes = declare(at, max_length_bytes=10)
    publish(at, by_count, *"abcde")
    publish(at, by_bytes, "aaaa", "bbbb", "cccc")
    equal([at.basic_get(by_count, auto_ack=True)[2] for _ in range(3)], [b"c", b"d", b"e"])
    equal([at.basic_get(by_bytes, auto_ack=True)[2] for _ in range(2)], [b"bbbb", b"cccc"])
    letters = Worker(dead).wait(2)
    equal(letters.bodies, ["a", "b"])
    equal(letters.deliveries[0][1].headers["x-death"][0]["reason"], "maxlen")


@test()
def reject_publish_nacks():
    at = channel()
    queue = declare(at, max_length=2, overflow="reject-publish")
    at.confirm_delivery()
    publish(at, queue, "a", "b")
    try:
        publish(at, queue, "c")
        raise AssertionError("not refused")
    except NackError:
        pass
    equal(at.basic_get(queue)[2], b"a")
    publish(at, queue, "d")
    equal(count(at, queue), 2)


@test()
def dead_letters_tell_their_death():
    at = channel()
    exchange, dead = fresh("dlx"), declare(at)
    at.exchange_declare(exchange, "topic", auto_delete=True)
    at.queue_bind(dead, exchange, "#")
    queue = declare(at, dead_letter_exchange=exchange)
    began = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=2)
    publish(at, queue, "a", headers={"mine": 1}, expiration="60000")
    at.basic_nack(at.basic_get(queue)[0].delivery_tag, requeue=False)
    letters = Worker(dead, at=at).wait(1)
    method, properties, body = letters.deliveries[0]
    equal((method.exchange, method.routing_key, method.redelivered, body), (exchange, queue, False, b"a"))
    equal(properties.expiration, None)
    headers = properties.headers
    death = headers["x-death"][0]
    equal(len(headers["x-death"]), 1)
    died = death.pop("time")
    if not began <= died <= began + datetime.timedelta(seconds=30):
        raise AssertionError(f"x-death time {died}")
    equal(death, {"count": 1, "reason": "rejected", "queue": queue, "exchange": "", "routing-keys": [queue],
                  "original-expiration": "60000"})
    equal({k: headers[k] for k in ("mine", "x-first-death-reason", "x-first-death-queue", "x-first-death-exchange")},
          {"mine": 1, "x-first-death-reason": "rejected", "x-first-death-queue": queue, "x-first-death-exchange": ""})


@test()
def retry_through_a_waiting_queue_counts_deaths():
    at = channel()
    work = fresh()
    wait = declare(at, message_ttl=50, dead_letter_exchange="", dead_letter_routing_key=work)
    at.queue_declare(work, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": wait})
    publish(at, work, "a")
    worker = Worker(work, at=at)
    for tries in range(1, 4):
        worker.wait(tries)
        if tries < 3:
            at.basic_reject(worker.last_tag, requeue=False)
    deaths = worker.deliveries[-1][1].headers["x-death"]
    equal([(d["queue"], d["reason"], d["count"]) for d in deaths], [(wait, "expired", 2), (work, "rejected", 2)])


@test()
def priorities():
    at = channel()
    queue = declare(at, max_priority=5)
    for body, priority in (("a", None), ("b", 3), ("c", 5), ("d", 9), ("e", 3), ("f", 0)):
        publish(at, queue, body, priority=priority)
    at.queue_declare(queue, passive=True)  # all are in the queue when this is answered
    equal(Worker(queue, prefetch=1, acks=True).wait(6).bodies, ["c", "d", "b", "e", "a", "f"])


# ---- durability


def durable_world():
    """A durable queue with a, b (acknowledged), c (unacknowledged), d, e and a transient one; a durable binding."""
    at = channel()
    exchange, queue, passing = fresh("durable"), declare(at, durable=True), declare(at)
    at.exchange_declare(exchange, "direct", durable=True)
    at.queue_bind(queue, exchange, "key")
    at.confirm_delivery()
    for body in "abcde":
        at.basic_publish(exchange, "key", body, PERSISTENT)
    publish(at, queue, "transient", delivery_mode=1)
    publish(at, passing, "gone", delivery_mode=2)
    at.basic_get(queue)
    at.basic_ack(at.basic_get(queue)[0].delivery_tag)
    at.basic_get(queue)
    return at, exchange, queue, passing


@test("restart", seconds=90)
def clean_restart_keeps_what_is_durable():
    at, exchange, queue, passing = durable_world()
    restarting = threading.Thread(target=restart, args=("term",))
    restarting.start()
    try:
        pump(lambda: False, at)
    except ConnectionClosedByBroker as error:
        equal(error.reply_code, 320)
        equal(error.reply_text, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'")
    restarting.join()
    at = channel()
    left = Worker(queue, at=at).wait(4)
    equal(left.bodies, ["a", "c", "d", "e"])
    equal(left.redelivered[:2], [True, True])
    equal(exists(passing), False)
    at.basic_publish(exchange, "key", "routed", PERSISTENT)
    equal(left.wait(5).bodies[4:], ["routed"])
    at.exchange_delete(exchange)


@test("restart", seconds=90)
def a_killed_server_keeps_what_is_durable():
    _, exchange, queue, passing = durable_world()
    restart("kill")
    at = channel()
    left = Worker(queue, at=at).wait(4)
    at.basic_publish(exchange, "key", "routed", PERSISTENT)
    pump(lambda: "routed" in left.bodies, at)
    equal([body for body in left.bodies if body != "b"], ["a", "c", "d", "e", "routed"])
    equal(left.redelivered[0], True)
    equal(exists(passing), False)
    at.exchange_delete(exchange)


@test("restart", seconds=120)
def confirmed_messages_survive_a_kill():
    at = channel()
    queue = declare(at, durable=True)
    at.confirm_delivery()
    confirmed, kill_at = 0, random.randrange(20, 480)
    killing = threading.Thread(target=restart, args=("kill",))
    try:
        for n in range(500):
            if n == kill_at:
                killing.start()
            at.basic_publish("", queue, str(n), PERSISTENT)
            confirmed += 1
    except AMQPConnectionError:
        pass
    killing.join()
    at = channel()
    bodies = []
    while (got := at.basic_get(queue, auto_ack=True))[0]:
        bodies.append(int(got[2]))
    equal(bodies, list(range(len(bodies))), f"killed near {kill_at}")
    if len(bodies) < confirmed:
        raise AssertionError(f"{confirmed} confirmed, {len(bodies)} there after a kill near {kill_at}")


@test("restart", seconds=90)
def committed_transactions_survive_a_kill():
    at = channel()
    queue = declare(at, durable=True)
    at.tx_select()
    publish(at, queue, *"abc", delivery_mode=2)
    at.tx_commit()
    publish(at, queue, "d", delivery_mode=2)
    restart("kill")
    at = channel()
    equal([at.basic_get(queue)[2] for _ in range(4)], [b"a", b"b", b"c", None])


@test("restart")
def publishers_are_blocked_while_disk_space_is_short():
    at = channel()
    queue = declare(at, durable=True)
    reasons, unblocked = [], []
    at.connection.add_on_connection_blocked_callback(lambda _, method: reasons.append(method.method.reason))
    at.connection.add_on_connection_unblocked_callback(lambda _, method: unblocked.append(method))
    publish(at, queue, "a", "b", delivery_mode=2)
    limit_free_disk("1000TB")
    try:
        worker = Worker(queue, acks=True)
        worker.wait(2)
        publish(at, queue, "c", delivery_mode=2)
        pump(lambda: reasons, at, what="connection.blocked")
        publish(at, queue, "d", "e", delivery_mode=2)
        late = channel()
        late.connection.add_on_connection_blocked_callback(lambda _, method: reasons.append(method.method.reason))
        publish(late, queue, "f", delivery_mode=2)
        pump(lambda: len(reasons) == 2, late, what="connection.blocked for one that came during the alarm")
        pump(lambda: count(worker.at, queue) == 0, worker.at)
        equal(unblocked, [])
    finally:
        limit_free_disk("50MB")
    pump(lambda: unblocked, at, what="connection.unblocked")
    worker.wait(6)
    equal([body for body in worker.bodies if body != "f"], ["a", "b", "c", "d", "e"])
    equal(reasons, ["low on disk", "low on disk"])


@test("restart", seconds=60)
def a_blocked_publisher_outlives_its_heartbeats():
    at = connect(heartbeat=2).channel()
    queue = declare(at)
    reasons = []
    at.connection.add_on_connection_blocked_callback(lambda _, method: reasons.append(method.method.reason))
    limit_free_disk("1000TB")
    try:
        publish(at, queue, "a")
        pump(lambda: reasons, at, what="connection.blocked")
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            at.connection.process_data_events(time_limit=0.1)
    finally:
        limit_free_disk("50MB")
    publish(at, queue, "b")
    equal(Worker(queue).wait(2).bodies, ["a", "b"])


@test("restart", seconds=60)
def a_stop_does_not_wait_for_the_blocked():
    at = channel()
    queue = declare(at, durable=True)
    at.confirm_delivery()
    at.basic_publish("", queue, "a", PERSISTENT)
    limit_free_disk("1000TB")
    reasons = []
    blocked = channel()
    blocked.connection.add_on_connection_blocked_callback(lambda _, method: reasons.append(method.method.reason))
    publish(blocked, queue, "b", "c", delivery_mode=2)
    pump(lambda: reasons, blocked, what="connection.blocked")
    began = time.monotonic()
    restart("term")
    if time.monotonic() - began > 8:
        raise AssertionError(f"it took {time.monotonic() - began:.1f} s")
    at = channel()
    publish(at, queue, "d", delivery_mode=2)
    equal(Worker(queue).wait(2).bodies[0], "a")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        hold_messages(sys.argv[2], int(sys.argv[3]))
    else:
        run(around)

#!/usr/bin/env python3
"""What delayed messages cost and how late they come: `python3 tests/crash/delayed.py [--messages N] [--rate N]`.

Fills a queue with messages that are due at any time within a day, kills the server and starts it again, does the same
with as many that are ready, and then, with all those waiting, has messages become due at a steady rate. Prints memory per
message, the time of each start, and how late the deliveries were.
"""

import argparse
import random
import struct
import tempfile
import time
from pathlib import Path

from server import Server
from wire import Wire, _frame, _long, _short

BODY = 16
BATCH = 500


def publishes(queue, delays, bodies):
    """Persistent publishes, each with its delay in milliseconds; without one where that is None."""
    method = _frame(1, 1, struct.pack(">HH", 60, 40) + b"\0\0\0" + _short(queue) + b"\0")
    out = []
    for delay, body in zip(delays, bodies):
        if delay is None:
            properties = struct.pack(">H", 0x1000) + b"\x02"
        else:
            headers = _long(_short("x-delay") + b"l" + struct.pack(">q", delay))
            properties = struct.pack(">H", 0x3000) + headers + b"\x02"
        header = struct.pack(">HHQ", 60, 0, len(body)) + properties
        out += [method, _frame(2, 1, header), _frame(3, 1, body)]
    return b"".join(out)


def resident(server):
    """Bytes that are not in files: the same for every size of log."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024


def settled(server):
    """The allocator gives back what it does not need after a while."""
    time.sleep(12)
    return resident(server)


def fill(server, queue, delays):
    wire = Wire(server.port, 120)
    wire.declare(queue)
    wire.confirm_select()
    for at in range(0, len(delays), BATCH):
        part = delays[at : at + BATCH]
        wire.write(publishes(queue, part, [b"x" * BODY] * len(part)))
        wire.published += len(part)
        while wire.published - len(wire.confirmed) > 20 * BATCH:
            wire.pump(1)
    while len(wire.confirmed) < wire.published:
        wire.pump(1)
    wire.close()


def measure_start(server):
    """Kills it and tells how long the next start takes."""
    server.kill()
    begun = time.monotonic()
    server.start()
    return time.monotonic() - begun


def measure_filled(what, delays):
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory)
        wire = Wire(server.port)
        wire.declare("filled")
        before = settled(server)
        fill(server, "filled", delays)
        after = settled(server)
        listed = server.ask("list_queues", "messages_ready", "messages_delayed", "memory").split()
        seconds = measure_start(server)
        restarted = settled(server)
        counted = server.ask("list_queues", "messages_ready", "messages_delayed", "memory").split()
        each = lambda octets: f"{octets / len(delays):.1f}"
        print(f"{what}: {len(delays)} messages; ready, delayed, memory listed: {listed}, after the start {counted}")
        print(f"  memory per message: {each(after - before)} bytes, after the start {each(restarted - before)} bytes")
        print(f"  start after SIGKILL: {seconds * 1000:.0f} ms")
        if what == "delayed":
            return measure_lateness(server)
        server.kill()


def measure_lateness(server):
    publisher, consumer = Wire(server.port, 120), Wire(server.port, 120)
    publisher.declare("due")
    consumer.consume("due", no_ack=True)
    count, start = RATE * SECONDS, time.time() + 6
    due = [start + number / RATE for number in range(count)]
    random.shuffle(due)
    for at in range(0, count, BATCH):
        part, now = due[at : at + BATCH], time.time()
        delays = [max(1, round((when - now) * 1000)) for when in part]
        publisher.write(publishes("due", delays, [struct.pack(">d", when) + b"x" * (BODY - 8) for when in part]))
        publisher.pump(0)
        assert time.time() < start, "the machine is too slow to publish before the first is due"
    late = []
    deadline = start + SECONDS + 30
    while len(late) < count and time.time() < deadline:
        consumer.pump(0.01)
        now = time.time()
        late += [now - struct.unpack_from(">d", delivery.body)[0] for delivery in consumer.deliveries]
        consumer.deliveries.clear()
    assert len(late) == count, f"{len(late)} of {count} came"
    late.sort()
    at = lambda share: late[min(count - 1, int(count * share))] * 1000
    print(f"lateness at {RATE}/s becoming due for {SECONDS} s, in the order of time, published in no order:")
    print(f"  earliest {late[0] * 1000:.1f} ms, p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, p99.9 {at(0.999):.1f} ms, max {late[-1] * 1000:.1f} ms")
    server.kill()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--messages", type=int, default=1_000_000)
parser.add_argument("--rate", type=int, default=5_000)
parser.add_argument("--seconds", type=int, default=10)
arguments = parser.parse_args()
RATE, SECONDS = arguments.rate, arguments.seconds
random.seed(5)
measure_filled("ready", [None] * arguments.messages)
measure_filled("delayed, all the same", [3_600_000] * arguments.messages)
measure_filled("delayed", [random.randrange(3_600_000, 90_000_000) for _ in range(arguments.messages)])
